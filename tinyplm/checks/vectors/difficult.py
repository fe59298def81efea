"""Difficult cases on purpose: where implementations go wrong without anybody noticing.

One token, one sample and odd groups of heads are drawn for every component that has such sizes.
The others change a drawn case: large values, empty rows, ties, ignored targets and the like.  Each
has a note that says what is difficult, and which convention holds where others would be possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...losses.targets import chosen
from ..case import Case
from ..cases import COMPONENTS
from .draws import ExactSizes, sizes, with_flags
from .encoding import encoded


class Change(NamedTuple):
    """A change of a drawn case for some components."""

    name: str
    note: str
    names: tuple[str, ...]
    change: Callable[[Case, ExactSizes], Case | None]  # None: does not apply


def difficult_cases(name: str) -> Iterator[tuple[str, str, Case, ExactSizes]]:
    """(name of the case, its note, the case, its sizes) of the difficult cases of a component."""
    make = COMPONENTS[name].make
    drawn = _shapes(make(sizes(0)))
    with_heads = drawn != _shapes(make(sizes(0, K=5, G=4)))
    for label, note, fixed in [*SIZED, *(HEADS if with_heads else [])]:
        s = sizes(0, **fixed)
        if _shapes(case := make(s)) != drawn:
            yield label, note, case, s
    for change in CHANGES:
        if name in change.names or f"{COMPONENTS[name].plain}" in change.names:
            s = with_flags(sizes(0, B=2, T=4, S=4), True, True, True)
            if (changed := change.change(make(s), s)) is not None:
                yield change.name, change.note, changed, s


def _shapes(case: Case) -> dict[str, tuple[int, ...]]:
    arrays: dict[str, np.ndarray] = {}
    encoded(list(case.args), "argument", arrays)
    encoded(case.kwargs, "keyword", arrays)
    return {name: a.shape for name, a in arrays.items()} | {
        name: (value,) for name, value in case.kwargs.items() if isinstance(value, int)
    }


SIZED: list[tuple[str, str, dict[str, int]]] = [
    ("one-token", "one sample of one token, one key", {"B": 1, "T": 1, "S": 1}),
    ("batch-of-one", "one sample", {"B": 1, "T": 4, "S": 3}),
]
HEADS: list[tuple[str, str, dict[str, int]]] = [
    ("one-kv-head", "three query heads on one key/value head", {"K": 1, "G": 3, "E": 3}),
    ("odd-groups", "nine query heads of width 3 on three key/value heads, odd lengths",
     {"T": 5, "S": 3, "K": 3, "G": 3, "E": 3, "D": 7}),
]  # fmt: skip


# ------------------------------------------------------------------------------------------ changes


def scaled(factor: float, *places: int) -> Callable[[Case, ExactSizes], Case]:
    """Some positional arguments multiplied."""

    def change(case: Case, s: ExactSizes) -> Case:
        args = [a * factor if i in places else a for i, a in enumerate(case.args)]
        return Case(args, case.kwargs)

    return change


def with_first(value: Callable[[np.ndarray], Any]) -> Callable[[Case, ExactSizes], Case]:
    """The first and the last row of the first argument replaced."""

    def change(case: Case, s: ExactSizes) -> Case:
        x = case.args[0].copy()
        rows = x.reshape(-1, x.shape[-1])
        rows[0], rows[-1] = 0.0, value(rows[-1])
        return Case([x, *case.args[1:]], case.kwargs)

    return change


def replaced(value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Case, ExactSizes], Case]:
    """The first argument replaced."""
    return lambda case, s: Case([value(case.args[0]), *case.args[1:]], case.kwargs)


def keywords(**changes: Any) -> Callable[[Case, ExactSizes], Case]:
    """Keyword arguments replaced, by values or by functions of the old ones."""

    def change(case: Case, s: ExactSizes) -> Case:
        old = case.kwargs
        new = {n: v(old[n]) if callable(v) else v for n, v in changes.items() if n in old}
        return Case(case.args, old | new)

    return change


def nothing_visible(case: Case, s: ExactSizes) -> Case | None:
    """The first row of every mask False: in masks of a batch, the first sample."""
    found = False
    masks = ("mask", "padding", "allowed", "real", "content", "query")

    def masked(value: Any) -> Any:
        nonlocal found
        if isinstance(value, np.ndarray) and value.dtype == bool:
            value, found = value.copy(), True
            value[0] = False
            value[1:, ..., 0] = True  # something is visible elsewhere
        elif isinstance(value, dict):
            value = {n: masked(v) if n != "different" else v for n, v in value.items()}
        return value

    kwargs = {n: masked(v) if n in masks else v for n, v in case.kwargs.items()}
    return Case(case.args, kwargs) if found else None


def improbable(case: Case, s: ExactSizes) -> Case:
    """Targets whose logits are 50 to 90 below the others: probabilities of 1e-22 to 1e-39."""
    logits, targets = case.args[0].copy(), case.kwargs["targets"].copy()
    targets[targets < 0] = 0
    low = chosen(logits, targets) - 50 - 10 * np.arange(targets.size).reshape(targets.shape) % 50
    np.put_along_axis(logits, targets[..., None], low[..., None], axis=-1)
    return Case([logits, *case.args[1:]], case.kwargs | {"targets": targets})


def far_positions(case: Case, s: ExactSizes) -> Case:
    """Positions from 100,000 on, base 10,000."""

    def settings(old: dict[str, Any]) -> dict[str, Any]:
        F = old["frequencies"].size
        positions = 100_000 + 7 * np.arange(old["positions"].size).reshape(old["positions"].shape)
        frequencies = 10_000.0 ** (-np.arange(F) / F)
        return old | {"positions": positions, "frequencies": frequencies}

    if "rotary" in case.kwargs:
        rotary = case.kwargs["rotary"]
        turned = partial(rotary.func, **settings(rotary.keywords))
        return Case(case.args, case.kwargs | {"rotary": turned})
    return Case(case.args, settings(case.kwargs))


def _some_ignored(targets: np.ndarray) -> np.ndarray:
    targets = np.where(targets == -100, 0, targets)
    targets.reshape(-1)[::2] = -100
    return targets


SOFTMAXES = ("softmax", "log_softmax", "cross_entropy", "log_probs", "distillation",
             "softmax_weights", "load_balancing_loss", "router_z_loss")  # fmt: skip
TARGETED = ("cross_entropy", "vocabulary_cross_entropy", "log_probs", "vocabulary_log_probs",
            "info_nce")  # fmt: skip
WEIGHTED = (
    *("cross_entropy", "vocabulary_cross_entropy", "bradley_terry", "dpo", "k3_kl", "grpo"),
    *("clipped_surrogate", "clipped_value_loss", "distillation", "vocabulary_distillation"),
    *("info_nce", "symmetric_info_nce", "mean_squared_error", "binary_cross_entropy"),
    *("load_balancing_loss", "sequence_balance_loss", "router_z_loss"),
)
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "tanh", "relu", "log_sigmoid")
ATTENTIONS = ("attention", "block_attention", "decoder_attention", "disentangled_attention",
              "relative_attention")  # fmt: skip

CHANGES = [
    Change("nothing-visible", "the first row of the mask allows nothing: such rows give zeros, and "
           "no gradient", tuple(n for n in COMPONENTS if not n.startswith("prefix")),
           nothing_visible),
    Change("large-logits", "logits around +-1000: exp overflows without subtracting the maximum",
           SOFTMAXES, scaled(400.0, 0)),
    Change("large-scores", "scores around +-1000: exp overflows without subtracting the maximum",
           ATTENTIONS, scaled(600.0, 0)),
    Change("large-values", "values around +-1000, where exp overflows and derivatives vanish",
           ACTIVATIONS, scaled(400.0, 0)),
    Change("large-rewards", "differences around +-1000, where exp overflows",
           ("bradley_terry", "dpo", "binary_cross_entropy"), scaled(400.0, 0)),
    Change("large-rows", "values around +-2000, whose squares overflow float16",
           ("rmsnorm", "layernorm", "l2_normalise"), scaled(2000.0, 0)),
    Change("zero-rows", "a row of zeros and a row of zero variance (1.5 everywhere): eps alone "
           "keeps them finite", ("rmsnorm", "layernorm"), with_first(lambda row: 1.5)),
    Change("zero-norm", "a row of zeros, which stays zero, and a row shorter than eps",
           ("l2_normalise",), with_first(lambda row: row * 2.0**-20)),
    Change("ties", "all values equal: the first of equal ones is the maximum and has the gradient",
           ("max_pooling",), replaced(lambda x: np.full_like(x, 0.5))),
    Change("kink", "some values are exactly 0, where the derivative is taken as 0",
           ("relu",), replaced(lambda x: np.where(x > 1, x, 0.0))),
    Change("equal-values", "all values of a row equal", ("softmax", "log_softmax"),
           replaced(lambda x: np.full_like(x, 3.0))),
    Change("improbable", "targets with probabilities from 1e-22 down to 1e-39, below what float16 "
           "or float32 represent", ("cross_entropy", "log_probs"), improbable),
    Change("ignored", "every second target is ignored (-100): no loss, and a gradient of exactly 0",
           TARGETED, keywords(targets=_some_ignored)),
    Change("all-ignored", "all targets are ignored: loss and gradients are 0, not 0 / 0",
           (*TARGETED, "binary_cross_entropy"),
           keywords(targets=lambda t: np.full_like(t, -100), total=None, weights=None)),
    Change("all-ignored", "all targets are NaN, which is no target: loss and gradients are 0",
           ("mean_squared_error",),
           keywords(targets=lambda t: np.full_like(t, np.nan), total=None, weights=None)),
    Change("smoothing", "label smoothing of 0.1 with ignored targets",
           ("cross_entropy", "vocabulary_cross_entropy"),
           keywords(targets=_some_ignored, smoothing=0.1)),
    Change("zero-weights", "all weights are 0: loss and gradients are 0, not 0 / 0", WEIGHTED,
           keywords(total=None, weights=np.zeros_like)),
    Change("far-positions", "positions from 100,000 on, base 10,000: angles need more than float32",
           ("rope", "rope_interleaved", "rotary_attention"), far_positions),
]  # fmt: skip
