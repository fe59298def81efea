"""Prompt tuning: the model frozen, P trained vectors in front of the tokens' embeddings.                    Lester et al. 2021

    x = [rows; tokens[ids]],   drows = the first P rows of dx, summed over the samples

Only the P D numbers of the rows change.  The backward still passes through the whole model, since the gradient comes to the rows
from above; what is saved are moments, and a task costs P D numbers on disk.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import LARGEST_KEY, MOST, check_names, check_whole, is_whole, listed, shown, wrong
from ...backend import array_module, at_least_float32, to_host
from ...core import IGNORED
from ...files import named
from ...generation.generate import stops_of
from ...generation.sampling import Sampling
from ...layers.embedding import embedding
from ...models import causal_lm
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ..align.sft import Result, SFTSettings, sft
from ..data.sequences import Sequence as TokenSequence
from ..data.sequences import check_every
from .files import check_tensor, load_adapter, save_adapter


def prompt_rows(model: CausalModel, *, rows: int | None = None, ids: Sequence[int] | None = None, key: int = 0) -> Any:
    """(P, D) to start from: the embeddings of token ids (words that name the task, or its labels, are a good start, Lester et al.
    2021, sec. 3.2), or of `rows` tokens drawn by the key.  ValueError unless one of both is given.
    """
    if (rows is None) == (ids is None):
        raise ValueError("soft prompt: expected either rows or ids to start from")
    tokens = model.params["body"]["tokens"]
    if ids is None:
        check_whole("rows", rows, 1, MOST)
        ids = random.generator(random.key(key)).integers(0, tokens.shape[0], rows).tolist()
    return embedding(tokens, ids=array_module(tokens).asarray(list(ids)))[0] + 0  # + 0: a copy


class SoftPrompted(CausalModel):
    """A decoder behind trained rows; its params are {"rows": (P, D)}, `base` is the model, which stays as it is."""

    facts = {"kind": "soft prompt"}

    def __init__(self, base: CausalModel, rows: Any) -> None:
        check_decoder("base", base)
        check_tensor("rows", rows)
        D = base.params["body"]["tokens"].shape[1]
        if rows.ndim != 2 or rows.shape[1] != D or rows.shape[0] >= base.config.context:
            raise ValueError(f"soft prompt: rows {rows.shape} do not fit: expected (P, {D}) with P < {base.config.context}")
        super().__init__(base.family, base.config, {"rows": rows}, tokenizer=base.tokenizer, device=base.device)
        self.generation, self.files = base.generation, base.files
        self.base = base

    @property
    def rows(self) -> Any:
        return self.params["rows"]

    def token_outputs(self, input_ids, *, targets, attention_mask=None, grad=True, key=None, **options):
        """{"log_probs", "hidden", ...} of the tokens, as for CausalModel, behind the rows; backward gives {"rows"}."""
        inputs = self.base.checked({"input_ids": input_ids, "attention_mask": attention_mask})
        return self._outputs(targets=targets, **inputs, grad=grad, key=key, **options)

    def outputs_in_parts(self, give, *, input_ids, targets, attention_mask=None, **options):
        """The same in the form that a learner takes."""
        inputs = self.base.checked({"input_ids": input_ids, "attention_mask": attention_mask})
        outputs, back = self._outputs(targets=targets["logits"], **inputs, **options)

        def backward(doutputs):
            give("", back(doutputs))
            return []

        return outputs, backward

    def _outputs(self, *, input_ids, targets, attention_mask, grad=True, **options):
        ids, mask, (P, _), base = input_ids, attention_mask, self.rows.shape, self.base
        xp = array_module(ids)
        x, _ = embedding(base.params["body"]["tokens"], ids=ids)
        B = x.shape[0]
        if P + x.shape[1] > base.config.context:
            raise ValueError(f"{P} rows and {x.shape[1]} tokens are longer than the context of {base.config.context}")
        embeds = xp.concatenate([xp.broadcast_to(self.rows, (B, *self.rows.shape)), x], axis=1)
        mask = None if mask is None else xp.concatenate([xp.ones((B, P), dtype=mask.dtype), mask], axis=1)
        targets = xp.concatenate([xp.full((B, P), IGNORED, dtype=targets.dtype), xp.asarray(targets)], axis=1)
        outputs, back = causal_lm.token_outputs(base.family, base.params, embeds, config=base.config, targets=targets, grad=grad,
                                                attention_mask=mask, **options)  # fmt: skip

        def backward(doutputs):
            wide = {name: None if d is None else xp.concatenate([xp.zeros((B, P, *d.shape[2:]), dtype=d.dtype), d], axis=1)
                    for name, d in doutputs.items()}  # fmt: skip
            _, dembeds = back(wide)
            return {"rows": dembeds[:, :P].sum(axis=0)}

        return {name: a[:, P:] for name, a in outputs.items()}, backward if grad else None


def soft_prompt(model: CausalModel, sequences: Sequence[TokenSequence], settings: SFTSettings | None = None, *, rows: Any = 16,
                ids: Sequence[int] | None = None, validation: Sequence[TokenSequence] = (), out: str | Path | None = None,
                progress: bool = True) -> tuple[SoftPrompted, Result]:  # fmt: skip
    """Train rows in front of the sequences of a task: (the model behind them, sft's result); the model itself does not change.

    rows: how many, (P, D) values to start from, or, with ids, the embeddings of these.  Else as tuning.sft, with a larger
    learning rate: Lester et al. 2021 use 0.3 where a fine-tuning has 0.001.
    """
    settings = SFTSettings.given(settings)
    check_decoder("model", model)
    for name, some in (("sequence", sequences), ("validation sequence", validation)):
        check_every(some, name=name, least=0)
    if settings.packed is not None:
        raise wrong("packed", "None, since the rows stand before each sequence", settings.packed)
    if isinstance(rows, int) or ids is not None:
        rows = prompt_rows(model, rows=None if ids is not None else rows, ids=ids, key=settings.seed)
    prompted = SoftPrompted(model, rows)
    longest = max(map(len, [*sequences, *validation]), default=0)
    if rows.shape[0] + longest > model.config.context:
        raise ValueError(f"{rows.shape[0]} rows and a sequence of {longest} places are longer than the context of "
                         f"{model.config.context}")  # fmt: skip
    result = sft(prompted, sequences, settings, validation=validation, out=out, progress=progress)
    return prompted, result


def continuation(prompted: SoftPrompted, prompt: Sequence[int], *, max_new_tokens: int, stop_ids: Iterable[int] | None = None,
                 seed: int = 0, **sampling: Any) -> list[int]:  # fmt: skip
    """The ids that follow a prompt behind the rows, without the one that ended them.  sampling: see generation.sampling."""
    if not isinstance(prompted, SoftPrompted):
        raise wrong("prompted", "a SoftPrompted, as soft_prompt gives it", prompted)
    check_names("continuation", sampling, [field.name for field in dataclasses.fields(Sampling)])
    check_whole("max_new_tokens", max_new_tokens, 1, MOST)
    check_whole("seed", seed, 0, LARGEST_KEY)
    ids, vocabulary = f"one or more token ids from 0 to {prompted.config.vocab_size - 1}", prompted.config.vocab_size
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
    outputs, _ = base(inputs_embeds=xp.concatenate([prompted.rows[None], x], axis=1), cache=cache, grad=False)
    text = list(prompt)
    for _ in range(max_new_tokens):
        token = int(settings.choose(at_least_float32(to_host(outputs["logits"][:, -1])), [text], [draw])[0])
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
    """The rows (P, D) of a folder; ValueError that names it if there are none in it."""
    tensors, _ = load_adapter(folder, SoftPrompted.facts["kind"])
    if tensors.keys() != {"rows"} or tensors["rows"].ndim != 2:
        raise ValueError(f"{named(folder)}: expected rows (P, D), got {shown(list(tensors))}")
    return tensors["rows"]
