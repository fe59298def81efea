"""Modules for later tokens (models/multi_token.py) against the formula of the paper, one text at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

import reference.models.deepseek_v3 as ref
import tinyplm
from tests.exact_gradients import EXACT
from tests.laws import MODEL, apart, equal, leaves, relative_error
from tests.support.encoder_families import keys_of_masks
from tests.support.families import randomised, tiny
from tests.support.later_tokens import LAYOUTS, along, later, outputs, parameters, rows, settings
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten, tree_map, unflatten
from tinyplm.families import deepseek_v3, shapes_of
from tinyplm.hub.names import count_parameters
from tinyplm.models.routed import active_parameters

VARIANTS = {
    "two, all layers dense": (2, {"first_k_dense_replace": 2}),
    "one": (1, {}),
    "two": (2, {}),
    "three, tied, no dense layer": (3, {"tie_word_embeddings": True, "first_k_dense_replace": 0, "rope_interleave": False}),
    "two, raw weights, biases": (2, {"norm_topk_prob": False, "topk_group": 2, "attention_bias": True, "q_lora_rank": None}),
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def model_of(variant, **options):
    modules, changes = VARIANTS[variant]
    return later(modules, **changes, **options)


def direction(tree, seed=1):
    rng = np.random.default_rng(seed)
    return tree_map(lambda a: rng.normal(size=a.shape), tree)


def assert_derivative(exact, gradient, d):
    """exact = <gradient, d>, up to rounding."""
    found = {path: np.sum(to_host(g) * flatten(d)[path]) for path, g in flatten(gradient).items()}
    size = sum(np.abs(to_host(g) * flatten(d)[path]).sum() for path, g in flatten(gradient).items())
    assert abs(exact - sum(found.values())) < EXACT * size


@each_layout
@each_variant
def test_outputs(variant, layout, device):
    """Those of each text alone; a module leaves 0 where a row has no token so much later."""
    model, given = model_of(variant, device=device), rows(layout)
    found = {name: to_host(a) for name, a in model(**given.inputs, grad=False)[0].items()}
    T = given.targets.shape[1]
    on_host = model.to("cpu")
    for text in given.texts:
        expected = outputs(on_host, on_host.params, text)
        assert relative_error(text.of(found["logits"]), expected["logits"][0]) < MODEL
        assert relative_error(text.of(found["hidden"]), expected["hidden"][0]) < MODEL
        for k, h in enumerate(expected["later"][: T - 1]):
            assert len(h) == max(0, len(text.ids) - k - 1)
            assert relative_error(text.of(found["later_hidden"])[: len(h), k], h) < MODEL
        routed = found["router_logits"].shape[2] if "router_logits" in found else 0
        for i, z in enumerate(expected["routers"][:routed]):
            assert relative_error(text.of(found["router_logits"])[: len(z), i], z) < MODEL
    modules, changes = VARIANTS[variant]
    dense = changes.get("first_k_dense_replace", 1)
    assert routed == 2 - dense + min(modules, T - 1)
    assert ("later_hidden" in found) == (T > 1)
    for k in range(min(modules, T - 1)):
        assert found["later_hidden"].shape == (len(found["logits"]), T, min(modules, T - 1), 6)
        assert not found["later_hidden"][:, T - k - 1 :, k].any()


LOSSES = {
    "mean": {},
    "weights": {"weighted": True},
    "weights and total": {"weighted": True, "total": 7},
    "balance": {"balance": 0.1, "multi_token": 0.0},
}
TOGETHER = {"weighted": True, "total": 7, "balance": 0.1}


def loss_and_formula(model, given, *, weighted=False, total=None, balance=0.0, multi_token=0.3):
    """The loss, its backward, and the formula's as a function of the parameters."""
    texts = [(t.ids, t.targets, t.weights if weighted else np.ones(len(t.ids))) for t in given.texts]
    options = {"targets": {"logits": given.targets}, "total": None if total is None else {"logits": total}}
    options |= {"weights": given.weights if weighted else None, "multi_token": multi_token, "balance": balance}
    loss, back = model.loss(**options, **given.inputs)
    routers = sum(b is not None for b in model.buffers["corrections"])
    known = {"total": total, "balance": balance / routers, "weight": multi_token, **settings(model.to("cpu"))}
    return loss, back, lambda params: ref.joint_loss(parameters(params), texts, **known)


@pytest.mark.parametrize("options", LOSSES)
@each_layout
@each_variant
def test_loss(variant, layout, options):
    """Each module's targets are those of its own text, whatever stands around it in a row.

    The balance loss is a mean over texts long enough for a module.  A packed row is one text to it.
    """
    model, given = model_of(variant), rows(layout)
    if "balance" in options and (layout == "packed" or min(len(t.ids) for t in given.texts) <= VARIANTS[variant][0]):
        given = rows("full")
    loss, _, formula = loss_and_formula(model, given, **LOSSES[options])
    assert float(loss) == pytest.approx(float(formula(model.params)), rel=MODEL)


@pytest.mark.parametrize("layout", ["full", "right", "left", "packed", "T = 2"])
@each_variant
def test_gradient_of_the_loss(variant, layout, device):
    """Against dual numbers through the formula, along a random direction of all parameters."""
    model, given = model_of(variant, device=device), rows(layout)
    _, back, formula = loss_and_formula(model, given, **(TOGETHER if layout == "full" else LOSSES["weights"]))
    params, gradient = to_host(model.params), back(1.5)
    d = direction(params)
    assert_derivative(1.5 * formula(along(params, d)).derivative, gradient, d)


def test_gradient_by_each_parameter_of_the_modules():
    model, given = model_of("two"), rows("one text")
    _, back, formula = loss_and_formula(model, given, **LOSSES["mean"])
    gradient, still = back(1.0), flatten(tree_map(np.zeros_like, model.params))
    assert list(flatten(gradient)) == list(still)
    for path, d in flatten(direction(model.params)).items():
        if not path.startswith(("body.multi_token", "body.tokens", "head")):
            continue
        tree = unflatten({**still, path: d}, model.params)
        assert_derivative(formula(along(model.params, tree)).derivative, gradient, tree)


@pytest.mark.parametrize("layout", ["full", "left", "packed"])
def test_gradients_of_the_outputs(layout):
    """Of all together, by the formula, and each alone adding up to that; a missing one is zero."""
    model, given = model_of("two"), rows(layout)
    found, backward = model(**given.inputs)
    rng = np.random.default_rng(2)
    c = {name: np.zeros(a.shape) for name, a in found.items() if name != "chosen_experts"}
    d = direction(model.params)
    exact = 0.0
    for text in given.texts:
        expected = outputs(model, along(model.params, d), text)
        for name, key, depth in (("logits", "logits", False), ("hidden", "hidden", False),
                                 ("later", "later_hidden", True), ("routers", "router_logits", True)):  # fmt: skip
            for i, a in enumerate(expected[name]):
                part = text.of(c[key])[: len(a), i] if depth else text.of(c[key])
                part[:] = rng.normal(size=part.shape)
                exact += sum(x * y.derivative for x, y in zip(part.ravel(), np.ravel(a), strict=True))
    whole = backward(c)
    assert_derivative(exact, whole, d)
    alone = [backward({name: a}) for name, a in c.items()]
    assert apart(whole, tree_map(lambda *parts: sum(parts), *alone)) < MODEL
    assert not any(a.any() for a in leaves(backward({})))
    assert any(a.any() for a in leaves(alone[-1]["body"]["multi_token"]))


def test_embeddings_as_inputs_get_their_gradient():
    """A module reads the table again: both ways reach it."""
    model, given = model_of("two"), rows("full")
    inputs = {"inputs_embeds": model.params["body"]["tokens"][given.inputs["input_ids"]]}
    found, backward = model(**inputs)
    expected, ids_backward = model(given.inputs["input_ids"])
    assert np.array_equal(found["later_hidden"], expected["later_hidden"])
    c = {"later_hidden": np.random.default_rng(0).normal(size=found["later_hidden"].shape)}
    dparams, dembeds = backward(c)
    assert not dparams["body"]["tokens"].any()
    scattered = np.zeros_like(model.params["body"]["tokens"])
    np.add.at(scattered, given.inputs["input_ids"], dembeds)
    assert relative_error(scattered, ids_backward(c)["body"]["tokens"]) < MODEL


# ------------------------------------------------------------------------------------------------- padding, packing, no modules


@pytest.mark.parametrize("layout", ["right", "left"])
def test_padding_has_no_influence(layout, device):
    """But for rounding of values: some BLAS kernels round the rows of an expert by how many there are, and padding is routed,
    too.  Its own gradient is exactly zero."""
    model, given = model_of("two", device=device), rows(layout)
    real = given.inputs["attention_mask"] == 1

    def loss(ids):
        inputs = {**given.inputs, "input_ids": ids}
        value, back = model.loss(targets={"logits": given.targets}, multi_token=0.3, balance=0.1, **inputs)
        return to_host(value), to_host(back(1.0))

    ids = given.inputs["input_ids"]
    (a, da), (b, db) = loss(ids), loss(np.where(real, ids, 10 - ids))
    assert a == pytest.approx(b, rel=MODEL) and relative_error(db, da) < MODEL
    _, d = loss(np.where(real, ids % 10, 10))  # 10 is in padding alone
    assert not d["body"]["tokens"][10].any() and d["body"]["tokens"][ids[real] % 10].any(axis=1).all()


def test_no_module_predicts_across_texts(device):
    """With targets in the first texts of the rows alone, other texts have no influence, but for rounding as above."""
    model, given = model_of("two", device=device), rows("packed")
    targets, first = np.full_like(given.targets, -100), np.zeros(given.targets.shape, bool)
    for text in given.texts:
        if text.start == 0:
            text.of(first)[:], text.of(targets)[:] = True, text.targets

    def loss(ids):
        value, back = model.loss(targets={"logits": targets}, multi_token=0.3, **{**given.inputs, "input_ids": ids})
        return to_host(value), to_host(back(1.0))

    ids = given.inputs["input_ids"]
    (a, da), (b, db) = loss(ids), loss(np.where(first, ids, 10 - ids))
    assert a == pytest.approx(b, rel=MODEL) and relative_error(db, da) < MODEL
    _, d = loss(np.where(first, ids % 10, 10))  # 10 is in other texts alone
    assert not d["body"]["tokens"][10].any() and d["body"]["tokens"][ids[first] % 10].any(axis=1).all()


@pytest.mark.parametrize("layout", ["full", "T = 1"])
def test_without_its_loss_it_is_the_plain_model(layout):
    model, given = model_of("two"), rows(layout)
    plain = randomised("deepseek_v3", model.config, None, 0, "float64", {})
    body = {name: a for name, a in model.params["body"].items() if name != "multi_token"}
    plain.params = {**model.params, "body": body}
    plain.buffers = {"corrections": model.buffers["corrections"][:2]}
    options = {"targets": {"logits": given.targets}, **given.inputs}
    (a, a_back), (b, b_back) = model.loss(**options), plain.loss(**options)
    gradient = a_back(1.0)
    assert a == b and not any(g.any() for g in leaves(gradient["body"].pop("multi_token")))
    assert equal(gradient, b_back(1.0))


def test_without_modules_there_is_no_such_task(tmp_path):
    """It would train nothing and propose nothing."""
    message = "config: num_nextn_predict_layers: expected 1 or more for the task multi_token_lm, got 0"
    with pytest.raises(ValueError, match=message):
        later(0)
    plain = tiny("deepseek_v3", num_nextn_predict_layers=0)
    tinyplm.save(plain, tmp_path)
    with pytest.raises(ValueError, match=message):
        tinyplm.load(tmp_path, task="multi_token_lm")
    assert tinyplm.load(tmp_path).config == plain.config


# ------------------------------------------------------------------------------------------ dropout, recomputation, dtype


def test_dropout_depends_on_the_key_alone(device):
    model, given = model_of("two", device=device, attention_dropout=0.2), rows("right")

    def states(key):
        return to_host(model(**given.inputs, key=key)[0]["later_hidden"])

    assert np.array_equal(states(1), states(1))
    assert not np.array_equal(states(1), states(2)) and not np.array_equal(states(1), states(None))


def test_every_mask_has_a_key_of_its_own(monkeypatch):
    model, given = model_of("two", attention_dropout=0.2), rows("full")
    keys = keys_of_masks(monkeypatch, lambda: model(**given.inputs, key=1))
    assert len(set(keys)) == len(keys) == 4  # two layers, two modules


@pytest.mark.parametrize("options", [{"checkpointing": True}, {"checkpointing": 2}, {"once": True}])
def test_checkpointing_is_bit_equal_with_dropout(options):
    model, given = model_of("two", attention_dropout=0.2), rows("left")
    known = {"targets": {"logits": given.targets}, "multi_token": 0.3, "balance": 0.1, "key": 3, **given.inputs}
    (a, a_back), (b, b_back) = model.loss(**known), model.loss(**known, **options)
    assert a == b and equal(a_back(1.5), b_back(1.5))


@pytest.mark.parametrize("frozen", [1, 2])
def test_frozen_layers(frozen):
    """They get no gradient, and nothing below them; the modules and what they read of the table do."""
    model, given = model_of("two", tie_word_embeddings=True), rows("full")
    known = {"targets": {"logits": given.targets}, "multi_token": 0.3, **given.inputs}
    (a, a_back), (b, b_back) = model.loss(**known), model.loss(**known, frozen=frozen)
    expected, found = flatten(a_back(1.0)), flatten(b_back(1.0))
    assert a == b and found.keys() == expected.keys()
    for path, g in found.items():
        if path.startswith(tuple(f"body.layers.{i}." for i in range(frozen))):
            assert not g.any(), path
        elif path != "body.tokens":
            assert np.array_equal(g, expected[path]), path


def test_float32_stays_float32(device):
    model, given = model_of("two", dtype="float32", device=device), rows("right")
    found, backward = model(**given.inputs)
    assert all(a.dtype == np.float32 for name, a in found.items() if name != "chosen_experts")
    c = np.ones(found["later_hidden"].shape, "float32")
    assert all(a.dtype == np.float32 for a in leaves(backward({"later_hidden": to_device(c, device)})))
    for weights in (None, given.weights):
        options = {"targets": {"logits": given.targets}, "weights": weights, "multi_token": 0.3, "balance": 0.1}
        loss, back = model.loss(**options, **given.inputs)
        assert loss.dtype == np.float32 and all(a.dtype == np.float32 for a in leaves(back(1.0)))


@pytest.mark.parametrize("weight", [-0.1, "0.3", np.nan])
def test_a_weight_that_is_none(weight):
    with pytest.raises(ValueError, match="^multi_token: expected a finite number >= 0, got ") as error:
        model_of("one").loss(targets={"logits": [[1]]}, input_ids=[[1]], multi_token=weight)
    assert "\n" not in str(error.value)


def test_the_published_number_of_parameters():
    """Of DeepSeek-V3.  README_WEIGHTS.md of its base model: 671B, of which 36.6B are active, the output matrix among them; the
    module's 11.5B and 1.5B, its output matrix among the latter, are those of its block, without Wproj.  The files have
    680,571,043,840 numbers in FP8 and 3,918,786,560 in BF16, which are the module's copies of the table and the head, too."""
    config = deepseek_v3.SIZES["deepseek-v3"]
    shapes, module = deepseek_v3.shapes(config), deepseek_v3.module_shapes(config)
    total, own, block = (count_parameters(tree) for tree in (shapes, module, module["block"]))
    table = math.prod(shapes["body"]["tokens"])
    assert math.prod(shapes["head"]["W"]) == table
    assert total + own + 2 * table == 680_571_043_840 + 3_918_786_560
    assert count_parameters(shapes_of(deepseek_v3, config, "multi_token_lm")) == total + own
    active, block_active = (active_parameters(tree, config.top_k) for tree in (shapes, {"block": module["block"]}))
    assert [round(n / 1e9) for n in (total, own + 2 * table)] == [671, 13]
    assert [round(n / 1e9, 1) for n in (block, active - table, block_active + table)] == [11.5, 36.6, 1.5]


def test_a_trace_computes_the_same_bits_and_names_the_modules():
    model, given = model_of("two"), rows("right")
    options = {"targets": {"logits": given.targets}, "multi_token": 0.3, "balance": 0.1, **given.inputs}
    loss, backward = model.loss(**options)
    gradient = backward(0.7)
    with tinyplm.trace() as t:
        traced, traced_backward = model.loss(**options)
    assert traced == loss and equal(traced_backward(0.7), gradient) and equal(t.gradients, gradient)
    assert t["multi_token.1"].value.shape == (3, 3, 6) and t["multi_token.1.attention"].gradient.any()
