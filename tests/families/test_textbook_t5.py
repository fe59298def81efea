"""T5 as written out in its own file, against the walk with T5's pieces: bit-identical."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import equal
from tests.support.encoder_families import random_like
from tests.support.seq2seq_families import FAMILIES, batch, tiny
from tinyplm import checks
from tinyplm.backend import to_device, to_host
from tinyplm.core import StackOptions, flatten
from tinyplm.families import t5
from tinyplm.random import sample_keys

IDS = batch()
RATE = {"dropout_rate": 0.2}
EMBEDS = {"inputs_embeds": np.random.default_rng(4).normal(size=(3, 5, 6)),
          "decoder_inputs_embeds": np.random.default_rng(5).normal(size=(3, 4, 6))}  # fmt: skip
CASES = {
    "padded": IDS,
    "ids alone": batch(padded=False),
    "padded sources": {name: a for name, a in IDS.items() if name != "decoder_attention_mask"},
    "padded targets": {name: a for name, a in IDS.items() if name != "attention_mask"},
    "embeddings": EMBEDS,
    "embeddings of one side": {"decoder_inputs_embeds": EMBEDS["decoder_inputs_embeds"], "input_ids": IDS["input_ids"]},
    "one token": {name: a[:, :1] for name, a in IDS.items()},
}
STACKING = [{}, {"checkpointing": 1}, {"checkpointing": 2}, {"once": True}, {"frozen": 1}, {"frozen": 2}, {"frozen": 3}]


def results(model, inputs, options, handed=("encoder_hidden", "hidden")):
    """[outputs, gradients by name, gradients of embeddings] from the textbook and from the walk."""
    inputs = to_device({**inputs, "key": sample_keys(3, np.arange(3))}, model.device)
    found = []
    for body in (t5.body, t5.walk):
        given = dict(inputs)
        embeds = [given.pop(name, None) for name in EMBEDS]
        outputs, backward = body(model.params["body"], *embeds, config=model.config, stacking=StackOptions(**options), **given)
        c = random_like({name: outputs[name] for name in handed})
        dp, *dembeds = backward(to_device({name: a.astype(model.dtype) for name, a in c.items()}, model.device))
        found.append([to_host(outputs), flatten(to_host(dp)), to_host(dembeds)])
    return found


def assert_equal(textbook, walk):
    (outputs, dp, dembeds), (outputs2, dp2, dembeds2) = textbook, walk
    assert list(outputs) == list(outputs2) and equal(outputs, outputs2)
    assert dp.keys() == dp2.keys()
    assert not [path for path in dp if not (dp[path] is dp2[path] is None or np.array_equal(dp[path], dp2[path]))]
    assert [d is None for d in dembeds] == [d is None for d in dembeds2] and equal(dembeds, dembeds2)


@pytest.mark.parametrize("rates", [{}, RATE], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_every_gradient(device, case, rates):
    model = tiny("t5", device=device, **rates)
    textbook, walk = results(model, CASES[case], {})
    assert_equal(textbook, walk)
    # gradients that both omit, or that are zero in both, would prove nothing
    looked_up = {"tokens"} if case == "embeddings" else set()
    assert textbook[1].keys() == flatten(model.params["body"]).keys() - looked_up
    zero = {path for path, g in textbook[1].items() if not g.any()}
    if case == "one token":  # a softmax over one key is 1, whatever the queries and keys, and whatever they are made of
        zero -= {path for path in zero if path.endswith(("Wq", "Wk", "bias", "decoder.layers.0.norm2.gamma"))}
        zero -= {"decoder.layers.1.norm2.gamma"}
    assert not zero


@pytest.mark.parametrize("options", STACKING, ids=str)
def test_in_all_ways_of_the_stack(options):
    assert_equal(*results(tiny("t5", **RATE), IDS, options))


@pytest.mark.parametrize("handed", [["hidden"], ["encoder_hidden"]])
def test_the_gradient_of_one_output(handed):
    assert_equal(*results(tiny("t5", **RATE), IDS, {}, handed))


@pytest.mark.parametrize("changes", [*FAMILIES["t5"].variants.values(), {"num_decoder_layers": None, "d_kv": 3}], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_other_configs_and_dtypes(changes, dtype):
    assert_equal(*results(tiny("t5", dtype=dtype, **changes, **RATE), IDS, {}))


def test_gradients_go_to_the_callback_in_the_same_order():
    model = tiny("t5", **RATE)
    given: list = [[], []]
    for body, calls in zip((t5.body, t5.walk), given):
        stacking = StackOptions(on_gradient=lambda n, dp, calls=calls: calls.append((n, dp)))
        outputs, backward = body(model.params["body"], config=model.config, stacking=stacking, **IDS)
        backward(random_like(outputs))
    assert [n for n, _ in given[0]] == [n for n, _ in given[1]] == [3, 2, 1, 0]
    assert equal([dp for _, dp in given[0]], [dp for _, dp in given[1]])


def test_the_textbook_is_not_the_walk_and_traces_take_the_walk():
    """Otherwise the comparisons would prove nothing; a trace names what the textbook does not."""
    model = tiny("t5")
    assert t5.body.__module__ == t5.__name__ != t5.walk.func.__module__
    with checks.trace() as trace:
        traced, _ = model(**IDS, grad=False)
    assert equal(traced, model(**IDS, grad=False)[0])
    assert any("cross" in name for name in trace) and any("encoder" in name for name in trace)
