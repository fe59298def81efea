"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import array_module, at_least_float32, is_host
from ..core import Tree, flatten, map_threads
from .clip import clip_scale, global_norm
from .flat import FlatTree

_BLOCK = 1 << 17  # elements worked on at a time on the host, so that the temporaries stay in the cache


def decays_by_default(path: str, array: Any) -> bool:
    """Weight decay for the matrices of linear layers: not for vectors (norms), biases of any shape, nor embedding tables."""
    return array.ndim >= 2 and not any(word in path for word in ("tokens", "positions", "segments", "bias"))


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
        self.gradient.clear()  # as after a step, so that the first one after a resume is no different
        moments = at_least_float32(self.values.buffer[:0]).dtype
        self.m = FlatTree(params, paths=paths, dtype=moments)
        self.v = FlatTree(params, paths=paths, dtype=moments)
        self.decayed_size = sum(leaves[path].size for path in decayed)
        self.t = 0

    @property
    def params(self) -> Tree:
        return self.values.tree

    def gradient_norm(self, *, workers: int = 1) -> Any:
        """The global norm of `gradient`, 0-dimensional; the same bits for any number of workers (threads, on the host)."""
        gradient = self.gradient.buffer
        parts = map_threads(lambda part: global_norm({"": gradient[part]}), self._blocks(), workers)
        return global_norm({str(i): norm for i, norm in enumerate(parts)}) if len(parts) > 1 else parts[0]

    def step(self, lr: float, *, clip: float | None = None, norm: Any = None, workers: int = 1) -> None:
        """One update from `gradient`, which is then zero; the same bits for any number of workers (threads, on the host).

        clip: scale the gradient to at most this global norm; norm: gradient_norm() if it is known already.
        """
        scale = 1.0
        if clip is not None:
            scale = clip_scale(self.gradient_norm(workers=workers) if norm is None else norm, clip)
        self.t += 1
        buffers = [tree.buffer for tree in (self.values, self.m, self.v, self.gradient)]
        map_threads(lambda part: self._update(part, buffers, lr, scale), self._blocks(), workers)
        self.gradient.clear()

    def _blocks(self) -> list[slice]:
        """What is worked on at a time; a block decays as a whole, or not at all."""
        size = self.values.buffer.size
        block = _BLOCK if is_host(self.values.buffer) else max(size, 1)
        ranges = ((0, self.decayed_size), (self.decayed_size, size))
        return [slice(start, min(start + block, last)) for first, last in ranges for start in range(first, last, block)]

    def _update(self, part: slice, buffers: list[Any], lr: float, scale: Any) -> None:
        theta, m, v, gradient = (buffer[part] for buffer in buffers)
        xp = array_module(theta)
        b1, b2 = self.betas
        if part.start < self.decayed_size and self.weight_decay:
            theta *= 1 - lr * self.weight_decay
        g = at_least_float32(gradient) * scale
        m *= b1
        v *= b2
        t = g * (1 - b1)
        m += t
        g *= g
        g *= 1 - b2
        v += g
        # m_hat / (sqrt(v_hat) + eps) = c m / (sqrt(v) + eps root),   root = sqrt(1 - b2^t),   c = root / (1 - b1^t)
        root = (1 - b2**self.t) ** 0.5
        xp.sqrt(v, out=g)
        g += self.eps * root
        xp.divide(m, g, out=t)
        t *= lr * root / (1 - b1**self.t)
        theta -= t.astype(theta.dtype, copy=False)
