"""Blank infilling through the training loop: parts of a step, and a loss that falls where a blank follows from both sides."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, relative_error
from tests.support.families import tiny
from tinyplm.objectives import BlankTokens, InfilledDocuments
from tinyplm.optim.adamw import AdamW
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.training.step import accumulate

TOKENS = BlankTokens(1, 2, 3, 0, sentence_mask_id=4, document_mask_id=5, first=(6,))
VOCABULARY, LENGTH = 19, 16


def samples(seed, shares=None):
    """Documents that count up from any token, 7 ... 18 and again 7, in sentences of three."""
    documents = [[[7 + (a + 3 * s + i) % 12 for i in range(3)] for s in range(3)] for a in range(12)]
    return InfilledDocuments(documents, LENGTH, tokens=TOKENS, seed=seed, shares=shares)


def model_of(**changes):
    sizes = {"hidden_size": 24, "num_layers": 2, "num_attention_heads": 2, "max_sequence_length": LENGTH}
    rates = dict.fromkeys(("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), 0.0)
    return tinyplm.create("glm_2021", vocab_size=VOCABULARY, **{**sizes, **rates, **changes})


def settings_of(**changes):
    fields = {
        "steps": 200,
        "batch_size": 12,
        "sequence_length": LENGTH,
        "learning_rate": 1e-2,
        "warmup": 10,
        "evaluate_every": 100,
    }
    return Settings(**{**fields, "save_every": 1000, **changes})


@pytest.mark.parametrize(("micro", "workers"), [(None, 1), (2, 1), (None, 2), (3, 2)])
def test_the_parts_of_a_step_add_up(micro, workers):
    """Prefixes and pairs of positions go with their samples."""
    model = tiny("glm_2021", vocab_size=VOCABULARY, max_sequence_length=LENGTH)
    inputs, targets = samples(1).batch(0, 5)
    expected, back = model.loss(**inputs, targets=targets)
    optimizer = AdamW(model.params)
    settings = Settings(batch_size=5, sequence_length=LENGTH, micro_batch_size=micro, workers=workers)
    loss = accumulate(model, optimizer, inputs, targets, settings=settings)
    assert float(loss) == pytest.approx(float(expected), rel=MODEL)
    assert relative_error(optimizer.gradient.tree, back(1.0)) < MODEL


def test_the_loss_falls_where_both_sides_of_a_blank_are_needed(tmp_path):
    """Below what a token costs that is drawn from 12: the neighbours of a blank say what it holds and where it ends."""
    validation, model = FixedBatches(samples(2), 60), model_of()
    first = validation.loss(model, 1)
    assert abs(first - np.log(VOCABULARY)) < 0.3
    train(model, samples(3), validation, settings_of(), out=tmp_path / "out", progress=False)
    last = validation.loss(model, 1)
    assert last < np.log(12) / 2
    again = tinyplm.load(tmp_path / "out" / "step-200")
    assert again.family is model.family and abs(validation.loss(again, 2) - last) < 1e-5 * last


def test_samples_longer_than_the_table_of_positions_train(tmp_path):
    """No position is as large as the sample is long."""
    model, validation = model_of(max_sequence_length=12), FixedBatches(samples(2), 6)
    train(model, samples(3), validation, settings_of(steps=2, warmup=0), out=tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="sequence_length: expected at most 12, the model's context, got 16"):
        tokens = np.zeros(400, int)
        train(model, tokens, tokens, settings_of(steps=2, warmup=0), out=tmp_path / "tokens", progress=False)
