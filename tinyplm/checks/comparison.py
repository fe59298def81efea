"""The result of a comparison: a row for each array, and what they say together."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Difference:
    """One array compared.  kind: "forward" for a value, "backward" for a gradient, "parameter" for
    the gradient of a parameter; ratio: the difference over `explained`."""

    kind: str
    name: str
    shape: tuple[int, ...]
    difference: float  # the largest
    relative: float  # to the largest number of the array
    ratio: float
    explained: float  # the difference that rounding explains

    @property
    def differs(self) -> bool:
        return self.ratio > 1


@dataclasses.dataclass(frozen=True)
class Explanation:
    """An alternative that makes the difference vanish: what theirs computes in place of ours."""

    name: str
    sentence: str
    formula: str
    where: str  # the place, and "gradient of ..." in the backward
    detail: str = ""  # a fitted number
    others: tuple[str, ...] = ()  # alternatives that do so as well

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        more = f"  Also possible: {', '.join(self.others)}." if self.others else ""
        return f"{self.name}{detail}: {self.sentence}  {self.formula}{more}"


UNTRIED = "not tried (it needs the model of one of the traces)"
UNKNOWN = "no known alternative explains it"
UNLIKE = (
    "it needs the very model of the trace (and its call without dropout or cache, which cannot be "
    "repeated)"
)
TITLES = {
    "forward": "Forward",
    "backward": "Backward (gradients, from the loss)",
    "parameter": "Gradients of parameters",
}


@dataclasses.dataclass
class Comparison:
    """What `compare` found.  str() is a summary, table() has a row for each array that differs."""

    rows: list[Difference]
    missing: list[str]  # of ours, not in theirs
    places: dict[str, str] = dataclasses.field(default_factory=dict)  # their modules, by our names
    ours: Any = dataclasses.field(repr=False, default=None)
    theirs: Any = dataclasses.field(repr=False, default=None)
    explanation: Explanation | None = None
    tried: bool = False  # whether the alternatives were tried
    unlike: str = ""  # in what the given model is not the one of the trace

    @property
    def equal(self) -> bool:
        """Whether rounding explains every difference."""
        return not any(row.differs for row in self.rows)

    @property
    def first_forward(self) -> str | None:
        """The first name whose value differs, in the order of the forward."""
        return self._first("forward")

    @property
    def first_backward(self) -> str | None:
        """The first name whose gradient differs, in the order of the backward."""
        return self._first("backward")

    @property
    def first_parameter(self) -> str | None:
        """The first parameter, by its hub name, whose gradient differs."""
        return self._first("parameter")

    def _first(self, kind: str) -> str | None:
        found = (row.name for row in self.rows if row.kind == kind and row.differs)
        return next(found, None)

    def row(self, kind: str, name: str) -> Difference:
        """The row of this kind and name."""
        return next(row for row in self.rows if (row.kind, row.name) == (kind, name))

    def table(self, *, all: bool = False) -> str:
        """The arrays that differ, in the order of the computation, and how many are equal, above
        the summary.  all: every array; "*" marks those that differ."""
        width = max([len(row.name) for row in self.rows], default=0)
        lines: list[str] = []
        for kind, title in TITLES.items():
            of_kind = [row for row in self.rows if row.kind == kind]
            rows = of_kind if all else [row for row in of_kind if row.differs]
            if rows:
                head = f"{title:<{width + 2}} {'shape':<16} {'difference':>10} {'relative':>9}"
                lines += [] if not lines else [""]
                lines.append(f"{head} {'ratio':>9}")
            for row in rows:
                shape = "x".join(map(str, row.shape)) or "number"
                mark = "*" if row.differs else " "
                lines.append(
                    f"{mark} {row.name:<{width}} {shape:<16} {row.difference:>10.1e} "
                    f"{row.relative:>9.1e} {row.ratio:>9.2g}"
                )
            if rows and len(rows) < len(of_kind):
                lines.append(f"  and {len(of_kind) - len(rows)} that are equal")
        return "\n".join([*lines, *[""] * bool(lines), str(self)])

    def __str__(self) -> str:
        lines = [self.unlike] if self.unlike else []
        if self.equal:
            counts = [sum(row.kind == kind for row in self.rows) for kind in TITLES]
            most = max(row.ratio for row in self.rows)
            lines.append(
                f"equal: {counts[0]} values, {counts[1]} gradients and {counts[2]} gradients of "
                f"parameters; the largest difference is {most:.2g} of what rounding explains"
            )
        for kind, title in (("forward", "forward"), ("backward", "backward")):
            lines += self._line(kind, title)
        if not any(row.differs for row in self.rows if row.kind != "parameter"):
            lines += self._line("parameter", "parameters")
        if not self.equal:
            none = UNLIKE if self.unlike else UNKNOWN if self.tried else UNTRIED
            found = self.explanation or none
            lines.append(f"explanation: {found}")
        if self.missing:
            some = ", ".join(self.missing[:4]) + ", ..." * (len(self.missing) > 4)
            lines.append(f"not compared, since only one side has it: {some}")
        return "\n".join(lines)

    def _line(self, kind: str, title: str) -> list[str]:
        first = self._first(kind)
        if first is None:
            return []
        row = self.row(kind, first)
        place = f" (theirs: {self.places[first]})" if first in self.places else ""
        return [
            f"{title}: differs first at {first}{place} by {row.difference:.2g} (relative "
            f"{row.relative:.2g}), {row.ratio:.2g} times what rounding explains"
        ]
