"""LoRA.  The laws of the transform are in test_components.py."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, difference_rounding, relative_error
from tests.models.test_score_models import scored
from tests.tuning.align.test_dpo import some_pairs
from tests.tuning.align.test_learner import SIZES, some_sequences, tiny
from tests.tuning.align.test_sft import copying
from tinyplm.cli.convert import merged
from tinyplm.core import flatten, tree_map, unflatten
from tinyplm.hub.runs import model_folder
from tinyplm.tuning.adapters.lora import load_lora, lora, lora_of, lora_parameters, merge_lora, save_lora
from tinyplm.tuning.align.distill import DistillSettings, distill
from tinyplm.tuning.align.dpo import DPOSettings, dpo
from tinyplm.tuning.align.grpo import GRPOSettings, grpo
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.ppo import PPOSettings, ppo
from tinyplm.tuning.align.reward import RewardSettings, reward
from tinyplm.tuning.align.sft import SFTSettings, answer_likelihood, batch_of, sft
from tinyplm.tuning.settings import RecipeSettings

ALL = ("Wq", "Wk", "Wv", "Wo", "Wgate", "Wup", "Wdown", "W1", "W2")


def moved(theta, seed=0):
    draw = np.random.default_rng(seed)
    return tree_map(lambda a: a + draw.normal(0, 0.1, a.shape).astype(a.dtype), theta)


@pytest.mark.parametrize("family", SIZES)
def test_it_starts_at_the_base_and_equals_the_unmerged_form(family):
    model = tiny(family)
    theta = lora_parameters(model.params, rank=2, targets=ALL)
    assert relative_error(merge_lora(model, theta).params, model.params) == 0
    theta = moved(theta)
    merged, x = merge_lora(model, theta, alpha=4.0), np.random.default_rng(1).normal(size=(3, 12))
    for path, factors in theta.items():
        W, x_in = flatten(model.params)[path], np.random.default_rng(1).normal(size=(3, factors["A"].shape[-2]))
        unmerged = x_in @ W + 4.0 / 2 * (x_in @ factors["A"]) @ factors["B"]
        assert relative_error(x_in @ flatten(merged.params)[path], unmerged) < MODEL
    others = flatten(model.params).keys() - theta.keys()
    assert all(flatten(merged.params)[path] is flatten(model.params)[path] for path in others) and x.any()


@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_the_gradient_through_a_model_in_parts(family):
    """Against a directional finite difference of the loss in theta, and against the gradient from a whole gradient tree."""
    model, draw = tiny(family), np.random.default_rng(2)
    theta = moved(lora_parameters(model.params, rank=2, targets=ALL))
    batch, total = batch_of(some_sequences())

    def learner(theta):
        return Learner(model, RecipeSettings(workers=2), **lora_of(model, theta=theta, alpha=3.0))

    main = learner(theta)
    main.accumulate(batch, answer_likelihood(total))
    gradient = main.optimizer.gradient.tree["model"]
    d = tree_map(lambda a: draw.normal(size=a.shape), theta)
    ends = [learner(tree_map(lambda a, b, h=h: a + h * b, theta, d)).accumulate(batch, answer_likelihood(total))["loss"]
            for h in (1e-5, -1e-5)]  # fmt: skip
    terms = [(flatten(gradient)[path] * step).sum() for path, step in flatten(d).items()]
    assert abs(sum(terms) - (ends[0] - ends[1]) / 2e-5) < 1e-7 * sum(map(abs, terms)) + difference_rounding(ends[0])
    merged, back = lora(theta, base=model.params, alpha=3.0)
    _, model_back = model._with(params=merged).loss(targets=batch["targets"], total={"logits": total}, **batch["inputs"])
    assert relative_error(back(model_back(1.0)), gradient) < MODEL
    assert back({"body": {"tokens": np.ones((40, 12))}}) == {}  # frozen


TABLES = {
    "llama": ["body.tokens"],
    "gpt2": ["body.tokens", "body.positions"],
    "tied": ["body.tokens"],
    "untied, also the head": ["body.tokens", "head.W"],
    "with a matrix of a layer": ["body.tokens", "body.layers.1.attention.Wq"],
}


def table_model(name):
    family = "gpt2" if name in ("gpt2", "untied, also the head") else "llama"
    return tiny(family, **{"gpt2": {}, "llama": {"tie_word_embeddings": False}}.get(
        name, {"tie_word_embeddings": not name.startswith("untied")}))  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("settings", [RecipeSettings(), RecipeSettings(workers=2, micro_batch_size=4, checkpointing=1)])
def test_the_gradient_of_tables_is_that_of_the_whole_tree(name, settings):
    """A table's gradient from the look-up is a core.Rows; a tied table also gets a part from the head."""
    model = table_model(name)
    theta = moved(lora_parameters(model.params, rank=2, targets=lambda path, a: path in TABLES[name]))
    assert list(theta) == TABLES[name]
    batch, total = batch_of(some_sequences())
    learner = Learner(model, settings, **lora_of(model, theta=theta, alpha=3.0))
    learner.accumulate(batch, answer_likelihood(total))
    merged, back = lora(theta, base=model.params, alpha=3.0)
    _, model_back = model._with(params=merged).loss(targets=batch["targets"], total={"logits": total}, **batch["inputs"])
    assert relative_error(back(model_back(1.0)), learner.optimizer.gradient.tree["model"]) < MODEL


def test_a_transform_gets_the_table_it_makes_and_no_other():
    """A transform receives only arrays; rows of a table that it passes through are not densified needlessly."""
    model, seen = tiny("gpt2"), []
    batch, total = batch_of(some_sequences())

    def scaling(path):
        def transform(theta):
            leaves = flatten(model.params)
            params = unflatten(leaves | {path: leaves[path] * theta["s"]}, model.params)

            def back(gradients):
                seen.append(set(gradients))
                assert all(isinstance(a, np.ndarray) for a in gradients.values())
                return {"s": (gradients[path] * leaves[path]).sum(keepdims=True).reshape(1)} if path in gradients else None

            return params, back

        return transform

    _, model_back = model.loss(targets=batch["targets"], total={"logits": total}, **batch["inputs"])
    whole = flatten(model_back(1.0))
    for path, times in (("body.tokens", 2), ("body.positions", 1)):  # for the tied table, from the head and from the look-up
        seen.clear()
        learner = Learner(model, RecipeSettings(), transform=scaling(path), theta={"s": np.ones(1)})
        learner.accumulate(batch, answer_likelihood(total))
        expected = (whole[path] * flatten(model.params)[path]).sum()
        assert learner.optimizer.gradient.tree["model"]["s"][0] == pytest.approx(expected, rel=MODEL)
        assert sum(path in some for some in seen) == times and len(seen[-1]) == (path == "body.tokens")


def test_every_recipe_trains_an_update_of_the_table():
    """SFT, packed and not, DPO in both forms, GRPO, PPO, distillation, and a reward model."""
    rounds = {"steps": 2, "batch_size": 2, "max_new_tokens": 2}

    def rule(prompts, answers):
        return [float(answer[0]) for answer in answers]

    recipes = [
        lambda m, **a: sft(m, some_sequences(), SFTSettings(steps=2), **a),
        lambda m, **a: sft(m, some_sequences(), SFTSettings(steps=2, batch_size=2, packed=16), **a),
        lambda m, **a: dpo(m, some_pairs(8), DPOSettings(steps=2, batch_size=4), **a),
        lambda m, **a: dpo(m, some_pairs(8), DPOSettings(steps=2, batch_size=4, joint=False), **a),
        lambda m, **a: grpo(m, [[5], [6]], rule, GRPOSettings(**rounds), stop_ids=(), **a),
        lambda m, **a: ppo(m, [[5], [6]], rule, PPOSettings(**rounds), stop_ids=(), **a),
        lambda m, **a: distill(m, tiny(key=8), some_sequences(), DistillSettings(steps=2), **a),
        lambda m, **a: reward(m, some_pairs(8), RewardSettings(steps=2, batch_size=4), **a),
    ]
    for n, recipe in enumerate(recipes):
        model = scored(names=["reward"]) if n == len(recipes) - 1 else tiny()
        before = flatten(model.params)
        theta = recipe(model, progress=False, **lora_of(model, rank=2, targets=lambda path, a: path == "body.tokens")).theta
        assert theta["body.tokens"]["B"].any()
        assert [path for path, a in flatten(model.params).items() if not np.array_equal(a, before[path])] == ["body.tokens"]


def test_recipes_train_the_update_alone():
    base = tiny(dtype="float32")
    model = base._with()
    adapter = lora_of(model, rank=4, targets=ALL)
    result = sft(model, copying(100, 0), SFTSettings(steps=60, batch_size=32, learning_rate=2e-2), validation=copying(40, 1),
                 progress=False, **adapter)  # fmt: skip
    assert result.validation[60] < result.validation[0] - 0.1  # a random model has little to adapt
    assert relative_error(merge_lora(base, result.theta).params, model.params) < 1e-6
    changed = {path for path, a in flatten(model.params).items() if not np.array_equal(a, flatten(base.params)[path])}
    assert changed == result.theta.keys()
    rounds = GRPOSettings(steps=2, batch_size=2, max_new_tokens=2)
    for recipe in (lambda m, a: dpo(m, some_pairs(8), DPOSettings(steps=2, batch_size=4), progress=False, **a),
                   lambda m, a: grpo(m, [[5], [6]], lambda p, y: [x[0] for x in y], rounds, stop_ids=(), progress=False, **a),
                   ):  # fmt: skip
        model = base._with()
        theta = recipe(model, lora_of(model, rank=2)).theta
        assert {path.rsplit(".", 1)[-1] for path in theta} == {"Wq", "Wv"} and any(f["B"].any() for f in theta.values())


def test_frozen_matrices_cost_no_moments():
    model = tiny()
    learner = Learner(model, RecipeSettings(), **lora_of(model, rank=1))
    assert learner.optimizer.m.buffer.size == sum(a.size for a in flatten(learner.theta).values()) == 2 * 2 * (12 + 12)


def test_an_encoder_may_have_one_too():
    model = tinyplm.create("bert", vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12)
    theta = lora_parameters(model.params, rank=2, targets=lambda path, a: path.endswith("mlp.W1"))
    assert list(theta) == ["body.layers.0.mlp.W1", "body.layers.1.mlp.W1"]
    assert relative_error(merge_lora(model, moved(theta)).params, model.params) > 0


def test_files(tmp_path):
    model = tiny(dtype="float32")
    theta = moved(lora_parameters(model.params, rank=2))
    save_lora(theta, tmp_path, alpha=5.0)
    again, alpha = load_lora(tmp_path)
    assert (
        alpha == 5.0
        and relative_error(merge_lora(model, again, alpha=alpha).params, merge_lora(model, theta, alpha=5.0).params) == 0
    )
    (tmp_path / "adapter.safetensors").write_bytes(b"1234")
    with pytest.raises(ValueError, match="expected a complete safetensors file"):
        load_lora(tmp_path)
    with pytest.raises(ValueError, match="expected adapter.safetensors and adapter.json"):
        load_lora(tmp_path / "none")


def test_bad_input():
    model = tiny()
    for options, message in (({"rank": 0}, "rank: expected an integer from 1 to"), ({"rank": 13}, "rank: expected at most 12"),
                             ({"rank": 1, "targets": ("W9",)}, "targets: expected some of Wdown")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            lora_of(model, **options)
    theta = lora_parameters(tiny("gpt2").params, rank=1, targets=("W1",))
    with pytest.raises(ValueError, match="body.layers.0.mlp.W1: expected factors of a matrix of the model, got A"):
        merge_lora(model, theta)


def test_an_adapter_of_peft_is_named(tmp_path):
    """Also beside a tokenizer, as PEFT writes it, and by every way that reads a model or an adapter."""
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"):
        (tmp_path / name).touch()
    for read in (model_folder, load_lora, lambda folder: merged(None, str(folder))):
        with pytest.raises(ValueError, match=r"got an adapter of PEFT .*merge_and_unload") as caught:
            read(tmp_path)
        assert str(caught.value).startswith(f"{tmp_path}: ") and "\n" not in str(caught.value)
