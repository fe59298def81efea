"""Each alternative, planted in a trace of ours, is found and named; unknown errors get no name."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tinyplm
from tests.support import encoder_families, families
from tinyplm.checks.alternatives import ALTERNATIVES, NotHere, Site
from tinyplm.checks.comparison import Comparison, Difference
from tinyplm.checks.explaining import explanation
from tinyplm.checks.files import parameter_gradients
from tinyplm.checks.tracing import Call, Record

# What gives every alternative a place where it is not what ours computes.
CASES = {
    "gpt2": {}, "bert": {}, "llama": {}, "mistral": {},
    "llama, untied": {"tie_word_embeddings": False},
    "llama, biases, tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "hidden_act": "gelu"},
    "llama, square": {"num_key_value_heads": 4, "num_attention_heads": 4, "hidden_size": 8, "head_dim": 2},
    "llama, yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10.0, "factor": 4.0}},
    "llama, far": {"rms_norm_eps": 0.1, "hidden_act": "relu"},
    "llama, holes": {},
    "gemma2": {}, "gemma3_text": {}, "qwen3": {}, "olmo2": {}, "glm": {}, "bloom": {}, "gpt_oss": {},
}  # fmt: skip
HOLES = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 0, 0, 1]])  # padding inside counts for rotary positions


@functools.cache
def ours(case):
    """A trace of a loss, with padding on both sides, and the model."""
    family = case.partition(",")[0]
    if family in encoder_families.FAMILIES:
        changes = {"layer_norm_eps": 0.01} if family == "bert" else {}
        task = "permutation_lm" if family == "xlnet" else "masked_lm"
        model = encoder_families.tiny(family, task, **changes)
        inputs = encoder_families.batch(model)
        targets = encoder_families.targets_for(model, model(**inputs, grad=False)[0])
    else:
        model = families.tiny(family, **CASES.get(case, {}))
        ids, targets = families.batch()
        mask = HOLES if "holes" in case else families.PADDING
        inputs, targets = {"input_ids": ids, "attention_mask": mask}, {"logits": np.where(mask == 1, targets, -100)}
    with tinyplm.trace() as t:
        _, backward = model.loss(**inputs, targets=targets)
        backward(1.0)
    return t.last, model


def planted(trace, kind, name, array):
    """The trace with another array at one place."""
    other = Call(None)
    other.records = {path: Record(r.value, r.gradient) for path, r in trace.items()}
    other.backward, other.gradients = trace.backward, parameter_gradients(trace)
    if kind == "parameter":
        other.gradients[name] = array
    elif kind == "forward":
        other.records[name].value = array
    else:
        other.records[name].gradient = array
    return other


def places(trace, kind):
    return {"forward": list(trace), "backward": trace.backward, "parameter": list(parameter_gradients(trace))}[kind]


def site(case, kind, name, theirs=None):
    trace, model = ours(case)
    made = Site(model, trace, kind, name, np.zeros(()), 0.0)
    theirs = made.own() if theirs is None else theirs
    return Site(model, trace, kind, name, theirs, 1e-13 * max(np.abs(made.own()).max(), 1e-3))


def candidates(alternative):
    """(case, place, array) where the alternative is not what ours computes."""
    for case in CASES:
        for name in places(ours(case)[0], alternative.kind):
            if alternative.places.match(name):
                here = site(case, alternative.kind, name)
                try:
                    given = alternative.f(here)
                    for _, y in [("", np.asarray(given))] if isinstance(given, (np.ndarray, np.generic)) else given:
                        if y.shape == here.theirs.shape and np.isfinite(y).all() and here.distance(y) > 1e5 * here.allowed:
                            yield case, name, y
                            break
                except NotHere:
                    continue


# These look at theirs, so there is nothing to plant without it.
ASKS = {
    "another matrix": lambda here: here.own() @ np.diag(np.linspace(0.5, 2, here.theirs.shape[-1])),
    "no gradient of one row": lambda here: (
        here.own() * (np.arange(len(here.theirs)) != here.trace.inputs["input_ids"][0, 0])[:, None]
    ),
}
ASKED = {
    "another matrix": ("llama, untied", "layers.1.attention.q"),
    "no gradient of one row": ("llama, untied", "model.embed_tokens.weight"),
}


def found(case, kind, name, array):
    """The explanation of this array at one place; test_compare.py tests that it is the first that differs."""
    (trace, model), here = ours(case), site(case, kind, name)
    row = Difference(kind, name, array.shape, 1.0, 1.0, 2.0, here.allowed)
    return explanation(Comparison([row], [], ours=trace, theirs=planted(trace, kind, name, array)), model)


@pytest.mark.parametrize("alternative", ALTERNATIVES, ids=lambda a: f"{a.kind}-{a.name}")
def test_every_alternative_is_named(alternative):
    if alternative.name in ASKED:
        case, name = ASKED[alternative.name]
        y = ASKS[alternative.name](site(case, alternative.kind, name))
    else:
        case, name, y = next(candidates(alternative))
    why = found(case, alternative.kind, name, y)
    assert why is not None, f"{case}, {name}: not found"
    assert alternative.name in (why.name, *why.others), f"{case}, {name}: {why}"
    assert why.where.endswith(name) and alternative.sentence.endswith(".")


UNKNOWN = ["gpt2", "llama", "mistral", "qwen2", "bert", "albert", "deberta", "deberta-v2", "xlnet"]


@pytest.mark.parametrize("family", UNKNOWN)
def test_an_unknown_error_gets_no_name(family):
    """A small error of every number, at some places.  Of a trace of each kind of model; all places were tried by hand."""
    trace, _ = ours(family)
    rng = np.random.default_rng(0)
    every = [(kind, name) for kind in ("forward", "backward", "parameter") for name in places(trace, kind)]
    for n in rng.choice(len(every), 10, replace=False):
        kind, name = every[n]
        own = site(family, kind, name).own()
        scale = max(np.abs(own).max(), 1e-3)  # a key bias has no gradient
        why = found(family, kind, name, own + 1e-3 * scale * rng.normal(size=own.shape))
        assert why is None, f"{name}: {why}"


def test_what_rounding_nearly_explains_gets_no_name():
    """Where a difference is hardly more than rounding, half of it is within rounding: that explains nothing."""
    own = site("llama", "forward", "norm").own()
    for size, matches in ((1.5, False), (100.0, True)):
        theirs = own.copy()
        theirs[0, 0, 0] += size * 1e-13 * np.abs(own).max()
        y = theirs.copy()
        y[0, 0, 0] -= 0.5e-13 * np.abs(own).max()
        assert site("llama", "forward", "norm", theirs).matches(y) is matches
