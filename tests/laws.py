"""The laws that every component obeys (DESIGN.md, "Laws"), for any component on any device.

Those that need no formula are in tinyplm/checks/laws.py, the bounds in tinyplm/checks/rounding.py; tests import all of them from
here.  A case of the tests knows the reference's keywords where they differ: a component passed as an argument has a twin in
reference/.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyplm.backend import to_host
from tinyplm.checks import case as cases
from tinyplm.checks.case import Sizes
from tinyplm.checks.laws import (
    SMALLEST,
    LawError,
    apart,
    backward_is_linear_and_repeatable,
    call,
    check_laws,
    checkpointing_changes_nothing,
    directional_derivative,
    dot,
    equal,
    frozen,
    gradients,
    inputs_survive_and_dtypes_hold,
    leaves,
    moved,
    on_device,
    random_like,
    read_only,
    relative_error,
)
from tinyplm.checks.rounding import CASE, FEW, MODEL, MODEL_32, PART, SINGLE, difference_rounding, rounding, typical_rounding

__all__ = [
    "CASE", "FEW", "MODEL", "MODEL_32", "PART", "SINGLE", "SMALLEST", "Case", "LawError", "Sizes", "apart",
    "backward_is_linear_and_repeatable", "call", "check_all", "checkpointing_changes_nothing", "difference_rounding",
    "directional_derivative", "dot", "equal", "equals_reference", "formula", "freeze", "frozen", "gradients",
    "inputs_survive_and_dtypes_hold", "leaves", "moved", "on_device", "random_like", "relative_error", "rounding", "trained",
    "typical_rounding",
]  # fmt: skip


@dataclasses.dataclass
class Case(cases.Case):
    reference_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    kernel: Callable | None = None  # f for this case, if it must be built


def trained(updates: int, rate: float, eps: float) -> float:
    """MODEL after AdamW's updates by rate g / (sqrt(v) + eps), where eps bounds the growth of a gradient's error."""
    return updates * rate / eps * MODEL


def freeze(a: Any) -> Any:
    """A read-only copy of an array, on the strict device too; on a real GPU there is none."""
    if type(a).__name__ == "StrictArray":
        from tests.gpu.strict import freeze as strict_freeze

        return strict_freeze(a.copy())
    return read_only(a)


def formula(reference: Callable, case: Case) -> Any:
    """The value of a case by its formula."""
    expected = reference(*case.args, **{**case.kwargs, **case.reference_kwargs})
    return np.asarray(expected) if not isinstance(expected, dict) else expected


def equals_reference(f: Callable, expected: Any, case: Case, device: str) -> None:
    """1. The value equals the formula's up to a case's rounding: 1e-13 of its terms, which may be 1/SMALLEST times the value."""
    y, _ = call(f, case, device)
    error = relative_error(to_host(y), expected)
    assert error < rounding(*CASE) / SMALLEST, f"differs from the reference by {error:.1e}"


def check_all(f: Callable, reference: Callable, case: Case, devices: list[str], seed: int) -> None:
    """All laws for one case on each device, where random numbers begin anew."""
    from hypothesis import note  # which the examples that use the laws do without

    f, expected = case.kernel or f, formula(reference, case)
    for device in devices:
        note(f"on the device {device}")
        equals_reference(f, expected, case, device)
        check_laws(f, case, device, np.random.default_rng(seed), freeze)
