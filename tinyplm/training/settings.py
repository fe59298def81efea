"""The settings of a training run."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ..arguments import check_key, check_number, check_whole, plain_numbers
from ..optim.schedule import learning_rate


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run does; everything that changes its numbers stands here and is compared on resume."""

    steps: int = 1000
    batch_size: int = 8  # sequences a step
    sequence_length: int = 128
    micro_batch_size: int | None = None  # sequences in memory at a time; None = the whole batch
    learning_rate: float = 1e-3  # the peak
    schedule: str = "cosine"  # one of optim.schedule.SCHEDULES
    warmup: int = 50  # updates
    decay: int = 0  # updates of the final decay of "stable-decay"; 0 = a fifth of steps
    floor: float = 0.0  # the learning rate at the end
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float = 1.0  # global gradient norm
    smoothing: float = 0.0  # label smoothing
    seed: int = 0

    # these may differ on resume
    checkpointing: int = 0  # layers whose activations are computed again together, see core.stack; 0 = none
    workers: int = 1  # threads that share a batch, as far as it has sequences
    evaluate_every: int = 100
    save_every: int = 200
    log_every: int = 1  # how often the loss is read back (a GPU waits for it)
    keep: int = 2  # periodic checkpoints kept, beside the best
    save_minutes: float | None = None  # save also when this much time has gone by since the last save
    full_every: int = 1  # every how many saves one is full, see training.incremental; the best and a finished run's last are
    patience: int | None = None  # stop after so many evaluations in a row without an improvement; None = never
    min_improvement: float = 0.0  # of the validation loss, nats a token, to count as one

    FREE: ClassVar[tuple[str, ...]] = ("checkpointing", "workers", "evaluate_every", "save_every", "log_every", "keep",
                                       "save_minutes", "full_every", "patience", "min_improvement")  # fmt: skip

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("steps", "batch_size", "sequence_length", "workers", "evaluate_every", "save_every", "log_every", "keep",
                     "full_every"):  # fmt: skip
            check_whole(name, getattr(self, name), 1)
        check_whole("decay", self.decay)
        check_whole("checkpointing", self.checkpointing)
        check_key("seed", self.seed)
        check_whole("micro_batch_size", self.micro_batch_size, 1, self.batch_size, or_none=True)
        check_whole("patience", self.patience, 1, or_none=True)
        check_number("save_minutes", self.save_minutes, least=0, or_none=True)
        for name in ("learning_rate", "clip"):
            check_number(name, getattr(self, name), above=0)
        for name in ("weight_decay", "eps", "min_improvement"):
            check_number(name, getattr(self, name), least=0)
        for name in ("beta1", "beta2", "smoothing"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("floor", self.floor, least=0, most=self.learning_rate)
        self.rate(0)  # the schedule checks its name and the warm-up

    @property
    def micro_size(self) -> int:
        return self.micro_batch_size or self.batch_size

    def rate(self, step: int) -> float:
        """The learning rate of update number `step`, from 0."""
        return learning_rate(self.schedule, step, peak=self.learning_rate, warmup=self.warmup, total=self.steps,
                             floor=self.floor, decay=self.decay or max(1, self.steps // 5))  # fmt: skip
