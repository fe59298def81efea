"""Backward-only mistakes: values agree, and a gradient does not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core import IGNORED
from ...kernels.activation import ACTIVATIONS
from .attention_parts import Attention, attention_of
from .gradient_terms import (
    into_norm,
    linear_here,
    loss_gradient,
    terms,
    through_activation,
)
from .parts import by_head, merged
from .site import NotHere, Site, alternative, layers_own

ANY = r".*"
QKV, QK, KV = (layers_own(rf"attention\.[{names}]") for names in ("qkv", "qk", "kv"))
LOGITS = r"logits$"

# ------------------------------------------------------------------------------------- everywhere


@alternative("gradient stopped", at=ANY, formula="0", kind="backward")
def stopped(site: Site) -> np.ndarray:
    """No gradient of theirs arrives here: a detached tensor."""
    return np.zeros(site.theirs.shape)


@alternative(
    "a branch is detached", at=ANY, formula="one term of the sum is missing", kind="backward"
)
def detached(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The gradient of theirs lacks what comes through one of the branches that read this."""
    found = terms(site)
    if len(found) < 2:
        raise NotHere
    total = np.sum(list(found.values()), axis=0)
    for name, term in found.items():
        yield f"without {name}", total - term
    if len(found) > 2:
        for name, term in found.items():
            yield f"only {name}", term
        yield "only the residual", found.get("the residual", total)


@alternative("a branch counted twice", at=ANY, formula="one term of the sum twice", kind="backward")
def twice(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The gradient of theirs has one of the terms twice."""
    found = terms(site)
    total = np.sum(list(found.values()), axis=0)
    for name, term in found.items():
        yield name, total + term


@alternative("a factor of the gradient", at=ANY, formula="c dy", kind="backward", fitted=True)
def factor(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The gradient of theirs is ours times a number."""
    own = site.own()
    return site.fit("factor", lambda c: c * own, (2.0, 0.5, -1.0))


@alternative("weight not transposed in the backward", at=ANY, formula="dy W", kind="backward")
def not_transposed(site: Site) -> np.ndarray:
    """Theirs multiplies the gradient by the square weight, where its transpose is needed."""
    W = linear_here(site)
    if W.shape[0] != W.shape[1]:
        raise NotHere
    d = site.gradient("attention" if site.role == "attention.heads" else "mlp") @ W
    return by_head(d, site.theirs.shape[1]) if site.theirs.ndim == 4 else d


# ------------------------------------------------------------------------------------------ norms


def _through_norm(site: Site, **parts: bool) -> np.ndarray:
    found = into_norm(site)
    return found.dx(**parts) + found.rest


@alternative(
    "norm backward without the mean term",
    at=ANY,
    formula="dx = r dxhat, without xhat mean(dxhat xhat)",
    kind="backward",
)
def no_mean_term(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The backward of theirs takes the root of the mean square for a constant."""
    if into_norm(site).norm.centred:
        yield "without mean(dxhat xhat)", _through_norm(site, product=False)
        yield "without mean(dxhat)", _through_norm(site, centre=False)
        yield "without both", _through_norm(site, product=False, centre=False)
    else:
        yield "", _through_norm(site, product=False)


@alternative("norm backward without the gain", at=ANY, formula="dxhat = dy", kind="backward")
def no_gain(site: Site) -> np.ndarray:
    """The backward of theirs does not multiply by the gain."""
    return _through_norm(site, gain=False)


@alternative("norm backward without 1/sd", at=ANY, formula="dx without r", kind="backward")
def no_scale(site: Site) -> np.ndarray:
    """The backward of theirs does not divide by the standard deviation."""
    return _through_norm(site, scale=False)


# -------------------------------------------------------------------------------------- attention


def attention_gradients(
    site: Site,
    *,
    softmax_sum: bool = True,
    direction: float = -1.0,
    scaled: bool = True,
    share: str = "sum",
    transposed: bool = True,
) -> np.ndarray:
    """The gradient of q, k or v here, as layers.attention computes it, with changes.

    dP = do v^T,   dA = P (dP - sum_s dP P),   dq = scale R^T dA k,   dk = scale R^T dA^T q,
    dv = P^T do, where R^T rotates back; dk and dv are summed over the heads that share them.
    """
    own, do = attention_of(site), site.gradient("attention.heads")
    P = own.probabilities()
    q, k, v = own.turned()
    dP = do @ v.swapaxes(-1, -2)
    dA = P * (dP - (dP * P).sum(-1, keepdims=True)) if softmax_sum else P * dP
    scale = own.scale if scaled else 1.0
    name = site.role.rpartition(".")[2]
    if name == "q":
        return merged(own.rotated(scale * dA @ k, own.positions, direction))
    S = P if name == "v" else dA
    S = S.swapaxes(-1, -2) if transposed else S
    d = S @ do if name == "v" else scale * S @ q
    d = _over_shared(d, own, share)
    if name == "k":
        d = own.rotated(d, own.positions, direction)
    return merged(d)


def _over_shared(d: np.ndarray, own: Attention, share: str) -> np.ndarray:
    """(B, H, T, E) -> (B, K, T, E) over the heads that read one key/value head."""
    B, H, T, E = d.shape
    K = own.k.shape[1]
    groups = d.reshape(B, K, H // K, T, E)
    if share == "sum":
        return groups.sum(2)
    return groups.mean(2) if share == "mean" else groups[:, :, 0 if share == "first" else -1]


@alternative(
    "softmax backward without its sum", at=QK, formula="dA = P dP, not P (dP - sum dP P)",
    kind="backward",
)  # fmt: skip
def no_softmax_sum(site: Site) -> np.ndarray:
    """The backward of theirs takes the denominator of the softmax for a constant."""
    return attention_gradients(site, softmax_sum=False)


@alternative("rotary gradient turned forwards", at=QK, formula="R dy, not R^T dy", kind="backward")
def turned_forwards(site: Site) -> np.ndarray:
    """The backward of theirs rotates in the direction of the forward."""
    attention_of(site).rotation()
    return attention_gradients(site, direction=1.0)


@alternative("rotary gradient not turned", at=QK, formula="dy, not R^T dy", kind="backward")
def not_turned(site: Site) -> np.ndarray:
    """The backward of theirs leaves out the rotation."""
    attention_of(site).rotation()
    return attention_gradients(site, direction=0.0)


@alternative(
    "gradients of shared key/value heads not summed", at=KV, formula="one head's, not the sum",
    kind="backward",
)  # fmt: skip
def not_summed(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The backward of theirs keeps the gradient of one of the heads that share keys and values."""
    for share in ("last", "first", "mean"):
        yield share, attention_gradients(site, share=share)


@alternative("no scale in the backward of the scores", at=QK, formula="dA k", kind="backward")
def scores_not_scaled(site: Site) -> np.ndarray:
    """The backward of theirs does not multiply by the scale of the scores."""
    return attention_gradients(site, scaled=False)


@alternative(
    "scores not transposed in the backward", at=KV, formula="dA q, not dA^T q", kind="backward"
)
def scores_not_transposed(site: Site) -> np.ndarray:
    """The backward of theirs sums over the keys, where it should sum over the queries."""
    return attention_gradients(site, transposed=False)


# ------------------------------------------------------------------------------------ activations


@alternative("derivative of another activation", at=layers_own(r"mlp\.(gate|up)"), kind="backward")
def other_derivative(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The backward of theirs has the derivative of another activation than the forward."""
    for name in ("gelu", "gelu_new", "silu", "relu", "tanh"):
        if name in ACTIVATIONS:
            yield name, through_activation(site, name)


@alternative("no derivative of the activation", at=layers_own(r"mlp\.(gate|up)"), kind="backward")
def no_derivative(site: Site) -> np.ndarray:
    """The backward of theirs takes the derivative of the activation for 1."""
    if site.has("mlp.gate") and site.role == "mlp.gate":
        return site.gradient("mlp.product") * site.value("mlp.up")
    return site.gradient("mlp.product" if site.has("mlp.gate") else "mlp.activation")


# ------------------------------------------------------------------------------------------- loss


@alternative(
    "loss gradient not divided by the count", at=LOGITS, formula="softmax - onehot", kind="backward"
)
def not_divided(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The gradient of theirs is that of the sum of the losses, where the loss is their mean."""
    P, onehot, counted = loss_gradient(site)
    d = (P - onehot) * counted * site.gradient("loss")
    yield "", d
    n = site.input("targets.logits").size
    yield "divided by all positions", d / n
    yield "divided by the samples", d / len(site.input("targets.logits"))


@alternative(
    "ignored targets in the loss gradient", at=LOGITS, formula="softmax - onehot", kind="backward"
)
def ignored(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The gradient of theirs has rows that have no target."""
    P, onehot, counted = loss_gradient(site)
    n = max(int((site.input("targets.logits") != IGNORED).sum()), 1)
    dloss = site.gradient("loss")
    yield "softmax alone", (P - onehot * counted) / n * dloss
    yield "token 0 for them", (P - onehot) / n * dloss


@alternative("loss gradient without the targets", at=LOGITS, formula="softmax", kind="backward")
def no_targets(site: Site) -> np.ndarray:
    """The gradient of theirs does not subtract the one-hot target."""
    P, _, counted = loss_gradient(site)
    n = max(int((site.input("targets.logits") != IGNORED).sum()), 1)
    return P * counted / n * site.gradient("loss")
