"""The training loop: batches in, checkpoints and a log out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from .. import random
from ..backend import array_module, is_host, keep_freed_memory
from ..data.batches import Windows
from ..models.model import Model
from ..optim.adamw import AdamW
from . import checkpoint
from .checkpoint import State
from .log import Log, Progress
from .settings import Settings
from .step import NonFiniteError, check_finite, evaluate, update


def train(model: Model, train_tokens: np.ndarray, validation_tokens: np.ndarray, settings: Settings, *, out: str | Path,
          resume: bool = False, progress: bool = True) -> State:  # fmt: skip
    """Train `model` on a packed token array; afterwards model.params are the trained parameters.

    out/ gets log.jsonl, step-N/ checkpoints, and the small files `latest` and `best` that name two of them.
    resume=True goes on from out/latest and refuses, naming it, a difference in model, settings or data.
    A non-finite loss or gradient raises NonFiniteError, with the last good checkpoint named; what is on disk stays.
    On Linux the process keeps freed memory from here on (see backend.keep_freed_memory).
    """
    out = Path(out)
    if settings.sequence_length > model.config.context:
        raise ValueError(f"sequence_length {settings.sequence_length} is longer than the model's context {model.config.context}")
    windows = Windows(train_tokens, settings.sequence_length, settings.seed)
    if windows.windows_per_epoch < settings.batch_size:
        raise ValueError(f"the corpus is too small: {len(train_tokens)} tokens make {windows.windows_per_epoch} sequences of "
                         f"{settings.sequence_length}, fewer than one batch of {settings.batch_size}")  # fmt: skip
    for name, tokens in (("training", train_tokens), ("validation", validation_tokens)):
        if tokens.max() >= model.config.vocab_size:
            raise ValueError(f"the {name} tokens have id {tokens.max()}, but the model's vocabulary is {model.config.vocab_size}")
    if not resume and (out / "latest").exists():
        raise ValueError(f"{out} holds a run already: resume it, or give another folder")
    optimizer = AdamW(model.params, betas=(settings.beta1, settings.beta2), eps=settings.eps,
                      weight_decay=settings.weight_decay)  # fmt: skip
    data = checkpoint.fingerprint(train_tokens, validation_tokens)
    state = State()
    if resume:
        state = checkpoint.restore(checkpoint.find(out), model, optimizer, settings, data)
        if state.best_step is not None:  # a run that was killed while saving may have left it one save ahead
            checkpoint.point(out / "best", f"step-{state.best_step}")
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    model.params = optimizer.params
    run = _Run(model, optimizer, settings, state, out, data, validation_tokens, progress)
    try:
        while state.step < settings.steps:
            run.step(windows)
    except NonFiniteError as error:
        kept = (
            f"the last good checkpoint is {checkpoint.find(out)}" if (out / "latest").exists() else "no checkpoint was saved yet"
        )
        raise NonFiniteError(f"{error}; {kept}") from None
    finally:
        run.close()
    return state


class _Run:
    """The moving parts of one run."""

    def __init__(self, model: Model, optimizer: AdamW, settings: Settings, state: State, out: Path, data: str,
                 validation_tokens: np.ndarray, progress: bool) -> None:  # fmt: skip
        self.model, self.optimizer, self.settings, self.state = model, optimizer, settings, state
        self.out, self.data, self.validation_tokens = out, data, validation_tokens
        self.key = random.key(settings.seed)
        self.log = Log(out / "log.jsonl", last_step=state.step)
        self.progress = Progress(settings.steps, state.step, show=progress)
        self.pending: list[tuple[int, float, Any, Any]] = []  # steps whose loss was not read back yet
        self.clock = time.perf_counter()

    def step(self, windows: Windows) -> None:
        settings, state = self.settings, self.state
        inputs, targets = windows.batch(state.step * settings.batch_size, settings.batch_size)
        loss, norm = update(self.model, self.optimizer, inputs, targets, settings=settings, step=state.step,
                            key=random.fold(self.key, state.step))  # fmt: skip
        self.pending.append((state.step, settings.rate(state.step), loss, norm))
        state.step += 1
        state.tokens += targets.size
        last = state.step == settings.steps
        evaluating = last or state.step % settings.evaluate_every == 0
        saving = last or state.step % settings.save_every == 0
        if evaluating or saving or is_host(loss) or len(self.pending) >= settings.log_every:
            self.read_back()
        if evaluating:
            saving |= self.evaluate()
        if saving:
            self.save()

    def read_back(self) -> None:
        """Read the pending losses, check them, write them to the log and show the last."""
        seconds = time.perf_counter() - self.clock
        self.clock += seconds
        self.state.seconds += seconds
        speed = len(self.pending) * self.settings.batch_size * self.settings.sequence_length / seconds
        for step, rate, loss, norm in self.pending:
            loss, norm = float(loss), float(norm)
            check_finite(step, loss, norm)
            self.log.write(step=step + 1, loss=loss, learning_rate=rate, gradient_norm=norm, tokens_per_second=round(speed, 1))
        shown = {"loss": f"{loss:.3f}", "lr": f"{rate:.1e}", "norm": f"{norm:.2f}", "tok/s": f"{speed:.0f}"}
        self.progress.update(len(self.pending), self.state.step, shown)
        self.pending.clear()

    def evaluate(self) -> bool:
        """Validation loss into the log; True when it is the best so far, which is then worth a checkpoint."""
        total, count = evaluate(self.model, self.validation_tokens, length=self.settings.sequence_length,
                                workers=self.settings.workers)  # fmt: skip
        loss = total / count
        if not np.isfinite(loss):
            raise NonFiniteError(f"step {self.state.step}: the validation loss is {loss}")
        self.log.write(step=self.state.step, validation_loss=loss)
        self.progress.say(f"step {self.state.step}: validation loss {loss:.4f}, perplexity {np.exp(loss):.2f}")
        better = self.state.best_loss is None or loss < self.state.best_loss
        if better:
            self.state.best_step, self.state.best_loss = self.state.step, loss
        self.clock = time.perf_counter()  # evaluating and saving do not count as training time
        return better

    def save(self) -> None:
        """A checkpoint, unless the last update has broken the parameters."""
        if not bool(array_module(self.optimizer.values.buffer).isfinite(self.optimizer.values.buffer).all()):
            raise NonFiniteError(f"step {self.state.step}: the update made parameters that are not finite")
        self.log.sync()
        checkpoint.save(self.out, self.model, self.optimizer, self.state, self.settings, self.data)
        checkpoint.prune(self.out, self.state, self.settings.keep)
        self.clock = time.perf_counter()

    def close(self) -> None:
        self.progress.close()
        self.log.close()
