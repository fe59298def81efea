"""BERT as written out in its own file, against the walk with BERT's pieces: bit-identical."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.encoder_families import batch, random_like, tiny
from tinyplm.backend import to_device, to_host
from tinyplm.core import StackOptions, flatten
from tinyplm.families import bert
from tinyplm.models import encoder
from tinyplm.random import sample_keys

RATES = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
WALK = encoder.body_of(bert.pieces)
IDS = batch(tiny("bert", "body"))
EMBEDS = np.random.default_rng(4).normal(size=(3, 5, 6))
CASES = {
    "padding and types": IDS,
    "ids alone": {"input_ids": IDS["input_ids"]},
    "positions by sample": {
        **IDS,
        "position_ids": np.array([[0, 1, 2, 3, 4], [5, 4, 3, 2, 1], [2] * 5]),
    },
    "positions for all": {**IDS, "position_ids": np.array([5, 1, 1, 0, 3])},
    "embeddings": {"inputs_embeds": EMBEDS, "attention_mask": IDS["attention_mask"]},
    "embeddings with types": {"inputs_embeds": EMBEDS, "token_type_ids": IDS["token_type_ids"]},
    "embeddings and ids": {"inputs_embeds": EMBEDS, **IDS},
    "one token": {name: a[:, :1] for name, a in IDS.items()},
}


def both(model, inputs, **options):
    """[hidden, gradients by name, gradient of embeddings] from the textbook and from the walk."""
    inputs = to_device({**inputs, "key": sample_keys(3, np.arange(3))}, model.device)
    results = []
    for body in (bert.body, WALK):
        given = dict(inputs)
        p, embeds = model.params["body"], given.pop("inputs_embeds", None)
        stacking = StackOptions(**options)
        hidden, backward = body(p, embeds, config=model.config, stacking=stacking, **given)
        results.append([to_host(hidden)])
        if stacking.grad:
            cotangent = random_like(hidden).astype(model.dtype)
            dp, dembeds = backward(to_device(cotangent, model.device))
            results[-1] += [flatten(to_host(dp)), to_host(dembeds)]
    return results


def assert_equal(textbook, walk):
    for one, other in zip(textbook, walk, strict=True):
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            assert not [name for name in one if not np.array_equal(one[name], other[name])]
        else:
            assert one is other is None or np.array_equal(one, other)


@pytest.mark.parametrize("rates", [{}, RATES], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_every_gradient(device, case, rates):
    model = tiny("bert", "body", device=device, **rates)
    textbook, walk = both(model, CASES[case])
    assert_equal(textbook, walk)
    # Gradients that both omit, or that are zero in both, would prove nothing.
    looked_up = {"tokens"} if "inputs_embeds" in CASES[case] else set()
    assert textbook[1].keys() == flatten(model.params["body"]).keys() - looked_up
    zero = {name.rsplit(".", 1)[-1] for name, g in textbook[1].items() if not g.any()}
    if case == "one token":  # a softmax over one key is 1, whatever the queries and keys
        zero -= {"Wq", "Wk", "bq", "bk"}
    assert not zero


@pytest.mark.parametrize(
    "options",
    [{"checkpointing": 1}, {"checkpointing": 2}, {"once": True}, {"frozen": 1}, {"frozen": 2}],
    ids=str,
)
def test_in_all_ways_of_the_stack(options):
    model = tiny("bert", "body", **RATES)
    assert_equal(*both(model, IDS, **options))


def test_without_gradients():
    model = tiny("bert", "body", **RATES)
    assert_equal(*both(model, IDS, grad=False))


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "relu"}, {"hidden_act": "gelu_new"}, {"num_attention_heads": 3}],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_other_configs_and_dtypes(changes, dtype):
    assert_equal(*both(tiny("bert", "body", dtype=dtype, **changes, **RATES), IDS))


def test_gradients_go_to_the_callback_in_the_same_order():
    model = tiny("bert", "body", **RATES)
    given: list = [[], []]
    for body, calls in zip((bert.body, WALK), given):
        stacking = StackOptions(on_gradient=lambda n, dp, calls=calls: calls.append((n, dp)))
        hidden, backward = body(model.params["body"], config=model.config, stacking=stacking, **IDS)
        backward(random_like(hidden))
    assert [n for n, _ in given[0]] == [n for n, _ in given[1]] == [1, 0]
    for (_, one), (_, other) in zip(*given):
        assert_equal([flatten(one)], [flatten(other)])
