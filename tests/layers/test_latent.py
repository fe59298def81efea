"""Latent attention beyond the laws: its two forms are one, with a cache or without; blocks, padding, widths."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import laws
from tests.laws import PART, relative_error
from tests.strategies import sizes
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.checks.cases.latent import latent_case
from tinyplm.checks.cases.rope import turned
from tinyplm.core import tree_map
from tinyplm.kernels import latent as kernel
from tinyplm.kernels.attention import attention as by_blocks
from tinyplm.kernels.block_attention import block_attention
from tinyplm.layers.cache import Cache, layer_cache
from tinyplm.layers.cache_size import numbers_per_token
from tinyplm.layers.latent import absorbed_attention, latent_attention
from tinyplm.layers.mask import Visible, causal_mask, decoder_mask, sliding_mask

on_devices = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
FORMS = {"expanded": latent_attention, "absorbed": absorbed_attention}
D, H, C, Q, E, R, E2 = 7, 3, 5, 4, 4, 2, 6
FREQUENCIES = np.array([0.3])


def parameters(seed=0, low_rank=True, **changes):
    query = {"Wdq": (D, Q), "q_norm": (Q,), "Wuq": (Q, H * (E + R))} if low_rank else {"Wq": (D, H * (E + R))}
    shapes = {"Wdkv": (D, C), "kv_norm": (C,), "Wkr": (D, R), "Wuk": (C, H * E), "Wuv": (C, H * E2), "Wo": (H * E2, D), **query}
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.7, shape) for name, shape in {**shapes, **changes}.items()}


def rotary(positions):
    return partial(turned, positions=np.asarray(positions), frequencies=FREQUENCIES, magnitude=1.0, interleaved=True)


def gradients_of(f, p, x, dy, **options):
    y, back = f(p, x, **options)
    dp, dx = back(dy)
    return to_host(y), {**to_host(dp), "x": to_host(dx)}


def same(found, expected, bound=PART):
    """Relative to the largest of all gradients: one may be zero."""
    size = max(np.max(np.abs(a), initial=0.0) for a in expected.values())
    for name, a in expected.items():
        assert np.max(np.abs(found[name] - a), initial=0.0) <= bound * size, name


# ------------------------------------------------------------------------------------------------------- without a cache


@on_devices
@given(s=sizes(), rate=st.sampled_from([0.0, 0.4]))
def test_both_forms_are_one(device, s, rate):
    """Values and gradients, with the same dropout; PART: of at most four successive sums of 64 terms."""
    case = latent_case(s)
    case.kwargs |= {"rate": rate, "key": np.arange(s.B, dtype=np.uint64) + s.seed}
    y, _ = laws.call(latent_attention, case, device)
    dy = laws.random_like(y, s.rng())
    p, x = laws.on_device(case.args, device)
    kwargs = {name: laws.on_device(value, device) for name, value in case.kwargs.items()}
    dy = laws.on_device(dy, device)
    expected, expected_gradients = gradients_of(latent_attention, p, x, dy, **kwargs)
    found, found_gradients = gradients_of(absorbed_attention, p, x, dy, **kwargs)
    assert relative_error(found, expected) < PART or np.max(np.abs(found - expected)) < PART
    same(found_gradients, expected_gradients)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [5, 11])
def test_by_blocks_of_queries(device, form, T):
    """Values are wider than keys; blocks of 2 to 4 queries, with padding, against the plain form."""
    p, x, dy = parameters(), *np.random.default_rng(1).normal(size=(2, 3, T, D))
    padding = np.arange(T) >= np.array([0, 2, T - 1])[:, None]
    mask = causal_mask(T) & padding[:, None, None]
    options = {"heads": H, "rotary": rotary(np.arange(T))}
    expected, expected_gradients = gradients_of(latent_attention, p, x, dy, mask=mask, **options)
    p, x, dy = (to_device(a, device) for a in (p, x, dy))
    xp = array_module(x)
    visible = Visible(T, T, causal=True, padding=to_device(padding, device), xp=xp)
    for block in (2, 3, 4):
        attend = partial(block_attention, block=block)
        y, gradients = gradients_of(FORMS[form], p, x, dy, mask=visible, attend=attend, **options)
        assert relative_error(y, expected) < PART
        same(gradients, expected_gradients)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("low_rank", [True, False])
def test_padding_and_later_places_have_no_influence(device, form, low_rank):
    """Exactly none, and they get exactly no gradient; a query that sees nothing gives bo."""
    T, seen = 6, np.array([[0, 0, 1, 1, 1, 1]], bool)
    p, x, other = parameters(low_rank=low_rank, bo=(D,)), *np.random.default_rng(2).normal(size=(2, 1, T, D))
    mask = to_device(causal_mask(T) & seen[:, None, None], device)
    device_p = to_device(p, device)
    other[:, 2:5] = x[:, 2:5]  # they differ in padding and in the last place
    options = {"heads": H, "rotary": rotary(np.arange(T)), "mask": mask}
    y, back = FORMS[form](device_p, to_device(x, device), **options)
    changed, _ = FORMS[form](device_p, to_device(other, device), **options)
    assert np.array_equal(to_host(y)[:, :5], to_host(changed)[:, :5])
    assert np.array_equal(to_host(y)[0, :2], np.stack([p["bo"]] * 2))
    dy = np.random.default_rng(3).normal(size=(1, T, D))
    dy[:, 5] = 0
    _, dx = back(to_device(dy, device))
    dx = to_host(dx)
    assert not dx[:, :2].any() and not dx[:, 5].any() and dx[:, 2:5].any(axis=-1).all()


@pytest.mark.parametrize("form", FORMS)
def test_without_rotary_part_and_with_a_scale(form):
    """scale is (E + R)^-0.5 unless given; without `rotary` order is known by the mask alone."""
    p, x = parameters(), np.random.default_rng(4).normal(size=(2, 4, D))
    y, _ = FORMS[form](p, x, heads=H)
    assert relative_error(FORMS[form](p, x, heads=H, scale=(E + R) ** -0.5)[0], y) < PART
    assert relative_error(FORMS[form](p, x, heads=H, scale=1.0)[0], y) > 1e-3
    order = [2, 0, 3, 1]
    assert relative_error(FORMS[form](p, x[:, order], heads=H)[0], y[:, order]) < PART


# ---------------------------------------------------------------------------------------------------------- with a cache


def empty(device, batch, capacity, window=None):
    xp = array_module(to_device(np.ones(1), device))
    sizes = {"layers": 1, "kv_heads": 1, "width": {"c": C, "k_r": R}}
    return Cache.empty(**sizes, batch=batch, capacity=capacity, dtype="float64", windows=(window,), xp=xp)


def in_pieces(f, p, x, positions, padding, cuts, cache, window=None):
    """y of one call for each span between the cuts, and the cache after."""
    pieces, edges = [], [0, *sorted(cuts), x.shape[1]]
    xp = array_module(x)
    for lo, hi in zip(edges, edges[1:]):
        cache.begin()
        S = cache.seen(0) + hi - lo
        mask = decoder_mask(hi - lo, S, padding[:, hi - S : hi], window=window, xp=xp)
        y, _ = f(p, x[:, lo:hi], heads=H, rotary=rotary(positions[:, lo:hi]), cache=layer_cache(cache, 0), mask=mask)
        pieces.append(to_host(y))
        cache = cache.advanced(hi - lo)
    return np.concatenate(pieces, axis=1), cache


@on_devices
@given(
    T=st.integers(1, 12),
    cuts=st.sets(st.integers(1, 11), max_size=6),
    padded=st.lists(st.integers(0, 5), min_size=2, max_size=2),
    low_rank=st.booleans(),
    seed=st.integers(0, 999),
)
def test_pieces_equal_the_whole(device, T, cuts, padded, low_rank, seed):
    """Prompts and single tokens in any order, left padding, and either form for each piece."""
    p, x = parameters(seed, low_rank), np.random.default_rng(seed).normal(size=(2, T, D))
    padding = np.arange(T) >= np.minimum(padded, T - 1)[:, None]
    positions = np.maximum(np.cumsum(padding, axis=1) - 1, 0)
    mask = causal_mask(T) & padding[:, None, None]
    expected, _ = latent_attention(p, x, heads=H, rotary=rotary(positions), mask=mask)
    cuts = {cut for cut in cuts if cut < T}
    device_p, device_x, seen = to_device(p, device), to_device(x, device), to_device(padding.astype(int), device)
    for f in (*(partial(form, attend=by_blocks) for form in FORMS.values()), kernel.latent_attention):
        y, cache = in_pieces(f, device_p, device_x, positions, seen, cuts, empty(device, 2, T))
        assert relative_error(y, expected) < PART
        assert cache.length == T
    assert cache.nbytes == 8 * 2 * T * (C + R) and numbers_per_token(**cache.sizes) == C + R


@pytest.mark.parametrize("form", FORMS)
def test_a_window_keeps_no_more_than_it_needs(device, form):
    """A buffer that rolls: 40 places through one for a window of 5."""
    T, window = 40, 5
    p, x = parameters(), np.random.default_rng(5).normal(size=(2, T, D))
    positions = np.broadcast_to(np.arange(T), (2, T))
    expected, _ = latent_attention(p, x, heads=H, rotary=rotary(positions), mask=sliding_mask(T, T, window=window))
    cache = empty(device, 2, T, window)
    assert cache.layers[0]["c"].shape[2] < T
    f, seen = partial(FORMS[form], attend=by_blocks), to_device(np.ones((2, T), int), device)
    y, _ = in_pieces(f, to_device(p, device), to_device(x, device), positions, seen, {7, 8, 9, 20, 21, 33}, cache, window)
    assert relative_error(y, expected) < PART


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 3])
def test_the_gradient_of_a_call_with_a_cache(device, form, T):
    """That of the new places, the earlier ones being constants: the whole pass where these come from other parameters.

    With c and k_r of the first places fixed, the gradient along d is that of the function by central differences.
    """
    start = 4
    p, x = parameters(), np.random.default_rng(6).normal(size=(2, start + T, D))
    positions, seen = np.broadcast_to(np.arange(start + T), x.shape[:2]), np.ones((2, start + T), int)
    _, filled = in_pieces(kernel.latent_attention, p, x[:, :start], positions, seen, (), empty("cpu", 2, start + T))
    rng = np.random.default_rng(7)
    dy = rng.normal(size=(2, T, D))
    mask = causal_mask(T, start + T)

    def call(f, p, x, place):
        buffers = tree_map(lambda a: to_device(a.copy(), place), filled.layers[0])
        turn = rotary(positions[:, start:])
        return f(p, x, heads=H, rotary=turn, cache=(buffers, start, None), mask=to_device(mask, place))

    y, back = call(FORMS[form], to_device(p, device), to_device(x[:, start:], device), device)
    dp, dx = to_host(list(back(to_device(dy, device))))
    gradient, at = {**dp, "x": dx}, {**p, "x": x[:, start:]}
    assert gradient.keys() == at.keys()

    def value(at):
        return (call(latent_attention, {n: at[n] for n in p}, at["x"], "cpu")[0] * dy).sum()

    h = laws.difference_rounding.__defaults__[0]
    noise = laws.difference_rounding(to_host(y) * dy, h)
    for name, a in at.items():
        d = rng.normal(size=a.shape)
        slope = (value({**at, name: a + h * d}) - value({**at, name: a - h * d})) / (2 * h)
        products = gradient[name] * d
        assert abs(slope - products.sum()) < 1e-7 * np.abs(products).sum() + noise, name


def test_the_kernel_absorbs_where_that_is_less_work():
    """One token after some: absorbed.  A prompt, or as many as before: expanded, and always without a cache."""
    p = parameters(Wdkv=(D, 40), kv_norm=(40,), Wuk=(40, H * E), Wuv=(40, H * E2))
    for T, start, expected in ((1, 20, True), (1, 1, True), (20, 0, False), (20, 20, False), (2, 60, True), (8, 32, False)):
        x, S = np.zeros((1, T, D)), start + T
        products = {"expanded": S * 40 * (E + E2) + T * S * (E + R + E2), "absorbed": T * 40 * (E + E2) + T * S * (80 + R)}
        cache = ({"c": np.zeros((1, 1, 99, 40)), "k_r": np.zeros((1, 1, 99, R))}, start, None)
        assert kernel.absorbs(p, x, heads=H, cache=cache) == (products["absorbed"] < products["expanded"]) == expected
    x = np.zeros((1, 1, D))
    assert not kernel.absorbs(p, x, heads=H, cache=({}, 80, 1))  # of a window of 1 no earlier place
    assert kernel.absorbs(p, x, heads=H, cache=({}, 80, 4))


def test_the_kernel_equals_the_plain_form(device):
    """With padding and dropout, values and gradients; 150 queries go by blocks."""
    T = 150
    p, x, dy = parameters(), *np.random.default_rng(8).normal(size=(2, 2, T, D))
    padding = np.arange(T) >= np.array([0, 40])[:, None]
    keys = np.arange(2, dtype=np.uint64)
    options = {"heads": H, "rotary": rotary(np.arange(T)), "rate": 0.3}
    mask = causal_mask(T) & padding[:, None, None]
    expected, expected_gradients = gradients_of(latent_attention, p, x, dy, mask=mask, key=keys, **options)
    p, x, dy = (to_device(a, device) for a in (p, x, dy))
    visible = Visible(T, T, causal=True, padding=to_device(padding, device), xp=array_module(x))
    y, gradients = gradients_of(kernel.latent_attention, p, x, dy, mask=visible, key=to_device(keys, device), **options)
    bound = laws.rounding(T, D, C, T)
    assert relative_error(y, expected) < bound
    same(gradients, expected_gradients, bound)


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("changes", "expected"), [
    ({"Wq": (D, H * (E + R))}, "p: expected either Wq, or Wdq, q_norm and Wuq"),
    ({"Wuq": (Q, H * (E + R) + 1)}, "heads: expected a divisor of Wuq's columns"),
    ({"Wuq": (Q, H * (E + R + 1))}, "Wuq: expected 3 x .4 . 2. columns"),
    ({"Wuk": (C, H * E + 1)}, "heads: expected a divisor of Wuk's columns"),
    ({"Wuk": (C, H, E)}, "Wuk: expected an array of two axes"),
    ({"Wuk": (C + 1, H * E)}, "Wuk: expected 5 rows, as Wdkv columns, got 6"),
    ({"Wuv": (1, H * E2)}, "Wuv: expected 5 rows"),
    ({"kv_norm": (1,)}, "rmsnorm: gamma"),
    ({"Wo": (H * E2 + 1, D)}, "linear"),
    ({"bdkv": (1,)}, "linear"),
])  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(form, changes, expected):
    """One line that names the parameter, and nothing is broadcast."""
    with pytest.raises(ValueError, match=expected) as error:
        FORMS[form](parameters(**changes), np.zeros((1, 2, D)), heads=H)
    assert "\n" not in str(error.value)


def test_a_cache_of_keys_and_values_is_refused():
    buffers = {name: np.zeros((1, H, 4, E)) for name in "kv"}
    for f in (latent_attention, absorbed_attention, kernel.latent_attention):
        with pytest.raises(ValueError, match="appended: name: expected one of the cache's, k, v, got 'c'"):
            f(parameters(), np.zeros((1, 1, D)), heads=H, cache=(buffers, 0, None))
        with pytest.raises(ValueError, match="cache: expected the buffers, the start and the window of one layer"):
            f(parameters(), np.zeros((1, 1, D)), heads=H, cache=7)
