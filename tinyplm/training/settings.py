"""The settings of a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from ..arguments import (
    check_choice,
    check_key,
    check_number,
    check_whole,
    mismatch,
    plain_numbers,
)
from ..core import Tree
from ..optim import Adafactor, AdamW, Optimizer
from ..optim.schedule import learning_rate

OPTIMIZERS = ("adamw", "adafactor")
EXTEND = ("stretch", "restart")


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
    """The hyperparameters of a run.  Those that change its numbers must be the same on resume, with
    one exception.  What may change, and why:

    checkpointing, workers               how a step is computed: other workers change its last bits
    evaluate_every, save_every, save_minutes, log_every, keep, full_every
                                         what is looked at and written
    patience, min_improvement            when to stop
    steps, to a larger number            to train on: the rates so far must not have depended on
                                         their number, or the caller says how they continue

    The rate of update s of a run of T steps, eta(s; T, w) with w = warmup, is the same for a longer
    run with the schedules constant, inverse-sqrt and constant-inverse-sqrt, and with stable-decay
    up to the decay: steps may grow, and the run is the one that had been longer from the start.
    Otherwise train takes `extend`, and from the step c that the checkpoint has

        "stretch"   eta(s; T', w)                           the longer schedule from here on
        "restart"   eta(s - c; T' - c, min(w, T' - c - 1))  another warm-up and cycle, as the warm
                                                            restarts of Loshchilov & Hutter 2017

    where T' is the new number of steps; a decay is a fifth of T' or of T' - c, unless `decay` says
    otherwise.  Checkpoints store T' and c, so an extended run resumes like any other.  It may be
    extended again: if it is stretched then, c stays.
    """

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

    def rate(self, step: int, cycle: int = 0) -> float:
        """The learning rate of update `step`, counted from 0.

        cycle: the step at which a restarted cycle began, see above.
        """
        total, warmup, decay = self._cycle(self.steps - cycle, restarted=cycle > 0)
        peak, floor, done = self.learning_rate, self.floor, step - cycle
        return learning_rate(
            self.schedule, done, peak=peak, warmup=warmup, total=total, floor=floor, decay=decay
        )

    def _cycle(self, total: int, *, restarted: bool) -> tuple[int, int, int]:
        """(updates, those of the warm-up, those of the final decay) of a cycle."""
        warmup, decay = self.warmup, self.decay or max(1, total // 5)
        if restarted:  # the rest of a run may be short
            warmup = min(warmup, total - 1)
            decay = min(decay, total - warmup)
        return total, warmup, decay

    def extended(self, before: int, step: int, cycle: int, extend: str | None) -> int:
        """Where the cycle of the learning rate begins after the steps have grown from `before`, at
        `step` in a cycle that began at `cycle`; ValueError unless they have, or if extend is needed
        to say how the rate continues.
        """
        if self.steps < before:
            raise mismatch("settings.steps", f"at least {before}, as in the run", self.steps)
        if extend == "restart":
            return step
        total, _, decay = self._cycle(before - cycle, restarted=cycle > 0)
        steady = self.schedule in ("constant", "inverse-sqrt", "constant-inverse-sqrt")
        if self.schedule == "stable-decay":
            steady = step - cycle <= total - decay
        if extend is None and not steady:
            choice = '"stretch" (the rate of the longer schedule from here)'
            choice += ' or "restart" (another warm-up and cycle for the remaining steps)'
            why = f"since {self.schedule} depends on the number of steps"
            given = f"None for {self.steps} steps instead of {before}"
            raise mismatch("extend", f"{choice}, {why}", given)
        return cycle


def optimizer_of(params: Tree, settings: Any, rates: Callable | None = None) -> Optimizer:
    """The optimiser of `settings`, AdamW unless they name another."""
    decay = settings.weight_decay
    if getattr(settings, "optimizer", "adamw") == "adafactor":
        return Adafactor(params, weight_decay=decay, rates=rates)
    betas = (settings.beta1, settings.beta2)
    return AdamW(params, betas=betas, eps=settings.eps, weight_decay=decay, rates=rates)
