"""Caches cut back by another length in each sample, and windows that keep some places for such cuts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.laws import MODEL, relative_error
from tests.layers.test_cache import each_family, in_pieces, model_of, whole
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.layers.cache import Cache, appended, layer_cache
from tinyplm.layers.cache_alignment import aligned
from tinyplm.layers.cache_size import rolling_places

KEPT = np.array([4, 6, 1])  # of six places of three samples, whose first 0, 3 and 0 are padding


@each_family
def test_samples_continue_from_their_own_ends(device, name):
    """As each text alone: cut to four, three and one tokens, moved to end together, then three more."""
    model, rng = model_of(name, device), np.random.default_rng(0)
    ids, new = rng.integers(0, 11, (3, 6)), rng.integers(0, 11, (3, 3))
    mask = np.ones((3, 6), dtype=int)
    mask[1, :3] = 0
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    cache = in_pieces(model, ids, mask, positions, cuts=(4,), cache=model.empty_cache(3))[1]
    cache = aligned(cache, KEPT.tolist(), 4)
    assert cache.length == 4
    texts = [ids[0, :4], ids[1, 3:], ids[2, :1]]
    after = np.array([[0] * (4 - len(text)) + [1] * (len(text) + 3) for text in texts])
    places = np.maximum(after.cumsum(axis=1) - 1, 0)[:, 4:]
    pieces, _ = in_pieces(model, new, after, places, cuts=(1,), cache=cache)
    for n, text in enumerate(texts):
        alone = whole(model, np.concatenate([text, new[n]])[None])
        assert relative_error(pieces["logits"][n], alone["logits"][0, len(text) :]) < MODEL


@pytest.mark.parametrize("spare", [0, 3, 40])
@pytest.mark.parametrize("window", [1, 3, 30])
def test_a_rolling_buffer_has_what_the_window_needs(device, window, spare):
    """Random appends and cuts of up to `spare` places for each sample, beside the places in plain lists."""
    rng = np.random.default_rng(window)
    sizes = {"layers": 1, "batch": 2, "kv_heads": 1, "capacity": 400, "width": 1, "windows": (window,), "spare": spare}
    cache = Cache.empty(**sizes, dtype="float64", xp=array_module(to_device(np.zeros(1), device)))
    assert cache.windows == (window,) and cache.layers[0]["k"].shape[2] == rolling_places(window) + spare
    texts, moves, leaves, marks = [[], []], 0, 0, iter(range(1, 10**6))
    for _ in range(120):
        T = int(rng.choice([1, 1, 2, 5, 50]))
        if cache.length + T > 400:
            break
        x = np.array([[next(marks) for _ in range(T)] for _ in texts], dtype=float)
        y, _ = appended(to_device(x[:, None, :, None], device), cache=layer_cache(cache, 0), name="k")
        for n, text in enumerate(texts):
            text.extend(x[n])
            seen = min(len(text), y.shape[2], window - 1 + T)  # of what it sees, its own places, not padding
            assert to_host(y)[n, 0, y.shape[2] - seen :, 0].tolist() == text[len(text) - seen :]
        assert y.shape[2] == min(cache.length, window - 1) + T
        cache = cache.advanced(T)
        if rng.random() < 0.3:  # the longer text leaves, so all that remain begin with padding
            n = int(len(texts[1]) < len(texts[0]))
            cache = cache.take(to_device(np.array([n, n]), device))
            texts, leaves = (
                [list(texts[n]), list(texts[n])],
                leaves + (cache.length > len(texts[n]) and any(cache.dropped.values())),
            )
        back = [int(k) for k in rng.integers(0, min(spare, T) + 1, 2)]
        kept = [max(1, len(text) - k) for text, k in zip(texts, back)]
        ends = [cache.length - (len(text) - k) for text, k in zip(texts, kept)]
        moves += len(set(ends)) > 1 and any(cache.dropped.values())
        cache = aligned(cache, ends, max(kept))
        for text, k in zip(texts, kept):
            del text[k:]
    assert bool(moves) == bool(leaves) == bool(spare), "samples move where places were dropped"


def test_only_samples_that_move_are_written():
    cache = dataclasses.replace(Cache.empty(layers=1, batch=2, kv_heads=1, capacity=5, width=1, dtype="float32"), length=4)
    for buffer in cache.layers[0].values():
        buffer[..., 0] = np.arange(10).reshape(2, 1, 5)
    k = cache.layers[0]["k"]
    moved = aligned(cache, [2, 3], 3)
    assert k[0, 0, :, 0].tolist() == [0, 0, 1, 3, 4] and k[1, 0, :, 0].tolist() == [5, 6, 7, 8, 9]
    assert moved.length == 3 and not cache.current and moved.current
    shifted = aligned(moved, [3, 3], 2)
    assert shifted.layers[0]["k"] is k and k[0, 0, :2, 0].tolist() == [0, 1] and k[1, 0, :2, 0].tolist() == [6, 7]


@pytest.mark.parametrize(
    ("ends", "length", "message"),
    [
        ([1], 1, r"cache: ends: expected 2 integers from 0 to 4, got \[1\]"),
        ([1, 5], 1, r"cache: ends: expected 2 integers from 0 to 4, got \[1, 5\]"),
        ([1, 2], 5, "cache: length: expected an integer from 0 to 4, got 5"),
        ("ab", 2, "cache: ends: expected 2 integers from 0 to 4, got 'ab'"),
    ],
)
def test_wrong_ends_are_refused(ends, length, message):
    cache = Cache.empty(layers=1, batch=2, kv_heads=1, capacity=5, width=1, dtype="float32").advanced(4)
    with pytest.raises(ValueError, match=f"^{message}$"):
        aligned(cache, ends, length)
    with pytest.raises(ValueError, match="^cache: expected a Cache, got None$"):
        aligned(None, [1, 1], 1)


def test_what_a_window_has_dropped_is_refused():
    cache = Cache.empty(layers=1, batch=2, kv_heads=1, capacity=90, width=1, dtype="float32", windows=(3,), spare=2).advanced(60)
    for ends in ([57, 60], [57, 57]):
        with pytest.raises(ValueError, match="^cache: (ends: expected ends that its windows still allow|length: .*), got 57$"):
            aligned(cache, ends, 57)
    assert aligned(cache, [58, 60], 59).length == 59
