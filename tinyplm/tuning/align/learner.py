"""A model in training by any loss on its outputs: what the recipes of alignment share.

A recipe makes a batch and a loss; the learner runs the model on it, in shards by threads and micro-batches, hands the outputs'
gradient back, and updates.  What is trained may be the model's parameters, or what a transform makes them of (LoRA), and more
beside them (a value head).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...backend import array_module, to_device, to_host
from ...core import Rows, Tree, flatten, map_shards, reduce_shards, tree_map
from ...families import shapes_of
from ...files import sole_writer, write_json
from ...hub import folders as hub
from ...memory import keep_freed_memory
from ...models.model import Model
from ...optim.adamw import AdamW
from ...training.folders import new_folder
from ...training.log import Log, Progress
from ...training.step import NonFiniteError
from ..adapters.files import save_adapter
from ..settings import RecipeSettings

LOG, FINAL, FACTS = "log.jsonl", "final", "recipe.json"

# loss(outputs, extra, part) -> values, backward.  outputs: the model's for some samples of the batch; extra: the tree of other
# trained parameters, or None; part: the batch's arrays of these samples.  values: {"loss": ..., and what is logged beside it},
# 0-dimensional and already divided by totals of the whole step, so that the parts of a batch add up.
# backward(1.0) -> (doutputs, dextra).
Loss = Callable[[dict, Tree, dict], tuple[dict[str, Any], Callable[[float], tuple[dict, Tree]]]]


class Learner:
    """`model` is the model with its present parameters; the model that was given keeps its own: it may serve as the reference.

    transform  a component params, back = transform(theta) with `theta` its initial value; back takes a flat part of the gradient,
               {path: array}, as far as it is there, and gives that part of theta's (see tuning.lora).  None: params are trained
    extra      a tree of other parameters to be trained, for the loss; its present value is `extra`
    """

    def __init__(self, model: Model, settings: RecipeSettings, *, transform: Callable | None = None, theta: Tree = None,
                 extra: Tree = None, updates: int | None = None) -> None:  # fmt: skip
        if (transform is None) != (theta is None):
            raise ValueError("expected a transform with theta, what it starts from, or neither")
        base = getattr(transform, "base", None)
        if base is not None and any(a is not b for a, b in itertools.zip_longest(*map(_leaves, (base, model.params)))):
            raise ValueError("transform: expected one of this model with its present parameters, got one of other parameters")
        trained = {"model": model.params if transform is None else theta} | ({} if extra is None else {"extra": extra})
        self.settings, self.transform, self.updates = settings, transform, updates or settings.steps
        self.optimizer = AdamW(trained, betas=(settings.beta1, settings.beta2), eps=settings.eps,
                               weight_decay=settings.weight_decay)  # fmt: skip
        self.key = random.key(settings.seed)
        self.done = 0  # updates
        self._given = flatten(model.params)
        self.model = model._with(params=None, file_dtypes={})
        self._renew()
        keep_freed_memory()

    def _renew(self) -> None:
        """The model's parameters after a change of what they are made of."""
        trained = self.optimizer.params
        self.extra = trained.get("extra")
        if self.transform is None:
            self.model.params, self._back = trained["model"], None
        else:
            self.model.params, self._back = self.transform(trained["model"])

    @property
    def has_names(self) -> bool:
        """Whether the parameters are those of the model's family, so that they have names in a file."""
        model = self.model
        return flatten(model.params).keys() == flatten(shapes_of(model.family, model.config, model.task)).keys()

    @property
    def theta(self) -> Tree:
        """What the parameters are made of, by the transform; else the parameters."""
        return self.optimizer.params["model"]

    def accumulate(self, batch: dict[str, dict], loss: Loss, **options: Any) -> dict[str, float]:
        """Add the gradient of the loss of a whole batch; returns its values, read back.

        batch: {"inputs": what the model takes, "targets": what outputs_in_parts takes as such, "loss": arrays for the loss}, all
        with the samples on the first axis.  Inputs (N, K, T) are K sequences a sample: the model's outputs then are (N, K, ...).
        options: of the model's outputs (temperature, entropy, ...).
        """
        settings = self.settings
        samples = len(batch["inputs"]["input_ids"])
        batch = {name: arrays for name, arrays in batch.items() if arrays}
        if settings.dropout:
            batch["keys"] = {"key": random.sample_keys(random.fold(self.key, 1, self.done), np.arange(samples))}

        def gradient(part: dict, give: Callable) -> dict[str, Any]:
            part = to_device(part, self.model.device)

            def give_part(path: str, tree: Tree) -> None:
                give(f"model.{path}" if path else "model", tree)

            flat, shape = _flat_sequences({**part["inputs"], **part.get("keys", {})}, part.get("targets", {}))
            outputs, *backs = self.model.outputs_in_parts(give_part, **flat, checkpointing=settings.checkpointing, **options)
            values, loss_back = loss(_with_shape(outputs, shape), self.extra, part.get("loss", {}))
            doutputs, dextra = loss_back(1.0)
            if dextra is not None:
                give("extra", dextra)
            left = backs.pop()(_without_shape(doutputs, shape))
            return values, left

        def add(path: str, tree: Tree, workers: int = 1) -> None:
            if path.startswith("model") and self._back is not None:
                path, tree = "model", self._back(self._arrays(flatten(tree, path.removeprefix("model").removeprefix("."))))
            self.optimizer.gradient.add(tree, path, workers=workers)

        sums: dict[str, float] = {}
        size = settings.micro_batch_size or samples
        try:
            for start in range(0, samples, size):
                micro = tree_map(lambda a, start=start: a[start : start + size], batch)
                count = min(settings.workers, len(micro["inputs"]["input_ids"]))
                for values, left in reduce_shards(gradient, micro, count, add):
                    for tree in left:
                        add("model", tree, count)
                    for name, value in values.items():
                        sums[name] = sums.get(name, 0.0) + float(value)
        except BaseException:
            self.optimizer.gradient.clear()  # half a gradient must not go into the next step
            raise
        return sums

    def _arrays(self, gradients: dict[str, Any]) -> dict[str, Any]:
        """A flat part of the gradient as a transform takes it: core.Rows become arrays, but not for a table that is frozen."""
        found = {}
        for path, a in gradients.items():
            if isinstance(a, Rows):
                table = flatten(self.model.params)[path]
                if table is self._given.get(path):
                    continue
                a = a.dense(table.shape[0])
            found[path] = a
        return found

    def update(self) -> dict[str, float]:
        """Clipping and AdamW on what was accumulated; {"gradient_norm", "learning_rate"}.  NonFiniteError before anything changes
        where the gradient is not finite."""
        settings = self.settings
        norm = self.optimizer.gradient_norm(workers=settings.workers)
        check_finite(self.done, {"gradient norm": float(norm)})
        rate = settings.rate(self.done, self.updates)
        self.optimizer.step(rate, clip=settings.clip, norm=norm, workers=settings.workers)
        self.done += 1
        self._renew()
        return {"gradient_norm": float(norm), "learning_rate": rate}

    def step(self, batch: dict[str, dict], loss: Loss, **options: Any) -> dict[str, float]:
        """accumulate and update; all their numbers.  NonFiniteError for one that is not finite, before anything changes."""
        values = self.accumulate(batch, loss, **options)
        try:
            check_finite(self.done, values)
        except NonFiniteError:
            self.optimizer.gradient.clear()
            raise
        return {**values, **self.update()}


def _leaves(tree: Tree) -> list[Any]:
    return list(flatten(tree).values())


def check_finite(step: int, values: dict[str, float]) -> None:
    """NonFiniteError that names the step, from 1, and the first of the values that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(f"step {step + 1}: the {name.replace('_', ' ')} is {value}; try a smaller learning rate")


def token_log_probs(model: Model, batch: dict[str, np.ndarray], *, temperature: float = 1.0, entropy: bool = False,
                    beside: Callable[[dict], dict] | None = None, batch_size: int = 64, workers: int = 1
                    ) -> dict[str, np.ndarray]:  # fmt: skip
    """{"log_probs" (..., T), and "entropy" if asked for} of a batch's targets by a model, on the host, without gradients.

    Those of a reference, or of the policy before its update.  beside(outputs): more of the kind from the model's outputs.
    batch: {"input_ids", "attention_mask", "targets"} of tuning.sequences.arrays, each (N, T) or (N, K, T).
    """
    shape = batch["targets"].shape
    rows = {name: a.reshape(-1, shape[-1]) for name, a in batch.items() if name in ("input_ids", "attention_mask", "targets")}

    def forward(part: dict) -> dict:
        longest = max(int(part["attention_mask"].sum(axis=1).max()), 1)  # what is padding in all of them costs nothing
        part = {name: a[:, :longest] for name, a in part.items()}
        outputs, _ = model.token_outputs(**part, temperature=temperature, entropy=entropy, grad=False)
        found = {name: outputs[name] for name in ("log_probs", "entropy") if name in outputs}
        return to_host(found if beside is None else {**found, **beside(outputs)})

    found: dict[str, np.ndarray] = {}
    for start in range(0, len(rows["targets"]), batch_size):
        part = {name: a[start : start + batch_size] for name, a in rows.items()}
        place = start
        for outputs in map_shards(forward, part, min(workers, len(part["targets"]))):
            for name, a in outputs.items():
                whole = found.setdefault(name, np.zeros(rows["targets"].shape, a.dtype))
                whole[place : place + len(a), : a.shape[1]] = a
            place += len(a)
    return {name: a.reshape(shape) for name, a in found.items()}


def open_log(open_things: ExitStack, out: Path, result: str) -> Log:
    """The log of a new run in `out`, which no other process may write into until open_things are closed.

    ValueError where one does, or where there is a log or a folder `result` already.
    """
    with ExitStack() as opened:
        opened.enter_context(sole_writer(out))
        if (out / LOG).exists() or (out / result).exists():
            raise ValueError(f"{out} holds a run already: give another folder")
        log = Log(out / LOG)
        opened.callback(log.close)
        open_things.push(opened.pop_all())
    return log


class Journal:
    """What a recipe writes and shows: out/log.jsonl, a progress bar, and at the end out/final, a folder that loads."""

    def __init__(self, out: str | Path | None, steps: int, *, progress: bool = True) -> None:
        self.out = None if out is None else Path(out)
        self.log, self.open = None, ExitStack()
        if self.out is not None:
            self.log = open_log(self.open, self.out, FINAL)
        self.progress = Progress(steps, 0, show=progress)
        self.history: list[dict[str, float]] = []

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.close()
        self.open.close()

    def record(self, step: int, values: dict[str, float], *, shown: tuple[str, ...] = ("loss",)) -> None:
        """One step, from 1, and its numbers, of which some are shown.  NonFiniteError if one is not finite: it is not written."""
        check_finite(step - 1, values)
        self.history.append({"step": step, **values})
        if self.log is not None:
            self.log.write(step=step, **values)
        self.progress.update(1, {name: f"{values[name]:.3g}" for name in shown if name in values})

    def write(self, **record: Any) -> None:
        """A line of the log beside the steps' own, such as an evaluation; it must have `step`."""
        if self.log is not None:
            self.log.write(**record)

    def finish(self, learner: Learner, **facts: Any) -> None:
        """Save in out/final the model, what a transform has learned (see tuning.adapters), and the settings in recipe.json; the
        folder appears as a whole.  A model with parameters that its family has no names for (a prefix) is only its adapter."""
        if self.out is None:
            return
        with new_folder(self.out / FINAL) as folder:
            if learner.transform is not None or not learner.has_names:
                source = learner.model if learner.transform is None else learner.transform
                save_adapter(learner.theta, folder, getattr(source, "facts", {}))
            if learner.has_names:
                hub.save(learner.model, folder)
            write_json(folder / FACTS, {"settings": dataclasses.asdict(learner.settings), **facts})


def _flat_sequences(inputs: dict, targets: dict) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The keywords of outputs_in_parts with (N, K, T) as (N K, T); and (N, K), or (N,)."""
    shape = inputs["input_ids"].shape[:-1]
    if len(shape) == 2:
        keys = inputs.get("key")
        if keys is not None:
            keys = random.fold(keys[:, None], array_module(keys).arange(shape[1])).reshape(-1)
        inputs = {name: a.reshape(-1, *a.shape[2:]) for name, a in inputs.items() if name != "key"}
        inputs |= {} if keys is None else {"key": keys}
        targets = {name: a.reshape(-1, *a.shape[2:]) for name, a in targets.items()}
    return {**inputs, **({"targets": targets} if targets else {})}, shape


def _with_shape(outputs: dict, shape: tuple[int, ...]) -> dict:
    """Outputs of flat sequences as (N, K, ...); sums over all of them stay as they are."""
    return {name: a if a.ndim == 0 else a.reshape(*shape, *a.shape[1:]) for name, a in outputs.items()}


def _without_shape(doutputs: dict, shape: tuple[int, ...]) -> dict:
    return {name: a if getattr(a, "ndim", 0) == 0 else a.reshape(-1, *a.shape[len(shape) :]) for name, a in doutputs.items()}
