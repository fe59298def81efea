"""Compare two runs of a benchmark: each cell's new value over its old value.

    python benchmarks/compare.py OLD.json NEW.json

The benchmark scripts write these files (`--json`).  Times are comparable only on the same machine;
ratios to a peer are comparable across machines.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from table import Table


def read(path: Path) -> dict:
    content = json.loads(path.read_text(encoding="utf-8"))
    if (
        not isinstance(content, dict)
        or not {"label", "columns", "rows", "machine"} <= content.keys()
    ):
        raise ValueError(f"{path}: expected a table written by a benchmark")
    return content


def quotient(new: float | None, old: float | None) -> float | None:
    return None if new is None or not old else new / old


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    old, new = read(options.old), read(options.new)
    if old["machine"] != new["machine"]:
        print(f"different machines: {old['machine']} and {new['machine']}", file=sys.stderr)
    both = [heading for heading in new["columns"] if heading in old["columns"]]
    table = Table(new["label"], dict.fromkeys(both, ".3f"), file=None, note="new / old")
    for label, row in new["rows"].items():
        if label in old["rows"]:
            table.row(
                label, *(quotient(row[heading], old["rows"][label][heading]) for heading in both)
            )
    for name, left in (
        ("old", old["rows"].keys() - new["rows"].keys()),
        ("new", new["rows"].keys() - old["rows"].keys()),
    ):
        for label in sorted(left):
            print(f"only in {name}: {label}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
