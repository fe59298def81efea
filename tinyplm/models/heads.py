"""Heads built from components: over a vocabulary, with several outputs, weighted sums of losses.

A head is a component of all parameters and the hidden states, value, back = head(params, hidden)
with back(dvalue) -> (dparams, dhidden): see models/parts.py.  The value of a head with outputs is a
dict; its back takes a dict in which missing or None parts are zero.  The back of a head without
gradients may be None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core import Tree, add
from ..layers.activation import capped
from ..layers.linear import linear
from ..losses.cross_entropy import cross_entropy
from .parts import Head

HEAD_KEY = 1 << 32  # a head's own randomness; bodies fold the numbers of their layers


def logits(
    hidden: Any, W: Any, b: Any = None, *, cap: float | None = None
) -> tuple[dict[str, Any], Callable]:
    """{"logits": hidden W + b}: hidden (..., D), W (D, V), b (V,) or None -> (..., V).

    With a cap, soft_cap of that.   Gradients as in `linear`, after those of soft_cap.
    """
    z, z_back = linear(hidden, W, b)
    y, cap_back = capped(z, cap)
    return {"logits": y}, lambda doutputs: z_back(cap_back(doutputs["logits"]))


def logits_of(
    hidden: Any, W: Any, b: Any = None, *, targets: Any, cap: float | None = None, **options: Any
) -> tuple[tuple, Callable]:
    """(soft_cap(hidden W + b),), which a loss over the vocabulary holds in chunks only: for traces.

    options: those of kernels.cross_entropy.   backward(dloss) gives (dlogits,).
    """
    z, _ = capped(linear(hidden, W, b)[0], cap)
    known = ("weights", "total", "smoothing")
    loss = {name: value for name, value in options.items() if name in known}
    _, loss_back = cross_entropy(z, targets=targets, **loss)
    return (z,), lambda dloss: (loss_back(dloss),)


def with_hidden(*heads: Head) -> Head:
    """{the outputs of all heads, "hidden": hidden}.

    dhidden = sum of the heads' dhidden + doutputs["hidden"]; heads without a gradient are skipped.
    """

    def head(params: Tree, hidden: Any) -> tuple[dict[str, Any], Callable]:
        outputs: dict[str, Any] = {}
        backs: list[tuple[tuple[str, ...], Callable]] = []
        for part in heads:
            values, back = part(params, hidden)
            outputs |= values
            backs.append((tuple(values), back))

        def backward(doutputs: dict[str, Any]) -> tuple[Tree, Any]:
            dparams = dhidden = None
            for names, back in backs:
                given = {name: doutputs[name] for name in names if doutputs.get(name) is not None}
                if given:
                    dp, dh = back(given)
                    dparams, dhidden = add(dparams, dp), add(dhidden, dh)
            return dparams, add(dhidden, doutputs.get("hidden"))

        return {**outputs, "hidden": hidden}, backward

    return head


def on_decoder(head: Head, *, scale: float = 1.0) -> Head:
    """head(params, scale hidden) of an encoder-decoder's states {"encoder_hidden", "hidden"}.

    dhidden = scale times the head's.
    """

    def on_states(params: Tree, states: dict[str, Any]) -> tuple[Any, Callable | None]:
        hidden = states["hidden"]
        value, back = head(params, hidden if scale == 1 else scale * hidden)

        def backward(dvalue: Any) -> tuple[Tree, Any]:
            dparams, dhidden = back(dvalue)
            return dparams, {"hidden": dhidden if scale == 1 else scale * dhidden}

        return value, None if back is None else backward

    return on_states


def with_states(head: Head) -> Head:
    """{the outputs of the head, "encoder_hidden", "hidden"}: `with_hidden` of an encoder-decoder.

    dstates = the head's + doutputs["encoder_hidden"] and doutputs["hidden"].
    """

    def on_states(params: Tree, states: dict[str, Any]) -> tuple[dict[str, Any], Callable]:
        outputs, back = head(params, states)

        def backward(doutputs: dict[str, Any]) -> tuple[Tree, Any]:
            own = {name: doutputs[name] for name in outputs if doutputs.get(name) is not None}
            dparams, dstates = back(own) if own else (None, {})
            return dparams, add(dstates, {name: doutputs.get(name) for name in states})

        return {**outputs, **states}, backward

    return on_states


def then(head: Head, f: Callable) -> Head:
    """f(head(params, hidden)) for a component f of one argument; f's backward, then the head's."""

    def composed(params: Tree, hidden: Any) -> tuple[Any, Callable]:
        outputs, head_back = head(params, hidden)
        value, f_back = f(outputs)
        return value, lambda dvalue: head_back(f_back(dvalue))

    return composed


def weighted_sum(*parts: tuple[float, Head]) -> Head:
    """sum of w_i loss_i(params, hidden); dparams = sum of w_i dparams_i, dhidden likewise."""

    def head(params: Tree, hidden: Any) -> tuple[Any, Callable]:
        values, backs = zip(*(part(params, hidden) for _, part in parts))

        def backward(dloss: Any) -> tuple[Tree, Any]:
            dparams = dhidden = None
            for (weight, _), back in zip(parts, backs):
                dp, dh = back(weight * dloss)
                dparams, dhidden = add(dparams, dp), add(dhidden, dh)
            return dparams, dhidden

        return sum(weight * value for (weight, _), value in zip(parts, values)), backward

    return head
