"""The recipe `dpo` with each of its losses."""

from __future__ import annotations

import numpy as np
import pytest

import reference.losses.preference as ref
from tests.laws import MODEL, relative_error
from tests.tuning.align.test_dpo import some_pairs
from tests.tuning.align.test_learner import tiny
from tinyplm.core import add
from tinyplm.losses import preference, reference_free
from tinyplm.tuning.align.dpo import DPOSettings, answer_log_probs, dpo, dpo_batch, dpo_loss, reference_log_probs
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.pair_losses import PAIR_LOSSES
from tinyplm.tuning.data.pairs import pair_arrays

# loss, settings, whether log-probabilities are means, and the loss of both arrays of answers
CASES = {
    "dpo": ({"beta": 0.5, "smoothing": 0.1}, False, preference.dpo, ref.dpo),
    "dpo, means": ({"beta": 0.5, "means": True}, True, preference.dpo, ref.dpo),
    "ipo": ({"beta": 0.5}, False, preference.ipo, ref.ipo),
    "ipo, means": ({"beta": 0.5, "means": True}, True, preference.ipo, ref.ipo),
    "hinge": ({"beta": 0.5}, False, preference.hinge, ref.hinge),
    "orpo": ({"lam": 0.4}, True, reference_free.orpo, ref.orpo),
    "simpo": ({"beta": 2.0, "margin": 0.5}, True, reference_free.simpo, ref.simpo),
    "simpo, sums": ({"beta": 2.0, "margin": 0.5, "means": False}, False, reference_free.simpo, ref.simpo),
}


@pytest.mark.parametrize("name", CASES)
def test_the_step_is_the_loss_on_whole_answers(name):
    """Loss, statistics and gradient through the learner, in parts and with both answers in a row, against one plain call."""
    changes, means, loss_of, formula = CASES[name]
    kind = name.split(",")[0]
    model, other, pairs = tiny(), tiny(key=9), some_pairs()
    settings = DPOSettings(loss=kind, **changes, batch_size=5, micro_batch_size=2, workers=2)
    before = reference_log_probs(other, pairs, settings)
    learner = Learner(model, settings)
    values = learner.accumulate(dpo_batch(pairs, before, settings), dpo_loss(settings, 5))
    lengths = np.array([[sum(s.counts) for s in pair] for pair in pairs]) if means else np.ones((5, 2))
    now, old = answer_log_probs(model, pairs) / lengths, answer_log_probs(other, pairs) / lengths
    options = {n: v for n, v in changes.items() if n != "means"}
    if PAIR_LOSSES[kind].reference:
        options |= {"reference_chosen": old[:, 0], "reference_rejected": old[:, 1]}
    else:
        old = np.zeros((5, 2))
        assert not before.any()
    loss, back = loss_of(now[:, 0], now[:, 1], **options)
    assert values["loss"] == pytest.approx(float(loss), rel=MODEL)
    assert values["loss"] == pytest.approx(formula(now[:, 0], now[:, 1], **options), rel=MODEL)
    rewards = (1.0 if kind == "orpo" else settings.beta) * (now - old)
    chosen, rejected = rewards.T
    expected = {"chosen": chosen.mean(), "rejected": rejected.mean(), "margin": (chosen - rejected).mean(),
                "accuracy": (chosen > rejected).mean()}  # fmt: skip
    assert {n: values[n] for n in expected} == pytest.approx(expected, rel=MODEL)
    flat, gradient = pair_arrays(pairs), None
    for i, d in enumerate(back(1.0)):
        outputs, model_back = model.token_outputs(flat["input_ids"][:, i], attention_mask=flat["attention_mask"][:, i],
                                                  targets=flat["targets"][:, i])  # fmt: skip
        gradient = add(gradient, model_back({"log_probs": (d / lengths[:, i])[:, None] * np.ones(outputs["log_probs"].shape)}))
    assert relative_error(learner.optimizer.gradient.tree["model"], gradient) < MODEL


@pytest.mark.parametrize("loss", ["ipo", "hinge", "orpo", "simpo"])
def test_each_loss_learns_the_preference(loss):
    """Over three seeds of model, pairs and order: accuracies from 0.88, losses 0.17 to 0.52 of the first, ORPO's to 0.90."""
    model = tiny(dtype="float32")
    changes = {"ipo": {"means": True}, "hinge": {}, "orpo": {"lam": 1.0}, "simpo": {"beta": 2.0, "margin": 1.0}}[loss]
    settings = DPOSettings(loss=loss, steps=40, batch_size=8, learning_rate=1e-2, evaluate_every=40, **{"beta": 0.2, **changes})
    result = dpo(model, some_pairs(40), settings, validation=some_pairs(40, seed=1), progress=False)
    first, last = result.validation[0], result.validation[40]
    assert last["accuracy"] > 0.75 > first["accuracy"] and last["loss"] < (0.95 if loss == "orpo" else 0.7) * first["loss"]
    if loss == "orpo":  # fine-tuning on the chosen answers, too
        assert last["chosen"] > first["chosen"] + 0.1
    if loss in ("ipo", "hinge"):
        assert first["loss"] == pytest.approx({"ipo": 6.25, "hinge": 1.0}[loss], rel=1e-5)


@pytest.mark.parametrize("loss", ["orpo", "simpo"])
def test_a_loss_without_reference_takes_none(loss):
    with pytest.raises(ValueError, match=f'^reference: expected None with loss "{loss}", which has none, got '):
        dpo(tiny(), some_pairs(), DPOSettings(loss=loss, steps=1), reference=tiny(), progress=False)
