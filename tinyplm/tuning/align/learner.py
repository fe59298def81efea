"""Training with any loss on a model's outputs: what the alignment recipes share.

A recipe makes a batch and a loss; the learner runs the model on the batch, in micro-batches and
shards, passes the outputs' gradient to the model's backward, and updates.  It trains the model's
parameters, or what a transform computes them from (LoRA), and others with them (a value head).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_whole, wrong
from ...backend import array_module, to_device, to_host
from ...core import Rows, StackOptions, Tree, flatten, map_shards
from ...families import shapes_of
from ...hub import folders as hub
from ...hub.tensors import write_safetensors
from ...memory import keep_freed_memory
from ...models.causal_model import CausalModel
from ...models.model import Model
from ...models.protocol import LossOptions, OutputOptions, Trainable
from ...training.expert_load import parts_of
from ...training.settings import optimizer_of
from ...training.step import NonFiniteError, add_gradients, check_finite
from ..adapters.files import save_adapter
from ..run_folder import EXTRA
from ..settings import RecipeSettings

# loss(outputs, extra, part) -> values, backward.
# outputs: the model's for some samples of the batch; extra: the tree of other trained parameters,
# or None; part: the batch's arrays for these samples.  values: {"loss": ..., others to be logged},
# 0-dimensional and divided by totals of the whole step, so that the parts of a batch add up.
# backward(1.0) -> (doutputs, dextra).
Loss = Callable[[dict, Tree, dict], tuple[dict[str, Any], Callable[[float], tuple[dict, Tree]]]]
Batch = dict[str, dict]  # see Learner.accumulate


class Learner:
    """`model` has the current parameters; the given model keeps its own and may be the reference.

    transform  a component params, back = transform(theta), with the initial value `theta`; back
               maps a flat part of the gradient, {path: array}, to that part of theta's (see
               tuning.adapters.lora).  None: params are trained
    extra      a tree of other parameters to train, for the loss; `extra` is its current value
    """

    def __init__(
        self,
        model: Trainable,
        settings: RecipeSettings,
        *,
        transform: Callable | None = None,
        theta: Tree = None,
        extra: Tree = None,
        updates: int | None = None,
    ) -> None:
        if not hasattr(model, "params") or not hasattr(model, "with_params"):
            raise wrong("model", "one to train, see models.protocol.Trainable", model)
        if not isinstance(settings, RecipeSettings):
            raise wrong("settings", "RecipeSettings", settings)
        check_whole("updates", updates, 1, or_none=True)
        if (transform is None) != (theta is None):
            raise ValueError("transform: expected one with theta, its initial value, or neither")
        base = getattr(transform, "base", None)
        leaves = map(_leaves, (base, model.params))
        if base is not None and any(a is not b for a, b in itertools.zip_longest(*leaves)):
            expected = "one of this model with its present parameters"
            raise ValueError(f"transform: expected {expected}, got one of other parameters")
        trained = {"model": model.params if transform is None else theta}
        if extra is not None:
            trained["extra"] = extra
        self.settings, self.transform, self.updates = settings, transform, updates or settings.steps
        self.optimizer = optimizer_of(trained, settings)
        self.key = random.key(settings.seed)
        self.done = 0  # updates
        self.given = {"model": model, "transform": getattr(transform, "facts", None)}
        self.given["theta"] = theta  # all this, the same again on resume
        self._given = flatten(model.params)
        self.model: Any = model.with_params(None)  # of the same class
        self._renew()
        keep_freed_memory()

    def _renew(self) -> None:
        """Recompute the model's parameters from what is trained."""
        trained = self.optimizer.params
        self.extra = trained.get("extra")
        if self.transform is None:
            self.model.params, self._back = trained["model"], None
        else:
            self.model.params, self._back = self.transform(trained["model"])

    def resume(self) -> None:
        """Go on from the parameters and the number of updates that the optimiser now has."""
        self.done = self.optimizer.t
        self._renew()

    @property
    def has_names(self) -> bool:
        """Whether the parameters are those of the model's family, and so have names in a file."""
        model = self.model
        if not isinstance(model, Model):
            return False
        shapes = shapes_of(model.family, model.config, model.task)
        return flatten(model.params).keys() == flatten(shapes).keys()

    def save(self, folder: Path, *, result: bool = False) -> None:
        """Write what is trained into a folder: the model or, of a transform and of a model whose
        parameters have no names in a file (a prefix), the adapter (see tuning.adapters.files); and
        other parameters (extra.safetensors).

        result: what a run leaves instead, the model and the adapter, without the others.
        """
        adapted = self.transform is not None or not self.has_names
        if adapted:
            source = self.model if self.transform is None else self.transform
            save_adapter(self.theta, folder, getattr(source, "facts", {}))
        if self.has_names and (result or not adapted):
            hub.save(self.model, folder)
        if self.extra is not None and not result:
            write_safetensors(folder / EXTRA, flatten(to_host(self.extra)))

    @property
    def theta(self) -> Tree:
        """What the transform computes the parameters from; without a transform, the parameters."""
        return self.optimizer.params["model"]

    def accumulate(
        self, batch: Batch, loss: Loss, options: OutputOptions = OutputOptions()
    ) -> dict[str, float]:
        """Add the gradient of the loss of a whole batch; returns its values, read back.

        batch: {"inputs", "targets": those of the model's outputs_in_parts, "loss": arrays for the
        loss}, all with the samples on the first axis.  Inputs (N, K, T) are K sequences per sample:
        the model's outputs are then (N, K, ...).
        options: those of the model's outputs.
        With settings.balance, the loss has the balance loss of the model's experts added to it.
        """
        if not isinstance(options, OutputOptions):
            raise wrong("options", "OutputOptions", options)
        settings = self.settings
        stacking = StackOptions(checkpointing=settings.checkpointing)
        samples = len(batch["inputs"]["input_ids"])
        batch = {name: arrays for name, arrays in batch.items() if arrays}
        if settings.dropout:
            key = random.fold(self.key, 1, self.done)
            batch["keys"] = {"key": random.sample_keys(key, np.arange(samples))}
        size, workers = settings.micro_batch_size or samples, settings.workers
        routers, joined = LossOptions(balance=getattr(settings, "balance", 0.0)), None
        if routers.balance:
            joined = parts_of(self.model, batch, routers, size, workers, lambda p: _flat(p)[0])

        def gradient(part: dict, emit: Callable) -> tuple[dict[str, Any], list[Tree]]:
            part = to_device(part, self.model.device)

            def emit_model(path: str, tree: Tree) -> None:
                emit(f"model.{path}" if path else "model", tree)

            inputs, targets, shape = _flat(part)
            with nullcontext() if joined is None else joined.part() as load:
                outputs, *backs = self.model.outputs_in_parts(
                    emit_model, inputs, targets=targets, options=options, stacking=stacking
                )
                shaped = _with_shape(outputs, shape)
                values, loss_back = loss(shaped, self.extra, part.get("loss", {}))
                doutputs, dextra = loss_back(1.0)
                doutputs = _without_shape(doutputs, shape)
                if load is not None:
                    mask = inputs.get("attention_mask")
                    own = dataclasses.replace(routers, load=load)
                    value, back = self.model.router_losses(None, outputs, mask=mask, options=own)
                    values = {**values, "loss": values["loss"] + value, **load.losses}
                    doutputs = {**doutputs, **back(1.0)[1]}
                if dextra is not None:
                    emit("extra", dextra)
                return values, backs.pop()(doutputs)

        def add_part(path: str, tree: Tree, workers: int = 1) -> None:
            if path.startswith("model") and self._back is not None:
                flat = flatten(tree, path.removeprefix("model").removeprefix("."))
                path, tree = "model", self._back(self._arrays(flat))
            self.optimizer.gradient.add(tree, path, workers=workers)

        sums: dict[str, float] = {}
        optimizer = self.optimizer
        for values in add_gradients(gradient, batch, optimizer, add_part, size, workers, "model"):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def _arrays(self, gradients: dict[str, Any]) -> dict[str, Any]:
        """A flat part of the gradient for a transform: core.Rows as arrays, no frozen table."""
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
        """Clip and apply AdamW to the accumulated gradient; {"gradient_norm", "learning_rate"}.

        NonFiniteError for a gradient that is not finite, before anything changes.
        """
        settings = self.settings
        norm = self.optimizer.gradient_norm(workers=settings.workers)
        check_finite(self.done, {"gradient norm": float(norm)})
        rate = settings.rate(self.done, self.updates)
        self.optimizer.step(rate, clip=settings.clip, norm=norm, workers=settings.workers)
        self.done += 1
        self._renew()
        return {"gradient_norm": float(norm), "learning_rate": rate}

    def step(
        self, batch: Batch, loss: Loss, options: OutputOptions = OutputOptions()
    ) -> dict[str, float]:
        """accumulate and update; the values of both.

        NonFiniteError for a value that is not finite, before anything changes.
        """
        values = self.accumulate(batch, loss, options)
        try:
            check_finite(self.done, values)
        except NonFiniteError:
            self.optimizer.gradient.clear()
            raise
        return {**values, **self.update()}


def _leaves(tree: Tree) -> list[Any]:
    return list(flatten(tree).values())


def token_log_probs(
    model: CausalModel,
    batch: dict[str, np.ndarray],
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    beside: Callable[[dict], dict] | None = None,
    batch_size: int = 64,
    workers: int = 1,
) -> dict[str, np.ndarray]:
    """{"log_probs" (..., T), with entropy=True "entropy"} of a batch's targets, on the host.

    Without gradients: those of a reference, or of the policy before its update.
    beside(outputs): more arrays of this kind, computed from the model's outputs.
    batch: {"input_ids", "attention_mask", "targets"} of data.sequences.sequence_arrays, each (N, T)
    or (N, K, T).
    """
    shape, names = batch["targets"].shape, ("input_ids", "attention_mask", "targets")
    rows = {name: batch[name].reshape(-1, shape[-1]) for name in names}

    def forward(part: dict) -> dict:
        lengths = part["attention_mask"].sum(axis=1)
        longest = max(int(lengths.max()), 1)  # columns of padding alone are not computed
        part = {name: a[:, :longest] for name, a in part.items()}
        outputs, _ = model.token_outputs(
            **part, temperature=temperature, entropy=entropy, grad=False
        )
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


def _flat(part: dict[str, dict]) -> tuple[dict[str, Any], dict | None, tuple[int, ...]]:
    """(inputs, targets, (N, K) or (N,)) of a part of a batch: (N, K, T) as (N K, T)."""
    inputs, targets = {**part["inputs"], **part.get("keys", {})}, part.get("targets")
    shape = inputs["input_ids"].shape[:-1]
    if len(shape) == 2:
        keys = inputs.get("key")
        if keys is not None:
            keys = random.fold(keys[:, None], array_module(keys).arange(shape[1])).reshape(-1)
        inputs = {name: a.reshape(-1, *a.shape[2:]) for name, a in inputs.items() if name != "key"}
        inputs |= {} if keys is None else {"key": keys}
        if targets is not None:
            targets = {name: a.reshape(-1, *a.shape[2:]) for name, a in targets.items()}
    return inputs, targets, shape


def _with_shape(outputs: dict, shape: tuple[int, ...]) -> dict:
    """Outputs of flat sequences as (N, K, ...); 0-dimensional sums are unchanged."""
    return {n: a if a.ndim == 0 else a.reshape(*shape, *a.shape[1:]) for n, a in outputs.items()}


def _without_shape(doutputs: dict, shape: tuple[int, ...]) -> dict:
    return {
        name: a if getattr(a, "ndim", 0) == 0 else a.reshape(-1, *a.shape[len(shape) :])
        for name, a in doutputs.items()
    }
