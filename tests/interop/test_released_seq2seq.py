# ruff: noqa: E402 - imports follow importorskip
"""config.json of encoder-decoders as the released models spell it: read as transformers reads it, to the same logits, and written
unchanged.  And decoding, token by token, as transformers' generate.

Sizes are made tiny.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.pair import as_torch, assert_same, float64
from tests.interop.seq2seq_pair import FAMILIES, FIRST, pair
from tests.interop.test_causal_files import settings_in
from tests.interop.test_seq2seq_files import exact_logits, our_logits, random_model_of, read
from tinyplm.families import family as find_family
from tinyplm.models.config import from_dict, to_dict

_T5 = {
    "architectures": ["T5ForConditionalGeneration"], "d_ff": 44, "d_kv": 6, "d_model": 32, "decoder_start_token_id": 0,
    "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06,
    "model_type": "t5", "num_heads": 4, "num_layers": 2, "pad_token_id": 0, "relative_attention_num_buckets": 8,
    "vocab_size": 41,
}  # fmt: skip
_SUMMARY = {"early_stopping": True, "length_penalty": 2.0, "max_length": 200, "min_length": 30, "no_repeat_ngram_size": 3,
            "num_beams": 4, "prefix": "summarize: "}  # fmt: skip
_GATED = {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 2, "tie_word_embeddings": False}
_THREE = {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}}
_BART = {
    "_num_labels": 3, "activation_dropout": 0.1, "activation_function": "gelu", "add_bias_logits": False,
    "add_final_layer_norm": False, "architectures": ["BartForConditionalGeneration"], "attention_dropout": 0.1, "bos_token_id": 0,
    "classif_dropout": 0.1, "classifier_dropout": 0.0, "d_model": 32, "decoder_attention_heads": 4, "decoder_ffn_dim": 44,
    "decoder_layerdrop": 0.0, "decoder_layers": 2, "decoder_start_token_id": 2, "dropout": 0.1, "early_stopping": True,
    "encoder_attention_heads": 4, "encoder_ffn_dim": 44, "encoder_layerdrop": 0.0, "encoder_layers": 2, "eos_token_id": 2,
    "gradient_checkpointing": False, **_THREE, "init_std": 0.02, "is_encoder_decoder": True, "max_position_embeddings": 16,
    "model_type": "bart", "no_repeat_ngram_size": 3, "normalize_before": False, "num_beams": 4, "num_hidden_layers": 2,
    "pad_token_id": 1, "scale_embedding": False, "transformers_version": "4.7.0.dev0", "use_cache": True, "vocab_size": 41,
}  # fmt: skip
_STATIC = {"add_final_layer_norm": False, "normalize_embedding": False, "static_position_embeddings": True}
_NLI = {"id2label": {"0": "contradiction", "1": "neutral", "2": "entailment"},
        "label2id": {"contradiction": 0, "entailment": 2, "neutral": 1}}  # fmt: skip

RELEASED = {
    "t5-small": {**_T5, "n_positions": 512, "output_past": True, "task_specific_params": {"summarization": _SUMMARY}},
    "t5-v1_1-small": {**_T5, **_GATED, "output_past": True, "is_gated_act": True, "dense_act_fn": "gelu_new", "use_cache": True},
    "t5-v1_1, older": {**_T5, **_GATED, "_name_or_path": "t5-v1_1-small"},
    "flan-t5-small": {**_T5, **_GATED, "n_positions": 512, "output_past": True, "relative_attention_max_distance": 128,
                      "task_specific_params": {"summarization": _SUMMARY}, "transformers_version": "4.23.1"},
    "mt5-small": {**_T5, **_GATED, "architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5",
                  "tokenizer_class": "T5Tokenizer"},
    "mt5-base, of transformers 4.29": {**_T5, **_GATED, "architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5",
                                       "classifier_dropout": 0.0, "dense_act_fn": "gelu_new", "is_gated_act": True,
                                       "relative_attention_max_distance": 128, "output_past": True},
    "bart-base": {**_BART, "architectures": ["BartModel"], "forced_bos_token_id": 0, "forced_eos_token_id": 2,
                  "normalize_embedding": True, "task_specific_params": {"summarization": _SUMMARY}, "torch_dtype": "float64"},
    "bart-large": {**_BART, "architectures": ["BartModel"], "forced_eos_token_id": 2, "transformers_version": "4.7.0.dev0"},
    "bart-large-cnn": {**_BART, "_num_labels": 3, "force_bos_token_to_be_generated": True, "forced_bos_token_id": 0,
                       "forced_eos_token_id": 2, "length_penalty": 2.0, "max_length": 142, "min_length": 56, "output_past": True,
                       "prefix": " ", "task_specific_params": {"summarization": _SUMMARY}},
    "bart-large-mnli": {**_BART, **_NLI, "architectures": ["BartForSequenceClassification"], "forced_eos_token_id": 2,
                        "output_past": False},
    "mbart-large-cc25": {**_BART, "architectures": ["MBartForConditionalGeneration"], "model_type": "mbart",
                         "add_final_layer_norm": True, "max_length": 1024, "normalize_before": True, "normalize_embedding": True,
                         "num_beams": 5, "output_past": True, "scale_embedding": True, "static_position_embeddings": False,
                         "task_specific_params": {"translation_en_to_ro": {"decoder_start_token_id": 7}}},
    "opus-mt-en-de": {**_BART, **_STATIC, "architectures": ["MarianMTModel"], "model_type": "marian", "eos_token_id": 0,
                      "activation_function": "swish", "bad_words_ids": [[40]], "decoder_start_token_id": 40, "pad_token_id": 40,
                      "decoder_vocab_size": 41, "forced_eos_token_id": 0, "max_length": 512, "num_beams": 6,
                      "scale_embedding": True, "share_encoder_decoder_embeddings": True, "activation_dropout": 0.0},
}  # fmt: skip
WITHOUT_START = ("mbart-large-cc25",)
HEADS = ("bart-large-mnli",)  # another head: only its config is read here


def released(name):
    return {k: v for k, v in RELEASED[name].items() if not (name in WITHOUT_START and k == "decoder_start_token_id")}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config(tmp_path, name):
    settings = released(name)
    module = find_family(settings["model_type"])
    assert to_dict(from_dict(module.Config, settings)) == settings
    assert settings == json.loads(json.dumps(settings))
    if name in HEADS:
        return
    ours = random_model_of(settings)
    tinyplm.save(ours, tmp_path)
    written = settings_in(tmp_path)
    assert {**written, "architectures": settings["architectures"]} == settings  # a bare one's becomes the one with the head
    assert written["architectures"] == [module.Config.ARCHITECTURE]
    theirs = read(settings["model_type"], tmp_path)
    assert_same("logits", our_logits(tinyplm.load(tmp_path)), exact_logits(theirs))
    theirs.save_pretrained(tmp_path / "theirs")
    again = tinyplm.load(tmp_path / "theirs")
    assert np.array_equal(our_logits(again), our_logits(ours))


# --------------------------------------------------------------------------------------------------------------- decoding


def decoded(ours, ids, mask, starts, new):
    """(B, new) ids, the most likely at each step, and padding behind an end token; the logits of each step."""
    cache = ours.source_cache(ours.encode(ids, attention_mask=mask), capacity=new, attention_mask=mask)
    step, rows, logits = np.full((len(ids), 1), starts), [], []
    ended = np.zeros(len(ids), dtype=bool)
    for _ in range(new):
        outputs = ours.decode(step, cache=cache)
        cache = outputs["cache"]
        logits.append(outputs["logits"][:, -1])
        rows.append(np.where(ended, ours.config.pad_token_id, logits[-1].argmax(-1)))
        ended |= rows[-1] == ours.config.eos_token_id
        step = rows[-1][:, None]
    return np.stack(rows, axis=1), np.stack(logits, axis=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_decoding_is_that_of_generate(tmp_path, family):
    """With padding on the left and on the right of the sources.  A T5 has as many layers on each side,
    as its cache in transformers assumes."""
    theirs, ours = pair(family, tmp_path, eos_token_id=7, **({"num_decoder_layers": 2} if "t5" in family else {}))
    rng = np.random.default_rng(4)
    ids, new = rng.integers(FIRST, 41, (12, 7)), 8
    mask = np.ones_like(ids)
    mask[1::3, :2], mask[2::3, -3:] = 0, 0
    start = ours.config.decoder_start_token_id
    options = {"num_beams": 1, "do_sample": False, "max_new_tokens": new, "decoder_start_token_id": start}
    with float64():
        expected = theirs.generate(**as_torch(input_ids=ids, attention_mask=mask), **options, output_logits=True,
                                   return_dict_in_generate=True)  # fmt: skip
    found, logits = decoded(ours, ids, mask, start, new)
    assert (found == expected.sequences.numpy()[:, 1:]).all()
    assert len({tuple(row) for row in found}) >= 4
    assert_same("logits", logits, np.stack([step.numpy() for step in expected.logits], axis=1))
