"""A cache knows which call consumed it, which backwards lost their keys, and which model filled it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, equal, relative_error
from tests.layers.test_cache import LONGEST, each_family, in_pieces, model_of, sequences, whole
from tests.support.families import FAMILIES, KINDS
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten
from tinyplm.generation import Memory
from tinyplm.layers.cache import Cache
from tinyplm.tuning.adapters.prefix import prefix_of, with_prefix


@each_family
def test_a_consumed_cache_is_refused(device, name):
    """Reusing it would overwrite later entries; to continue, use the returned cache, and to go back, use cut."""
    model = model_of(name, device)
    ids, _, _ = sequences()
    new = model.empty_cache(3)
    _, old = in_pieces(model, ids[:, :6], cuts=(3,), cache=new)
    first, after = in_pieces(model, ids[:, 6:8], cuts=(1,), cache=old)
    rows = to_device(np.arange(3), device)
    for stale in (new, old):
        for use in (lambda c: model(ids[:, :1], cache=c), lambda c: model.inputs(ids[:, :1], cache=c), lambda c: c.cut(0),
                    lambda c: c.take(rows), lambda c: c.grown(LONGEST + 1), lambda c: c.reordered([0, 0, 1])):  # fmt: skip
            with pytest.raises(ValueError, match="cache: expected the one that the last call returned"):
                use(stale)
    assert (new.length, old.length, after.length) == (0, 6, 8)
    last, _ = in_pieces(model, ids[:, 8:], cuts=(), cache=after)
    with pytest.raises(ValueError, match="consumed"):
        model.last_logits({"input_ids": to_device(ids[:, 8:], device), "cache": after})
    assert relative_error(np.concatenate([first["logits"], last["logits"]], axis=1), whole(model, ids)["logits"][:, 6:]) < MODEL


@each_family
def test_a_backward_whose_keys_were_overwritten_is_refused(device, name):
    """It works while the keys exist: after later calls, alongside copies, and until a call starts from a truncated cache."""
    model = model_of(name, device)
    ids, _, _ = sequences()
    ones = {"logits": to_device(np.ones((3, 4, 11)), device)}
    first, first_back = model(ids[:, :4], cache=model.empty_cache(3))
    copy = first["cache"].take(to_device(np.arange(3), device))
    second, second_back = model(ids[:, 4:8], cache=first["cache"])
    expected = [to_host(back(ones)) for back in (first_back, second_back)]
    model(10 - ids[:, 4:8], cache=copy)  # in its own buffers
    third = model(ids[:, 8:], cache=second["cache"])[0]["cache"]
    back_to_six = third.cut(6)
    assert equal([to_host(back(ones)) for back in (first_back, second_back)], expected)
    model(10 - ids[:, 6:8], cache=back_to_six)
    assert equal(to_host(first_back(ones)), expected[0])
    with pytest.raises(ValueError, match="backward: expected this call's keys and values in the cache"):
        second_back(ones)


def test_a_reordered_cache_consumes_and_overwrites_the_one_before():
    model = model_of("gpt2", "cpu")
    outputs, back = model(sequences()[0][:, :4], cache=model.empty_cache(3))
    other = outputs["cache"].reordered([0, 0, 2])
    for use in (lambda: back({"logits": np.ones((3, 4, 11))}), lambda: outputs["cache"].cut(2)):
        with pytest.raises(ValueError, match="(keys and values in the cache|the one that the last call returned), got"):
            use()
    assert other.cut(2).length == 2


@pytest.mark.parametrize("place", [10, 9, 8, 6, 4, 3, 0])
def test_a_cut_refuses_the_backward_of_what_it_overwrites_and_of_nothing_else(place):
    """Calls end at positions 4, 8 and 10; those that end after the cut are lost once a new call starts from it."""
    model = model_of("gpt2", "cpu")
    ids, _, _ = sequences()
    cache, backs = model.empty_cache(3), {}
    for start, end in ((0, 4), (4, 8), (8, 10)):
        outputs, back = model(ids[:, start:end], cache=cache)
        cache, backs[end] = outputs["cache"], (back, {"hidden": np.ones_like(outputs["hidden"])})
    cache = cache.cut(place)
    expected = {end: back(ones) for end, (back, ones) in backs.items()}
    for _ in range(2 if place < 10 else 0):
        outputs, new = model(ids[:, :1], cache=cache)
        assert flatten(new({"hidden": np.ones_like(outputs["hidden"])}))  # its own keys still exist
        cache = outputs["cache"].cut(place)
    for end, (back, ones) in backs.items():
        if end > place:
            with pytest.raises(ValueError, match="backward: expected this call's keys and values in the cache"):
                back(ones)
        else:
            assert equal(back(ones), expected[end])


@each_family
def test_cut_goes_back(device, name):
    model = model_of(name, device)
    ids, _, _ = sequences()
    other = np.concatenate([ids[:, :3], 10 - ids[:, 3:]], axis=1)
    _, cache = in_pieces(model, ids, cuts=(4,), cache=model.empty_cache(3))
    pieces, again = in_pieces(model, other[:, 3:], cuts=(), cache=cache.cut(3))
    assert (cache.length, again.length) == (10, 10)
    assert relative_error(pieces["logits"], whole(model, other)["logits"][:, 3:]) < MODEL
    pieces, _ = in_pieces(model, other, cuts=(), cache=again.cut(0))
    assert relative_error(pieces, whole(model, other)) < MODEL


@pytest.mark.parametrize("name", [*KINDS, "llama, one kv head"])
@pytest.mark.parametrize("other", [{"layers": 3}, {"layers": 1}, {"kv_heads": 5}, {"width": 5}, {"dtype": "float32"}], ids=str)
def test_a_cache_of_another_model_is_refused(name, other):
    """NumPy silently accepts many mismatches: extra layers, one key head broadcast over five, float64 rounded to float32."""
    model = model_of(name)
    sizes = {"batch": 2, "capacity": 6, "dtype": "float64", **model.config.cache_sizes}
    model(np.ones((2, 3), int), cache=Cache.empty(**sizes))
    with pytest.raises(ValueError, match="cache") as error:
        model(np.ones((2, 3), int), cache=Cache.empty(**{**sizes, **other}))
    assert "\n" not in str(error.value)


def test_what_another_model_has_filled_is_refused():
    """Sizes and dtype may match; the keys and values do not."""
    model, other = (tinyplm.create("gpt2", FAMILIES["gpt2"].config, key=key) for key in (1, 2))
    ids = [[1, 2, 3]]
    filled = model(ids, cache=model.empty_cache(1), grad=False)[0]["cache"]
    for cache in (filled, filled.take(np.array([0])), filled.cut(2), copy.deepcopy(filled)):
        with pytest.raises(ValueError, match="cache: expected one that this model filled, got another model's"):
            other([[4]], cache=cache, grad=False)
    theta = prefix_of(model, rows=1)["theta"]
    with pytest.raises(ValueError, match="cache: expected one that this model filled"):
        with_prefix(model, theta)([[4]], cache=filled, grad=False)
    expected = model([[1, 2, 3, 4]], grad=False)[0]["logits"][:, 3:]
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.for_decoding(), model.to("cpu")):
        found = same([[4]], cache=filled.take(np.array([0])), grad=False)[0]["logits"]
        assert relative_error(found, expected) < 1e-5
    assert other(ids, cache=model.empty_cache(1), grad=False)[0]["cache"].origin == other.origin  # was empty

    memory = Memory()
    tinyplm.generate(model, [1, 2, 3], max_new_tokens=2, memory=memory)
    with pytest.raises(ValueError, match="memory: expected one that this model filled"):
        tinyplm.generate(other, [1, 2, 3, 4], max_new_tokens=1, memory=memory)
    tinyplm.generate(model.for_decoding(), [1, 2, 3, 4], max_new_tokens=1, memory=memory)
