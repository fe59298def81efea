"""A cache of other names than k and v, each with a width of its own: everything it does, beside a plain list of the places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyplm.backend import array_module, to_device, to_host
from tinyplm.layers.cache import Cache, appended, layer_cache
from tinyplm.layers.cache_size import numbers_per_token, rolling_places

WIDTHS = {"c": 5, "k_r": 2}
SIZES = {"kv_heads": 1, "width": WIDTHS, "dtype": "float64"}
on_devices = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Beside:
    """A cache, and all places that each of its buffers was given, (B, 1, length, width)."""

    def __init__(self, windows, device, capacity):
        xp = array_module(to_device(np.ones(1), device))
        self.cache = Cache.empty(layers=len(windows), batch=2, capacity=capacity, windows=windows, xp=xp, **SIZES)
        self.windows, self.device, self.next = windows, device, 1.0
        self.places = {name: np.zeros((2, 1, 0, width)) for name, width in WIDTHS.items()}

    def call(self, T):
        self.cache.begin()
        for name, width in WIDTHS.items():
            B = self.places[name].shape[0]
            x = self.next + np.arange(B * T * width, dtype=np.float64).reshape(B, 1, T, width)
            self.next += x.size
            length = self.places[name].shape[2]
            self.places[name] = np.concatenate([self.places[name], x], axis=2)
            for index, window in enumerate(self.windows):
                y, back = appended(to_device(x, self.device), cache=layer_cache(self.cache, index), name=name)
                rolls = window is not None and rolling_places(window) < self.cache.capacity
                first = max(0, length - (window - 1)) if rolls else 0
                assert np.array_equal(to_host(y), self.places[name][:, :, first:])
                assert np.array_equal(to_host(back(y)), x)
        self.cache = self.cache.advanced(T)

    def change(self, rows):
        self.places = {name: a[rows] for name, a in self.places.items()}

    def cut(self, length):
        self.cache = self.cache.cut(length)
        self.places = {name: a[:, :, :length] for name, a in self.places.items()}


@on_devices
@given(
    windows=st.lists(st.none() | st.integers(1, 12), min_size=1, max_size=3),
    calls=st.lists(st.integers(1, 25), min_size=2, max_size=4),
    rows=st.lists(st.integers(0, 1), min_size=1, max_size=3),
    order=st.sampled_from([[0, 0], [1, 0], [1, 1], [0, 1]]),
)
def test_each_buffer_holds_its_places(device, windows, calls, rows, order):
    """Through calls, growth, another order, copies of samples, and a cut, with and without windows."""
    beside = Beside(tuple(windows), device, 1)
    for T in calls[:-1]:
        beside.cache = beside.cache.grown(beside.cache.length + T)
        beside.call(T)
    beside.cache = beside.cache.grown(beside.cache.length + 1).reordered(order)
    beside.change(order)
    beside.call(1)
    beside.cache = beside.cache.take(to_device(np.array(rows), device))
    beside.change(rows)
    beside.cache = beside.cache.grown(beside.cache.length + calls[-1] + 1)
    beside.call(calls[-1])
    if beside.cache.can_cut(beside.cache.length - 1):
        beside.cut(beside.cache.length - 1)
        beside.call(2)
    assert beside.cache.sizes == {"layers": len(windows), "kv_heads": 1, "width": WIDTHS}
    assert beside.cache.batch == len(rows) and beside.cache.dtype == np.float64


def test_numbers_per_token():
    """DeepSeek-V3's 61 layers keep 576 numbers each; with 128 heads' keys of 192 and values of 128 they would keep 40,960."""
    sizes = {"layers": 61, "kv_heads": 1, "width": {"c": 512, "k_r": 64}}
    assert numbers_per_token(**sizes) == 61 * 576
    assert numbers_per_token(layers=61, kv_heads=128, width={"k": 192, "v": 128}) == 61 * 40_960
    assert numbers_per_token(layers=2, kv_heads=3, width=4) == 2 * 2 * 3 * 4
    for sizes in ({"layers": 2, "kv_heads": 1, "width": WIDTHS}, {"layers": 1, "kv_heads": 3, "width": 4}):
        cache = Cache.empty(**sizes, batch=2, capacity=5, dtype="float32")
        assert cache.nbytes == 4 * 2 * 5 * numbers_per_token(**sizes) and cache.sizes == sizes
    assert Cache.empty(layers=1, kv_heads=1, width={"k": 4, "v": 4}, batch=1, capacity=1, dtype="f4").sizes["width"] == 4


@pytest.mark.parametrize("width", [{}, {1: 2}, {"c": 0}, {"c": 1.5}, {"c": None}, 0, "c", [4], None])
def test_other_widths_are_refused(width):
    with pytest.raises(ValueError, match="cache: width: expected "):
        Cache.empty(layers=1, batch=1, capacity=2, **{**SIZES, "width": width})


def test_a_buffer_that_the_cache_lacks_is_refused():
    cache = Cache.empty(layers=1, batch=1, capacity=2, **SIZES)
    with pytest.raises(ValueError, match="appended: name: expected one of the cache's, c, k_r, got 'k'"):
        appended(np.zeros((1, 1, 1, 5)), cache=layer_cache(cache, 0), name="k")
    with pytest.raises(ValueError, match="appended: cache: expected the buffers, the start and the window"):
        appended(np.zeros((1, 1, 1, 5)), cache=cache, name="c")
