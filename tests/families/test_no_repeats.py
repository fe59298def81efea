"""Shared family code lives in one place: no two files in tinyplm/families share more than 12 consecutive
lines, ignoring names.

Names compare as equal, as do numbers and strings.  Docstrings, comments, blank lines, imports and SIZES
(a table of published numbers) do not count.
"""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from pathlib import Path

import pytest

import tinyplm.families

FAMILIES = sorted(Path(tinyplm.families.__file__).parent.glob("*.py"))
MOST = 12
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def left_out(tree: ast.Module) -> set[int]:
    """The lines of docstrings, imports and SIZES."""

    def skipped(node: ast.AST) -> bool:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return ast.unparse(targets[0]) == "SIZES"
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        return docstring or isinstance(node, (ast.Import, ast.ImportFrom))

    nodes = [node for node in ast.walk(tree) if skipped(node)]
    return {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)}


def normal_form(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
        return "name"
    return {tokenize.NUMBER: "number", tokenize.STRING: "string"}.get(token.type, token.string)


def lines_of(source: str) -> list[tuple[int, str]]:
    """(line number, normal form) of each line that counts."""
    skipped = left_out(ast.parse(source))
    forms: dict[int, list[str]] = {}
    fstrings = 0  # number of open f-strings: Python 3.12 tokenizes the parts of an f-string
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        row = token.start[0]
        if kind == "FSTRING_END":
            fstrings -= 1
        elif kind == "FSTRING_START":
            fstrings += 1
            if fstrings == 1 and row not in skipped:
                forms.setdefault(row, []).append("string")
        elif not fstrings and token.type not in LAYOUT and token.string and row not in skipped:
            forms.setdefault(row, []).append(normal_form(token))
    return [(row, " ".join(forms[row])) for row in sorted(forms)]


def longest_run(a: list[tuple[int, str]], b: list[tuple[int, str]]) -> tuple[int, int, int]:
    """(length, line in a, line in b) of the longest run of lines common to both."""
    best = (0, 0, 0)
    before: dict[int, int] = {}  # index in b -> length of the run ending there
    for i, (_, line) in enumerate(a):
        here = {j: before.get(j - 1, 0) + 1 for j, (_, other) in enumerate(b) if line == other}
        for j, length in here.items():
            if length > best[0]:
                best = (length, a[i - length + 1][0], b[j - length + 1][0])
        before = here
    return best


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)
def test_no_two_families_have_a_run_of_lines_in_common(path):
    lines = lines_of(path.read_text(encoding="utf-8"))
    repeats = []
    for other in FAMILIES[FAMILIES.index(path) + 1 :]:
        length, line, place = longest_run(lines, lines_of(other.read_text(encoding="utf-8")))
        if length > MOST:
            repeats.append(f"{length} lines: {path.name}:{line} and {other.name}:{place}")
    assert not repeats, "\n".join(repeats)


def test_a_repetition_with_other_names_is_found():
    block = "\n".join(f"    x{n} = f{n}(y, {n}, 'a')" for n in range(MOST + 1))
    a = f'"""One."""\nimport os\n\ndef f(y):\n{block}\n    return y\n'
    renamed = block.replace("x", "hidden_").replace("'a'", "'other'").replace("    ", "    ", 1)
    b = f"import sys\nSIZES = {{\n    1: 2\n}}\n\ndef g(a, b):\n    # why\n{renamed}\n    yield a\n"
    assert longest_run(lines_of(a), lines_of(b)) == (MOST + 1, 5, 8)
    assert len(lines_of(b)) == MOST + 3


def test_docstrings_imports_and_sizes_do_not_count():
    skipped = '"""A\nB"""\nfrom x import (\n    y,\n)\n\nSIZES = {\n    "a": 1,\n}\n\n'
    assert lines_of(f'{skipped}z = f"{{y}} {{1}}"  # why\n') == [(11, "name = string")]
