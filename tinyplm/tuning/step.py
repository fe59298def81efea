"""One step of fine-tuning, and the outputs of a model for samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random
from ..backend import to_device, to_host
from ..core import Tree, flatten, map_shards, reduce_shards
from ..models import encoder
from ..models.encoder_model import EncoderModel
from ..models.tasks import loss_of
from ..optim.adamw import AdamW
from .data import IGNORED, Samples, evaluation_batches
from .settings import TuningSettings


def accumulate(model: EncoderModel, optimizer: AdamW, inputs: dict, targets: dict, *, settings: TuningSettings, frozen: int = 0,
               key: int | None = None) -> Any:  # fmt: skip
    """Add the gradient of a batch's loss to optimizer.gradient; returns the loss, 0-dimensional.

    Parameters that the optimiser has not are frozen: their gradients are dropped, and `frozen` layers at the bottom have none.
    The batch is cut into shards, one a thread; each one's loss is divided by the number of targets of the whole batch.
    key: an int for dropout; a sample's mask depends on the key and its number in the batch, not on how it is cut.
    """
    batch = {"inputs": inputs, "targets": targets}
    size = len(inputs["input_ids"])
    if key is not None:
        batch["key"] = random.sample_keys(key, np.arange(size))
    total = {name: max(count_targets(values), 1) for name, values in targets.items()}
    trained = set(optimizer.values.paths)

    def gradient(part: dict, give: Callable) -> Any:
        part = to_device(part, model.device)
        loss, back = model.loss_in_parts(give, targets=part["targets"], total=total, key=part.get("key"), frozen=frozen,
                                         checkpointing=settings.checkpointing, **part["inputs"])  # fmt: skip
        return loss, back(1.0)

    def add(path: str, gradient: Tree) -> None:
        for name, a in flatten(gradient, path).items():
            if name in trained:
                optimizer.gradient.add(a, name)

    loss = 0
    try:
        for part_loss, left in reduce_shards(gradient, batch, min(settings.workers, size), add):
            for tree in left:
                add("", tree)
            loss = part_loss + loss
    except BaseException:
        optimizer.gradient.clear()  # half a gradient must not go into the next step
        raise
    return loss


def count_targets(targets: np.ndarray) -> int:
    """How many targets count."""
    return int((targets != IGNORED).sum()) if targets.dtype.kind in "iu" else targets.size


def predict(model: EncoderModel, samples: Samples, *, batch_size: int = 32, workers: int = 1) -> dict[str, Any]:
    """The outputs of the model's head for all samples, on the host, without dropout: {"logits": (N, labels)}, or, where there is
    one for each token, lists of N arrays without padding.  `samples.predictions` and `samples.score` take them.
    """
    return evaluate(model, samples, batch_size=batch_size, workers=workers)[0]


def evaluate(
    model: EncoderModel, samples: Samples, *, batch_size: int = 32, workers: int = 1
) -> tuple[dict[str, Any], float | None]:
    """(outputs, loss); the loss is None for samples without labels."""
    if len(samples) == 0:
        raise ValueError("there are no samples")
    rows: list[dict[str, Any]] = [{} for _ in range(len(samples))]
    sums, counts = dict.fromkeys(samples.targets, 0.0), dict.fromkeys(samples.targets, 0)

    def forward(part: dict) -> tuple[dict, dict]:
        moved = to_device(part, model.device)
        outputs, _ = encoder.forward(model.family, model.params, config=model.config, task=model.task, grad=False,
                                     **moved["inputs"])  # fmt: skip
        losses = {name: loss_of(t, model.config)(outputs[name], targets=t, total=1)[0] for name, t in moved["targets"].items()}
        return to_host({name: a for name, a in outputs.items() if name != "hidden"}), to_host(losses)

    for numbers in evaluation_batches(samples.lengths, batch_size):
        inputs, targets = samples.batch(numbers)
        mask = inputs["attention_mask"] == 1
        parts = map_shards(forward, {"inputs": inputs, "targets": targets}, min(workers, len(numbers)))
        for name in parts[0][0]:
            values = np.concatenate([outputs[name] for outputs, _ in parts])
            for row, n in enumerate(numbers):
                rows[n][name] = values[row][mask[row]] if samples.PER_TOKEN else values[row]
        for name in sums:
            sums[name] += sum(float(losses[name]) for _, losses in parts)
            counts[name] += count_targets(targets[name])
    gather = list if samples.PER_TOKEN else np.stack
    outputs = {name: gather([row[name] for row in rows]) for name in rows[0]}
    means = [sums[name] / max(counts[name], 1) for name in sums]
    share = 0.5 if "start_logits" in outputs else 1.0  # as in models.encoder.loss
    return outputs, share * sum(means) if means else None
