"""Rollouts and GRPO."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import FEW, MODEL, relative_error, trained
from tests.tuning.align.test_learner import tiny
from tinyplm import random
from tinyplm.core import tree_map
from tinyplm.losses import policy
from tinyplm.models.protocol import OutputOptions
from tinyplm.optim.adamw import AdamW
from tinyplm.training.log import read
from tinyplm.training.step import NonFiniteError
from tinyplm.tuning.align.grpo import GRPOSettings, grpo, policy_loss, round_statistics, token_weights
from tinyplm.tuning.align.learner import Learner, token_log_probs
from tinyplm.tuning.align.rollouts import Rollouts, answer_mask, rollouts
from tinyplm.tuning.align.rounds import rewarded
from tinyplm.tuning.align.rules import text_reward
from tinyplm.tuning.data.sequences import batch_numbers

PROMPTS = [[5, 6], [7], [1, 2, 3], [9, 8]]


def small(**changes):
    return GRPOSettings(
        **{"steps": 3, "batch_size": 4, "group": 4, "max_new_tokens": 4, "learning_rate": 1e-2, "warmup": 0, **changes}
    )


def even_tokens(prompts, answers):
    """The fraction of even tokens."""
    return [float(np.mean([i % 2 == 0 for i in answer])) for answer in answers]


def test_rollouts_are_what_the_model_draws():
    model = tiny()
    drawn = rollouts(model, PROMPTS, samples=3, max_new_tokens=5, stop_ids=range(8), seed=4)
    assert len(drawn) == 12 and drawn.prompts == [p for p in PROMPTS for _ in range(3)]
    for answer, finished in zip(drawn.answers, drawn.finished):
        assert all(i >= 8 for i in answer[:-1])  # nothing follows the end token, which is itself an action
        assert finished == (answer[-1] < 8) and (finished or len(answer) == 5)
    assert 0 < sum(drawn.finished) < 12
    batch = drawn.arrays()
    assert answer_mask(batch).sum() == drawn.lengths.sum()
    row = batch["targets"][4][batch["targets"][4] != -100]
    assert row.tolist() == drawn.answers[4] and batch["input_ids"][4][: len(PROMPTS[1])].tolist() == PROMPTS[1]


def test_rollouts_depend_on_the_seed_and_not_on_the_threads():
    model = tiny()
    first = rollouts(model, PROMPTS, samples=2, max_new_tokens=5, stop_ids=(), seed=4)
    assert rollouts(model, PROMPTS, samples=2, max_new_tokens=5, stop_ids=(), seed=4, workers=2).answers == first.answers
    assert rollouts(model, PROMPTS, samples=2, max_new_tokens=5, stop_ids=(), seed=5).answers != first.answers
    assert first.answers[0] != first.answers[1]


def test_texts_leave_out_what_ended_them():
    class Letters:
        def decode(self, ids, after):
            return "".join(chr(97 + i) for i in ids)

    drawn = Rollouts([[1], [1]], [[2, 3, 0], [4, 4, 4]], [True, False], 2)
    assert drawn.texts(Letters(), stop_ids=[0]) == ["cd", "eee"]


def test_a_rule_on_texts(trained):
    """The token that ends an answer is not part of its text; a truncated answer keeps all of its text."""
    seen = []

    def rule(prompt, answer, finished):
        seen.append((prompt, answer, finished))
        return len(answer)

    end = trained.eos_id
    prompts = [[end, *trained.encode("2+2=")], trained.encode("fox")]
    answers = [[*trained.encode("4"), end], trained.encode(" dog")]
    assert text_reward(rule, trained)(prompts, answers) == [1, 4]
    assert seen == [("2+2=", "4", True), ("fox", " dog", False)]
    other = text_reward(rule, trained, stop_ids=[answers[1][-1]])
    assert other(prompts[1:], answers[1:]) == [len(trained.decode(answers[1][:-1]))] and seen[-1][2]

    class Endless:
        eos_id = None

    with pytest.raises(ValueError, match="stop_ids: expected token ids"):
        text_reward(rule, Endless())


@pytest.mark.parametrize("changes", [{}, {"epochs": 2, "minibatches": 2, "beta": 0.05, "workers": 2},
                                     {"aggregation": "token", "clip_ratio_high": 0.3},
                                     {"aggregation": "constant", "scale": False}])  # fmt: skip
def test_the_rewarded_tokens_become_likely(changes):
    model = tiny(dtype="float32")
    before = tree_map(np.copy, model.params)
    result = grpo(model, PROMPTS, even_tokens, small(steps=40, group=8, **changes), stop_ids=(), progress=False)
    first, last = (np.mean([h["reward"] for h in some]) for some in (result.history[:3], result.history[-3:]))
    assert first < 0.7 and last > 0.9
    assert relative_error(model.params, before) > 0.01
    assert {"reward", "entropy", "clip_fraction", "update_kl", "length", "cut", "even", "gradient_norm"} <= result.history[
        0
    ].keys()
    assert ("kl" in result.history[0]) == ("beta" in changes)


def test_the_first_update_of_a_round_is_the_policy_gradient():
    """With one update per round all ratios are 1, so the gradient is that of -mean_i mean_t A_i log pi, to rounding."""
    model = tiny()
    drawn = rollouts(model, PROMPTS, samples=4, max_new_tokens=4, stop_ids=range(8), seed=1)
    batch, settings = drawn.arrays(), small()
    A = np.random.default_rng(0).normal(size=(len(drawn), 1))
    weights = token_weights(answer_mask(batch), "sequence", np.float64)
    assert np.allclose(weights.sum(axis=1), 1, rtol=FEW)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    whole = {"inputs": inputs, "targets": {"logits": batch["targets"]}, "loss": {"weights": weights, "advantages": A}}
    learner = Learner(model, settings)
    values = learner.accumulate(whole, policy_loss(settings, 16.0), OutputOptions(entropy=True))
    outputs, back = model.token_outputs(**inputs, targets=batch["targets"], entropy=True)
    expected = back({"log_probs": -A * weights / 16})
    assert relative_error(learner.optimizer.gradient.tree["model"], expected) < MODEL
    assert values["clip_fraction"] == values["update_kl"] == 0
    assert values["entropy"] == pytest.approx((outputs["entropy"] * weights).sum() / 16, rel=MODEL)


def test_the_loss_has_the_reference_and_the_old_policy():
    """All terms of the loss, computed through the learner, against losses.policy on whole arrays."""
    model, other, third = tiny(), tiny(key=5), tiny(key=6)
    drawn = rollouts(model, PROMPTS, samples=4, max_new_tokens=4, stop_ids=range(8), seed=1)
    batch, settings = drawn.arrays(), small(beta=0.3, clip_ratio=0.1, clip_ratio_high=0.2, temperature=0.8, micro_batch_size=3)
    A = np.random.default_rng(0).normal(size=(len(drawn), 1))
    old, reference = (token_log_probs(m, batch, temperature=0.8)["log_probs"] for m in (other, third))
    arrays = {"weights": token_weights(answer_mask(batch), "token", np.float64), "advantages": A, "old_log_probs": old,
              "reference_log_probs": reference}  # fmt: skip
    total = float(arrays["weights"].sum())
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    learner = Learner(model, settings)
    values = learner.accumulate({"inputs": inputs, "targets": {"logits": batch["targets"]}, "loss": arrays},
                                policy_loss(settings, total), OutputOptions(temperature=0.8, entropy=True))  # fmt: skip
    outputs, back = model.token_outputs(**inputs, targets=batch["targets"], temperature=0.8)
    loss, loss_back = policy.grpo(outputs["log_probs"], **arrays, clip=0.1, clip_high=0.2, beta=0.3)
    assert values["loss"] == pytest.approx(float(loss), rel=MODEL)
    assert 0 < values["clip_fraction"] < 1 and values["kl"] > 0 and values["update_kl"] > 0
    assert relative_error(learner.optimizer.gradient.tree["model"], back({"log_probs": loss_back(1.0)})) < MODEL


@pytest.mark.parametrize("aggregation, scale", [("sequence", True), ("token", False), ("constant", True)])
def test_two_rounds_by_hand(aggregation, scale):
    """A loop over the formulas gives the same parameters, to rounding: sampling and rewards, group advantages, ratios to the
    sampling policy, the initial model as reference, totals, temperature, rates.  A large eps makes gradient sizes matter."""
    model = tiny()
    settings = small(steps=2, batch_size=3, epochs=2, minibatches=2, beta=0.2, temperature=0.8, aggregation=aggregation,
                     scale=scale, eps=1e-2, clip=100.0, learning_rate=0.2, schedule="linear", warmup=2, seed=7)  # fmt: skip
    stops, key = range(8), random.key(7)
    start, policy_model = model._with(), model._with()
    optimizer = AdamW(model.params, betas=(0.9, 0.95), eps=1e-2, weight_decay=0.0)
    policy_model.params = optimizer.params
    updates, expected = 0, []
    for step in range(2):
        chosen = [PROMPTS[n] for n in batch_numbers(4, 3, step, key=random.fold(key, 0))]
        drawn = rollouts(policy_model, chosen, samples=4, max_new_tokens=4, temperature=0.8, stop_ids=stops,
                         seed=random.fold(key, 1, step))  # fmt: skip
        r = np.array(even_tokens(drawn.prompts, drawn.answers)).reshape(3, 4)
        A = (r - r.mean(1, keepdims=True)) / (r.std(1, ddof=1, keepdims=True) + 1e-4 if scale else 1)
        batch = drawn.arrays()
        targets, inputs = batch.pop("targets"), batch
        mask = (targets != -100).astype(float)
        old, reference = (m.token_outputs(**inputs, targets=targets, temperature=0.8)[0]["log_probs"]
                          for m in (policy_model, start))  # fmt: skip
        for epoch in range(2):
            order = random.generator(random.fold(random.fold(key, 2, step), epoch)).permutation(12)
            for some in (order[:6], order[6:]):
                w = mask[some] / {"sequence": 6 * mask[some].sum(1, keepdims=True), "token": mask[some].sum(),
                                  "constant": 6 * 4}[aggregation]  # fmt: skip
                part = {name: a[some] for name, a in inputs.items()}
                outputs, back = policy_model.token_outputs(**part, targets=targets[some], temperature=0.8)
                ratio, a = np.exp(outputs["log_probs"] - old[some]), A.reshape(-1, 1)[some]
                d = np.where(ratio * a <= np.clip(ratio, 0.8, 1.2) * a, -ratio * a, 0)
                difference = reference[some] - outputs["log_probs"]
                optimizer.gradient.add(back({"log_probs": w * (d + 0.2 * (1 - np.exp(difference)))}))
                norm = optimizer.gradient_norm()
                optimizer.step(settings.rate(updates, 8), clip=100.0, norm=norm)
                updates += 1
                expected.append((w * (np.exp(difference) - difference - 1)).sum())
    result = grpo(model, PROMPTS, even_tokens, settings, stop_ids=stops, progress=False)
    bound = trained(8, 0.2, 1e-2)
    assert relative_error(model.params, optimizer.params) < bound
    assert [h["kl"] for h in result.history] == pytest.approx([np.mean(expected[:4]), np.mean(expected[4:])], rel=bound)
    assert result.history[0]["clip_fraction"] > 0  # some ratios have left the interval, so both branches are tested


def test_what_is_said_of_a_round():
    drawn = Rollouts([[1]] * 6, [[2, 0], [3], [4], [5, 5, 5], [6, 6, 6], [7, 0]], [True, False, False, False, False, True], 2)
    found = round_statistics({"reward": np.array([1.0, 1, 0, 1, 0, 0]), "half": np.array([0.5, 0, 0, 0, 0, 0])}, drawn)
    assert found == pytest.approx({"reward": 0.5, "half": 0.5 / 6, "reward_deviation": 0.5, "length": 2, "cut": 4 / 6,
                                   "even": 2 / 3})  # fmt: skip


def test_the_same_seed_gives_the_same_bits_and_a_log(tmp_path):
    def run(seed, out=None):
        model = tiny(dtype="float32")
        result = grpo(model, PROMPTS, lambda p, a: [{"reward": r, "half": r / 2} for r in even_tokens(p, a)],
                      small(seed=seed, workers=2, epochs=2), stop_ids=[3], out=out, progress=False)  # fmt: skip
        return model.params, result

    (a, result), (b, _), (c, _) = run(0, tmp_path), run(0), run(1)
    assert relative_error(a, b) == 0 and relative_error(a, c) > 1e-4
    records = list(read(tmp_path / "log.jsonl"))
    assert records == result.history and records[0]["half"] == pytest.approx(records[0]["reward"] / 2)
    assert relative_error(tinyplm.load(tmp_path / "final").params, a) == 0


def test_equal_rewards_change_nothing():
    model = tiny()
    before = tree_map(np.copy, model.params)
    result = grpo(model, PROMPTS, lambda p, a: [1.0] * len(a), small(), stop_ids=(), progress=False)
    assert relative_error(model.params, before) == 0
    assert all(h["even"] == 1 and h["gradient_norm"] == 0 for h in result.history)


@pytest.mark.parametrize("reward, message", [
    (lambda p, a: [1.0] * 3, "reward: expected 16 rewards, one per answer, got 3"),
    (lambda p, a: [1.0] * 15 + [float("nan")], "answer 15: expected a finite number as reward, got nan"),
    (lambda p, a: ["1"] * 16, "answer 0: expected a finite number as reward, got '1'"),
    (lambda p, a: [None] * 16, "answer 0: expected a finite number as reward, got None"),
    (lambda p, a: [{"reward": 1.0}] * 15 + [{"reward": 1.0, "x": 1.0}], "expected .reward. and the same parts .* for answer 15"),
    (lambda p, a: [{"x": 1.0}] * 16, "expected \"reward\""),
])  # fmt: skip
def test_bad_rewards(reward, message):
    model = tiny()
    before = tree_map(np.copy, model.params)
    with pytest.raises(ValueError, match=message):
        grpo(model, PROMPTS, reward, small(), stop_ids=(), progress=False)
    assert relative_error(model.params, before) == 0
    assert rewarded(lambda p, a: [True, np.float32(0.5)], Rollouts([[1]] * 2, [[2]] * 2, [True] * 2, 2))["reward"].tolist() == [
        1,
        0.5,
    ]


def test_bad_input():
    model = tiny()
    other = tinyplm.create("gpt2", vocab_size=41, n_embd=12, n_layer=1, n_head=3, n_positions=16)
    with pytest.raises(ValueError, match="reference: expected a vocabulary of 40 tokens"):
        grpo(model, PROMPTS, even_tokens, small(beta=0.1), reference=other, progress=False)


def test_what_is_not_finite_stops_the_run():
    model = tiny()
    model.params["body"]["norm"]["gamma"][0] = np.inf
    with np.errstate(all="ignore"), pytest.raises((NonFiniteError, FloatingPointError, ValueError)):
        grpo(model, PROMPTS, even_tokens, small(), stop_ids=(), progress=False)
