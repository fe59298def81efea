"""The training loop: batches in, checkpoints and a log out."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .. import random
from ..arguments import check_flag, check_path, wrong
from ..backend import array_module, give_back_freed_memory, is_host, keep_freed_memory
from ..files import sole_writer
from ..models.model import Model, check_model
from ..optim.adamw import AdamW
from . import checkpoint, folders
from .checkpoint import SaveError, State
from .environment import workers_note
from .interrupt import interruptible
from .log import Log, Progress, missing_steps, read
from .monitor import Monitor, improves
from .samples import CausalSamples, CausalValidation, check_corpus, check_tokens
from .settings import Settings
from .step import NonFiniteError, check_finite, update


def train(model: Model, training: Any, validation: Any, settings: Settings, *, out: str | Path, resume: bool = False,
          progress: bool = True) -> State:  # fmt: skip
    """Train `model`; afterwards model.params are the trained parameters.

    training and validation: two packed token arrays, for a decoder, or the samples of an objective and what to validate with
    (see training.samples).

    out/ gets log.jsonl, step-N/ checkpoints, and the small files `latest` and `best` that name two of them.
    resume=True goes on from out/latest and refuses, naming it, a difference in model, settings or data.  However a run was
    ended, resumed it is bit-equal to one that was not: parameters, moments and log (but for times), as long as workers and
    libraries are the same.  (Which steps are saved, and which of them as increments, also depends on signals and the clock.)

    It returns early, with a checkpoint saved, when settings.patience is used up, and on SIGINT or SIGTERM, once the step under
    way is done; then state.signal is its number.  A second signal acts at once.
    A non-finite loss or gradient raises NonFiniteError, a full disk SaveError, with the last good checkpoint named; what is on
    disk stays.
    ValueError for a folder that another process is training in (see files.sole_writer), and for a checkpoint that is damaged or
    whose trainer.json has values that no run has.
    On Linux the process keeps freed memory from here on (see backend.keep_freed_memory).
    """
    check_model("model", model)
    if not isinstance(settings, Settings):
        raise wrong("settings", "Settings", settings)
    check_path("out", out)
    check_flag("resume", resume)
    out = Path(out)
    training, validation, data = _check(model, training, validation, settings)
    if resume:
        checkpoint.find(out)  # no folder is made where there is nothing to resume
    with ExitStack() as held:
        try:
            held.enter_context(sole_writer(out))
        except OSError as error:
            raise _unwritable(error, out, 0) from error
        return _train(model, training, validation, settings, data, out, resume, progress)


def _train(model: Model, training: Any, validation: Any, settings: Settings, data: str, out: Path, resume: bool,
           progress: bool) -> State:  # fmt: skip
    """The run, in a folder that nobody else writes into."""
    if not resume and checkpoint.started(out):
        raise ValueError(f"{out} holds a run already: resume it, or give another folder")
    optimizer = AdamW(model.params, betas=(settings.beta1, settings.beta2), eps=settings.eps,
                      weight_decay=settings.weight_decay)  # fmt: skip
    state, notes = State(), [workers_note(settings.workers, settings.micro_size)]
    if resume:
        folder = checkpoint.find(out)
        state = checkpoint.restore(folder, model, optimizer, settings, data)
        notes += [checkpoint.environment_note(folder, settings, model.device), missing_steps(out / "log.jsonl", state.step)]
    keep_freed_memory()
    model.params = optimizer.params
    give_back_freed_memory()  # the parameters as they came
    run = None
    try:
        _tidy(out, state, settings)
        run = _Run(model, optimizer, settings, state, out, data, validation, progress)
        if run.out_of_patience():
            notes.append(f"nothing is left to do: {state.waited} evaluations in a row have not improved")
        for note in filter(None, notes):
            run.progress.say(note)
        with interruptible("stopping after this step; once more stops at once" if progress else "") as interrupt:
            while not run.finished() and interrupt.signal is None:
                run.step(training)
            run.stop()
        state.signal = interrupt.signal
    except NonFiniteError as error:
        raise NonFiniteError(f"{error}; {_last_good(out)}") from None
    except OSError as error:
        raise _unwritable(error, out, state.step) from error
    finally:
        if run is not None:
            run.close()
    return state


def _check(model: Model, training: Any, validation: Any, settings: Settings) -> tuple[Any, Any, str]:
    """The samples of the run and its validation, if they fit the model; and a fingerprint of both."""
    context = model.config.context
    if context is not None and settings.sequence_length > context:
        raise ValueError(f"sequence_length {settings.sequence_length} is longer than the model's context {context}")
    arrays_given = [isinstance(data, np.ndarray) for data in (training, validation)]
    samples_given = hasattr(training, "batch") and hasattr(training, "length") and hasattr(validation, "batches")
    if not all(arrays_given) and (any(arrays_given) or not samples_given):
        raise TypeError("training and validation: expected two token arrays, or samples and what to validate with (see "
                        f"training.samples), got {type(training).__name__} and {type(validation).__name__}")  # fmt: skip
    if not isinstance(training, np.ndarray):
        if training.length != settings.sequence_length:
            raise ValueError(f"sequence_length is {settings.sequence_length}, but the samples have {training.length} tokens")
        some = training.batch(0, 4 * settings.batch_size)  # which documents come first depends on all that there are
        model.inputs(**some[0])  # once through the model's own checks
        arrays = [a for batch in (some, *validation.batches) for part in batch for a in part.values()]
        return training, validation, checkpoint.fingerprint(*arrays)
    model.check_causal()  # others would see the token that they are to predict
    tokens = {"training": training, "validation": validation}
    for name, array in tokens.items():
        check_tokens(f"{name} tokens", array)
        if array.max() >= model.config.vocab_size or array.min() < 0:
            outside = array.max() if array.min() >= 0 else array.min()
            raise ValueError(f"the {name} tokens have id {outside}, but the model's vocabulary is {model.config.vocab_size}")
    check_corpus(training, settings)
    samples = CausalSamples(training, settings)
    return samples, CausalValidation(validation, settings), checkpoint.fingerprint(training, validation)


def _tidy(out: Path, state: State, settings: Settings) -> None:
    """Make of `out` what it would be if nothing had been broken off at this step."""
    if state.step:
        checkpoint.prune(out, state, settings.keep)  # first, since the disk may be full
        if not (out / "latest").exists():
            checkpoint.point(out / "latest", f"step-{state.step}")
        checkpoint.point_best(out, state)
    elif (out / "log.jsonl").exists():  # a run that was killed before its first checkpoint had a name
        folders.remove_temporaries(out)


def _unwritable(error: OSError, out: Path, step: int) -> SaveError:
    what = f"{error.filename or out}: cannot be written ({error.strerror or error})"
    return SaveError(f"{what} after step {step}; {_last_good(out)}")


def _last_good(out: Path) -> str:
    if not (out / "latest").exists():
        return "no checkpoint was saved yet"
    return f"the last good checkpoint is {checkpoint.find(out)}"


class _Run:
    """The moving parts of one run."""

    def __init__(self, model: Model, optimizer: AdamW, settings: Settings, state: State, out: Path, data: str,
                 validation: Any, progress: bool) -> None:  # fmt: skip
        self.model, self.optimizer, self.settings, self.state = model, optimizer, settings, state
        self.out, self.data, self.validation = out, data, validation
        self.key = random.key(settings.seed)
        self.log = Log(out / "log.jsonl", last_step=state.step)
        self.monitor = Monitor()
        self.monitor.replay(read(self.log.path))
        self.progress = Progress(settings.steps, state.step, show=progress)
        self.pending: list[tuple[int, float, Any, Any]] = []  # steps whose loss was not read back yet
        self.saved_step = state.step
        self.clock = self.saved_at = time.perf_counter()

    def finished(self) -> bool:
        return self.state.step == self.settings.steps or self.out_of_patience()

    def out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.waited >= self.settings.patience

    def step(self, samples: Any) -> None:
        settings, state = self.settings, self.state
        inputs, targets = samples.batch(state.step * settings.batch_size, settings.batch_size)
        loss, norm = update(self.model, self.optimizer, inputs, targets, settings=settings, step=state.step,
                            key=random.fold(self.key, state.step))  # fmt: skip
        self.pending.append((state.step, settings.rate(state.step), loss, norm))
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
        """By the clock.  When a run saves changes nothing of what it computes, so this takes nothing from exact resume."""
        minutes = self.settings.save_minutes
        return minutes is not None and time.perf_counter() - self.saved_at >= 60 * minutes

    def read_back(self) -> None:
        """Read the pending losses, check them, write them to the log and show the last."""
        seconds = time.perf_counter() - self.clock
        self.clock += seconds
        self.state.seconds += seconds
        speed = len(self.pending) * self.settings.batch_size * self.settings.sequence_length / seconds
        for step, rate, loss, norm in self.pending:
            loss, norm = float(loss), float(norm)
            check_finite(step, {"loss": loss, "gradient norm": norm})
            record = {"step": step + 1, "loss": loss, "learning_rate": rate, "gradient_norm": norm}
            self.log.write(**record, tokens_per_second=round(speed, 1))
            self.watch(record)
        shown = {"loss": f"{loss:.3f}", "norm": f"{norm:.2f}", "tok/s": f"{speed:.0f}", "lr": f"{rate:.1e}"}
        self.progress.update(len(self.pending), shown)
        self.pending.clear()

    def watch(self, record: dict[str, Any]) -> None:
        """Report what stands out in a step, with the numbers of its samples (see data.batches.Windows)."""
        step, size = record["step"], self.settings.batch_size
        first, last = (step - 1) * size, step * size - 1
        for field, value, limit in self.monitor.observe(record):
            self.log.write(step=step, outlier=field, value=value, threshold=limit, first_sample=first, last_sample=last)
            self.progress.say(f"step {step}: {field.replace('_', ' ')} {value:.4g} stands out (threshold {limit:.4g}), "
                              f"samples {first} to {last}")  # fmt: skip

    def evaluate(self) -> bool:
        """Validation loss into the log; True when it is worth a checkpoint: the best so far, or the last one."""
        state, loss = self.state, self.validation.loss(self.model, self.settings.workers)
        if not np.isfinite(loss):
            raise NonFiniteError(f"step {state.step}: the validation loss is {loss}")
        self.log.write(step=state.step, validation_loss=loss)
        self.progress.say(f"step {state.step}: validation loss {loss:.4f}, perplexity {np.exp(loss):.2f}")
        better = state.best_loss is None or loss < state.best_loss
        if better:
            state.best_step, state.best_loss = state.step, loss
        if improves(loss, state.improved_loss, self.settings.min_improvement):
            state.improved_loss, state.waited = loss, 0
        else:
            state.waited += 1
        if self.out_of_patience():
            self.progress.say(f"step {state.step}: stopping early, {state.waited} evaluations in a row have not improved on "
                              f"{state.improved_loss:.4f} by {self.settings.min_improvement:g} or more")  # fmt: skip
        self.clock = time.perf_counter()  # evaluating and saving do not count as training time
        return better or self.out_of_patience()

    def save(self) -> None:
        """A checkpoint, unless the last update has broken the parameters.  The last one of a run is a full one."""
        if not bool(array_module(self.optimizer.values.buffer).isfinite(self.optimizer.values.buffer).all()):
            raise NonFiniteError(f"step {self.state.step}: the update made parameters that are not finite")
        self.log.sync()
        checkpoint.save(self.out, self.model, self.optimizer, self.state, self.settings, self.data, full=self.finished())
        self.saved_step = self.state.step
        checkpoint.prune(self.out, self.state, self.settings.keep)
        self.clock = self.saved_at = time.perf_counter()

    def stop(self) -> None:
        """Save what is not saved yet."""
        if self.pending:
            self.read_back()
        if self.saved_step != self.state.step:
            self.save()

    def close(self) -> None:
        self.progress.close()
        self.log.close()
