"""AdamW: Adam with decoupled weight decay, on one flat buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arguments import check_number, check_takes, is_number, wrong
from ..backend import array_module, at_least_float32, is_host
from ..core import Tree, map_threads
from .clip import clip_scale, global_norm
from .flat import FlatTree, checked_leaves

_BLOCK = 1 << 17  # elements per block on the host, so that temporaries stay in the cache
_NO_DECAY = ("tokens", "positions", "segments", "bias")


def decays_by_default(path: str, array: Any) -> bool:
    """True for matrices of linear layers; False for vectors (norms), biases and embeddings."""
    return array.ndim >= 2 and not any(word in path for word in _NO_DECAY)


class _Group(NamedTuple):
    """Consecutive elements of the flat buffer with the same treatment."""

    start: int
    stop: int
    decays: bool
    rate: float  # factor on the learning rate


class AdamW:
    """theta -= lr * weight_decay * theta;   theta -= lr * m_hat / (sqrt(v_hat) + eps),   with

        m = b1 m + (1 - b1) g,              m_hat = m / (1 - b1^t),
        v = b2 v + (1 - b2) g^2,            v_hat = v / (1 - b2^t).

    Loshchilov & Hutter 2019, algorithm 2.   theta: parameters, g: their gradient, clipped if asked
    for; t = 1, 2, ... counts the steps; b1, b2 = betas; m = v = 0 before the first step.
    weight_decay applies to what decays(path, array) selects.  rates(path, array) > 0 scales a
    parameter's lr (see layerwise.py); None: 1 for all.   lr scales the decay, as in
    torch.optim.AdamW; in the paper only the schedule's factor does, without the peak.

    The optimiser owns the buffers that it updates: `params` is its own copy, a tree of views into
    one flat buffer, so trees taken earlier do not change.  `gradient` is a FlatTree to accumulate
    gradients into; `step` consumes it.  Moments are kept in at least float32.  float16 parameters
    are updated in float16, which loses small steps: train on float32 masters.
    """

    def __init__(
        self,
        params: Tree,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        decays: Callable[[str, Any], bool] = decays_by_default,
        rates: Callable[[str, Any], float] | None = None,
    ) -> None:
        pair = isinstance(betas, (tuple, list)) and len(betas) == 2
        if not pair or not all(is_number(b) and 0 <= b < 1 for b in betas):
            raise wrong("betas", "two numbers in [0, 1)", betas)
        check_number("eps", eps, least=0)
        check_number("weight_decay", weight_decay, least=0)
        leaves = checked_leaves("params", params)
        check_takes("decays", decays, "path", "array")
        if rates is not None:
            check_takes("rates", rates, "path", "array")
        alike: dict[tuple[bool, float], list[str]] = {}
        for path, a in leaves.items():
            rate = 1.0 if rates is None else rates(path, a)
            check_number(f"rates: {path}", rate, above=0)
            alike.setdefault((not decays(path, a), rate), []).append(path)
        ordered = sorted(alike.items(), key=lambda group: group[0][0])  # decayed ones first
        paths = [path for _, some in ordered for path in some]
        self.betas, self.eps, self.weight_decay = tuple(betas), eps, weight_decay
        self.values = FlatTree(params, paths=paths, copy=True)
        self.gradient = FlatTree(params, paths=paths)
        self.gradient.clear()  # as after a step, so that a resumed run adds in the same way
        moments = at_least_float32(self.values.buffer[:0]).dtype
        self.m = FlatTree(params, paths=paths, dtype=moments)
        self.v = FlatTree(params, paths=paths, dtype=moments)
        self._groups: list[_Group] = []
        start = 0
        for (constant, rate), some in ordered:
            stop = start + sum(leaves[path].size for path in some)
            self._groups.append(_Group(start, stop, not constant, rate))
            start = stop
        self.t = 0

    @property
    def params(self) -> Tree:
        """The current parameters, as views into the optimiser's buffer."""
        return self.values.tree

    def gradient_norm(self, *, workers: int = 1) -> Any:
        """The global norm of `gradient`, 0-dimensional; bit-equal for any number of workers."""
        gradient = self.gradient.buffer
        parts = map_threads(lambda b: global_norm({"": gradient[b[0]]}), self._blocks(), workers)
        if len(parts) == 1:
            return parts[0]
        return global_norm({str(i): norm for i, norm in enumerate(parts)})

    def step(
        self, lr: float, *, clip: float | None = None, norm: Any = None, workers: int = 1
    ) -> None:
        """One update from `gradient`, which is then cleared; bit-equal for any number of workers.

        lr >= 0. clip: scale the gradient to at most this global norm; norm: gradient_norm(), if
        already computed. workers: threads, on the host. ValueError for a bad lr or clip, before
        anything changes.
        """
        if isinstance(lr, (dict, list)):
            raise wrong("lr", "a number (add gradients with optimizer.gradient.add)", lr)
        check_number("lr", lr, least=0)
        scale = 1.0
        if clip is not None:
            scale = clip_scale(self.gradient_norm(workers=workers) if norm is None else norm, clip)
        self.t += 1
        buffers = [tree.buffer for tree in (self.values, self.m, self.v, self.gradient)]

        def update(block: tuple[slice, _Group]) -> None:
            self._update(*block, buffers, lr, scale)

        map_threads(update, self._blocks(), workers)
        self.gradient.clear()

    def _blocks(self) -> list[tuple[slice, _Group]]:
        """The slices of the buffer to update one at a time, each with its group."""
        block = _BLOCK if is_host(self.values.buffer) else max(self.values.buffer.size, 1)
        return [
            (slice(start, min(start + block, group.stop)), group)
            for group in self._groups
            for start in range(group.start, group.stop, block)
        ]

    def _update(
        self, part: slice, group: _Group, buffers: list[Any], lr: float, scale: Any
    ) -> None:
        """The equations of the class for one slice of the buffers, in place."""
        theta, m, v, gradient = (buffer[part] for buffer in buffers)
        lr = lr * group.rate
        xp = array_module(theta)
        b1, b2 = self.betas
        if group.decays and self.weight_decay:
            theta *= 1 - lr * self.weight_decay
        g = at_least_float32(gradient) * scale
        m *= b1
        v *= b2
        change = g * (1 - b1)
        m += change
        g *= g
        g *= 1 - b2
        v += g
        # m_hat / (sqrt(v_hat) + eps) = c m / (sqrt(v) + eps root),
        # root = sqrt(1 - b2^t),   c = root / (1 - b1^t)
        root = (1 - b2**self.t) ** 0.5
        xp.sqrt(v, out=g)  # g is free by now, and becomes the denominator
        g += self.eps * root
        xp.divide(m, g, out=change)
        change *= lr * root / (1 - b1**self.t)
        theta -= change.astype(theta.dtype, copy=False)
