"""The families of encoder-decoders as the tests see them; a family added here as one row gets the tests of
tests/models/test_seq2seq*.py.

Every TINY config has a vocabulary of 11, room for 8 tokens, width 6, two layers on each side, heads of other widths, where
these may differ, and dropout rates of 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import tinyplm
from reference.layers.activation import silu
from reference.layers.block import pre_norm
from reference.models import encoder_decoder as formulas
from tinyplm.core import tree_map
from tinyplm.families import bart, marian, mbart, mt5, t5, transformer

VOCABULARY, CONTEXT, WIDTH = 11, 8, 6
FIRST = 3  # of the tokens in tests: those before are special


class Family(NamedTuple):
    module: ModuleType
    config: Any  # TINY
    formula: Callable  # the whole model, in reference/
    dropout: dict[str, float]  # every dropout rate, none of them 0
    variants: dict[str, dict[str, Any]] = {}  # changes to TINY that take other paths


# Six buckets to distance 4: exact ones, ranges and the last are all used within five tokens.
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 4, "d_ff": 7, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2,
    "relative_attention_num_buckets": 6, "relative_attention_max_distance": 4, "dropout_rate": 0.0,
}  # fmt: skip
BOTH: dict[str, Any] = {
    "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 3, "encoder_ffn_dim": 7, "decoder_ffn_dim": 5, "dropout": 0.0,
    "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
RATES = {"dropout": 0.2, "attention_dropout": 0.2, "activation_dropout": 0.2}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_HEADS = {"heads": 2, "decoder_heads": 3}
_BUCKETS = {"heads": 2, "buckets": 6, "longest": 4}

FAMILIES = {
    "t5": Family(
        t5, t5.Config(**T5), partial(formulas.t5, **_BUCKETS), {"dropout_rate": 0.2},
        variants={"1.1": GATED, "scaled though untied": {**GATED, "scale_decoder_outputs": True}},
    ),
    "mt5": Family(
        mt5, mt5.Config(**T5, feed_forward_proj="gated-gelu"), partial(formulas.t5, **_BUCKETS, scaled=False),
        {"dropout_rate": 0.2},
        variants={"tied": {"tie_word_embeddings": True}},
    ),
    "bart": Family(
        bart, bart.Config(**BOTH), partial(formulas.bart, **_HEADS), RATES,
        variants={"scaled, untied": {"scale_embedding": True, "tie_word_embeddings": False}},
    ),
    "mbart": Family(
        mbart, mbart.Config(**BOTH, scale_embedding=True),
        partial(formulas.bart, **_HEADS, scaled=True, residual=pre_norm), RATES,
    ),
    "marian": Family(
        marian, marian.Config(**BOTH, scale_embedding=True, activation_function="swish"),
        partial(formulas.transformer, **_HEADS, activation=silu, halves=True), RATES,
    ),
    "transformer": Family(
        transformer, transformer.Config(**BOTH), partial(formulas.transformer, **_HEADS), RATES,
        variants={"untied": {"tie_word_embeddings": False}},
    ),
}  # fmt: skip
VARIANTS = [(name, variant) for name, family in FAMILIES.items() for variant in ("", *family.variants)]


def tiny(family: str, seed: int = 0, dtype: str = "float64", device: str = "cpu", **changes: Any) -> tinyplm.Model:
    """A tiny model with every parameter random, and its buffers."""
    model = tinyplm.create(family, dataclasses.replace(FAMILIES[family].config, **changes), dtype="float64")
    rng = np.random.default_rng(seed)
    model.params = tree_map(lambda a: (a + rng.normal(0, 0.3, a.shape)).astype(dtype), model.params)
    model.buffers = tree_map(lambda a: rng.normal(size=a.shape).astype(dtype), model.buffers)
    return model.to(device)


# One sample without padding, one padded on the right, one whose source is padded on the left.
SOURCE = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
TARGET = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
MASKS = {"attention_mask": SOURCE, "decoder_attention_mask": TARGET}


def batch(seed: int = 0, *, padded: bool = True) -> dict[str, np.ndarray]:
    """Three samples of five and four tokens."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(FIRST, VOCABULARY, (3, 5))
    return {"input_ids": ids, "decoder_input_ids": rng.integers(FIRST, VOCABULARY, (3, 4)), **(MASKS if padded else {})}


def labels(seed: int = 1) -> np.ndarray:
    """The labels of `batch`: -100 at padding and at one place before it."""
    ids = np.random.default_rng(seed).integers(FIRST, VOCABULARY, TARGET.shape)
    ids[0, 1] = -100
    return np.where(TARGET == 1, ids, -100)


def by_formula(family: str, model: tinyplm.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The logits by the formula of reference/, for the model's parameters."""
    p = {**model.params["body"], **{name: a for name, a in model.params.items() if name != "body"}}
    names = {"bias": "relative_bias", "embed_norm": "embedding_norm"}
    for side in ("encoder", "decoder"):
        p[side] = {names.get(name, name): a for name, a in p[side].items()}
    if "logits_bias" in model.buffers:
        p["logits_bias"] = model.buffers["logits_bias"][0]
    options = {"mask": inputs.get("attention_mask"), "decoder_mask": inputs.get("decoder_attention_mask")}
    if getattr(model.config, "gated", False):
        options["gated"] = True
    if getattr(model.config, "scale_decoder_outputs", None) is not None:
        options["scaled"] = True
    if getattr(model.config, "scale_embedding", False):
        options["scaled"] = True
    return FAMILIES[family].formula(p, inputs["input_ids"], inputs["decoder_input_ids"], **options)
