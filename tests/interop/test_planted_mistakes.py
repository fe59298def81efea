# ruff: noqa: E402 - imports follow importorskip
"""Mistakes planted in PyTorch models are found at the right place and named; correct models differ nowhere."""

from __future__ import annotations

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tinyplm
from tests.interop.planted import MISTAKES
from tests.support import encoder_families, families, torch_models

MODELS = {"llama": torch_models.Llama, "mistral": torch_models.Llama, "gpt2": torch_models.GPT2, "bert": torch_models.Bert}


@functools.cache
def our_side(family, dtype="float64", scaled=False):
    """(model, inputs, targets, trace) of a loss, with padding on either side."""
    if family == "bert":
        model = encoder_families.tiny("bert", "masked_lm", dtype=dtype)
        inputs = encoder_families.batch(model)
        targets = encoder_families.targets_for(model, model(**inputs, grad=False)[0])
    else:
        changes = {"rope_parameters": {"rope_type": "linear", "rope_theta": 10.0, "factor": 4.0}} if scaled else {}
        model = families.tiny(family, dtype=dtype, tie_word_embeddings=family == "gpt2", **changes)
        ids, targets = families.batch()
        inputs = {"input_ids": ids, "attention_mask": families.PADDING}
        targets = {"logits": np.where(families.PADDING == 1, targets, -100)}
    with tinyplm.trace() as t:
        _, backward = model.loss(**inputs, targets=targets)
        backward(1.0)
    t.last.again = functools.cache(t.last.again)
    return model, inputs, targets, t.last


def compared(family, pieces=None, weights=None, scaled=False, dtype="float64"):
    ours, inputs, targets, trace = our_side(family, dtype, scaled)
    window = getattr(ours.config, "sliding_window", None)
    own = {"mask": functools.partial(torch_models.causal, window=window)} if window else {}
    theirs = MODELS[family](ours, **{**own, **(pieces or {})})
    if weights is not None:
        weights(theirs)
    given = {name: torch.from_numpy(a) for name, a in inputs.items()}
    labels = torch.from_numpy(targets["logits"])
    other = tinyplm.trace_torch(theirs, inputs, backward=lambda logits: theirs.p.loss(logits, labels, given))
    return tinyplm.compare(trace, other)


def name_of(mistake):
    return f"{mistake.family}-{mistake.name}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=name_of)
def test_a_mistake_is_found_and_named(mistake):
    result = compared(mistake.family, mistake.pieces, mistake.weights, mistake.scaled)
    assert (result.first_forward or result.first_backward or result.first_parameter) == mistake.place, result.table()
    if mistake.name is None:
        assert result.explanation is None, f"a false name: {result.explanation}"
        return
    assert result.explanation is not None, "not explained"
    assert result.explanation.name == mistake.name
    assert result.explanation.detail == mistake.detail or not mistake.detail
    theirs = f" (theirs: {result.places[mistake.place]})" if mistake.place in result.places else ""
    assert mistake.name in str(result) and f"differs first at {mistake.place}{theirs} by" in str(result)


def test_how_many_mistakes_are_planted():
    """At least 25, of which at least 22 named (the test above asserts each)."""
    named = [mistake for mistake in MISTAKES if mistake.name is not None]
    assert (len(MISTAKES), len(named)) == (66, 64)
    assert {mistake.family for mistake in MISTAKES} == set(MODELS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("family", MODELS)
def test_a_correct_model_differs_nowhere(family, dtype):
    result = compared(family, dtype=dtype)
    assert result.equal, result.table()
    assert result.explanation is None and result.first_forward is None and result.first_backward is None
    layers = sum(row.name.startswith("layers.") for row in result.rows if row.kind == "forward")
    assert layers >= 2 * 11 and sum(row.kind == "parameter" for row in result.rows) >= 20
    assert result.places["layers.0.attention.heads"].endswith(("o_proj:input", "attn.c_proj:input", "output.dense:input"))
    assert any(row.differs is False and row.difference > 0 for row in result.rows), "the same numbers prove nothing"


def transformers_pair(family, tmp_path):
    """transformers' tiny model, ours of its folder, inputs and targets."""
    from tests.interop import encoder_pair, pair

    if family == "bert":
        theirs, ours = encoder_pair.pair("bert", "masked_lm", tmp_path)
        inputs = encoder_pair.inputs_for("bert", "masked_lm")
    else:
        theirs, ours = pair.pair(family, tmp_path)
        ids = np.random.default_rng(1).integers(0, ours.config.vocab_size, (3, 7))
        inputs = {"input_ids": ids, "attention_mask": pair.padding("right", 3, 7)[0]}
    targets = np.random.default_rng(2).integers(0, ours.config.vocab_size, (3, 7))
    targets[inputs["attention_mask"] == 0] = -100
    return theirs, ours, inputs, targets


@pytest.mark.parametrize("family", MODELS)
def test_models_of_transformers_differ_nowhere(family, tmp_path):
    """In float64, where transformers computes some statistics in float32 unless it is held to it."""
    pytest.importorskip("transformers")
    from tests.interop.pair import float64

    theirs, ours, inputs, targets = transformers_pair(family, tmp_path)
    with tinyplm.trace() as t:
        _, backward = ours.loss(**inputs, targets={"logits": targets})
        backward(1.0)
    labels = torch.from_numpy(targets)

    def loss(outputs):
        return torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())

    with float64():
        other = tinyplm.trace_torch(theirs, inputs, backward=loss)
    result = tinyplm.compare(t, other)
    assert result.equal, result.table()
    assert sum(row.kind == "backward" and row.name.startswith("layers.") for row in result.rows) >= 2 * 11
    assert sum(row.kind == "parameter" for row in result.rows) == len([p for p in theirs.parameters()])
