"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import array_module, at_least_float32, is_host
from ..core import Tree, flatten
from .clip import clip_scale, global_norm
from .flat import FlatTree

_BLOCK = 1 << 16  # elements updated at a time on the host, so that the temporaries stay in the cache


def decays_by_default(path: str, array: Any) -> bool:
    """Weight decay for the matrices of linear layers: not for vectors (norms, biases), nor for embedding tables."""
    return array.ndim >= 2 and not any(word in path for word in ("tokens", "positions", "segments"))


class AdamW:
    """theta -= lr * weight_decay * theta;   theta -= lr * m_hat / (sqrt(v_hat) + eps),   with

        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,   m_hat = m / (1 - b1^t),   v_hat = v / (1 - b2^t).

    The optimiser owns the buffers that it updates: `params` is its own copy as a tree of views into one flat buffer, so a
    tree taken earlier does not move.  `gradient` is a FlatTree to add gradients into; `step` uses it up.
    decays(path, array) says which parameters decay.  Moments are kept in at least float32; parameters in float16 are updated
    in float16, where a small step is lost: train on float32 masters.  The decay is lr * weight_decay, as in torch.optim.AdamW;
    the paper's is the schedule's factor alone, without the peak.
    """

    def __init__(self, params: Tree, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.01, decays: Callable[[str, Any], bool] = decays_by_default) -> None:  # fmt: skip
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"AdamW: expected betas in [0, 1), got {betas}")
        if not (eps >= 0 and weight_decay >= 0):
            raise ValueError(f"AdamW: expected eps, weight_decay >= 0, got {eps}, {weight_decay}")
        leaves = flatten(params)
        decayed = [path for path, a in leaves.items() if decays(path, a)]
        paths = decayed + [path for path in leaves if path not in set(decayed)]  # the decayed ones are the front part
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.values = FlatTree(params, paths=paths, copy=True)
        self.gradient = FlatTree(params, paths=paths)
        moments = at_least_float32(self.values.buffer[:0]).dtype
        self.m = FlatTree(params, paths=paths, dtype=moments)
        self.v = FlatTree(params, paths=paths, dtype=moments)
        self.decayed_size = sum(leaves[path].size for path in decayed)
        self.t = 0

    @property
    def params(self) -> Tree:
        return self.values.tree

    def gradient_norm(self) -> Any:
        """The global norm of `gradient`, 0-dimensional."""
        return global_norm({"gradient": self.gradient.buffer})

    def step(self, lr: float, *, clip: float | None = None, norm: Any = None) -> None:
        """One update from `gradient`, which is then set to zero.

        clip: scale the gradient to at most this global norm; norm: gradient_norm() if it is known already.
        """
        scale = 1.0
        if clip is not None:
            scale = clip_scale(self.gradient_norm() if norm is None else norm, clip)
        self.t += 1
        size = self.values.buffer.size
        block = _BLOCK if is_host(self.values.buffer) else max(size, 1)
        for first, last, decay in ((0, self.decayed_size, self.weight_decay), (self.decayed_size, size, 0.0)):
            for start in range(first, last, block):
                self._update(slice(start, min(start + block, last)), lr, decay, scale)
        self.gradient.clear()

    def _update(self, part: slice, lr: float, decay: float, scale: Any) -> None:
        theta, m, v = self.values.buffer[part], self.m.buffer[part], self.v.buffer[part]
        xp = array_module(theta)
        b1, b2 = self.betas
        g = at_least_float32(self.gradient.buffer[part]) * scale
        if decay:
            theta *= 1 - lr * decay
        m *= b1
        m += g * (1 - b1)
        v *= b2
        g *= g
        g *= 1 - b2
        v += g
        denominator = xp.sqrt(v)
        denominator /= (1 - b2**self.t) ** 0.5
        denominator += self.eps
        xp.divide(m, denominator, out=denominator)
        denominator *= lr / (1 - b1**self.t)
        theta -= denominator.astype(theta.dtype, copy=False)
