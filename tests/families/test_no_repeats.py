"""Shared family code lives in one place: no two files in tinyplm/families share more than 12 consecutive
lines, ignoring names.

Names compare as equal, as do numbers and strings.  Docstrings, comments, blank lines, imports and SIZES
(a table of published numbers) do not count.
"""

from __future__ import annotations

import ast
import functools
import io
import itertools
import keyword
import tokenize
from pathlib import Path

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


@functools.cache
def read(path: Path) -> tuple[list[tuple[int, str]], frozenset[tuple[str, ...]]]:
    """(lines_of a file, its runs of more than MOST lines)."""
    lines = lines_of(path.read_text(encoding="utf-8"))
    forms = [form for _, form in lines]
    return lines, frozenset(tuple(forms[n : n + MOST + 1]) for n in range(len(forms) - MOST))


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


def repeated(files: list[Path]) -> list[str]:
    """The longest run of each two files that have more than MOST lines in common."""
    found = []
    for path, other in itertools.combinations(files, 2):
        (lines, runs), (others, other_runs) = read(path), read(other)
        if not runs.isdisjoint(other_runs):
            length, line, place = longest_run(lines, others)
            found.append(f"{length} lines: {path.name}:{line} and {other.name}:{place}")
    return found


def test_no_two_families_have_a_run_of_lines_in_common():
    repeats = repeated(FAMILIES)
    assert not repeats, "\n".join(repeats)


def test_a_repetition_with_other_names_is_found(tmp_path):
    block = "\n".join(f"    x{n} = f{n}(y, {n}, 'a')" for n in range(MOST + 1))
    a = f'"""One."""\nimport os\n\ndef f(y):\n{block}\n    return y\n'
    renamed = block.replace("x", "hidden_").replace("'a'", "'other'").replace("    ", "    ", 1)
    b = f"import sys\nSIZES = {{\n    1: 2\n}}\n\ndef g(a, b):\n    # why\n{renamed}\n    yield a\n"
    assert longest_run(lines_of(a), lines_of(b)) == (MOST + 1, 5, 8)
    assert len(lines_of(b)) == MOST + 3
    for name, text in (("a", a), ("b", b), ("c", "x = 1\n" * (MOST + 1))):
        (tmp_path / f"{name}.py").write_text(text)
    assert repeated([tmp_path / f"{name}.py" for name in "abc"]) == [f"{MOST + 1} lines: a.py:5 and b.py:8"]
    shorter = a.replace("    return y", "").rsplit("\n", 3)[0]  # one line less is allowed
    (tmp_path / "shorter.py").write_text(shorter)
    assert longest_run(lines_of(shorter), lines_of(b))[0] == MOST and repeated([tmp_path / "shorter.py", tmp_path / "b.py"]) == []


def test_docstrings_imports_and_sizes_do_not_count():
    skipped = '"""A\nB"""\nfrom x import (\n    y,\n)\n\nSIZES = {\n    "a": 1,\n}\n\n'
    assert lines_of(f'{skipped}z = f"{{y}} {{1}}"  # why\n') == [(11, "name = string")]
