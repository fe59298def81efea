"""Alignment losses against torch's autograd on the published formulas, in float64: values and every input's gradient.

The formulas are written out again here, vectorised; TRL's own are in test_trl.py.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from tests.laws import Sizes, relative_error  # noqa: E402
from tinyplm.checks.cases import alignment, preferences  # noqa: E402

COMPONENTS = {**alignment.COMPONENTS, **preferences.COMPONENTS}


def mean(value, weights, total):
    """sum of weights * value / total; cross_entropy documents total None and weights None."""
    weights = torch.ones_like(value) if weights is None else weights
    denominator = weights.sum() if total is None else total
    return (weights * value).sum() / (denominator if float(denominator) else 1.0)


def bradley_terry(chosen, rejected, *, margin=None, weights=None, total=None):
    return mean(-F.logsigmoid(chosen - rejected - (0 if margin is None else margin)), weights, total)


def dpo(chosen, rejected, *, reference_chosen, reference_rejected, beta, smoothing, weights=None, total=None):
    logits = (chosen - rejected) - (reference_chosen - reference_rejected)
    loss = -F.logsigmoid(beta * logits) * (1 - smoothing) - F.logsigmoid(-beta * logits) * smoothing
    return mean(loss, weights, total)


def clipped_surrogate(x, *, old_log_probs, advantages, clip, clip_high, weights=None, total=None):
    ratio = torch.exp(x - old_log_probs)
    clipped = torch.clamp(ratio, 1 - clip, 1 + (clip if clip_high is None else clip_high))
    return mean(-torch.min(ratio * advantages, clipped * advantages), weights, total)


def clipped_value_loss(V, *, old_values, returns, clip, weights=None, total=None):
    if clip is None:
        return mean(0.5 * (V - returns) ** 2, weights, total)
    near = old_values + torch.clamp(V - old_values, -clip, clip)
    return mean(0.5 * torch.max((V - returns) ** 2, (near - returns) ** 2), weights, total)


def k3_kl(x, *, reference_log_probs, weights=None, total=None):
    d = reference_log_probs - x
    return mean(torch.exp(d) - d - 1, weights, total)


def grpo(x, *, reference_log_probs, beta, **kwargs):
    kl = k3_kl(x, reference_log_probs=reference_log_probs, weights=kwargs["weights"], total=kwargs["total"])
    return clipped_surrogate(x, **kwargs) + beta * kl


def distillation(z, *, teacher_logits, temperature, divergence, beta, weights=None, total=None):
    student, teacher = F.log_softmax(z / temperature, dim=-1), F.log_softmax(teacher_logits / temperature, dim=-1)
    mixture = torch.log(beta * teacher.exp() + (1 - beta) * student.exp())

    def kl(p, q):
        return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)

    value = {"forward": kl(teacher, student), "reverse": kl(student, teacher),
             "jensen-shannon": beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)}[divergence]  # fmt: skip
    return temperature**2 * mean(value, weights, total)


def compared(chosen, rejected, reference_chosen, reference_rejected):
    return (chosen - reference_chosen) - (rejected - reference_rejected)


def ipo(chosen, rejected, *, reference_chosen, reference_rejected, beta, weights=None, total=None):
    return mean((compared(chosen, rejected, reference_chosen, reference_rejected) - 1 / (2 * beta)) ** 2, weights, total)


def hinge(chosen, rejected, *, reference_chosen, reference_rejected, beta, weights=None, total=None):
    return mean(F.relu(1 - beta * compared(chosen, rejected, reference_chosen, reference_rejected)), weights, total)


def orpo(chosen, rejected, *, lam, weights=None, total=None):
    odds = [torch.logit(x.exp()) for x in (chosen, rejected)]
    return mean(-chosen - lam * F.logsigmoid(odds[0] - odds[1]), weights, total)


def simpo(chosen, rejected, *, beta, margin, weights=None, total=None):
    return mean(-F.logsigmoid(beta * (chosen - rejected) - margin), weights, total)


def kto(x, *, reference_log_probs, desirable, kl, beta, desirable_weight, undesirable_weight, weights=None, total=None):
    gain = x - reference_log_probs - kl
    loss = torch.where(desirable, desirable_weight * torch.sigmoid(-beta * gain), undesirable_weight * torch.sigmoid(beta * gain))
    return mean(loss, weights, total)


def sequence_surrogate(x, *, old_log_probs, advantages, clip, clip_high, weights=None, total=None):
    w = torch.ones_like(x) if weights is None else weights
    tokens = (w != 0).to(x)
    s = torch.exp(((x - old_log_probs) * tokens).sum(1, keepdim=True) / tokens.sum(1, keepdim=True).clamp(min=1))
    clipped = torch.clamp(s, 1 - clip, 1 + (clip if clip_high is None else clip_high))
    return mean(-torch.min(s * advantages, clipped * advantages).expand_as(x), w, total)


def gspo(x, *, reference_log_probs, beta, **kwargs):
    kl = k3_kl(x, reference_log_probs=reference_log_probs, weights=kwargs["weights"], total=kwargs["total"])
    return sequence_surrogate(x, **kwargs) + beta * kl


def logits(x, W, b, cap):
    z = x @ W if b is None else x @ W + b
    return z if cap is None else cap * torch.tanh(z / cap)


def vocabulary_distillation(x, W, b=None, *, teacher_x, teacher_W, teacher_b=None, cap=None, teacher_cap=None, **kwargs):
    teacher = logits(teacher_x, teacher_W, teacher_b, teacher_cap)
    return distillation(logits(x, W, b, cap), teacher_logits=teacher, **kwargs)


def with_language_model(classes, lm, *, labels, targets, weight):
    some = (targets != -100).any()
    lm_loss = F.cross_entropy(lm.reshape(-1, lm.shape[-1]), targets.reshape(-1)) if some else lm.sum() * 0
    return F.cross_entropy(classes, labels) + weight * lm_loss


def log_probs(logits, *, targets, temperature, a, c):
    distribution = torch.distributions.Categorical(logits=logits / temperature)
    counts = targets != -100
    chosen = distribution.log_prob(torch.where(counts, targets, 0))
    return (counts * (a * chosen + c * distribution.entropy())).sum()


def vocabulary_log_probs(x, W, b=None, *, cap=None, **kwargs):
    return log_probs(logits(x, W, b, cap), **kwargs)


FORMULAS = {f.__name__: f for f in (bradley_terry, dpo, clipped_surrogate, clipped_value_loss, k3_kl, grpo, distillation,
                                    vocabulary_distillation, with_language_model, log_probs, vocabulary_log_probs, ipo, hinge,
                                    orpo, simpo, kto, sequence_surrogate, gspo)}  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients(name, seed):
    """To 1e-10: some hundred float64 operations on numbers of order 1 have an error of 1e-13."""
    draw = np.random.default_rng(seed)
    B, T, D, F_, V = draw.integers(1, 6, 5).tolist()
    s = Sizes(B=B, T=T, S=3, D=D, K=1, G=1, E=2, F=F_ + 1, V=V + 1, seed=seed, flags=tuple(draw.random(3) < 0.5))
    f = COMPONENTS[name].f
    case = COMPONENTS[name].make(s)
    y, backward = f(*case.args, **case.kwargs)
    ours = backward(1.7)
    leaves = [None if a is None else torch.tensor(a, requires_grad=True) for a in case.args]
    kwargs = {n: torch.tensor(v) if isinstance(v, np.ndarray) else v for n, v in case.kwargs.items()}
    expected = FORMULAS[name](*leaves, **kwargs)
    (1.7 * expected).backward()
    assert relative_error(np.asarray(y), expected.detach().numpy()) < 1e-10
    for d, leaf in zip(ours if len(leaves) > 1 else [ours], leaves, strict=True):
        assert (d is None) == (leaf is None)
        if leaf is not None:
            wanted = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
            assert relative_error(d, wanted) < 1e-10


def test_every_loss_has_its_formula():
    assert FORMULAS.keys() == COMPONENTS.keys() - {"lora", "prefix_attention", "pair_log_probs", "label_scores"}  # not losses
