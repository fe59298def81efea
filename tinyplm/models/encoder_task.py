"""What all encoders share: a task's outputs and loss on top of a family's `body`."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..backend import array_module
from ..core import Rows, Tree, add, complete
from ..layers.embedding import embedding
from ..random import fold
from .checks import STACKING, check_scale, gradient_check, run_body
from .encoder_heads import outputs_of, task_loss, vocabulary_logits


def forward(family: ModuleType, params: Tree, inputs_embeds=None, *, config, task, grad=True, key=None, **inputs):
    """outputs = {"hidden" (B, T, D)} and those of the task (see models.tasks).

    backward(doutputs) takes gradients of some of them and gives (dparams, dinputs_embeds); None without grad.
    For a multiple choice, all inputs have the choices of a question on their second axis, and the logits are (B, choices).
    """
    choices, key, inputs = _flat_choices(task, key, inputs)
    hidden, body_back = run_body(family, params["body"], inputs_embeds, config=config, grad=grad, key=key, **inputs)
    outputs, head_back = outputs_of(family.TASKS[task], params, hidden, config=config, key=key, choices=choices)
    outputs = {"hidden": hidden, **outputs}
    if family.TASKS[task].language_model is not None:
        outputs["logits"], logits_back = vocabulary_logits(family.TASKS[task].language_model, params, hidden, config)
    if not grad:
        return outputs, None
    check, finish = gradient_check(outputs), _finish(params, inputs)

    def backward(doutputs):
        check(doutputs)
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
         smoothing=0.0, grad=True, key=None, **inputs):  # fmt: skip
    """The loss of the task: the sum of those of the outputs named in targets.

    targets: {"logits": (B, T) of a language model or of tokens, (B,) of sequences or choices; "pair_logits", "start_logits",
    "end_logits": (B,)}; -100 is ignored.  total: {the same names: how many targets the whole step has}, by default those given.
    Each has the loss of models.tasks.loss_of; the two ends of a span count half each.  A language model's head works on the
    places that have a target alone, in masked language modelling 15% of all.
    -> loss (0-dimensional); backward(dloss) gives dparams; None without grad.
    """
    choices, key, inputs = _flat_choices(task, key, inputs)
    hidden, body_back = run_body(family, params["body"], config=config, grad=grad, key=key, **inputs)
    value, head_back = task_loss(family.TASKS[task], params, hidden, config=config, key=key, choices=choices, targets=targets,
                                  total=total, smoothing=smoothing, grad=grad)  # fmt: skip
    if not grad:
        return value, None
    finish = _finish(params, inputs)

    def backward(dloss):
        check_scale(dloss)
        dparams, dhidden = head_back(dloss)
        dbody, _ = body_back(dhidden)
        return finish(add(dparams, {"body": dbody}))

    return value, backward


def loss_in_parts(family: ModuleType, params: Tree, give: Callable[[str, Tree], None], *, config, task, targets, total=None,
                  smoothing=0.0, factors=False, key=None, input_ids, **inputs):  # fmt: skip
    """`loss` for training: backward(dloss), to be called once, hands each part of the gradient to give(path, gradient) as soon
    as it is complete, first the head, then layer by layer, and keeps none of them (see core.reduce_shards).

    -> loss (0-dimensional); backward returns what is left, a list of trees: the look-up's gradient of the table as core.Rows; and
    with factors=True the head's as a core.Product, which is smaller where fewer places have a target than the table is wide.
    """
    choices, key, inputs = _flat_choices(task, key, {"input_ids": input_ids, **inputs})
    ids = inputs["input_ids"]
    x, _ = embedding(params["body"]["tokens"], ids=ids)
    hidden, body_back = run_body(family, params["body"], x, config=config, once=True, key=key, **inputs,
                                    on_gradient=lambda i, dp: give(f"body.layers.{i}", dp))  # fmt: skip
    value, *backs = task_loss(family.TASKS[task], params, hidden, config=config, key=key, choices=choices, targets=targets,
                                  total=total, smoothing=smoothing, factors=factors)  # fmt: skip

    def backward(dloss):
        dparams, dhidden = backs.pop()(dloss)  # pop: what it keeps is as large as the head
        left = [{"body": dparams.pop("body")}] if factors and "body" in dparams else []
        give("", dparams)
        del dparams
        dbody, dx = body_back(dhidden)
        give("body", {**dbody, "layers": None})
        return [*left, {"body": {"tokens": Rows(ids.reshape(-1), dx.reshape(-1, dx.shape[-1]))}}]

    return value, backward


def _flat_choices(task: str, key, inputs: dict):
    """(number of choices or None, keys, inputs): in a multiple choice, (B, choices, ...) becomes (B * choices, ...)."""
    if task != "multiple_choice":
        return None, key, inputs
    choices = inputs["input_ids"].shape[1]
    flat = {name: a if a is None or name in STACKING else a.reshape(-1, *a.shape[2:]) for name, a in inputs.items()}
    return choices, None if key is None else fold(key[:, None], array_module(key).arange(choices)).reshape(-1), flat


def _finish(params: Tree, inputs: dict) -> Callable[[Tree], Tree]:
    """Zeros for what a gradient tree lacks; not with on_gradient, where they would be the full tree that it avoids."""
    if inputs.get("on_gradient") is not None:
        return lambda partial: partial
    return lambda partial: complete(partial, params)
