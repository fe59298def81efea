"""What optimisers share: flat buffers, the norm of the gradient, the frame of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arguments import check_number, check_takes, check_whole, wrong
from ..backend import at_least_float32, is_host
from ..core import Tree, map_threads
from .clip import clip_scale, global_norm
from .flat import FlatTree, checked_leaves

_BLOCK = 1 << 17  # elements per block on the host, so that temporaries stay in the cache
_NO_DECAY = ("tokens", "positions", "segments", "bias")


def decays_by_default(path: str, array: Any) -> bool:
    """True for matrices of linear layers; False for vectors (norms), biases and embeddings."""
    axes = array.ndim - (".experts." in path)  # of one expert
    return axes >= 2 and not any(word in path for word in _NO_DECAY)


class Group(NamedTuple):
    """Parameters with the same treatment: consecutive elements of the flat buffer."""

    start: int
    stop: int
    paths: tuple[str, ...]
    decays: bool
    rate: float  # factor on the learning rate


class Optimizer:
    """An optimiser owns the buffers that it updates: `params` is its own copy, a tree of views into
    one flat buffer, `values`, so trees taken earlier do not change.  `gradient` is a FlatTree to
    accumulate gradients into; `step` consumes it.  What an update remembers is in `state`, in at
    least float32.  float16 parameters are updated in float16, which loses small steps: train on
    float32 masters.

    A subclass has `state` and `_apply`, the update.
    """

    def __init__(
        self,
        params: Tree,
        *,
        weight_decay: float,
        decays: Callable[[str, Any], bool],
        rates: Callable[[str, Any], float] | None,
    ) -> None:
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
        self.weight_decay = weight_decay
        self.values = FlatTree(params, paths=paths, copy=True)
        self.gradient = FlatTree(params, paths=paths)
        self.gradient.clear()  # as after a step, so that a resumed run adds in the same way
        self._state_dtype = at_least_float32(self.values.buffer[:0]).dtype
        self._groups: list[Group] = []
        start = 0
        for (constant, rate), some in ordered:
            stop = start + sum(leaves[path].size for path in some)
            self._groups.append(Group(start, stop, tuple(some), not constant, rate))
            start = stop
        self.t = 0

    @property
    def params(self) -> Tree:
        """The current parameters, as views into the optimiser's buffer."""
        return self.values.tree

    @property
    def state(self) -> dict[str, Any]:
        """The arrays kept from step to step, by name. A resumed run fills them, and sets t."""
        raise NotImplementedError

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
        already computed. workers: threads, on the host. ValueError for a bad argument, before
        anything changes.
        """
        if isinstance(lr, (dict, list)):
            raise wrong("lr", "a number (add gradients with optimizer.gradient.add)", lr)
        check_number("lr", lr, least=0)
        check_whole("workers", workers, 1)
        scale = 1.0
        if clip is not None:
            scale = clip_scale(self.gradient_norm(workers=workers) if norm is None else norm, clip)
        self.t += 1
        self._apply(lr, scale, workers)
        self.gradient.clear()

    def _apply(self, lr: float, scale: Any, workers: int) -> None:
        """Update `values` and `state` with the gradient times `scale`, for step number t."""
        raise NotImplementedError

    def _blocks(self) -> list[tuple[slice, Group]]:
        """The slices of the buffer to update one at a time, each with its group."""
        block = _BLOCK if is_host(self.values.buffer) else max(self.values.buffer.size, 1)
        return [
            (slice(start, min(start + block, group.stop)), group)
            for group in self._groups
            for start in range(group.start, group.stop, block)
        ]
