"""The settings of fine-tuning runs: of an encoder by epochs, and of the recipes of alignment by steps."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..arguments import check_flag, check_key, check_number, check_text, check_whole, plain_numbers, wrong
from ..optim.schedule import learning_rate, warmup_linear


class _Settings:
    """What both kinds of settings can do."""

    @classmethod
    def given(cls, settings: Any) -> Any:
        """The settings, by default those of cls(); ValueError for another recipe's."""
        if settings is not None and not isinstance(settings, cls):
            raise wrong("settings", cls.__name__, settings)
        return cls() if settings is None else settings


@dataclasses.dataclass(frozen=True)
class TuningSettings(_Settings):
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
        plain_numbers(self)
        for name in ("epochs", "batch_size", "workers"):
            check_whole(name, getattr(self, name), 1)
        check_key("seed", self.seed)
        check_whole("checkpointing", self.checkpointing)
        check_whole("patience", self.patience, 1, or_none=True)
        check_whole("trained_layers", self.trained_layers, or_none=True)
        for name in ("learning_rate", "clip"):
            check_number(name, getattr(self, name), above=0)
        for name in ("weight_decay", "eps", "auxiliary"):
            check_number(name, getattr(self, name), least=0)
        for name in ("warmup", "beta1", "beta2", "smoothing"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("layer_decay", self.layer_decay, above=0, most=1)
        check_flag("dropout", self.dropout)
        check_text("metric", self.metric, or_none=True)

    @property
    def micro_size(self) -> int:
        """Samples in memory at a time: all of a batch."""
        return self.batch_size

    def rate(self, step: int, total: int) -> float:
        """The learning rate of update number `step`, from 0, of `total`."""
        return warmup_linear(step, peak=self.learning_rate, warmup=int(self.warmup * total), total=total)


@dataclasses.dataclass(frozen=True)
class RecipeSettings(_Settings):
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
        plain_numbers(self)
        for name in ("steps", "batch_size", "workers"):
            check_whole(name, getattr(self, name), 1)
        for name in ("warmup", "checkpointing"):
            check_whole(name, getattr(self, name))
        check_key("seed", self.seed)
        check_whole("micro_batch_size", self.micro_batch_size, 1, self.samples, or_none=True)
        for name in ("learning_rate", "clip"):
            check_number(name, getattr(self, name), above=0)
        for name in ("weight_decay", "eps"):
            check_number(name, getattr(self, name), least=0)
        for name in ("beta1", "beta2"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("floor", self.floor, least=0, most=self.learning_rate)
        check_flag("dropout", self.dropout)
        self.rate(0)  # the schedule checks its own name

    @property
    def samples(self) -> int:
        """What a step is computed on, in parts of micro_batch_size."""
        return self.batch_size

    def rate(self, step: int, total: int | None = None) -> float:
        """The learning rate of update number `step`, from 0, of `total` (by default `steps`)."""
        total = self.steps if total is None else total
        warmup = min(self.warmup, total - 1)
        return learning_rate(self.schedule, step, peak=self.learning_rate, warmup=warmup, total=total, floor=self.floor,
                             decay=max(1, min(total // 5, total - warmup)))  # fmt: skip
