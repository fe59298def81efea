# ruff: noqa: E402 - imports follow importorskip
"""Cross-entropy against torch in float64: from logits and in chunks from hidden states, values and gradients."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tests.interop.autograd import compare, rng_for, without_last
from tinyplm.kernels.cross_entropy import vocabulary_cross_entropy
from tinyplm.losses.cross_entropy import cross_entropy


@pytest.mark.parametrize(("shape", "V"), [((1,), 2), ((7,), 5), ((3, 4), 11), ((2, 1, 3), 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("ignored", [True, False])
def test_cross_entropy(shape, V, smoothing, ignored):
    """From logits, and in chunks from hidden states; torch also divides by the number of targets that count."""
    rng = rng_for(*shape, V)
    targets = rng.integers(0, V, shape)
    if ignored and targets.size > 1:
        targets.reshape(-1)[[0, -1]] = [-100, rng.integers(0, V)]
    t = torch.from_numpy(targets.reshape(-1))

    def theirs(logits):
        return F.cross_entropy(logits.reshape(-1, V), t, label_smoothing=smoothing)

    compare(partial(cross_entropy, targets=targets, smoothing=smoothing), theirs, rng.normal(0, 3, (*shape, V)))
    hidden, W, b = rng.normal(size=(*shape, 4)), rng.normal(size=(4, V)), rng.normal(size=V)
    for chunk in (1, 2, 100):
        compare(partial(vocabulary_cross_entropy, targets=targets, smoothing=smoothing, chunk=chunk),
                lambda x, W, b: theirs(F.linear(x, W.T, b)), hidden, W, b)  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_another_ignored_index_weights_and_total(smoothing):
    """Per-token weights, which torch lacks: its unreduced losses are weighted here.  `total` replaces the sum of the weights."""
    rng = rng_for(8)
    targets, weights = rng.integers(0, 6, (3, 5)), rng.random((3, 5))
    targets[1, 1:4] = targets[2, 0] = 3
    t = torch.from_numpy(targets.reshape(-1))

    def theirs(logits, total):
        each = F.cross_entropy(logits.reshape(-1, 6), t, label_smoothing=smoothing, ignore_index=3, reduction="none")
        return (each * torch.from_numpy(weights.reshape(-1))).sum() / total

    options = {"targets": targets, "weights": weights, "smoothing": smoothing, "ignore_index": 3}
    logits, counted = rng.normal(size=(3, 5, 6)), weights[targets != 3].sum()
    compare(partial(cross_entropy, **options), partial(theirs, total=counted), logits)
    compare(partial(cross_entropy, **options, total=40), partial(theirs, total=40), logits)
    hidden, W = rng.normal(size=(3, 5, 4)), rng.normal(size=(4, 6))
    compare(lambda x, W: without_last(vocabulary_cross_entropy(x, W, **options, chunk=4)),
            lambda x, W: theirs(x @ W, counted), hidden, W)  # fmt: skip


def test_cross_entropy_of_extreme_logits():
    """A spread at which exp alone would overflow."""
    rng = rng_for(9)
    targets = rng.integers(0, 6, 20)
    compare(partial(cross_entropy, targets=targets), lambda x: F.cross_entropy(x, torch.from_numpy(targets)),
            rng.normal(0, 1000, (20, 6)))  # fmt: skip
