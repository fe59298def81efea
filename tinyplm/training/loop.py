"""The training loop: from batches to checkpoints and a log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .. import random
from ..arguments import check_choice, check_flag, check_path, mismatch, wrong
from ..backend import is_host
from ..files import sole_writer
from ..memory import give_back_freed_memory, keep_freed_memory, memory_use
from ..models.model import Model, check_model
from ..models.routed_model import RoutedModel
from ..optim import Optimizer
from . import checkpoint
from .checkpoint import State, check_values, last_good, unwritable
from .environment import workers_note
from .expert_load import ExpertLoad, check_router_weights, load_record
from .interrupt import interruptible
from .log import Log, Progress, missing_steps, read
from .monitor import Monitor
from .samples import CausalSamples, CausalValidation, check_corpus, check_tokens
from .settings import EXTEND, Settings, optimizer_of
from .step import NonFiniteError, check_finite, update
from .writers import check_writers


def train(
    model: Model,
    training: Any,
    validation: Any,
    settings: Settings,
    *,
    out: str | Path,
    resume: bool = False,
    extend: str | None = None,
    progress: bool = True,
    writers: Sequence[str] = (),
) -> State:
    """Train `model`; afterwards model.params are the trained parameters, and model.buffers hold
    what a step updates without a gradient (expert_load.correct).

    training, validation: two packed token arrays, for a decoder; or the samples of an objective and
    validation data (see training.samples).

    Writes out/log.jsonl, the checkpoints out/step-N/, and the small files `latest` and `best`, each
    naming one of them. resume=True continues from out/latest; a difference in model, settings or
    data is refused by name.  More steps than before extend the run; where the schedule's rates
    depend on their number, extend says how they continue: "stretch" or "restart" (see Settings).
    It is ignored where there is nothing to extend, so a call can be repeated after a kill.
    However a run ended, a resumed run is bit-identical to an uninterrupted one in parameters,
    moments, buffers and log (except for log.MEASURED), given the same workers and libraries. (Which
    steps are saved, and which of them incrementally, also depends on signals and the clock.)

    writers: other programs that get the log, see training.writers: "tensorboard", "wandb".

    Returns early, with a checkpoint saved, when settings.patience is exhausted, and on SIGINT or
    SIGTERM after the current step; state.signal is then its number.  A second signal acts at once.
    A non-finite loss or gradient raises NonFiniteError, a full disk SaveError, both naming the last
    good checkpoint; files on disk stay.
    ValueError if another process is training in the folder (see files.sole_writer), or if the
    checkpoint is damaged or its trainer.json invalid.
    On Linux the process keeps freed memory from here on (see memory.keep_freed_memory).
    """
    check_model("model", model)
    if not isinstance(settings, Settings):
        raise wrong("settings", "Settings", settings)
    check_router_weights(settings, isinstance(model, RoutedModel), model)
    check_path("out", out)
    check_flag("resume", resume)
    writers = check_writers(writers)
    check_choice("extend", extend, EXTEND, or_none=True)
    if extend is not None and not resume:
        raise mismatch("extend", "None without resume", extend)
    out = Path(out)
    training, validation, data = _check(model, training, validation, settings)
    if resume:
        checkpoint.find(out)  # before any folder is created
    with ExitStack() as held:
        try:
            held.enter_context(sole_writer(out))
        except OSError as error:
            raise unwritable(error, out, 0) from error
        how = (resume, extend, progress, writers)
        return _train(model, training, validation, settings, data, out, *how)


def _train(
    model: Model,
    training: Any,
    validation: Any,
    settings: Settings,
    data: str,
    out: Path,
    resume: bool,
    extend: str | None,
    progress: bool,
    writers: Sequence[str],
) -> State:
    """The run, in a folder locked for this process."""
    if not resume and checkpoint.started(out):
        raise mismatch(
            out, "a folder without a run", "one with a run: resume it, or choose another folder"
        )
    optimizer = optimizer_of(model.params, settings)
    state, notes = State(), [workers_note(settings.workers, settings.micro_size)]
    if resume:
        folder = checkpoint.find(out)
        state = checkpoint.restore(folder, model, optimizer, settings, data, extend)
        notes.append(checkpoint.environment_note(folder, settings, model.device))
        notes.append(missing_steps(out / "log.jsonl", state.step))
    keep_freed_memory()
    model.params = optimizer.params
    give_back_freed_memory()  # that of the original parameters
    run = None
    try:
        checkpoint.tidy(out, state, settings.keep)
        run = _Run(model, optimizer, settings, state, out, data, validation, progress, writers)
        if run.out_of_patience():
            notes.append(f"nothing to do: no improvement in the last {state.waited} evaluations")
        for note in filter(None, notes):
            run.progress.say(note)
        notice = "stopping after this step; repeat to stop immediately" if progress else ""
        with interruptible(notice) as interrupt:
            while not run.finished() and interrupt.signal is None:
                run.step(training)
            run.stop()
        state.signal = interrupt.signal
    except NonFiniteError as error:
        raise NonFiniteError(f"{error}; {last_good(out)}") from None
    except OSError as error:
        raise unwritable(error, out, state.step) from error
    finally:
        if run is not None:
            run.close()
    return state


def _check(
    model: Model, training: Any, validation: Any, settings: Settings
) -> tuple[Any, Any, str]:
    """The run's samples and validation data, checked against the model; and their fingerprint."""
    context = model.config.context
    if getattr(model.config, "position_rows", None) and not isinstance(training, np.ndarray):
        context = model.config.cache_context  # of samples with two positions a token
    if context is not None and settings.sequence_length > context:
        raise mismatch(
            "sequence_length", f"at most {context}, the model's context", settings.sequence_length
        )
    arrays_given = [isinstance(data, np.ndarray) for data in (training, validation)]
    sampled = hasattr(training, "batch") and hasattr(training, "length")
    samples_given = sampled and hasattr(validation, "batches")
    if not all(arrays_given) and (any(arrays_given) or not samples_given):
        expected = "two token arrays, or samples and validation data (see training.samples)"
        given = f"{type(training).__name__} and {type(validation).__name__}"
        raise TypeError(f"training and validation: expected {expected}, got {given}")
    if not isinstance(training, np.ndarray):
        if training.length != settings.sequence_length:
            expected = f"{training.length}, the length of the samples"
            raise mismatch("sequence_length", expected, settings.sequence_length)
        # which samples come first depends on all the documents
        some = training.batch(0, 4 * settings.batch_size)
        model.inputs(**some[0])  # runs the model's own checks
        arrays = [
            a for batch in (some, *validation.batches) for part in batch for a in part.values()
        ]
        return training, validation, checkpoint.fingerprint(*arrays)
    model.check_causal()  # another model would see the tokens it predicts
    tokens = {"training": training, "validation": validation}
    for name, array in tokens.items():
        check_tokens(f"{name} tokens", array)
        if array.max() >= model.config.vocab_size or array.min() < 0:
            outside = array.max() if array.min() >= 0 else array.min()
            raise mismatch(
                f"{name} tokens", f"ids from 0 to {model.config.vocab_size - 1}", outside
            )
    check_corpus(training, settings)
    data = checkpoint.fingerprint(training, validation)
    return CausalSamples(training, settings), CausalValidation(validation, settings), data


class _Run:
    """The state of one run."""

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        settings: Settings,
        state: State,
        out: Path,
        data: str,
        validation: Any,
        progress: bool,
        writers: Sequence[str],
    ) -> None:
        self.model, self.optimizer, self.settings, self.state = model, optimizer, settings, state
        self.out, self.data, self.validation = out, data, validation
        self.key = random.key(settings.seed)
        self.log = Log(out / "log.jsonl", last_step=state.step, writers=writers)
        self.monitor = Monitor()
        self.monitor.replay(read(self.log.path))
        self.progress = Progress(settings.steps, state.step, show=progress)
        # (step, rate, load, loss, norm) not yet read back
        self.pending: list[tuple[int, float, ExpertLoad, Any, Any]] = []
        self.counts: list[list[int]] | None = None  # of the experts in the last step read back
        self.saved_step = state.step
        self.clock = self.saved_at = time.perf_counter()

    def finished(self) -> bool:
        return self.state.step == self.settings.steps or self.out_of_patience()

    def out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.waited >= self.settings.patience

    def step(self, samples: Any) -> None:
        settings, state = self.settings, self.state
        inputs, targets = samples.batch(state.step * settings.batch_size, settings.batch_size)
        key, load = random.fold(self.key, state.step), ExpertLoad()
        options: dict[str, Any] = {"settings": settings, "step": state.step, "key": key}
        options["cycle"] = state.cycle
        loss, norm = update(self.model, self.optimizer, inputs, targets, load=load, **options)
        rate = settings.rate(state.step, state.cycle)
        self.pending.append((state.step, rate, load, loss, norm))
        state.step += 1
        state.tokens += inputs["input_ids"].size
        last = state.step == settings.steps
        evaluating = last or state.step % settings.evaluate_every == 0
        saving = last or state.step % settings.save_every == 0 or self.save_is_due()
        if evaluating or saving or is_host(loss) or len(self.pending) >= settings.log_every:
            self.read_back()
        if evaluating:
            saving |= self.evaluate()
        if saving:
            self.save()

    def save_is_due(self) -> bool:
        """Whether settings.save_minutes have passed.

        Saving does not affect the numbers, so the clock does not break exact resume.
        """
        minutes = self.settings.save_minutes
        return minutes is not None and time.perf_counter() - self.saved_at >= 60 * minutes

    def read_back(self) -> None:
        """Read the pending losses back, check and log them, and show the last."""
        seconds = time.perf_counter() - self.clock
        self.clock += seconds
        self.state.seconds += seconds
        tokens = self.settings.batch_size * self.settings.sequence_length
        speed, memory = len(self.pending) * tokens / seconds, memory_use(self.model.device)
        for step, rate, load, *values in self.pending:
            loss, norm = map(float, values)
            check_finite(step, {"loss": loss, "gradient norm": norm})
            record = {"step": step + 1, "loss": loss, "learning_rate": rate, "gradient_norm": norm}
            routed = load_record(load)
            self.log.write(**record, tokens_per_second=round(speed, 1), **routed, **memory)
            self.watch(record)
        shown = {"loss": f"{loss:.3f}", "norm": f"{norm:.2f}"}
        shown |= {"tok/s": f"{speed:.0f}", "lr": f"{rate:.1e}"}
        if routed:
            shown["load"] = f"{max(routed['load_max']):.2f}x"  # of the busiest expert
        if "memory" in memory:
            shown["mem"] = f"{memory['memory'] / 1e9:.2f}GB"
        self.counts = load.whole_counts()
        self.progress.update(len(self.pending), shown)
        self.pending.clear()

    def watch(self, record: dict[str, Any]) -> None:
        """Report outliers of a step, with the numbers of its samples (see data.batches.Windows)."""
        step, size = record["step"], self.settings.batch_size
        first, last = (step - 1) * size, step * size - 1
        samples = {"first_sample": first, "last_sample": last}
        for field, value, limit in self.monitor.observe(record):
            self.log.write(step=step, outlier=field, value=value, threshold=limit, **samples)
            what = f"{field.replace('_', ' ')} {value:.4g} stands out (threshold {limit:.4g})"
            self.progress.say(f"step {step}: {what}, samples {first} to {last}")

    def evaluate(self) -> bool:
        """Log the validation loss; True if it calls for a checkpoint: the best, or the last."""
        state, loss = self.state, self.validation.loss(self.model, self.settings.workers)
        if not np.isfinite(loss):
            what = f"step {state.step}: validation loss"
            raise NonFiniteError(f"{what}: expected a finite number, got {loss}")
        counts = {} if self.counts is None else {"expert_counts": self.counts}
        self.log.write(step=state.step, validation_loss=loss, **counts)
        losses = f"validation loss {loss:.4f}, perplexity {np.exp(loss):.2f}"
        self.progress.say(f"step {state.step}: {losses}")
        better = state.judge(loss, self.settings.min_improvement)
        if self.out_of_patience():
            least = f"{state.improved_loss:.4f} by {self.settings.min_improvement:g} or more"
            waited = f"no improvement in {state.waited} evaluations on {least}"
            self.progress.say(f"step {state.step}: stopping early, {waited}")
        self.clock = time.perf_counter()  # evaluating and saving are not training time
        return better or self.out_of_patience()

    def save(self) -> None:
        """Write a checkpoint, unless the parameters are not finite.  A run's last one is full."""
        state, settings = self.state, self.settings
        check_values(self.optimizer, state.step)
        self.log.sync()
        parts = (self.out, self.model, self.optimizer, state, settings, self.data)
        checkpoint.save(*parts, full=self.finished())
        self.saved_step = state.step
        checkpoint.prune(self.out, state, settings.keep)
        self.clock = self.saved_at = time.perf_counter()

    def stop(self) -> None:
        """Save what has not been saved."""
        if self.pending:
            self.read_back()
        if self.saved_step != self.state.step:
            self.save()

    def close(self) -> None:
        self.progress.close()
        self.log.close()
