"""Training and validation data: a packed token array, or the samples of an objective.

Training samples are any object with

    batch(first, count)    samples first ... first + count - 1 as (inputs, targets), dicts of arrays
                           (count, ...), a function of the numbers alone: resuming needs no state
    length                 the tokens of a sample

such as those of objectives.batches.  Validation data is an object with loss(model, workers) and
batches, such as FixedBatches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import MOST, check_whole, wrong
from ..data.batches import Windows
from ..models.model import Model
from .settings import Settings
from .step import evaluate, evaluate_batches


def _check_settings(settings: Any) -> None:
    if not isinstance(settings, Settings):
        raise wrong("settings", "Settings", settings)


def check_tokens(name: str, value: Any) -> None:
    """ValueError unless it is an array of token ids with at least one to predict."""
    right = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu"
    if not right or len(value) < 2:
        raise wrong(name, "an array (N,) of integers, two or more", value)


def check_corpus(tokens: np.ndarray, settings: Settings) -> None:
    """ValueError if the training tokens do not suffice for one batch."""
    check_tokens("training tokens", tokens)
    windows = Windows(tokens, settings.sequence_length, settings.seed).windows_per_epoch
    if windows < settings.batch_size:
        raise ValueError(
            f"training tokens: expected at least one batch of {settings.batch_size} sequences of "
            f"{settings.sequence_length}, got {len(tokens)} tokens, enough for {windows}"
        )


class CausalSamples:
    """Windows of a packed token array, each token predicted from those before it."""

    def __init__(self, tokens: np.ndarray, settings: Settings) -> None:
        _check_settings(settings)
        self.length = settings.sequence_length
        self.windows = Windows(tokens, self.length, settings.seed)

    def batch(self, first: int, count: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        inputs, targets = self.windows.batch(first, count)
        return {"input_ids": inputs}, {"logits": targets}


class CausalValidation:
    """The loss over a token array, in adjacent windows."""

    def __init__(self, tokens: np.ndarray, settings: Settings) -> None:
        check_tokens("tokens", tokens)
        _check_settings(settings)
        self.tokens, self.length = tokens, settings.sequence_length

    def loss(self, model: Model, workers: int) -> float:
        total, count = evaluate(model, self.tokens, length=self.length, workers=workers)
        return total / count


class FixedBatches:
    """Validation on the first `count` samples of an objective, the same every time."""

    def __init__(self, samples: Any, count: int, batch_size: int = 16) -> None:
        if not hasattr(samples, "batch"):
            raise wrong("samples", "samples of an objective, or CausalSamples", samples)
        for name, value in (("count", count), ("batch_size", batch_size)):
            check_whole(name, value, 1, MOST)
        self.batches = [
            samples.batch(first, min(batch_size, count - first))
            for first in range(0, count, batch_size)
        ]

    def loss(self, model: Model, workers: int) -> float:
        return evaluate_batches(model, self.batches, workers=workers)
