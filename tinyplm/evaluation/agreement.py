"""Do judges agree more than chance would have it?  Kappa = (observed - chance) / (1 - chance).

1 is perfect agreement, 0 that of chance.  Where chance alone agrees always (all labels are the
same), kappa is 0 / 0, here 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import as_array, check_choice, is_whole, listed, mismatch, shown

WEIGHTS = ("none", "linear", "quadratic")


def cohen_kappa(
    first: Sequence[str | int],
    second: Sequence[str | int],
    *,
    weights: str = "none",
    categories: Sequence[str | int] | None = None,
) -> float:
    """kappa = 1 - sum_ij w_ij O_ij / sum_ij w_ij E_ij,   E_ij = O_i. O_.j.           Cohen 1960

    Of two judges, who each gave a label to the same N items; O (C, C): shares of pairs of labels.
    weights: of a disagreement of categories i and j: "none": w = 1 unless i = j; "linear": |i - j|;
    "quadratic": (i - j)^2, for ordered categories                                    Cohen 1968
    categories: in their order; None: those that occur, sorted
    """
    a, b = _labels("first", first), _labels("second", second)
    if len(a) != len(b) or not a:
        raise mismatch("first, second", "as many labels, at least one", f"{len(a)}, {len(b)}")
    check_choice("weights", weights, WEIGHTS)
    names = (
        sorted({*a, *b}, key=lambda x: (isinstance(x, str), x))
        if categories is None
        else _labels("categories", categories)
    )
    number = {name: i for i, name in enumerate(names)}
    for name, labels in (("first", a), ("second", b)):
        if unknown := [x for x in labels if x not in number]:
            raise mismatch(name, f"labels of the categories {shown(names)}", shown(unknown[0]))
    i, j = (np.array([number[x] for x in labels]) for labels in (a, b))
    size = len(names)
    observed = np.bincount(i * size + j, minlength=size**2).reshape(size, size) / len(a)
    expected = observed.sum(1, keepdims=True) * observed.sum(0)
    apart = np.abs(np.arange(size)[:, None] - np.arange(size))
    w = {"none": apart > 0, "linear": apart, "quadratic": apart**2}[weights]
    chance = float((w * expected).sum())
    return 1.0 if chance == 0 else 1 - float((w * observed).sum()) / chance


def fleiss_kappa(counts: Sequence[Sequence[int]] | np.ndarray) -> float:
    """Agreement of any number of judges.                                Fleiss 1971, eqs. 1 to 7

    counts (N, C): how many judges put item n into category c; n_n = sum_c counts, at least two
        P_n  = sum_c counts_nc (counts_nc - 1) / (n_n (n_n - 1))      pairs of judges that agree
        p_c  = sum_n counts_nc / sum_n n_n                            the share of a category
        kappa = (mean P - sum p_c^2) / (1 - sum p_c^2)
    Fleiss has the same number of judges for every item; here they may differ.
    """
    table = as_array("counts", counts, "(N, C) whole numbers", "iu", (2,)).astype(np.int64)
    judges = table.sum(axis=1)
    if not len(table) or (table < 0).any() or (judges < 2).any():
        raise mismatch("counts", "two or more judges for each item", str(table.tolist())[:60])
    agreed = (table * (table - 1)).sum(axis=1) / (judges * (judges - 1))
    shares = table.sum(axis=0) / judges.sum()
    chance = float((shares**2).sum())
    return 1.0 if chance == 1 else (float(agreed.mean()) - chance) / (1 - chance)


def _labels(name: str, value: Any) -> list[Any]:
    labels = listed(name, value, "labels")
    for label in labels:
        if not isinstance(label, str) and not is_whole(label):
            raise mismatch(name, "labels, texts or whole numbers", shown(label))
    return labels
