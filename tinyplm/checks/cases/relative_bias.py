"""Cases of T5's relative position bias."""

from __future__ import annotations

from typing import Any

from ...layers import relative_bias, relative_buckets
from ..case import Case, Entry, Sizes


def distances(s: Sizes) -> dict[str, Any]:
    """How distances become buckets, and the position of the first query, before or after the keys
    of a cache."""
    buckets = 4 + s.F
    settings = {"buckets": buckets, "longest": buckets + s.V, "bidirectional": s.flags[0]}
    return settings | {"offset": s.seed % 9}


def _bias(s: Sizes) -> Case:
    """T5's buckets; or any bucket for any distance, so that some buckets have several runs."""
    rng = s.rng()
    settings = distances(s)
    N, R = settings["buckets"], s.T + s.S - 1
    t5 = s.flags[1]
    rows = relative_buckets.t5_rows(s.T, s.S, **settings) if t5 else rng.integers(0, N, R)
    return Case([rng.normal(size=(N, s.H))], {"rows": rows, "keys": s.S})


COMPONENTS = {
    "relative_bias": Entry(
        relative_bias.relative_bias,
        _bias,
        "T5's bias of scores, by buckets of distances",
    ),
}
