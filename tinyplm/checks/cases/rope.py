"""RoPE as a component that takes positions and frequencies, as in the formula."""

from __future__ import annotations

from tinyplm.layers.rope import rope, rotary_tables


def rope_at(x, *, positions, frequencies, magnitude=1.0, interleaved=False):
    """`rope` with the tables for these positions; x (B, H, T, E), frequencies (R/2,)."""
    cos, sin = rotary_tables(positions, frequencies, magnitude=magnitude, dtype=x.dtype)
    return rope(x, cos=cos, sin=sin, interleaved=interleaved)
