"""Chunked log-probabilities equal those from all logits, with and without gradient and entropy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import FEW, PART, relative_error
from tests.losses.test_log_probs import case
from tinyplm.kernels.log_probs import vocabulary_log_probs
from tinyplm.losses.log_probs import log_probs


@pytest.mark.parametrize("chunk", [1, 4, 8, 100])
@pytest.mark.parametrize("names", [("log_probs",), ("entropy",), ("log_probs", "entropy")])
def test_chunks_give_what_all_logits_give(chunk, names):
    x, W, b, targets, draw = case()
    expected, back = log_probs(x @ W + b, targets=targets, temperature=0.7)
    outputs, chunk_back = vocabulary_log_probs(x, W, b, targets=targets, temperature=0.7, chunk=chunk)
    assert relative_error(outputs, expected) < 1e-14
    doutputs = {name: draw.normal(size=targets.shape) for name in names}
    d = back(doutputs)
    rows = d.reshape(-1, 7)
    for _ in range(2):  # the arrays kept from a single chunk are not consumed
        dx, dW, db = chunk_back(doutputs)
        assert relative_error(dx, d @ W.T) < 1e-13
        assert relative_error(dW, x.reshape(-1, 4).T @ rows) < 1e-13
        assert relative_error(db, rows.sum(axis=0)) < 1e-13


def test_large_logits():
    """exp of each of them overflows, even in float64."""
    x, W, b, targets, draw = case()
    expected, back = log_probs(x @ (1e4 * W) + b, targets=targets)
    outputs, chunk_back = vocabulary_log_probs(x, 1e4 * W, b, targets=targets, chunk=4)
    assert relative_error(outputs, expected) < PART
    doutputs = {name: draw.normal(size=targets.shape) for name in outputs}
    near = FEW * 1e5  # how far rounding moves logits of that size, and with them log p
    assert relative_error(chunk_back(doutputs)[2], back(doutputs).reshape(-1, 7).sum(axis=0)) < near


def test_no_target_at_all():
    x, W, _, targets, draw = case()
    outputs, back = vocabulary_log_probs(x, W, targets=np.full_like(targets, -100))
    assert not outputs["log_probs"].any() and not outputs["entropy"].any()
    dx, dW, db = back({name: draw.normal(size=targets.shape) for name in outputs})
    assert not dx.any() and not dW.any() and db is None


def test_no_gradient_at_all():
    x, W, b, targets, _ = case()
    _, back = vocabulary_log_probs(x, W, b, targets=targets)
    assert not any(g.any() for g in back({}))


def test_without_gradient_and_without_entropy():
    x, W, _, targets, _ = case()
    outputs, back = vocabulary_log_probs(x, W, targets=targets, grad=False, entropy=False)
    assert back is None and set(outputs) == {"log_probs"}
