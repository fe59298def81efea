"""The settings of tuning: fine-tuning on labels counts epochs, the other recipes count steps."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, TypeVar

from ..arguments import check_flag, check_number, check_text, check_whole, wrong
from ..optim.schedule import learning_rate, warmup_linear
from ..training.settings import check_common

S = TypeVar("S", bound="_Settings")


class _Settings:
    """What both kinds of settings share.

    save_every    updates (or rounds) between checkpoints
    save_minutes  also save when this long has passed since the last save
    keep          periodic checkpoints kept, besides the best
    FREE          what may differ when a run is resumed: what is saved or evaluated and when to stop
                  change none of its numbers, other workers or checkpointing only the last bits
    """

    save_every: int | None
    save_minutes: float | None
    keep: int

    FREE: ClassVar[tuple[str, ...]] = (
        *("workers", "checkpointing", "save_every", "save_minutes", "keep", "patience"),
    )

    def _check_saving(self) -> None:
        check_whole("save_every", self.save_every, 1, or_none=True)
        check_number("save_minutes", self.save_minutes, least=0, or_none=True)
        check_whole("keep", self.keep, 1)

    @classmethod
    def given(cls: type[S], settings: Any) -> S:
        """The settings, by default cls(); ValueError for those of another recipe."""
        if settings is not None and not isinstance(settings, cls):
            raise wrong("settings", cls.__name__, settings)
        return cls() if settings is None else settings


@dataclasses.dataclass(frozen=True)
class TuningSettings(_Settings):
    """The settings of `finetune`.  Defaults as recommended by Devlin et al. 2019, app. A.3."""

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5  # the peak, of the head
    warmup: float = 0.1  # share of all updates; then linear decay to 0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    clip: float = 1.0  # global gradient norm
    smoothing: float = 0.0  # label smoothing
    auxiliary: float = 0.0  # weight of a decoder's LM loss (Radford et al. 2018, eq. 5: 0.5)
    layer_decay: float = 1.0  # learning rate of a layer / of the one above, see optim.layerwise
    trained_layers: int | None = None  # the top ones; 0: only the head; None: all parameters
    dropout: bool = True  # at the rates in the model's config
    # selects the best epoch: "loss" or one of samples.measures; None: the first of those
    metric: str | None = None
    patience: int | None = None  # epochs without improvement before stopping; None: never stop
    seed: int = 0
    workers: int = 1  # threads that share a batch
    checkpointing: int = 0  # see core.stack
    save_every: int | None = None  # also save within an epoch; None: only after each
    save_minutes: float | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        check_common(self)
        self._check_saving()
        check_whole("epochs", self.epochs, 1)
        check_whole("patience", self.patience, 1, or_none=True)
        check_whole("trained_layers", self.trained_layers, or_none=True)
        check_number("auxiliary", self.auxiliary, least=0)
        for name in ("warmup", "smoothing"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("layer_decay", self.layer_decay, above=0, most=1)
        check_flag("dropout", self.dropout)
        check_text("metric", self.metric, or_none=True)

    @property
    def micro_size(self) -> int:
        """Samples in memory at a time: the whole batch."""
        return self.batch_size

    def rate(self, step: int, total: int) -> float:
        """The learning rate of update `step` of `total`, counted from 0."""
        warmup = int(self.warmup * total)
        return warmup_linear(step, peak=self.learning_rate, warmup=warmup, total=total)


@dataclasses.dataclass(frozen=True)
class RecipeSettings(_Settings):
    """The settings common to the recipes of alignment; each recipe's own are a subclass."""

    steps: int = 100  # updates, or rounds of rollouts and updates
    batch_size: int = 16  # sequences, pairs or prompts per step
    micro_batch_size: int | None = None  # of these in memory at a time; None = all
    learning_rate: float = 1e-4  # the peak
    schedule: str = "cosine"  # one of optim.schedule.SCHEDULES
    warmup: int = 10  # updates
    floor: float = 0.0  # the final learning rate
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0  # global gradient norm
    dropout: bool = False  # at the rates in the model's config
    seed: int = 0
    workers: int = 1  # threads that share a batch
    checkpointing: int = 0  # see core.stack
    save_every: int | None = None  # None: a fifth of the steps
    save_minutes: float | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        check_common(self)
        self._check_saving()
        check_whole("steps", self.steps, 1)
        check_whole("warmup", self.warmup)
        check_whole("micro_batch_size", self.micro_batch_size, 1, self.samples, or_none=True)
        check_number("floor", self.floor, least=0, most=self.learning_rate)
        check_flag("dropout", self.dropout)
        self.rate(0)  # checks the schedule's name

    @property
    def samples(self) -> int:
        """Samples per step, which micro_batch_size divides into parts."""
        return self.batch_size

    def rate(self, step: int, total: int | None = None) -> float:
        """The learning rate of update `step` of `total` (by default `steps`), counted from 0."""
        total = self.steps if total is None else total
        warmup = min(self.warmup, total - 1)
        decay = max(1, min(total // 5, total - warmup))
        peak, floor = self.learning_rate, self.floor
        return learning_rate(
            self.schedule, step, peak=peak, warmup=warmup, total=total, floor=floor, decay=decay
        )


@dataclasses.dataclass(frozen=True)
class EvaluatedSettings(RecipeSettings):
    """evaluate_every   steps between evaluations on the validation samples, which also precede the
                     first step and follow the last; None: only these
    patience         evaluations without improvement of the validation loss before stopping; None:
                     never stop
    min_improvement  what counts as one
    """

    evaluate_every: int | None = None
    patience: int | None = None
    min_improvement: float = 0.0

    FREE: ClassVar[tuple[str, ...]] = (*_Settings.FREE, "evaluate_every", "min_improvement")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("evaluate_every", self.evaluate_every, 1, or_none=True)
        check_whole("patience", self.patience, 1, or_none=True)
        check_number("min_improvement", self.min_improvement, least=0)
