"""Advantages and the rewards they come from against vectorised torch in float64, on random shapes with masks."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.laws import relative_error  # noqa: E402
from tinyplm.losses.advantages import gae, group_advantages, kl_rewards, whiten  # noqa: E402


def drawn(seed):
    """N answers of any length, including 0, that start anywhere in rows of T; the values around them are not 0."""
    draw = np.random.default_rng(seed)
    N, T = draw.integers(1, 7, 2)
    first, last = np.sort(draw.integers(0, T + 1, (2, N)), axis=0)
    places = np.arange(T)
    return draw, (first[:, None] <= places) & (places < last[:, None])


@pytest.mark.parametrize("seed", range(36))
def test_gae(seed):
    """Schulman et al. 2016, eq. 16 as one product: A = delta M, M[s, t] = (gamma lambda)^(s - t) for s >= t in an answer."""
    draw, mask = drawn(seed)
    rewards, values = draw.normal(size=(2, *mask.shape))
    gamma, lam = draw.choice([0.3, 0.9, 1.0], 2)
    r, V, m = (torch.tensor(a) for a in (rewards, values, mask))
    V, T = V * m, mask.shape[1]
    delta = (r + gamma * torch.nn.functional.pad(V[:, 1:], (0, 1)) - V) * m
    steps = torch.arange(T)[:, None] - torch.arange(T)
    M = torch.where(steps >= 0, (gamma * lam) ** steps.clamp(min=0).double(), 0)
    A = (delta @ M) * m
    found = gae(rewards, values, mask, gamma=float(gamma), lam=float(lam))
    assert relative_error(list(found), [A.numpy(), (A + V).numpy()]) < 1e-10


@pytest.mark.parametrize("seed", range(36))
@pytest.mark.parametrize("shift", [True, False])
def test_whitening(seed, shift):
    """To 1e-10 where the deviation is more than rounding error: a single token, whose deviation is 0, is skipped."""
    draw, mask = drawn(seed)
    x = draw.normal(2.0, 3.0, mask.shape)
    if mask.sum() == 1:
        mask[:] = False
    z, m = torch.tensor(x), torch.tensor(mask)
    expected = torch.zeros_like(z)
    if m.any():
        variance, mean = torch.var_mean(z[m], correction=0)
        expected[m] = (z[m] - mean) * torch.rsqrt(variance + 1e-8) + (0 if shift else mean)
    assert relative_error(whiten(x, mask, shift=shift), expected.numpy()) < 1e-10


@pytest.mark.parametrize("seed", range(24))
def test_group_advantages(seed):
    """Shao et al. 2024, sec. 4.1.2, with torch.std, which divides by n - 1."""
    draw = np.random.default_rng(seed)
    group = int(draw.integers(2, 6))
    rewards = draw.integers(0, 3, 4 * group) if seed % 2 else draw.normal(size=4 * group)
    r = torch.tensor(rewards, dtype=torch.float64).reshape(-1, group)
    centred = r - r.mean(dim=1, keepdim=True)
    for scale in (True, False):
        expected = centred / (r.std(dim=1, keepdim=True) + 1e-4) if scale else centred
        found = group_advantages(rewards.astype(float), group=group, scale=scale)
        assert relative_error(found, expected.flatten().numpy()) < 1e-10
        assert not found.reshape(-1, group)[(r == r[:, :1]).all(dim=1).numpy()].any()  # no variance: exactly 0


@pytest.mark.parametrize("seed", range(24))
def test_kl_rewards(seed):
    """Ziegler et al. 2019, eq. 2: a row sums to score - beta log(pi / ref) of the whole answer."""
    draw, mask = drawn(seed)
    log_probs, reference = draw.normal(-2, 1, (2, *mask.shape))
    scores = draw.normal(size=mask.shape[0])
    x, ref, m = torch.tensor(log_probs), torch.tensor(reference), torch.tensor(mask)
    last = m & ~torch.nn.functional.pad(m[:, 1:], (0, 1))
    expected = m * (ref - x) * 0.3 + last * torch.tensor(scores)[:, None]
    found = kl_rewards(scores, log_probs, reference, mask, beta=0.3)
    assert relative_error(found, expected.numpy()) < 1e-10
