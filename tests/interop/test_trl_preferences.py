# ruff: noqa: E402 - imports follow importorskip
"""KTO, ORPO, SimPO and DAPO's punishment of length against TRL's own code in float64, as in test_trl.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl", reason="TRL is not installed")
if not trl.__version__.startswith("1.16."):
    pytest.skip(f"TRL {trl.__version__}: written for the trainers of 1.16", allow_module_level=True)

from trl import KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.rewards import get_soft_overlong_punishment

from tests.interop.test_trl import SEEDS, leaf, stand_in
from tests.laws import relative_error
from tinyplm.losses.advantages import overlong_punishment
from tinyplm.losses.feedback import kto, reference_point
from tinyplm.losses.reference_free import orpo, simpo


@pytest.mark.parametrize("seed", SEEDS)
def test_kto(seed):
    """From the log-probabilities of tokens, with the reference point from answers to other prompts."""
    draw = np.random.default_rng(seed)
    N, T = int(draw.integers(2, 7)), int(draw.integers(1, 5))
    mask = np.arange(T) < draw.integers(1, T + 1, N)[:, None]
    tokens, others = np.where(mask, -draw.random((2, N, T)) * 2, 0)
    reference, others_reference = draw.normal(-2, 1, (2, N))
    desirable = draw.random(N) < 0.5
    kl = reference_point(others.sum(axis=1), others_reference)
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.8}
    loss, back = kto(tokens.sum(axis=1), reference_log_probs=reference, desirable=desirable, kl=kl, beta=0.3, **weights)

    x = leaf(tokens)

    def model(labels, **_):
        return SimpleNamespace(log_probs=x, entropy=torch.zeros(N, T), mean_logits=torch.zeros(N, T))

    model.training = True
    trainer = stand_in(loss_type="kto", calculate_KL=True, precompute_ref_logps=True, beta=0.3, **weights,
                       _compute_kl_logps=lambda model, batch: torch.tensor(others).sum(-1))  # fmt: skip
    full = torch.tensor(np.concatenate([np.zeros((N, 1), bool), mask], axis=1)).long()
    inputs = {"input_ids": torch.zeros_like(full), "attention_mask": full, "completion_mask": full,
              "label": torch.tensor(desirable), "ref_logps": torch.tensor(reference),
              "ref_KL_logps": torch.tensor(others_reference)}  # fmt: skip
    expected = KTOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    expected.backward()
    assert trainer._metrics["train"]["kl"][0] == pytest.approx(float(kl), rel=1e-12)
    assert relative_error(np.asarray(loss), expected.detach().numpy()) < 1e-10
    assert relative_error(np.broadcast_to(back(1.0)[:, None], (N, T)), x.grad.numpy()) < 1e-10


@pytest.mark.parametrize("seed", SEEDS)
def test_orpo(seed, monkeypatch):
    """TRL's odds ratio, which it asks for in float32, and the likelihood of the chosen answers."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    draw = np.random.default_rng(seed)
    x = -draw.uniform(0.01, 5, (2, int(draw.integers(1, 7))))
    loss, back = orpo(*x, lam=0.3)
    z = leaf(x)
    losses = ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=0.3, accelerator=stand_in().accelerator), z[0], z[1])[0]
    expected = (-z[0] - losses).mean()
    expected.backward()
    assert relative_error(np.asarray(loss), expected.detach().numpy()) < 1e-10
    assert relative_error(np.stack(back(1.0)), z.grad.numpy()) < 1e-10


@pytest.mark.parametrize("seed", SEEDS)
def test_simpo(seed):
    draw = np.random.default_rng(seed)
    x = -draw.uniform(0.01, 5, (2, int(draw.integers(1, 7))))
    loss, back = simpo(*x, beta=2.5, margin=1.2)
    z = leaf(x)
    trainer = stand_in(loss_type="simpo", simpo_gamma=1.2, beta=2.5, alpha=0.0, label_smoothing=0.0)
    expected = CPOTrainer.cpo_loss(trainer, z[0], z[1])[0].mean()
    expected.backward()
    assert relative_error(np.asarray(loss), expected.detach().numpy()) < 1e-10
    assert relative_error(np.stack(back(1.0)), z.grad.numpy()) < 1e-10


def test_overlong_punishment():
    lengths = np.arange(1, 13)
    punish = get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=4)
    expected = punish(completion_ids=[[0] * n for n in lengths])
    assert overlong_punishment(lengths, longest=10, room=4).tolist() == pytest.approx(expected, rel=1e-12)
