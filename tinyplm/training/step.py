"""One training step: gradient accumulation over micro-batches and batch shards, and the loss of a token array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random
from ..backend import is_host, to_device
from ..core import map_shards, reduce_shards
from ..data.batches import IGNORED, evaluation_windows
from ..models import causal_lm
from ..models.model import Model
from ..optim.adamw import AdamW
from .settings import Settings


def accumulate(model: Model, optimizer: AdamW, inputs: np.ndarray, targets: np.ndarray, *, settings: Settings,
               key: int | None = None) -> Any:  # fmt: skip
    """Add the gradient of the whole batch's loss to optimizer.gradient; returns the loss, 0-dimensional, not read back.

    inputs and targets (B, T) on the host.  Every part's loss is divided by the number of targets of the whole batch, so
    k micro-batches, or n shards, add up to exactly the loss and gradient of one batch.  Parts are added in order.
    key: an int for dropout; a sample's mask depends on the key and its number in the batch, not on how it is cut.
    """
    batch = {"input_ids": inputs, "targets": targets}
    if key is not None:
        batch["key"] = random.sample_keys(key, np.arange(len(inputs)))
    total = max(int((targets != IGNORED).sum()), 1)

    shard = -(-min(len(inputs), settings.micro_size) // settings.workers) * inputs.shape[1]  # tokens in the largest one
    factors = shard < model.params["body"]["tokens"].shape[1]  # of the head's gradient, the same way in all shards

    def gradient(part: dict, give: Callable) -> Any:
        part = to_device(part, model.device)
        options = {"smoothing": settings.smoothing, "checkpointing": settings.checkpointing, "factors": factors, **part}
        loss, back = causal_lm.loss_in_parts(model.family, model.params, give, config=model.config, total=total, **options)
        return loss, back(1.0)

    def add(path: str, gradient: Any) -> None:
        optimizer.gradient.add(gradient, path)

    loss = 0
    try:
        for start in range(0, len(inputs), settings.micro_size):
            part = slice(start, start + settings.micro_size)
            micro = {name: a[part] for name, a in batch.items()}
            for part_loss, left in reduce_shards(gradient, micro, min(settings.workers, len(micro["targets"])), add):
                for tree in left:
                    optimizer.gradient.add(tree, workers=settings.workers)
                loss = part_loss + loss
    except BaseException:
        optimizer.gradient.clear()  # half a gradient must not go into the next step
        raise
    return loss


class NonFiniteError(FloatingPointError):
    """The loss or the gradient is not a finite number."""


def update(model: Model, optimizer: AdamW, inputs: np.ndarray, targets: np.ndarray, *, settings: Settings, step: int,
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
        return causal_lm.loss(model.family, model.params, config=model.config, total=1, grad=False, **part)[0]

    total, count = 0.0, 0
    for inputs, targets in evaluation_windows(tokens, length, batch, stride):
        count += int((targets != IGNORED).sum())
        parts = {"input_ids": inputs, "targets": targets}
        total += sum(float(part) for part in map_shards(nll, parts, min(workers, len(inputs))))
    return total, count
