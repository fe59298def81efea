"""The cache of layers with windows: a buffer of each gives what its window needs, and never grows.

The keys here are the numbers of their places, so that an output shows which places it holds.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.laws import MODEL, equal, leaves, relative_error
from tests.support.families import FAMILIES, tiny
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.core import flatten
from tinyplm.layers.cache import Cache, extend, layer_cache, roll
from tinyplm.layers.cache_size import rolling_places

on_devices = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
K, E = 2, 3
windows_of_layers = st.lists(st.none() | st.integers(1, 30), min_size=1, max_size=4)


def sizes(windows, device="cpu", B=2, capacity=200):
    xp = array_module(to_device(np.ones(1), device))
    return {"layers": len(windows), "batch": B, "kv_heads": K, "capacity": capacity, "width": E, "dtype": "float64",
            "windows": tuple(windows), "xp": xp}  # fmt: skip


def called(cache, x):
    """(the keys of each layer, the cache after): what a model's call with the keys x (B, K, T, E) does with a cache."""
    cache.begin()
    keys = []
    for index in range(len(cache.layers)):
        buffers, start, window = layer_cache(cache, index)
        for name, y in (("v", -x), ("k", x)):
            options = {"buffer": buffers[name], "start": start}
            y, _ = extend(y, **options) if window is None else roll(y, **options, window=window)
        keys.append(to_host(y))
    return keys, cache.advanced(x.shape[2])


class Model:
    """A cache beside the list of all places it was given, (B, K, length, E)."""

    def __init__(self, windows, device, capacity=200):
        self.windows, self.device = windows, device
        self.cache = Cache.empty(**sizes(windows, device, capacity=capacity))
        self.places = np.zeros((2, K, 0, E))
        self.next = 1.0

    def call(self, T):
        B = self.places.shape[0]
        x = self.next + np.arange(B * K * T * E, dtype=np.float64).reshape(B, K, T, E)
        self.next += x.size
        length = self.places.shape[2]
        self.places = np.concatenate([self.places, x], axis=2)
        seen = [self.cache.seen(i) for i in range(len(self.windows))]
        keys, self.cache = called(self.cache, to_device(x, self.device))
        for y, window, earlier in zip(keys, self.windows, seen, strict=True):
            rolling = window is not None and rolling_places(window) < self.cache.capacity
            first = max(0, length - (window - 1)) if rolling else 0
            assert np.array_equal(y, self.places[:, :, first:])
            assert earlier == length - first

    def cut(self, length):
        self.cache = self.cache.cut(length)
        self.places = self.places[:, :, :length]

    def take(self, rows):
        self.cache, self.places = self.cache.take(to_device(np.array(rows), self.device)), self.places[rows]

    def reorder(self, rows, told):
        """told: with the number of first places that sample i and sample rows[i] share, where one is a copy of the other."""
        alike = (self.places[rows] == self.places).all(axis=(1, 3))
        shared = np.where(alike.all(axis=1), alike.shape[1], alike.argmin(axis=1)) if alike.size else [0] * len(rows)
        self.cache, self.places = self.cache.reordered(rows, shared if told else None), self.places[rows]


def places_of(windows, capacity):
    return [capacity if w is None else min(capacity, rolling_places(w)) for w in windows]


def test_what_samples_share_may_be_dropped_already(device):
    """Two samples with the same first 3 places, all of them or some dropped when one becomes the other."""
    for more in (3, 20, 40):
        model = Model([5, None, 30], device)
        model.call(3)
        model.reorder([1, 1], told=True)
        for T in (2, more, 1):
            model.call(T)
        model.reorder([0, 0], told=True)
        model.call(1)


# -------------------------------------------------------------------------------------------------------------- one layer


@on_devices
@given(window=st.integers(1, 40), pieces=st.lists(st.integers(1, 60), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_roll_gives_the_window_and_what_is_new(device, window, pieces, seed):
    """Pieces shorter and longer than the buffer: y ends with x, dx are the last places of dy."""
    rng = np.random.default_rng(seed)
    model = Model([window], device, capacity=1000)
    for T in pieces:
        model.call(T)
    buffers, start, rolling = layer_cache(model.cache, 0)
    assert rolling == window and start <= rolling_places(window)
    x = rng.normal(size=(2, K, T, E))
    y, backward = roll(to_device(x, device), buffer=buffers["k"], start=start, window=window)
    assert np.array_equal(to_host(y)[:, :, -T:], x)
    dy = rng.normal(size=y.shape)
    assert np.array_equal(to_host(backward(to_device(dy, device))), dy[:, :, -T:])


@on_devices
@given(windows=windows_of_layers, pieces=st.lists(st.integers(1, 50), max_size=12))
def test_memory_stays_at_the_window(device, windows, pieces):
    """2 B K E numbers of 8 bytes for each place of a buffer, however many places have gone through it."""
    model = Model(windows, device, capacity=1000)
    size = 2 * 2 * K * E * 8 * sum(places_of(windows, 1000))
    assert model.cache.nbytes == size
    for T in pieces:
        model.call(T)
    assert model.cache.nbytes == size
    shapes = [{name: a.shape for name, a in layer.items()} for layer in model.cache.layers]
    assert shapes == [dict.fromkeys("kv", (2, K, places, E)) for places in places_of(windows, 1000)]


@pytest.mark.parametrize("window", [*range(1, 20), 64, 100, 4096])
def test_a_buffer_has_at_most_a_quarter_more_than_it_needs_or_sixteen_places(window):
    assert window - 1 + 16 <= rolling_places(window) <= max(window + 15, 1.25 * window)


def test_a_window_as_long_as_the_capacity_does_not_roll():
    for capacity in (rolling_places(5), rolling_places(5) + 1):
        cache = Cache.empty(**sizes([5, None], capacity=capacity))
        assert cache.windows == (5 if capacity > rolling_places(5) else None, None)


# -------------------------------------------------------------------------------------------------------- the whole cache


@st.composite
def histories(draw):
    """Calls, cuts back (as a share of what is filled), copies of samples, other orders, and more room."""
    call = st.tuples(st.just("call"), st.integers(1, 45))
    cut = st.tuples(st.just("cut"), st.floats(0, 1))
    take = st.tuples(st.just("take"), st.lists(st.integers(0, 1), min_size=1, max_size=3))
    grow = st.tuples(st.just("grow"), st.integers(200, 400))
    reorder = st.tuples(st.sampled_from(["reorder", "reorder, told"]), st.lists(st.integers(0, 2), min_size=3, max_size=3))
    return draw(windows_of_layers), draw(st.lists(call | call | cut | take | grow | reorder, max_size=12))


@on_devices
@given(history=histories())
def test_any_history_gives_the_keys_of_the_places_it_kept(device, history):
    windows, steps = history
    model = Model(windows, device)
    longest, rolling = 0, [w for w in windows if w is not None and rolling_places(w) < 200]
    for step, value in [*steps, ("call", 1)]:
        length = model.places.shape[2]
        if step == "call" and length + value <= model.cache.capacity:
            model.call(value)
            longest = max(longest, length + value)
        elif step == "take":
            rows = [row % len(model.places) for row in value]
            model.take(rows)
        elif step.startswith("reorder"):
            B = len(model.places)
            model.reorder([row % B for row in value[:B]], "told" in step)
        elif step == "grow":
            model.cache = model.cache.grown(value)
        elif step == "cut":
            cut = round(value * length)
            allowed = model.cache.can_cut(cut)
            if all(longest <= rolling_places(w) for w in rolling):
                assert allowed  # nothing has been dropped yet
            if allowed:
                model.cut(cut)
            else:
                with pytest.raises(ValueError, match=r"cache: length: expected at least \d+ with a window, got \d+") as error:
                    model.cache.cut(cut)
                least = int(str(error.value).split("at least ")[1].split()[0])
                assert cut < least <= length
                assert model.cache.can_cut(least) and not model.cache.can_cut(least - 1)
                assert all(model.cache.can_cut(n) for n in range(least, length + 1))
                model.cut(least)
        assert model.cache.length == model.places.shape[2] and model.cache.can_cut(model.cache.length)


@on_devices
@given(window=st.integers(1, 12), pieces=st.lists(st.integers(1, 20), min_size=1, max_size=4), rows=st.permutations([0, 1]))
def test_take_leaves_the_original_as_it_was(device, window, pieces, rows):
    model, twin = Model([window, None], device), Model([window, None], device)
    for T in pieces:
        model.call(T)
        twin.call(T)
    before = [a.copy() for a in to_host(leaves(model.cache.layers))]
    copied = model.cache.take(to_device(np.array(rows), device))
    assert copied.dropped == model.cache.dropped and copied.windows == model.cache.windows
    called(copied, to_device(np.full((2, K, 30, E), -7.0), device))
    assert equal(to_host(leaves(model.cache.layers)), before)
    for T in pieces:
        model.call(T)
        twin.call(T)
    assert equal(to_host(leaves(model.cache.layers)), to_host(leaves(twin.cache.layers)))


@settings(max_examples=25)
@given(window=st.integers(1, 12), pieces=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_grown_keeps_the_buffers_of_windows_and_makes_the_others_larger(window, pieces):
    model = Model([window, None], "cpu", capacity=sum(pieces) + rolling_places(window))
    for T in pieces:
        model.call(T)
    larger = model.cache.grown(model.cache.capacity + 50)
    assert [layer["k"].shape[2] for layer in larger.layers] == [rolling_places(window), model.cache.capacity + 50]
    assert (larger.dropped, larger.length) == (model.cache.dropped, model.cache.length)
    assert not any(np.shares_memory(a, b) for a, b in zip(leaves(larger.layers), leaves(model.cache.layers), strict=True))
    model.cache = larger
    model.call(60)


@given(window=st.integers(1, 12), pieces=st.lists(st.integers(1, 30), min_size=2, max_size=8))
def test_a_backward_holds_until_its_places_move(window, pieces):
    """A call's keys are views of the buffers: as long as none of them is refused, all are what they were."""
    cache, kept, next = Cache.empty(**sizes([window, None], capacity=300)), [], 0.0
    for T in pieces:
        x = next + np.arange(2 * K * T * E, dtype=np.float64).reshape(2, K, T, E)
        next += x.size
        cache.begin()
        buffers, start, rolling = layer_cache(cache, 0)
        y, _ = roll(x, buffer=buffers["k"], start=start, window=rolling)
        dropped, cache = cache.dropped, cache.advanced(T)
        kept.append((cache, y, y.copy()))
        moved = cache.dropped != dropped
        for earlier, view, copy in kept:
            if moved and earlier is not cache:
                with pytest.raises(ValueError, match="backward: expected this call's keys and values in the cache, got those"):
                    earlier.check_kept()
            else:
                assert np.array_equal(view, copy) or _refused(earlier)
        cache.check_kept()


def _refused(cache):
    try:
        cache.check_kept()
    except ValueError:
        return True
    return False


# ----------------------------------------------------------------------------------------------------------------- models

LENGTH = 60
MODELS = {
    "mistral": {"sliding_window": 3, "max_position_embeddings": LENGTH},
    "qwen2": {"max_position_embeddings": LENGTH},
    "qwen2_moe": {"max_position_embeddings": LENGTH},
    "gpt_oss": {"max_position_embeddings": LENGTH},
    "gemma2": {"max_position_embeddings": LENGTH},
    "gemma3_text": {"max_position_embeddings": LENGTH},
}
each_model = pytest.mark.parametrize("name", MODELS)


def filled(model, ids, mask, ends, cache):
    """The logits of pieces that end there, and the cache after them."""
    logits, start = [], 0
    for end in ends:
        outputs, _ = model(ids[:, start:end], attention_mask=mask[:, :end], cache=cache, grad=False)
        cache, start = outputs["cache"], end
        logits.append(to_host(outputs["logits"]))
    return np.concatenate(logits, axis=1), cache


@each_model
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, LENGTH - 1), max_size=12), padded=st.integers(0, 30))
def test_pieces_of_any_length_equal_the_whole_pass(device, name, cuts, padded):
    """With a window in some or all layers; one sample has padding on the left, longer than the window."""
    model = tiny(name, device=device, **MODELS[name])
    ids = np.random.default_rng(0).integers(0, 11, (2, LENGTH))
    mask = (np.arange(LENGTH) >= np.array([[0], [padded]])).astype(int)
    cache = model.empty_cache(2, LENGTH)
    assert any(cache.windows) and min(layer["k"].shape[2] for layer in cache.layers) < LENGTH
    found, cache = filled(model, ids, mask, sorted({*cuts, LENGTH}), cache)
    expected = to_host(model(ids, attention_mask=mask, grad=False)[0]["logits"])
    real = mask[..., None]
    assert cache.length == LENGTH and relative_error(found * real, expected * real) < MODEL


@each_model
@pytest.mark.parametrize("T", [1, 4, 30])
def test_gradients_with_a_rolling_cache_are_those_with_a_full_one(device, name, T):
    """T new tokens after places that have moved, or that move in this call."""
    model = tiny(name, device=device, **MODELS[name])
    ids = np.random.default_rng(0).integers(0, 11, (2, LENGTH))
    mask = (np.arange(LENGTH) >= np.array([[0], [9]])).astype(int)
    caches = model.empty_cache(2, LENGTH), Cache.empty(batch=2, capacity=LENGTH, dtype="float64", **model.config.cache_sizes,
                                               xp=array_module(to_device(ids, device)))  # fmt: skip
    results = []
    for cache in caches:
        _, cache = filled(model, ids, mask, (10, 20, LENGTH - T), cache)
        outputs, backward = model(ids[:, LENGTH - T :], attention_mask=mask, cache=cache)
        dlogits = np.random.default_rng(1).normal(size=outputs["logits"].shape)
        results.append((to_host(outputs["logits"]), flatten(to_host(backward({"logits": to_device(dlogits, device)})))))
    (logits, gradient), (expected, expected_gradient) = results
    assert caches[0].nbytes < caches[1].nbytes
    assert relative_error(logits, expected) < MODEL
    size = max(float(np.max(np.abs(a))) for a in expected_gradient.values())
    for path, a in gradient.items():
        assert np.max(np.abs(a - expected_gradient[path])) < MODEL * size, path


@each_model
def test_a_backward_is_refused_once_its_places_have_moved(name):
    model = tiny(name, **MODELS[name])
    ids = np.random.default_rng(0).integers(0, 11, (1, LENGTH))
    outputs, first = model(ids[:, :4], cache=model.empty_cache(1))
    ones = {"logits": np.ones_like(outputs["logits"])}
    expected = first(ones)
    outputs, _ = model(ids[:, 4:8], cache=outputs["cache"])
    assert equal(first(ones), expected)  # written after the first, none have moved
    outputs, last = model(ids[:, 8:40], cache=outputs["cache"])
    with pytest.raises(ValueError, match="backward: expected this call's keys and values in the cache, got those of a later"):
        first(ones)
    last({"logits": np.ones_like(outputs["logits"])})


@each_model
def test_checkpointing_is_refused_with_a_rolling_cache(name):
    """It would run the forward pass again, whose keys have moved."""
    model = tiny(name, **MODELS[name])
    ids = np.ones((1, 5), int)
    with pytest.raises(ValueError, match="checkpointing: expected 0 with a cache of windows, got "):
        model(ids, cache=model.empty_cache(1), checkpointing=1)
    model(ids, checkpointing=1)
    model(ids, cache=model.empty_cache(1, 8), checkpointing=1)  # too short to roll


def test_every_family_with_a_window_in_its_config_has_a_row():
    with_window = {name for name, family in FAMILIES.items() if "sliding_window" in vars(family.config)}
    same_code = {"qwen3": "qwen2", "phi3": "mistral", "mixtral": "mistral", "qwen3_moe": "mistral"}  # the same functions
    assert with_window == {*MODELS, *same_code}


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, buffer: roll(x, buffer=buffer, start=19, window=3), "roll: start: expected an integer from 0 to 18, got 19"),
        (lambda x, buffer: roll(x, buffer=buffer, start=-1, window=3), "roll: start: expected an integer from 0 to 18, got -1"),
        (lambda x, buffer: roll(x, buffer=buffer, start=0, window=0), "roll: window: expected an integer >= 1, got 0"),
        (lambda x, buffer: roll(x[:1], buffer=buffer, start=0, window=3), r"roll: buffer: expected .* \(1, 2, C, 3\)"),
        (lambda x, buffer: Cache.empty(**{**sizes([3, 4]), "windows": (3,)}), "cache: windows: expected one for each of 2 layer"),
        (lambda x, buffer: Cache.empty(**sizes([3, 0])), "cache: windows: expected None or an integer from 1 to "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(np.ones((2, K, 4, E)), np.zeros((2, K, 18, E)))
    assert "\n" not in str(error.value)
