"""Cases of the losses of pretraining and of sentence embeddings, and of the pooling before them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...layers import pooling
from ...losses import contrastive, cross_entropy, regression
from ..case import Case, Entry, Sizes


def _targets(s: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    targets = rng.integers(0, s.V, (s.B, s.T))
    targets[rng.random(targets.shape) < 0.3] = -100  # sometimes all of them
    return {
        "targets": targets,
        "weights": rng.random((s.B, s.T)) + 0.1 if s.flags[0] else None,
        "total": 7.5 if s.flags[1] else None,
        "smoothing": 0.1 if s.flags[2] else 0.0,
    }


def _cross_entropy(s: Sizes) -> Case:
    rng = s.rng()
    return Case([rng.normal(0, 2.0, (s.B, s.T, s.V))], _targets(s, rng))


def drawn_cap(s: Sizes) -> float | None:
    """None, or a cap below or above most logits."""
    return (None, 1.5, 5.0)[s.seed % 3]


def _vocabulary_cross_entropy(s: Sizes) -> Case:
    rng = s.rng()
    x, W = rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.D, s.V))
    b = rng.normal(size=s.V) if s.seed % 2 else None
    return Case([x, W, b], {**_targets(s, rng), "cap": drawn_cap(s)})


def _masked(s: Sizes) -> Case:
    """Some rows have no tokens.  Values differ by at least 0.1, since a maximum has a kink where
    two are equal."""
    rng = s.rng()
    x = rng.permutation(s.B * s.T * s.D).reshape(s.B, s.T, s.D) * 0.1 - s.B * s.T * s.D * 0.05
    return Case([x], {"mask": rng.random((s.B, s.T)) < (0.6 if s.flags[0] else 1.0)})


def _hidden(s: Sizes) -> Case:
    return Case([s.rng().normal(size=(s.B, s.T, s.D))])


def _normalised(s: Sizes) -> Case:
    """The floor is below or far above every length, never near one: that is where the kink is."""
    x = s.rng().normal(size=(s.B, s.T, s.D))
    x += np.sign(x) * 0.1
    return Case([x], {"eps": 1e-3 if s.flags[0] else 100.0})


def _weighted(s: Sizes, rng: np.random.Generator, *shape: int) -> dict[str, Any]:
    weights = rng.random(shape) + 0.1 if s.flags[0] else None
    return {"weights": weights, "total": 7.5 if s.flags[1] else None}


def _info_nce(s: Sizes) -> Case:
    rng = s.rng()
    anchors, candidates = s.B * s.T, s.B * s.T + s.S
    targets = rng.permutation(candidates)[:anchors]
    targets[rng.random(anchors) < 0.2] = -100
    args = [rng.normal(size=(n, s.D)) for n in (anchors, candidates)]
    kwargs = {"targets": targets, "temperature": 0.5 if s.flags[2] else 1.3}
    return Case(args, {**kwargs, **_weighted(s, rng, anchors)})


def _symmetric_info_nce(s: Sizes) -> Case:
    rng = s.rng()
    args = [rng.normal(size=(s.B * s.T, s.D)) for _ in "ab"]
    temperature = 0.5 if s.flags[2] else 1.3
    return Case(args, {"temperature": temperature, **_weighted(s, rng, s.B * s.T)})


def _mean_squared_error(s: Sizes) -> Case:
    rng = s.rng()
    targets = rng.normal(size=(s.B, s.T))
    targets[rng.random((s.B, s.T)) < 0.3] = np.nan  # sometimes all of them
    y = rng.normal(size=(s.B, s.T))
    return Case([y], {"targets": targets, **_weighted(s, rng, s.B, s.T)})


def _binary_cross_entropy(s: Sizes) -> Case:
    rng = s.rng()
    targets = rng.random((s.B, s.F)) if s.flags[2] else rng.integers(0, 2, (s.B, s.F))
    targets[rng.random((s.B, s.F)) < 0.3] = -100
    logits = rng.normal(0, 2, (s.B, s.F))
    return Case([logits], {"targets": targets, **_weighted(s, rng, s.B, s.F)})


COMPONENTS = {
    "cross_entropy": Entry(
        cross_entropy.cross_entropy,
        _cross_entropy,
        "cross-entropy of logits, with ignored targets, weights and label smoothing",
    ),
    "vocabulary_cross_entropy": Entry(
        cross_entropy.vocabulary_cross_entropy,
        _vocabulary_cross_entropy,
        "cross-entropy from hidden states, including the output layer",
    ),
    "mean_pooling": Entry(pooling.mean_pooling, _masked, "mean over the tokens of a sequence"),
    "max_pooling": Entry(pooling.max_pooling, _masked, "maximum over the tokens of a sequence"),
    "last_pooling": Entry(pooling.last_pooling, _masked, "last token of a sequence"),
    "cls_pooling": Entry(pooling.cls_pooling, _hidden, "first token of a sequence"),
    "l2_normalise": Entry(pooling.l2_normalise, _normalised, "vectors divided by their length"),
    "info_nce": Entry(
        contrastive.info_nce, _info_nce, "InfoNCE with negatives in the batch and others"
    ),
    "symmetric_info_nce": Entry(
        contrastive.symmetric_info_nce, _symmetric_info_nce, "InfoNCE in both directions"
    ),
    "mean_squared_error": Entry(
        regression.mean_squared_error, _mean_squared_error, "mean squared error; NaN is no target"
    ),
    "binary_cross_entropy": Entry(
        regression.binary_cross_entropy,
        _binary_cross_entropy,
        "binary cross-entropy of logits for labels or probabilities",
    ),
}
