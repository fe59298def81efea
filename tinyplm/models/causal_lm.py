"""What all causal language models share: logits and loss on top of a family's `body` and `output_matrix`."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from ..core import Rows, Tree, add, complete
from ..kernels.cross_entropy import vocabulary_cross_entropy
from ..kernels.log_probs import vocabulary_log_probs
from ..layers.embedding import embedding
from ..layers.linear import linear
from .checks import check_scale, gradient_check, run_body


def output_matrix(params: Tree, *, config):
    """W (D, V) with logits = hidden W: the transposed embedding table if tied (Press & Wolf 2017), else a matrix of its own.

    backward(dW) gives the part of params' gradient that comes from the head.
    """
    if config.tie_word_embeddings:
        return params["body"]["tokens"].T, lambda dW: {"body": {"tokens": dW.T}}
    return params["head"]["W"], lambda dW: {"head": {"W": dW}}


def forward(family: ModuleType, params: Tree, inputs_embeds=None, *, config, grad=True, cache=None, **inputs):
    """outputs = {"logits" (B, T, V), "hidden" (B, T, D)}, and the next "cache" where one was given.

    backward(doutputs) takes gradients of either or both and gives (dparams, dinputs_embeds); None without grad.  With
    on_gradient (see core.stack), dparams has None for each layer, whose gradient went to the callback.
    """
    hidden, after, body_back = _cached_body(family, params, inputs_embeds, config=config, grad=grad, cache=cache, **inputs)
    W, W_back = family.output_matrix(params, config=config)
    logits, head_back = linear(hidden, W)
    outputs = {"logits": logits, "hidden": hidden}
    if grad:
        check, finish = gradient_check(outputs), _finish(params, inputs)
    if cache is not None:
        outputs["cache"] = after
    if not grad:
        return outputs, None

    def backward(doutputs):
        check(doutputs)
        if after is not None:
            after.check_kept()
        dhidden, dhead = doutputs.get("hidden"), None
        if doutputs.get("logits") is not None:
            dh, dW, _ = head_back(doutputs["logits"])
            dhidden, dhead = add(dh, dhidden), W_back(dW)
        if dhidden is None:
            return finish({}), None if inputs_embeds is None else inputs_embeds * 0
        dbody, dinputs_embeds = body_back(dhidden)
        return finish(add(dhead, {"body": dbody})), dinputs_embeds

    return outputs, backward


def last_logits(family: ModuleType, params: Tree, inputs_embeds=None, *, config, cache=None, **inputs):
    """The logits (B, V) after the last position alone, without gradients: the (B, T, V) of the others are never built.

    -> (logits, the next cache or None).
    """
    hidden, after, _ = _cached_body(family, params, inputs_embeds, config=config, grad=False, cache=cache, **inputs)
    W, _ = family.output_matrix(params, config=config)
    return linear(hidden[:, -1], W)[0], after


def _cached_body(family: ModuleType, params: Tree, inputs_embeds, *, cache, **inputs):
    """(hidden, the next cache or None, backward) of a family's body; the cache given is consumed."""
    if cache is not None:
        cache.begin()
    hidden, backward = run_body(family, params["body"], inputs_embeds, cache=cache, **inputs)
    return hidden, None if cache is None else cache.advanced(hidden.shape[1]), backward


def loss(family: ModuleType, params: Tree, *, config, targets, weights=None, total=None, smoothing=0.0, chunk=1024,
         grad=True, **inputs):  # fmt: skip
    """Cross-entropy of the targets (B, T), which line up with the logits; full logits are never held.

    -> loss (0-dimensional); backward(dloss) gives dparams; None without grad.  Other keywords go to the family's body.
    """
    hidden, body_back = run_body(family, params["body"], config=config, grad=grad, **inputs)
    W, W_back = family.output_matrix(params, config=config)
    value, loss_back = vocabulary_cross_entropy(hidden, W, targets=targets, weights=weights, total=total,
                                                smoothing=smoothing, chunk=chunk, grad=grad)  # fmt: skip
    if not grad:
        return value, None
    finish = _finish(params, inputs)

    def backward(dloss):
        check_scale(dloss)
        dhidden, dW, _ = loss_back(dloss)
        dbody, _ = body_back(dhidden)
        return finish(add(W_back(dW), {"body": dbody}))

    return value, backward


def loss_in_parts(family: ModuleType, params: Tree, give: Callable[[str, Tree], None], *, config, targets, input_ids,
                  total=None, smoothing=0.0, chunk=1024, factors=False, **inputs):  # fmt: skip
    """`loss` for training: backward(dloss), to be called once, hands each part of the gradient to give(path, gradient) as soon
    as it is complete, first the head, then layer by layer, and keeps none of them (see core.reduce_shards).

    -> loss (0-dimensional); backward returns what is left, a list of trees: the look-up's gradient of the table as core.Rows,
    which is apart because a tied table has another one, from the head.  factors=True: that one is left, too, as a core.Product.
    With fewer tokens than the model is wide the factors are small, and all threads share the product when the shards are done.
    """
    hidden, body_back = body_in_parts(family, params, give, config=config, input_ids=input_ids, **inputs)
    W, W_back = family.output_matrix(params, config=config)
    value, *backs = vocabulary_cross_entropy(hidden, W, targets=targets, total=total, smoothing=smoothing, chunk=chunk,
                                             factors=factors)  # fmt: skip

    def backward(dloss):
        dhidden, dW, _ = backs.pop()(dloss)  # pop: what it keeps is as large as the head
        left = []
        if factors:
            left.append(W_back(dW))
        else:
            give("", W_back(dW))
        del dW
        return [*left, *body_back(dhidden)]

    return value, backward


def token_outputs(family: ModuleType, params: Tree, inputs_embeds=None, *, config, targets, temperature=1.0, entropy=False,
                  chunk=1024, grad=True, **inputs):  # fmt: skip
    """What losses on given tokens need: {"log_probs" (B, T), "hidden" (B, T, D), and "entropy" (B, T) if asked for}.

    targets (B, T) line up with the logits, -100 is ignored; see losses.log_probs.  Full logits are never held.
    backward(doutputs), in which a missing or None part is zero, gives (dparams, dinputs_embeds); None without grad.
    """
    hidden, body_back = run_body(family, params["body"], inputs_embeds, config=config, grad=grad, **inputs)
    W, W_back = family.output_matrix(params, config=config)
    outputs, head_back = vocabulary_log_probs(hidden, W, targets=targets, temperature=temperature, entropy=entropy, chunk=chunk,
                                              grad=grad)  # fmt: skip
    outputs["hidden"] = hidden
    if not grad:
        return outputs, None
    check, finish = gradient_check(outputs), _finish(params, inputs)

    def backward(doutputs):
        check(doutputs)
        dhidden, dW, _ = head_back(doutputs)
        dbody, dinputs_embeds = body_back(add(dhidden, doutputs.get("hidden")))
        return finish(add(W_back(dW), {"body": dbody})), dinputs_embeds

    return outputs, backward


def token_outputs_in_parts(family: ModuleType, params: Tree, give: Callable[[str, Tree], None], *, config, targets, input_ids,
                           temperature=1.0, entropy=False, chunk=1024, **inputs):  # fmt: skip
    """`token_outputs` for training: backward hands in parts of the gradient and returns what is left, as loss_in_parts does."""
    hidden, body_back = body_in_parts(family, params, give, config=config, input_ids=input_ids, **inputs)
    W, W_back = family.output_matrix(params, config=config)
    outputs, *backs = vocabulary_log_probs(hidden, W, targets=targets, temperature=temperature, entropy=entropy, chunk=chunk)

    def backward(doutputs):
        dhidden, dW, _ = backs.pop()(doutputs)
        give("", W_back(dW))
        del dW
        return body_back(add(dhidden, doutputs.get("hidden")))

    return {**outputs, "hidden": hidden}, backward


def body_in_parts(family: ModuleType, params: Tree, give: Callable[[str, Tree], None], *, config, input_ids, **inputs):
    """Hidden states; backward(dhidden), to be called once, gives the parts of the body to `give` and returns what is left."""
    x, _ = embedding(params["body"]["tokens"], ids=input_ids)
    hidden, back = run_body(family, params["body"], x, config=config, once=True, **inputs,
                               on_gradient=lambda i, dp: give(f"body.layers.{i}", dp))  # fmt: skip

    def backward(dhidden):
        dbody, dx = back(dhidden)
        give("body", {**dbody, "layers": None})
        return [{"body": {"tokens": Rows(input_ids.reshape(-1), dx.reshape(-1, dx.shape[-1]))}}]

    return hidden, backward


def _finish(params: Tree, inputs: dict) -> Callable[[Tree], Tree]:
    """Zeros for what a gradient tree lacks; not with on_gradient, where they would be the full tree that it avoids."""
    if inputs.get("on_gradient") is not None:
        return lambda partial: partial
    return lambda partial: complete(partial, params)
