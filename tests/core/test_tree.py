"""Trees of arrays: flatten, add, complete, tree_map, unbroadcast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws import PART, equal
from tinyplm import core


def test_flatten_and_unflatten_are_inverse():
    tree = {"a": np.zeros(2), "b": [{"c": np.ones(1)}, {"c": np.full(3, 2.0)}]}
    flat = core.flatten(tree)
    assert list(flat) == ["a", "b.0.c", "b.1.c"]
    assert core.flatten(core.unflatten(flat, tree)).keys() == flat.keys()
    assert core.flatten({"W": (2, 3), "b": [(4,)]}) == {"W": (2, 3), "b.0": (4,)}  # shapes are leaves


def test_add_takes_missing_parts_as_zero():
    a = {"x": np.ones(2), "y": None}
    b = {"y": np.full(2, 3.0), "z": [None, np.ones(1)]}
    total = core.add(a, b)
    assert [total["x"][0], total["y"][0], total["z"][1][0]] == [1, 3, 1] and total["z"][0] is None
    assert a["x"][0] == 1, "add wrote into its argument"
    with pytest.raises(ValueError, match="add: expected lists of equal length, got a list of 1 parts and a list of 2 parts"):
        core.add([np.ones(1)], [None, None])
    with pytest.raises(ValueError, match="^add: expected trees of arrays, got 'a'"):
        core.add({"x": "a"}, {"x": "b"})


def test_complete_fills_with_zeros():
    like = {"a": np.ones((2, 2)), "b": [np.ones(3), np.ones(1)]}
    full = core.complete({"b": [None, np.full(1, 5.0)]}, like)
    assert not full["a"].any() and not full["b"][0].any() and full["b"][1][0] == 5
    assert equal(core.complete({"a": like["a"]}, like), {"a": like["a"], "b": [np.zeros(3), np.zeros(1)]})
    for wrong in ([np.ones((2, 2)), None], {"b": {"0": np.ones(3)}}, {"a": [np.ones((2, 2))]}):
        with pytest.raises(ValueError, match="^complete: expected a part of "):
            core.complete(wrong, like)


@given(shape=st.lists(st.integers(1, 3), min_size=1, max_size=3), lead=st.integers(0, 2), seed=st.integers(0, 99))
def test_unbroadcast_is_the_transpose_of_broadcasting(shape, lead, seed):
    rng = np.random.default_rng(seed)
    full = tuple(rng.integers(1, 4, lead)) + tuple(n if n > 1 else int(rng.integers(1, 4)) for n in shape)
    x, g = rng.normal(size=shape), rng.normal(size=full)
    assert np.isclose((np.broadcast_to(x, full) * g).sum(), (x * core.unbroadcast(g, tuple(shape))).sum(), rtol=PART)


def test_unbroadcast_of_half_precision_does_not_stop_at_2048():
    assert core.unbroadcast(np.ones((4096, 2), dtype=np.float16), (1, 2)).tolist() == [[4096, 4096]]


def test_tree_map_takes_trees_of_one_structure():
    assert core.tree_map(lambda a, b: a + b, {"a": 1, "b": [2, None]}, {"b": [3, 4], "a": 5}) == {"a": 6, "b": [5, None]}
    for tree, other in (({"a": 1}, {"b": 1}), ([1, 2], [1]), ({"a": [1]}, {"a": {"0": 1}})):
        with pytest.raises(ValueError, match="^tree_map: expected equal structures, got "):
            core.tree_map(lambda a, b: a, tree, other)


@pytest.mark.parametrize(("full", "shape"), [((2, 3), (2,)), ((3,), (1, 3)), ((1, 3), (2, 3))])
def test_unbroadcast_refuses_what_broadcasting_cannot_give(full, shape):
    with pytest.raises(ValueError, match="^unbroadcast: expected a gradient that broadcasting from shape"):
        core.unbroadcast(np.ones(full), shape)
