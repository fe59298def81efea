"""PPO."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, difference_rounding, relative_error
from tests.models.test_score_models import scored
from tests.tuning.align.test_grpo import PROMPTS, even_tokens
from tests.tuning.align.test_learner import tiny
from tinyplm.core import flatten, tree_map
from tinyplm.losses.advantages import adaptive_kl
from tinyplm.models.protocol import OutputOptions
from tinyplm.training.log import read
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.ppo import PPOSettings, experience, model_reward, ppo, ppo_loss
from tinyplm.tuning.align.reward import score
from tinyplm.tuning.align.rollouts import rollouts
from tinyplm.tuning.data.sequences import answered


def small(**changes):
    defaults = {"steps": 3, "batch_size": 8, "max_new_tokens": 4, "learning_rate": 1e-2, "warmup": 0}
    return PPOSettings(**{**defaults, **changes})


def head(D=12, seed=0):
    draw = np.random.default_rng(seed)
    return {"w": draw.normal(size=D), "b": draw.normal(size=1)}


def round_of(model, settings, value, reference=None):
    learner = Learner(model, settings, extra=value)
    drawn = rollouts(model, PROMPTS, samples=2, max_new_tokens=4, stop_ids=range(8), seed=1, temperature=settings.temperature)
    scores = np.random.default_rng(0).normal(size=len(drawn))
    batch, record = experience(learner, reference or model, drawn, scores, settings.beta)
    return learner, drawn, scores, batch, record


def test_before_the_first_update_nothing_has_moved():
    """Ratios are 1 and values equal the old ones, to rounding; the KL to a reference identical to the policy is exactly 0."""
    settings = small(value_weight=0.5, temperature=0.8)
    learner, drawn, scores, batch, record = round_of(tiny(), settings, head())
    assert record["kl"] == 0 and record["score"] == pytest.approx(scores.mean())
    loss = ppo_loss(settings, float(batch["loss"]["weights"].sum()))
    values = learner.accumulate(batch, loss, OutputOptions(temperature=0.8, entropy=True))
    assert values["clip_fraction"] == 0 and abs(values["update_kl"]) < MODEL
    weights = batch["loss"]["weights"] > 0
    assert abs(values["policy_loss"]) < MODEL  # the mean of whitened advantages
    error = batch["loss"]["returns"] - batch["loss"]["old_values"]
    assert values["value_loss"] == pytest.approx(0.5 * (error[weights] ** 2).mean(), rel=MODEL)
    assert not batch["loss"]["advantages"][~weights].any() and not batch["loss"]["returns"][~weights].any()


def test_returns_are_scores_less_the_kl():
    """With lam = 1 the return at an answer's first token sums all rewards: the score and -beta times the log-ratios."""
    model, reference, settings = tiny(), tiny(key=5), small(beta=0.3, lam=1.0, cut_score=-2.0)
    _, drawn, scores, batch, record = round_of(model, settings, head(), reference)
    flat = {"attention_mask": batch["inputs"]["attention_mask"], "targets": batch["targets"]["logits"]}
    ratio = [m.token_outputs(batch["inputs"]["input_ids"], **flat)[0]["log_probs"].sum(axis=1) for m in (model, reference)]
    worth = np.where(drawn.finished, scores, -2.0)
    first = [int(np.argmax(row > 0)) for row in batch["loss"]["weights"]]
    found = batch["loss"]["returns"][np.arange(len(first)), first]
    assert relative_error(found, worth - 0.3 * (ratio[0] - ratio[1])) < MODEL
    assert record["kl"] == pytest.approx((ratio[0] - ratio[1]).mean(), rel=MODEL)


def test_the_gradient_of_the_whole_loss_by_differences():
    """Policy, value (into head and body) and entropy terms together, away from the first update: all ratios are clipped."""
    model, settings = tiny(), small(value_weight=0.7, entropy_weight=0.2, clip_ratio=0.1, workers=2, micro_batch_size=3)
    learner, _, _, batch, _ = round_of(model, settings, head())
    draw, total = np.random.default_rng(3), float(batch["loss"]["weights"].sum())
    batch["loss"]["old_log_probs"] += 0.3 * draw.choice([-1, 1], batch["loss"]["old_log_probs"].shape)  # ratios 0.74 and 1.35
    loss = ppo_loss(settings, total)

    def value(params, extra):
        return Learner(model._with(params=params), settings, extra=extra).accumulate(batch, loss, OutputOptions(entropy=True))

    values = learner.accumulate(batch, loss, OutputOptions(entropy=True))
    assert values["clip_fraction"] == pytest.approx(1)
    gradient = learner.optimizer.gradient.tree
    for part, tree in (("model", model.params), ("extra", head())):
        d = tree_map(lambda a: draw.normal(size=a.shape), tree)
        ends = []
        for h in (1e-5, -1e-5):
            moved = tree_map(lambda a, b, h=h: a + h * b, tree, d)
            ends.append(value(moved, head())["loss"] if part == "model" else value(model.params, moved)["loss"])
        terms = [(flatten(gradient[part])[path] * step).sum() for path, step in flatten(d).items()]
        assert abs(sum(terms) - (ends[0] - ends[1]) / 2e-5) < 1e-6 * sum(map(abs, terms)) + difference_rounding(ends[0]), part


@pytest.mark.parametrize(
    "changes", [{}, {"kl_target": 0.5, "kl_horizon": 50.0, "workers": 2}, {"clip_value": None, "entropy_weight": 0.01}]
)
def test_the_rewarded_tokens_become_likely(changes):
    model = tiny(dtype="float32")
    prompts = [[i] for i in range(3, 30)]
    result = ppo(model, prompts, even_tokens, small(steps=40, batch_size=16, beta=0.02, **changes), stop_ids=(), progress=False)
    first, last = (np.mean([h["reward"] for h in some]) for some in (result.history[:3], result.history[-3:]))
    assert first < 0.7 and last > 0.85
    assert result.history[0]["kl"] == 0 and result.history[-1]["kl"] > 0.1
    assert result.value["w"].any()
    names = {"loss", "reward", "score", "kl", "kl_coefficient", "entropy", "clip_fraction", "value_loss", "explained_variance",
             "length", "cut", "gradient_norm", "learning_rate"}  # fmt: skip
    assert names <= result.history[0].keys()
    for now, following in zip(result.history, result.history[1:]):
        expected = now["kl_coefficient"]
        if "kl_target" in changes:
            expected = adaptive_kl(expected, kl=now["kl"], target=0.5, horizon=50.0, samples=16)
        assert following["kl_coefficient"] == pytest.approx(expected, rel=MODEL)


def test_a_reward_model_gives_the_reward_and_bits_repeat(tmp_path):
    judge = scored(names=["reward"], dtype="float32")

    def run(seed, out=None):
        model = tiny(dtype="float32")
        result = ppo(
            model, PROMPTS, model_reward(judge, offset=1.0), small(seed=seed, workers=2), stop_ids=[3], out=out, progress=False
        )
        return model.params, result

    (a, result), (b, _), (c, _) = run(0, tmp_path), run(0), run(1)
    assert relative_error(a, b) == 0 and relative_error(a, c) > 1e-5
    assert list(read(tmp_path / "log.jsonl")) == result.history
    assert relative_error(tinyplm.load(tmp_path / "final").params, a) == 0
    found = model_reward(judge, offset=1.0)([[1, 2]], [[3]])
    assert found == pytest.approx(score(judge, [answered([1, 2], [3])]) + 1)


def test_a_round_of_one_answer():
    """A single token: its whitened advantage is 0, so only the value learns."""
    result = ppo(
        tiny(),
        [[5]],
        lambda p, a: [{"reward": 2.0, "part": 3}],
        small(steps=1, batch_size=1, minibatches=1, epochs=1, max_new_tokens=1),
        stop_ids=(),
        progress=False,
    )
    (row,) = result.history
    assert (row["step"], row["reward"], row["part"], row["score"], row["length"], row["cut"]) == (1, 2, 3, 2, 1, 1)
    assert row["policy_loss"] == 0 and row["value_loss"] == pytest.approx(2.0) and row["explained_variance"] == 0


def test_bad_input():
    model = tiny()
    before = tree_map(np.copy, model.params)
    for bad in (head(11), {"w": np.zeros(12)}, {**head(), "c": np.zeros(1)}, {"w": np.zeros(12), "b": 0.0}, np.zeros(12)):
        with pytest.raises(ValueError, match=r"^value: expected .*array \(12,\)"):
            ppo(model, PROMPTS, even_tokens, small(), value=bad, progress=False)
    with pytest.raises(ValueError, match="answer 0: expected a finite number as reward, got nan"):
        ppo(model, PROMPTS, lambda p, a: [float("nan")] * len(a), small(), progress=False)
    with pytest.raises(ValueError, match="expected 8 rewards, one per answer, got 1"):
        ppo(model, PROMPTS, lambda p, a: [1.0], small(), progress=False)
    with pytest.raises(ValueError, match="reference: expected a vocabulary of 41 tokens"):
        ppo(tinyplm.create("gpt2", vocab_size=41, n_embd=12, n_layer=1, n_head=3, n_positions=16),
            PROMPTS, even_tokens, small(), reference=model, progress=False)  # fmt: skip
    assert relative_error(model.params, before) == 0
