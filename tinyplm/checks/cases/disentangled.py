"""Cases of DeBERTa's parts: disentangled attention and the convolution over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...kernels import disentangled as disentangled_kernel
from ...layers import activation, convolution, disentangled, relative_buckets
from ..case import Case, Entry, Sizes


def distances(s: Sizes) -> dict[str, int]:
    """How distances become rows: in buckets up to the `longest`, or clipped below or above the
    lengths by `span`."""
    return {"buckets": 2 + s.V % 5, "longest": 4 + s.V} if s.flags[2] else {"span": s.V}


def _rows(s: Sizes, T: int, S: int) -> tuple[np.ndarray, int]:
    """(rows, number of rows in the table)."""
    settings = distances(s)
    if s.flags[2]:
        return relative_buckets.bucketed_rows(T, S, **settings), 2 * settings["buckets"]
    return relative_buckets.clipped_rows(T, S, **settings), 2 * settings["span"]


def _scores(s: Sizes) -> Case:
    rng = s.rng()
    rows, R = _rows(s, s.T, s.S)
    args = [rng.normal(size=(s.B, s.H, s.T, s.E)), rng.normal(size=(R, s.H, s.E))]
    return Case(args, {"rows": rows})


def _mask(s: Sizes, rng: np.random.Generator, T: int, S: int) -> np.ndarray | None:
    """None, padding, or one entry per query and key; some rows have nothing to attend to."""
    shape = (s.B, 1, T, S) if s.seed % 3 else (s.B, 1, 1, S)
    return rng.random(shape) < 0.6 if s.flags[0] else None


def _terms(s: Sizes) -> tuple[str, ...]:
    choices: list[tuple[str, ...]] = [("c2p", "p2c"), ("c2p",), ("p2c",), ("c2p", "p2c")]
    return choices[s.seed % 4]


def _attention(s: Sizes, scores: Callable) -> Case:
    rng = s.rng()
    rows, R = _rows(s, s.T, s.S)
    q, k, v = (rng.normal(size=(s.B, s.H, n, s.E)) for n in (s.T, s.S, s.S))
    terms = _terms(s)
    tables = [rng.normal(size=(R, s.H, s.E)) if n in terms else None for n in ("c2p", "p2c")]
    kwargs = {
        "rows": rows,
        "mask": _mask(s, rng, s.T, s.S),
        "scale": 0.7 if s.flags[1] else None,
        "scores": scores,
    }
    return Case([q, k, v, *tables], kwargs)


def _dropped_attention(s: Sizes) -> Case:
    """With dropout on the probabilities."""
    case = _attention(s, disentangled.relative_scores)
    case.kwargs |= {"rate": 0.4, "key": s.rng().integers(0, 2**64, s.B, dtype=np.uint64)}
    return case


def _multi_head(s: Sizes) -> Case:
    """The encoder's attention or, with separate queries, the enhanced mask decoder's; flags[1]:
    shared projections."""
    rng, decoder = s.rng(), s.seed % 8 < 4
    S = s.S if decoder else s.T
    rows, R = _rows(s, s.T, S)
    matrix, vector = (s.D, s.H * s.E), (s.H * s.E,)
    shapes: dict[str, tuple[int, ...]] = {name: matrix for name in ("Wq", "Wk", "Wv")}
    shapes |= {"Wo": (s.H * s.E, s.D), "bq": vector}
    if not s.flags[1]:
        terms = (("c2p", "kr"), ("p2c", "qr"))
        shapes |= {f"W{name}": matrix for term, name in terms if term in _terms(s)}
        shapes |= {"bqr": vector} if "p2c" in _terms(s) else {}
    if s.flags[0]:
        shapes |= {"bk": vector, "bv": vector, "bo": (s.D,)}
    if s.seed // 8 % 2:
        shapes["Wqkv"] = (s.D, 3 * s.H * s.E)
        apart = ("Wq", "Wk", "Wv")
        shapes = {name: shape for name, shape in shapes.items() if name not in apart}
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    x, context = rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.B, S, s.D))
    relative = rng.normal(size=(R, s.D))
    mask = _mask(s, rng, s.T, S)
    kwargs = {"heads": s.H, "terms": _terms(s), "rows": rows, "mask": mask}
    return Case([p, x, context if decoder else None, relative], kwargs)


def _interleaved(s: Sizes) -> Case:
    return Case([s.rng().normal(size=(s.D, 3 * s.H * s.E))], {"heads": s.H})


def _convolution(s: Sizes) -> Case:
    """Kernel sizes 1, 3 and 5, which extend past short sequences; one or more groups."""
    rng = s.rng()
    K, groups = 1 + 2 * (s.seed % 3), 1 + s.seed % s.G
    x, W = rng.normal(size=(s.B, s.T, groups * s.E)), rng.normal(size=(K, s.E, groups * s.F))
    b = rng.normal(size=groups * s.F) if s.flags[0] else None
    return Case([x, W, b], {"groups": groups})


def _convolution_layer(s: Sizes) -> Case:
    """With and without padding; eps keeps the norm's curvature moderate at width 1."""
    rng = s.rng()
    case = _convolution(dataclasses.replace(s, F=s.E, flags=(True, *s.flags[1:])))
    x, W, b = case.args
    p = {"W": W, "b": b, "gamma": rng.normal(size=b.shape), "beta": rng.normal(size=b.shape)}
    real = rng.random((s.B, s.T)) < 0.7 if s.flags[1] else None
    kwargs: dict[str, Any] = {"activation": activation.gelu_tanh, "eps": 0.1, "real": real}
    return Case([p, x, rng.normal(size=x.shape)], case.kwargs | kwargs)


COMPONENTS = {
    "relative_scores": Entry(
        disentangled.relative_scores, _scores, "scores of queries and rows of a table of distances"
    ),
    "disentangled_attention": Entry(
        disentangled.disentangled_attention,
        partial(_attention, scores=disentangled.relative_scores),
        "DeBERTa's attention: content to content, to position, and position to content",
    ),
    "disentangled_attention_kernel": Entry(
        disentangled.disentangled_attention,
        partial(_attention, scores=disentangled_kernel.relative_scores),
        "disentangled attention with the kernel of its scores",
        plain="disentangled_attention",
    ),
    "disentangled_attention_dropout": Entry(
        disentangled.disentangled_attention,
        _dropped_attention,
        "disentangled attention with dropout on the probabilities",
    ),
    "disentangled_multi_head": Entry(
        disentangled.disentangled_multi_head_attention,
        _multi_head,
        "disentangled attention with its projections, shared or separate",
    ),
    "split_interleaved": Entry(
        disentangled.split_interleaved,
        _interleaved,
        "a matrix with q, k and v interleaved by head, split in three",
    ),
    "convolution": Entry(convolution.convolution, _convolution, "convolution over time, in groups"),
    "convolution_layer": Entry(
        convolution.convolution_layer,
        _convolution_layer,
        "DeBERTa's convolution beside its first layer, with activation and LayerNorm",
    ),
}
