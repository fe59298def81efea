"""Attention to another sequence in two steps: what holds beyond the laws, and the kernel's options."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.laws import PART, Case, Sizes, apart, call, equal, relative_error
from tests.strategies import sizes
from tinyplm import random
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.checks.cases.attention import attention_parameters
from tinyplm.core import flatten
from tinyplm.kernels import attention as kernels
from tinyplm.layers.attention import multi_head_attention
from tinyplm.layers.cross_attention import attend_to, cross_attention, keys_and_values
from tinyplm.layers.mask import Visible

SIZES = Sizes(B=2, T=5, S=4, D=6, K=2, G=2, E=3, F=5, V=2, seed=0, flags=(True, True, True))


def case(s):
    """(p, x, context, dy)."""
    rng = s.rng()
    p = attention_parameters(s, rng, s.F, s.flags[0])
    x, dy = rng.normal(size=(2, s.B, s.T, s.D))
    return p, x, rng.normal(size=(s.B, s.S, s.F)), dy


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(s=sizes())
def test_the_two_steps_are_multi_head_attention_bit_for_bit(device, s):
    """With padding, scale and dropout; dp has the names of p in their order."""
    p, x, context, dy = case(s)
    key = random.sample_keys(s.seed, np.arange(s.B)) if s.flags[2] else None
    options = {"heads": s.H, "kv_heads": s.K, "scale": 0.6 if s.flags[1] else None, "rate": 0.3, "key": key,
               "mask": s.rng().random((s.B, 1, 1, s.S)) < 0.6}  # fmt: skip
    given_case, dy = Case([p, x, context], options), to_device(dy, device)
    y, back = call(cross_attention, given_case, device)
    expected, expected_back = call(multi_head_attention, given_case, device)
    assert equal(to_host(y), to_host(expected))
    found, wanted = back(dy), expected_back(dy)[:3]
    assert list(flatten(found[0])) == list(flatten(p))
    assert equal(to_host(list(found)), to_host(list(wanted)))


@pytest.mark.parametrize("samples", [2, 3])
def test_samples_of_one_source_share_its_keys(samples):
    """As if each sample had a copy of them: the gradient of the shared ones is the sum of the copies'."""
    rng = SIZES.rng()
    p, _, context, _ = case(SIZES)
    k, v = keys_and_values(p, context, heads=SIZES.K)[0]
    x, dy = rng.normal(size=(2, SIZES.B * samples, SIZES.T, SIZES.D))
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 0]], bool)[:, None, None]
    own = {name: p[name] for name in ("Wq", "bq", "Wo", "bo")}
    y, back = attend_to(own, x, k, v, heads=SIZES.H, mask=mask)
    many = [np.repeat(a, samples, axis=0) for a in (k, v, mask)]
    expected, expected_back = attend_to(own, x, *many[:2], heads=SIZES.H, mask=many[2])
    assert relative_error(y, expected) < PART
    dp, dx, *dshared = back(dy)
    dp2, dx2, *dcopies = expected_back(dy)
    summed = [a.reshape(SIZES.B, samples, *a.shape[1:]).sum(axis=1) for a in dcopies]
    assert apart([dp, dx, *dshared], [dp2, dx2, *summed]) < PART


def test_samples_that_do_not_divide_by_the_sources_are_refused():
    p, x, context, _ = case(SIZES)
    k, v = keys_and_values(p, context, heads=SIZES.K)[0]
    with pytest.raises(ValueError, match="^attend_to: x: expected a multiple of the 2 samples of k, got 3$"):
        attend_to(p, np.ones((3, *x.shape[1:])), k, v, heads=SIZES.H)


@pytest.mark.parametrize("block", [128, 2])
def test_the_kernel_is_the_plain_form(monkeypatch, device, block):
    """With a description of the mask, also by blocks of queries; with a memory in place of the context."""
    monkeypatch.setattr(kernels, "BLOCK", block)
    s = SIZES
    p, x, context, dy = case(Sizes(**{**vars(s), "K": s.H, "G": 1}))
    padding = np.array([[1, 1, 1, 1], [0, 1, 1, 0]], bool)
    p, x, context, dy, padding, key = to_device([p, x, context, dy, padding, random.sample_keys(1, np.arange(s.B))], device)
    options = {"heads": s.H, "scale": 0.4, "rate": 0.3, "key": key}
    mask = Visible(s.T, s.S, padding=padding, xp=array_module(x))
    expected, expected_back = cross_attention(p, x, context, **options, mask=mask.array)
    y, back = kernels.cross_attention(p, x, context, **options, mask=mask)
    assert relative_error(to_host(y), to_host(expected)) < PART
    assert apart(to_host(list(back(dy))), to_host(list(expected_back(dy)))) < PART
    memory, _ = keys_and_values(p, context, heads=s.H)
    again, memory_back = kernels.cross_attention(p, x, **options, mask=mask, memory=memory)
    assert equal(to_host(again), to_host(y))
    dp, dx, none = memory_back(dy)
    assert none is None and equal(to_host(dx), to_host(back(dy)[1]))
    assert equal(to_host(dp), to_host({name: back(dy)[0][name] for name in dp})) and not {"Wk", "Wv", "bk", "bv"} & dp.keys()
