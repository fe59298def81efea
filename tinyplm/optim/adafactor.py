"""Adafactor: adaptive step sizes from the row and column means of squared gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import check_flag, check_number, is_number, wrong
from ..backend import array_module, at_least_float32
from ..core import Tree, map_threads
from .optimizer import Group, Optimizer, decays_by_default


class Adafactor(Optimizer):
    """For a matrix theta (n, m) with gradient G, clipped if asked for, at step t = 1, 2, ...:

        R = b R + (1 - b) mean_j (G^2 + eps1),     C = b C + (1 - b) mean_i (G^2 + eps1)
        U = G / sqrt(R C / mean(R)),               b = 1 - t^-decay_rate
        theta -= alpha U / max(1, rms(U) / threshold),   alpha = lr max(eps2, rms(theta))

    with R (n,), C (m,), rms(a) = sqrt(mean(a^2)).  Shazeer & Stern 2018, algorithm 4, where R and C
    are sums: the quotient is the same.  For a vector V = b V + (1 - b)(G^2 + eps1), U = G / sqrt(V)
    (algorithm 5).  An array of more dimensions is a stack of matrices, of its last two.

    The defaults are those of algorithm 6.  There lr is `schedule.relative_step(optimizer.t)`; any
    other schedule will do: lr is relative to the size of a parameter.  scale=False: alpha = lr.
    beta1 > 0: the first moment M = beta1 M + (1 - beta1) alpha U / max(...) is subtracted instead.
    weight_decay: before that, theta -= alpha weight_decay theta, for what decays(path, array)
    selects (not in the paper).  rates(path, array) > 0 scales a parameter's lr.

    Parameters, gradient and state: see Optimizer.  State: n + m numbers for a matrix, n for a
    vector, and with beta1 as many as parameters, where AdamW keeps twice as many as parameters.
    In a step each worker also needs temporary arrays of twice a parameter's size.
    """

    def __init__(
        self,
        params: Tree,
        *,
        eps: tuple[float, float] = (1e-30, 1e-3),
        threshold: float = 1.0,
        decay_rate: float = 0.8,
        beta1: float = 0.0,
        weight_decay: float = 0.0,
        scale: bool = True,
        decays: Callable[[str, Any], bool] = decays_by_default,
        rates: Callable[[str, Any], float] | None = None,
    ) -> None:
        pair = isinstance(eps, (tuple, list)) and len(eps) == 2
        if not pair or not all(is_number(e) and e > 0 for e in eps):
            raise wrong("eps", "two numbers > 0", eps)
        check_number("threshold", threshold, above=0)
        check_number("decay_rate", decay_rate, above=0, most=1)
        check_number("beta1", beta1, least=0, below=1)
        check_flag("scale", scale)
        super().__init__(params, weight_decay=weight_decay, decays=decays, rates=rates)
        self.eps, self.threshold, self.decay_rate = tuple(eps), threshold, decay_rate
        self.beta1, self.scale = beta1, scale
        zeros, self._state = array_module(self.values.buffer).zeros, {}
        for path, a in self.values.leaves.items():
            kept = {"v": a.shape}
            if a.ndim >= 2:
                kept = {"row": a.shape[:-1], "column": (*a.shape[:-2], a.shape[-1])}
            if beta1:
                kept["m"] = a.shape
            for name, shape in kept.items():
                self._state[f"{name}.{path}"] = zeros(shape, dtype=self._state_dtype)

    @property
    def state(self) -> dict[str, Any]:
        """R "row.PATH" and C "column.PATH" of matrices, V "v.PATH" of vectors, M "m.PATH"."""
        return dict(self._state)

    def _apply(self, lr: float, scale: Any, workers: int) -> None:
        values, gradient = self.values.leaves, self.gradient.leaves
        items = [(path, group) for group in self._groups for path in group.paths]
        items.sort(key=lambda item: -values[item[0]].size)
        count = min(workers, len(items))
        dealt = [item for i in range(count) for item in items[i::count]]  # to equal work

        def update(item: tuple[str, Group]) -> None:
            path, group = item
            if values[path].size:
                self._update(path, group, values[path], gradient[path], lr * group.rate, scale)

        map_threads(update, dealt, count)

    def _update(
        self, path: str, group: Group, theta: Any, gradient: Any, lr: float, scale: Any
    ) -> None:
        """The equations of the class for one parameter, in place."""
        xp, state, (eps1, eps2) = array_module(theta), self._state, self.eps
        b = 1 - self.t**-self.decay_rate
        square = xp.square(at_least_float32(theta))

        def rms(a: Any) -> Any:
            xp.multiply(a, a, out=square)  # the only other array of this size
            return xp.sqrt(square.mean())

        alpha: Any = lr
        if self.scale:
            alpha = xp.maximum(xp.sqrt(square.mean()), eps2) * lr
        u = at_least_float32(gradient) * scale
        xp.multiply(u, u, out=square)
        square += eps1
        if theta.ndim >= 2:
            row, column = state[f"row.{path}"], state[f"column.{path}"]
            row *= b
            row += square.mean(axis=-1) * (1 - b)
            column *= b
            column += square.mean(axis=-2) * (1 - b)
            u /= xp.sqrt(row / row.mean(axis=-1, keepdims=True))[..., None]
            u /= xp.sqrt(column)[..., None, :]
        else:
            v = state[f"v.{path}"]
            v *= b
            v += square * (1 - b)
            u /= xp.sqrt(v)
        u *= alpha / xp.maximum(rms(u) / self.threshold, 1.0)
        if self.beta1:
            m = state[f"m.{path}"]
            m *= self.beta1
            u *= 1 - self.beta1
            m += u
            u = m
        if group.decays and self.weight_decay:
            theta *= 1 - alpha * self.weight_decay
        theta -= u.astype(theta.dtype, copy=False)
