"""The tables of benchmarks/ and the comparison of two of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WRITE = """
import sys
from pathlib import Path
from table import Table
table = Table("what", {"ms": ".1f", "share": ".0%"}, file=Path(sys.argv[1]), note="a note")
for label, value in zip(sys.argv[2::2], sys.argv[3::2]):
    table.row(label, float(value), None if label == "empty" else 0.5)
"""


def python(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=BENCHMARKS, capture_output=True, text=True)


def cells(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[0] == "|"]


def test_a_table_is_printed_written_and_compared(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    first = python("-c", WRITE, old, "gpt2", 10, "empty", 3, "gone", 1)
    assert first.stdout.startswith("a note\n")
    assert cells(first.stdout)[0] == ["what", "ms", "share"]
    assert cells(first.stdout)[2:4] == [["gpt2", "10.0", "50%"], ["empty", "3.0", "-"]]
    python("-c", WRITE, new, "gpt2", 12.5, "empty", 3, "more", 1)
    compared = python("compare.py", old, new)
    assert cells(compared.stdout)[2:] == [["gpt2", "1.250", "1.000"], ["empty", "1.000", "-"]]
    assert compared.stderr == "only in old: gone\nonly in new: more\n"


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "wrong.json").write_text("[]")
    for name, message in (
        ("wrong.json", "expected a table written by a benchmark"),
        ("none.json", "No such file"),
    ):
        compared = python("compare.py", tmp_path / name, tmp_path / name)
        assert compared.returncode == 1 and message in compared.stderr and compared.stderr.count("\n") == 1
