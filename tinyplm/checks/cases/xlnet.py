"""Cases of XLNet's parts: relative attention and its two streams."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...layers import relative_shift, two_stream
from ..case import Case, Entry, Sizes


def _shift(s: Sizes) -> Case:
    shape = (s.T, s.T + s.S)
    x = s.rng().normal(size=(s.B, s.H, *shape) if s.flags[0] else shape)
    return Case([x], {"keys": s.S})


def _rows(s: Sizes) -> Case:
    """F queries at any of T positions, possibly several at one."""
    rng = s.rng()
    x = rng.normal(size=(s.B, s.H, s.F, s.T + s.S))
    return Case([x], {"places": rng.integers(0, s.T, (s.B, s.F)), "keys": s.S})


def _view(s: Sizes, rng: np.random.Generator, queries: int, keys: int) -> dict[str, Any]:
    """What the queries of one stream see: all or some keys (sometimes none), in the same or another
    segment, or no segments."""
    mask = rng.random((s.B, 1, queries, keys) if s.flags[1] else (s.B, 1, 1, keys)) < 0.6
    different = rng.random((s.B, queries, keys)) < 0.5 if s.flags[2] else None
    return {"mask": mask if s.flags[0] else None, "different": different}


def _attention(s: Sizes) -> Case:
    """T queries in order, or F at any positions; T of the T + S - 1 keys are new; relative
    positions per sample or shared."""
    rng = s.rng()
    T, S = s.T, s.T + s.S - 1
    places = rng.integers(0, T, (s.B, s.F)) if s.seed % 2 else None
    queries = T if places is None else s.F
    shapes: list[tuple[int, ...]] = [
        (s.B, s.H, queries, s.E),
        (s.B, s.H, S, s.E),
        (s.B, s.H, S, s.E),
        (s.B if s.seed % 3 else 1, s.H, T + S, s.E),
        *[(s.H, s.E)] * 3,
        (2, s.H, s.E),
    ]
    args: list[Any] = [rng.normal(size=shape) for shape in shapes]
    view = _view(s, rng, queries, S)
    if view["different"] is None:
        args[6:] = [None, None]
    return Case(args, {**view, "places": places})


def _attention_dropout(s: Sizes) -> Case:
    case = _attention(s)
    case.kwargs |= {"rate": 0.4, "key": s.rng().integers(0, 2**64, s.B, dtype=np.uint64)}
    return case


def _streams(s: Sizes, query: bool) -> Case:
    """The content stream, or both, with S - 1 tokens of memory (none when S = 1)."""
    rng = s.rng()
    T, S = s.T, s.T + s.S - 1
    shapes: dict[str, tuple[int, ...]] = {f"W{n}": (s.D, s.H, s.E) for n in "qkvr"}
    shapes["Wo"] = (s.H, s.E, s.D)
    shapes |= {f"{n}_bias": (s.H, s.E) for n in "krs"}
    shapes["segments"] = (2, s.H, s.E)
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    kwargs = {
        "relative": rng.normal(size=(s.B if s.seed % 3 else 1, T + S, s.D)),
        "content": _view(s, rng, T, S),
        "memory": rng.normal(size=(s.B, S - T, s.D)) if S > T else None,
    }
    if query:
        view = _view(s, rng, s.F, S)
        kwargs["query"] = {**view, "places": rng.integers(0, T, (s.B, s.F))}
    return Case([p, rng.normal(size=(s.B, T + (s.F if query else 0), s.D))], kwargs)


COMPONENTS = {
    "relative_shift": Entry(
        relative_shift.relative_shift, _shift, "scores by distance turned into scores by key"
    ),
    "relative_rows": Entry(
        relative_shift.relative_rows, _rows, "the relative shift for queries at given positions"
    ),
    "relative_attention": Entry(
        two_stream.relative_attention,
        _attention,
        "Transformer-XL's attention by content, distance and segment",
    ),
    "relative_attention_dropout": Entry(
        two_stream.relative_attention,
        _attention_dropout,
        "relative attention with dropout on the probabilities",
    ),
    "content_stream_attention": Entry(
        two_stream.two_stream_attention,
        partial(_streams, query=False),
        "XLNet's content stream with its projections and memory",
    ),
    "two_stream_attention": Entry(
        two_stream.two_stream_attention,
        partial(_streams, query=True),
        "XLNet's content and query streams",
    ),
}
