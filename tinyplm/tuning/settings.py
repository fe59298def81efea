"""The settings of a fine-tuning run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..optim.schedule import warmup_linear


@dataclasses.dataclass(frozen=True)
class TuningSettings:
    """What a run does.  The defaults are of the kind that Devlin et al. 2019, app. A.3, recommend."""

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5  # the peak, of the head
    warmup: float = 0.1  # share of all updates; then a straight line to 0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    clip: float = 1.0  # global gradient norm
    smoothing: float = 0.0  # label smoothing
    layer_decay: float = 1.0  # each layer's rate is that of the one above times this, see optim.layerwise
    trained_layers: int | None = None  # the uppermost ones; 0: the head alone; None: everything
    dropout: bool = True  # at the rates of the model's config
    metric: str | None = (
        None  # what is best on the validation samples is kept: "loss", or one of samples.measures; None: the first
    )
    patience: int | None = None  # stop after so many epochs in a row without a better one; None: never
    seed: int = 0
    workers: int = 1  # threads that share a batch, as far as it has samples
    checkpointing: int = 0  # see core.stack

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("workers", 1), ("seed", 0), ("checkpointing", 0)):
            self._expect(name, f"an integer >= {least}", _whole(getattr(self, name), least))
        for name in ("patience", "trained_layers"):
            value, least = getattr(self, name), int(name == "patience")
            self._expect(name, f"None or an integer >= {least}", value is None or _whole(value, least))
        for name in ("learning_rate", "clip"):
            self._expect(name, "a number > 0", _number(getattr(self, name)) and getattr(self, name) > 0)
        for name in ("weight_decay", "eps"):
            self._expect(name, "a number >= 0", _number(getattr(self, name)) and getattr(self, name) >= 0)
        for name in ("warmup", "beta1", "beta2", "smoothing"):
            self._expect(name, "a number in [0, 1)", _number(getattr(self, name)) and 0 <= getattr(self, name) < 1)
        self._expect("layer_decay", "a number in (0, 1]", _number(self.layer_decay) and 0 < self.layer_decay <= 1)

    def _expect(self, name: str, expected: str, holds: bool) -> None:
        if not holds:
            raise ValueError(f"settings: {name} must be {expected}, got {getattr(self, name)!r}")

    @property
    def micro_size(self) -> int:
        """Samples in memory at a time: all of a batch."""
        return self.batch_size

    def rate(self, step: int, total: int) -> float:
        """The learning rate of update number `step`, from 0, of `total`."""
        return warmup_linear(step, peak=self.learning_rate, warmup=int(self.warmup * total), total=total)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
