"""RoPE as a component of positions and frequencies, which is what the formula has."""

from __future__ import annotations

from tinyplm.layers.rope import rope, rotary_tables


def rope_at(x, *, positions, frequencies, magnitude=1.0, interleaved=False):
    """`rope` by the tables of these positions; x (B, H, T, E), frequencies (R/2,)."""
    cos, sin = rotary_tables(positions, frequencies, magnitude=magnitude, dtype=x.dtype)
    return rope(x, cos=cos, sin=sin, interleaved=interleaved)
