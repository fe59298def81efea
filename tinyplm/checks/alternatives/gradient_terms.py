"""The terms of which each gradient is the sum, from the gradients that the backward has passed.

    pre-norm    dx_i = dh + norm1'(dn1),   dh = dx_{i+1} + norm2'(dn2)
    post-norm   dh = dr2 + mlp'(dr2),   dx_i = dr1 + attention'(dr1),
                dr2 = norm2'(dx_{i+1}),   dr1 = norm1'(dh)
    y = x W     dx has the term dy W^T for each linear layer that reads x

Used only where their sum is our own gradient.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ...kernels.activation import ACTIVATIONS
from .parts import Norm, by_head, linear_of, log_softmax, logits_and_targets, matrix, norm_of
from .site import NotHere, Site
from .weights import output_of


def terms(site: Site) -> dict[str, np.ndarray]:
    """{what it comes through: term} of the gradient here; NotHere for an unknown one."""
    found = _terms(site)
    if not site.is_ours(np.sum(list(found.values()), axis=0)):
        raise NotHere
    return found


def _passed(site: Site) -> str:
    """The role of the sum whose gradient passes unchanged to this place."""
    same = {"attention": "residual", "mlp": "output"} if site.pre_norm else {}
    if site.role == "tokens" and site.is_ours(site.gradient("embeddings")):
        return "embeddings"
    return same.get(site.role, site.role)


def _terms(site: Site) -> dict[str, np.ndarray]:
    role, pre = _passed(site), site.pre_norm
    if role == "norm" and pre:
        W = output_of(site).W
        return {"the head": site.gradient("logits") @ W.T}
    if role in ("embeddings", "output"):
        return _layer_input(site)
    if role == "attention.heads":
        W = matrix(site, "attention")[0]
        d = site.gradient("attention") @ W.T
        return {"the output projection": by_head(d, site.theirs.shape[1])}
    if role == "mlp.product" or (role == "mlp.activation" and not site.has("mlp.gate")):
        return {"the down projection": site.gradient("mlp") @ matrix(site, "mlp")[0].T}
    if role in ("mlp.gate", "mlp.up", "mlp.activation"):
        return {"the activation": through_activation(site)}
    if role in ("norm1", "norm2") and pre:
        return _readers(site, "qkv" if role == "norm1" else "mlp")
    if role == "residual":
        if pre:
            return {"the residual": site.gradient("output"), "the mlp": into_norm(site).dx()}
        return {"the residual": site.gradient("mlp"), **_readers(site, "mlp")}
    if role in ("attention", "mlp"):
        return {"the norm": into_norm(site).dx()}
    raise NotHere


def _readers(site: Site, part: str) -> dict[str, np.ndarray]:
    """dy W^T for each of the linear layers that read one array."""
    roles = [f"attention.{n}" for n in "qkv"] if part == "qkv" else ["mlp.gate", "mlp.up"]
    found = {
        role: site.gradient(role) @ matrix(site, role)[0].T for role in roles if site.has(role)
    }
    if not found:
        raise NotHere
    return found


def _layer_input(site: Site) -> dict[str, np.ndarray]:
    """What comes through the layer that reads this, or through the final norm."""
    above = at_layer(site, site.index + 1)
    if above is None:
        if not site.pre_norm:
            raise NotHere
        return {"the final norm": into_norm(site).dx()}
    if site.pre_norm:
        return {"the residual": above.gradient("residual"), "the attention": into_norm(site).dx()}
    return {"the residual": above.gradient("attention"), **_readers(above, "qkv")}


def at_layer(site: Site, index: int) -> Site | None:
    """The place seen from another layer; None beyond the last."""
    if index >= site.layers:
        return None
    other = dataclasses.replace(site)
    other.index = index
    return other


# ------------------------------------------------------------------------------------------ norms


@dataclasses.dataclass(frozen=True)
class IntoNorm:
    """The backward of a norm: dx = r (dxhat - centre - xhat mean(dxhat xhat)),  dxhat = gamma dy.

    centre = mean(dxhat) for LayerNorm, 0 for RMSNorm.   rest: what is added to dx, through the
    residual.
    """

    norm: Norm
    dy: np.ndarray
    rest: np.ndarray | float

    def dx(
        self, *, centre: bool = True, product: bool = True, gain: bool = True, scale: bool = True
    ) -> np.ndarray:
        """dx, with these parts of it."""
        x, eps = self.norm.x, self.norm.eps
        x = x - x.mean(-1, keepdims=True) if self.norm.centred else x
        r = 1 / np.sqrt(np.mean(x**2, -1, keepdims=True) + eps)
        xhat, dxhat = x * r, self.dy * (self.norm.gamma if gain else 1)
        dx = dxhat
        if centre and self.norm.centred:
            dx = dx - dxhat.mean(-1, keepdims=True)
        if product:
            dx = dx - xhat * np.mean(dxhat * xhat, -1, keepdims=True)
        return r * dx if scale else dx


def into_norm(site: Site) -> IntoNorm:
    """The norm that reads this place."""
    role = _passed(site)
    if role == "residual" and site.pre_norm:
        return IntoNorm(norm_of(site, "norm2"), site.gradient("norm2"), site.gradient("output"))
    if role in ("attention", "mlp") and not site.pre_norm:
        norm = "norm1" if role == "attention" else "norm2"
        return IntoNorm(norm_of(site, norm), site.gradient(norm), 0.0)
    if role in ("output", "embeddings") and site.pre_norm:
        above = at_layer(site, site.index + 1)
        if above is None:
            return IntoNorm(norm_of(site, "norm"), site.gradient("norm"), 0.0)
        norm1 = norm_of(above, "norm1")
        return IntoNorm(norm1, above.gradient("norm1"), above.gradient("residual"))
    raise NotHere


# ------------------------------------------------------------------------------- activation, loss


def through_activation(site: Site, name: str | None = None) -> np.ndarray:
    """The gradient of the gate, the other half, or the activation, with the derivative of the
    config's activation or of another."""
    config = site.model.config
    own = getattr(config, "hidden_act", None) or getattr(config, "activation_function", "")
    f = ACTIVATIONS.get(str(name or own))
    if f is None:
        raise NotHere
    if site.has("mlp.gate"):
        dproduct, up, gate = (
            site.gradient("mlp.product"), site.value("mlp.up"), site.value("mlp.gate"),
        )  # fmt: skip
        if site.role == "mlp.up":
            return dproduct * site.value("mlp.activation")
        return dproduct * up if site.role == "mlp.activation" else f(gate)[1](dproduct * up)
    return f(site.value("mlp.up"))[1](site.gradient("mlp.activation"))


def loss_gradient(site: Site) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(softmax(logits), one-hot targets, which positions count (..., 1)) of the loss."""
    logits, targets = logits_and_targets(site)
    P = np.exp(log_softmax(logits))
    counted = (targets >= 0)[..., None]
    return P, np.eye(P.shape[-1])[np.maximum(targets, 0)], counted


def linear_here(site: Site) -> np.ndarray:
    """The weight through which the gradient here comes, if it is one."""
    if site.role == "attention.heads":
        return matrix(site, "attention")[0]
    if site.role in ("mlp.product", "mlp.activation"):
        return linear_of(site, "mlp").W
    raise NotHere
