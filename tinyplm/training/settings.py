"""The settings of a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from ..arguments import check_choice, check_key, check_number, check_whole, plain_numbers
from ..core import Tree
from ..optim import Adafactor, AdamW, Optimizer
from ..optim.schedule import learning_rate

OPTIMIZERS = ("adamw", "adafactor")


def check_common(settings: Any) -> None:
    """Check the settings that training and tuning share, and make their numbers Python's."""
    plain_numbers(settings)
    for name in ("batch_size", "workers"):
        check_whole(name, getattr(settings, name), 1)
    check_whole("checkpointing", settings.checkpointing)
    check_key("seed", settings.seed)
    for name in ("learning_rate", "clip"):
        check_number(name, getattr(settings, name), above=0)
    for name in ("weight_decay", "eps"):
        check_number(name, getattr(settings, name), least=0)
    for name in ("beta1", "beta2"):
        check_number(name, getattr(settings, name), least=0, below=1)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The hyperparameters of a run.  Those that change its numbers must be the same on resume."""

    steps: int = 1000
    batch_size: int = 8  # sequences per step
    sequence_length: int = 128
    micro_batch_size: int | None = None  # sequences in memory at a time; None = the whole batch
    optimizer: str = "adamw"  # or "adafactor", which ignores beta1, beta2 and eps
    learning_rate: float = 1e-3  # the peak; for Adafactor, relative to the size of a parameter
    schedule: str = "cosine"  # one of optim.schedule.SCHEDULES
    warmup: int = 50  # updates
    decay: int = 0  # updates in the final decay of "stable-decay"; 0 = a fifth of steps
    floor: float = 0.0  # the final learning rate
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0  # global gradient norm
    smoothing: float = 0.0  # label smoothing
    balance: float | None = None  # weight of the experts' balance loss; None = the config's own
    z_loss: float = 0.0  # weight of the routers' z-loss
    multi_token: float = 0.3  # weight of the loss of modules for later tokens, if a model has them
    bias_rate: float = 1e-3  # of the routers' biases, where a model has them (DeepSeek-V3)
    seed: int = 0

    # may differ on resume
    checkpointing: int = 0  # layers recomputed together, see core.stack; 0 = none
    workers: int = 1  # threads that share a batch
    evaluate_every: int = 100
    save_every: int = 200
    log_every: int = 1  # steps between reading the loss back, which stalls a GPU
    keep: int = 2  # periodic checkpoints kept, besides the best
    save_minutes: float | None = None  # also save when this long has passed since the last save
    full_every: int = 1  # every N-th save is full (see incremental); so are the best and the last
    patience: int | None = None  # evaluations without improvement before stopping; None = never
    min_improvement: float = 0.0  # of the validation loss, nats per token

    FREE: ClassVar[tuple[str, ...]] = (
        *("checkpointing", "workers", "evaluate_every", "save_every", "log_every", "keep"),
        *("save_minutes", "full_every", "patience", "min_improvement"),
    )

    def __post_init__(self) -> None:
        check_common(self)
        counts = ("steps", "sequence_length", "evaluate_every", "save_every", "log_every", "keep")
        for name in (*counts, "full_every"):
            check_whole(name, getattr(self, name), 1)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_whole("decay", self.decay)
        check_whole("micro_batch_size", self.micro_batch_size, 1, self.batch_size, or_none=True)
        check_whole("patience", self.patience, 1, or_none=True)
        check_number("save_minutes", self.save_minutes, least=0, or_none=True)
        check_number("min_improvement", self.min_improvement, least=0)
        check_number("smoothing", self.smoothing, least=0, below=1)
        check_number("balance", self.balance, least=0, or_none=True)
        for name in ("z_loss", "multi_token", "bias_rate"):
            check_number(name, getattr(self, name), least=0)
        check_number("floor", self.floor, least=0, most=self.learning_rate)
        self.rate(0)  # the schedule checks its name and the warm-up

    @property
    def micro_size(self) -> int:
        return self.micro_batch_size or self.batch_size

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0."""
        warmup, decay = self.warmup, self.decay or max(1, self.steps // 5)
        peak, total, floor = self.learning_rate, self.steps, self.floor
        return learning_rate(
            self.schedule, step, peak=peak, warmup=warmup, total=total, floor=floor, decay=decay
        )


def optimizer_of(params: Tree, settings: Any, rates: Callable | None = None) -> Optimizer:
    """The optimiser of `settings`, AdamW unless they name another."""
    decay = settings.weight_decay
    if getattr(settings, "optimizer", "adamw") == "adafactor":
        return Adafactor(params, weight_decay=decay, rates=rates)
    betas = (settings.beta1, settings.beta2)
    return AdamW(params, betas=betas, eps=settings.eps, weight_decay=decay, rates=rates)
