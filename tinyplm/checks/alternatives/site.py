"""The place where theirs differs first, and what an alternative is.

All records before that place agree.  So an alternative computes from our recorded inputs what
theirs would be, and is right if that is their value up to rounding.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...backend import to_host
from ..explained import largest
from ..files import parameter_gradients
from ..matching import is_pre_norm, real_rows
from ..tracing import Call

LITTLE = 0.2  # of the difference, may be left by its explanation
FEWEST = 4  # numbers that a fit must explain


class NotHere(Exception):
    """An alternative that this model or this trace has no place for."""


class Alternative(NamedTuple):
    """name, sentence and formula for the user; f(site) gives their array, or several with a detail
    each: (detail, array)."""

    name: str
    sentence: str
    formula: str
    kind: str  # "forward", "backward" or "parameter"
    places: re.Pattern  # of names in a trace without their layer, or of parameters
    fitted: bool  # has a free number, so that one without is the simpler explanation
    f: Callable[[Site], Any]


ALTERNATIVES: list[Alternative] = []


def alternative(
    name: str, *, at: str, formula: str = "", kind: str = "forward", fitted: bool = False
) -> Callable[[Callable], Callable]:
    """A decorator: f(site) is an alternative; the first paragraph of its docstring the sentence."""

    def add(f: Callable) -> Callable:
        sentence = " ".join((f.__doc__ or "").split("\n\n")[0].split())
        ALTERNATIVES.append(Alternative(name, sentence, formula, kind, re.compile(at), fitted, f))
        return f

    return add


@dataclasses.dataclass
class Site:
    """One place of a trace: ours, and their array.  Values and parameters are float64."""

    model: Any
    trace: Call
    kind: str
    name: str  # as in the trace: layers.3.mlp.up
    theirs: np.ndarray
    allowed: float  # the largest difference that rounding explains
    known: dict[Any, Any] = dataclasses.field(default_factory=dict)  # parts made so far

    def __post_init__(self) -> None:
        first, _, rest = self.name.partition(".")
        number, _, role = rest.partition(".")
        inside = first == "layers" and self.kind != "parameter"
        self.index = int(number) if inside else -1
        self.role = (role or "output") if inside else self.name
        self.pre_norm = is_pre_norm(self.trace)
        rows = real_rows(
            self.name, self.theirs, {} if self.kind == "parameter" else self.trace.inputs
        )
        self.real = np.broadcast_to(rows, self.theirs.shape)
        self.layers = len([n for n in self.trace if re.fullmatch(r"layers\.\d+", n)])

    # ---- what is recorded

    def path(self, role: str, index: int | None = None) -> str:
        """The name of this role in the layer of this place, or in another."""
        i = self.index if index is None else index
        return f"layers.{i}" if role == "output" else f"layers.{i}.{role}"

    def value(self, name: str) -> np.ndarray:
        """Our value by its full name, or its role in this layer."""
        return self._record(name).value.astype("float64")

    def gradient(self, name: str) -> np.ndarray:
        """The gradient of our value."""
        d = self._record(name).gradient
        if d is None:
            raise NotHere
        return d.astype("float64")

    def own(self) -> np.ndarray:
        """What we have here: a value, a gradient, or the gradient of a parameter."""
        return self.recorded().astype("float64")

    def recorded(self) -> np.ndarray:
        """The same in its own dtype."""
        if self.kind == "parameter":
            return parameter_gradients(self.trace)[self.name]
        record = self._record(self.name)
        found = record.value if self.kind == "forward" else record.gradient
        if found is None:
            raise NotHere
        return found

    def _record(self, name: str) -> Any:
        for known in (self.path(name), name) if self.index >= 0 else (name,):
            if known in self.trace.records:
                return self.trace[known]
        raise NotHere

    def has(self, name: str) -> bool:
        """Whether there is such a record, of this layer or by its full name."""
        return self.path(name) in self.trace.records or name in self.trace.records

    @property
    def before(self) -> str:
        """The name of what enters this layer."""
        return f"layers.{self.index - 1}" if self.index > 0 else "embeddings"

    def input(self, name: str) -> np.ndarray:
        """An array that the model was given."""
        if name not in self.trace.inputs:
            raise NotHere
        return self.trace.inputs[name]

    @property
    def padding(self) -> np.ndarray | None:
        """(B, T) booleans, True = a token; None without padding."""
        mask = self.trace.inputs.get("attention_mask")
        return mask != 0 if mask is not None and mask.ndim == 2 else None

    def parameter(self, path: str) -> np.ndarray:
        """A parameter of this layer, or of the whole tree; NotHere without one."""
        tree = self.model.params
        if self.index >= 0 and not path.startswith(("body.", "head.")):
            layers = tree["body"]["layers"]
            tree = layers[self.index] if self.index < len(layers) else None
        for key in path.split("."):
            if not isinstance(tree, dict) or key not in tree:
                raise NotHere
            tree = tree[key]
        return to_host(tree).astype("float64")

    def optional(self, path: str) -> np.ndarray | None:
        """The parameter, or None."""
        try:
            return self.parameter(path)
        except NotHere:
            return None

    # ---- comparing

    def residual(self, y: np.ndarray) -> np.ndarray:
        """y - theirs where that counts; NotHere for another shape."""
        if np.shape(y) != self.theirs.shape:
            raise NotHere
        with np.errstate(invalid="ignore"):
            return (y - self.theirs.astype("float64"))[self.real]

    def distance(self, y: np.ndarray) -> float:
        """The largest difference from theirs."""
        d = np.abs(self.residual(y))
        return float(d.max()) if d.size else 0.0

    def matches(self, y: np.ndarray) -> bool:
        """Whether rounding explains what is left, that of y if it is larger than ours; and whether
        that is little of the difference, which may be hardly more than rounding."""
        sizes = [largest(np.where(self.real, a, 0)) for a in (y, self.own())]
        larger = max(1.0, sizes[0] / sizes[1]) if sizes[1] else 1.0
        left = self.distance(y)
        return left <= larger * self.allowed and left <= LITTLE * self.distance(self.own())

    def is_ours(self, y: np.ndarray) -> bool:
        """Whether y is what we recorded here: if not, the formula is not that of this model."""
        ours = self.own()
        if ours.shape != np.shape(y):
            return False
        d = np.abs(y - ours)[self.real]
        return not d.size or float(d.max()) <= self.allowed

    def fit(
        self, label: str, f: Callable[[float], np.ndarray], guesses: Iterable[float]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """f(c) for the guesses, then for the c that fits best, by Gauss-Newton from the best guess:
        c -= <J, r> / <J, J>,   r = f(c) - theirs,   J = df/dc.   First c with three digits.
        NotHere for fewer than FEWEST numbers, which many a c would fit."""
        if self.real.sum() < FEWEST:
            raise NotHere
        best, least = 0.0, np.inf
        for c in guesses:
            y = f(c)
            yield f"{label} {c:g}", y
            size = float(np.sum(self.residual(y) ** 2))
            if size < least:
                best, least = c, size
        if not np.isfinite(least):
            return
        c, failures = best, 0
        for _ in range(20):
            r = self.residual(f(c))
            size = float(r @ r)
            failures, least = failures + (size > least / 2), min(size, least)
            if failures > 2:  # rounding is reached, or nothing fits
                break
            step = 1e-6 * abs(c) or 1e-12
            J = (self.residual(f(c + step)) - r) / step
            if not (curvature := float(J @ J)) or not np.isfinite(curvature):
                return
            new = c - float(J @ r) / curvature
            c = new if new * c > 0 else c / 4  # keep its sign
        for value in (float(f"{c:.3g}"), c):
            yield f"{label} {value:g}", f(value)


def layers_own(role: str) -> str:
    """A pattern of this role in any layer."""
    return rf"layers\.\d+\.{role}$"
