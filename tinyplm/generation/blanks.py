"""What marks the blanks of a text, by the kind of model that fills them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import as_ids, mismatch, wrong
from ..models.causal_model import CausalModel
from ..models.checks import check_range
from ..models.encoder_model import EncoderModel
from ..models.model import Model, check_model
from ..models.seq2seq_config import SEQ2SEQ
from ..models.seq2seq_model import Seq2SeqModel
from ..objectives import BlankTokens, named_sentinels
from ..objectives.spans import check_sentinels

# the tokens in the vocabularies of the original GLM
PIECE = {"start_id": "<|startofpiece|>", "end_id": "<|endofpiece|>"}
MASKS = {
    "mask_id": "[MASK]",
    "sentence_mask_id": "[sMASK]",
    "document_mask_id": "[gMASK]",
}
FIRST = "[CLS]"
FILLERS = "GLM (glm_2021), ChatGLM-6B (chatglm_6b) or an encoder-decoder with sentinels (t5)"


@dataclasses.dataclass(frozen=True)
class Marks:
    """masks: the ids that stand for blanks; starts: what the model reads before the fill of each
    blank, one id for all or one for each; ends: what ends a fill; first: what a text begins with.
    """

    masks: tuple[int, ...]
    starts: tuple[int, ...]
    ends: frozenset[int]
    first: tuple[int, ...] = ()


def check_fills(name: str, model: Any) -> None:
    """ValueError, naming the kind of model, unless it fills blanks."""
    check_model(name, model)
    if isinstance(model, Seq2SeqModel):
        other = "whose head has no vocabulary" if model.task != SEQ2SEQ else ""
    elif isinstance(model, EncoderModel):
        other = "which predicts all masked tokens in one call, one at each mask"
    elif model.task != "causal_lm":
        other = "whose head has no vocabulary"
    elif isinstance(model, CausalModel) and fills_blanks(model):
        other = ""
    else:
        other = "which reads a text from left to right alone; generate continues one"
    if other:
        raise mismatch(name, FILLERS, f"{model!r}, {other}")


def fills_blanks(model: CausalModel) -> bool:
    """Whether a decoder has two positions for each token, as blanks need."""
    return model.task == "causal_lm" and model.config.position_rows is not None


def blank_tokens(model: CausalModel) -> BlankTokens:
    """The special tokens of a GLM's blanks: those of ChatGLM-6B's config.json, or those that the
    tokenizer has under GLM's names.  ValueError naming what is missing."""
    config = model.config
    if config.MODEL_TYPE == "chatglm_6b":
        masks = [config.mask_token_id, config.gmask_token_id]
        one, document = masks if None not in masks else (masks[masks[0] is None], None)
        ids = {"start_id": config.bos_token_id, "end_id": config.eos_token_id}
        for key, id in {"mask_token_id, gmask_token_id": one, **ids}.items():
            if type(id) is not int:
                name = {"start_id": "bos_token_id", "end_id": "eos_token_id"}.get(key, key)
                raise wrong(f"config: {name}", "an id, or tokens", id)
        return BlankTokens(one, **ids, pad_id=0, document_mask_id=document)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise wrong("tokens", "BlankTokens for a model without a tokenizer", None)
    vocabulary = tokenizer.vocab
    for token in (MASKS["mask_id"], *PIECE.values()):
        if token not in vocabulary:
            raise wrong("tokenizer", f"one with {token}, or tokens", tokenizer)
    found = {name: vocabulary.get(token) for name, token in {**MASKS, **PIECE}.items()}
    first = (vocabulary[FIRST],) if FIRST in vocabulary else ()
    return BlankTokens(**found, pad_id=tokenizer.named_id("pad_token") or 0, first=first)


def marks_of(model: Model, tokens: Any) -> Marks:
    """The marks of a model that check_fills has passed.

    tokens: None, BlankTokens of a GLM, the sentinels of an encoder-decoder in order.
    """
    ends = model.end_ids()  # type: ignore[attr-defined]  # a language model
    if isinstance(model, Seq2SeqModel):
        if tokens is None and model.tokenizer is None:
            raise wrong("tokens", "the sentinels' ids for a model without a tokenizer", None)
        if tokens is None:
            tokens = named_sentinels(model.tokenizer.vocab)
            if not tokens:
                raise wrong("tokenizer", "one with <extra_id_0> ..., or tokens", model.tokenizer)
        elif isinstance(tokens, BlankTokens):
            raise wrong("tokens", "None or the sentinels' ids for an encoder-decoder", tokens)
        sentinels = check_sentinels(as_ids("tokens", tokens)).tolist()
        check_range("tokens", np.array(sentinels, np.int64), model.config.vocab_size)
        return Marks(tuple(sentinels), tuple(sentinels), frozenset(ends) | set(sentinels))
    if tokens is None:
        tokens = blank_tokens(model)  # type: ignore[arg-type]
    elif not isinstance(tokens, BlankTokens):
        raise wrong("tokens", "None or BlankTokens for a GLM", tokens)
    own = [*tokens.masks, tokens.start_id, tokens.end_id, *tokens.first]
    check_range("tokens", np.array(own), model.config.vocab_size)
    ends = frozenset(ends) | {tokens.end_id}
    return Marks(tuple(tokens.masks), (tokens.start_id,), ends, tokens.first)


def found_blanks(
    model: Model, marks: Marks, prompt: list[int], n: int
) -> tuple[list[int], list[int]]:
    """(the ids of prompt n, where its blanks are), checked.

    Of a GLM part A alone: a start token at the end, which ChatGLM-6B's tokenizer adds, is left out.
    """
    if not prompt:
        raise mismatch("prompts", "at least 1 token", "0 in one prompt")
    check_range("prompts", np.array(prompt), model.config.vocab_size)
    target = isinstance(model, Seq2SeqModel)
    ids = prompt[:-1] if not target and prompt[-1] == marks.starts[0] else prompt
    places = [place for place, id in enumerate(ids) if id in marks.masks]
    if not places:
        expected = f"a blank, one of the tokens {_shown(marks.masks)}"
        raise mismatch("prompts", expected, f"none in prompt {n}")
    if target:
        found, own = [ids[place] for place in places], marks.starts[: len(places)]
        if found != list(own):
            expected = f"the sentinels in order, {_shown(own)}"
            raise mismatch("prompts", expected, f"{_shown(found)} in prompt {n}")
        return ids, places
    first, begun = list(marks.first), ids[: len(marks.first)]
    if begun != first:
        raise mismatch("prompts", f"{first} first, as tokens.first says", f"{begun} in prompt {n}")
    if marks.starts[0] in ids:
        expected = f"no start of a piece ({marks.starts[0]}) but at the end"
        given = f"one at place {ids.index(marks.starts[0])} of prompt {n}"
        raise mismatch("prompts", expected, given)
    if model.config.reads_places and len(places) > 1:
        expected = f"one blank, all that {model.config.MODEL_TYPE} has positions for"
        raise mismatch("prompts", expected, f"{len(places)} in prompt {n}")
    return ids, places


def check_room(model: Model, length: int, blanks: int, most: int, n: int) -> None:
    """ValueError unless prompt n and the fills of its blanks, of up to `most` tokens, have room."""
    context, room = model.config.context, model.config.cache_context
    if context is not None and length > context:
        raise mismatch("prompts", f"1 to {context} tokens", f"{length} in prompt {n}")
    behind = ""
    if not isinstance(model, Seq2SeqModel):
        if most > context - 1:
            raise mismatch("max_new_tokens", f"at most {context - 1}, the positions", most)
        room, behind = room - length + 1, f" behind {length} tokens"  # the last token is not read
    if room is not None and blanks * (1 + most) > room:
        expected = f"at most {room // (1 + most)} blanks of {most} tokens{behind}"
        raise mismatch("prompts", expected, f"{blanks} in prompt {n}")


def _shown(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:9])) + (" ..." if len(ids) > 9 else "")
