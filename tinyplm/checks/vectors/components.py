"""The table of components as subjects: drawn cases, and difficult ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...core import tree_map
from ...layers import attention, cross_attention, heads, moe, rope
from ...losses import log_probs
from ...tuning.adapters import lora
from ..case import Case
from ..cases import COMPONENTS
from ..laws import gradients
from .difficult import difficult_cases
from .draws import ExactSizes, sizes
from .subject import Made, Result, Subject, named

# The function with the equation, where the table has a wrapper around it.
DOCUMENTED: dict[str, Any] = {
    "log_probs": log_probs.log_probs,
    "vocabulary_log_probs": log_probs.vocabulary_log_probs,
    "rope": rope.rope,
    "rope_interleaved": rope.rope,
    "paired_rope": rope.paired_rope,
    "decoder_attention": attention.attention,
    "cross_block_attention": attention.attention,
    "joined_attention": attention.multi_head_attention,
    "rotary_attention": attention.multi_head_attention,
    "span_head": heads.span_head,
    "keys_and_values": cross_attention.keys_and_values,
    "lora": lora.lora,
    "moe": moe.moe_and_logits,
}
DRAWN = 4  # cases of each component
# Frequencies of rotary positions are computed in float64 in every dtype.
WIDE = ("frequencies",)


def documented(name: str) -> Any:
    """The function whose docstring has the equation: of a kernel that of its plain form."""
    plain = COMPONENTS[name].plain
    return DOCUMENTED.get(name, COMPONENTS[name].f) if plain is None else documented(plain)


def argument_names(name: str, count: int) -> list[str]:
    """The names of the positional arguments."""
    parameters = list(inspect.signature(COMPONENTS[name].f).parameters.values())
    if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:  # a wrapper
        parameters = list(inspect.signature(documented(name)).parameters.values())
    return [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY][:count]


def run(f: Callable, arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    """One call of a component."""
    y, back = f(*arguments.values(), **keywords)
    outputs = named("output", y)

    def backward(cotangents: dict[str, Any]) -> dict[str, Any]:
        dy = cotangents["output"] if "output" in cotangents else _tree(y, cotangents)
        found: dict[str, Any] = {}
        for name, g in zip(arguments, gradients(back, dy, len(arguments))):
            found |= named(f"gradient.{name}", g)
        return found

    return Result(outputs, tuple(outputs), backward)


def _tree(y: Any, cotangents: dict[str, Any]) -> Any:
    """The cotangents as a tree like y."""
    parts = iter(cotangents.values())
    return tree_map(lambda _: next(parts), y)


def _cases(name: str) -> list[Made]:
    entry = COMPONENTS[name]
    drawn = [sizes(number) for number in range(DRAWN)]
    made = [(f"drawn-{i + 1}", "", entry.make(s), s) for i, s in enumerate(drawn)]
    return [_made(name, *case) for case in (*made, *difficult_cases(name))]


def _made(name: str, label: str, note: str, case: Case, s: ExactSizes) -> Made:
    args = dict(zip(argument_names(name, len(case.args)), case.args, strict=True))
    drawn = {n: getattr(s, n) for n in (*"BTSDKGEFV", "seed")}
    return Made(label, note, args, case.kwargs, {**drawn, "flags": list(s.flags)})


def subject(name: str) -> Subject:
    entry = COMPONENTS[name]
    kind = "component" if entry.plain is None else "kernel"
    cases = partial(_cases, name)
    return Subject(
        name, kind, entry.text, documented(name), partial(run, entry.f), cases, wide=WIDE
    )
