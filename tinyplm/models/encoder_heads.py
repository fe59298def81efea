"""The outputs and the loss of a task's head, on the hidden states of any encoder."""

from __future__ import annotations

from collections.abc import Callable

from ..backend import array_module
from ..core import IGNORED, Tree, add
from ..kernels.cross_entropy import vocabulary_cross_entropy
from ..layers.linear import linear
from ..random import fold
from .tasks import loss_of

_HEAD_KEY = 1 << 32  # the head's own randomness; bodies fold the numbers of their layers


def output_matrix(params: Tree):
    """W (E, V) and b (V,) with logits = h W + b: the transposed embedding table and a bias.         Devlin et al. 2019, sec. 3.1

    backward(dW, db) gives the part of params' gradient that comes from the head.
    """

    def backward(dW, db):
        return {"body": {"tokens": dW.T}, "head": {"bias": db}}

    return (params["body"]["tokens"].T, params["head"]["bias"]), backward


def outputs_of(task, params: Tree, hidden, *, config, key, choices):
    """The outputs of the head other than a language model's; backward gives (dparams, dhidden)."""
    if task.outputs is None:
        return {}, None
    outputs, back = task.outputs(params["head"], hidden, config=config, key=fold(key, _HEAD_KEY))
    shapes = {name: a.shape for name, a in outputs.items()}

    def backward(doutputs):
        dhead, dhidden = back({name: d.reshape(shapes[name]) for name, d in doutputs.items()})
        return {"head": dhead}, dhidden

    return outputs if choices is None else {name: a.reshape(-1, choices) for name, a in outputs.items()}, backward


def vocabulary_logits(language_model: Callable, params: Tree, hidden, config):
    """logits (B, T, V); backward gives (dparams, dhidden)."""
    h, lm_back = language_model(params["head"], hidden, config=config)
    (W, b), matrix_back = output_matrix(params)
    logits, linear_back = linear(h, W, b)

    def backward(dlogits):
        dh, dW, db = linear_back(dlogits)
        dhead, dhidden = lm_back(dh)
        return add(matrix_back(dW, db), {"head": dhead}), dhidden

    return logits, backward


def _vocabulary_loss(language_model: Callable, params: Tree, hidden, *, config, targets, **options):
    """The cross-entropy of the places of hidden (B, T, D) whose target counts; backward(dloss) gives (dparams, dhidden)."""
    xp = array_module(hidden)
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(f"targets: logits need shape {hidden.shape[:-1]}, got {targets.shape}")
    rows = hidden.reshape(-1, hidden.shape[-1])
    places = xp.flatnonzero(targets.reshape(-1) != IGNORED)
    h, lm_back = language_model(params["head"], rows[places], config=config)
    (W, b), matrix_back = output_matrix(params)
    value, loss_back = vocabulary_cross_entropy(h, W, b, targets=targets.reshape(-1)[places], **options)

    def backward(dloss):
        dh, dW, db = loss_back(dloss)
        dhead, drows = lm_back(dh)
        dhidden = xp.zeros_like(rows)
        dhidden[places] = drows
        return add(matrix_back(dW, db), {"head": dhead}), dhidden.reshape(hidden.shape)

    return value, backward


def task_loss(task, params: Tree, hidden, *, config, key, choices, targets, total, smoothing, grad=True, factors=False):
    """The sum of the losses of the outputs named in targets; backward(dloss) gives (dparams, dhidden)."""
    total, targets = total or {}, dict(targets)
    values, backs = [], []
    if task.language_model is not None and "logits" in targets:
        value, back = _vocabulary_loss(task.language_model, params, hidden, config=config, targets=targets.pop("logits"),
                                       total=total.get("logits"), smoothing=smoothing, grad=grad, factors=factors)  # fmt: skip
        values.append(value)
        backs.append(back)
    if targets:
        outputs, outputs_back = outputs_of(task, params, hidden, config=config, key=key, choices=choices)
        if unknown := set(targets) - set(outputs):
            raise ValueError(f"targets: unknown outputs {sorted(unknown)}; expected some of {sorted(outputs)}")
        options = {"smoothing": smoothing} if smoothing else {}  # of classes alone
        losses = {n: loss_of(t, config)(outputs[n], targets=t, total=total.get(n), **options) for n, t in targets.items()}
        share = 0.5 if "start_logits" in outputs else 1.0
        values += [share * value for value, _ in losses.values()]
        backs.append(lambda dloss: outputs_back({name: back(share * dloss) for name, (_, back) in losses.items()}))
    if not values:
        raise ValueError("targets: expected those of at least one output, got none")

    def backward(dloss):
        dparams = dhidden = None
        for back in backs:
            dp, dh = back(dloss)
            dparams, dhidden = add(dparams, dp), add(dhidden, dh)
        return dparams, dhidden

    return sum(values), backward
