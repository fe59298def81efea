"""GRPO, Dr. GRPO, DAPO and GSPO as settings of one recipe: each against its paper's objective, and what DAPO adds to a round."""

from __future__ import annotations

import numpy as np
import pytest

import reference.losses.group_methods as ref
from tests.laws import MODEL, relative_error
from tests.tuning.align.test_grpo import PROMPTS, even_tokens, small
from tests.tuning.align.test_learner import tiny
from tinyplm import random
from tinyplm.losses.advantages import overlong_punishment
from tinyplm.training.log import read
from tinyplm.tuning.align import grpo as module
from tinyplm.tuning.align.grpo import GRPOSettings, grpo, grpo_batch
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.redraws import even_groups, uneven_groups
from tinyplm.tuning.align.rollouts import Rollouts, rollouts
from tinyplm.tuning.data.sequences import batch_numbers

# The table in GRPOSettings' docstring; epochs, so that the ratios are not all 1.
METHODS = {
    "GRPO": {"clip_ratio": 0.2, "beta": 0.04},
    "Dr. GRPO": {"clip_ratio": 0.2, "aggregation": "constant", "scale": False},
    "DAPO": {"clip_ratio": 0.2, "clip_ratio_high": 0.28, "aggregation": "token", "redraws": 2, "overlong": 3},
    "GSPO": {"clip_ratio": 3e-4, "clip_ratio_high": 4e-4, "ratio": "sequence"},
}
OBJECTIVES = {
    "GRPO": lambda r, x, old, reference: ref.grpo(r, x, old, reference, clip=0.2, beta=0.04),
    "Dr. GRPO": lambda r, x, old, reference: ref.dr_grpo(r, x, old, clip=0.2, longest=6),
    "DAPO": lambda r, x, old, reference: ref.dapo(r, x, old, low=0.2, high=0.28, longest=6, room=3),
    "GSPO": lambda r, x, old, reference: ref.gspo(r, x, old, low=3e-4, high=4e-4),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_its_papers_objective(method, seed):
    """Policy and reference are two models, the policy that drew a third; DAPO's mean is over one group, the others' over two."""
    draw = np.random.default_rng(seed)
    settings = GRPOSettings(batch_size=2, group=4, max_new_tokens=6, epochs=2, **METHODS[method])
    prompts = [[5, 6]] if method == "DAPO" else [[5, 6], [7]]
    model, old, reference = tiny(), tiny(key=4), tiny(key=5)
    drawn = rollouts(model, prompts, samples=4, max_new_tokens=6, stop_ids=range(8), seed=seed)
    rewards = draw.permutation(np.arange(len(drawn)) % 2).astype(float)
    trained = rewards + (overlong_punishment(drawn.lengths, longest=6, room=3) if settings.overlong else 0)
    batch, loss_of = grpo_batch(Learner(old, settings), settings, reference, drawn, trained)
    targets = batch["targets"]["logits"]
    numbers = [m.token_outputs(**batch["inputs"], targets=targets, entropy=True)[0] for m in (model, old, reference)]
    value, _ = loss_of(batch["loss"])(numbers[0], None, batch["loss"])
    x, before, other = ([row[t != -100].tolist() for row, t in zip(n["log_probs"], targets)] for n in numbers)
    groups = [slice(0, 4), slice(4, 8)][: len(prompts)]
    found = [OBJECTIVES[method](rewards[g].tolist(), x[g], before[g], other[g]) for g in groups]
    assert float(value["loss"]) == pytest.approx(-np.mean([f or 0.0 for f in found]), rel=MODEL, abs=MODEL)


def test_the_punishment_of_length_is_not_part_of_the_logged_reward(monkeypatch):
    seen = []

    def advantages(rewards, **options):
        seen.append(rewards)
        return original(rewards, **options)

    original = module.group_advantages
    monkeypatch.setattr(module, "group_advantages", advantages)
    result = grpo(tiny(), PROMPTS, lambda p, a: [1.0] * len(a), small(steps=1, overlong=2), stop_ids=range(12), progress=False)
    (entry,), (rewards,) = result.history, seen
    assert entry["reward"] == 1 and entry["even"] == 1 and -1 < entry["overlong"] < 0
    assert (
        rewards.mean() == pytest.approx(1 + entry["overlong"]) and set(rewards) <= {0.0, 0.5, 1.0} and entry["gradient_norm"] > 0
    )


# ------------------------------------------------------------------------------------------------------- redraws


def group(prompt, *rewards):
    """A prompt's answers, one token each, which is its reward."""
    return [prompt] * len(rewards), [[r] for r in rewards]


def test_even_groups_are_drawn_again_by_hand():
    """The first draw has one even group of three, its replacement too; the second replacement has not."""
    asked = []
    pending = [group([7], 3, 3), group([8], 0, 1)]

    def draw(numbers, seed):
        asked.append((numbers, seed))
        prompts, answers = pending.pop(0)
        new = Rollouts(prompts, answers, [True] * 2, 2)
        return new, {"reward": np.array(answers, float)[:, 0], "other": np.full(2, 9.0)}

    first = Rollouts([[1]] * 2 + [[2]] * 2 + [[3]] * 2, [[0], [1], [5], [5], [1], [0]], [False] * 6, 2)
    rewards = {"reward": np.array([0.0, 1, 5, 5, 1, 0]), "other": np.arange(6.0)}
    assert even_groups(rewards["reward"], 2).tolist() == [1]
    drawn, found, said = uneven_groups(first, rewards, draw, prompts=20, limit=5, key=random.key(3))
    assert drawn.prompts == [[1], [1], [8], [8], [3], [3]] and drawn.answers == [[0], [1], [0], [1], [1], [0]]
    assert drawn.finished == [False, False, True, True, False, False]
    assert found["reward"].tolist() == [0, 1, 0, 1, 1, 0] and found["other"].tolist() == [0, 1, 9, 9, 4, 5]
    assert said == {"first_reward": 2.0, "redrawn": 2.0} and first.prompts[2] == [2] and rewards["reward"][2] == 5
    seeds = [random.fold(random.key(3), n) for n in (1, 2)]
    assert asked == [(batch_numbers(20, 1, 0, key=random.fold(s, 0)).tolist(), random.fold(s, 1)) for s in seeds]


def test_after_the_limit_even_groups_stay(tmp_path):
    """Nothing has another reward: each of 4 groups is drawn again twice, and then the round goes on without gradient."""
    settings = small(steps=2, redraws=2)
    result = grpo(tiny(), PROMPTS, lambda p, a: [0.5] * len(a), settings, stop_ids=(), out=tmp_path, progress=False)
    assert [h["redrawn"] for h in result.history] == [8, 8] and all(h["even"] == 1 for h in result.history)
    assert result.history[0]["first_reward"] == 0.5 and list(read(tmp_path / "log.jsonl")) == result.history


def test_redraws_depend_on_the_seed_alone():
    """A run of three rounds is bit-equal if repeated, on other threads too; without even groups it is the run without redraws."""

    def rare(prompts, answers):
        return [float(answer[0] % 7 == 0) for answer in answers]

    def run(reward=rare, **changes):
        model = tiny(dtype="float32")
        result = grpo(model, PROMPTS, reward, small(**changes), stop_ids=(), progress=False)
        return model.params, result.history

    (a, history), (b, other) = run(redraws=3), run(redraws=3)
    assert relative_error(a, b) == 0 and history == other
    plain, before = run()
    assert all(h["redrawn"] > 0 for h in history) and relative_error(a, plain) > 1e-4
    assert history[0]["first_reward"] == before[0]["reward"] and history[0]["even"] < before[0]["even"]
    assert relative_error(run(even_tokens, redraws=3)[0], run(even_tokens)[0]) == 0


def test_other_parts_in_a_redraw_are_refused():
    calls = []

    def reward(prompts, answers):
        calls.append(1)
        return [{"reward": 1.0, f"part {len(calls)}": 0.0} for _ in answers]

    with pytest.raises(ValueError, match=r"reward: expected the parts \['reward', 'part 1'\], as for the answers before, got"):
        grpo(tiny(), PROMPTS, reward, small(redraws=1), stop_ids=(), progress=False)
