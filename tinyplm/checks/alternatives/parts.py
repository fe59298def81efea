"""What a place computes, from our records and parameters: the formulas that alternatives change.

Each part is checked against our own record before it is used.  A model whose part has another
formula, such as DeBERTa's attention, raises NotHere: no alternative is tried there.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...core import IGNORED
from .site import NotHere, Site

# ---------------------------------------------------------------------------------- linear layers


@dataclasses.dataclass(frozen=True)
class Linear:
    """y = x W + b."""

    x: np.ndarray  # (..., in)
    W: np.ndarray  # (in, out)
    b: np.ndarray | None

    def of(self, x: np.ndarray) -> np.ndarray:
        y = x @ self.W
        return y if self.b is None else y + self.b


LINEAR = r"layers\.\d+\.(attention(\.[qkv])?|mlp(\.gate|\.up)?)$"
_MATRICES = {
    **{f"attention.{n}": (f"attention.W{n}", f"attention.b{n}") for n in "qkv"},
    "attention": ("attention.Wo", "attention.bo"),
    "mlp.gate": ("mlp.Wgate", "mlp.bgate"),
    "mlp.up": ("mlp.Wup", "mlp.bup"),
    "mlp": ("mlp.Wdown", "mlp.bdown"),
}
_PLAIN = {"mlp.up": ("mlp.W1", "mlp.b1"), "mlp": ("mlp.W2", "mlp.b2")}


def matrix(site: Site, role: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(W, b) of the linear layer whose output has this role."""
    names = _MATRICES if site.optional("mlp.Wdown") is not None else {**_MATRICES, **_PLAIN}
    if role not in names:
        raise NotHere
    W, b = names[role]
    return site.parameter(W), site.optional(b)


def reads(site: Site, role: str) -> str:
    """The name of what the linear layer with this output reads."""
    if role.startswith("attention."):
        return "norm1" if site.pre_norm else site.before
    if role in ("mlp.gate", "mlp.up"):
        return "norm2" if site.pre_norm else "residual"
    if role == "attention":
        return "attention.heads"
    return "mlp.product" if site.has("mlp.product") else "mlp.activation"


def linear_of(site: Site, role: str | None = None) -> Linear:
    """The linear layer at this place, or of another role in this layer."""
    own = role is None
    role = site.role if role is None else role
    W, b = matrix(site, role)
    x = site.value(reads(site, role))
    made = Linear(merged(x) if x.ndim == 4 else x, W, b)
    if own and site.kind == "forward" and not site.is_ours(made.of(made.x)):
        raise NotHere
    return made


def merged(x: np.ndarray) -> np.ndarray:
    """(B, H, T, E) -> (B, T, H E)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def by_head(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, T, H E) -> (B, H, T, E)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


# ------------------------------------------------------------------------------------------ norms

NORM = r"(layers\.\d+\.norm[12]|norm)$"


@dataclasses.dataclass(frozen=True)
class Norm:
    """y = gamma * xhat + beta,   xhat = (x - centre * mean(x)) / sqrt(var + eps)."""

    x: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray | None
    eps: float
    centred: bool  # LayerNorm; otherwise RMSNorm

    def xhat(self, x: np.ndarray | None = None) -> np.ndarray:
        """The normalised rows."""
        x = self.x if x is None else x
        x = x - x.mean(-1, keepdims=True) if self.centred else x
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + self.eps)

    def y(self, x: np.ndarray | None = None, **changes: Any) -> np.ndarray:
        """The output; changes: of the fields."""
        new = dataclasses.replace(self, **changes)
        y = new.gamma * new.xhat(x)
        return y if new.beta is None else y + new.beta


def norm_of(site: Site, role: str | None = None) -> Norm:
    """The norm at this place, or of another role of the layer."""
    own, role = role is None, site.role if role is None else role
    inside = role in ("norm1", "norm2")
    where = role if inside else f"body.{role}"
    gamma, beta = site.parameter(f"{where}.gamma"), site.optional(f"{where}.beta")
    x = site.value(norm_reads(site, role)) if site.pre_norm or not inside else None
    if x is None:
        first, second = (site.before, "attention") if role == "norm1" else ("residual", "mlp")
        x = site.value(first) + site.value(second)
    made = Norm(x, gamma, beta, _eps(site.model.config), beta is not None)
    if own and site.kind == "forward" and not site.is_ours(made.y()):
        raise NotHere
    return made


def norm_reads(site: Site, role: str) -> str:
    """The name of what a norm reads in a pre-norm model, or before the first layer."""
    if role in ("norm1", "norm2"):
        return site.before if role == "norm1" else "residual"
    names = list(site.trace)
    after = names.index(role) > names.index("layers.0") if "layers.0" in names else False
    return f"layers.{site.layers - 1}" if after else _summed(site)


def _summed(site: Site) -> str:
    """What precedes an encoder's norm of the embeddings: the last record before it."""
    names = list(site.trace)
    return names[names.index("norm") - 1]


def _eps(config: Any) -> float:
    for name in ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"):
        if hasattr(config, name):
            return float(getattr(config, name))
    raise NotHere


# ------------------------------------------------------------------------------------------- loss


def logits_and_targets(site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Logits (..., V) and targets (...) of a language model's loss; for an encoder the rows with a
    target."""
    logits, targets = site.value("logits"), site.input("targets.logits")
    if logits.ndim == 2 and targets.ndim == 2:
        targets = targets[targets != IGNORED]
    if targets.shape != logits.shape[:-1]:
        raise NotHere
    return logits, targets


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cross_entropies(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log p(target) of each position, 0 where it is ignored."""
    counted = targets != IGNORED
    chosen = np.where(counted, targets, 0)[..., None]
    return -np.take_along_axis(log_softmax(logits), chosen, -1)[..., 0] * counted
