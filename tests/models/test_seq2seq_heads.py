"""Encoder-decoders with a head of classes or answers: every gradient, the place of the classes, what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, equal, leaves, relative_error
from tests.models.test_encoders import assert_derivatives
from tests.support.encoder_families import random_like
from tests.support.seq2seq_families import FAMILIES, RATES, tiny
from tinyplm import random
from tinyplm.core import flatten, tree_map

IDS = np.array([[3, 2, 5, 2, 4], [6, 7, 2, 1, 1]])  # 2 ends a text
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
EMBEDS = np.random.default_rng(7).normal(size=(2, 5, 6))
CLASSES, ANSWERS = "sequence_classification", "question_answering"
TARGETS = {
    CLASSES: {"logits": np.array([1, 0])},
    ANSWERS: {"start_logits": np.array([3, 0]), "end_logits": np.array([4, 1])},
}
each_head = pytest.mark.parametrize("task", TARGETS)


def scored(task: str, family: str = "bart", **changes):
    model = tinyplm.create(family, FAMILIES[family].config, task=task, dtype="float64", **changes)
    rng = np.random.default_rng(1)
    return model.with_params(tree_map(lambda a: rng.normal(0, 0.5, a.shape), model.params))


@pytest.mark.parametrize("family", ["bart", "mbart"])
@each_head
def test_gradient_of_the_loss_by_every_parameter_through_dropout(task, family):
    model = scored(task, family, **RATES, classifier_dropout=0.2)
    options = {"input_ids": IDS, "attention_mask": MASK, "targets": TARGETS[task], "key": random.sample_keys(5, np.arange(2))}

    def value(params):
        return float(model.with_params(params).loss(**options, grad=False)[0])

    gradient = model.loss(**options)[1](1.0)
    assert_derivatives(value, gradient, model.params, [[path] for path in flatten(model.params)])


@each_head
def test_the_decoder_reads_the_source_shifted_unless_it_is_given_another(task):
    model = scored(task)
    expected, backward = model(IDS, attention_mask=MASK)
    c = random_like(expected)
    shifted = model.config.decoder_ids(IDS)
    same, same_back = model(IDS, attention_mask=MASK, decoder_input_ids=shifted)
    assert equal(same, expected) and equal(same_back(c), backward(c))
    other, _ = model(IDS, attention_mask=MASK, decoder_inputs_embeds=EMBEDS, grad=False)
    assert not any(np.array_equal(other[name], expected[name]) for name in expected if name != "encoder_hidden")


def test_classes_come_from_the_last_end_token():
    model = scored(CLASSES)
    expected, backward = model(IDS, attention_mask=MASK)
    ends, head = [3, 2], model.params["head"]
    h = expected["hidden"][[0, 1], ends]
    dense = np.tanh(h @ head["dense"]["W"] + head["dense"]["b"])
    assert relative_error(expected["logits"], dense @ head["out"]["W"] + head["out"]["b"]) < MODEL
    later = np.where(np.arange(5) > np.array(ends)[:, None], 9, model.config.decoder_ids(IDS))
    assert np.array_equal(model(IDS, attention_mask=MASK, decoder_input_ids=later)[0]["logits"], expected["logits"])
    gradient = backward({"logits": random_like(expected)["logits"]})
    assert all(a.any() for a in leaves(gradient["head"]))


@pytest.mark.parametrize(
    ("task", "inputs", "message"),
    [
        (CLASSES, {"inputs_embeds": EMBEDS}, "input_ids: expected token ids, which have the end token, got None"),
        (
            CLASSES,
            {"inputs_embeds": EMBEDS, "decoder_input_ids": IDS},
            "input_ids: expected token ids, which have the end token, got None",
        ),
        (ANSWERS, {"inputs_embeds": EMBEDS}, "input_ids: expected token ids, which the decoder reads too, got None"),
        (
            CLASSES,
            {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]},
            "decoder_input_ids: expected 5 tokens, as the source has, got 3",
        ),
        (
            CLASSES,
            {"input_ids": IDS, "decoder_inputs_embeds": EMBEDS[:, :4]},
            "decoder_inputs_embeds: expected 5 tokens, as the source has, got 4",
        ),
        (CLASSES, {"input_ids": [[3, 2], [4, 5]]}, "input_ids: expected an end token 2 in each row, got none in row 1"),
        (ANSWERS, {"input_ids": IDS, "labels": IDS}, "labels: expected None; the loss takes targets, got "),
    ],
)
def test_bad_input_is_refused_in_one_line(task, inputs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        scored(task)(**inputs)


def test_a_language_model_is_loaded_without_labels(tmp_path):
    tinyplm.save(tiny("bart"), tmp_path)
    with pytest.raises(ValueError, match="labels: expected a classifier's task with them, got 'seq2seq_lm'$"):
        tinyplm.load(tmp_path, labels=["a", "b"])
    made = tinyplm.load(tmp_path, labels=["a", "b", "c"], task=CLASSES)
    assert made.params["head"]["out"]["W"].shape == (6, 3) and all(path.startswith("head.") for path in made.fresh)


def test_answers_may_come_from_embeddings():
    """Of both sides, with the gradients of all of them."""
    model = scored(ANSWERS)
    outputs, backward = model(inputs_embeds=EMBEDS, decoder_inputs_embeds=EMBEDS[:, :4])
    assert outputs["start_logits"].shape == (2, 4)
    _, dsource, dtarget = backward(random_like(outputs))
    assert dsource.shape == (2, 5, 6) and dtarget.shape == (2, 4, 6) and dsource.all() and dtarget.all()
