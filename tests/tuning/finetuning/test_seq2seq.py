"""Encoder-decoders with a head of classes or answers are fine-tuned, also with their lower layers frozen."""

from __future__ import annotations

import dataclasses

import pytest

import tinyplm
from tests.support.seq2seq_families import FAMILIES, RATES
from tests.support.tuning import tokenizer
from tests.tuning.finetuning.test_families import MAKE, assert_fine_tuned, assert_same_above_frozen_layers
from tinyplm.core import flatten
from tinyplm.families import SEQ2SEQ
from tinyplm.optim.layerwise import depths, layerwise_rates
from tinyplm.tuning.finetuning.finetune import finetune
from tinyplm.tuning.finetuning.freezing import upper_part
from tinyplm.tuning.finetuning.predict import predict

CASES = [(family, task) for family in ("bart", "mbart") for task in ("sequence_classification", "question_answering")]


def model(family, task, **changes):
    end = tokenizer().named_id("sep_token")
    special = {"eos_token_id": end, "pad_token_id": tokenizer().named_id("pad_token")}
    if family == "bart":
        special["decoder_start_token_id"] = end
    room = {"vocab_size": tokenizer().vocab_size, "max_position_embeddings": 60, "id2label": {0: "red", 1: "blue"}}
    config = dataclasses.replace(FAMILIES[family].config, **room, **special, **changes)
    made = tinyplm.create(family, config, task=task, dtype="float64")
    made.tokenizer = tokenizer()
    return made


@pytest.mark.parametrize(("family", "task"), CASES)
def test_it_is_fine_tuned(family, task, tmp_path):
    made = model(family, task, **RATES)
    samples = MAKE[task](made)
    before = predict(made, samples)
    assert before.keys() == ({"logits"} if task == "sequence_classification" else {"start_logits", "end_logits"})
    assert_fine_tuned(made, samples, tmp_path)


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_what_is_above_the_frozen_layers_has_the_same_gradient(family):
    """The encoder's layers are frozen first, and what precedes the decoder's layers with the first of these."""
    made = model(family, "sequence_classification")
    assert_same_above_frozen_layers(made, MAKE["sequence_classification"](made), 4)
    depth = depths(made.params)
    assert depth.keys() == flatten(made.params).keys()
    for path, expected in {"tokens": 0, "encoder.positions": 0, "encoder.layers.1.mlp.W1": 2, "decoder.positions": 3,
                           "decoder.layers.0.cross.Wq": 3, "decoder.layers.1.mlp.b2": 4}.items():  # fmt: skip
        assert depth[f"body.{path}"] == expected
    assert depth["head.dense.W"] == 5
    if family == "mbart":
        assert (depth["body.encoder.norm.gamma"], depth["body.decoder.norm.gamma"]) == (2, 4)
    rate = layerwise_rates(made.params, 0.5)
    assert rate("body.decoder.positions", None) == 0.25 and rate("head.dense.W", None) == 1
    with pytest.raises(ValueError, match="^trained_layers: expected None or an integer from 0 to 4, the model's layers, got 5$"):
        upper_part(made.params, 5)


def test_a_language_model_has_no_labels():
    samples = MAKE["sequence_classification"](model("bart", "sequence_classification"))
    language_model = model("bart", SEQ2SEQ)
    for call in (lambda m: finetune(m, samples, samples), lambda m: predict(m, samples)):
        with pytest.raises(TypeError, match="^model: expected an encoder, a decoder with task .*, got <bart seq2seq_lm model"):
            call(language_model)
