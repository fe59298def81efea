"""Rotary position embedding (RoPE): queries and keys are turned by an angle that grows with their position.

Pair i of a head's components is turned by t f_i at position t, so the inner product of a query at m and a key at n depends on
m - n alone.  The frequencies f come from rope_scaling.py; nothing here is trained.
"""

from __future__ import annotations

from ..backend import array_module
from ..shapes import check_float_dtype, expects


@expects("positions (B, T) or (T,) integers, frequencies (F,); magnitude > 0")
def rotary_tables(positions, frequencies, *, magnitude=1.0, dtype="float32"):
    """cos and sin of t f_i, times the magnitude: what `rope` needs, made once for all layers.

    positions (B, T) or (T,) integers, frequencies (R/2,) on the same device, in radians a position
    -> cos, sin (B or 1, 1, T, R/2), to be broadcast over heads.  Angles in float64, so that far positions keep their phase.
    """
    check_float_dtype("rotary_tables: dtype", dtype)
    xp = array_module(positions)
    angles = positions[..., None].astype("float64") * frequencies
    angles = angles[:, None] if positions.ndim == 2 else angles[None, None]
    return tuple((f(angles) * magnitude).astype(dtype) for f in (xp.cos, xp.sin))


@expects("x (B, H, T, E), cos (B or 1, 1, T, F), sin (B or 1, 1, T, F); flag interleaved", hot=True)
def rope(x, *, cos, sin, interleaved=False):
    """(y_a, y_b) = (x_a cos - x_b sin, x_b cos + x_a sin) for each pair (a, b).               Su et al. 2021, eq. 34

    x (B, H, T, E), cos and sin (B or 1, 1, T, R/2) from `rotary_tables` -> (B, H, T, E).  Only the first R <= E components
    are turned, the others pass (GPT-NeoX calls it partial).
    Pair i is (i, i + R/2), half-split, as in LLaMA's Hugging Face files; interleaved: (2i, 2i + 1), as in the paper.
    A rotation's transpose turns back:   dx_a = dy_a cos + dy_b sin,   dx_b = dy_b cos - dy_a sin   (a magnitude in cos and sin
    multiplies y, and dx as well).
    """
    xp = array_module(x)
    R = 2 * cos.shape[-1]
    if R > x.shape[-1]:
        raise ValueError(f"rope: {R} components are to be turned, but x {x.shape} has {x.shape[-1]}")
    if sin.shape != cos.shape or cos.shape[-2] != x.shape[-2]:  # one position would be broadcast to all
        raise ValueError(f"rope: cos {cos.shape} and sin {sin.shape} do not fit x {x.shape}")
    first, second = (slice(0, R, 2), slice(1, R, 2)) if interleaved else (slice(0, R // 2), slice(R // 2, R))

    def turn(x, sin):
        y = xp.empty_like(x)
        a, b = x[..., first], x[..., second]
        y[..., first] = a * cos - b * sin
        y[..., second] = b * cos + a * sin
        y[..., R:] = x[..., R:]
        return y

    return turn(x, sin), lambda dy: turn(dy, -sin)
