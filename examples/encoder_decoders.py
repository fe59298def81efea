"""Shared by examples: small encoder-decoders, their special tokens, and the texts they write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tinyplm
from tinyplm.families import bart, t5, transformer
from tinyplm.objectives import Seq2SeqLayout
from tinyplm.tokenizers import Tokenizer

TITLES = {"t5": "T5", "bart": "BART", "transformer": "Transformer"}
SPECIAL = {
    "t5": ["<pad>", "</s>", "<unk>"],
    "bart": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "transformer": ["<pad>", "</s>", "<unk>"],
}


def layout_of(family: str, tokenizer: Tokenizer) -> Seq2SeqLayout:
    """The special tokens around the texts of a family."""
    ids = {"eos_id": tokenizer.vocab["</s>"], "pad_id": tokenizer.vocab["<pad>"]}
    if family == "bart":
        return Seq2SeqLayout.bart(bos_id=tokenizer.vocab["<s>"], **ids)
    return Seq2SeqLayout.t5(**ids)


def sized(
    family: str,
    tokenizer: Tokenizer,
    *,
    layers: int,
    width: int,
    heads: int,
    context: int,
    dropout: float = 0.0,
) -> Any:
    """A small config: `layers` on each side.

    T5 is T5 1.1 with the tied head of T5, whose logits are scaled: an untied one begins with logits
    of size sqrt(width). It takes sequences of any length.
    0.56 / sqrt(width) is BART's initial 0.02 at width 768; with 0.02 narrow models start learning
    late.
    """
    layout = layout_of(family, tokenizer)
    tokens = {
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": layout.pad_id,
        "eos_token_id": layout.last[0],
        "decoder_start_token_id": layout.start_id,
    }
    if family == "t5":
        row = (width, width // heads, -(-8 * width // 3 // 16) * 16, layers, heads)
        return t5.Config(
            **t5.parts.sized(*row), feed_forward_proj="gated-gelu", dropout_rate=dropout, **tokens
        )
    return {"bart": bart, "transformer": transformer}[family].Config(
        **transformer.sides(width, layers, heads, 4 * width),
        max_position_embeddings=context,
        init_std=round(0.56 / width**0.5, 4),
        dropout=dropout,
        **tokens,
    )


def written(
    model: tinyplm.Model,
    sources: Sequence[Sequence[int]],
    layout: Seq2SeqLayout,
    *,
    most: int,
    beams: int = 1,
    batch: int = 32,
) -> list[list[int]]:
    """What the model writes for each source, at most `most` tokens, without special tokens.

    beams 1: the most probable token each time. Sources of similar lengths go together.
    """
    found: dict[int, list[int]] = {}
    order = sorted(range(len(sources)), key=lambda n: len(sources[n]))
    for first in range(0, len(order), batch):
        some = order[first : first + batch]
        prompts = [layout.framed(sources[n]).tolist() for n in some]
        if beams > 1:
            texts = tinyplm.beam_search(model, prompts, beams=beams, max_new_tokens=most)
        else:
            texts = tinyplm.generate(model, prompts, max_new_tokens=most, temperature=0.0)
        found |= {some[one.prompt]: [i for i in one.ids if i not in layout.first] for one in texts}
    return [found[n] for n in range(len(sources))]
