"""The heads of encoders: a language model over the embedding table, a task's outputs and losses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from ..arguments import mismatch, wrong
from ..backend import array_module
from ..core import IGNORED, Tree, add, named
from ..core.named import More
from ..kernels.cross_entropy import vocabulary_cross_entropy
from ..random import fold
from .heads import HEAD_KEY, logits_of, then, weighted_sum
from .parts import Head
from .protocol import LossInputs
from .tasks import Task, loss_of


def vocabulary_head(f: Callable, task: Task, config: Any, *, more: More | None = None) -> Head:
    """f(h, W, b), h = task.language_model(hidden) (..., E) and W the transposed embedding table.

    b (V,) is a bias of the head's own (Devlin et al. 2019, sec. 3.1).   more: see core.named.
    With dh, dW, db = f_back(dvalue): the table's gradient is dW^T, and dhidden that of the
    language model's transform at dh.
    """
    transform = task.language_model
    if transform is None:
        raise wrong("task", "one with a language model", task)

    def head(params: Tree, hidden: Any) -> tuple[Any, Callable | None]:
        h, h_back = transform(params["head"], hidden, config=config)
        W, b = params["body"]["tokens"].T, params["head"]["bias"]
        value, f_back = named(None, f, more=more)(h, W, b)

        def backward(dvalue: Any) -> tuple[Tree, Any]:
            dh, dW, db = f_back(dvalue)
            dhead, dhidden = h_back(dh)
            tied = {"body": {"tokens": dW.T}, "head": {"bias": db}}
            return add(tied, {"head": dhead}), dhidden

        return value, None if f_back is None else backward

    return head


def outputs_head(task: Task, config: Any, *, key: Any = None, choices: int | None = None) -> Head:
    """The outputs of a task other than a language model's logits; none is an empty dict.

    choices: of a multiple choice, whose logits (B choices, 1) become (B, choices).
    """
    f = task.outputs
    if f is None:
        return lambda params, hidden: ({}, lambda doutputs: (None, None))

    def head(params: Tree, hidden: Any) -> tuple[dict[str, Any], Callable]:
        outputs, back = f(params["head"], hidden, config=config, key=fold(key, HEAD_KEY))
        shapes = {name: a.shape for name, a in outputs.items()}
        if choices is not None:
            outputs = {name: a.reshape(-1, choices) for name, a in outputs.items()}

        def backward(doutputs: dict[str, Any]) -> tuple[Tree, Any]:
            flat = {name: d.reshape(shapes[name]) for name, d in doutputs.items()}
            dhead, dhidden = back(flat)
            return {"head": dhead}, dhidden

        return outputs, backward

    return head


def output_losses(
    targets: Mapping[str, Any],
    total: Mapping[str, Any],
    smoothing: float,
    config: Any,
    others: Collection[str] = (),
) -> Callable:
    """loss(outputs) = sum of the losses of the outputs named in targets (models.tasks.loss_of), a
    component of one argument; the two ends of an answer count half each.

    total: {output: what its loss is divided by}, by default the number of targets that count.
    others: outputs whose loss is computed elsewhere, for the message about an unknown one.
    """
    options = {"smoothing": smoothing} if smoothing else {}  # of classes alone

    def f(outputs: Mapping[str, Any]) -> tuple[Any, Callable]:
        if unknown := sorted(set(targets) - set(outputs)):
            expected = f"some of {', '.join(sorted({*outputs, *others}))}"
            raise mismatch("targets", expected, ", ".join(unknown))
        share = 0.5 if "start_logits" in outputs else 1.0
        losses = {
            name: loss_of(t, config)(outputs[name], targets=t, total=total.get(name), **options)
            for name, t in targets.items()
        }

        def backward(dloss: Any) -> dict[str, Any]:
            return {name: back(share * dloss) for name, (_, back) in losses.items()}

        return sum(share * value for value, _ in losses.values()), backward

    return f


def at_targets(head_of: Callable[[Any], Head], targets: Any) -> Head:
    """A loss of the places of hidden (B, T, D) with a target: 15% in masked language modelling.

    head_of(t): the loss of rows (N, D) with the targets t (N,).  dhidden is zero elsewhere.
    """

    def head(params: Tree, hidden: Any) -> tuple[Any, Callable | None]:
        xp = array_module(hidden)
        if targets.shape != hidden.shape[:-1]:
            raise mismatch("targets: logits", f"shape {hidden.shape[:-1]}", targets.shape)
        rows, t = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        places = xp.flatnonzero(t != IGNORED)
        value, back = head_of(t[places])(params, rows[places])

        def backward(dloss: Any) -> tuple[Tree, Any]:
            dparams, drows = back(dloss)
            dhidden = xp.zeros_like(rows)
            dhidden[places] = drows
            return dparams, dhidden.reshape(hidden.shape)

        return value, None if back is None else backward

    return head


def loss_head(
    task: Task,
    config: Any,
    loss: LossInputs,
    *,
    grad: bool = True,
    key: Any = None,
    choices: int | None = None,
) -> Head:
    """The sum of the losses of the outputs named in targets; see EncoderModel.loss."""
    targets, total, options, heads = dict(loss.targets), loss.total or {}, loss.options, []
    if not targets:
        raise ValueError("targets: expected those of at least one output, got none")
    if task.language_model is not None and "logits" in targets:
        f = partial(
            vocabulary_cross_entropy,
            total=total.get("logits"),
            smoothing=options.smoothing,
            chunk=options.chunk,
            factors=options.factors,
            grad=grad,
        )

        def language_model(t: Any) -> Head:
            more = (("logits",), partial(logits_of, targets=t, **f.keywords))
            return vocabulary_head(partial(f, targets=t), task, config, more=more)

        heads.append(at_targets(language_model, targets.pop("logits")))
    if targets:
        others = () if task.language_model is None else ("logits",)
        losses = output_losses(targets, total, options.smoothing, config, others)
        heads.append(then(outputs_head(task, config, key=key, choices=choices), losses))
    return heads[0] if len(heads) == 1 else weighted_sum(*((1.0, head) for head in heads))
