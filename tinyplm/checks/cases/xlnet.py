"""XLNet's components for the table in tests/components.py: {name: (implementation, reference, maker of cases)}."""

from __future__ import annotations

import numpy as np

import reference.layers.dropout as ref_dropout
import reference.layers.two_stream as ref
from tests.laws import Case, Sizes
from tinyplm.layers import relative_shift, two_stream


def _shift(s: Sizes) -> Case:
    shape = (s.T, s.T + s.S)
    return Case([s.rng().normal(size=(s.B, s.H, *shape) if s.flags[0] else shape)], {"keys": s.S})


def _rows(s: Sizes) -> Case:
    """F queries at any of T positions, possibly several at one."""
    rng = s.rng()
    return Case([rng.normal(size=(s.B, s.H, s.F, s.T + s.S))], {"places": rng.integers(0, s.T, (s.B, s.F)), "keys": s.S})


def _view(s: Sizes, rng, queries: int, keys: int) -> dict:
    """What the queries of one stream see: all or some keys (sometimes none), in the same or another segment, or no segments."""
    mask = rng.random((s.B, 1, queries, keys) if s.flags[1] else (s.B, 1, 1, keys)) < 0.6
    return {"mask": mask if s.flags[0] else None, "different": rng.random((s.B, queries, keys)) < 0.5 if s.flags[2] else None}


def _attention(s: Sizes) -> Case:
    """T queries in order, or F at any positions; T of the T + S - 1 keys are new; relative positions per sample or shared."""
    rng = s.rng()
    T, S = s.T, s.T + s.S - 1
    places = rng.integers(0, T, (s.B, s.F)) if s.seed % 2 else None
    queries = T if places is None else s.F
    r = (s.B if s.seed % 3 else 1, s.H, T + S, s.E)
    shapes = [(s.B, s.H, queries, s.E), (s.B, s.H, S, s.E), (s.B, s.H, S, s.E), r, *[(s.H, s.E)] * 3, (2, s.H, s.E)]
    args = [rng.normal(size=shape) for shape in shapes]
    view = _view(s, rng, queries, S)
    if view["different"] is None:
        args[6:] = [None, None]
    return Case(args, {**view, "places": places})


def _attention_dropout(s: Sizes) -> Case:
    case = _attention(s)
    case.kwargs |= {"rate": 0.4, "key": s.rng().integers(0, 2**64, s.B, dtype=np.uint64)}
    return case


def _reference_dropout(q, k, v, *args, rate, key, **kwargs):
    """With the identity as v the reference returns the probabilities; dropout is applied to them, then they multiply v."""
    identity = np.broadcast_to(np.eye(k.shape[2]), (*k.shape[:3], k.shape[2]))
    P = ref_dropout.dropout(ref.relative_attention(q, k, identity, *args, **kwargs), rate=rate, key=key)
    return np.array([[P[b, h] @ v[b, h] for h in range(v.shape[1])] for b in range(v.shape[0])])


def _streams(s: Sizes, query: bool) -> Case:
    """The content stream, or both, with S - 1 tokens of memory (none when S = 1)."""
    rng = s.rng()
    T, S = s.T, s.T + s.S - 1
    shapes = {**{f"W{n}": (s.D, s.H, s.E) for n in "qkvr"}, "Wo": (s.H, s.E, s.D),
              **{f"{n}_bias": (s.H, s.E) for n in "krs"}, "segments": (2, s.H, s.E)}  # fmt: skip
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    kwargs = {"relative": rng.normal(size=(s.B if s.seed % 3 else 1, T + S, s.D)), "content": _view(s, rng, T, S),
              "memory": rng.normal(size=(s.B, S - T, s.D)) if S > T else None}  # fmt: skip
    if query:
        kwargs["query"] = {**_view(s, rng, s.F, S), "places": rng.integers(0, T, (s.B, s.F))}
    return Case([p, rng.normal(size=(s.B, T + (s.F if query else 0), s.D))], kwargs)


COMPONENTS = {
    "relative_shift": (relative_shift.relative_shift, ref.relative_shift, _shift),
    "relative_rows": (relative_shift.relative_rows, ref.relative_rows, _rows),
    "relative_attention": (two_stream.relative_attention, ref.relative_attention, _attention),
    "relative_attention_dropout": (two_stream.relative_attention, _reference_dropout, _attention_dropout),
    "content_stream_attention": (two_stream.two_stream_attention, ref.two_stream_attention, lambda s: _streams(s, False)),
    "two_stream_attention": (two_stream.two_stream_attention, ref.two_stream_attention, lambda s: _streams(s, True)),
}
