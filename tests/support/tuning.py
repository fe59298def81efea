"""Shared by the fine-tuning tests: a small tokenizer, tiny models, texts of two kinds."""

from __future__ import annotations

import functools

import tinyplm
from tinyplm.models.config import labels
from tinyplm.tokenizers import Tokenizer

ANIMALS = ["the cat sat on the mat", "a dog barked", "the dog and the cat ran up the hill", "a bird sang", "the old bird sat"]
MONEY = ["the bank failed", "a stock fell today", "the market and the stock rose", "a bank sold the old stock", "the market rose"]
TEXTS = [text for pair in zip(ANIMALS, MONEY) for text in pair]
KINDS = ["animal", "money"] * len(ANIMALS)


@functools.cache
def tokenizer() -> Tokenizer:
    """Shared; do not modify it."""
    return Tokenizer.train(TEXTS * 2, 70, kind="WordPiece")


def model(
    task="sequence_classification", names=("animal", "money"), *, family="bert", layers=2, dtype="float64", key=1, **changes
):
    """A tiny encoder with a tokenizer; dropout rates are the defaults of the family's config."""
    config = {"vocab_size": tokenizer().vocab_size, "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2,
              "intermediate_size": 24, "max_position_embeddings": 32, "initializer_range": 0.3}  # fmt: skip
    made = tinyplm.create(family, task=task, key=key, dtype=dtype, **{**config, **labels(names), **changes})
    made.tokenizer = tokenizer()
    return made
