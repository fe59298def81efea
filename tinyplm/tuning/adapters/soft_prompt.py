"""Prompt tuning: P trained vectors before the embeddings of a frozen model.     Lester et al. 2021

    x = [rows; tokens[ids]],   drows = the first P rows of dx, summed over the samples

Only the P D numbers of the rows change, so a task costs P D numbers on disk and two moments of that
size in training.  The backward still passes through the whole model, since the rows are its input.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import (
    LARGEST_KEY,
    MOST,
    check_names,
    check_whole,
    is_whole,
    listed,
    mismatch,
    shown,
    wrong,
)
from ...backend import array_module, at_least_float32, to_host
from ...core import StackOptions, Tree
from ...files import printable
from ...generation.sampling import Sampling
from ...generation.settings import stops_of
from ...layers.embedding import embedding
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...models.parts import Emit, Head
from ...models.protocol import Arrays, InParts, Passed
from ...models.routed_model import without_routing
from ..align.sft import Result, SFTSettings, sft
from ..data.sequences import TokenSequence, check_every
from .files import check_tensor, load_adapter, save_adapter


def prompt_rows(
    model: CausalModel, *, rows: int | None = None, ids: Sequence[int] | None = None, key: int = 0
) -> Any:
    """Initial rows (P, D): the embeddings of token ids, or of `rows` random tokens.

    Words that name the task, or its labels, are a good start (Lester et al. 2021, sec. 3.2).
    ValueError unless exactly one of both is given.
    """
    if (rows is None) == (ids is None):
        raise ValueError("soft prompt: expected either rows or ids to start from")
    tokens = model.params["body"]["tokens"]
    if ids is None:
        check_whole("rows", rows, 1, MOST)
        ids = random.generator(random.key(key)).integers(0, tokens.shape[0], rows).tolist()
    return embedding(tokens, ids=array_module(tokens).asarray(list(ids)))[0] + 0  # + 0: a copy


class SoftPrompted(CausalModel):
    """A decoder behind trained rows: params are {"rows": (P, D)}, and `base` does not change."""

    facts = {"kind": "soft prompt"}

    def __init__(self, base: CausalModel, rows: Any) -> None:
        check_decoder("base", base)
        check_tensor("rows", rows)
        D, context = base.width, base.config.context
        if rows.ndim != 2 or rows.shape[1] != D or rows.shape[0] >= context:
            raise mismatch("soft prompt: rows", f"shape (P, {D}) with P < {context}", rows.shape)
        places = {"tokenizer": base.tokenizer, "device": base.device, "buffers": base.buffers}
        super().__init__(base.family, base.config, {"rows": rows}, **places)
        self.generation, self.files = base.generation, base.files
        self.base = base

    @property
    def rows(self) -> Any:
        return self.params["rows"]

    @property
    def width(self) -> int:
        return self.base.width

    def _whole(
        self, head: Head, inputs: Arrays, stacking: StackOptions, targets: Any = None
    ) -> Passed:
        """head(hidden[:, P:]) of the base model behind the rows.

        backward gives ({"rows": drows}, dinputs_embeds); the base model has no gradient.
        """
        P, base = self.rows.shape[0], self.base
        for name in ("position_ids", "prefix_lengths", "cache"):
            if inputs.get(name) is not None:
                raise wrong(name, "None behind a soft prompt", inputs[name])
        mask, given = inputs.get("attention_mask"), inputs.get("inputs_embeds")
        table = base.params["body"]["tokens"]
        x = embedding(table, ids=inputs["input_ids"])[0] if given is None else given
        xp, (B, T, D) = array_module(x), x.shape
        if P + T > base.config.context:
            raise mismatch(
                "input_ids", f"at most {base.config.context - P} tokens behind {P} rows", T
            )
        embeds = xp.concatenate([xp.broadcast_to(self.rows, (B, P, D)), x], axis=1)
        if mask is not None:
            mask = xp.concatenate([xp.ones((B, P), dtype=mask.dtype), mask], axis=1)

        def behind(params: Tree, hidden: Any) -> tuple[Any, Callable | None]:
            value, back = head(params, hidden[:, P:])
            if back is None:
                return value, None

            def backward(dvalue: Any) -> tuple[Tree, Any]:
                _, d = back(dvalue)
                if d is None:
                    return None, None
                return None, xp.concatenate([xp.zeros((B, P, D), dtype=d.dtype), d], axis=1)

            return value, backward

        wide = {"inputs_embeds": embeds, "attention_mask": mask, "key": inputs.get("key")}
        dropped = dataclasses.replace(stacking, on_gradient=lambda i, dp: None)
        options = dropped if stacking.grad else stacking
        value, back = without_routing(base)._whole(behind, wide, options, targets)
        if back is None:
            return value, None

        def backward(dvalue: Any) -> tuple[Tree, Any]:
            _, dembeds = back(dvalue)
            return {"rows": dembeds[:, :P].sum(axis=0)}, None if given is None else dembeds[:, P:]

        return value, backward

    def _in_parts(self, emit: Emit, head: Head, inputs: Arrays, stacking: StackOptions) -> InParts:
        value, back = self._whole(head, inputs, dataclasses.replace(stacking, once=True))
        if back is None:
            raise wrong("stacking", "StackOptions with grad", stacking)

        def backward(dvalue: Any) -> list[Tree]:
            emit("", back(dvalue)[0])
            return []

        return value, backward


def soft_prompt(
    model: CausalModel,
    sequences: Sequence[TokenSequence],
    settings: SFTSettings | None = None,
    *,
    rows: Any = 16,
    ids: Sequence[int] | None = None,
    validation: Sequence[TokenSequence] = (),
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> tuple[SoftPrompted, Result]:
    """Train rows for a task: (the model behind them, sft's result); the model does not change.

    rows: their number, or (P, D) initial values; with ids, the embeddings of these.  Otherwise as
    tuning.align.sft, with a larger learning rate: Lester et al. 2021 use 0.3 instead of 0.001.
    """
    settings = SFTSettings.given(settings)
    check_decoder("model", model)
    for name, some in (("sequence", sequences), ("validation sequence", validation)):
        check_every(some, name=name, least=0)
    if settings.packed is not None:
        raise wrong("packed", "None, since the rows stand before each sequence", settings.packed)
    if isinstance(rows, int) or ids is not None:
        count = rows if ids is None else None
        rows = prompt_rows(model, rows=count, ids=ids, key=settings.seed)
    prompted = SoftPrompted(model, rows)
    longest = max(map(len, [*sequences, *validation]), default=0)
    if rows.shape[0] + longest > model.config.context:
        most = model.config.context - rows.shape[0]
        raise mismatch("sequences", f"at most {most} places behind {rows.shape[0]} rows", longest)
    options: dict[str, Any] = {"out": out, "resume": resume, "progress": progress}
    result = sft(prompted, sequences, settings, validation=validation, **options)
    return prompted, result


def continuation(
    prompted: SoftPrompted,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    stop_ids: Iterable[int] | None = None,
    seed: int = 0,
    **sampling: Any,
) -> list[int]:
    """The ids that continue a prompt behind the rows, without the one that ended them.

    sampling: the fields of generation.sampling.Sampling.
    """
    if not isinstance(prompted, SoftPrompted):
        raise wrong("prompted", "a SoftPrompted, as soft_prompt gives it", prompted)
    check_names("continuation", sampling, [field.name for field in dataclasses.fields(Sampling)])
    check_whole("max_new_tokens", max_new_tokens, 1, MOST)
    check_whole("seed", seed, 0, LARGEST_KEY)
    vocabulary = prompted.config.vocab_size
    ids = f"one or more token ids from 0 to {vocabulary - 1}"
    prompt = listed("prompt", prompt, ids)
    if not prompt or not all(is_whole(i) and 0 <= i < vocabulary for i in prompt):
        raise wrong("prompt", ids, prompt)
    base, settings = prompted.base, Sampling(**sampling)
    stops = stops_of(base, stop_ids)
    P = prompted.rows.shape[0]
    xp = array_module(prompted.rows)
    cache = base.empty_cache(1, min(P + len(prompt) + max_new_tokens, base.config.cache_context))
    x, _ = embedding(base.params["body"]["tokens"], ids=base.inputs([list(prompt)])["input_ids"])
    draw = random.generator(random.key(seed))
    embeds = xp.concatenate([prompted.rows[None], x], axis=1)
    outputs, _ = base(inputs_embeds=embeds, cache=cache, grad=False)
    text = list(prompt)
    for _ in range(max_new_tokens):
        logits = at_least_float32(to_host(outputs["logits"][:, -1]))
        token = int(settings.choose(logits, [text], [draw])[0])
        if token in stops:
            break
        text.append(token)
        if P + len(text) > base.config.cache_context or len(text) == len(prompt) + max_new_tokens:
            break
        outputs, _ = base([[token]], cache=outputs["cache"], grad=False)
    return text[len(prompt) :]


def save_rows(rows: Any, folder: str | os.PathLike) -> None:
    """Write the rows into a folder, as the recipe does; see tuning.adapters."""
    check_tensor("rows", rows)
    if rows.ndim != 2:
        raise wrong("rows", "an array (P, D)", rows)
    save_adapter({"rows": rows}, folder, SoftPrompted.facts)


def load_rows(folder: str | os.PathLike) -> np.ndarray:
    """The rows (P, D) of a folder; ValueError naming the folder if it has none."""
    tensors, _ = load_adapter(folder, SoftPrompted.facts["kind"])
    if tensors.keys() != {"rows"} or tensors["rows"].ndim != 2:
        raise ValueError(f"{printable(folder)}: expected rows (P, D), got {shown(list(tensors))}")
    return tensors["rows"]
