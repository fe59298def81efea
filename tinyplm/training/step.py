"""One training step, accumulated over micro-batches and shards, and validation losses."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import random
from ..backend import is_host, to_device
from ..core import IGNORED, StackOptions, flatten, map_shards, reduce_shards
from ..data.batches import evaluation_windows
from ..models.protocol import LossOptions, Trainable
from ..optim import Optimizer
from .expert_load import ExpertLoad, correct, micro_batches, parts_of, router_weights
from .settings import Settings

Arrays = np.ndarray | dict[str, np.ndarray]  # bare arrays are input_ids and logits


def accumulate(
    model: Trainable,
    optimizer: Optimizer,
    inputs: Arrays,
    targets: Arrays,
    *,
    settings: Any,
    key: int | None = None,
    frozen: int = 0,
    load: ExpertLoad | None = None,
) -> Any:
    """Add the gradient of the whole batch's loss to optimizer.gradient; returns the loss.

    inputs: {"input_ids" (B, T), ...} and targets: {output: (B, T) or (B,)}, on the host; bare
    arrays are input_ids and logits.  The loss is 0-dimensional and not read back from the device.
    Each part's loss is divided by the number of targets of the whole batch, so k micro-batches or n
    shards add up to exactly the loss and gradient of one batch.  Parts are added in order.
    settings: uses its micro_size, workers, smoothing, checkpointing and, if present, auxiliary and,
    of a model with experts, balance, z_loss and multi_token.
    key: an integer for dropout; a sample's mask depends on the key and on its number in the batch,
    not on how the batch is split.
    frozen: the number of layers at the bottom without a gradient.  Gradients of parameters that the
    optimizer does not have are dropped.
    load: gets the expert counts and the routers' losses of a model with experts.
    """
    inputs, targets = named(inputs, targets)
    batch = {"inputs": inputs, "targets": targets}
    samples = len(inputs["input_ids"])
    if key is not None:
        inputs["key"] = random.sample_keys(key, np.arange(samples))
    total = {name: max(count, 1) for name, count in target_counts(targets).items()}
    micro_size, workers = min(samples, settings.micro_size), settings.workers
    parts = samples * min(workers, micro_size)
    rows = -(-model.head_rows(targets) * micro_size // parts)  # in a shard, on average
    options = LossOptions(
        smoothing=settings.smoothing,
        auxiliary=getattr(settings, "auxiliary", 0),
        factors=rows < model.width,  # in the same way in all shards
        **router_weights(model, settings),
    )
    stacking = StackOptions(checkpointing=settings.checkpointing, frozen=frozen)
    trained = optimizer.values.leaves
    joined = parts_of(model, batch, options, micro_size, workers)

    def gradient(part: dict, emit: Callable) -> tuple[Any, list]:
        part = to_device(part, model.device)
        common: dict[str, Any] = {"targets": part["targets"], "total": total, "stacking": stacking}
        with nullcontext() if joined is None else joined.part() as own:
            common["options"] = dataclasses.replace(options, load=own)
            loss, back = model.loss_in_parts(emit, part["inputs"], **common)
            remaining = back(1.0)
        return (loss, {} if own is None else own.losses), remaining

    def add_part(path: str, tree: Any, workers: int = 1) -> None:
        for name, a in flatten(tree, path).items():
            if name in trained:
                optimizer.gradient.add(a, name, workers=workers)

    loss, load = 0, ExpertLoad() if load is None else load
    values = add_gradients(gradient, batch, optimizer, add_part, micro_size, workers)
    for part_loss, router_losses in values:
        loss = part_loss + loss
        load.add(router_losses)
    load.counts = None if joined is None else joined.counts
    return loss


def add_gradients(
    gradient: Callable[[dict, Callable], tuple[Any, list]],
    batch: dict[str, dict],
    optimizer: Optimizer,
    add_part: Callable,
    micro_size: int,
    workers: int,
    root: str = "",
) -> list[Any]:
    """The values of gradient(part, emit) for all shards of all micro-batches, in order.

    add_part(path, tree) adds each part that is emitted, and the remaining ones, which belong at
    `root`, to the optimiser's gradient.  After an error that gradient is cleared.
    """
    values = []
    try:
        for micro, count in micro_batches(batch, micro_size, workers):
            for value, remaining in reduce_shards(gradient, micro, count, add_part):
                for tree in remaining:
                    add_part(root, tree, workers)
                values.append(value)
    except BaseException:
        optimizer.gradient.clear()  # half a gradient must not go into the next step
        raise
    return values


def named(inputs: Arrays, targets: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Dicts of inputs and of targets, copied; bare arrays are input_ids and logits."""
    return (
        dict(inputs) if isinstance(inputs, dict) else {"input_ids": inputs},
        dict(targets) if isinstance(targets, dict) else {"logits": targets},
    )


def target_counts(targets: dict[str, np.ndarray]) -> dict[str, int]:
    """The number of targets of each output that count: class numbers other than IGNORED, real
    numbers other than NaN."""
    return {
        name: int((t != IGNORED if t.dtype.kind in "iu" else t == t).sum())
        for name, t in targets.items()
    }


class NonFiniteError(FloatingPointError):
    """The loss or the gradient is not a finite number."""


def update(
    model: Trainable,
    optimizer: Optimizer,
    inputs: Arrays,
    targets: Arrays,
    *,
    settings: Settings,
    step: int,
    key: int | None = None,
    load: ExpertLoad | None = None,
    cycle: int = 0,
) -> tuple[Any, Any]:
    """One whole step: gradient, clipping, the optimiser's update, that of the routers' biases.

    load: as for accumulate.  cycle: where that of the learning rate began, see Settings.
    Returns (loss, gradient norm before clipping), both 0-dimensional.
    On the host a non-finite loss or gradient raises NonFiniteError before any parameter changes.
    On a GPU nothing is read back here: the reader of the loss checks it (training.loop, before
    anything is saved).
    """
    load = ExpertLoad() if load is None else load
    loss = accumulate(model, optimizer, inputs, targets, settings=settings, key=key, load=load)
    norm = optimizer.gradient_norm(workers=settings.workers)
    if is_host(norm):
        check_finite(step, {"loss": float(loss), "gradient norm": float(norm)})
    rate = settings.rate(step, cycle)
    optimizer.step(rate, clip=settings.clip, norm=norm, workers=settings.workers)
    correct(model, load.counts, rate=settings.bias_rate)
    return loss, norm


def check_finite(step: int, values: Mapping[str, float]) -> None:
    """NonFiniteError naming the step, counted from 1, and the first value that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            what = f"step {step + 1}: {name.replace('_', ' ')}"
            advice = "try a smaller learning rate or a longer warm-up"
            raise NonFiniteError(f"{what}: expected a finite number, got {value}; {advice}")


def evaluate(
    model: Trainable,
    tokens: np.ndarray,
    *,
    length: int,
    stride: int | None = None,
    batch: int = 16,
    workers: int = 1,
) -> tuple[float, int]:
    """(sum of -log p in nats, number of tokens), each token but the first predicted once.

    The contexts are windows of at most `length` tokens, one every `stride` (see
    data.batches.evaluation_windows).
    """

    def nll(part: dict) -> Any:
        part = to_device(part, model.device)
        targets, ids = {"logits": part["targets"]}, part["input_ids"]
        return model.loss(targets=targets, total={"logits": 1}, grad=False, input_ids=ids)[0]

    total, count = 0.0, 0
    for inputs, targets in evaluation_windows(tokens, length, batch, stride):
        count += int((targets != IGNORED).sum())
        parts = {"input_ids": inputs, "targets": targets}
        total += sum(float(part) for part in map_shards(nll, parts, min(workers, len(inputs))))
    return total, count


def evaluate_batches(
    model: Trainable, batches: Sequence[tuple[dict, dict]], *, workers: int = 1
) -> float:
    """The loss of these batches of (inputs, targets), as if they were one."""
    total: Counter = Counter()
    for _, targets in batches:
        total.update(target_counts(targets))

    def loss(part: dict) -> Any:
        part = to_device(part, model.device)
        return model.loss(targets=part["targets"], total=total, grad=False, **part["inputs"])[0]

    value = 0.0
    for inputs, targets in batches:
        batch = {"inputs": inputs, "targets": targets}
        parts = map_shards(loss, batch, min(workers, len(inputs["input_ids"])))
        value += sum(float(part) for part in parts)
    return value
