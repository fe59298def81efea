"""Traces: every named intermediate of a model's calls, with its value and its gradient.

    with tinyplm.trace() as t:
        loss, backward = model.loss(input_ids=ids, targets={"logits": targets})
        backward(1.0)
    t["layers.3.attention.q"].value, t["layers.3.attention.q"].gradient

Names are paths in the order of the computation.  In a decoder:

    tokens, embeddings      the rows looked up; what enters the first layer
    layers.3.norm1          and norm2: the two norms of layer 3
    layers.3.attention      with .q .k .v (B, T, heads * E), after rotation .q_rotary .k_rotary
                            (B, heads, T, E), with a cache .k_cached .v_cached, and .heads (B, H, T,
                            E), what enters the output projection; on request .scores and
                            .probabilities (B, H, T, S)
    layers.3.residual       what enters the second half of the layer
    layers.3.mlp            with .gate .up .activation .product, or .up .activation; of experts with
                            .router (B, T, X), .weights (B, T, k), and each that has tokens: in
                            .experts.7 its rows
    layers.3                the layer's output
    norm, hidden, logits    the final norm and the outputs of the call; the loss is "loss"

In an encoder-decoder all of these but logits and loss are "encoder.…" and "decoder.…".  A layer of
the decoder has norm3, .cross with .q .k .v .heads, and .cross_residual, what enters its last part.

A gradient is that of the scalar whose gradient backward was given.  Nothing that a model computes
changes by a trace, not even in the last bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ..arguments import wrong
from ..backend import array_module, to_host
from ..core import Component, StackOptions, Tree, flatten, tree_map
from ..core.named import RECORDER, More, Name

ON_REQUEST = ("scores", "probabilities")


@dataclasses.dataclass
class Record:
    """One intermediate: arrays on the host, copies.  gradient: None before backward passes it."""

    value: np.ndarray
    gradient: np.ndarray | None = None


class Call(Mapping):
    """One call of a model: {path: Record} in the order of the forward.

    model       the model that was called, or None
    source      "tinyplm"; "torch" where names are modules of a PyTorch model; "arrays" of a file
    inputs      {name: array} of the call on the host; targets of a loss as "targets.logits"
    backward    paths in the order in which their gradients came
    gradients   the gradient tree of the model's parameters, or {hub name: array}; None before
                backward
    file_type   the model's type that a file names, "" without one
    names       what other names the modules of a PyTorch model have: see trace_torch
    dtypes      {name: dtype} where the values were computed in one that NumPy lacks
    again       again(dtype): this call once more with parameters of that dtype, or None.  Valid
                until the parameters are updated
    """

    def __init__(self, model: Any = None, source: str = "tinyplm") -> None:
        self.model, self.source = model, source
        self.gradients: Tree = None
        self.records: dict[str, Record] = {}
        self.backward: list[str] = []
        self.inputs: dict[str, np.ndarray] = {}
        self.file_type = ""
        self.names: Any = None
        self.dtypes: dict[str, str] = {}
        self.again: Callable[[str], Call] | None = None

    def __getitem__(self, path: str) -> Record:
        if path not in self.records:
            raise KeyError(f"trace: expected one of {', '.join(self.records)}, got {path!r}")
        return self.records[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


class Trace(Call):
    """What `trace` gives: the last call, as a mapping, and all `calls` in their order."""

    def __init__(self, also: tuple[str, ...]) -> None:
        self.also = also
        self.calls: list[Call] = []

    @property
    def last(self) -> Call:
        """The last call."""
        if not self.calls:
            raise ValueError("trace: expected a call of a model in it, got none")
        return self.calls[-1]

    model = property(lambda self: self.last.model)
    gradients = property(lambda self: self.last.gradients)
    records = property(lambda self: self.calls[-1].records if self.calls else {})
    backward = property(lambda self: self.last.backward)
    source = property(lambda self: self.last.source)
    inputs = property(lambda self: self.last.inputs)
    file_type = property(lambda self: self.last.file_type)
    names = property(lambda self: self.last.names)
    dtypes = property(lambda self: self.last.dtypes)
    again = property(lambda self: self.last.again)


@contextmanager
def trace(*, also: tuple[str, ...] | list[str] = ()) -> Iterator[Trace]:
    """Records the calls of models in this thread while it is open, and their backwards whenever
    they run.

    also: "scores" and "probabilities" of attention, which are not formed otherwise where attention
    works by blocks.   A second backward of the same call overwrites its gradients.
    """
    if not isinstance(also, (tuple, list)) or not set(also) <= set(ON_REQUEST):
        raise wrong("trace: also", f"some of {', '.join(ON_REQUEST)}", also)
    opened = Trace((*also, "logits"))
    token = RECORDER.set(_Place(opened, Call(), ""))
    try:
        yield opened
    finally:
        RECORDER.reset(token)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A core.named.Recorder: where in the computation a component runs."""

    trace: Trace
    to: Call
    path: str

    def within(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def call(self, model: Any, f: Callable, targets: Any) -> Callable:
        """f as one call: its value under the names of the outputs, or "loss"."""

        def called(
            body: Any, head: Any, params: Tree, inputs: Any, stacking: StackOptions
        ) -> tuple[Any, Callable | None]:
            to = Call(model)
            self.trace.calls.append(to)
            to.inputs = {name: _copied(a) for name, a in _arrays(inputs, targets).items()}
            place = _Place(self.trace, to, "")
            value, back = place.run(f, body, head, params, inputs, stacking)
            place.record(_outputs(value))
            if inputs.get("cache") is None:
                given = (body, head, params, inputs, stacking)
                to.again = partial(_again, self.trace.also, to, f, *given)
            if back is None:
                return value, None

            def backward(dvalue: Any) -> tuple:
                place.record_gradients(_outputs(dvalue))
                gradients, *dembeds = place.run(back, dvalue)
                to.gradients = gradients
                return gradients, *dembeds

            return value, backward

        return called

    def recorded(self, name: Name, f: Component, scope: bool, more: More | None) -> Component:
        inner = self
        if scope and isinstance(name, str):
            inner = _Place(self.trace, self.to, self.within(name))

        def component(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
            added, added_back = self.added(more, args, kwargs)
            y, back = inner.run(f, *args, **kwargs)
            self.record({**added, **_under(name, y)})
            if back is None:
                return y, None

            def backward(*dy: Any) -> Any:
                given = dy if isinstance(name, tuple) else dy[0]
                self.record_gradients({**_under(name, given), **added_back(given)})
                return inner.run(back, *dy)

            return y, backward

        def part(suffix: str) -> Component:
            return self.recorded(f"{name}.{suffix}", f, scope, more)

        component.part = part  # type: ignore[attr-defined]  # see core.named.named_part
        return component

    def run(self, f: Callable, /, *args: Any, **kwargs: Any) -> Any:
        """f(...) with this as the place where named components are."""
        token = RECORDER.set(self)
        try:
            return f(*args, **kwargs)
        finally:
            RECORDER.reset(token)

    def added(self, more: More | None, args: tuple, kwargs: dict) -> tuple[dict, Callable]:
        """Values on request, and a function of dy that gives their gradients, both by name."""
        if more is None or not set(more[0]) & set(self.trace.also):
            return {}, lambda dy: {}
        names, component = more
        values, back = component(*args, **kwargs)

        def asked(found: tuple) -> dict[str, Any]:
            return {name: a for name, a in zip(names, found) if name in self.trace.also}

        return asked(values), lambda dy: asked(back(dy))

    def record(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            record = Record(_copied(value))
            known = self.to.records.get(self.within(name))
            if known is not None and np.array_equal(known.value, record.value, equal_nan=True):
                record.gradient = known.gradient  # computed again, for a backward
            self.to.records[self.within(name)] = record

    def record_gradients(self, gradients: dict[str, Any]) -> None:
        for name, d in gradients.items():
            path = self.within(name)
            if d is not None and path in self.to.records:
                value = self.to.records[path].value
                d = _copied(d)
                self.to.records[path].gradient = np.broadcast_to(d, value.shape)
                if path in self.to.backward:
                    self.to.backward.remove(path)
                self.to.backward.append(path)


def _again(
    also: tuple[str, ...],
    to: Call,
    f: Callable,
    body: Any,
    head: Any,
    params: Tree,
    inputs: Mapping,
    stacking: StackOptions,
    dtype: str,
) -> Call:
    """The call that `to` recorded, with parameters and embeddings of this dtype; its backward too,
    from the recorded gradients of the outputs."""

    def cast(tree: Any) -> Any:
        return tree_map(lambda a: a.astype(dtype), tree)

    opened = Trace(also)
    called = _Place(opened, Call(), "").call(to.model, f, None)
    embeds = inputs.get("inputs_embeds")
    stacking = dataclasses.replace(stacking, on_gradient=None)
    inputs = {**inputs, "inputs_embeds": None if embeds is None else cast(embeds)}
    value, back = called(body, head, cast(params), inputs, stacking)
    given = {n: to.records[n].gradient for n in _outputs(value)}
    if back is not None and any(d is not None for d in given.values()):
        if isinstance(value, Mapping):
            xp = array_module(value["hidden"])
            back({n: None if d is None else xp.asarray(d.astype(dtype)) for n, d in given.items()})
        else:
            back(float(given["loss"] or 0))
    return opened.last


def _arrays(inputs: Mapping, targets: Any) -> dict[str, Any]:
    """The arrays among the inputs of a call, and the targets of its loss."""
    targets = targets if isinstance(targets, Mapping) else {}
    given = {**inputs, **{f"targets.{name}": a for name, a in targets.items()}}
    return {n: a for n, a in given.items() if a is not None and n not in ("cache", "key")}


def _under(name: Name, y: Any) -> dict[str, Any]:
    """The values by their names: of a tuple those that have one; of a tree each leaf.

    A stream that also holds the routing of experts (models/routed.py) is its hidden states: each
    router is recorded by itself.
    """
    if name is None:
        return {}
    if isinstance(name, tuple):
        return {n: a for n, a in zip(name, y) if n is not None}
    if isinstance(y, dict) and "hidden" in y:
        return {name: y["hidden"]}
    if isinstance(y, (dict, list)):
        return {f"{name}.{path}": a for path, a in flatten(y).items()}
    return {name: y}


def _outputs(value: Any) -> dict[str, Any]:
    """The arrays of a call's value, or of its gradient."""
    if not isinstance(value, Mapping):
        return {"loss": value}
    return {n: a for n, a in value.items() if hasattr(a, "dtype")}


def _copied(a: Any) -> np.ndarray:
    return np.array(to_host(a) if hasattr(a, "dtype") else a)  # dloss may be a Python number
