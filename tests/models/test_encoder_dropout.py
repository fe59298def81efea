"""Behaviour common to all encoders and tasks: dropout, recomputation, dtypes.  The rest is in test_encoders.py."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import equal, leaves
from tests.support.encoder_families import (
    CASES,
    FAMILIES,
    TRAINED,
    VARIANTS,
    batch,
    keys_of_masks,
    random_like,
    targets_for,
    tiny,
)
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.core import tree_map

each_task = pytest.mark.parametrize(("family", "task"), CASES)


def on(model, tree):
    return to_device(tree, model.device)


@each_task
def test_dropout_depends_on_the_key_alone(device, family, task):
    model = tiny(family, task, device=device, **dict.fromkeys(FAMILIES[family].dropout, 0.2))
    inputs = batch(model)

    def outputs(key, inputs=inputs, **options):
        return to_host(model(**inputs, key=key, **options)[0])

    a = outputs(1)
    assert equal(a, outputs(1)) and equal(a, outputs(1, grad=False))
    for other in (2, None):
        changed = outputs(other)
        assert not any(np.array_equal(a[name], changed[name]) for name in a)
    two = outputs(1, inputs={name: array[:2] for name, array in inputs.items()})
    assert all(np.array_equal(a[name][: len(b)], b) for name, b in two.items()), "not on the batch around a sample"


@pytest.mark.parametrize(
    ("family", "rate", "task"), [(n, rate, task) for n, f in FAMILIES.items() for rate, task in f.dropout.items()]
)
def test_every_dropout_rate_is_used(family, rate, task):
    model = tiny(family, task)
    alone = tiny(family, task, **{rate: 0.2})
    outputs = [one(**batch(model), key=1)[0] for one in (model, alone)]
    assert equal(outputs[0], model(**batch(model))[0])
    assert any(not np.array_equal(outputs[0][name], outputs[1][name]) for name in outputs[0])


@pytest.mark.parametrize(
    ("family", "task", "variant"), [*((*case, "") for case in CASES), *((name, None, variant) for name, variant in VARIANTS)]
)
def test_every_mask_has_a_key_of_its_own(monkeypatch, family, task, variant):
    """In all layers, in all blocks of a group, in the head."""
    rates = dict.fromkeys(FAMILIES[family].dropout, 0.2)
    model = tiny(family, task, **{**FAMILIES[family].variants.get(variant, {}), **rates})
    keys = keys_of_masks(monkeypatch, lambda: model(**batch(model), key=1))
    assert len(set(keys)) == len(keys) > 2 * len(model.params["body"]["layers"])


@pytest.mark.parametrize("family", [name for name, task in CASES if task == "multiple_choice"])
def test_choices_have_masks_of_their_own(family):
    model = tiny(family, "multiple_choice", **dict.fromkeys(FAMILIES[family].dropout, 0.2))
    ids = np.full((2, 3, 4), 5)
    logits = model(ids, key=1)[0]["logits"]
    assert len(np.unique(logits)) == logits.size
    assert np.array_equal(model(ids[:, :2], key=1)[0]["logits"], logits[:, :2])


@each_task
@pytest.mark.parametrize("options", [{"checkpointing": True}, {"checkpointing": 2}, {"once": True}])
def test_checkpointing_is_bit_equal_with_dropout(family, task, options):
    model = tiny(family, task, **dict.fromkeys(FAMILIES[family].dropout, 0.2))
    inputs = batch(model)
    outputs, backward = model(**inputs, key=3)
    outputs2, backward2 = model(**inputs, key=3, **options)
    c = random_like(outputs)
    assert equal(outputs, outputs2) and equal(backward(c), backward2(c))


@each_task
def test_float32_stays_float32(device, family, task):
    model = tiny(family, task, dtype="float32", device=device, **dict.fromkeys(FAMILIES[family].dropout, 0.2))
    inputs = on(model, batch(model))
    outputs, backward = model(**inputs, key=1)
    assert all(a.dtype == np.float32 for a in leaves(outputs))
    c = tree_map(lambda a: a.astype("float32"), random_like(outputs))
    assert all(a.dtype == np.float32 for a in leaves(backward(on(model, c))))
    if (family, task) in TRAINED:
        targets = on(model, targets_for(model, outputs))
        loss, back = model.loss(targets=targets, key=on(model, random.sample_keys(0, np.arange(3))), **inputs)
        assert loss.dtype == np.float32 and all(a.dtype == np.float32 for a in leaves(back(1.0)))
