"""Textbook families, with forward and backward written out in full, are bit-identical to the walk
with their `pieces`: both perform the same operations in the same order."""

from __future__ import annotations

from functools import partial
from types import ModuleType

import numpy as np
import pytest

from tests.laws import equal
from tests.support.families import FAMILIES, PADDING, batch, tiny
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.core import StackOptions, flatten, tree_map
from tinyplm.families import gpt2
from tinyplm.layers.attention_parts import join_projections
from tinyplm.layers.mask import packed_mask
from tinyplm.models import decoder

TEXTBOOKS = {"gpt2": gpt2}
POSITIONS = np.maximum(np.cumsum(PADDING, axis=1) - 1, 0)
DOCUMENTS = np.array([[0, 0, 1, 1, 1]] * 3)
LEFT = np.array([[1] * 5, [0] * 2 + [1] * 3, [0] * 4 + [1]])

CASES = {
    "ids": {},
    "padded": {"attention_mask": PADDING},
    "padded, positions of each sample": {"attention_mask": PADDING, "position_ids": POSITIONS},
    "packed": {"attention_mask": packed_mask(DOCUMENTS), "position_ids": POSITIONS},
    "embeddings": {"inputs_embeds": np.random.default_rng(2).normal(size=(3, 5, 6))},
    "dropout": {"key": random.sample_keys(5, np.arange(3)), "attention_mask": LEFT},
    "dropout, embeddings": {
        "key": random.sample_keys(5, np.arange(3)),
        "inputs_embeds": np.random.default_rng(2).normal(size=(3, 5, 6)),
    },
    "recomputed": {"stacking": StackOptions(checkpointing=1), "attention_mask": PADDING},
    "recomputed with dropout": {
        "stacking": StackOptions(checkpointing=2),
        "key": random.sample_keys(5, np.arange(3)),
    },
    "frozen": {"stacking": StackOptions(frozen=1)},
    "once": {"stacking": StackOptions(once=True)},
    "cache": {"cached": 3, "attention_mask": LEFT},
    "cache, dropout": {"cached": 1, "key": random.sample_keys(5, np.arange(3))},
}
each_case = pytest.mark.parametrize("case", CASES)


def variants():
    """Except the variants that change the head alone."""
    for name in TEXTBOOKS:
        for variant, changes in {"plain": {}, **FAMILIES[name].variants}.items():
            if changes.keys() != {"tie_word_embeddings"}:
                yield pytest.param(name, changes, id=f"{name}, {variant}")


each_variant = pytest.mark.parametrize(("name", "changes"), list(variants()))


def bodies(module: ModuleType):
    """The textbook body and the walk body."""
    return module.body, partial(decoder.body, module.pieces)


def run(body, model, p, *, cached=0, **inputs):
    """(hidden, backward, the cache buffers after the call)."""
    ids, _ = batch()
    if "inputs_embeds" not in inputs:
        inputs["input_ids"] = ids[:, cached:]
    inputs = {name: to_device(a, model.device) if hasattr(a, "shape") else a for name, a in inputs.items()}
    cache = None
    if cached:
        mask = inputs.get("attention_mask")
        early = {} if mask is None else {"attention_mask": mask[:, :cached]}
        cache = model(ids[:, :cached], cache=model.empty_cache(3, 5), grad=False, **early)[0]["cache"]
        cache.begin()
    hidden, backward = body(p, config=model.config, cache=cache, **inputs)
    return hidden, backward, None if cache is None else cache.layers


def assert_equal_bodies(name, model, p, **inputs):
    results = []
    for body in bodies(TEXTBOOKS[name]):
        hidden, backward, buffers = run(body, model, p, **inputs)
        dhidden = np.random.default_rng(1).normal(size=hidden.shape)
        gradients = backward(to_device(dhidden, model.device))
        results.append(to_host([hidden, list(gradients), buffers]))
    (hidden, (dp, dembeds), buffers), (hidden2, (dp2, dembeds2), buffers2) = results
    assert equal(hidden, hidden2) and equal(buffers, buffers2)
    assert list(flatten(dp)) == list(flatten(dp2)) and equal(dp, dp2)
    assert equal(dembeds, dembeds2) and (dembeds is None) == ("inputs_embeds" not in inputs)
    return hidden, dp


@each_case
@each_variant
def test_values_and_every_gradient(device, name, changes, case):
    model = tiny(name, device=device, **{**FAMILIES[name].dropout, **changes})
    assert_equal_bodies(name, model, model.params["body"], **CASES[case])


@each_variant
def test_in_float32_and_over_several_blocks_of_queries(name, changes):
    model = tiny(name, dtype="float32", **{**changes, FAMILIES[name].context: 300})
    ids = np.random.default_rng(0).integers(0, 11, (1, 300))
    results = []
    for body in bodies(TEXTBOOKS[name]):
        hidden, backward = body(model.params["body"], config=model.config, input_ids=ids)
        dhidden = np.random.default_rng(1).normal(size=hidden.shape).astype("float32")
        results.append([hidden, backward(dhidden)[0]])
    assert hidden.dtype == np.float32 and equal(results[0], results[1])


@pytest.mark.parametrize("name", TEXTBOOKS)
def test_layouts_for_decoding_and_prefixes(name):
    """Joined projections, and trained keys and values prepended to the others."""
    model = tiny(name)
    joined = tree_map(lambda a: a, model.params["body"])
    prefixed = tree_map(lambda a: a, model.params["body"])
    heads = model.config.cache_sizes["kv_heads"], 2, model.config.cache_sizes["width"]
    rng = np.random.default_rng(3)
    for layer, other in zip(joined["layers"], prefixed["layers"]):
        layer["attention"] = join_projections(layer["attention"])
        other["attention"] |= {"Pk": rng.normal(size=heads), "Pv": rng.normal(size=heads)}
    for p in (joined, prefixed):
        _, dp = assert_equal_bodies(name, model, p)
        assert flatten(dp).keys() == flatten(p).keys()


@pytest.mark.parametrize("name", TEXTBOOKS)
def test_parts_are_handed_on_as_soon_as_they_are_complete(name):
    model = tiny(name)
    handed = []
    for body in bodies(TEXTBOOKS[name]):
        parts: list = []
        options = StackOptions(on_gradient=lambda n, dp, parts=parts: parts.append((n, dp)))
        hidden, backward = body(model.params["body"], config=model.config, input_ids=batch()[0], stacking=options)
        backward(hidden)
        handed.append(parts)
    assert [n for n, _ in handed[0]] == [n for n, _ in handed[1]] == [1, 0]
    assert equal([dp for _, dp in handed[0]], [dp for _, dp in handed[1]])


@pytest.mark.parametrize("name", TEXTBOOKS)
def test_the_textbook_is_not_the_walk(name):
    """Otherwise the comparisons would prove nothing."""
    assert TEXTBOOKS[name].body.__module__ == TEXTBOOKS[name].__name__
