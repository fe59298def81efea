"""Relative positions as in Transformer-XL: encodings of distances, and scores by distance turned into scores by key.

The queries are tokens among the last T of S keys, so distances (query's place - key's place) go from S - 1 down to 1 - T.
Row p of R stands for distance S - p, p = 0 .. T + S - 1; row 0 is read by nobody, but makes the shift a reshape.
"""

from __future__ import annotations

from ..arguments import MOST, check_number, check_whole
from ..backend import array_module
from ..shapes import check_float_dtype, check_module, expects


def distance_encodings(T: int, S: int, width: int, *, xp, clamp: int = -1, base: float = 10000.0, dtype="float32"):
    """R[p] = [sin(d w), cos(d w)],   d = S - p,   w_i = base^(-2i / width): (T + S, width).       Dai et al. 2019, sec. 3.3

    All sines stand before all cosines; width is even.  clamp > 0 keeps d within -clamp .. clamp.  Angles in float64.
    """
    check_whole("distance_encodings: T", T, 1, MOST)
    check_whole("distance_encodings: S", S, T, MOST)
    check_whole("distance_encodings: width", width, 2, MOST)
    check_whole("distance_encodings: clamp", clamp, -1, MOST)
    check_number("distance_encodings: base", base, above=0)
    check_float_dtype("distance_encodings: dtype", dtype)
    check_module("distance_encodings: xp", xp)
    if width % 2:
        raise ValueError(f"distance_encodings: expected an even width, got {width}")
    distances = xp.arange(S, -T, -1)
    if clamp > 0:
        distances = xp.clip(distances, -clamp, clamp)
    frequencies = base ** (xp.arange(width // 2, dtype="float64") * (-2 / width))
    angles = distances[:, None] * frequencies
    return xp.concatenate([xp.sin(angles), xp.cos(angles)], axis=-1).astype(dtype)


@expects("x (..., T, R) numbers; whole keys >= 1")
def relative_shift(x, *, keys):
    """y[..., t, j] = x[..., t, T - t + j]: the column of the distance between query t and key j.

    x (..., T, T + S) -> (..., T, S), S = keys.                                                    Dai et al. 2019, appendix B
    In memory that is place T + t (T + S - 1) + j: without the first T places the rows are one shorter, and y is their beginning,
    a view.   dx is zero where y does not look, else dy.
    """
    xp = array_module(x)
    T, R = x.shape[-2:]
    _check_columns("relative_shift", R, T + keys)

    def shifted(a):
        return a.reshape(*a.shape[:-2], T * R)[..., T:].reshape(*a.shape[:-2], T, R - 1)[..., :keys]

    def backward(dy):
        dx = xp.zeros(x.shape, dtype=dy.dtype)
        shifted(dx)[...] = dy  # a view of dx, which is contiguous
        return dx

    return shifted(x), backward


@expects("x (B, H, M, R) numbers, places (B, M) integers; whole keys >= 1")
def relative_rows(x, *, places, keys):
    """y[b, h, m, j] = x[b, h, m, T - places[b, m] + j]: as `relative_shift`, for any M queries, which stand at `places`.

    x (B, H, M, T + S), places (B, M) integers in [0, T) -> (B, H, M, S), S = keys.   dx is zero where y does not look, else dy.
    """
    xp = array_module(x)
    T = x.shape[-1] - keys
    _check_columns("relative_rows", x.shape[-1], max(T, 1) + keys)
    columns = (T - places)[:, None, :, None] + xp.arange(keys)
    columns = xp.broadcast_to(columns, (*x.shape[:-1], keys))

    def backward(dy):
        dx = xp.zeros(x.shape, dtype=dy.dtype)
        xp.put_along_axis(dx, columns, dy, axis=-1)
        return dx

    return xp.take_along_axis(x, columns, axis=-1), backward


def _check_columns(name, given, expected):
    if given != expected:
        raise ValueError(f"{name}: x has {given} columns, expected one for each distance, {expected}")
