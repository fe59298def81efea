"""The report of a run: a row for each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...files import read_json, write_json
from .tally import Tally

REPORT = "report.json"
TIMES = "times.json"  # apart, since they differ from run to run


@dataclasses.dataclass(frozen=True)
class Report:
    """tallies: of reading, and of each step in order."""

    tallies: Sequence[Tally]

    @property
    def documents(self) -> int:
        """Those left."""
        return self.tallies[-1].documents_out

    def as_json(self) -> dict[str, Any]:
        return {"steps": [tally.as_json() for tally in self.tallies]}

    def save(self, folder: Path) -> None:
        times = [{"step": tally.name, "seconds": tally.seconds} for tally in self.tallies]
        write_json(folder / TIMES, {"steps": times})
        write_json(folder / REPORT, self.as_json())

    @classmethod
    def load(cls, folder: Path) -> Report:
        """As it was saved, with times where they are known."""
        rows = read_json(folder / REPORT)["steps"]
        times = read_json(folder / TIMES)["steps"] if (folder / TIMES).exists() else []
        found = []
        for number, row in enumerate(rows):
            fields = {name: value for name, value in row.items() if name in _SAME}
            examples = {
                reason: [("", shown) for shown in held] for reason, held in row["examples"].items()
            }
            seconds = times[number]["seconds"] if number < len(times) else 0.0
            found.append(
                Tally(
                    row["step"],
                    **fields,
                    changed=row["documents_changed"],
                    examples=examples,
                    seconds=seconds,
                )
            )
        return cls(found)

    def lines(self) -> list[tuple[str, ...]]:
        """Cells of a table: step, documents and megabytes left, their shares, seconds."""
        found: list[tuple[str, ...]] = [("step", "documents", "left", "MB", "left", "MB/s")]
        for tally in self.tallies:
            speed = f"{tally.bytes_in / 1e6 / tally.seconds:.1f}" if tally.seconds else ""
            found.append(
                (
                    tally.name,
                    f"{tally.documents_out:,}",
                    _share(tally.documents_out, tally.documents_in),
                    f"{tally.bytes_out / 1e6:,.2f}",
                    _share(tally.bytes_out, tally.bytes_in),
                    speed,
                )
            )
        return found

    def reasons(self) -> list[tuple[str, ...]]:
        """Cells of a table: step, what, how often; drops first, then changes, most first."""
        found: list[tuple[str, ...]] = []
        for tally in self.tallies:
            for counts, what in ((tally.drops, "dropped: "), (tally.changes, "")):
                for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
                    found.append((tally.name, what + reason, f"{count:,}"))
        return found


_SAME = {"documents_in", "documents_out", "bytes_in", "bytes_out", "changes", "drops"}


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""
