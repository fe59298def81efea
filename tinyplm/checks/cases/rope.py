"""Cases of RoPE, as a component that takes positions and frequencies, as in the formula."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...backend import array_module
from ...core import Backward
from ...layers import rope_scaling as scaling
from ...layers.rope import paired_rope, paired_tables, rope, rotary_tables
from ..case import Case, Entry, Sizes


def rope_at(
    x: Any,
    *,
    positions: Any,
    frequencies: Any,
    magnitude: float = 1.0,
    interleaved: bool = False,
) -> tuple[Any, Backward]:
    """`rope` with the tables for these positions; x (B, H, T, E), frequencies (R/2,)."""
    cos, sin = rotary_tables(positions, frequencies, magnitude=magnitude, dtype=x.dtype)
    return rope(x, cos=cos, sin=sin, interleaved=interleaved)


def turned(
    x: Any,
    *,
    positions: np.ndarray,
    frequencies: np.ndarray,
    magnitude: float,
    interleaved: bool = False,
) -> tuple[Any, Backward]:
    """`rope_at` with positions and frequencies of the host, for x on any device."""
    xp = array_module(x)
    positions, frequencies = xp.asarray(positions), xp.asarray(frequencies)
    tables: dict[str, Any] = {
        "positions": positions,
        "frequencies": frequencies,
        "magnitude": magnitude,
    }
    return rope_at(x, **tables, interleaved=interleaved)


def _frequencies(s: Sizes, rng: np.random.Generator, width: int) -> np.ndarray:
    """Of plain RoPE or one of its scalings, by the seed; short contexts make a few frequencies
    scale differently."""
    base, factor = rng.uniform(2.0, 50.0), rng.uniform(1.0, 8.0)
    made = [
        lambda: scaling.rope_frequencies(width, base=base),
        lambda: scaling.linear_frequencies(width, base=base, factor=factor),
        lambda: scaling.yarn_frequencies(
            width,
            base=base,
            factor=factor,
            original=64,
            beta_fast=8.0,
            beta_slow=0.5,
            truncate=s.flags[0],
        ),
        lambda: scaling.llama3_frequencies(
            width, base=base, factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original=64
        ),
        # needs more than one frequency
        lambda: scaling.dynamic_frequencies(width, base=base, factor=factor, original=8, length=24),
    ]
    return made[s.seed % (5 if width > 2 else 4)]()


def rope_settings(s: Sizes, rng: np.random.Generator, width: int) -> dict[str, Any]:
    """For `width` rotated components: positions per sample or shared, and YaRN's magnitude."""
    positions = rng.integers(0, 3000, (s.B, s.T) if s.flags[1] else (s.T,))
    magnitude = rng.uniform(0.5, 1.5) if s.flags[2] else 1.0
    frequencies = _frequencies(s, rng, width)
    return {"positions": positions, "frequencies": frequencies, "magnitude": magnitude}


def _rope(s: Sizes, interleaved: bool) -> Case:
    """Sizes.E counts pairs, since the rotated width is even; up to two components are not
    rotated."""
    rng = s.rng()
    x = rng.normal(size=(s.B, s.H, s.T, 2 * s.E + (s.F % 3 if s.flags[0] else 0)))
    return Case([x], {**rope_settings(s, rng, 2 * s.E), "interleaved": interleaved})


def paired_rope_at(x: Any, *, positions: Any, frequencies: Any) -> tuple[Any, Backward]:
    """`paired_rope` with the tables for positions (B, 2, T); x (B, H, T, E), frequencies (E/4,)."""
    return paired_rope(x, **paired_tables(positions, frequencies, dtype=x.dtype))


def _paired(s: Sizes) -> Case:
    """Sizes.E counts the pairs of half a head."""
    rng = s.rng()
    positions = rng.integers(0, 3000, (s.B, 2, s.T))
    settings = {"positions": positions, "frequencies": _frequencies(s, rng, 2 * s.E)}
    return Case([rng.normal(size=(s.B, s.H, s.T, 4 * s.E))], settings)


COMPONENTS = {
    "paired_rope": Entry(
        paired_rope_at, _paired, "rotary positions, each half of a head by its own positions"
    ),
    "rope": Entry(
        rope_at,
        partial(_rope, interleaved=False),
        "rotary positions, pairs of a head's halves, plain or scaled frequencies",
    ),
    "rope_interleaved": Entry(
        rope_at, partial(_rope, interleaved=True), "rotary positions, pairs of neighbours"
    ),
}
