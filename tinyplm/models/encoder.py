"""What all encoders share: a task's outputs and loss on top of a family's `body`."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..backend import array_module
from ..core import Rows, Tree, add, complete
from ..layers.embedding import embedding
from ..layers.linear import linear
from ..losses.cross_entropy import cross_entropy, vocabulary_cross_entropy
from ..random import fold, generator

_HEAD_KEY = 1 << 32  # the head's own randomness; bodies fold the numbers of their layers
STACKING = ("checkpointing", "once", "on_gradient")
IGNORED = -100  # a target that does not count


def output_matrix(params: Tree):
    """W (E, V) and b (V,) with logits = h W + b: the transposed embedding table and a bias.         Devlin et al. 2019, sec. 3.1

    backward(dW, db) gives the part of params' gradient that comes from the head.
    """

    def backward(dW, db):
        return {"body": {"tokens": dW.T}, "head": {"bias": db}}

    return (params["body"]["tokens"].T, params["head"]["bias"]), backward


def init(path: str, shape: tuple[int, ...], *, config: Any, key: int) -> Any:
    """One parameter's initial value, float64 on the host, or one number for all.

    Norms 1 and 0, biases 0, all else N(0, initializer_range), as in transformers; BERT's released code cuts the normal off at two
    standard deviations.
    """
    name = path.rsplit(".", 1)[-1]
    if name == "gamma":
        return 1.0
    if name.startswith("b"):  # beta, and the biases
        return 0.0
    return generator(key).normal(0, config.initializer_range, shape)


def forward(family: ModuleType, params: Tree, inputs_embeds=None, *, config, task, grad=True, key=None, **inputs):
    """outputs = {"hidden" (B, T, D)} and those of the task (see models.tasks).

    backward(doutputs) takes gradients of some of them and gives (dparams, dinputs_embeds); None without grad.
    For a multiple choice, all inputs have the choices of a question on their second axis, and the logits are (B, choices).
    """
    choices, key, inputs = _flat_choices(task, key, inputs)
    hidden, body_back = family.body(params["body"], inputs_embeds, config=config, grad=grad, key=key, **inputs)
    outputs, head_back = _outputs(family.TASKS[task], params, hidden, config=config, key=key, choices=choices)
    outputs = {"hidden": hidden, **outputs}
    if family.TASKS[task].language_model is not None:
        outputs["logits"], logits_back = _vocabulary_logits(family.TASKS[task].language_model, params, hidden, config)
    if not grad:
        return outputs, None
    finish = _finish(params, inputs)

    def backward(doutputs):
        if unknown := set(doutputs) - set(outputs):
            raise ValueError(f"backward: unknown outputs {sorted(unknown)}; expected some of {sorted(outputs)}")
        doutputs = {name: d for name, d in doutputs.items() if d is not None}
        dhidden, dparams = doutputs.pop("hidden", None), None
        if family.TASKS[task].language_model is not None and "logits" in doutputs:
            dparams, dh = logits_back(doutputs.pop("logits"))
            dhidden = add(dh, dhidden)
        if doutputs:
            dp, dh = head_back(doutputs)
            dparams, dhidden = add(dparams, dp), add(dh, dhidden)
        if dhidden is None:
            return finish({}), None if inputs_embeds is None else inputs_embeds * 0
        dbody, dinputs_embeds = body_back(dhidden)
        return finish(add(dparams, {"body": dbody})), dinputs_embeds

    return outputs, backward


def loss(family: ModuleType, params: Tree, *, config, task, targets: dict[str, Any], total: dict[str, Any] | None = None,
         grad=True, key=None, **inputs):  # fmt: skip
    """The loss of the task: the sum of those of the outputs named in targets.

    targets: {"logits": (B, T) of a language model or of tokens, (B,) of sequences or choices; "pair_logits", "start_logits",
    "end_logits": (B,)}; -100 is ignored.  total: {the same names: how many targets the whole step has}, by default those given.
    Each is a cross-entropy; the two ends of a span count half each.  A language model's head works on the places that have a
    target alone, in masked language modelling 15% of all.
    -> loss (0-dimensional); backward(dloss) gives dparams; None without grad.
    """
    choices, key, inputs = _flat_choices(task, key, inputs)
    hidden, body_back = family.body(params["body"], config=config, grad=grad, key=key, **inputs)
    value, head_back = _task_loss(family.TASKS[task], params, hidden, config=config, key=key, choices=choices, targets=targets,
                                  total=total, grad=grad)  # fmt: skip
    if not grad:
        return value, None
    finish = _finish(params, inputs)

    def backward(dloss):
        dparams, dhidden = head_back(dloss)
        dbody, _ = body_back(dhidden)
        return finish(add(dparams, {"body": dbody}))

    return value, backward


def loss_in_parts(family: ModuleType, params: Tree, give: Callable[[str, Tree], None], *, config, task, targets, total=None,
                  key=None, input_ids, **inputs):  # fmt: skip
    """`loss` for training: backward(dloss), to be called once, hands each part of the gradient to give(path, gradient) as soon
    as it is complete, first the head, then layer by layer, and keeps none of them (see core.reduce_shards).

    -> loss (0-dimensional); backward returns what is left, a list of trees: the look-up's gradient of the table as core.Rows.
    """
    choices, key, inputs = _flat_choices(task, key, {"input_ids": input_ids, **inputs})
    ids = inputs["input_ids"]
    x, _ = embedding(params["body"]["tokens"], ids=ids)
    hidden, body_back = family.body(params["body"], x, config=config, once=True, key=key, **inputs,
                                    on_gradient=lambda i, dp: give(f"body.layers.{i}", dp))  # fmt: skip
    value, head_back = _task_loss(family.TASKS[task], params, hidden, config=config, key=key, choices=choices, targets=targets,
                                  total=total, grad=True)  # fmt: skip

    def backward(dloss):
        dparams, dhidden = head_back(dloss)
        give("", dparams)
        dbody, dx = body_back(dhidden)
        give("body", {**dbody, "layers": None})
        return [{"body": {"tokens": Rows(ids.reshape(-1), dx.reshape(-1, dx.shape[-1]))}}]

    return value, backward


def _flat_choices(task: str, key, inputs: dict):
    """(number of choices or None, keys, inputs): in a multiple choice, (B, choices, ...) becomes (B * choices, ...)."""
    if task != "multiple_choice":
        return None, key, inputs
    choices = inputs["input_ids"].shape[1]
    flat = {name: a if a is None or name in STACKING else a.reshape(-1, *a.shape[2:]) for name, a in inputs.items()}
    return choices, None if key is None else fold(key[:, None], array_module(key).arange(choices)).reshape(-1), flat


def _outputs(task, params: Tree, hidden, *, config, key, choices):
    """The outputs of the head other than a language model's; backward gives (dparams, dhidden)."""
    if task.outputs is None:
        return {}, None
    outputs, back = task.outputs(params["head"], hidden, config=config, key=fold(key, _HEAD_KEY))
    shapes = {name: a.shape for name, a in outputs.items()}

    def backward(doutputs):
        dhead, dhidden = back({name: d.reshape(shapes[name]) for name, d in doutputs.items()})
        return {"head": dhead}, dhidden

    return outputs if choices is None else {name: a.reshape(-1, choices) for name, a in outputs.items()}, backward


def _vocabulary_logits(language_model: Callable, params: Tree, hidden, config):
    """logits (B, T, V); backward gives (dparams, dhidden)."""
    h, lm_back = language_model(params["head"], hidden, config=config)
    (W, b), matrix_back = output_matrix(params)
    logits, linear_back = linear(h, W, b)

    def backward(dlogits):
        dh, dW, db = linear_back(dlogits)
        dhead, dhidden = lm_back(dh)
        return add(matrix_back(dW, db), {"head": dhead}), dhidden

    return logits, backward


def _vocabulary_loss(language_model: Callable, params: Tree, hidden, *, config, targets, total, grad):
    """The cross-entropy of the places of hidden (B, T, D) whose target counts; backward(dloss) gives (dparams, dhidden)."""
    xp = array_module(hidden)
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(f"targets: logits need shape {hidden.shape[:-1]}, got {targets.shape}")
    rows = hidden.reshape(-1, hidden.shape[-1])
    places = xp.flatnonzero(targets.reshape(-1) != IGNORED)
    h, lm_back = language_model(params["head"], rows[places], config=config)
    (W, b), matrix_back = output_matrix(params)
    value, loss_back = vocabulary_cross_entropy(h, W, b, targets=targets.reshape(-1)[places], total=total, grad=grad)

    def backward(dloss):
        dh, dW, db = loss_back(dloss)
        dhead, drows = lm_back(dh)
        dhidden = xp.zeros_like(rows)
        dhidden[places] = drows
        return add(matrix_back(dW, db), {"head": dhead}), dhidden.reshape(hidden.shape)

    return value, backward


def _task_loss(task, params: Tree, hidden, *, config, key, choices, targets, total, grad):
    """The sum of the losses of the outputs named in targets; backward(dloss) gives (dparams, dhidden)."""
    total, targets = total or {}, dict(targets)
    values, backs = [], []
    if task.language_model is not None and "logits" in targets:
        value, back = _vocabulary_loss(task.language_model, params, hidden, config=config, targets=targets.pop("logits"),
                                       total=total.get("logits"), grad=grad)  # fmt: skip
        values.append(value)
        backs.append(back)
    if targets:
        outputs, outputs_back = _outputs(task, params, hidden, config=config, key=key, choices=choices)
        if unknown := set(targets) - set(outputs):
            raise ValueError(f"targets: unknown outputs {sorted(unknown)}; expected some of {sorted(outputs)}")
        losses = {name: cross_entropy(outputs[name], targets=t, total=total.get(name)) for name, t in targets.items()}
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


def _finish(params: Tree, inputs: dict) -> Callable[[Tree], Tree]:
    """Zeros for what a gradient tree lacks; not with on_gradient, where they would be the full tree that it avoids."""
    if inputs.get("on_gradient") is not None:
        return lambda partial: partial
    return lambda partial: complete(partial, params)
