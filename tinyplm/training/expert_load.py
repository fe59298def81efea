"""The load of the experts in a training step: counts joined over its parts, and what follows.

A joint balance loss (models.router_losses.Balance) depends on the counts of the whole step, so all
of its parts must be routed before any goes backward.  Parts are the shards of micro-batches:

    one micro-batch   its shards, each on a thread, wait for each other after their forward passes
    several           a pass without gradients over all parts finds the counts first

Counts are whole numbers, so their sum does not depend on the order or the cut.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..arguments import mismatch
from ..backend import to_device, to_host
from ..core import Tree, map_shards, tree_map
from ..losses.balance import updated_bias
from ..models.multi_token_model import MultiTokenModel
from ..models.protocol import LossOptions, Trainable
from ..models.routed_model import RoutedModel


@dataclasses.dataclass
class ExpertLoad:
    """What training.step.accumulate reports of a step of a model with experts.

    counts  (L, X): how many tokens chose each expert of each layer; None without experts
    losses  {"balance_loss", "z_loss", "multi_token_loss"}, without their weights: those that are on
    """

    counts: Any = None
    losses: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, losses: Mapping[str, Any]) -> None:
        """Add those of one part."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0) + value

    def whole_counts(self) -> list[list[int]] | None:
        """counts as Python's integers."""
        return None if self.counts is None else to_host(self.counts).astype(int).tolist()


def check_router_weights(settings: Any, routed: bool, what: Any) -> None:
    """ValueError for weights of losses of routers where there are none; what: the model."""
    for name in ("balance", "z_loss"):
        if not routed and (value := getattr(settings, name, None)):
            raise mismatch(name, f"0, since {what} has no losses of routers", value)


def router_weights(model: Trainable, settings: Any) -> dict[str, Any]:
    """The weights of LossOptions: the settings' own; where balance is None, the config's.

    multi_token is that of a model with modules for later tokens.
    """
    if not isinstance(model, RoutedModel):
        return {}
    balance = getattr(settings, "balance", 0.0)
    balance = model.config.balance if balance is None else balance
    later = getattr(settings, "multi_token", 0.0) if isinstance(model, MultiTokenModel) else 0.0
    return {"balance": balance, "z_loss": getattr(settings, "z_loss", 0.0), "multi_token": later}


# ---------------------------------------------------------------------------- the parts of one step


class Parts:
    """The parts of a training step, which join their expert counts.

    tokens, sequences  of the whole step: see models.router_losses.StepLoad
    counts             (L, X), of the parts so far; at the end of the step, of all
    waiting            how many parts `joined` waits for
    known              the counts of the whole step, if they were found beforehand
    """

    def __init__(self, inputs: Mapping[str, Any], *, waiting: int = 1, known: Any = None) -> None:
        """inputs: of the whole step, on the host."""
        self.tokens, self.sequences = sizes(inputs)
        self.counts: Any = None
        self.waiting, self.known = waiting, known
        self._arrived = 0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    @contextmanager
    def part(self) -> Iterator[Part]:
        """One of them, for LossOptions.load.  An error in this block is raised in all that wait."""
        try:
            yield Part(self)
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()
            raise

    def joined(self, counts: Any, *, wait: bool) -> Any:
        """See models.router_losses.StepLoad."""
        with self._changed:
            self.counts = counts if self.counts is None else self.counts + counts
            self._arrived += 1
            self._changed.notify_all()
            if not wait:
                return counts
            if self.known is not None:
                return self.known
            self._changed.wait_for(lambda: self._failure or self._arrived == self.waiting)
            if self._failure is not None:
                raise self._failure  # the cause, whichever error is seen first
            return self.counts


class Part:
    """One part of a step: a models.router_losses.StepLoad.

    losses: those of its routers, as reported.
    """

    def __init__(self, step: Parts) -> None:
        self.tokens, self.sequences, self.joined = step.tokens, step.sequences, step.joined
        self.losses: dict[str, Any] = {}

    def report(self, losses: Mapping[str, Any]) -> None:
        """See models.router_losses.StepLoad."""
        self.losses.update(losses)


def sizes(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """The number of real tokens of inputs, and of sequences that have some; at least 1.

    Of an attention_mask (B, T); others do not say which tokens are padding.
    """
    mask = inputs.get("attention_mask")
    if mask is None or mask.ndim != 2:
        mask = np.ones(inputs["input_ids"].shape, dtype=bool)
    real = mask != 0
    return max(int(real.sum()), 1), max(int(real.any(axis=1).sum()), 1)


def micro_batches(batch: Tree, micro_size: int, workers: int) -> Iterator[tuple[Tree, int]]:
    """(micro-batch, number of its shards): `micro_size` samples at a time, in order."""
    samples = len(batch["inputs"]["input_ids"])
    for start in range(0, samples, micro_size):
        micro = tree_map(lambda a, start=start: a[start : start + micro_size], batch)
        yield micro, min(workers, len(micro["inputs"]["input_ids"]))


def parts_of(
    model: Trainable,
    batch: dict[str, dict],
    options: LossOptions,
    micro_size: int,
    workers: int,
    inputs_of: Callable[[dict], dict] = lambda part: part["inputs"],
) -> Parts | None:
    """The parts of this step; None for a model without experts.

    options: the weights of the routers' losses; inputs_of(part): the inputs of the model's body.
    """
    if not isinstance(model, RoutedModel):
        return None
    inputs, samples = inputs_of(batch), len(batch["inputs"]["input_ids"])
    joint = model.family.BALANCE.joint and options.balance > 0
    if not joint or samples <= micro_size:
        return Parts(inputs, waiting=min(workers, samples))

    def counts(part: dict) -> Any:
        return model.expert_counts(inputs_of(to_device(part, model.device)))

    micros = micro_batches(batch, micro_size, workers)
    found = [c for micro, count in micros for c in map_shards(counts, micro, count)]
    return Parts(inputs, known=None if found[0] is None else sum(found[1:], found[0]))


# ------------------------------------------------------------------------------- after the counting


def correct(model: Trainable, counts: Any, *, rate: float) -> None:
    """Update the routers' biases, buffers {"corrections": [(X,) or None, for each layer]}.

    Each by losses.balance.updated_bias from its layer's row of counts (L, X), of the whole step.
    The model gets new arrays.  Models without such biases, and counts None, are left as they are.
    """
    if counts is None or not isinstance(model, RoutedModel) or "corrections" not in model.buffers:
        return
    biases = list(model.buffers["corrections"])
    layers = [i for i, bias in enumerate(biases) if bias is not None]
    for row, layer in zip(range(len(counts)), layers):  # modules for later tokens may not have run
        biases[layer] = updated_bias(biases[layer], counts[row], rate=rate)
    model.buffers = {**model.buffers, "corrections": biases}


def load_record(load: ExpertLoad) -> dict[str, Any]:
    """What the log says of a step's load, with one number for each layer with experts.

    load_max, load_min  the counts of the busiest and the idlest expert / the mean count
    load_entropy        -sum p log p / log X,   p = counts / their sum: 1 if all are equal
    dropped_tokens      0: an expert has no capacity, and takes all tokens that choose it
    balance_loss, z_loss, multi_token_loss, without their weights, if they are on
    """
    if load.counts is None:
        return {}
    counts = to_host(load.counts)
    shares = counts / np.maximum(counts.mean(axis=1, keepdims=True), 1e-9)
    losses = {name: float(value) for name, value in load.losses.items()}
    found = {"max": shares.max(axis=1), "min": shares.min(axis=1), "entropy": entropy(counts)}
    rounded = {f"load_{name}": [round(float(v), 4) for v in vs] for name, vs in found.items()}
    return {**rounded, "dropped_tokens": 0, **losses}


def entropy(counts: np.ndarray) -> np.ndarray:
    """-sum_i p_i log p_i / log X of each row of counts (..., X),   p = counts / their sum."""
    p = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    X = counts.shape[-1]
    terms = np.log(np.where(p > 0, p, 1)) * p
    return -terms.sum(axis=-1) / np.log(X) if X > 1 else np.ones(counts.shape[:-1])
