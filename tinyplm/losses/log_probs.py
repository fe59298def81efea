"""Log-probabilities of given tokens, and the entropy of the distributions they were drawn from."""

from __future__ import annotations

from ..backend import array_module
from ..core import IGNORED, Array, Backward, in_float32
from ..layers.activation import capped
from ..layers.linear import linear
from ..layers.softmax import log_softmax
from ..shapes import expects
from .targets import checked_targets, chosen, onehot


@expects("logits (..., V), targets (...) integers; temperature > 0, whole ignore_index")
@in_float32
def log_probs(
    logits: Array, *, targets: Array, temperature: float = 1.0, ignore_index: int = IGNORED
) -> tuple[dict[str, Array], Backward]:
    """{"log_probs": l, "entropy": H},   l_i = log p_i[t_i],   H_i = -sum_v p_i[v] log p_i[v].

    p = softmax(logits / tau).   logits (..., V), targets t (...) integers in [0, V), or
    ignore_index, where both outputs are exactly 0; tau = temperature > 0
    -> two arrays (...) in at least float32.   Keeps log p and H.
    From dl_i/ds_v = onehot(t_i)_v - p_v and dH_i/ds_v = -p_v (log p_v + H_i), with s = logits /
    tau:

        dlogits = (dl (onehot(t) - p) - dH p (log p + H)) / tau.

    ValueError on targets of another shape, that are not integers or (on the host) out of range, and
    on tau <= 0.
    """
    xp, V, tau = array_module(logits), logits.shape[-1], temperature
    t, counts = checked_targets("log_probs", targets, V, ignore_index)
    log_p, _ = log_softmax(logits / tau)
    p = xp.exp(log_p)
    H = -(p * log_p).sum(axis=-1)
    outputs = {
        "log_probs": xp.where(counts, chosen(log_p, t), 0),
        "entropy": xp.where(counts, H, 0),
    }

    def backward(doutputs: dict[str, Array]) -> Array:
        dlogits = xp.zeros_like(p)
        if (dl := doutputs.get("log_probs")) is not None:
            dlogits = xp.where(counts, dl, 0)[..., None] * (onehot(t, V) - p)
        if (dH := doutputs.get("entropy")) is not None:
            dlogits = dlogits - xp.where(counts, dH, 0)[..., None] * p * (log_p + H[..., None])
        return dlogits / tau

    return outputs, backward


@expects(
    "x (..., D), W (D, V), b (V,) or None, targets (...) integers; "
    "temperature > 0, cap > 0 or None, whole ignore_index"
)
def vocabulary_log_probs(
    x: Array,
    W: Array,
    b: Array | None = None,
    *,
    targets: Array,
    temperature: float = 1.0,
    cap: float | None = None,
    ignore_index: int = IGNORED,
) -> tuple[dict[str, Array], Backward]:
    """log_probs(soft_cap(z)),   z = x W + b; without a cap, of z itself.

    x (..., D), W (D, V), b (V,) or None -> two arrays (...).
    dz is dlogits of `log_probs` taken back through soft_cap;   dx = dz W^T,   dW = x^T dz,
    db = sum dz.
    """
    z, z_back = linear(x, W, b)
    logits, cap_back = capped(z, cap)
    outputs, outputs_back = log_probs(
        logits, targets=targets, temperature=temperature, ignore_index=ignore_index
    )

    def backward(doutputs: dict[str, Array]) -> tuple[Array, Array, Array | None]:
        return z_back(cap_back(outputs_back(doutputs)))

    return outputs, backward
