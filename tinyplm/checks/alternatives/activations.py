"""Activations that differ, at the activation itself or at the product with the gate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core import Component
from ...layers import activation as ours
from .site import NotHere, Site, alternative, layers_own

PLACES = layers_own(r"mlp\.(activation|product)")


def put(site: Site, f: Component) -> np.ndarray:
    """f in place of our activation, times the other half where the product is seen."""
    return activated(site, lambda x: f(x)[0])


def activated(site: Site, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """f in place of our activation, as `put`."""
    gated = site.has("mlp.gate")
    a = f(site.value("mlp.gate" if gated else "mlp.up"))
    return a * site.value("mlp.up") if site.role == "mlp.product" else a


@alternative("GELU by erf", at=PLACES, formula="x (1 + erf(x / sqrt 2)) / 2")
def gelu(site: Site) -> np.ndarray:
    """Theirs computes the exact GELU, as in BERT."""
    return put(site, ours.gelu)


@alternative("GELU by tanh", at=PLACES, formula="x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2")
def gelu_tanh(site: Site) -> np.ndarray:
    """Theirs computes the tanh approximation of GELU, as in GPT-2."""
    return put(site, ours.gelu_tanh)


@alternative("quick GELU", at=PLACES, formula="x sigmoid(1.702 x)")
def quick_gelu(site: Site) -> np.ndarray:
    """Theirs computes the sigmoid approximation of GELU, as in CLIP."""
    return activated(site, lambda x: x * ours.sigmoid(1.702 * x))


@alternative("SiLU", at=PLACES, formula="x sigmoid(x)")
def silu(site: Site) -> np.ndarray:
    """Theirs computes SiLU, as in LLaMA."""
    return put(site, ours.silu)


@alternative("ReLU", at=PLACES, formula="max(x, 0)")
def relu(site: Site) -> np.ndarray:
    """Theirs computes ReLU."""
    return put(site, ours.relu)


@alternative("squared ReLU", at=PLACES, formula="max(x, 0)^2")
def squared_relu(site: Site) -> np.ndarray:
    """Theirs squares the ReLU, as in Primer."""
    return activated(site, lambda x: np.maximum(x, 0) ** 2)


@alternative("tanh", at=PLACES, formula="tanh(x)")
def tanh(site: Site) -> np.ndarray:
    """Theirs computes the hyperbolic tangent."""
    return put(site, ours.tanh)


@alternative("sigmoid", at=PLACES, formula="1 / (1 + exp(-x))")
def sigmoid(site: Site) -> np.ndarray:
    """Theirs gates by the sigmoid, as in the first GLU."""
    return activated(site, ours.sigmoid)


@alternative("no activation", at=PLACES, formula="x")
def identity(site: Site) -> np.ndarray:
    """Theirs leaves out the activation."""
    return activated(site, lambda x: x)


@alternative("gate and up swapped", at=PLACES, formula="activation(x Wup) * (x Wgate)")
def gate_and_up(site: Site) -> list[tuple[str, np.ndarray]]:
    """Theirs activates the half that ours only multiplies."""
    if not site.has("mlp.gate"):
        raise NotHere
    gate, up = site.value("mlp.gate"), site.value("mlp.up")
    own = site.value("mlp.activation")
    found = []
    for f in (ours.silu, ours.gelu, ours.gelu_tanh, ours.relu, ours.tanh):
        if np.allclose(f(gate)[0], own, rtol=1e-5, atol=1e-6):
            found.append(("", f(up)[0] * gate if site.role == "mlp.product" else f(up)[0]))
    return found


@alternative("up left out", at=layers_own(r"mlp\.product"), formula="activation(x Wgate)")
def ungated(site: Site) -> np.ndarray:
    """Theirs leaves out the product with the other half."""
    return site.value("mlp.activation")


@alternative("gate left out", at=layers_own(r"mlp\.product"), formula="x Wup")
def only_up(site: Site) -> np.ndarray:
    """Theirs leaves out the gate."""
    return site.value("mlp.up")
