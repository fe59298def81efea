"""Code that the README quotes is the code that runs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_quoted_functions_are_those_of_the_source():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quotes = re.findall(r"```python\n((?:@|def ).*?)```\n\(`([^`]+)`", readme, re.DOTALL)
    assert any(path == "tinyplm/layers/norm.py" for _, path in quotes)
    for code, path in quotes:
        assert code in (ROOT / path).read_text(encoding="utf-8"), f"README.md: {code.splitlines()[0]} is not what {path} has"
    assert len(quotes) == len(re.findall(r"```python\n(?:@|def )", readme)), "a quote without the path of its source"
