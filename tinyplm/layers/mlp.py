"""Feed-forward layers, plain and gated."""

from __future__ import annotations

from ..arguments import wrong
from ..core import Array, Backward, Component, Tree
from ..shapes import expects
from .activation import activated, clamped_swiglu
from .linear import linear


@expects("p {W1 W2 b1? b2?}, x (..., D); function activation", hot=True)
def mlp(p: Tree, x: Array, *, activation: Component) -> tuple[Array, Backward]:
    """y = a W2 + b2,   a = activation(h),   h = x W1 + b1.           Vaswani et al. 2017, eq. 2

    x (..., D) -> y (..., D).   p: W1 (D, F), W2 (F, D), and b1 (F,), b2 (D,) where the family
    has biases.   Keeps x, a, and what the activation keeps.
    da = dy W2^T,   dh = da * activation'(h),   dx = dh W1^T;   dW2 = a^T dy,   db2 = sum dy,
    dW1 = x^T dh,   db1 = sum dh.   backward returns (dp, dx).
    """
    h, h_back = linear(x, p["W1"], p.get("b1"))
    a, a_back = activated("mlp", activation, h)
    y, y_back = linear(a, p["W2"], p.get("b2"))

    def backward(dy: Array) -> tuple[Tree, Array]:
        da, dW2, db2 = y_back(dy)
        dx, dW1, db1 = h_back(a_back(da))
        dp = {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
        return {name: dp[name] for name in p}, dx

    return y, backward


@expects("p {Wgate Wup Wdown bgate? bup? bdown?}, x (..., D); function activation", hot=True)
def gated_mlp(p: Tree, x: Array, *, activation: Component) -> tuple[Array, Backward]:
    """y = h Wdown,   h = g * u,   g = activation(z),   z = x Wgate,   u = x Wup.

    Shazeer 2020, eq. 6: SwiGLU with SiLU, GeGLU with GELU.   x (..., D) -> y (..., D).
    p: Wgate and Wup (D, F), Wdown (F, D), and bgate, bup (F,), bdown (D,) where the family has
    biases.   Keeps x, g, u, h, and what the activation keeps.
    dh = dy Wdown^T,   dg = dh * u,   du = dh * g,   dz = dg * activation'(z),
    dx = dz Wgate^T + du Wup^T,   and the weights' gradients as in `linear`.
    backward returns (dp, dx).
    """
    z, z_back = linear(x, p["Wgate"], p.get("bgate"))
    g, g_back = activated("gated_mlp", activation, z)
    u, u_back = linear(x, p["Wup"], p.get("bup"))
    check_one_shape(p, g, u)
    h = g * u
    y, y_back = linear(h, p["Wdown"], p.get("bdown"))

    def backward(dy: Array) -> tuple[Tree, Array]:
        dh, dWdown, dbdown = y_back(dy)
        dx_gate, dWgate, dbgate = z_back(g_back(dh * u))
        dx_up, dWup, dbup = u_back(dh * g)
        dp = {"Wgate": dWgate, "bgate": dbgate, "Wup": dWup, "bup": dbup}
        dp |= {"Wdown": dWdown, "bdown": dbdown}
        return {name: dp[name] for name in p}, dx_gate + dx_up

    return y, backward


@expects(
    "p {Wgate Wup Wdown bgate? bup? bdown?}, x (..., D); alpha > 0, limit > 0",
    hot=True,
)
def clamped_gated_mlp(
    p: Tree, x: Array, *, alpha: float = 1.702, limit: float = 7.0
) -> tuple[Array, Backward]:
    """y = h Wdown + bdown,   h = clamped_swiglu(x Wgate + bgate, x Wup + bup).

    OpenAI 2025, sec. 2.2.   x (..., D) -> y (..., D).   p as in `gated_mlp`.
    Keeps x, h, and what clamped_swiglu keeps.   Gradients as in `gated_mlp`, with (dz, du) of
    clamped_swiglu; backward returns (dp, dx).
    """
    z, z_back = linear(x, p["Wgate"], p.get("bgate"))
    u, u_back = linear(x, p["Wup"], p.get("bup"))
    check_one_shape(p, z, u)
    h, h_back = clamped_swiglu(z, u, alpha=alpha, limit=limit)
    y, y_back = linear(h, p["Wdown"], p.get("bdown"))

    def backward(dy: Array) -> tuple[Tree, Array]:
        dh, dWdown, dbdown = y_back(dy)
        dz, du = h_back(dh)
        dx_gate, dWgate, dbgate = z_back(dz)
        dx_up, dWup, dbup = u_back(du)
        dp = {"Wgate": dWgate, "Wup": dWup, "Wdown": dWdown}
        dp |= {"bgate": dbgate, "bup": dbup, "bdown": dbdown}
        return {name: dp[name] for name in p}, dx_gate + dx_up

    return y, backward


def check_one_shape(p: Tree, g: Array, u: Array) -> None:
    """ValueError unless Wgate and Wup have the same width: another one could broadcast."""
    if g.shape != u.shape:
        expected = f"the shape of Wup, {p['Wup'].shape}"
        raise wrong("gated_mlp: Wgate", expected, p["Wgate"])
