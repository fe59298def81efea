"""Rotary embeddings beyond the laws: frequencies against the reference, what a rotation preserves, far positions in float32."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import reference.layers.rope as ref
from tests.laws import FEW, PART, rounding
from tinyplm.backend import to_device, to_host
from tinyplm.checks.cases.rope import rope_at
from tinyplm.layers import rope_scaling as ours
from tinyplm.layers.rope import rope

on_devices = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])

widths = st.integers(1, 64).map(lambda pairs: 2 * pairs)
wide = st.integers(2, 64).map(lambda pairs: 2 * pairs)
bases = st.floats(1.5, 1e7)
factors = st.floats(1.0, 64.0)
lengths = st.integers(1, 200_000)


def close(a, b):
    """Each to a relative 1e-12, not relative to the largest: far positions amplify the error of every frequency equally."""
    return np.shape(a) == np.shape(b) and np.max(np.abs(a / b - 1)) < PART


# ------------------------------------------------------------------------------------ frequencies against the reference


@given(width=widths, base=bases, factor=factors)
def test_plain_and_linear_frequencies_equal_the_reference(width, base, factor):
    assert close(ours.rope_frequencies(width, base=base), ref.frequencies(width, base=base))
    stretch = {"base": base, "factor": factor}
    assert close(ours.linear_frequencies(width, **stretch), ref.linear_frequencies(width, **stretch))


@given(width=wide, base=bases, factor=factors, original=lengths, length=lengths)
def test_dynamic_frequencies_equal_the_reference(width, base, factor, original, length):
    given_all = {"base": base, "factor": factor, "original": original, "length": length}
    assert close(ours.dynamic_frequencies(width, **given_all), ref.dynamic_frequencies(width, **given_all))


def place(width, base, original, beta):
    """The (real-valued) index of the frequency that makes beta turns within the original context."""
    return width * math.log(original / (2 * math.pi * beta)) / (2 * math.log(base))


betas = st.tuples(st.floats(0.01, 100.0), st.floats(0.01, 100.0)).map(sorted)


@settings(max_examples=300)
@given(width=widths, base=bases, factor=factors, original=lengths, betas=betas, truncate=st.booleans())
def test_yarn_frequencies_equal_the_reference(width, base, factor, original, betas, truncate):
    """Excludes the cases that rounding decides: a position within 1e-9 of an integer may be rounded either way, and nearly equal
    ends give a ramp so steep that the test would compare only where it lies."""
    ends = [place(width, base, original, beta) for beta in betas]
    assume(all(abs(p - round(p)) > 1e-9 for p in ends) if truncate else abs(ends[0] - ends[1]) > 1e-3 or betas[0] == betas[1])
    options = {"base": base, "factor": factor, "original": original, "beta_slow": betas[0], "beta_fast": betas[1],
               "truncate": truncate}  # fmt: skip
    assert close(ours.yarn_frequencies(width, **options), ref.yarn_frequencies(width, **options))


@settings(max_examples=300)
@given(width=widths, base=bases, factor=factors, original=lengths, low=st.floats(0.01, 20.0), above=st.floats(0.01, 30.0))
def test_llama3_frequencies_equal_the_reference(width, base, factor, original, low, above):
    """Ties do not matter here: the three cases of the reference join continuously."""
    options = {"base": base, "factor": factor, "original": original, "low_freq_factor": low, "high_freq_factor": low + above}
    assert close(ours.llama3_frequencies(width, **options), ref.llama3_frequencies(width, **options))


@given(base=bases, stretch=st.lists(st.floats(0.5, 64.0), min_size=1, max_size=48), factor=st.floats(0.5, 64.0),
       original=st.integers(2, 200_000))  # fmt: skip
def test_longrope_equals_the_reference(base, stretch, factor, original):
    width = 2 * len(stretch)
    found = ours.longrope_frequencies(width, base=base, factors=stretch)
    assert close(found, ref.longrope_frequencies(width, base=base, factors=stretch))
    assert close(found * stretch, ours.rope_frequencies(width, base=base))
    assert close(ours.longrope_magnitude(factor, original=original), ref.longrope_magnitude(factor, original=original))


mscales = st.one_of(st.none(), st.floats(0.0, 3.0))


@given(factor=st.floats(0.1, 100.0), mscale=mscales, all_dim=mscales)
def test_yarn_magnitude_equals_the_reference(factor, mscale, all_dim):
    options = {"mscale": mscale, "mscale_all_dim": all_dim}
    assert close(ours.yarn_magnitude(factor, **options), ref.yarn_magnitude(factor, **options))
    scale = {"mscale_all_dim": all_dim}
    assert close(ours.yarn_score_scale(factor, **scale), ref.yarn_score_scale(factor, **scale))


# ------------------------------------------------------------------------------------- what scaling changes and preserves


@given(width=wide, base=bases, factor=factors, original=lengths, shorter=st.floats(0.0, 1.0))
def test_dynamic_frequencies_within_the_trained_context_are_the_plain_ones(width, base, factor, original, shorter):
    dynamic = ours.dynamic_frequencies(width, base=base, factor=factor, original=original, length=int(original * shorter))
    assert np.max(np.abs(dynamic / ours.rope_frequencies(width, base=base) - 1)) < PART  # factor - (factor - 1) is rounded


@given(width=wide, base=bases, factor=st.floats(1.1, 64.0), original=lengths, times=st.integers(2, 50))
def test_dynamic_frequencies_beyond_it_keep_the_highest_and_divide_the_lowest(width, base, factor, original, times):
    dynamic = ours.dynamic_frequencies(width, base=base, factor=factor, original=original, length=original * times)
    plain = ours.rope_frequencies(width, base=base)
    assert dynamic[0] == plain[0] == 1 and close(dynamic[-1], plain[-1] / (factor * times - (factor - 1)))


def turns(frequencies, original):
    return original * frequencies / (2 * math.pi)


def between(scaled, plain, factor):
    """No frequency increases, and none is divided by more than the factor; the weighted mean may differ in the last bits."""
    return (scaled <= plain * (1 + 1e-15)).all() and (scaled >= plain / factor * (1 - 1e-15)).all()


@given(width=widths, base=bases, factor=factors, original=lengths, low=st.floats(0.1, 5.0), above=st.floats(0.1, 10.0))
def test_llama3_keeps_what_turns_fast_and_divides_what_turns_slowly(width, base, factor, original, low, above):
    plain = ours.rope_frequencies(width, base=base)
    scaled = ours.llama3_frequencies(width, base=base, factor=factor, low_freq_factor=low, high_freq_factor=low + above,
                                     original=original)  # fmt: skip
    fast, slow = turns(plain, original) >= low + above, turns(plain, original) <= low
    assert np.array_equal(scaled[fast], plain[fast]) and np.array_equal(scaled[slow], plain[slow] / factor)
    assert between(scaled, plain, factor)


@given(width=st.integers(16, 64).map(lambda n: 2 * n), base=st.floats(5e3, 1e6), factor=factors,
       original=st.integers(2048, 8192), truncate=st.booleans())  # fmt: skip
def test_yarn_keeps_what_turns_fast_and_divides_what_turns_slowly(width, base, factor, original, truncate):
    """For published contexts and bases, both ends of the ramp lie within the range of frequencies."""
    plain = ours.rope_frequencies(width, base=base)
    scaled = ours.yarn_frequencies(width, base=base, factor=factor, original=original, truncate=truncate)
    rounded = base ** (2 / width) if truncate else 1.0  # outward rounding moves an end by at most one frequency
    fast = turns(plain, original) > 32 * rounded * (1 + 1e-9)
    slow = turns(plain, original) < 1 / rounded * (1 - 1e-9)
    assert fast.any() and slow.any() and not (fast | slow).all()
    assert np.array_equal(scaled[fast], plain[fast]) and np.array_equal(scaled[slow], plain[slow] / factor)
    assert between(scaled, plain, factor)


# ------------------------------------------------------------------------------------------------------------ rotation


@st.composite
def rotations(draw):
    """(q and k, each (1, 1, 1, E), frequencies, interleaved); E up to 10, the first R components rotated."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pairs, rest = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    frequencies = ours.rope_frequencies(2 * pairs, base=draw(st.floats(2.0, 1e6)))
    return rng.normal(size=(2, 1, 1, 1, 2 * pairs + rest)), frequencies, draw(st.booleans())


def at(x, position, frequencies, interleaved=False, **options):
    return rope_at(x, positions=np.array([position]), frequencies=frequencies, interleaved=interleaved, **options)[0]


@given(r=rotations(), m=st.integers(0, 100_000), n=st.integers(0, 100_000), shift=st.integers(0, 100_000))
def test_the_inner_product_depends_on_the_distance_alone(r, m, n, shift):
    """An angle of up to 2e5 radians has a rounding error of 2e5 EPS."""
    (q, k), frequencies, interleaved = r
    here = np.vdot(at(q, m, frequencies, interleaved), at(k, n, frequencies, interleaved))
    there = np.vdot(at(q, m + shift, frequencies, interleaved), at(k, n + shift, frequencies, interleaved))
    assert abs(here - there) < 2e5 * rounding(1) * np.linalg.norm(q) * np.linalg.norm(k)


@given(r=rotations(), position=st.integers(0, 200_000), magnitude=st.floats(0.5, 2.0))
def test_a_rotation_keeps_the_norm_and_the_magnitude_multiplies_it(r, position, magnitude):
    (x, _), frequencies, interleaved = r
    R = 2 * len(frequencies)
    y = at(x, position, frequencies, interleaved)
    assert abs(np.linalg.norm(y) / np.linalg.norm(x) - 1) < FEW
    larger = at(x, position, frequencies, interleaved, magnitude=magnitude)
    assert np.allclose(larger[..., :R], magnitude * y[..., :R], rtol=FEW, atol=FEW)
    assert np.array_equal(larger[..., R:], x[..., R:])
    dy = y[..., :R]
    turned = {"frequencies": frequencies, "interleaved": interleaved, "magnitude": magnitude}
    _, backward = rope_at(dy, positions=np.array([position]), **turned)
    assert np.linalg.norm(backward(dy)) == pytest.approx(magnitude * np.linalg.norm(dy), rel=FEW)  # and so is the gradient


@given(r=rotations())
def test_position_0_is_the_identity(r):
    (x, _), frequencies, interleaved = r
    assert np.array_equal(at(x, 0, frequencies, interleaved), x)


@given(r=rotations(), position=st.integers(0, 200_000))
def test_interleaved_pairs_are_half_split_ones_in_another_order(r, position):
    """After moving the first components of all pairs to the front and the second components behind them."""
    (x, _), frequencies, _ = r
    R = 2 * len(frequencies)
    order = [*range(0, R, 2), *range(1, R, 2), *range(R, x.shape[-1])]
    assert np.array_equal(at(x, position, frequencies, interleaved=True)[..., order], at(x[..., order], position, frequencies))


@given(r=rotations(), position=st.integers(0, 200_000))
def test_components_that_are_not_turned_pass_untouched(r, position):
    (x, dy), frequencies, interleaved = r
    R = 2 * len(frequencies)
    y, backward = rope_at(x, positions=np.array([position]), frequencies=frequencies, interleaved=interleaved)
    assert np.array_equal(y[..., R:], x[..., R:]) and np.array_equal(backward(dy)[..., R:], dy[..., R:])
    assert np.array_equal(y[..., :R], at(x[..., :R], position, frequencies, interleaved))


@on_devices
@given(seed=st.integers(0, 999), each=st.booleans())
def test_far_positions_keep_their_phase_in_float32(device, seed, each):
    """Angles in float32 would be off by 131071 * 2^-24 = 0.008; the tolerance allows for rounding cos, sin, products and sum."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 1, 4, 64)).astype("float32")
    positions = 131071 - rng.integers(0, 9, (2, 4) if each else (4,))
    frequencies = ours.rope_frequencies(64, base=500000.0)
    on = [to_device(a, device) for a in (x, positions, frequencies)]
    y = to_host(rope_at(on[0], positions=on[1], frequencies=on[2])[0])
    assert y.dtype == np.float32
    assert np.max(np.abs(y - ref.rope(x, positions=positions, frequencies=frequencies))) < 4 * 2**-24 * np.max(np.abs(x)) * 2**0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: rope_at(x, positions=np.arange(2), frequencies=np.ones(2)),
         "rope: cos: expected an array of floating-point numbers of shape (B or 1, 1, 3, F), got float64 array of shape (1, 1, "),
        (lambda x: rope_at(x, positions=np.zeros((3, 3), int), frequencies=np.ones(2)),
         "got float64 array of shape (3, 1, 3, 2)"),
        (lambda x: rope_at(x, positions=np.arange(1), frequencies=np.ones(2)), "got float64 array of shape (1, 1, 1, 2)"),
        (lambda x: rope(x, cos=np.ones((1, 1, 3, 2)), sin=np.ones((1, 1, 3, 1))), "rope: sin: expected an array"),
        (lambda x: rope_at(x, positions=np.arange(3), frequencies=np.ones(3)),
         "x: expected at least 6 components, as many as"),
        (lambda x: ours.rope_frequencies(7), "an even number of components, at least 2, got 7"),
        (lambda x: ours.rope_frequencies(0), "an even number of components, at least 2, got 0"),
        (lambda x: ours.dynamic_frequencies(2, base=10.0, factor=2.0, original=8, length=9), "more than 2 components for"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(np.ones((2, 1, 3, 4)))
