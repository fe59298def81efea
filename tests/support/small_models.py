"""One tiny model of each kind, with valid inputs and targets, for tests of what all models have in common."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.families.test_xlnet import tiny as tiny_xlnet
from tests.support import encoder_families, families, seq2seq_families

IDS = np.array([[1, 2, 3], [4, 5, 6]])
MASK = np.array([[1, 1, 1], [0, 1, 1]])


def score_model():
    return tinyplm.create("gpt2", families.FAMILIES["gpt2"].config, task="sequence_classification", dtype="float64")


def models():
    """{name: (model, valid inputs, valid targets)}, one for each kind of model, family and target shape."""
    rows = {}
    for name in families.KINDS:
        rows[name] = (families.tiny(name), {}, {"logits": IDS})
    rows["score"] = (score_model(), {}, {"logits": np.array([0, 1])})
    for name, task, targets in (
        ("bert", "masked_lm", {"logits": IDS}),
        ("bert", "pretraining", {"logits": IDS, "pair_logits": np.array([0, 1])}),
        ("albert", "sequence_classification", {"logits": np.array([0, 1])}),
        ("roberta", "token_classification", {"logits": np.zeros((2, 3), int)}),
        ("distilbert", "question_answering", {"start_logits": np.array([0, 1]), "end_logits": np.array([2, 1])}),
        ("deberta", "masked_lm", {"logits": IDS}),
        ("deberta-v2", "sequence_classification", {"logits": np.zeros((2, 3))}),
    ):
        model = tinyplm.create(name, encoder_families.FAMILIES[name].config, task=task, dtype="float64")
        types = {"token_type_ids": np.zeros((2, 3), int)} if "token_type_ids" in model.family.INPUTS else {}
        rows[f"{name} {task}"] = (model, types, targets)
    query = {"perm_mask": np.eye(3)[None].repeat(2, 0), "target_mapping": np.eye(3)[None, 1:].repeat(2, 0),
             "mems": np.zeros((2, 2, 4, 6)),
             "token_type_ids": np.zeros((2, 3), int)}  # fmt: skip
    rows["xlnet"] = (tiny_xlnet(), query, {"logits": IDS[:, 1:]})
    rows["xlnet, input_mask"] = (tiny_xlnet(), {"input_mask": 1.0 - MASK, "attention_mask": None}, {"logits": IDS})
    for name in ("t5", "bart"):
        target = {"decoder_input_ids": IDS[:, ::-1] + 1, "decoder_attention_mask": MASK}
        rows[name] = (seq2seq_families.tiny(name), target, {"logits": IDS})
    return rows


MODELS = models()
each_model = pytest.mark.parametrize("name", MODELS)


def inputs_of(name):
    model, inputs, _ = MODELS[name]
    without = "xlnet" in name or name in ("deberta-v2 sequence_classification", *seq2seq_families.FAMILIES)
    positions = {} if without else {"position_ids": np.arange(3)}
    return {"input_ids": IDS, "attention_mask": MASK, **positions, **inputs}
