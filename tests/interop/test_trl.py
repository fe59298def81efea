# ruff: noqa: E402 - imports follow importorskip
"""The tuning losses against TRL's own code in float64, from logits or rewards to the loss and back: values and gradients.

TRL's losses are inside its trainers.  Their methods are called here with a stand-in for the trainer that has only the attributes
the method reads, so an option unknown to us is an error.  This is not a public TRL interface, so the tests require one version.
It no longer has PPO (GAE, whitening, value loss, adaptive coefficient: test_advantages.py) or label smoothing in DPO's sigmoid
loss: that is compared through "aot", which on a single pair is the same formula.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl", reason="TRL is not installed")
if not trl.__version__.startswith("1.16."):
    pytest.skip(f"TRL {trl.__version__}: written for the trainers of 1.16", allow_module_level=True)

from trl import DPOTrainer, GRPOTrainer, RewardTrainer
from trl.experimental.gkd import GKDTrainer
from trl.trainer.utils import nanstd, selective_log_softmax_and_entropy

from tests.laws import relative_error
from tinyplm.losses.advantages import group_advantages
from tinyplm.losses.distillation import distillation
from tinyplm.losses.log_probs import log_probs
from tinyplm.losses.policy import grpo, k3_kl
from tinyplm.losses.preference import bradley_terry, dpo, hinge, ipo, preference_statistics
from tinyplm.losses.sequence_policy import gspo

SEEDS = range(12)


class Metrics(dict):
    """What a trainer logs, by mode and name."""

    def __missing__(self, name):
        return self.setdefault(name, [])


def stand_in(**attributes):
    """A single-process CPU trainer with the attributes that the method under test reads."""
    same = lambda value, **_: value  # noqa: E731
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=1, sync_gradients=True, gather=same,
                                  gather_for_metrics=same, reduce=same)  # fmt: skip
    return SimpleNamespace(accelerator=accelerator, model=SimpleNamespace(training=True), aux_loss_enabled=False,
                           _metrics={"train": Metrics()}, _total_train_tokens=0, _tp_size=1, **attributes)  # fmt: skip


def leaf(a):
    return torch.tensor(a, requires_grad=True)


def drawn(seed, rows=1):
    """Logits (N, T, V), the ids (N, T) that they predict, and which of them count; an answer may be empty."""
    draw = np.random.default_rng(seed)
    N, T, V = rows * int(draw.integers(1, 5)), int(draw.integers(1, 7)), int(draw.integers(2, 9))
    lengths = draw.integers(0, T + 1, N)
    return draw, draw.normal(0, 2, (N, T, V)), draw.integers(0, V, (N, T)), np.arange(T) < lengths[:, None]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_and_entropy(seed, temperature):
    draw, logits, ids, mask = drawn(seed)
    dl, dH = draw.normal(size=(2, *mask.shape))
    outputs, back = log_probs(logits, targets=np.where(mask, ids, -100), temperature=temperature)
    z = leaf(logits)
    chosen, entropy = selective_log_softmax_and_entropy(z, torch.tensor(ids), temperature=temperature,
                                                        row_mask=torch.tensor(mask))  # fmt: skip
    assert relative_error(outputs, {"log_probs": chosen.detach().numpy(), "entropy": entropy.detach().numpy()}) < 1e-10
    (chosen * torch.tensor(dl) + entropy * torch.tensor(dH)).sum().backward()
    assert relative_error(back({"log_probs": dl, "entropy": dH}), z.grad.numpy()) < 1e-10


# How TRL's loss_type averages, expressed as our weights and total (losses/policy.py); T is max_completion_length.
AVERAGES = {
    "grpo": lambda mask: (mask / np.maximum(mask.sum(axis=1, keepdims=True), 1), len(mask)),
    "bnpo": lambda mask: (mask.astype(float), None),
    "dr_grpo": lambda mask: (mask.astype(float), mask.size),
    "dapo": lambda mask: (mask.astype(float), max(mask.sum(), 1)),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_grpo(seed, average, beta, level):
    """Covers the temperature, the ratio (of tokens, or as GSPO's), both ends of the clip, the KL term, the entropy bonus and all
    four averages."""
    draw, logits, ids, mask = drawn(seed)
    logits *= 0.5  # so that many tokens fall inside the clip range and on both sides of it
    temperature, bonus = 0.8, 0.01
    A = draw.normal(size=len(mask))
    w, total = AVERAGES[average](mask)
    outputs, logits_back = log_probs(logits, targets=np.where(mask, ids, -100), temperature=temperature)
    x = outputs["log_probs"]
    old, reference = (np.where(mask, x + draw.normal(0, 0.3, x.shape), 0) for _ in range(2))
    kwargs = {"old_log_probs": old, "weights": w, "total": total, "clip": 0.2, "clip_high": 0.28}
    surrogate = {"token": grpo, "sequence": gspo}[level]
    loss, back = surrogate(x, advantages=A[:, None], reference_log_probs=reference, beta=beta, **kwargs)
    tokens = max(mask.sum(), 1)
    loss = loss - bonus * outputs["entropy"].sum() / tokens
    dlogits = logits_back({"log_probs": back(1.0), "entropy": -bonus * mask / tokens})

    z = leaf(logits)

    def per_token(*_, **__):
        return *selective_log_softmax_and_entropy(z, torch.tensor(ids), temperature=temperature), None

    trainer = stand_in(
        _get_per_token_logps_and_entropies=per_token, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level=level, beta=beta, loss_type=average, epsilon_low=0.2, epsilon_high=0.28, use_vllm=False,
        max_completion_length=mask.shape[1], current_gradient_accumulation_steps=1, _entropy_bonus_enabled=True,
        use_adaptive_entropy=False, entropy_coef=bonus,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
    )  # fmt: skip
    m, none = torch.tensor(mask).double(), torch.zeros(len(mask), 0, dtype=torch.long)
    inputs = {"prompt_ids": none, "prompt_mask": none, "completion_ids": torch.tensor(ids), "completion_mask": m,
              "advantages": torch.tensor(A), "old_per_token_logps": torch.tensor(old),
              "ref_per_token_logps": torch.tensor(reference), "num_items_in_batch": m.sum()}  # fmt: skip
    expected = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    expected.backward()
    assert relative_error(np.asarray(loss), expected.detach().numpy()) < 1e-10
    assert relative_error(dlogits, z.grad.numpy()) < 1e-10
    if mask.shape[1] == 1:
        return  # TRL's log takes a single column for one number per answer and ignores the mask
    logged = trainer._metrics["train"]
    assert logged["entropy"][0] == pytest.approx(outputs["entropy"].sum() / tokens, rel=1e-6)  # logged in float32
    if beta:
        mean = k3_kl(x, reference_log_probs=reference, weights=mask.astype(float))[0]
        assert logged["kl"][0] == pytest.approx(float(mean), rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_group_advantages(seed):
    """TRL's line, (r - mean) / (std + 1e-4), with its own nanstd, which computes n / (n - 1) in float32: eps is 6e-8."""
    draw = np.random.default_rng(seed)
    group = int(draw.integers(2, 6))
    rewards = draw.integers(0, 2, 3 * group).astype(float)
    r = torch.tensor(rewards).reshape(-1, group)
    expected = (r - torch.nanmean(r, dim=1, keepdim=True)) / (nanstd(r, dim=1, keepdim=True) + 1e-4)
    assert relative_error(group_advantages(rewards, group=group), expected.flatten().numpy()) < 1e-7


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "smoothing"), [("sigmoid", 0.0), ("aot", 0.2), ("hinge", 0.0), ("ipo", 0.0)])
def test_dpo(seed, kind, smoothing):
    """From the logits of both answers, through the sums of their token log-probabilities; for IPO, TRL takes the means."""
    draw, logits, ids, mask = drawn(seed, rows=2)
    if smoothing:  # one pair, see above
        logits, ids, mask = logits[:2], ids[:2], mask[:2]
    N = len(mask) // 2
    reference = draw.normal(-5, 2, 2 * N)
    outputs, logits_back = log_probs(logits, targets=np.where(mask, ids, -100))
    sums = outputs["log_probs"].sum(axis=1)
    # TRL's mask has a token in front of each answer, but counts as we do; an empty answer is divided by 1
    lengths = np.maximum(mask.sum(axis=1), 1) if kind == "ipo" else np.ones(2 * N)
    means, before = sums / lengths, reference / lengths
    compare, options = {"hinge": (hinge, {}), "ipo": (ipo, {})}.get(kind, (dpo, {"smoothing": smoothing}))
    loss, back = compare(means[:N], means[N:], reference_chosen=before[:N], reference_rejected=before[N:], beta=0.3, **options)
    dsums = np.concatenate(back(1.0)) / lengths
    dlogits = logits_back({"log_probs": np.broadcast_to(dsums[:, None], mask.shape)})

    z = leaf(logits)

    def model(input_ids, labels, **_):
        m = labels[:, 1:] != -100
        chosen, entropy = selective_log_softmax_and_entropy(z, input_ids[:, 1:], row_mask=m)
        return SimpleNamespace(log_probs=chosen, entropy=entropy, mean_logits=z.mean(-1), is_top1=m)

    model.training = True
    trainer = stand_in(ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", beta=0.3, loss_types=[kind],
                       loss_weights=[1.0], label_smoothing=smoothing, use_weighting=False)  # fmt: skip
    first = np.zeros((2 * N, 1), dtype=int)  # TRL shifts, so each row gets a token in front
    full_mask = torch.tensor(np.concatenate([first, mask], axis=1))
    inputs = {"input_ids": torch.tensor(np.concatenate([first, ids], axis=1)), "completion_mask": full_mask,
              "attention_mask": full_mask, "ref_chosen_logps": torch.tensor(reference[:N]),
              "ref_rejected_logps": torch.tensor(reference[N:])}  # fmt: skip
    expected = DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    expected.backward()
    assert relative_error(np.asarray(loss), expected.detach().numpy()) < 1e-10
    assert relative_error(dlogits, z.grad.numpy()) < 1e-10
    found = preference_statistics(sums[:N] - reference[:N], sums[N:] - reference[N:])
    logged = trainer._metrics["train"]
    assert logged["rewards/accuracies"][0] == pytest.approx(float(found["accuracy"]), rel=1e-6)
    assert logged["rewards/margins"][0] == pytest.approx(0.3 * float(found["margin"]), rel=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("with_margin", [False, True])
def test_reward_loss(seed, with_margin):
    draw = np.random.default_rng(seed)
    N = int(draw.integers(1, 8))
    rewards, margin = draw.normal(0, 2, 2 * N), draw.random(N)
    loss, back = bradley_terry(rewards[:N], rewards[N:], margin=margin if with_margin else None)
    r = leaf(rewards)
    trainer = stand_in(args=SimpleNamespace(center_rewards_coefficient=None))
    inputs = {"attention_mask": torch.ones(2 * N, 1)} | ({"margin": torch.tensor(margin)} if with_margin else {})
    expected = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=r[:, None]), inputs)
    expected.backward()
    assert relative_error(np.asarray(loss), expected.detach().numpy()) < 1e-10
    assert relative_error(np.concatenate(back(1.0)), r.grad.numpy()) < 1e-10


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("divergence, beta", [("forward", 0.0), ("reverse", 1.0), ("jensen-shannon", 0.3)])
def test_distillation(seed, divergence, beta):
    """TRL's generalised divergence, whose ends of beta are both KL divergences, times T^2, which TRL omits."""
    draw, logits, _, mask = drawn(seed)
    teacher, T = draw.normal(0, 2, logits.shape), 2.5
    mixed = {"beta": beta} if 0 < beta < 1 else {}
    loss, back = distillation(logits, teacher_logits=teacher, temperature=T, divergence=divergence, weights=mask.astype(float),
                              **mixed)  # fmt: skip
    z = leaf(logits)
    expected = T**2 * GKDTrainer.generalized_jsd_loss(
        z, torch.tensor(teacher), labels=torch.tensor(np.where(mask, 0, -100)), beta=beta, temperature=T
    )
    expected.backward()
    assert relative_error(np.asarray(loss), expected.detach().numpy()) < 1e-10
    assert relative_error(back(1.0), z.grad.numpy()) < 1e-10
