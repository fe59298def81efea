"""The settings of fine-tuning runs: of an encoder by epochs, and of the recipes of alignment by steps."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..optim.schedule import learning_rate, warmup_linear


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
    auxiliary: float = 0.0  # weight of a language model's loss beside a decoder's task (Radford et al. 2018, eq. 5: 0.5)
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
        for name in ("weight_decay", "eps", "auxiliary"):
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


@dataclasses.dataclass(frozen=True)
class RecipeSettings:
    """What every recipe of alignment (sft, dpo, reward, ppo, grpo, distill) has to know; each adds its own in a subclass."""

    steps: int = 100  # updates, or rounds of rollouts and updates
    batch_size: int = 16  # what a step is made of: sequences, pairs, prompts
    micro_batch_size: int | None = None  # of these in memory at a time; None = all
    learning_rate: float = 1e-4  # the peak
    schedule: str = "cosine"  # one of optim.schedule.SCHEDULES
    warmup: int = 10  # updates
    floor: float = 0.0  # the learning rate at the end
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0  # global gradient norm
    dropout: bool = False  # at the rates of the model's config
    seed: int = 0
    workers: int = 1  # threads that share a batch, as far as it has samples
    checkpointing: int = 0  # see core.stack

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("workers", 1), ("seed", 0), ("checkpointing", 0), ("warmup", 0)):
            self.expect(name, f"an integer >= {least}", _whole(getattr(self, name), least))
        size = self.micro_batch_size
        fits = size is None or (_whole(size, 1) and size <= self.samples)
        self.expect("micro_batch_size", f"None or 1 to {self.samples}, the samples of a step", fits)
        for name in ("learning_rate", "clip"):
            self.expect(name, "a number > 0", _number(getattr(self, name)) and getattr(self, name) > 0)
        for name in ("weight_decay", "eps"):
            self.expect(name, "a number >= 0", _number(getattr(self, name)) and getattr(self, name) >= 0)
        for name in ("beta1", "beta2"):
            self.expect(name, "a number in [0, 1)", _number(getattr(self, name)) and 0 <= getattr(self, name) < 1)
        floor = self.floor
        self.expect("floor", "a number from 0 to the learning rate", _number(floor) and 0 <= floor <= self.learning_rate)
        self.rate(0)  # the schedule checks its own numbers

    @property
    def samples(self) -> int:
        """What a step is computed on, in parts of micro_batch_size."""
        return self.batch_size

    def expect(self, name: str, expected: str, holds: bool) -> None:
        """ValueError naming a setting, what it should be and what it is, unless it holds."""
        if not holds:
            raise ValueError(f"settings: {name} must be {expected}, got {getattr(self, name)!r}")

    def expect_whole(self, name: str, least: int, *, or_none: bool = False) -> None:
        """ValueError unless a setting is an integer of at least so much (or None)."""
        value = getattr(self, name)
        self.expect(name, f"{'None or ' * or_none}an integer >= {least}", (or_none and value is None) or _whole(value, least))

    def rate(self, step: int, total: int | None = None) -> float:
        """The learning rate of update number `step`, from 0, of `total` (by default `steps`)."""
        total = self.steps if total is None else total
        return learning_rate(self.schedule, step, peak=self.learning_rate, warmup=min(self.warmup, total - 1), total=total,
                             floor=self.floor, decay=max(1, total // 5))  # fmt: skip


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
