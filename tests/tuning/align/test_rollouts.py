"""Recipes that sample: what exceeds the context is rejected before sampling; what fits is trained on exactly as sampled."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, relative_error
from tests.models.test_score_models import scored
from tests.support.families import tiny as tiny_family
from tests.support.ropes import ROPES
from tests.tuning.align.test_dpo import some_pairs
from tests.tuning.align.test_learner import SIZES, some_sequences, tiny
from tinyplm.core import flatten, tree_map
from tinyplm.models.score_model import ScoreModel
from tinyplm.tuning.adapters.soft_prompt import SoftPrompted
from tinyplm.tuning.align.distill import DistillSettings, Student, distill, sampled_answers
from tinyplm.tuning.align.dpo import DPOSettings, dpo
from tinyplm.tuning.align.grpo import GRPOSettings, grpo
from tinyplm.tuning.align.learner import Learner, token_log_probs
from tinyplm.tuning.align.ppo import PPOSettings, model_reward, ppo
from tinyplm.tuning.align.reward import RewardSettings, reward
from tinyplm.tuning.align.rollouts import rollouts
from tinyplm.tuning.align.sft import SFTSettings, answer_likelihood, batch_of, sft
from tinyplm.tuning.settings import RecipeSettings

ROUND = {"steps": 1, "batch_size": 2, "max_new_tokens": 4}
SAMPLING = {
    "rollouts": lambda m, prompts, rule, **o: rollouts(m, prompts, max_new_tokens=4),
    "sampled_answers": lambda m, prompts, rule, **o: sampled_answers(m, prompts, max_new_tokens=4, stop_ids=range(40)),
    "grpo": lambda m, prompts, rule, **o: grpo(m, prompts, rule, GRPOSettings(**ROUND, group=2), progress=False, **o),
    "grpo, beta": lambda m, prompts, rule, **o: grpo(m, prompts, rule, GRPOSettings(**ROUND, group=2, beta=0.1), progress=False,
                                                     **o),
    "ppo": lambda m, prompts, rule, **o: ppo(m, prompts, rule, PPOSettings(**ROUND), progress=False, **o),
}  # fmt: skip
RECIPES = [name for name in SAMPLING if name in ("grpo", "grpo, beta", "ppo")]


def never(prompts, answers):
    raise AssertionError("an answer was drawn")


def shortest(prompts, answers):
    return [-float(len(answer)) for answer in answers]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", SAMPLING)
def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_drawn(family, name, monkeypatch):
    model = tiny(family)
    before = tree_map(np.copy, model.params)
    SAMPLING[name](model, [[5], [6] * 12], shortest)  # 12 + 4 fill the context of 16
    model.params = before
    monkeypatch.setattr("tinyplm.tuning.align.rollouts.stream", never)
    message = r"^prompts\[1\]: expected at most 12 tokens, since max_new_tokens is 4 and the context 16, got 13$"
    with pytest.raises(ValueError, match=message):
        SAMPLING[name](model, [[5], [6] * 13], never)
    assert model.params is before


@pytest.mark.parametrize("name", SAMPLING)
def test_an_answer_that_would_outgrow_the_context_is_not_drawn(name):
    """It would be sampled with a sliding window but trained on as a whole."""
    model = tinyplm.create("llama", key=3, **{**SIZES["llama"], "max_position_embeddings": 40})
    with pytest.raises(ValueError, match=r"^prompts\[0\]: expected at most 36 tokens, .* is 4 and the context 40, got 37$"):
        SAMPLING[name](model, [[5] * 37], never)
    with pytest.raises(ValueError, match=r"^prompts\[0\]: expected at most 20 tokens, .* is 20 and the context 40, got 36$"):
        rollouts(model, [[5] * 36], max_new_tokens=20)


@pytest.mark.parametrize("prompts, message", [
    ([], r"prompts: expected at least 1, got 0"),
    ([[5], []], r"prompts\[1\]: expected one or more token ids from 0 to 39, got \[\]"),
    ([[5], [40]], r"prompts\[1\]: expected .* from 0 to 39, got \[40\]"),
    ([[-1]], r"prompts\[0\]: expected .*, got \[-1\]"),
    ([[5], [1.5]], r"prompts\[1\]: expected .*, got \[1.5\]"),
    ([[True]], r"prompts\[0\]"),
    (["12"], r"prompts\[0\]: expected .*, got '12'"),
    ([5, 6], r"prompts\[0\]: expected .*, got 5"),
    ([np.zeros(3)], r"prompts\[0\]: expected .*, got float64 array of shape \(3,\)"),
])  # fmt: skip
@pytest.mark.parametrize("name", SAMPLING)
def test_bad_prompts_are_named_before_anything_is_drawn(name, prompts, message):
    with pytest.raises(ValueError, match=message):
        SAMPLING[name](tiny(), prompts, never)


def test_prompts_may_be_arrays():
    found = rollouts(tiny(), np.array([[5, 39], [0, 7]], dtype=np.uint16), max_new_tokens=2, stop_ids=())
    assert found.prompts == [[5, 39], [0, 7]] and type(found.prompts[0][0]) is int


@pytest.mark.parametrize("name, refused", [("max_new_tokens", 0), ("samples", 0), ("workers", 0), ("workers", 1.0)])
def test_counts_of_rollouts(name, refused):
    with pytest.raises(ValueError, match=rf"{name}: expected an integer (>= 1|from 1 to \d+), got {refused}"):
        rollouts(tiny(), [[5]], **{"max_new_tokens": 1, name: refused})
    rollouts(tiny(), [[5]], **{"max_new_tokens": 1, name: 1})


@pytest.mark.parametrize("name", RECIPES)
def test_all_that_read_prompt_and_answer_must_have_room(name):
    """A reference with a shorter context, if one is used, and a reward model."""
    short = tinyplm.create("gpt2", vocab_size=40, n_embd=12, n_layer=1, n_head=3, n_positions=8, dtype="float64")
    message = r"prompts\[0\]: expected at most 4 tokens, since max_new_tokens is 4 and the context 8, got 5"
    if name == "grpo":
        SAMPLING[name](tiny(), [[5] * 5], shortest, reference=short)  # without beta the reference is not run
    else:
        with pytest.raises(ValueError, match=message):
            SAMPLING[name](tiny(), [[5] * 5], never, reference=short)
    SAMPLING[name](tiny(), [[5] * 4], shortest, reference=short)
    judge = model_reward(scored("gpt2", names=["reward"], n_positions=8))
    with pytest.raises(ValueError, match=message):
        SAMPLING[name](tiny(), [[5] * 5], judge)
    SAMPLING[name](tiny(), [[5] * 4], judge)


def same_as_drawn(model, prompt, count):
    """The relative error between an answer's log-probabilities when sampled and when trained on."""
    (drawn,) = tinyplm.generate(model, [prompt], max_new_tokens=count, stop_ids=(), seed=3)
    answers = rollouts(model, [prompt], max_new_tokens=count, stop_ids=(), seed=3)
    assert answers.answers == [drawn.ids] and len(drawn.ids) == count
    batch = answers.arrays()
    found = token_log_probs(model, batch)["log_probs"][batch["targets"] != -100]
    return relative_error(found, np.array(drawn.log_probabilities))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_at_the_border_an_answer_is_trained_as_it_was_drawn(family):
    assert same_as_drawn(tiny(family), [7, 5, 3] * 4, 4) < MODEL
    assert same_as_drawn(tiny(family), [7], 15) < MODEL


@pytest.mark.parametrize("name", ROPES)
def test_with_scaled_positions_too(name):
    """With dynamic scaling the frequencies change beyond the cacheable context, so nothing is sampled there."""
    model = tiny_family("llama", **ROPES[name])
    context = model.config.cache_context
    assert context == (12 if name in ("dynamic", "longrope") else 24)
    assert same_as_drawn(model, [7, 5, 3], context - 3) < MODEL
    with pytest.raises(ValueError, match=f"expected at most 3 tokens, since max_new_tokens is {context - 3}"):
        rollouts(model, [[7, 5, 3, 2]], max_new_tokens=context - 3)


# ------------------------------------------------------------------------------------ checks on what a learner passes to a model


def parts_of(model, **inputs):
    """The calls of a training step: loss, loss_in_parts and outputs_in_parts."""
    ids = np.asarray(inputs["input_ids"])
    targets = {"logits": np.zeros(len(ids), int) if isinstance(model, ScoreModel) else np.ones(ids.shape, int)}
    yield lambda: model.loss(targets=targets, **inputs)
    for call in (model.loss_in_parts, model.outputs_in_parts):
        yield lambda call=call: call(lambda path, d: None, inputs, targets=targets)


MODELS = {
    "llama": lambda: tiny(),
    "gpt2": lambda: tiny("gpt2"),
    "score": lambda: scored(),
    "student": lambda: Student(tiny(), tiny("gpt2"), DistillSettings()),
    "soft prompt": lambda: SoftPrompted(tiny(), np.zeros((2, 12))),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inputs, message", [
    ({"input_ids": np.ones((1, 17), int)}, "expected at most 1[56] tokens"),
    ({"input_ids": np.full((1, 3), 40)}, "input_ids: expected integers from 0 to 39, got 40"),
    ({"input_ids": np.ones((2, 3), int), "attention_mask": np.ones((2, 4), int)}, "attention_mask: expected shape"),
    ({"input_ids": np.ones((1, 3))}, "integers"),
])  # fmt: skip
def test_parts_have_the_checks_of_a_call(name, inputs, message):
    calls = list(parts_of(MODELS[name](), **inputs))
    assert calls
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_what_just_fits(name):
    T = 14 if name == "soft prompt" else 16
    for call in parts_of(MODELS[name](), input_ids=np.ones((1, T), int), attention_mask=np.ones((1, T), int)):
        call()


def test_encoders_parts_have_the_checks_of_a_call():
    model = tinyplm.create("bert", vocab_size=11, hidden_size=6, num_hidden_layers=1, num_attention_heads=2, intermediate_size=7,
                           max_position_embeddings=6)  # fmt: skip
    for inputs, message in (({"input_ids": np.ones((1, 7), int)}, "input_ids: expected at most 6 tokens, the context, got 7"),
                            ({"input_ids": np.ones((1, 3), int), "token_type_ids": np.full((1, 3), 2)},
                             "token_type_ids: expected integers from 0 to 1, got 2"),
                            ({"input_ids": np.ones((1, 3), int), "attention_mask": np.ones((1, 2))}, "attention_mask: expected"),
                            ({"input_ids": np.full((1, 3), 11)}, "input_ids: expected integers from 0 to 10")):  # fmt: skip
        targets = {"logits": np.ones(inputs["input_ids"].shape, int)}
        with pytest.raises(ValueError, match=message):
            model.loss(targets=targets, **inputs)
        with pytest.raises(ValueError, match=message):
            model.loss_in_parts(lambda path, d: None, inputs, targets=targets)


# --------------------------------------------------------------------------------------------- workers and parts of a batch


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("micro", [1, 2, 3, 4, 5, None])
def test_micro_batches_and_workers_of_a_learner(micro, workers):
    """Five samples: with micro-batches of 2, the last one has fewer samples than there are workers."""
    model = tiny("gpt2")
    batch, total = batch_of(some_sequences(5))

    def gradient(micro, workers):
        settings = RecipeSettings(batch_size=5, micro_batch_size=micro, workers=workers, dropout=True)
        learner = Learner(model, settings)
        values = learner.accumulate(batch, answer_likelihood(total))
        return values["loss"], flatten(learner.optimizer.gradient.tree)

    loss, expected = gradient(None, 1)
    found, parts = gradient(micro, workers)
    assert found == pytest.approx(loss, rel=MODEL) and relative_error(parts, expected) < MODEL
    again = gradient(micro, workers)[1]
    assert all(np.array_equal(again[path], a) for path, a in parts.items()), "the same cut must give the same bits"


FEW, ROUNDS = {"steps": 2, "batch_size": 5}, {"steps": 2, "batch_size": 5, "max_new_tokens": 3, "epochs": 2}
TRAINED = {
    "sft": lambda m, **o: sft(m, some_sequences(), SFTSettings(**FEW, **o), validation=some_sequences(3), progress=False),
    "packed": lambda m, **o: sft(m, some_sequences(12), SFTSettings(**FEW, packed=16, **o), progress=False),
    "dpo": lambda m, **o: dpo(m, some_pairs(), DPOSettings(**FEW, **o), validation=some_pairs(3), progress=False),
    "dpo in rows": lambda m, **o: dpo(m, some_pairs(), DPOSettings(**FEW, joint=False, **o), progress=False),
    "reward": lambda m, **o: reward(m, some_pairs(), RewardSettings(**FEW, **o), validation=some_pairs(3), progress=False),
    "distill": lambda m, **o: distill(m, tiny(key=8), some_sequences(), DistillSettings(**FEW, **o), progress=False),
    "grpo": lambda m, **o: grpo(m, PROMPTS, shortest, GRPOSettings(**ROUNDS, group=2, beta=0.1, **o), stop_ids=range(20),
                                progress=False),
    "ppo": lambda m, **o: ppo(m, PROMPTS, shortest, PPOSettings(**ROUNDS, **o), stop_ids=range(20), progress=False),
}  # fmt: skip
PROMPTS = [[5, 6], [7], [1, 2, 3], [9, 8], [4]]


def tuned(name, **options):
    """(history, parameters) after a recipe's few steps."""
    model = scored(names=["reward"]) if name == "reward" else tiny()
    result = TRAINED[name](model, eps=1e-3, **options)  # an eps far above the rounding of a zero gradient
    return result.history, flatten(model.params)


tuned_alone = functools.cache(tuned)  # with one worker, the whole batch at once


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("micro", "workers"), [(1, 2), (1, 4), (2, 3), (3, 4), (None, 9)])
def test_micro_batches_and_workers_of_every_recipe(name, micro, workers):
    """The same numbers as with one worker, to rounding, and the same bits on every run."""
    history, params = tuned_alone(name)
    found, parts = tuned(name, micro_batch_size=micro, workers=workers)
    assert [row.keys() for row in found] == [row.keys() for row in history]
    for row, expected in zip(found, history):
        assert row == pytest.approx(expected, rel=MODEL, abs=MODEL)
    assert relative_error(parts, params) < MODEL
    again, same = tuned(name, micro_batch_size=micro, workers=workers)
    assert again == found and all(np.array_equal(same[path], a) for path, a in parts.items())
