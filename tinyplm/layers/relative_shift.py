"""Relative positions as in Transformer-XL: encodings of distances, and scores from distance to key.

The queries are among the last T of S keys, so distances (query's position - key's position) go from
S - 1 down to 1 - T.   Row p of the encodings R, and column p of scores by distance, stand for the
distance S - p, p = 0 .. T + S - 1; p = 0 is never read, but makes the shift a reshape.
"""

from __future__ import annotations

from typing import Any

from ..arguments import MOST, check_number, check_whole, wrong
from ..backend import array_module
from ..core import Array, Backward
from ..shapes import check_float_dtype, check_module, expects


def distance_encodings(
    T: int,
    S: int,
    width: int,
    *,
    xp: Any,
    clamp: int = -1,
    base: float = 10000.0,
    dtype: Any = "float32",
) -> Array:
    """R[p] = [sin(d w), cos(d w)],   d = S - p,   w_i = base^(-2i / width): (T + S, width).

    Dai et al. 2019, sec. 3.3.   All sines come before all cosines; width is even.
    clamp > 0 keeps d within -clamp .. clamp.   Angles are float64.
    """
    check_whole("distance_encodings: T", T, 1, MOST)
    check_whole("distance_encodings: S", S, T, MOST)
    check_whole("distance_encodings: width", width, 2, MOST)
    check_whole("distance_encodings: clamp", clamp, -1, MOST)
    check_number("distance_encodings: base", base, above=0)
    check_float_dtype("distance_encodings: dtype", dtype)
    check_module("distance_encodings: xp", xp)
    if width % 2:
        raise wrong("distance_encodings: width", "an even number", width)
    distances = xp.arange(S, -T, -1)
    if clamp > 0:
        distances = xp.clip(distances, -clamp, clamp)
    frequencies = base ** (xp.arange(width // 2, dtype="float64") * (-2 / width))
    angles = distances[:, None] * frequencies
    return xp.concatenate([xp.sin(angles), xp.cos(angles)], axis=-1).astype(dtype)


@expects("x (..., T, R) numbers; whole keys >= 1")
def relative_shift(x: Array, *, keys: int) -> tuple[Array, Backward]:
    """y[..., t, j] = x[..., t, T - t + j]: the column of the distance between query t and key j.

    Dai et al. 2019, appendix B.   x (..., T, T + S) -> y (..., T, S), S = keys, a view.
    In memory x[t, T - t + j] is element T + t (T + S - 1) + j: drop the first T elements, read the
    others as rows of T + S - 1, and y is the first S columns.
    dx[..., t, T - t + j] = dy[..., t, j], all other dx are 0.
    """
    xp = array_module(x)
    T, R = x.shape[-2:]
    check_columns("relative_shift", x, T + keys)

    def shifted(a: Array) -> Array:
        rows = a.reshape(*a.shape[:-2], T * R)[..., T:]
        return rows.reshape(*a.shape[:-2], T, R - 1)[..., :keys]

    def backward(dy: Array) -> Array:
        dx = xp.zeros(x.shape, dtype=dy.dtype)
        shifted(dx)[...] = dy  # a view of dx, which is contiguous
        return dx

    return shifted(x), backward


@expects("x (B, H, M, R) numbers, places (B, M) integers; whole keys >= 1")
def relative_rows(x: Array, *, places: Array, keys: int) -> tuple[Array, Backward]:
    """y[b, h, m, j] = x[b, h, m, T - places[b, m] + j]: `relative_shift` for queries at any places.

    x (B, H, M, T + S), places (B, M) integers in [0, T) -> y (B, H, M, S), S = keys.
    dx is dy at the elements that y reads, else 0.
    """
    xp = array_module(x)
    T = x.shape[-1] - keys
    check_columns("relative_rows", x, max(T, 1) + keys)
    columns = (T - places)[:, None, :, None] + xp.arange(keys)
    columns = xp.broadcast_to(columns, (*x.shape[:-1], keys))

    def backward(dy: Array) -> Array:
        dx = xp.zeros(x.shape, dtype=dy.dtype)
        xp.put_along_axis(dx, columns, dy, axis=-1)
        return dx

    return xp.take_along_axis(x, columns, axis=-1), backward


def check_columns(name: str, x: Array, expected: int) -> None:
    """ValueError unless x has a column for each distance."""
    if x.shape[-1] != expected:
        raise wrong(f"{name}: x", f"{expected} columns, one for each distance", x)
