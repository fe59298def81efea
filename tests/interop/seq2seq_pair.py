# ruff: noqa: E402 - imports follow importorskip
"""Encoder-decoders: a tiny transformers model with random weights, the same model loaded by us, and their comparison.

Tolerance: see pair.py.  A new family needs one row in FAMILIES; test_seq2seq.py then covers it.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.interop.pair import as_torch, assert_same, assert_same_gradients, float64, padding, random_model, with_ours
from tinyplm.families import bart, marian, mbart, mt5, t5
from tinyplm.hub import folders as hub


@dataclasses.dataclass(frozen=True)
class Family:
    """Our module, transformers' config and model classes, a tiny config by hub names, and changes that make 3 heads of 10."""

    module: ModuleType
    config: type
    lm: type
    tiny: dict[str, Any]
    odd: dict[str, Any]


_T5 = {"vocab_size": 41, "d_model": 32, "d_kv": 6, "d_ff": 44, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
       "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0}  # fmt: skip
# More positions than tokens, other numbers of layers and heads on each side, a start token that is not the padding: transformers
# drops the look-up gradient of padding in all of these, but in T5.
_BART = {"vocab_size": 41, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 44, "decoder_ffn_dim": 36, "max_position_embeddings": 16,
         "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "attention_dropout": 0.1,
         "activation_dropout": 0.1, "forced_eos_token_id": None}  # fmt: skip
_ODD = {"d_model": 30, "encoder_attention_heads": 3, "decoder_attention_heads": 3}
_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

# Dropout rates stay at 0.1: eval() on one side and key=None on the other must switch it off.
FAMILIES = {
    "t5": Family(t5, transformers.T5Config, transformers.T5ForConditionalGeneration, _T5, {"d_model": 30, "num_heads": 3}),
    "t5-v1_1": Family(
        t5, transformers.T5Config, transformers.T5ForConditionalGeneration, {**_T5, **_GATED}, {"d_model": 30, "num_heads": 3}
    ),
    "mt5": Family(
        mt5, transformers.MT5Config, transformers.MT5ForConditionalGeneration, {**_T5, **_GATED}, {"d_model": 30, "num_heads": 3}
    ),
    "bart": Family(bart, transformers.BartConfig, transformers.BartForConditionalGeneration, _BART, _ODD),
    "mbart": Family(
        mbart, transformers.MBartConfig, transformers.MBartForConditionalGeneration, {**_BART, "scale_embedding": True}, _ODD
    ),
    "marian": Family(
        marian, transformers.MarianConfig, transformers.MarianMTModel,
        {**_BART, "scale_embedding": True, "activation_function": "swish"}, _ODD,
    ),
}  # fmt: skip
FIRST = 3  # of the tokens in tests: those before are special


def peer(family, seed=0, **changes):
    """transformers' tiny model."""
    row = FAMILIES[family]
    model = random_model(row.lm, row.config(**{**row.tiny, **changes}, attn_implementation="eager"), seed)
    with torch.no_grad():
        for side in ("encoder", "decoder") if family == "marian" else ():
            model.get_parameter(f"model.{side}.embed_positions.weight").copy_(torch.from_numpy(sinusoids(model.config)))
    return model


def sinusoids(config):
    """Marian's positions in float64, from its documentation: transformers computes them in float32."""
    i = np.arange(config.d_model // 2)
    angles = np.arange(config.max_position_embeddings)[:, None] * 10000.0 ** (-2 * i / config.d_model)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def pair(family, folder, **changes):
    return with_ours(peer(family, **changes), folder)


def gradients_of(theirs):
    """{hub name: gradient} of the trained parameters, which are then cleared."""
    out = {name: p.grad.numpy().copy() for name, p in theirs.named_parameters() if p.requires_grad}
    theirs.zero_grad()
    return out


def compare(theirs, ours, *, B=3, S=7, T=5, source="none", target="none", seed=1):
    """Logits, both hidden states, the loss, and the gradients of the outputs and of the loss for every parameter.

    source: padding of the source ("left" or "right"); target: "right", by an attention mask and by labels of -100.
    """
    rng = np.random.default_rng(seed)
    V = ours.config.vocab_size
    ids, labels = rng.integers(FIRST, V, (B, S)), rng.integers(FIRST, V, (B, T))
    mask, _ = padding(source, B, S)
    decoder_mask, _ = padding(target, B, T)
    rows = np.ones((B, T), dtype=bool) if decoder_mask is None else decoder_mask == 1
    labels = np.where(rows, labels, -100)
    decoder_ids = ours.config.decoder_ids(labels)
    masks = {"attention_mask": mask, "decoder_attention_mask": decoder_mask}
    with float64():
        output = theirs(**as_torch(input_ids=ids, labels=labels, **masks), output_hidden_states=True)
    outputs, backward = ours(ids, labels=labels, **masks)
    assert np.array_equal(outputs["logits"], ours(ids, decoder_input_ids=decoder_ids, **masks, grad=False)[0]["logits"])
    real = np.ones((B, S), dtype=bool) if mask is None else mask == 1
    theirs_encoder = output.encoder_last_hidden_state
    assert_same("logits", outputs["logits"][rows], output.logits.detach().numpy()[rows])
    assert_same("hidden", outputs["hidden"][rows], output.decoder_hidden_states[-1].detach().numpy()[rows])
    assert_same("encoder_hidden", outputs["encoder_hidden"][real], theirs_encoder.detach().numpy()[real])

    dlogits = rng.normal(size=output.logits.shape) * rows[..., None]
    dencoder = rng.normal(size=theirs_encoder.shape) * real[..., None]
    grads = [torch.from_numpy(dlogits), torch.from_numpy(dencoder)]
    torch.autograd.backward([output.logits, theirs_encoder], grads, retain_graph=True)
    dparams = backward({"logits": dlogits, "encoder_hidden": dencoder})
    assert_same_gradients(hub.gradients_by_hub_name(ours, dparams), gradients_of(theirs))

    output.loss.backward()
    loss, loss_back = ours.loss(input_ids=ids, targets={"logits": labels}, chunk=4, **masks)
    assert_same("loss", loss, output.loss.detach().numpy())
    assert_same_gradients(hub.gradients_by_hub_name(ours, loss_back(1.0)), gradients_of(theirs))
