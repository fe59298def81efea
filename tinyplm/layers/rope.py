"""Rotary position embedding (RoPE): queries and keys are rotated by angles that grow with position.

Pair i of a head's components is rotated by t f_i at position t, so the inner product of a query at
m and a key at n depends only on m - n.  The frequencies f come from rope_scaling.py; nothing here
is trained.
"""

from __future__ import annotations

from typing import Any

from ..arguments import mismatch, wrong
from ..backend import array_module
from ..core import Array, Backward
from ..shapes import check_float_dtype, expects


@expects("positions (B, T) or (T,) integers, frequencies (F,); magnitude > 0")
def rotary_tables(
    positions: Array, frequencies: Array, *, magnitude: float = 1.0, dtype: Any = "float32"
) -> tuple[Array, ...]:
    """magnitude cos(t f_i) and magnitude sin(t f_i): what `rope` needs, made once for all layers.

    positions t (B, T) or (T,) integers, frequencies f (F,) on the same device, in radians per
    position -> cos, sin (B or 1, 1, T, F), which broadcast over heads.  F is the number of pairs.
    Angles are float64, so that far positions keep their phase.
    """
    check_float_dtype("rotary_tables: dtype", dtype)
    xp = array_module(positions)
    angles = positions[..., None].astype("float64") * frequencies
    angles = angles[:, None] if positions.ndim == 2 else angles[None, None]
    return tuple((f(angles) * magnitude).astype(dtype) for f in (xp.cos, xp.sin))


def paired_tables(positions: Array, frequencies: Array, *, dtype: Any) -> dict[str, Array]:
    """{"cos", "sin"} for paired_rope, of two positions for each token.

    positions (B, 2, T) integers, frequencies (E/4,) on the same device.
    """
    xp = array_module(positions)
    tables = [rotary_tables(positions[:, n], frequencies, dtype=dtype) for n in (0, 1)]
    cos, sin = (xp.concatenate(both, axis=-1) for both in zip(*tables))
    return {"cos": cos, "sin": sin}


@expects("x (B, H, T, E), cos (B or 1, 1, T, F), sin (B or 1, 1, T, F); flag interleaved", hot=True)
def rope(x: Array, *, cos: Array, sin: Array, interleaved: bool = False) -> tuple[Array, Backward]:
    """y_a = x_a cos - x_b sin,   y_b = x_b cos + x_a sin   for each pair (a, b) of components.

    Su et al. 2021, eq. 34.   x (B, H, T, E), cos and sin (B or 1, 1, T, F) from `rotary_tables`
    -> y (B, H, T, E).   Only the first R = 2 F <= E components are rotated, the others pass
    unchanged ("partial", as in GPT-NeoX).   Pair i is (i, i + F), "half-split", as in LLaMA's
    Hugging Face files; interleaved: (2i, 2i + 1), as in the paper.   Keeps cos and sin.
    The transpose of a rotation rotates back:   dx_a = dy_a cos + dy_b sin,
    dx_b = dy_b cos - dy_a sin:   the same function with -sin for sin.  A magnitude in cos and sin
    multiplies y and dx alike.
    """
    xp = array_module(x)
    check_tables(x, cos, sin)
    F, R = cos.shape[-1], 2 * cos.shape[-1]
    a, b = slice(0, F), slice(F, R)
    if interleaved:
        a, b = slice(0, R, 2), slice(1, R, 2)

    def rotated(x: Array, sin: Array) -> Array:
        y = xp.empty_like(x)
        y[..., a] = x[..., a] * cos - x[..., b] * sin
        y[..., b] = x[..., b] * cos + x[..., a] * sin
        y[..., R:] = x[..., R:]
        return y

    def backward(dy: Array) -> Array:
        return rotated(dy, -sin)

    return rotated(x, sin), backward


@expects("x (B, H, T, E), cos (B or 1, 1, T, F), sin (B or 1, 1, T, F)", hot=True)
def paired_rope(x: Array, *, cos: Array, sin: Array) -> tuple[Array, Backward]:
    """y = [rope(x1; cos1, sin1), rope(x2; cos2, sin2)]: each half of a head by its own positions.

    GLM team 2023, the released code of ChatGLM-6B: the first half turns by a token's place, the
    second by its place within a blank (Du et al. 2022, sec. 2.3).   x = [x1, x2] and y
    (B, H, T, E), E a multiple of 4; cos = [cos1, cos2] and sin = [sin1, sin2] (B or 1, 1, T, E/2).
    dx = [dx1, dx2], each as in `rope`.
    """
    xp = array_module(x)
    check_tables(x, cos, sin)
    E, F = x.shape[-1], cos.shape[-1]
    if E % 4 or 2 * F != E:
        expected = f"{2 * F} components, a multiple of 4: two for each of the {F} angles"
        raise mismatch("paired_rope: x", expected, E)
    parts = [
        rope(
            x[..., n : n + F],
            cos=cos[..., n // 2 : (n + F) // 2],
            sin=sin[..., n // 2 : (n + F) // 2],
        )
        for n in (0, F)
    ]

    def backward(dy: Array) -> Array:
        return xp.concatenate([back(dy[..., n : n + F]) for (_, back), n in zip(parts, (0, F))], -1)

    return xp.concatenate([y for y, _ in parts], axis=-1), backward


def check_tables(x: Array, cos: Array, sin: Array) -> None:
    """ValueError for tables that do not fit x: those of one position would broadcast to all."""
    R = 2 * cos.shape[-1]
    if R > x.shape[-1]:
        raise wrong("rope: x", f"at least {R} components, as many as cos rotates", x)
    if sin.shape != cos.shape or cos.shape[-2] != x.shape[-2]:
        expected = f"two of shape (B or 1, 1, {x.shape[-2]}, F)"
        raise ValueError(f"rope: cos, sin: expected {expected}, got {cos.shape} and {sin.shape}")
