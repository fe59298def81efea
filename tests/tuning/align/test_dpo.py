"""Preference pairs and DPO."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, relative_error
from tests.tuning.align.test_learner import tiny
from tinyplm.core import tree_map
from tinyplm.losses.preference import dpo as dpo_of
from tinyplm.training.log import read
from tinyplm.tuning.align.dpo import DPOSettings, answer_log_probs, dpo, dpo_batch, dpo_loss, pair_statistics
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.data.pairs import check_pairs, joint_arrays, pair_arrays
from tinyplm.tuning.data.sequences import TokenSequence, answered


def some_pairs(count=5, seed=0):
    """Prompts of 1 to 4 tokens, answers of 1 to 5; the chosen one ends with 1, the rejected one with 2."""
    draw = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        prompt, first, second = (draw.integers(3, 40, draw.integers(1, 5)).tolist() for _ in range(3))
        pairs.append((answered(prompt, [*first, 1]), answered(prompt, [*second, 2])))
    return pairs


def test_arrays_by_hand():
    pair = (answered([5, 6], [7, 1]), answered([5, 6], [8, 9, 2]))
    values = pair_arrays([pair])
    assert values["input_ids"].tolist() == [[[5, 6, 7, 0], [5, 6, 8, 9]]]
    assert values["targets"].tolist() == [[[-100, 7, 1, -100], [-100, 8, 9, 2]]]
    joint = joint_arrays([pair])
    assert joint["input_ids"].tolist() == [[5, 6, 7, 6, 8, 9]]  # 6 precedes each answer
    assert joint["targets"].tolist() == [[-100, 7, 1, 8, 9, 2]]
    assert joint["position_ids"].tolist() == [[0, 1, 2, 1, 2, 3]]
    assert joint["second"].tolist() == [[False] * 3 + [True] * 3]
    sees = joint["attention_mask"][0, 0] & np.tri(6, dtype=bool)
    assert sees.astype(int).tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0],
                                         [1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0], [1, 0, 0, 1, 1, 1]]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("joint", [False, True])
def test_the_step_is_the_loss_on_whole_answers(family, joint):
    """Loss and gradient through the learner, in parts, against losses.preference.dpo on sums from one plain call per answer."""
    model, other, pairs = tiny(family), tiny(family, key=9), some_pairs()
    settings = DPOSettings(batch_size=5, beta=0.5, smoothing=0.1, joint=joint, micro_batch_size=2, workers=2)
    reference = answer_log_probs(other, pairs)
    learner = Learner(model, settings)
    values = learner.accumulate(dpo_batch(pairs, reference, settings), dpo_loss(settings, 5))
    flat = pair_arrays(pairs)
    sums, backs = [], []
    for i in (0, 1):
        outputs, back = model.token_outputs(flat["input_ids"][:, i], attention_mask=flat["attention_mask"][:, i],
                                            targets=flat["targets"][:, i])  # fmt: skip
        sums.append(outputs["log_probs"].sum(axis=1))
        backs.append(back)
    loss, loss_back = dpo_of(*sums, reference_chosen=reference[:, 0], reference_rejected=reference[:, 1], beta=0.5, smoothing=0.1)
    whole = np.ones(flat["targets"][:, 0].shape)
    parts = [back({"log_probs": d[:, None] * whole}) for d, back in zip(loss_back(1.0), backs)]
    assert values["loss"] == pytest.approx(float(loss), rel=MODEL)
    assert relative_error(learner.optimizer.gradient.tree["model"], tree_map(np.add, *parts)) < MODEL
    assert relative_error(answer_log_probs(model, pairs, batch_size=2, workers=2), np.stack(sums, axis=1)) < MODEL
    found = pair_statistics(np.stack(sums, axis=1), reference, settings)
    assert all(values[name] == pytest.approx(found[name], rel=MODEL) for name in found)
    assert found["margin"] == pytest.approx(found["chosen"] - found["rejected"], rel=MODEL)


def test_it_starts_at_ln_2_and_learns_the_preference(tmp_path):
    model = tiny(dtype="float32")
    before = tree_map(np.copy, model.params)
    settings = DPOSettings(steps=60, batch_size=8, learning_rate=1e-2, beta=0.2, workers=2, evaluate_every=20)
    result = dpo(model, some_pairs(40), settings, validation=some_pairs(40, seed=1), out=tmp_path, progress=False)
    assert result.history[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert list(result.validation) == [0, 20, 40, 60]
    assert result.validation[0]["loss"] == pytest.approx(np.log(2), abs=1e-6) and result.validation[0]["accuracy"] == 0.5
    assert result.validation[60]["accuracy"] > 0.9 and result.validation[60]["loss"] < 0.4
    assert relative_error(model.params, before) > 0.01
    assert relative_error(tinyplm.load(tmp_path / "final").params, model.params) == 0
    assert [r["step"] for r in read(tmp_path / "log.jsonl") if "validation_accuracy" in r] == [0, 20, 40, 60]


def test_the_reference_may_be_another_model_and_bits_repeat():
    def run(seed, **options):
        model = tiny(dtype="float32")
        dpo(
            model,
            some_pairs(12),
            DPOSettings(steps=4, batch_size=4, seed=seed, learning_rate=1e-3, workers=2),
            progress=False,
            **options,
        )
        return model.params

    assert relative_error(run(0), run(0)) == 0
    assert relative_error(run(0), run(1)) > 1e-5
    assert relative_error(run(0), run(0, reference=tiny(dtype="float32", key=8))) > 1e-5


def test_bad_input():
    model, good = tiny(), some_pairs(1)[0]
    before = tree_map(np.copy, model.params)
    cases = [
        ([good, (answered([1, 2], [3]), answered([1, 3], [4]))], "pair 1: expected equal prompts"),
        ([(answered([1], [2, 3]), answered([1], [2, 3]))], "pair 0: expected different answers"),
        ([(answered([1], [2]), [1, 2])], "pair 0: expected a chosen and a rejected TokenSequence"),
        ([(answered([1], [2]), answered([1], [2] * 20))], "pair 0, answer 1: expected at most 16 tokens"),
        ([(answered([1], [2]), answered([1], [44]))], "pair 0, answer 1: expected token ids from 0 to 39, got 44"),
        ([], "pairs: expected at least 1, got 0"),
    ]
    for pairs, message in cases:
        with pytest.raises(ValueError, match=message):
            dpo(model, pairs, DPOSettings(steps=1), progress=False)
    with pytest.raises(ValueError, match="answer: expected at least 1 token, got 0"):
        answered([1], [])
    other = tinyplm.create("gpt2", vocab_size=41, n_embd=12, n_layer=1, n_head=3, n_positions=16)
    with pytest.raises(ValueError, match="reference: expected a vocabulary of 40 tokens"):
        dpo(model, [good], DPOSettings(steps=1), reference=other, progress=False)
    assert relative_error(model.params, before) == 0
    check_pairs([(TokenSequence([1, 2, 3, 4], [False, True, False, True]), answered([1], [9]))], context=None, vocabulary=40)
