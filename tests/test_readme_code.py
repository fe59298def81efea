"""The documents: quoted code is the source's, code runs, command lines parse, links lead somewhere, both READMEs say the same.

Code that imports torch runs in tests/interop/test_readme_code.py.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.documents import (
    SPAN,
    blocks,
    command_lines,
    indented,
    needs_torch,
    prepare,
    prose,
    run_blocks,
    script_lines,
    text_of,
)
from tests.support.scripts import EXAMPLES, ROOT
from tinyplm import cli

CHINESE = "README.zh-CN.md"
DOCUMENTS = ("README.md", "docs/usage.md", "CONTRIBUTING.md")
LINK = re.compile(r"\]\(([^)]+)\)")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_quoted_code_is_that_of_the_source(document):
    for code, path in blocks(document):
        if path:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert code in source, f"{document}: {code.splitlines()[0]} differs from {path}"
        else:
            assert not code.startswith(("@", "def ")), f"{document}: {code.splitlines()[0]}: no file"


def test_the_readme_shows_a_layer():
    assert any(path.startswith("tinyplm/layers/") for _, path in blocks("README.md"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_runs(document, trained, tmp_path, monkeypatch):
    """The blocks in order in one namespace, with fewer steps and tokens."""
    monkeypatch.chdir(tmp_path)
    names = prepare(trained, monkeypatch)
    run_blocks(document, [code for code, path in blocks(document) if not path and not needs_torch(code)], names)


# --------------------------------------------------------------------------------------------------------- command lines

LINES = [(d, line) for d in ("README.md", CHINESE, "docs/usage.md", "CONTRIBUTING.md") for line in command_lines(d)]
LINES += [(".ci/run", line) for line in script_lines(".ci/run")]


@pytest.fixture(scope="module")
def parsers():
    """The parser of each command, and of each example that a document runs, by the first words of the line."""
    found = {("tinyplm", name): parser for name, parser in cli.parsers()[1].items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        for name in sorted({line[0] for _, line in LINES} - {"tinyplm"}):
            found[(name,)] = runpy.run_path(str(ROOT / name))["parser"]()
        for name in ("skills", "dpo"):
            sys.modules.pop(name, None)
    return found


def test_command_lines_are_found():
    """Guards the next test: among the lines are those that a user tries first."""
    first = {tuple(line[:2]) for document, line in LINES if document == "README.md"}
    assert {("tinyplm", name) for name in ("pretrain", "sft", "chat", "grpo", "check")} <= first
    assert ("examples/gradient_check.py", "layernorm") in first and len(LINES) > 60


def test_command_lines_parse(parsers):
    for document, line in LINES:
        own = 2 if line[0] == "tinyplm" else 1
        assert tuple(line[:own]) in parsers, f"{document}: {' '.join(line)}"
        parser = parsers[tuple(line[:own])]
        try:
            given = vars(parser.parse_args(line[own:]))
        except ValueError as error:
            raise AssertionError(f"{document}: {' '.join(line)}: {error}") from None
        missing = set() if {"config", "resume"} & given.keys() else parser.needed - given.keys()
        assert not missing, f"{document}: {' '.join(line)}: {missing}"


def table_commands(document):
    rows = re.findall(r"^\| (`.*?) \|", prose(document), re.MULTILINE)
    return [name for row in rows for name in SPAN.findall(row)]


def test_the_table_has_every_command_once():
    assert sorted(table_commands("README.md")) == sorted(cli.COMMANDS)


# ----------------------------------------------------------------------------------------------------- links and languages


@pytest.mark.parametrize("document", [*DOCUMENTS, CHINESE])
def test_links_and_named_files_exist(document):
    here = (ROOT / document).parent
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for _, title in HEADING.findall(prose(document))}
    for target in LINK.findall(prose(document)):
        if target.startswith("#"):
            assert target[1:] in anchors, f"{document}: {target}"
        elif "://" not in target:
            assert (here / target).exists(), f"{document}: {target}"
    for span in SPAN.findall(prose(document)):
        if re.fullmatch(r"(tinyplm|reference|tests|examples|benchmarks|docs)(/[\w.]+)+/?", span):
            assert (ROOT / span).exists() or "NAME" in span, f"{document}: {span}"


def sections(document):
    """The text of the document from each heading to the next, without fenced blocks."""
    return re.split(r"^#+ .*$", prose(document), flags=re.MULTILINE)


def test_both_readmes_say_the_same():
    english, chinese = (text_of(name) for name in ("README.md", CHINESE))
    assert "README.zh-CN.md" in english.splitlines()[2] and "README.md" in chinese.splitlines()[2]
    assert blocks("README.md") == blocks(CHINESE)
    assert indented("README.md") == indented(CHINESE)  # commands and records; comments may be translated
    assert table_commands("README.md") == table_commands(CHINESE)
    assert [level for level, _ in HEADING.findall(prose("README.md"))] == [level for level, _ in HEADING.findall(prose(CHINESE))]
    for own, theirs in zip(sections("README.md"), sections(CHINESE), strict=True):
        title = own.strip()[:40]
        links = [Counter(LINK.findall(part)) - Counter(["README.md", CHINESE]) for part in (own, theirs)]
        assert links[0] == links[1], title
        assert Counter(SPAN.findall(own)) == Counter(SPAN.findall(theirs)), title  # names, options, values
        assert own.count("\n\n") == theirs.count("\n\n"), title  # paragraphs


@pytest.mark.parametrize("document", [*DOCUMENTS, CHINESE])
def test_lines_fit(document):
    """130 columns; a Chinese character takes two."""
    for number, line in enumerate(text_of(document).splitlines(), 1):
        width = sum(1 + (ord(letter) >= 0x2E80) for letter in line)
        assert width <= 130 or line.startswith("|"), f"{document}:{number}: {width}"


def test_what_packages_need_is_packed():
    packed = text_of("MANIFEST.in")
    assert 'here / "README.md"' in text_of("setup.py") and "recursive-include docs *.md" in packed
    for name in [*DOCUMENTS, CHINESE, "DESIGN.md", "CITATION.cff"]:
        assert name == "README.md" or name in packed or Path(name).parent.name == "docs", name
