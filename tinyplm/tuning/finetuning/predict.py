"""A model's outputs and loss on samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...arguments import check_whole, known_arguments
from ...backend import to_device, to_host
from ...core import map_shards
from ...models.model import Model, check_model
from ...models.tasks import loss_of
from ...training.step import target_counts
from .samples import Samples, check_samples, evaluation_batches


@known_arguments
def predict(
    model: Model, samples: Samples, *, batch_size: int = 32, workers: int = 1
) -> dict[str, Any]:
    """The outputs of the model's head for all samples, on the host, without dropout.

    {"logits": (N, labels)}, or, for outputs per token, lists of N arrays without padding.
    `samples.predictions` and `samples.score` take them.
    """
    return outputs_and_loss(model, samples, batch_size=batch_size, workers=workers)[0]


def outputs_and_loss(
    model: Model, samples: Samples, *, batch_size: int = 32, workers: int = 1
) -> tuple[dict[str, Any], float | None]:
    """(outputs as from `predict`, loss); the loss is None for samples without labels."""
    check_model("model", model)
    check_samples("samples", samples)
    model = samples.model_for(model)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        check_whole(name, value, 1)
    if len(samples) == 0:
        raise ValueError("samples: expected at least 1, got 0")
    rows: list[dict[str, Any]] = [{} for _ in range(len(samples))]
    sums, counts = dict.fromkeys(samples.targets, 0.0), dict.fromkeys(samples.targets, 0)

    def forward(part: dict) -> tuple[dict, dict]:
        moved = to_device(part, model.device)
        outputs = model.outputs(model.checked(moved["inputs"]))
        losses = {
            name: loss_of(t, model.config)(outputs[name], targets=t, total=1)[0]
            for name, t in moved["targets"].items()
        }
        outputs = {n: a for n, a in outputs.items() if n not in ("hidden", "encoder_hidden")}
        return to_host(outputs), to_host(losses)

    for numbers in evaluation_batches(samples.lengths, batch_size):
        inputs, targets = samples.batch(numbers)
        mask = inputs["attention_mask"] == 1
        batch = {"inputs": inputs, "targets": targets}
        parts = map_shards(forward, batch, min(workers, len(numbers)))
        for name in parts[0][0]:
            values = np.concatenate([outputs[name] for outputs, _ in parts])
            for row, n in enumerate(numbers):
                rows[n][name] = values[row][mask[row]] if samples.PER_TOKEN else values[row]
        for name in sums:
            sums[name] += sum(float(losses[name]) for _, losses in parts)
            counts[name] += target_counts(targets)[name]
    gather = list if samples.PER_TOKEN else np.stack
    outputs = {name: gather([row[name] for row in rows]) for name in rows[0]}
    means = [sums[name] / max(counts[name], 1) for name in sums]
    # the mean of both, as in models.encoder_heads.output_losses
    share = 0.5 if "start_logits" in outputs else 1.0
    return outputs, share * sum(means) if means else None
