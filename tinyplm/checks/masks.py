"""Cases with other masks and other ignored targets, of any component that has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import IGNORED
from .case import Case

MASKS = ("mask", "allowed", "padding")  # keywords with booleans, True = may attend


def with_padding(case: Case) -> Case | None:
    """With the last key hidden from all, or the last target ignored, and nothing else.

    None for a case that has neither, or fewer than three keys: two must be left, since the weight
    of one alone is 1 whatever its score.
    """
    if not has_rows(case):
        return None
    lengths = [v.shape[-1] for n, v in case.kwargs.items() if _is_mask(n, v) or _is_targets(n, v)]
    return changed(case, _last_hidden, _last_ignored) if min(lengths) > 2 else None


def has_rows(case: Case) -> bool:
    """Whether the case has a mask or targets."""
    return any(_is_mask(n, v) or _is_targets(n, v) for n, v in case.kwargs.items())


def _is_mask(name: str, value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == bool and name in MASKS


def _is_targets(name: str, value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "i" and name == "targets"


def changed(case: Case, mask: Callable, targets: Callable) -> Case:
    """The case with other masks and targets."""
    kwargs = {
        name: mask(value)
        if _is_mask(name, value)
        else targets(value)
        if _is_targets(name, value)
        else value
        for name, value in case.kwargs.items()
    }
    return Case(case.args, kwargs)


def wanted(targets: np.ndarray) -> np.ndarray:
    return np.where(targets == IGNORED, 0, targets)


def _last_hidden(mask: np.ndarray) -> np.ndarray:
    mask = np.ones_like(mask)
    mask[..., -1] = False
    return mask


def _last_ignored(targets: np.ndarray) -> np.ndarray:
    targets = wanted(targets)
    targets[..., -1] = IGNORED
    return targets


def emptied(case: Case) -> Case:
    """With a first row that sees nothing, and no targets."""

    def first(mask: np.ndarray) -> np.ndarray:
        mask = mask.copy()
        mask[(0,) * (mask.ndim - 1)] = False
        return mask

    return changed(case, first, lambda targets: np.full_like(targets, IGNORED))
