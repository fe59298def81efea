"""What the walks of decoders and encoders share: the choice of a body, the look-up, the initial
values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from ..core import Component, Tree, named
from ..core.named import tracing
from ..layers.embedding import embedding
from ..random import generator


def traceable_body(family: ModuleType, config: Any) -> Component:
    """The family's `body` with this config.

    While a trace is open, a textbook's `walk`, which computes the same bits: the textbook names no
    intermediates.
    """
    body = getattr(family, "walk", family.body) if tracing() else family.body
    return partial(body, config=config)


def look_up(
    p: Tree, input_ids: Any, inputs_embeds: Any, *, name: str = "tokens"
) -> tuple[Any, Callable]:
    """tokens[input_ids], or inputs_embeds where these are given; name: in a trace.

    backward(de) gives (dp, dinputs_embeds): ({"tokens": dtokens}, None), or ({}, de).
    """
    if inputs_embeds is not None:
        return inputs_embeds, lambda de: ({}, de)
    e, tokens_back = named(name, embedding)(p["tokens"], ids=input_ids)
    return e, lambda de: ({"tokens": tokens_back(de)}, None)


def normal_init(path: str, shape: tuple[int, ...], *, std: float, key: int) -> Any:
    """One parameter's initial value, float64 on the host, or one number for all of it.

    Norms 1 and 0, biases 0, all else N(0, std^2).
    """
    name = path.rsplit(".", 1)[-1]
    if name == "gamma" or name.endswith("_norm"):
        return 1.0
    if name.startswith("b"):  # beta, and the biases
        return 0.0
    return generator(key).normal(0, std, shape)


def init(path: str, shape: tuple[int, ...], *, config: Any, key: int) -> Any:
    """normal_init with std = initializer_range, as in transformers.

    The papers of most decoders do not say; BERT's released code truncates the normal at two
    standard deviations.
    """
    return normal_init(path, shape, std=config.initializer_range, key=key)
