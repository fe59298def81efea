"""Behaviour common to all encoders and tasks: gradients, padding, the loss and its parts.

Dropout, checkpointing and dtypes are in test_encoder_dropout.py, family-specific behaviour in tests/families,
folders and bad input in test_encoder_files.py.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, apart, difference_rounding, equal, leaves, relative_error
from tests.support.encoder_families import CASES, FAMILIES, TRAINED, VARIANTS, batch, padding, random_like, targets_for, tiny
from tinyplm import families as models
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten, reduce_shards, tree_map, unflatten
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.models.protocol import LossOptions
from tinyplm.optim.flat import FlatTree

each_family = pytest.mark.parametrize("family", FAMILIES)
each_task = pytest.mark.parametrize(("family", "task"), CASES)
each_loss = pytest.mark.parametrize(("family", "task"), TRAINED)
each_variant = pytest.mark.parametrize(("family", "variant"), VARIANTS)

STEP = 1e-5  # for central differences


def on(model, tree):
    return to_device(tree, model.device)


def inner(a, b):
    return sum(float((x * y).sum()) for x, y in zip(leaves(to_host(a)), leaves(to_host(b)), strict=True))


def assert_derivatives(value, gradient, params, parts=None):
    """Central differences of value(params) on the host, along a random direction in the parameters of each part jointly.

    parts: lists of paths; by default one, of all parameters.
    """
    host, found = flatten(to_host(params)), flatten(to_host(gradient))
    assert list(found) == list(host)
    d = flatten(random_like(params))
    noise = difference_rounding(value(unflatten(host, params))) / 1e-7
    for paths in [list(host)] if parts is None else parts:

        def at(h, paths=paths):
            return value(unflatten(host | {path: host[path] + h * d[path] for path in paths}, params))

        numerical = (at(STEP) - at(-STEP)) / (2 * STEP)
        exact = sum((found[path] * d[path]).sum() for path in paths)
        scale = sum(np.abs(found[path] * d[path]).sum() for path in paths) + noise
        assert abs(numerical - exact) / scale < 1e-7, f"{paths}: {abs(numerical - exact) / scale:.1e}"


def test_every_family_has_a_row():
    named = {name: family.module for name, family in FAMILIES.items()}
    for name, family in FAMILIES.items():
        named |= {other: models.family(other) for other in family.same}
        assert family.module is models.family(name) and family.config.MODEL_TYPE == name
        assert not any(getattr(family.config, rate) for rate in family.dropout)
        assert all(task in family.module.TASKS for task in family.dropout.values())
    assert named.keys() == {name for name in models.FAMILIES if hasattr(models.family(name), "TASKS")}


@pytest.mark.parametrize(("family", "other"), [(name, other) for name, row in FAMILIES.items() for other in row.same])
def test_families_under_another_name_compute_the_same(family, other):
    """Except for the hub's class names and the default vocabulary."""
    first, second = models.family(family), models.family(other)
    assert first.body is second.body and first.shapes is second.shapes and first.NAMES is second.NAMES
    fields = {name: value for name, value in vars(FAMILIES[family].config).items() if name != "source"}
    config = second.Config(**fields)
    assert config.MODEL_TYPE == other and vars(config) == vars(FAMILIES[family].config)
    for task, row in first.TASKS.items():
        assert second.TASKS[task]._replace(architecture=row.architecture) == row
        assert second.TASKS[task].architecture != row.architecture
    model = tinyplm.create(other, config, key=3)
    assert equal(model.params, tinyplm.create(family, FAMILIES[family].config, key=3).params)


# ----------------------------------------------------------------------------------------------------------- gradients


def loss_and_gradient(model, key=None):
    """value(params), the task's loss, and its gradient at model.params."""
    inputs = on(model, batch(model))
    targets = on(model, targets_for(model, model(**inputs, grad=False)[0]))

    def loss(params, **options):
        return model.with_params(params).loss(targets=targets, **inputs, **options)

    return lambda params: float(to_host(loss(params, grad=False, key=key)[0])), loss(model.params, key=key)[1](1.0)


@each_loss
def test_gradient_of_the_loss_by_every_parameter(family, task):
    """Each parameter of the head separately; the test of variants covers every parameter of the body."""
    model = tiny(family, task)
    value, gradient = loss_and_gradient(model)
    assert_derivatives(value, gradient, model.params, [*([path] for path in flatten(model.params["head"], "head")),
                                                       list(flatten(model.params))])  # fmt: skip


@pytest.mark.parametrize(("family", "variant"), [*VARIANTS, *((name, "") for name in FAMILIES)])
def test_gradient_of_the_loss_by_every_parameter_of_the_body(family, variant):
    model = tiny(family, **FAMILIES[family].variants.get(variant, {}))
    value, gradient = loss_and_gradient(model)
    assert_derivatives(value, gradient, model.params, [[path] for path in flatten(model.params["body"], "body")])


@each_loss
def test_gradient_of_the_loss_through_dropout(family, task):
    model = tiny(family, task, **dict.fromkeys(FAMILIES[family].dropout, 0.2))
    value, gradient = loss_and_gradient(model, random.sample_keys(5, np.arange(3)))
    parts = ([path for path in flatten(model.params) if path.startswith(part)] for part in ("head", "body.layers", "body"))
    assert_derivatives(value, gradient, model.params, parts)


@each_task
def test_gradients_of_all_outputs(device, family, task):
    """With respect to all parameters, and to embeddings passed instead of ids; one cotangent per output.

    The gradients are the device's; the differences are taken on the host, where the outputs are the same.
    """
    model = tiny(family, task, device=device)
    inputs = on(model, batch(model))
    outputs, backward = model(**inputs)
    c = random_like(outputs)
    gradient = backward(on(model, c))
    on_host, host_inputs = model.to("cpu"), batch(model)
    assert apart(outputs, on_host(**host_inputs, grad=False)[0]) < MODEL
    assert_derivatives(lambda p: inner(on_host.with_params(p)(**host_inputs, grad=False)[0], c), gradient, model.params)
    if task == "multiple_choice":  # accepts ids alone
        return
    inputs.pop("input_ids")
    embeds = random_like(on_host.params["body"]["tokens"][host_inputs.pop("input_ids")], seed=3)
    outputs, backward = model(inputs_embeds=on(model, embeds), **inputs)
    assert apart(outputs, on_host(inputs_embeds=embeds, **host_inputs, grad=False)[0]) < MODEL
    dparams, dembeds = backward(on(model, c))
    assert not to_host(dparams["body"]["tokens"]).any() or "bias" in model.params["head"]  # except a tied table
    assert_derivatives(lambda t: inner(on_host(inputs_embeds=t["x"], **host_inputs, grad=False)[0], c), {"x": dembeds},
                       {"x": embeds})  # fmt: skip


@each_task
def test_outputs_have_gradients_each_and_together(family, task):
    model = tiny(family, task)
    outputs, backward = model(**batch(model))
    c = random_like(outputs)
    parts = [backward({name: c[name]}) for name in c]
    total = parts[0]
    for part in parts[1:]:
        total = tree_map(lambda a, b: a + b, total, part)
    assert apart(backward(c), total) < MODEL
    assert equal(backward({**c, "hidden": None}), backward({name: c[name] for name in c if name != "hidden"}))
    assert not any(a.any() for a in leaves(backward({})))
    with pytest.raises(ValueError, match=r"backward: expected some of .*hidden.*, got \['logit'\]"):
        backward({"logit": c["hidden"]})


@each_family
def test_initial_values(family):
    """Norms are 1 and 0, the other biases 0 (except u and v, the biases of XLNet's attention), everything else random."""
    config = dataclasses.replace(FAMILIES[family].config, initializer_range=0.5)
    drawn = []
    for path, a in flatten(tinyplm.create(family, config, dtype="float64").params).items():
        name = path.rsplit(".", 1)[-1]
        if name in ("gamma", "beta", "bias", "b", "b1", "b2", "bq", "bk", "bv", "bo", "bqr", "bkr"):
            assert (a == (name == "gamma")).all(), path
        else:
            drawn.append(a.ravel())
    values = np.concatenate(drawn)
    assert len(np.unique(values)) == values.size > 300
    error = 0.5 * values.size**-0.5  # of the mean; that of the standard deviation is smaller
    assert abs(values.mean()) < 4 * error and abs(values.std() - 0.5) < 4 * error


@each_family
def test_embeddings_as_inputs_are_the_looked_up_rows(family):
    model = tiny(family, "body")
    inputs = batch(model)
    expected, ids_backward = model(**inputs)
    ids = inputs.pop("input_ids")
    outputs, backward = model(inputs_embeds=model.params["body"]["tokens"][ids], **inputs)
    assert equal(outputs, expected)
    c = random_like(expected)
    dparams, dembeds = backward(c)
    assert not dparams["body"]["tokens"].any()
    zeros, dzeros = backward({})
    assert not any(a.any() for a in leaves(zeros)) and dzeros.shape == dembeds.shape and not dzeros.any()
    scattered = np.zeros_like(model.params["body"]["tokens"])
    np.add.at(scattered, ids, dembeds)
    assert apart({"x": scattered}, {"x": ids_backward(c)["body"]["tokens"]}) < MODEL


# ------------------------------------------------------------------------------------------------------------- padding


def real_rows(name, a, model):
    """A mask over an output that selects real tokens."""
    mask = padding(model).reshape(-1, 5)
    of_tokens = name in ("hidden", "start_logits", "end_logits") or (name == "logits" and a.ndim == 3)
    return mask.astype(bool) if of_tokens else np.ones(a.shape, bool)


@each_task
def test_padding_has_exactly_no_influence(device, family, task):
    model = tiny(family, task, device=device)
    inputs = batch(model)
    outputs = to_host(model(**inputs, grad=False)[0])
    real = inputs["attention_mask"] == 1
    changed = {name: np.where(real, a, {"input_ids": 10 - a, "token_type_ids": 1 - a}.get(name, a)) for name, a in inputs.items()}
    again = to_host(model(**changed, grad=False)[0])
    for name, a in outputs.items():
        rows = real_rows(name, a, model)
        assert np.array_equal(a[rows], again[name][rows]), name
    assert np.array_equal(outputs["hidden"], again["hidden"]) == FAMILIES[family].zeroed, "what becomes of the padding itself"


@pytest.mark.parametrize(("family", "task"), [case for case in CASES if case[1] != "multiple_choice"])
def test_padding_gets_exactly_no_gradient(device, family, task):
    model = tiny(family, task, device=device)
    inputs = batch(model)
    shape = (*inputs.pop("input_ids").shape, model.params["body"]["tokens"].shape[1])
    outputs, backward = model(inputs_embeds=np.random.default_rng(0).normal(size=shape), **inputs)
    c = random_like(outputs)
    for name, a in c.items():
        rows = real_rows(name, a, model)
        a[~rows] = 0
    dembeds = to_host(backward(on(model, c))[1])
    real = padding(model).astype(bool)
    assert not dembeds[~real].any() and dembeds[real].all()


@each_family
def test_a_padded_sample_is_as_if_alone(family):
    """Up to rounding: matrices of another height may use another order of summation."""
    model = tiny(family)
    inputs = batch(model)
    outputs, _ = model(**inputs)
    tokens = slice(2, 5) if FAMILIES[family].left else slice(0, 3)
    alone, _ = model(**{name: a[2:, tokens] for name, a in inputs.items()})
    for name, a in alone.items():
        assert relative_error(outputs[name][2:, tokens], a) < MODEL
    full, _ = model(**{name: a[:1] for name, a in inputs.items() if name != "attention_mask"})
    assert equal(full, {name: a[:1] for name, a in model(**{n: a[:1] for n, a in inputs.items()})[0].items()})


# ------------------------------------------------------------------------------------------------------ loss and parts


@each_loss
def test_the_loss_is_that_of_the_full_outputs(device, family, task):
    """Value and gradient, with targets for one output at a time and for all; each end of an answer counts half.

    On other devices with smoothing alone, which calls the same functions and one more.
    """
    model = tiny(family, task, device=device)
    inputs = on(model, batch(model))
    outputs, backward = model(**inputs)
    targets = on(model, targets_for(model, outputs))
    share = 0.5 if task == "question_answering" else 1.0
    every = [*([name] for name in targets), list(targets)]
    for names, smoothing in itertools.product(every, (0.0, 0.1) if device == "cpu" else (0.1,)):
        total = {name: 7.0 for name in names[:1]}  # default for the others: the number of targets
        parts = {name: cross_entropy(outputs[name], targets=targets[name], total=total.get(name), smoothing=smoothing)
                 for name in names}  # fmt: skip
        loss, back = model.loss(targets={name: targets[name] for name in names}, total=total, smoothing=smoothing, **inputs)
        assert float(to_host(loss)) == pytest.approx(sum(share * float(to_host(value)) for value, _ in parts.values()), rel=MODEL)
        expected = backward({name: back_of(1.5 * share) for name, (_, back_of) in parts.items()})
        assert apart(back(1.5), expected) < MODEL


@each_loss
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_parts_of_a_training_step_add_up_to_the_gradient(family, task, count):
    """For any number of shards, with dropout: each uses its samples' masks and divides by the totals of the full batch."""
    model = tiny(family, task, **dict.fromkeys(FAMILIES[family].dropout, 0.2))
    inputs = batch(model)
    targets = targets_for(model, model(**inputs, grad=False)[0])
    key = random.sample_keys(4, np.arange(3))
    total = {name: float((t != -100).sum()) for name, t in targets.items()}
    loss, back = model.loss(targets=targets, key=key, **inputs)
    sums, given = FlatTree(model.params), []

    def run(shard, give):
        def noted(path, gradient):
            given.append(path)
            give(path, gradient)

        value, parts_back = model.loss_in_parts(
            noted, shard["inputs"] | {"key": shard["key"]}, targets=shard["targets"], total=total
        )
        return value, parts_back(1.5)

    shards = reduce_shards(run, {"inputs": inputs, "targets": targets, "key": key}, count, lambda path, d: sums.add(d, path))
    for _, left in shards:
        for tree in left:
            sums.add(tree)
    assert float(sum(value for value, _ in shards)) == pytest.approx(float(loss), rel=MODEL)
    assert apart(sums.tree, back(1.5)) < MODEL
    layers = [f"body.layers.{i}" for i in range(len(model.params["body"]["layers"]))]
    if count == 1:
        assert given == ["", *layers[::-1], "body"], "the head first, then layer by layer"


@each_loss
def test_the_head_of_a_step_as_factors(family, task):
    """The factors remain at the end; language models alone have them."""
    model = tiny(family, task)
    inputs = batch(model)
    targets = targets_for(model, model(**inputs, grad=False)[0])
    sums = FlatTree(model.params)
    _, back = model.loss_in_parts(lambda path, d: sums.add(d, path), inputs, targets=targets, options=LossOptions(factors=True))
    left = back(1.5)
    assert len(left) == 1 + (model.family.TASKS[task].language_model is not None)
    for tree in left:
        sums.add(tree)
    assert apart(sums.tree, model.loss(targets=targets, **inputs)[1](1.5)) < MODEL


@each_family
def test_layer_gradients_go_to_the_callback_and_are_not_built_again(family):
    model = tiny(family)
    inputs = batch(model)
    expected = model(**inputs)[1]
    c = random_like(model(**inputs)[0])
    handed = {}
    gradient = model(**inputs, on_gradient=handed.__setitem__)[1](c)
    L = len(model.params["body"]["layers"])
    assert gradient["body"]["layers"] == [None] * L and list(handed) == list(range(L))[::-1]
    gradient["body"]["layers"] = [handed[i] for i in range(L)]
    assert apart(gradient, expected(c)) == 0
