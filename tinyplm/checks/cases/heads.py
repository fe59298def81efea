"""The table's encoder heads: (implementation, reference, maker of cases)."""

from __future__ import annotations

import numpy as np

import reference.layers.activation as ref_activation
import reference.layers.heads as ref_heads
from tests.laws import Case, Sizes
from tinyplm.backend import array_module
from tinyplm.layers import activation, heads
from tinyplm.random import fold

# as in the heads of BERT and RoBERTa, of ALBERT, and of DistilBERT (tanh instead of its ReLU, which has a kink)
_ACTIVATIONS = [(activation.gelu, ref_activation.gelu), (activation.gelu_tanh, ref_activation.gelu_tanh),
                (activation.tanh, ref_activation.tanh)]  # fmt: skip


def _dense(rng, n_in: int, n_out: int) -> dict:
    return {"W": rng.normal(size=(n_in, n_out)), "b": rng.normal(size=n_out)}


def _dropout(s: Sizes, rng) -> dict:
    return {"rate": 0.4, "key": rng.integers(0, 2**64, s.B, dtype=np.uint64) if s.flags[0] else None}


def _tanh(s: Sizes) -> Case:
    return Case([s.rng().normal(0, 2.0, (s.B, s.T, s.D))])


def _lm_transform(s: Sizes) -> Case:
    """At least two outputs, since the norm of one is a constant; eps keeps the norm's curvature moderate."""
    rng = s.rng()
    ours, theirs = _ACTIVATIONS[s.seed % 3]
    F = s.F + 1
    p = _dense(rng, s.D, F) | {"gamma": rng.normal(size=F), "beta": rng.normal(size=F)}
    x = rng.normal(size=(s.B, s.T, s.D) if s.flags[0] else (s.B, s.D))  # all positions, or only those with a target
    return Case([p, x], {"activation": ours, "eps": 0.1}, {"activation": theirs})


def _pooler(s: Sizes) -> Case:
    rng = s.rng()
    ours, theirs = _ACTIVATIONS[s.seed % 3]
    args = [_dense(rng, s.D, s.F), rng.normal(size=(s.B, s.T, s.D))]
    return Case(args, {"activation": ours, "place": -1 if s.flags[0] else 0}, {"activation": theirs})


def _classifier(s: Sizes) -> Case:
    rng = s.rng()
    x = rng.normal(size=(s.B, s.T, s.D) if s.flags[1] else (s.B, s.D))  # tokens, or sequences
    return Case([_dense(rng, s.D, s.F), x], _dropout(s, rng))


def _dense_classifier(s: Sizes) -> Case:
    rng = s.rng()
    options = _dropout(s, rng)
    key = options["key"]
    p = {"dense": _dense(rng, s.D, s.D), "out": _dense(rng, s.D, s.F)}
    two = None if key is None else (fold(key, 0), fold(key, 1))
    return Case([p, rng.normal(size=(s.B, s.T, s.D))], options, {"key": two})


def _span_head(s: Sizes) -> Case:
    rng = s.rng()
    return Case([_dense(rng, s.D, 2), rng.normal(size=(s.B, s.T, s.D))])


def _joined_span_head(p, x):
    """Both outputs in one array (2, B, T)."""
    outputs, back = heads.span_head(p, x)
    names = ("start_logits", "end_logits")
    joined = array_module(x).stack([outputs[name] for name in names])
    return joined, lambda dy: back({name: dy[i] for i, name in enumerate(names)})


def _reference_joined_span_head(p, x):
    outputs = ref_heads.span_head(p, x)
    return np.stack([outputs["start_logits"], outputs["end_logits"]])


COMPONENTS = {
    "tanh": (activation.tanh, ref_activation.tanh, _tanh),
    "lm_transform": (heads.lm_transform, ref_heads.lm_transform, _lm_transform),
    "pooler": (heads.pooler, ref_heads.pooler, _pooler),
    "classifier": (heads.classifier, ref_heads.classifier, _classifier),
    "dense_classifier": (heads.dense_classifier, ref_heads.dense_classifier, _dense_classifier),
    "span_head": (_joined_span_head, _reference_joined_span_head, _span_head),
}
