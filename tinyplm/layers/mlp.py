"""Feed-forward layers, plain and gated."""

from __future__ import annotations

from ..shapes import expects
from .activation import activated
from .linear import linear, linear_gradients


@expects("p {W1 W2 b1? b2?}, x (..., D); function activation", hot=True)
def mlp(p, x, *, activation):
    """y = activation(x W1 + b1) W2 + b2.                                                        Vaswani et al. 2017, eq. 2

    p: W1 (D, F), W2 (F, D), and b1 (F,), b2 (D,) where the family has biases; x (..., D) -> (..., D).
    Keeps x and h = x W1 + b1 (..., F).  The activation is computed again in the backward: it costs little beside the matrix
    products, and what it would keep is half of all that a layer keeps.
    backward gives (dp, dx), by the chain of the three parts.
    """
    h, h_back = linear(x, p["W1"], p.get("b1"))
    y, _ = linear(activated("mlp", activation, h)[0], p["W2"], p.get("b2"))

    def backward(dy):
        a, a_back = activation(h)
        da, dW2, db2 = linear_gradients(a, p["W2"], p.get("b2"), dy)
        dx, dW1, db1 = h_back(a_back(da))
        dp = {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
        return {name: dp[name] for name in p}, dx

    return y, backward


@expects("p {Wgate Wup Wdown bgate? bup? bdown?}, x (..., D); function activation", hot=True)
def gated_mlp(p, x, *, activation):
    """y = (activation(x Wgate) * (x Wup)) Wdown: SwiGLU with SiLU, GeGLU with GELU.                      Shazeer 2020, eq. 6

    p: Wgate and Wup (D, F), Wdown (F, D), and bgate, bup, bdown where the family has biases; x (..., D) -> (..., D).
    With g = activation(x Wgate), u = x Wup:   dg = dh * u,   du = dh * g,   where dh is the gradient of h = g * u.
    Keeps x, x Wgate and u; g and h are computed again in the backward, as in `mlp`.
    """
    gate, gate_back = linear(x, p["Wgate"], p.get("bgate"))
    u, u_back = linear(x, p["Wup"], p.get("bup"))
    if gate.shape != u.shape:
        raise ValueError(f"gated_mlp: expected Wgate and Wup of one shape, got {p['Wgate'].shape} and {p['Wup'].shape}")
    y, _ = linear(activated("gated_mlp", activation, gate)[0] * u, p["Wdown"], p.get("bdown"))

    def backward(dy):
        g, g_back = activation(gate)
        dh, dWdown, dbdown = linear_gradients(g * u, p["Wdown"], p.get("bdown"), dy)
        dx, dWgate, dbgate = gate_back(g_back(dh * u))
        dx_up, dWup, dbup = u_back(dh * g)
        dp = {"Wgate": dWgate, "bgate": dbgate, "Wup": dWup, "bup": dbup, "Wdown": dWdown, "bdown": dbdown}
        return {name: dp[name] for name in p}, dx + dx_up

    return y, backward
