"""AdamW: Adam with decoupled weight decay, on one flat buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import check_number, is_number, wrong
from ..backend import array_module, at_least_float32
from ..core import Tree, map_threads
from .flat import FlatTree
from .optimizer import Group, Optimizer, decays_by_default


class AdamW(Optimizer):
    """theta -= lr * weight_decay * theta;   theta -= lr * m_hat / (sqrt(v_hat) + eps),   with

        m = b1 m + (1 - b1) g,              m_hat = m / (1 - b1^t),
        v = b2 v + (1 - b2) g^2,            v_hat = v / (1 - b2^t).

    Loshchilov & Hutter 2019, algorithm 2.   theta: parameters, g: their gradient, clipped if asked
    for; t = 1, 2, ... counts the steps; b1, b2 = betas; m = v = 0 before the first step.
    weight_decay applies to what decays(path, array) selects.  rates(path, array) > 0 scales a
    parameter's lr (see layerwise.py); None: 1 for all.   lr scales the decay, as in
    torch.optim.AdamW; in the paper only the schedule's factor does, without the peak.

    Parameters, gradient and state: see Optimizer.
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
        super().__init__(params, weight_decay=weight_decay, decays=decays, rates=rates)
        self.betas, self.eps = tuple(betas), eps
        self.m = FlatTree(params, paths=self.values.paths, dtype=self._state_dtype)
        self.v = FlatTree(params, paths=self.values.paths, dtype=self._state_dtype)

    @property
    def state(self) -> dict[str, Any]:
        """The moments, "m.PATH" and "v.PATH"."""
        moments = {"m": self.m.leaves, "v": self.v.leaves}
        return {f"{n}.{path}": a for n, leaves in moments.items() for path, a in leaves.items()}

    def _apply(self, lr: float, scale: Any, workers: int) -> None:
        buffers = [tree.buffer for tree in (self.values, self.m, self.v, self.gradient)]

        def update(block: tuple[slice, Group]) -> None:
            self._update(*block, buffers, lr, scale)

        map_threads(update, self._blocks(), workers)

    def _update(self, part: slice, group: Group, buffers: list[Any], lr: float, scale: Any) -> None:
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
