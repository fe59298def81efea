"""The table's losses other than cross-entropy, and the pooling before them: (implementation, reference, maker of cases)."""

from __future__ import annotations

import numpy as np

import reference.layers.pooling as ref_pooling
import reference.losses.contrastive as ref_contrastive
import reference.losses.regression as ref_regression
from tests.laws import Case, Sizes
from tinyplm.layers import pooling
from tinyplm.losses import contrastive, regression


def _masked(s: Sizes) -> Case:
    """Some rows have no tokens.  Values differ by at least 0.1, since a maximum has a kink where two are equal."""
    rng = s.rng()
    x = rng.permutation(s.B * s.T * s.D).reshape(s.B, s.T, s.D) * 0.1 - s.B * s.T * s.D * 0.05
    return Case([x], {"mask": rng.random((s.B, s.T)) < (0.6 if s.flags[0] else 1.0)})


def _hidden(s: Sizes) -> Case:
    return Case([s.rng().normal(size=(s.B, s.T, s.D))])


def _normalised(s: Sizes) -> Case:
    """The floor is below or far above every length, never near one: that is where the kink is."""
    rng = s.rng()
    x = rng.normal(size=(s.B, s.T, s.D))
    x += np.sign(x) * 0.1
    return Case([x], {"eps": 1e-3 if s.flags[0] else 100.0})


def _weighted(s: Sizes, rng, *shape: int) -> dict:
    return {"weights": rng.random(shape) + 0.1 if s.flags[0] else None, "total": 7.5 if s.flags[1] else None}


def _info_nce(s: Sizes) -> Case:
    rng = s.rng()
    anchors, candidates = s.B * s.T, s.B * s.T + s.S
    targets = rng.permutation(candidates)[:anchors]
    targets[rng.random(anchors) < 0.2] = -100
    args = [rng.normal(size=(n, s.D)) for n in (anchors, candidates)]
    return Case(args, {"targets": targets, "temperature": 0.5 if s.flags[2] else 1.3, **_weighted(s, rng, anchors)})


def _symmetric_info_nce(s: Sizes) -> Case:
    rng = s.rng()
    args = [rng.normal(size=(s.B * s.T, s.D)) for _ in "ab"]
    return Case(args, {"temperature": 0.5 if s.flags[2] else 1.3, **_weighted(s, rng, s.B * s.T)})


def _mean_squared_error(s: Sizes) -> Case:
    rng = s.rng()
    targets = rng.normal(size=(s.B, s.T))
    targets[rng.random((s.B, s.T)) < 0.3] = np.nan  # sometimes all of them
    return Case([rng.normal(size=(s.B, s.T))], {"targets": targets, **_weighted(s, rng, s.B, s.T)})


def _binary_cross_entropy(s: Sizes) -> Case:
    rng = s.rng()
    targets = rng.random((s.B, s.F)) if s.flags[2] else rng.integers(0, 2, (s.B, s.F))
    targets[rng.random((s.B, s.F)) < 0.3] = -100
    return Case([rng.normal(0, 2, (s.B, s.F))], {"targets": targets, **_weighted(s, rng, s.B, s.F)})


COMPONENTS = {
    "mean_pooling": (pooling.mean_pooling, ref_pooling.mean_pooling, _masked),
    "max_pooling": (pooling.max_pooling, ref_pooling.max_pooling, _masked),
    "last_pooling": (pooling.last_pooling, ref_pooling.last_pooling, _masked),
    "cls_pooling": (pooling.cls_pooling, ref_pooling.cls_pooling, _hidden),
    "l2_normalise": (pooling.l2_normalise, ref_pooling.l2_normalise, _normalised),
    "info_nce": (contrastive.info_nce, ref_contrastive.info_nce, _info_nce),
    "symmetric_info_nce": (contrastive.symmetric_info_nce, ref_contrastive.symmetric_info_nce, _symmetric_info_nce),
    "mean_squared_error": (regression.mean_squared_error, ref_regression.mean_squared_error, _mean_squared_error),
    "binary_cross_entropy": (regression.binary_cross_entropy, ref_regression.binary_cross_entropy, _binary_cross_entropy),
}
