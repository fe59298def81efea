"""The table's losses for tuning and alignment: (implementation, reference, maker of cases)."""

from __future__ import annotations

import numpy as np

import reference.losses.answers as ref_answers
import reference.losses.auxiliary as ref_auxiliary
import reference.losses.distillation as ref_distillation
import reference.losses.log_probs as ref_log_probs
import reference.losses.policy as ref_policy
import reference.losses.preference as ref_preference
import reference.tuning.lora as ref_lora
import reference.tuning.prefix as ref_prefix
from tests.laws import Case, Sizes
from tinyplm.kernels.attention import self_attention
from tinyplm.losses import answers, auxiliary, distillation, log_probs, policy, preference
from tinyplm.tuning.adapters import lora


def _weighted(s: Sizes, rng, *shape: int) -> dict:
    """Some weights are 0: positions that do not count."""
    weights = (rng.random(shape) + 0.1) * (rng.random(shape) < 0.8)
    return {"weights": weights if s.flags[0] else None, "total": 7.5 if s.flags[1] else None}


# ------------------------------------------------------------------------------------------------------- log-probabilities


def summed(f):
    """Reduces a component with outputs log_probs and entropy to one number: sum(a log_probs) + sum(c entropy)."""

    def component(*args, a, c, **kwargs):
        outputs, back = f(*args, **kwargs)
        a, c = (weights.astype(outputs["log_probs"].dtype) for weights in (a, c))

        def backward(dy):
            return back({"log_probs": dy * a, "entropy": dy * c})

        return (outputs["log_probs"] * a).sum() + (outputs["entropy"] * c).sum(), backward

    return component


def _reference_summed(f):
    def component(*args, a, c, **kwargs):
        outputs = f(*args, **kwargs)
        return (outputs["log_probs"] * a).sum() + (outputs["entropy"] * c).sum()

    return component


def _token_kwargs(s: Sizes, rng) -> dict:
    targets = rng.integers(0, s.V, (s.B, s.T))
    targets[rng.random(targets.shape) < 0.3] = -100  # sometimes all of them
    a, c = rng.normal(size=(2, s.B, s.T))
    return {"targets": targets, "temperature": 0.7 if s.flags[0] else 1.0, "a": a, "c": c}


def _log_probs(s: Sizes) -> Case:
    rng = s.rng()
    return Case([rng.normal(0, 2, (s.B, s.T, s.V))], _token_kwargs(s, rng))


def _vocabulary_log_probs(s: Sizes) -> Case:
    rng = s.rng()
    args = [rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.D, s.V)), rng.normal(size=s.V) if s.seed % 2 else None]
    return Case(args, _token_kwargs(s, rng))


# ------------------------------------------------------------------------------------------------------- preferences


def _bradley_terry(s: Sizes) -> Case:
    rng = s.rng()
    margin = (None, 0.5, rng.random(s.B * s.T))[s.seed % 3]
    return Case(list(rng.normal(0, 2, (2, s.B * s.T))), {"margin": margin, **_weighted(s, rng, s.B * s.T)})


def _pair_log_probs(s: Sizes) -> Case:
    """Both answers in one row, in any order, or one row each."""
    rng = s.rng()
    if s.flags[0]:
        return Case([-rng.random((s.B, 2, s.T))], {"second": np.tile([[False], [True]], (s.B, 1, 1))})
    return Case([-rng.random((s.B, s.S))], {"second": rng.random((s.B, s.S)) < 0.5})


def _dpo(s: Sizes) -> Case:
    rng = s.rng()
    chosen, rejected, *reference = rng.normal(-4, 2, (4, s.B * s.T))
    kwargs = {"reference_chosen": reference[0], "reference_rejected": reference[1], "beta": 0.5, "smoothing": 0.2 * s.flags[2]}
    return Case([chosen, rejected], {**kwargs, **_weighted(s, rng, s.B * s.T)})


# ------------------------------------------------------------------------------------------------------- policies


def _signs(rng, *shape: int) -> np.ndarray:
    """Advantages away from 0, where rounding would decide between two equal terms."""
    return rng.choice([-1.0, 1.0], shape) * (rng.random(shape) + 0.2)


def _policy_case(s: Sizes, rng) -> tuple[np.ndarray, dict]:
    """Ratios below, inside and above the interval, never within 0.04 of an end, where the clipped term has a kink."""
    clip, high = 0.2, 0.3 if s.flags[2] else None
    log_ratios = np.log(rng.choice([0.5, 0.7, 0.9, 1.1, 1.4, 1.8], (s.B, s.T)) + rng.uniform(-0.03, 0.03, (s.B, s.T)))
    log_probs = rng.uniform(-3, -0.1, (s.B, s.T))
    advantages = _signs(rng, s.B, 1 if s.seed % 2 else s.T)
    return log_probs, {"old_log_probs": log_probs - log_ratios, "advantages": advantages, "clip": clip, "clip_high": high,
                       **_weighted(s, rng, s.B, s.T)}  # fmt: skip


def _clipped_surrogate(s: Sizes) -> Case:
    x, kwargs = _policy_case(s, s.rng())
    return Case([x], kwargs)


def _grpo(s: Sizes) -> Case:
    rng = s.rng()
    x, kwargs = _policy_case(s, rng)
    return Case([x], {**kwargs, "reference_log_probs": x + rng.normal(0, 0.5, x.shape), "beta": 0.3 if s.flags[0] else 0.0})


def _k3_kl(s: Sizes) -> Case:
    rng = s.rng()
    x = rng.uniform(-3, -0.1, (s.B, s.T))
    return Case([x], {"reference_log_probs": x + rng.normal(0, 0.5, x.shape), **_weighted(s, rng, s.B, s.T)})


def _clipped_value_loss(s: Sizes) -> Case:
    """V is well outside the clip range around its old value or well inside; V and its clipped form never tie in distance to R."""
    rng = s.rng()
    old, step = rng.normal(size=(s.B, s.T)), rng.choice([-0.5, -0.1, 0.1, 0.5], (s.B, s.T))
    V = old + step + rng.uniform(-0.05, 0.05, step.shape)
    near = np.clip(V, old - 0.2, old + 0.2)
    returns = (V + near) / 2 + _signs(rng, s.B, s.T)  # they tie when R is halfway between both
    clip = None if s.seed % 3 == 0 else 0.2
    return Case([V], {"old_values": old, "returns": returns, "clip": clip, **_weighted(s, rng, s.B, s.T)})


# ------------------------------------------------------------------------------------------------------- distillation


def _distillation(s: Sizes) -> Case:
    rng = s.rng()
    logits, teacher = rng.normal(0, 1.5, (2, s.B, s.T, s.V))
    return Case([logits], {"teacher_logits": teacher, **_softened(s, rng)})


def _softened(s: Sizes, rng) -> dict:
    return {"temperature": 2.0 if s.seed % 2 else 0.8, "reverse": s.flags[2], **_weighted(s, rng, s.B, s.T)}


def _vocabulary_distillation(s: Sizes) -> Case:
    rng = s.rng()
    args = [rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.D, s.V)), rng.normal(size=s.V) if s.seed % 2 else None]
    teacher = {"teacher_x": rng.normal(size=(s.B, s.T, s.F)), "teacher_W": rng.normal(size=(s.F, s.V)),
               "teacher_b": rng.normal(size=s.V) if s.seed % 3 else None}  # fmt: skip
    return Case(args, {**teacher, **_softened(s, rng)})


def _with_language_model(s: Sizes) -> Case:
    rng = s.rng()
    targets = rng.integers(0, s.V, (s.B, s.T))
    targets[rng.random(targets.shape) < 0.3] = -100
    args = [rng.normal(size=(s.B, s.F)), rng.normal(size=(s.B, s.T, s.V))]
    return Case(args, {"labels": rng.integers(0, s.F, s.B), "targets": targets, "weight": 0.5 if s.flags[0] else 0.2})


# ------------------------------------------------------------------------------------------------------- transforms


def _one_matrix(theta, *, W, alpha):
    """LoRA on a single matrix."""
    params, back = lora.lora({"w": theta}, base={"w": W}, alpha=alpha)
    return params["w"], lambda dW: back({"w": dW})["w"]


def _reference_one_matrix(theta, *, W, alpha):
    return ref_lora.lora({"w": theta}, base={"w": W}, alpha=alpha)["w"]


def _lora(s: Sizes) -> Case:
    rng = s.rng()
    theta = {"A": rng.normal(size=(s.D, s.E)), "B": rng.normal(size=(s.E, s.F))}
    return Case([theta], {"W": rng.normal(size=(s.D, s.F)), "alpha": 3.0})


def _prefix_attention(s: Sizes) -> Case:
    """Causal grouped-query self-attention with trained keys and values in front."""
    rng = s.rng()
    shapes = {"Wq": (s.D, s.H * s.E), "Wk": (s.D, s.K * s.E), "Wv": (s.D, s.K * s.E), "Wo": (s.H * s.E, s.D)}
    shapes |= {name: (s.K, 1 + s.seed % 3, s.E) for name in ("Pk", "Pv")}
    if s.flags[1]:
        shapes |= {"bq": (s.H * s.E,), "bk": (s.K * s.E,), "bv": (s.K * s.E,), "bo": (s.D,)}
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    mask = np.tri(s.T, dtype=bool) if s.flags[0] else None
    return Case([p, rng.normal(size=(s.B, s.T, s.D))], {"heads": s.H, "kv_heads": s.K, "mask": mask})


COMPONENTS = {
    "log_probs": (summed(log_probs.log_probs), _reference_summed(ref_log_probs.log_probs), _log_probs),
    "vocabulary_log_probs": (summed(log_probs.vocabulary_log_probs), _reference_summed(ref_log_probs.vocabulary_log_probs),
                             _vocabulary_log_probs),
    "bradley_terry": (preference.bradley_terry, ref_preference.bradley_terry, _bradley_terry),
    "pair_log_probs": (answers.pair_log_probs, ref_answers.pair_log_probs, _pair_log_probs),
    "dpo": (preference.dpo, ref_preference.dpo, _dpo),
    "clipped_surrogate": (policy.clipped_surrogate, ref_policy.clipped_surrogate, _clipped_surrogate),
    "clipped_value_loss": (policy.clipped_value_loss, ref_policy.clipped_value_loss, _clipped_value_loss),
    "k3_kl": (policy.k3_kl, ref_policy.k3_kl, _k3_kl),
    "grpo": (policy.grpo, ref_policy.grpo, _grpo),
    "distillation": (distillation.distillation, ref_distillation.distillation, _distillation),
    "vocabulary_distillation": (distillation.vocabulary_distillation, ref_distillation.vocabulary_distillation,
                                _vocabulary_distillation),
    "prefix_attention": (self_attention, ref_prefix.prefix_attention, _prefix_attention),
    "lora": (_one_matrix, _reference_one_matrix, _lora),
    "with_language_model": (auxiliary.with_language_model, ref_auxiliary.with_language_model, _with_language_model),
}  # fmt: skip
