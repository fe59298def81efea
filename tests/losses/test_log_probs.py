"""Log-probabilities of tokens: chunked equals unchunked, and edge cases.  The laws are in test_components.py."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import FEW
from tinyplm.losses.log_probs import log_probs, vocabulary_log_probs


def case(seed=0, N=(3, 5), D=4, V=7):
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, V, N)
    targets[draw.random(N) < 0.4] = -100
    return draw.normal(size=(*N, D)), draw.normal(size=(D, V)), draw.normal(size=V), targets, draw


def test_by_hand():
    """Two tokens, one three times as likely as the other; a uniform choice has entropy ln 2."""
    logits = np.log(np.array([[3.0, 1.0], [1.0, 1.0], [5.0, 1.0]]))
    outputs, back = log_probs(logits, targets=np.array([0, 1, -100]))
    assert np.allclose(outputs["log_probs"], [np.log(0.75), np.log(0.5), 0], rtol=FEW)
    assert np.allclose(outputs["entropy"], [-0.75 * np.log(0.75) - 0.25 * np.log(0.25), np.log(2), 0], rtol=FEW)
    d = back({"log_probs": np.array([1.0, 1.0, 1.0]), "entropy": np.array([0.0, 1.0, 1.0])})
    assert np.allclose(d, [[0.25, -0.25], [-0.5, 0.5], [0, 0]], atol=FEW)  # the entropy is greatest at the uniform distribution


def test_extreme_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    outputs, back = log_probs(logits, targets=np.array([1]))
    assert outputs["log_probs"].tolist() == [-2e4] and outputs["entropy"].tolist() == [0.0]
    d = back({"log_probs": np.array([0.7], np.float32), "entropy": np.array([-0.3], np.float32)})
    a = np.float32(0.7)  # p = (1, 0, 0), at which the entropy is flat
    assert d.dtype == np.float32 and np.array_equal(d, np.array([[-a, a, 0]]))


@pytest.mark.parametrize("change, message", [
    ({"targets": np.zeros((3, 4), int)}, r"targets: expected .* integers of shape \(3, 5\), got int64 .* \(3, 4\)"),
    ({"targets": np.zeros((3, 5))}, "targets: expected an array of integers .* got float64"),
    ({"targets": np.full((3, 5), 7)}, "targets: expected integers from 0 to 6, or -100 for ignored, got 7"),
    ({"temperature": 0.0}, "temperature: expected a finite number > 0, got 0.0"),
    ({"temperature": float("nan")}, "temperature: expected a finite number > 0, got nan"),
])  # fmt: skip
def test_bad_input(change, message):
    x, W, _, targets, _ = case()
    with pytest.raises(ValueError, match=message):
        log_probs(x @ W, **{"targets": targets, **change})
    with pytest.raises(ValueError, match=message):
        vocabulary_log_probs(x, W, **{"targets": targets, **change})
    with pytest.raises(ValueError, match=r"W: expected .* \(4, V\), got .* \(2, 7\)"):
        vocabulary_log_probs(x, W[:2], targets=targets)
    with pytest.raises(ValueError, match=r"b: expected .* \(7,\), got .* \(3,\)"):
        vocabulary_log_probs(x, W, np.zeros(3), targets=targets)
