"""Cases of encoder heads: the masked-LM transform, pooler, classifiers, spans of answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import array_module
from ...core import Backward
from ...layers import activation, heads
from ..case import Case, Entry, Sizes

# as in the heads of BERT and RoBERTa, of ALBERT, and of DistilBERT (tanh instead of its ReLU, which
# has a kink)
_ACTIVATIONS = [activation.gelu, activation.gelu_tanh, activation.tanh]


def _dense(rng: np.random.Generator, n_in: int, n_out: int) -> dict[str, np.ndarray]:
    return {"W": rng.normal(size=(n_in, n_out)), "b": rng.normal(size=n_out)}


def _dropout(s: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    key = rng.integers(0, 2**64, s.B, dtype=np.uint64) if s.flags[0] else None
    return {"rate": 0.4, "key": key}


def _tanh(s: Sizes) -> Case:
    return Case([s.rng().normal(0, 2.0, (s.B, s.T, s.D))])


def _lm_transform(s: Sizes) -> Case:
    """At least two outputs, since the norm of one is a constant; eps keeps the norm's curvature
    moderate.  For all positions, or only those with a target."""
    rng = s.rng()
    F = s.F + 1
    p = _dense(rng, s.D, F) | {"gamma": rng.normal(size=F), "beta": rng.normal(size=F)}
    x = rng.normal(size=(s.B, s.T, s.D) if s.flags[0] else (s.B, s.D))
    return Case([p, x], {"activation": _ACTIVATIONS[s.seed % 3], "eps": 0.1})


def _pooler(s: Sizes) -> Case:
    rng = s.rng()
    args = [_dense(rng, s.D, s.F), rng.normal(size=(s.B, s.T, s.D))]
    place = -1 if s.flags[0] else 0
    return Case(args, {"activation": _ACTIVATIONS[s.seed % 3], "place": place})


def _classifier(s: Sizes) -> Case:
    """Of tokens, or of sequences."""
    rng = s.rng()
    x = rng.normal(size=(s.B, s.T, s.D) if s.flags[1] else (s.B, s.D))
    return Case([_dense(rng, s.D, s.F), x], _dropout(s, rng))


def _dense_classifier(s: Sizes) -> Case:
    rng = s.rng()
    options = _dropout(s, rng)
    p = {"dense": _dense(rng, s.D, s.D), "out": _dense(rng, s.D, s.F)}
    return Case([p, rng.normal(size=(s.B, s.T, s.D))], options)


def _span_head(s: Sizes) -> Case:
    rng = s.rng()
    return Case([_dense(rng, s.D, 2), rng.normal(size=(s.B, s.T, s.D))])


def joined_span_head(p: Any, x: Any) -> tuple[Any, Backward]:
    """Both outputs in one array (2, B, T)."""
    outputs, back = heads.span_head(p, x)
    names = ("start_logits", "end_logits")
    joined = array_module(x).stack([outputs[name] for name in names])
    return joined, lambda dy: back({name: dy[i] for i, name in enumerate(names)})


COMPONENTS = {
    "tanh": Entry(activation.tanh, _tanh, "hyperbolic tangent"),
    "lm_transform": Entry(
        heads.lm_transform, _lm_transform, "masked-LM transform: dense, activation, LayerNorm"
    ),
    "pooler": Entry(heads.pooler, _pooler, "dense and activation of the first or last token"),
    "classifier": Entry(
        heads.classifier, _classifier, "dropout and dense, of tokens or of sequences"
    ),
    "dense_classifier": Entry(
        heads.dense_classifier,
        _dense_classifier,
        "RoBERTa's classifier: dense, tanh, dense, with dropout before each dense",
    ),
    "span_head": Entry(
        joined_span_head, _span_head, "scores of the start and the end of an answer"
    ),
}
