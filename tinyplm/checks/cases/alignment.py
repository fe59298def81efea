"""Cases of tuning and alignment: log-probabilities, preferences, policies, teachers, adapters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core import Backward, Component
from ...kernels.attention import self_attention
from ...losses import (
    answers,
    auxiliary,
    distillation,
    log_probs,
    policy,
    preference,
    sequence_policy,
)
from ...tuning.adapters import lora
from ..case import Case, Entry, Sizes
from .losses import drawn_cap


def _weighted(s: Sizes, rng: np.random.Generator, *shape: int) -> dict[str, Any]:
    """Some weights are 0: positions that do not count."""
    weights = (rng.random(shape) + 0.1) * (rng.random(shape) < 0.8)
    return {"weights": weights if s.flags[0] else None, "total": 7.5 if s.flags[1] else None}


# ------------------------------------------------------------------------------- log-probabilities


def summed(f: Callable) -> Component:
    """Reduces a component with outputs log_probs and entropy to one number:
    sum(a log_probs) + sum(c entropy)."""

    def component(*args: Any, a: Any, c: Any, **kwargs: Any) -> tuple[Any, Backward]:
        outputs, back = f(*args, **kwargs)
        a, c = (weights.astype(outputs["log_probs"].dtype) for weights in (a, c))

        def backward(dy: Any) -> Any:
            return back({"log_probs": dy * a, "entropy": dy * c})

        return (outputs["log_probs"] * a).sum() + (outputs["entropy"] * c).sum(), backward

    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in "ac"]
    parameters = [*inspect.signature(f).parameters.values(), *more]
    component.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return component


def _token_kwargs(s: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    targets = rng.integers(0, s.V, (s.B, s.T))
    targets[rng.random(targets.shape) < 0.3] = -100  # sometimes all of them
    a, c = rng.normal(size=(2, s.B, s.T))
    return {"targets": targets, "temperature": 0.7 if s.flags[0] else 1.0, "a": a, "c": c}


def _output_layer(s: Sizes, rng: np.random.Generator) -> list[Any]:
    """Hidden states, the matrix to the vocabulary, and its bias or None."""
    x, W = rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.D, s.V))
    return [x, W, rng.normal(size=s.V) if s.seed % 2 else None]


def _log_probs(s: Sizes) -> Case:
    rng = s.rng()
    return Case([rng.normal(0, 2, (s.B, s.T, s.V))], _token_kwargs(s, rng))


def _vocabulary_log_probs(s: Sizes) -> Case:
    rng = s.rng()
    return Case(_output_layer(s, rng), {**_token_kwargs(s, rng), "cap": drawn_cap(s)})


# ------------------------------------------------------------------------------------- preferences


def _bradley_terry(s: Sizes) -> Case:
    rng = s.rng()
    margin = (None, 0.5, rng.random(s.B * s.T))[s.seed % 3]
    args = list(rng.normal(0, 2, (2, s.B * s.T)))
    return Case(args, {"margin": margin, **_weighted(s, rng, s.B * s.T)})


def _pair_log_probs(s: Sizes) -> Case:
    """Both answers in one row, in any order, or one row each."""
    rng = s.rng()
    if s.flags[0]:
        second = np.tile([[False], [True]], (s.B, 1, 1))
        return Case([-rng.random((s.B, 2, s.T))], {"second": second})
    return Case([-rng.random((s.B, s.S))], {"second": rng.random((s.B, s.S)) < 0.5})


def _label_scores(s: Sizes) -> Case:
    """Labels with one word and with several, of one token or more."""
    words = [1 + (s.seed >> c) % 3 for c in range(s.B + 1)]
    return Case([-s.rng().random((s.T, sum(words), s.S))], {"words": tuple(words)})


def _dpo(s: Sizes) -> Case:
    rng = s.rng()
    chosen, rejected, *reference = rng.normal(-4, 2, (4, s.B * s.T))
    kwargs = {
        "reference_chosen": reference[0],
        "reference_rejected": reference[1],
        "beta": 0.5,
        "smoothing": 0.2 * s.flags[2],
    }
    return Case([chosen, rejected], {**kwargs, **_weighted(s, rng, s.B * s.T)})


# ---------------------------------------------------------------------------------------- policies


def _signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Advantages away from 0, where rounding would decide between two equal terms."""
    return rng.choice([-1.0, 1.0], shape) * (rng.random(shape) + 0.2)


def _policy_case(s: Sizes, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """Ratios below, inside and above the interval, never within 0.04 of an end, where the clipped
    term has a kink."""
    ratios = rng.choice([0.5, 0.7, 0.9, 1.1, 1.4, 1.8], (s.B, s.T))
    log_ratios = np.log(ratios + rng.uniform(-0.03, 0.03, (s.B, s.T)))
    log_probs = rng.uniform(-3, -0.1, (s.B, s.T))
    kwargs = {
        "old_log_probs": log_probs - log_ratios,
        "advantages": _signs(rng, s.B, 1 if s.seed % 2 else s.T),
        "clip": 0.2,
        "clip_high": 0.3 if s.flags[2] else None,
    }
    return log_probs, {**kwargs, **_weighted(s, rng, s.B, s.T)}


def _clipped_surrogate(s: Sizes) -> Case:
    x, kwargs = _policy_case(s, s.rng())
    return Case([x], kwargs)


def _grpo(s: Sizes) -> Case:
    rng = s.rng()
    x, kwargs = _policy_case(s, rng)
    kwargs["reference_log_probs"] = x + rng.normal(0, 0.5, x.shape)
    kwargs["beta"] = 0.3 if s.flags[0] else 0.0
    return Case([x], kwargs)


def _sequence_case(s: Sizes, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
    """The same for the ratios of answers, whose tokens' log-ratios differ from their mean."""
    x, kwargs = _policy_case(s, rng)
    log_ratios = np.log(rng.choice([0.5, 0.7, 0.9, 1.1, 1.4, 1.8], (s.B, 1)))
    noise = rng.normal(0, 0.3, x.shape)
    kept = np.ones(x.shape) if kwargs["weights"] is None else kwargs["weights"] != 0
    count = np.maximum(kept.sum(axis=1, keepdims=True), 1)
    noise = noise - (noise * kept).sum(axis=1, keepdims=True) / count
    advantages = _signs(rng, s.B, 1)
    return x, {**kwargs, "old_log_probs": x - log_ratios - noise, "advantages": advantages}


def _sequence_surrogate(s: Sizes) -> Case:
    x, kwargs = _sequence_case(s, s.rng())
    return Case([x], kwargs)


def _gspo(s: Sizes) -> Case:
    rng = s.rng()
    x, kwargs = _sequence_case(s, rng)
    kwargs["reference_log_probs"] = x + rng.normal(0, 0.5, x.shape)
    kwargs["beta"] = 0.3 if s.flags[0] else 0.0
    return Case([x], kwargs)


def _k3_kl(s: Sizes) -> Case:
    rng = s.rng()
    x = rng.uniform(-3, -0.1, (s.B, s.T))
    reference = x + rng.normal(0, 0.5, x.shape)
    return Case([x], {"reference_log_probs": reference, **_weighted(s, rng, s.B, s.T)})


def _clipped_value_loss(s: Sizes) -> Case:
    """V is well outside the clip range around its old value or well inside; V and its clipped form
    never tie in distance to R."""
    rng = s.rng()
    old, step = rng.normal(size=(s.B, s.T)), rng.choice([-0.5, -0.1, 0.1, 0.5], (s.B, s.T))
    V = old + step + rng.uniform(-0.05, 0.05, step.shape)
    near = np.clip(V, old - 0.2, old + 0.2)
    returns = (V + near) / 2 + _signs(rng, s.B, s.T)  # they tie when R is halfway between both
    kwargs = {"old_values": old, "returns": returns, "clip": None if s.seed % 3 == 0 else 0.2}
    return Case([V], {**kwargs, **_weighted(s, rng, s.B, s.T)})


# ------------------------------------------------------------------------------------ distillation


def _softened(s: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    temperature = 2.0 if s.seed % 2 else 0.8
    divergence = (*distillation.DIVERGENCES, "jensen-shannon")[2 * s.flags[2] + s.seed // 2 % 2]
    kwargs = {"divergence": divergence, "beta": 0.3 if s.flags[0] else 0.6}
    return {"temperature": temperature, **kwargs, **_weighted(s, rng, s.B, s.T)}


def _distillation(s: Sizes) -> Case:
    rng = s.rng()
    logits, teacher = rng.normal(0, 1.5, (2, s.B, s.T, s.V))
    return Case([logits], {"teacher_logits": teacher, **_softened(s, rng)})


def _vocabulary_distillation(s: Sizes) -> Case:
    rng = s.rng()
    args = _output_layer(s, rng)
    teacher = {
        "teacher_x": rng.normal(size=(s.B, s.T, s.F)),
        "teacher_W": rng.normal(size=(s.F, s.V)),
        "teacher_b": rng.normal(size=s.V) if s.seed % 3 else None,
        "cap": drawn_cap(s),
        "teacher_cap": 3.0 if s.flags[1] else None,
    }
    return Case(args, {**teacher, **_softened(s, rng)})


def _with_language_model(s: Sizes) -> Case:
    rng = s.rng()
    targets = rng.integers(0, s.V, (s.B, s.T))
    targets[rng.random(targets.shape) < 0.3] = -100
    args = [rng.normal(size=(s.B, s.F)), rng.normal(size=(s.B, s.T, s.V))]
    labels = rng.integers(0, s.F, s.B)
    weight = 0.5 if s.flags[0] else 0.2
    return Case(args, {"labels": labels, "targets": targets, "weight": weight})


# ---------------------------------------------------------------------------------------- adapters


def lora_of_one_matrix(theta: Any, *, W: Any, alpha: float) -> tuple[Any, Backward]:
    """LoRA on a single matrix."""
    params, back = lora.lora({"w": theta}, base={"w": W}, alpha=alpha)
    return params["w"], lambda dW: back({"w": dW})["w"]


def _lora(s: Sizes) -> Case:
    rng = s.rng()
    theta = {"A": rng.normal(size=(s.D, s.E)), "B": rng.normal(size=(s.E, s.F))}
    return Case([theta], {"W": rng.normal(size=(s.D, s.F)), "alpha": 3.0})


def _prefix_attention(s: Sizes) -> Case:
    """Causal grouped-query self-attention with trained keys and values in front."""
    rng = s.rng()
    shapes: dict[str, tuple[int, ...]] = {
        "Wq": (s.D, s.H * s.E),
        "Wk": (s.D, s.K * s.E),
        "Wv": (s.D, s.K * s.E),
        "Wo": (s.H * s.E, s.D),
    }
    shapes |= {name: (s.K, 1 + s.seed % 3, s.E) for name in ("Pk", "Pv")}
    if s.flags[1]:
        shapes |= {"bq": (s.H * s.E,), "bk": (s.K * s.E,), "bv": (s.K * s.E,), "bo": (s.D,)}
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    mask = np.tri(s.T, dtype=bool) if s.flags[0] else None
    x = rng.normal(size=(s.B, s.T, s.D))
    return Case([p, x], {"heads": s.H, "kv_heads": s.K, "mask": mask})


COMPONENTS = {
    "log_probs": Entry(
        summed(log_probs.log_probs),
        _log_probs,
        "log-probabilities of tokens and entropies, summed with weights a and c",
    ),
    "vocabulary_log_probs": Entry(
        summed(log_probs.vocabulary_log_probs),
        _vocabulary_log_probs,
        "log-probabilities and entropies from hidden states, summed with weights a and c",
    ),
    "bradley_terry": Entry(
        preference.bradley_terry, _bradley_terry, "loss of a reward model on pairs of answers"
    ),
    "pair_log_probs": Entry(
        answers.pair_log_probs, _pair_log_probs, "log-probabilities summed for each of two answers"
    ),
    "label_scores": Entry(
        answers.label_scores, _label_scores, "log-probabilities of labels from those of their words"
    ),
    "dpo": Entry(preference.dpo, _dpo, "DPO, with label smoothing"),
    "clipped_surrogate": Entry(
        policy.clipped_surrogate, _clipped_surrogate, "PPO's clipped surrogate objective"
    ),
    "clipped_value_loss": Entry(
        policy.clipped_value_loss, _clipped_value_loss, "PPO's loss of the value function, clipped"
    ),
    "k3_kl": Entry(policy.k3_kl, _k3_kl, "KL divergence by the estimator k3"),
    "grpo": Entry(policy.grpo, _grpo, "GRPO: the clipped surrogate and the k3 divergence"),
    "sequence_surrogate": Entry(
        sequence_policy.sequence_surrogate,
        _sequence_surrogate,
        "GSPO's surrogate, clipped by answer",
    ),
    "gspo": Entry(
        sequence_policy.gspo, _gspo, "GSPO: the surrogate by answer and the k3 divergence"
    ),
    "distillation": Entry(
        distillation.distillation,
        _distillation,
        "KL divergence from a teacher's logits, forward or reverse, or Jensen-Shannon's",
    ),
    "vocabulary_distillation": Entry(
        distillation.vocabulary_distillation,
        _vocabulary_distillation,
        "distillation from hidden states, including the output layers",
    ),
    "prefix_attention": Entry(
        self_attention, _prefix_attention, "self-attention with a trained prefix of keys and values"
    ),
    "lora": Entry(lora_of_one_matrix, _lora, "a matrix with its low-rank update"),
    "with_language_model": Entry(
        auxiliary.with_language_model,
        _with_language_model,
        "classification loss with the language model's as an auxiliary",
    ),
}
