"""DeBERTa's part of the table of components (tests/components.py): disentangled attention and the convolution over time."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

import reference.layers.activation as ref_activation
import reference.layers.convolution as ref_convolution
import reference.layers.disentangled as ref_disentangled
import reference.layers.dropout as ref_dropout
from reference.scalar import zeros
from tests.laws import Case, Sizes
from tinyplm.kernels import disentangled as disentangled_kernel
from tinyplm.layers import activation, convolution, disentangled, relative_buckets


def _rows(s: Sizes, T: int, S: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(rows, the reference's delta, number of rows in the table): clipped below or above the lengths, or bucketed."""
    if s.flags[2]:
        kwargs = {"buckets": 2 + s.V % 5, "longest": 4 + s.V}
        rows, row = relative_buckets.bucketed_rows(T, S, **kwargs), partial(ref_disentangled.bucketed_row, **kwargs)
        R = 2 * kwargs["buckets"]
    else:
        rows, row = relative_buckets.clipped_rows(T, S, span=s.V), partial(ref_disentangled.clipped_row, span=s.V)
        R = 2 * s.V
    return rows, ref_disentangled.row_table(T, S, row), R


def _scores(s: Sizes) -> Case:
    rng = s.rng()
    rows, delta, R = _rows(s, s.T, s.S)
    return Case([rng.normal(size=(s.B, s.H, s.T, s.E)), rng.normal(size=(R, s.H, s.E))], {"rows": rows}, {"delta": delta})


def _mask(s: Sizes, rng, T: int, S: int) -> np.ndarray | None:
    """None, padding, or one entry per query and key; some rows have nothing to attend to."""
    shape = (s.B, 1, T, S) if s.seed % 3 else (s.B, 1, 1, S)
    return rng.random(shape) < 0.6 if s.flags[0] else None


def _terms(s: Sizes) -> tuple[str, ...]:
    return (("c2p", "p2c"), ("c2p",), ("p2c",), ("c2p", "p2c"))[s.seed % 4]


def _attention(s: Sizes, scores) -> Case:
    rng = s.rng()
    rows, delta, R = _rows(s, s.T, s.S)
    q, k, v = (rng.normal(size=(s.B, s.H, n, s.E)) for n in (s.T, s.S, s.S))
    tables = [rng.normal(size=(R, s.H, s.E)) if name in _terms(s) else None for name in ("c2p", "p2c")]
    kwargs = {"rows": rows, "mask": _mask(s, rng, s.T, s.S), "scale": 0.7 if s.flags[1] else None, "scores": scores}
    return Case([q, k, v, *tables], kwargs, {"delta": delta})


def _dropped_attention(s: Sizes) -> Case:
    """With dropout on the probabilities; the reference draws the same mask and spells out the rest."""
    case = _attention(s, disentangled.relative_scores)
    case.kwargs |= {"rate": 0.4, "key": s.rng().integers(0, 2**64, s.B, dtype=np.uint64)}
    return case


def _reference_dropped(q, k, v, Kr, Qr, *, rate, key, **kwargs):
    """With the identity as v the reference returns the probabilities; dropout is applied to them, then they multiply v."""
    S = k.shape[2]
    identity = np.broadcast_to(np.eye(S), (*k.shape[:3], S))
    P = ref_dropout.dropout(_reference(q, k, identity, Kr, Qr, **kwargs), rate=rate, key=key)
    o = zeros(q.shape, like=(P, v))
    for b, h, t, e in np.ndindex(o.shape):
        o[b, h, t, e] = sum(P[b, h, t, s] * v[b, h, s, e] for s in range(S))
    return o


def _reference(*args, rows, scores, **kwargs):
    return ref_disentangled.disentangled_attention(*args, **kwargs)


def _reference_scores(*args, rows, delta):
    return ref_disentangled.relative_scores(*args, delta=delta)


def _multi_head(s: Sizes) -> Case:
    """The encoder's attention or, with separate queries, the enhanced mask decoder's; flags[1]: shared projections."""
    rng, decoder = s.rng(), s.seed % 8 < 4
    S = s.S if decoder else s.T
    rows, delta, R = _rows(s, s.T, S)
    shapes = {name: (s.D, s.H * s.E) for name in ("Wq", "Wk", "Wv")} | {"Wo": (s.H * s.E, s.D), "bq": (s.H * s.E,)}
    if not s.flags[1]:
        shapes |= {f"W{name}": (s.D, s.H * s.E)
                   for term, name in (("c2p", "kr"), ("p2c", "qr")) if term in _terms(s)}  # fmt: skip
        shapes |= {"bqr": (s.H * s.E,)} if "p2c" in _terms(s) else {}
    if s.flags[0]:
        shapes |= {"bk": (s.H * s.E,), "bv": (s.H * s.E,), "bo": (s.D,)}
    if s.seed // 8 % 2:
        shapes["Wqkv"] = (s.D, 3 * s.H * s.E)
        shapes = {name: shape for name, shape in shapes.items() if name not in ("Wq", "Wk", "Wv")}
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    x, context, relative = rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.B, S, s.D)), rng.normal(size=(R, s.D))
    kwargs = {"heads": s.H, "terms": _terms(s), "rows": rows, "mask": _mask(s, rng, s.T, S)}
    return Case([p, x, context if decoder else None, relative], kwargs, {"delta": delta})


def _reference_multi_head(*args, rows, **kwargs):
    return ref_disentangled.disentangled_multi_head_attention(*args, **kwargs)


def _interleaved(s: Sizes) -> Case:
    return Case([s.rng().normal(size=(s.D, 3 * s.H * s.E))], {"heads": s.H})


def _convolution(s: Sizes) -> Case:
    """Kernel sizes 1, 3 and 5, which extend past short sequences; one or more groups."""
    rng = s.rng()
    K, groups = 1 + 2 * (s.seed % 3), 1 + s.seed % s.G
    args = [(s.B, s.T, groups * s.E), (K, s.E, groups * s.F)] + ([(groups * s.F,)] if s.flags[0] else [])
    args = [rng.normal(size=shape) for shape in args]
    return Case(args if s.flags[0] else [*args, None], {"groups": groups})


def _convolution_layer(s: Sizes) -> Case:
    """With and without padding; eps keeps the norm's curvature moderate at width 1."""
    rng = s.rng()
    case = _convolution(dataclasses.replace(s, F=s.E, flags=(True, *s.flags[1:])))
    x, W, b = case.args
    p = {"W": W, "b": b, "gamma": rng.normal(size=b.shape), "beta": rng.normal(size=b.shape)}
    kwargs = {"activation": activation.gelu_tanh, "eps": 0.1, "real": rng.random((s.B, s.T)) < 0.7 if s.flags[1] else None}
    return Case([p, x, rng.normal(size=x.shape)], case.kwargs | kwargs, {"activation": ref_activation.gelu_tanh})


# name: (implementation, reference, maker of cases)
COMPONENTS = {
    "relative_scores": (disentangled.relative_scores, _reference_scores, _scores),
    "disentangled_attention": (
        disentangled.disentangled_attention, _reference, partial(_attention, scores=disentangled.relative_scores),
    ),
    "disentangled_attention_kernel": (
        disentangled.disentangled_attention, _reference, partial(_attention, scores=disentangled_kernel.relative_scores),
    ),
    "disentangled_attention_dropout": (disentangled.disentangled_attention, _reference_dropped, _dropped_attention),
    "disentangled_multi_head": (
        disentangled.disentangled_multi_head_attention, _reference_multi_head, _multi_head,
    ),
    "split_interleaved": (disentangled.split_interleaved, ref_disentangled.split_interleaved, _interleaved),
    "convolution": (convolution.convolution, ref_convolution.convolution, _convolution),
    "convolution_layer": (convolution.convolution_layer, ref_convolution.convolution_layer, _convolution_layer),
}  # fmt: skip
