"""The feed-forward layers. `activation` is a reference function of one array, such as gelu."""

import numpy as np

from reference.layers.linear import linear
from reference.scalar import zeros


def mlp(p: dict, x: np.ndarray, *, activation) -> np.ndarray:
    """y = activation(x W1 + b1) W2 + b2.                                Vaswani et al. 2017, eq. 2

    p: W1 (D, F), W2 (F, D), and optionally b1 (F,), b2 (D,).  x (..., D) -> y (..., D).
    """
    return linear(activation(linear(x, p["W1"], p.get("b1"))), p["W2"], p.get("b2"))


def gated_mlp(p: dict, x: np.ndarray, *, activation) -> np.ndarray:
    """y = (activation(x Wgate + bgate) * (x Wup + bup)) Wdown + bdown.         Shazeer 2020, eq. 6

    SwiGLU with silu, GeGLU with gelu.  The product * is elementwise.
    p: Wgate (D, F), Wup (D, F), Wdown (F, D), and optionally bgate (F,), bup (F,), bdown (D,).
    x (..., D) -> y (..., D).
    """
    gate = activation(linear(x, p["Wgate"], p.get("bgate")))
    up = linear(x, p["Wup"], p.get("bup"))
    product = zeros(up.shape, like=(gate, up))
    for i in np.ndindex(up.shape):
        product[i] = gate[i] * up[i]
    return linear(product, p["Wdown"], p.get("bdown"))
