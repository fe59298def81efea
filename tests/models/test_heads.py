"""How heads are combined, and the logits of the last position."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.laws import FEW, MODEL, relative_error
from tests.support import families
from tests.support.encoder_families import tiny
from tinyplm.core import StackOptions
from tinyplm.families import llama
from tinyplm.kernels.cross_entropy import vocabulary_cross_entropy
from tinyplm.models import encoder_heads
from tinyplm.models.causal_lm import last_logits
from tinyplm.models.heads import on_decoder, then, weighted_sum, with_hidden, with_states
from tinyplm.models.protocol import LossInputs, LossOptions

rng = np.random.default_rng(0)
P = {"a": rng.normal(size=3), "b": rng.normal(size=3)}
HIDDEN = rng.normal(size=(2, 3))


def product(name):
    """loss = sum of hidden p[name], so that the gradients are p[name] in each row, and the sum of the rows."""

    def head(p, hidden):
        return (hidden * p[name]).sum(), lambda d: ({name: d * hidden.sum(axis=0)}, d * np.tile(p[name], (len(hidden), 1)))

    return head


def test_a_weighted_sum_of_losses():
    """At dloss = 1.5, as loss scaling needs it, with one array in two of the losses."""
    loss, back = weighted_sum((2.0, product("a")), (-0.5, product("b")), (0.25, product("a")))(P, HIDDEN)
    total = HIDDEN.sum(axis=0)
    assert relative_error(loss, (total * (2.25 * P["a"] - 0.5 * P["b"])).sum()) < FEW
    dp, dhidden = back(1.5)
    assert relative_error(dp, {"a": 1.5 * 2.25 * total, "b": 1.5 * -0.5 * total}) < FEW
    assert relative_error(dhidden, np.tile(1.5 * (2.25 * P["a"] - 0.5 * P["b"]), (2, 1))) < FEW


def test_a_component_after_a_head():
    value, back = then(product("a"), lambda y: (y * y, lambda d: d * 2 * y))(P, HIDDEN)
    y, plain_back = product("a")(P, HIDDEN)
    assert value == y * y and relative_error(list(back(1.5)), list(plain_back(1.5 * 2 * y))) < FEW


def test_outputs_of_several_heads():
    """Each output has its own gradient, a missing one is zero, and that of the hidden states is added."""

    def named(name):
        def head(p, hidden):
            value, back = product(name)(p, hidden)
            return {f"{name}_out": value}, lambda d: back(d[f"{name}_out"])

        return head

    outputs, back = with_hidden(named("a"), named("b"))(P, HIDDEN)
    assert list(outputs) == ["a_out", "b_out", "hidden"] and outputs["hidden"] is HIDDEN
    dp, dhidden = back({"a_out": 2.0, "b_out": 3.0, "hidden": HIDDEN})
    total = HIDDEN.sum(axis=0)
    assert relative_error(dp, {"a": 2 * total, "b": 3 * total}) < FEW
    assert relative_error(dhidden, 2 * P["a"] + 3 * P["b"] + HIDDEN) < FEW
    dp, dhidden = back({"a_out": None, "b_out": 3.0})
    assert relative_error(dp, {"b": 3 * total}) < FEW and relative_error(dhidden, np.tile(3 * P["b"], (2, 1))) < FEW


def test_the_last_logits_hold_no_layer_for_a_backward():
    """And they are those of the whole forward pass."""
    model = families.tiny("llama")
    ids, _ = families.batch()
    given = []

    def body(*args, stacking, **inputs):
        given.append(stacking)
        return llama.body(*args, stacking=stacking, **inputs)

    body, W = partial(body, config=model.config), partial(llama.output_matrix, config=model.config)
    logits, cache = last_logits(body, W, model.params, {"input_ids": ids})
    assert given == [StackOptions(grad=False)] and cache is None
    assert relative_error(logits, model(ids)[0]["logits"][:, -1]) < MODEL


def test_the_options_of_a_loss_reach_the_kernel(monkeypatch):
    """Those that change memory or speed would not be missed in any number."""
    model = tiny("bert")
    given = []

    def kernel(*args, **options):
        given.append({name: options[name] for name in ("chunk", "factors", "smoothing", "grad", "total")})
        return vocabulary_cross_entropy(*args, **options)

    monkeypatch.setattr(encoder_heads, "vocabulary_cross_entropy", kernel)
    targets = {"logits": np.array([[1, -100], [2, 3]])}
    options = LossOptions(chunk=5, factors=True, smoothing=0.1)
    loss = LossInputs(targets, {"logits": 7.0}, options)
    head = encoder_heads.loss_head(model._task, model.config, loss, grad=False)
    head(model.params, rng.normal(size=(2, 2, 6)))
    assert given == [{"chunk": 5, "factors": True, "smoothing": 0.1, "grad": False, "total": 7.0}]


def test_a_head_on_the_decoders_states_scaled():
    """loss = 0.5 sum of hidden p["a"]; the encoder's states have a gradient only where one comes in."""
    states = {"encoder_hidden": HIDDEN + 1, "hidden": HIDDEN}
    value, back = on_decoder(product("a"), scale=0.5)(P, states)
    expected, plain_back = product("a")(P, 0.5 * HIDDEN)
    dp, dstates = back(1.5)
    dp_plain, dhidden = plain_back(1.5)
    assert value == expected and relative_error(dp, dp_plain) < FEW
    assert list(dstates) == ["hidden"] and relative_error(dstates["hidden"], 0.5 * dhidden) < FEW
    assert on_decoder(lambda p, hidden: (hidden.sum(), None))(P, states) == (HIDDEN.sum(), None)

    def named(p, states):
        value, back = on_decoder(product("a"))(p, states)
        return {"out": value}, lambda d: back(d["out"])

    outputs, back = with_states(named)(P, states)
    assert list(outputs) == ["out", "encoder_hidden", "hidden"] and outputs["hidden"] is HIDDEN
    d = {"out": 1.5, "encoder_hidden": HIDDEN * 2, "hidden": HIDDEN * 3}
    dp, dstates = back(d)
    assert relative_error(dp["a"], 1.5 * HIDDEN.sum(axis=0)) < FEW
    assert relative_error(dstates["hidden"], 1.5 * np.tile(P["a"], (2, 1)) + HIDDEN * 3) < FEW
    assert np.array_equal(dstates["encoder_hidden"], HIDDEN * 2)
    dp, dstates = back({"encoder_hidden": HIDDEN, "hidden": None})
    assert dp is None and dstates["encoder_hidden"] is HIDDEN and dstates["hidden"] is None
