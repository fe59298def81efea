"""One training step: gradient accumulation over micro-batches and batch shards; the loss of a token array or of batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import random
from ..backend import is_host, to_device
from ..core import IGNORED, flatten, map_shards, reduce_shards, tree_map
from ..data.batches import evaluation_windows
from ..models.model import Model
from ..optim.adamw import AdamW
from .settings import Settings

Arrays = np.ndarray | dict[str, np.ndarray]


def accumulate(model: Model, optimizer: AdamW, inputs: Arrays, targets: Arrays, *, settings: Any, key: int | None = None,
               frozen: int = 0) -> Any:  # fmt: skip
    """Add the gradient of the whole batch's loss to optimizer.gradient; returns the loss, 0-dimensional, not read back.

    inputs: {"input_ids" (B, T), ...} and targets: {output: (B, T) or (B,)}, on the host; bare arrays are input_ids and logits.
    Every part's loss is divided by the number of targets of the whole batch, so k micro-batches, or n shards, add up to exactly
    the loss and gradient of one batch.  Parts are added in order.
    settings: micro_size, workers, smoothing and checkpointing of it, a training.Settings or a TuningSettings.
    key: an int for dropout; a sample's mask depends on the key and its number in the batch, not on how it is cut.
    frozen: so many layers at the bottom have no gradient.  Those of parameters that the optimizer has not are dropped.
    """
    inputs, targets = named(inputs, targets)
    batch = {"inputs": inputs, "targets": targets}
    samples = len(inputs["input_ids"])
    if key is not None:
        inputs["key"] = random.sample_keys(key, np.arange(samples))
    total = {name: max(count, 1) for name, count in target_counts(targets).items()}
    micro_size, workers = min(samples, settings.micro_size), settings.workers
    rows = -(-model.head_rows(targets) * micro_size // (samples * min(workers, micro_size)))  # in a shard of the usual kind
    options = {"smoothing": settings.smoothing, "checkpointing": settings.checkpointing,
               "factors": rows < model.params["body"]["tokens"].shape[1]}  # fmt: skip  # the same way in all shards

    if frozen:
        options["frozen"] = frozen
    if getattr(settings, "auxiliary", 0):
        options["auxiliary"] = settings.auxiliary
    trained = optimizer.values.leaves

    def gradient(part: dict, give: Callable) -> Any:
        part = to_device(part, model.device)
        loss, back = model.loss_in_parts(give, targets=part["targets"], total=total, **options, **part["inputs"])
        return loss, back(1.0)

    def add(path: str, gradient: Any, workers: int = 1) -> None:
        for name, a in flatten(gradient, path).items():
            if name in trained:
                optimizer.gradient.add(a, name, workers=workers)

    loss = 0
    try:
        for start in range(0, samples, micro_size):
            micro = tree_map(lambda a, start=start: a[start : start + micro_size], batch)
            count = min(workers, len(micro["inputs"]["input_ids"]))
            for part_loss, left in reduce_shards(gradient, micro, count, add):
                for tree in left:
                    add("", tree, workers)
                loss = part_loss + loss
    except BaseException:
        optimizer.gradient.clear()  # half a gradient must not go into the next step
        raise
    return loss


def named(inputs: Arrays, targets: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Dicts of inputs and of targets, copied; bare arrays are input_ids and logits."""
    return (dict(inputs) if isinstance(inputs, dict) else {"input_ids": inputs},
            dict(targets) if isinstance(targets, dict) else {"logits": targets})  # fmt: skip


def target_counts(targets: dict[str, np.ndarray]) -> dict[str, int]:
    """How many targets of each output count: class numbers that are not IGNORED, real numbers that are not NaN."""
    return {name: int((t != IGNORED).sum()) if t.dtype.kind in "iu" else int((t == t).sum()) for name, t in targets.items()}


class NonFiniteError(FloatingPointError):
    """The loss or the gradient is not a finite number."""


def update(model: Model, optimizer: AdamW, inputs: Arrays, targets: Arrays, *, settings: Settings, step: int,
           key: int | None = None) -> tuple[Any, Any]:  # fmt: skip
    """One whole step: gradient, clipping, AdamW.  Returns (loss, gradient norm before clipping), both 0-dimensional.

    On the host a non-finite loss or gradient raises NonFiniteError before the parameters are touched.  On a GPU nothing is
    read back here; whoever reads the loss checks it (training.loop does, before anything is saved).
    """
    loss = accumulate(model, optimizer, inputs, targets, settings=settings, key=key)
    norm = optimizer.gradient_norm(workers=settings.workers)
    if is_host(norm):
        check_finite(step, float(loss), float(norm))
    optimizer.step(settings.rate(step), clip=settings.clip, norm=norm, workers=settings.workers)
    return loss, norm


def check_finite(step: int, loss: float, norm: float) -> None:
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not np.isfinite(value):
            raise NonFiniteError(f"step {step + 1}: the {name} is {value}; try a smaller learning rate or a longer warm-up")


def evaluate(model: Model, tokens: np.ndarray, *, length: int, stride: int | None = None, batch: int = 16, workers: int = 1
             ) -> tuple[float, int]:  # fmt: skip
    """(sum of -log p in nats, number of tokens) over an array, each token but the first predicted once.

    The contexts are windows of at most `length` tokens, one every `stride` (see data.batches.evaluation_windows).
    """

    def nll(part: dict) -> Any:
        part = to_device(part, model.device)
        return model.loss(targets={"logits": part["targets"]}, total={"logits": 1}, grad=False, input_ids=part["input_ids"])[0]

    total, count = 0.0, 0
    for inputs, targets in evaluation_windows(tokens, length, batch, stride):
        count += int((targets != IGNORED).sum())
        parts = {"input_ids": inputs, "targets": targets}
        total += sum(float(part) for part in map_shards(nll, parts, min(workers, len(inputs))))
    return total, count


def evaluate_batches(model: Model, batches: Sequence[tuple[dict, dict]], *, workers: int = 1) -> float:
    """The loss of these batches of (inputs, targets), as if they were one."""
    total: Counter = Counter()
    for _, targets in batches:
        total.update(target_counts(targets))

    def loss(part: dict) -> Any:
        part = to_device(part, model.device)
        return model.loss(targets=part["targets"], total=total, grad=False, **part["inputs"])[0]

    value = 0.0
    for inputs, targets in batches:
        parts = map_shards(loss, {"inputs": inputs, "targets": targets}, min(workers, len(inputs["input_ids"])))
        value += sum(float(part) for part in parts)
    return value
