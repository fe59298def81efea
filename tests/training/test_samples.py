"""Training on samples of an objective: what step and validation losses are divided by, and what is rejected before the start."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import MODEL, relative_error
from tests.support.encoder_families import TRAINED, batch, targets_for, tiny
from tinyplm.core import flatten
from tinyplm.optim.adamw import AdamW
from tinyplm.training.loop import train
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings
from tinyplm.training.step import accumulate, evaluate_batches, target_counts

MODELLED = [(family, task) for family, task in TRAINED if task in ("masked_lm", "pretraining", "permutation_lm")]


def gradient_of_a_step(model, inputs, targets, **settings):
    optimizer = AdamW(model.params)
    loss = accumulate(model, optimizer, inputs, targets, settings=Settings(batch_size=3, sequence_length=5, **settings))
    return float(loss), optimizer.gradient.tree


@pytest.mark.parametrize(("family", "task"), MODELLED)
@pytest.mark.parametrize(("micro", "workers"), [(None, 1), (2, 1), (1, 1), (1, 2), (1, 4), (2, 2), (2, 3), (None, 3), (None, 4)])
def test_a_step_has_the_mean_over_the_targets_that_count(family, task, micro, workers):
    """The mean is over the whole batch, separately for each output: parts have unequal numbers of targets."""
    model = tiny(family, task)
    inputs = batch(model)
    targets = targets_for(model, model(**inputs, grad=False)[0])
    targets["logits"][1] = -100
    expected, back = model.loss(targets=targets, **inputs)
    loss, gradient = gradient_of_a_step(model, inputs, targets, micro_batch_size=micro, workers=workers)
    assert loss == pytest.approx(float(expected), rel=MODEL) and relative_error(gradient, back(1.0)) < MODEL


def test_a_head_is_computed_where_there_are_targets():
    """Training uses head_rows to choose the form of the head's gradient."""
    model = tiny("bert", "pretraining")
    assert model.head_rows({"logits": np.array([[1, -100], [-100, -100]]), "pair_logits": np.array([0, 1])}) == 1
    assert model.head_rows({"pair_logits": np.array([0, 1])}) == 0


def test_a_step_without_targets_is_nothing():
    """Bernoulli masking of a short batch may select no token."""
    model = tiny("bert")
    loss, gradient = gradient_of_a_step(model, batch(model), {"logits": np.full((3, 5), -100)})
    assert loss == 0 and not any(a.any() for a in flatten(gradient).values())


class Numbered:
    """Samples n = 0, 1, ... with n % 4 + 1 targets each."""

    length = 5

    def __init__(self, **inputs):
        self.inputs = inputs

    def batch(self, first, count):
        numbers = np.arange(first, first + count)[:, None]
        ids = (numbers + np.arange(5)) % 7 + 2
        targets = np.where(np.arange(5) <= numbers % 4, ids, -100)
        more = {name: np.zeros_like(ids) for name in self.inputs}
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), **more}, {"logits": targets}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_validation_is_the_loss_of_its_samples_as_one_batch(workers):
    model = tiny("bert")
    validation = FixedBatches(Numbered(), 7, batch_size=3)
    assert [len(inputs["input_ids"]) for inputs, _ in validation.batches] == [3, 3, 1]
    inputs, targets = Numbered().batch(0, 7)
    expected = float(model.loss(targets=targets, grad=False, **inputs)[0])
    assert validation.loss(model, workers) == pytest.approx(expected, rel=MODEL)
    assert evaluate_batches(model, [Numbered().batch(0, 7)]) == pytest.approx(expected, rel=MODEL)
    with pytest.raises(ValueError, match="count: expected an integer from 1 to 2147483647, got 0"):
        FixedBatches(Numbered(), 0, batch_size=3)


def test_samples_that_do_not_fit_the_model_are_refused_before_the_first_step(tmp_path):
    def run(model, samples, **settings):
        settings = Settings(**{"steps": 1, "batch_size": 2, "sequence_length": 5, "warmup": 0, **settings})
        train(model, samples, FixedBatches(Numbered(), 2), settings, out=tmp_path / "out", progress=False)

    with pytest.raises(ValueError, match="sequence_length: expected 5, the length of the samples, got 4"):
        run(tiny("bert"), Numbered(), sequence_length=4)
    with pytest.raises(ValueError, match="sequence_length: expected at most 6, the model's context, got 7"):
        run(tiny("bert"), Numbered(), sequence_length=7)
    with pytest.raises(
        ValueError, match="token_type_ids: expected None, since distilbert takes only attention_mask, position_ids, got "
    ):
        run(tiny("distilbert"), Numbered(token_type_ids=True))
    with pytest.raises(ValueError, match="input_ids: expected integers from 0 to 7, got 8"):
        run(tiny("bert", vocab_size=8), Numbered())
    tokens = np.arange(200) % 7
    settings = Settings(steps=1, batch_size=2, sequence_length=5, warmup=0)
    with pytest.raises(ValueError, match="model: expected a decoder that generates text, got <bert masked_lm model"):
        train(tiny("bert"), tokens, tokens, settings, out=tmp_path / "out", progress=False)
    with pytest.raises(
        TypeError,
        match="expected two token arrays, or samples and .*, got Numbered and ndarray",
    ):
        train(tiny("bert"), Numbered(), tokens, settings, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    run(tiny("bert"), Numbered())


def test_a_run_does_not_go_on_with_another_validation(tmp_path):
    settings = {"steps": 2, "batch_size": 2, "sequence_length": 5, "warmup": 0, "save_every": 1, "evaluate_every": 1}
    train(tiny("bert"), Numbered(), FixedBatches(Numbered(), 2), Settings(**settings), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="data"):
        train(
            tiny("bert"), Numbered(), FixedBatches(Numbered(), 3), Settings(**settings), out=tmp_path, resume=True, progress=False
        )


def test_what_counts_as_a_target():
    """Class indices other than -100; real numbers other than NaN, so -100 counts there. The loss is divided by this count."""
    targets = {"logits": np.array([[0, -100], [2, -100]]), "numbers": np.array([[-100.0, np.nan, 1.0]])}
    assert target_counts(targets) == {"logits": 2, "numbers": 2}


def test_numbers_in_shards_are_one_batch():
    """Squared error of 3 labels for 3 texts: nine numbers, one missing."""
    model = tiny("bert", "sequence_classification", problem_type="regression")
    inputs = batch(model)
    numbers = np.random.default_rng(0).normal(size=(3, 3))
    numbers[1, 2] = np.nan
    expected, _ = model.loss(targets={"logits": numbers}, **inputs)
    settings = Settings(batch_size=3, sequence_length=5, workers=3)
    loss = accumulate(model, AdamW(model.params), inputs, {"logits": numbers}, settings=settings)
    assert abs(float(loss) - float(expected)) < MODEL
