"""Reward models."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, MODEL_32, relative_error
from tests.models.test_score_models import scored
from tests.tuning.align.test_dpo import some_pairs
from tests.tuning.align.test_learner import SIZES, tiny
from tinyplm.core import tree_map
from tinyplm.losses.preference import bradley_terry
from tinyplm.training.log import read
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.reward import RewardSettings, pair_scores, reward, reward_loss, score, whole_arrays
from tinyplm.tuning.data.sequences import answered


def test_the_last_token_is_read_too():
    values = whole_arrays([answered([5, 6], [7, 1]), answered([5], [8])])
    assert values["input_ids"].tolist() == [[5, 6, 7, 1], [5, 8, 0, 0]]
    assert values["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize("family", SIZES)
def test_the_step_is_bradley_terry_on_scores(family):
    model, pairs = scored(family, ["reward"]), some_pairs()
    margin = np.random.default_rng(0).random(5)
    rows = whole_arrays([s for pair in pairs for s in pair])
    inputs = {name: a.reshape(5, 2, -1) for name, a in rows.items()}
    learner = Learner(model, RewardSettings(batch_size=5, micro_batch_size=2, workers=2))
    values = learner.accumulate({"inputs": inputs, "loss": {"margin": margin}}, reward_loss(5))
    outputs, back = model(**rows)
    scores = outputs["logits"].reshape(5, 2)
    loss, loss_back = bradley_terry(scores[:, 0], scores[:, 1], margin=margin)
    expected = back({"logits": np.stack(loss_back(1.0), axis=1).reshape(10, 1)})
    assert values["loss"] == pytest.approx(float(loss), rel=MODEL)
    assert values["margin"] == pytest.approx((scores[:, 0] - scores[:, 1]).mean(), rel=MODEL)
    assert relative_error(learner.optimizer.gradient.tree["model"], expected) < MODEL
    found = score(model, [s for pair in pairs for s in pair], batch_size=3, workers=2)
    assert relative_error(found, scores.reshape(-1)) < MODEL
    assert pair_scores(model, pairs)["accuracy"] == (scores[:, 0] > scores[:, 1]).mean()


def test_it_learns_what_was_preferred(tmp_path):
    model = scored(names=["reward"], dtype="float32")
    settings = RewardSettings(steps=40, batch_size=8, learning_rate=1e-2, workers=2, evaluate_every=20)
    pairs = some_pairs(40)
    result = reward(model, pairs, settings, validation=some_pairs(40, seed=1), out=tmp_path, progress=False)
    assert list(result.validation) == [0, 20, 40] and result.validation[40]["accuracy"] > 0.95
    scores = score(model, [s for pair in pairs for s in pair]) + result.offset
    assert abs(scores.mean()) < MODEL_32 and scores.std() > 0.5
    again = tinyplm.load(tmp_path / "final")
    assert relative_error(again.params, model.params) == 0 and again.task == "sequence_classification"
    assert [r["step"] for r in read(tmp_path / "log.jsonl") if "validation_loss" in r] == [0, 20, 40]


def test_a_margin_asks_for_more():
    def margin(margins):
        model = scored(names=["reward"], dtype="float32")
        settings = RewardSettings(steps=100, batch_size=12, learning_rate=1e-2, schedule="linear")
        reward(model, some_pairs(12), settings, margins=margins, progress=False)
        return pair_scores(model, some_pairs(12))["margin"]

    assert margin([3.0] * 12) > margin([]) + 0.5


def test_bad_input():
    model, pairs = scored(names=["reward"]), some_pairs(2)
    before = tree_map(np.copy, model.params)
    for bad in (tiny(), scored()):
        with pytest.raises(ValueError, match="expected a decoder with task sequence_classification and one label"):
            reward(bad, pairs, progress=False)
    with pytest.raises(ValueError, match="margins: expected one for each of 2 pairs, got 1"):
        reward(model, pairs, margins=[1.0], progress=False)
    for bad in (float("nan"), "1", None):
        with pytest.raises(ValueError, match=r"^margins\[1\]: expected a finite number, got "):
            reward(model, pairs, margins=[1.0, bad], progress=False)
    with pytest.raises(ValueError, match="pairs: expected at least 1, got 0"):
        reward(model, [], progress=False)
    with pytest.raises(ValueError, match="pair 0: expected equal prompts"):
        reward(model, [(answered([1], [2]), answered([3], [4]))], progress=False)
    with pytest.raises(ValueError, match="pair 0, answer 0: expected at most 15 tokens, the model's context, got 16"):
        reward(model, [(answered([1], [2] * 16), answered([1], [4]))], progress=False)
    assert relative_error(model.params, before) == 0
