"""LoRA.  The laws of the transform are in test_components.py."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import relative_error
from tests.test_dpo import some_pairs
from tests.test_learner import SIZES, some_sequences, tiny
from tests.test_sft import copying
from tinyplm.core import flatten, tree_map
from tinyplm.tuning.dpo import DPOSettings, dpo
from tinyplm.tuning.grpo import GRPOSettings, grpo
from tinyplm.tuning.learner import Learner
from tinyplm.tuning.lora import load_lora, lora, lora_of, lora_parameters, merge, save_lora
from tinyplm.tuning.settings import RecipeSettings
from tinyplm.tuning.sft import SFTSettings, answer_likelihood, batch_of, sft

ALL = ("Wq", "Wk", "Wv", "Wo", "Wgate", "Wup", "Wdown", "W1", "W2")


def moved(theta, seed=0):
    draw = np.random.default_rng(seed)
    return tree_map(lambda a: a + draw.normal(0, 0.1, a.shape).astype(a.dtype), theta)


@pytest.mark.parametrize("family", SIZES)
def test_it_starts_at_the_base_and_equals_the_unmerged_form(family):
    model = tiny(family)
    theta = lora_parameters(model.params, rank=2, targets=ALL)
    assert relative_error(merge(model, theta).params, model.params) == 0
    theta = moved(theta)
    merged, x = merge(model, theta, alpha=4.0), np.random.default_rng(1).normal(size=(3, 12))
    for path, factors in theta.items():
        W, x_in = flatten(model.params)[path], np.random.default_rng(1).normal(size=(3, factors["A"].shape[0]))
        unmerged = x_in @ W + 4.0 / 2 * (x_in @ factors["A"]) @ factors["B"]
        assert relative_error(x_in @ flatten(merged.params)[path], unmerged) < 1e-12
    others = flatten(model.params).keys() - theta.keys()
    assert all(flatten(merged.params)[path] is flatten(model.params)[path] for path in others) and x.any()


def test_the_gradient_through_a_model_in_parts():
    """Directional difference of the loss by theta, and the same from a whole gradient tree."""
    model, draw = tiny(), np.random.default_rng(2)
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
    assert abs(sum(terms) - (ends[0] - ends[1]) / 2e-5) < 1e-7 * sum(map(abs, terms))
    merged, back = lora(theta, base=model.params, alpha=3.0)
    _, model_back = model._with(params=merged).loss(targets=batch["targets"], total={"logits": total}, **batch["inputs"])
    assert relative_error(back(model_back(1.0)), gradient) < 1e-10
    assert back({"body": {"tokens": np.ones((40, 12))}}) == {}  # frozen


def test_recipes_train_the_update_alone():
    base = tiny(dtype="float32")
    model = base._with()
    adapter = lora_of(model, rank=4, targets=ALL)
    result = sft(model, copying(100, 0), SFTSettings(steps=60, batch_size=32, learning_rate=2e-2), validation=copying(40, 1),
                 progress=False, **adapter)  # fmt: skip
    assert result.validation[60] < result.validation[0] - 0.1  # a random model has little that could be adapted
    assert relative_error(merge(base, result.theta).params, model.params) < 1e-6
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
    assert relative_error(merge(model, moved(theta)).params, model.params) > 0


def test_files(tmp_path):
    model = tiny(dtype="float32")
    theta = moved(lora_parameters(model.params, rank=2))
    save_lora(theta, tmp_path, alpha=5.0)
    again, alpha = load_lora(tmp_path)
    assert alpha == 5.0 and relative_error(merge(model, again, alpha=alpha).params, merge(model, theta, alpha=5.0).params) == 0
    (tmp_path / "adapter.safetensors").write_bytes(b"1234")
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_lora(tmp_path)
    with pytest.raises(ValueError, match="expected adapter.safetensors and adapter.json"):
        load_lora(tmp_path / "none")


def test_bad_input():
    model = tiny()
    for options, message in (({"rank": 0}, "a rank of at least 1, got 0"), ({"rank": 13}, "a rank of 13 is more than"),
                             ({"rank": 1, "targets": ("W9",)}, "no matrix fits the targets .* layers have W")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            lora_of(model, **options)
    theta = lora_parameters(tiny("gpt2").params, rank=1, targets=("W1",))
    with pytest.raises(ValueError, match="body.layers.0.mlp.W1 with A .* does not fit: the model has no such matrix"):
        merge(model, theta)
