"""The reference rotary embedding, its frequencies and the newer sampling options, against hand-computed cases."""

import math
from functools import partial

import numpy as np
import pytest

from reference.generation.sampling import ban_repeated_ngrams, penalise_repetition, token_distribution
from reference.layers.rope import (
    dynamic_frequencies,
    frequencies,
    linear_frequencies,
    llama3_frequencies,
    longrope_frequencies,
    longrope_magnitude,
    rope,
    yarn_frequencies,
    yarn_magnitude,
    yarn_score_scale,
)
from tests.laws import FEW, PART

close = partial(np.testing.assert_allclose, rtol=PART, atol=FEW)
same = np.testing.assert_array_equal

QUARTER, HALF = math.pi / 2, math.pi  # radians: 90 and 180 degrees


def turned(row, position, turns, **options):
    """rope applied to one row at one position."""
    x = np.array(row, dtype=np.float64).reshape(1, 1, 1, -1)
    return rope(x, positions=np.array([position]), frequencies=np.array(turns), **options)[0, 0, 0]


# Rotation


def test_rope_by_right_angles():
    close(turned([1, 0], 1, [QUARTER]), [0, 1])
    close(turned([0, 1], 1, [QUARTER]), [-1, 0])
    close(turned([3, 4], 2, [QUARTER]), [-3, -4])
    close(turned([3, 4], -1, [QUARTER]), [4, -3])
    # (1, 0) rotated by 60 degrees
    close(turned([1, 0], 2, [math.pi / 6]), [0.5, math.sqrt(3) / 2])


def test_rope_layouts():
    # halves: (1, 3) rotated by 90 degrees is (-3, 1), (2, 4) by 180 is (-2, -4)
    close(turned([1, 2, 3, 4], 1, [QUARTER, HALF]), [-3, -2, 1, -4])
    # neighbours: (1, 2) rotated by 90 degrees is (-2, 1), (3, 4) by 180 is (-3, -4)
    close(turned([1, 2, 3, 4], 1, [QUARTER, HALF], interleaved=True), [-2, 1, -3, -4])


def test_rope_of_a_part():
    # the halves are those of the first four components; the rest is neither rotated nor scaled
    row = [1, 2, 3, 4, 5, 6, 7]
    close(turned(row, 1, [QUARTER, HALF]), [-3, -2, 1, -4, 5, 6, 7])
    close(turned(row, 1, [QUARTER, HALF], magnitude=2.0), [-6, -4, 2, -8, 5, 6, 7])
    close(turned(row, 1, [QUARTER, HALF], magnitude=2.0, interleaved=True), [-4, 2, -6, -8, 5, 6, 7])
    same(turned(row, 9, []), row)


def test_rope_at_position_0_is_the_identity():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    x.flags.writeable = False
    for interleaved in (False, True):
        same(rope(x, positions=np.zeros(4, int), frequencies=frequencies(6), interleaved=interleaved), x)
    assert rope(x.astype(np.float32), positions=np.arange(4), frequencies=frequencies(4)).dtype == np.float64


def test_rope_positions():
    # the same for every head; positions per text, or one row for all
    x = np.zeros((2, 3, 2, 2))
    x[..., 0] = 1.0  # (1, 0), which 0, 1, 2, 3 quarter turns map to (1, 0), (0, 1), (-1, 0), (0, -1)
    quarter = np.array([QUARTER])
    y = rope(x, positions=np.array([[0, 1], [2, 3]]), frequencies=quarter)
    for h in range(3):
        close(y[:, h], [[[1, 0], [0, 1]], [[-1, 0], [0, -1]]])
    close(rope(x, positions=np.array([3, 2]), frequencies=quarter)[:, 1], [[[0, -1], [-1, 0]]] * 2)


def test_rope_products_depend_on_the_distance():
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=8), rng.normal(size=8)
    for interleaved in (False, True):
        at = partial(turned, turns=frequencies(8), interleaved=interleaved)
        close(at(q, 7) @ at(k, 4), at(q, 103) @ at(k, 100))
        close(at(q, 5) @ at(q, 5), q @ q)
        close(at(at(q, 2), 3), at(q, 5))


def test_rope_refuses():
    x = np.zeros((2, 1, 3, 4))
    for positions in (np.arange(2), np.zeros((1, 3), int), np.zeros((3, 2), int), np.array(0), np.zeros(3)):
        with pytest.raises(ValueError):
            rope(x, positions=positions, frequencies=np.ones(2))
    for wrong in (np.ones(3), np.ones((1, 2)), np.array(1.0)):
        with pytest.raises(ValueError):
            rope(x, positions=np.arange(3), frequencies=wrong)
    with pytest.raises(ValueError):
        rope(x[0], positions=np.arange(3), frequencies=np.ones(2))


# Frequencies


def test_frequencies():
    close(frequencies(4), [1, 0.01])
    close(frequencies(6, base=8.0), [1, 1 / 2, 1 / 4])
    same(frequencies(2), [1.0])


def test_linear_frequencies():
    close(linear_frequencies(6, base=8.0, factor=4.0), [1 / 4, 1 / 8, 1 / 16])
    # position 12 of the longer text now equals the former position 3
    x = np.arange(6)
    close(turned(x, 12, linear_frequencies(6, base=8.0, factor=4.0)), turned(x, 3, frequencies(6, base=8.0)))


def test_dynamic_frequencies():
    # 2 * 20/10 - 1 = 3, to the power 4/2: base 900
    close(dynamic_frequencies(4, base=100.0, factor=2.0, original=10, length=20), [1, 1 / 30])
    # 3 * 2 - 2 = 4, to the power 6/4 = 8: base 64
    close(dynamic_frequencies(6, base=8.0, factor=3.0, original=5, length=10), [1, 1 / 4, 1 / 16])
    for length in (0, 7, 10):
        close(dynamic_frequencies(4, base=100.0, factor=2.0, original=10, length=length), [1, 1 / 10])


# With width 8 and base 16, pair i has the frequency 2^-i, and d(beta) = log2(original / (2 pi beta)).
OCTAVES = {"base": 16.0, "factor": 4.0}


def test_yarn_frequencies_by_hand():
    # d(5) = log2(6.4 / pi) = 1.03, rounded down to 1; d(2.5) is one larger, 2.03, rounded up to 3: g = 0, 0, 1/2, 1
    ramp = {"original": 64, "beta_fast": 5.0, "beta_slow": 2.5}
    close(yarn_frequencies(8, **OCTAVES, **ramp), [1, 1 / 2, 1 / 4 * (1 / 2 + 1 / 8), 1 / 32])
    # unrounded, from 1.03 to 2.03: g[2] = 2 - 1.03
    g = 2 - math.log2(6.4 / math.pi)
    close(yarn_frequencies(8, **OCTAVES, **ramp, truncate=False), [1, 1 / 2, 1 / 4 * (1 - g + g / 4), 1 / 32])


def test_yarn_frequencies_of_llama_2():
    # d(32) = 128 ln(4096 / (64 pi)) / (2 ln 10^4) = 20.9, rounded down to 20, d(1) = 45.03, up to 46; the middle is 33
    f = frequencies(128)
    scaled = yarn_frequencies(128, base=10000.0, factor=16.0, original=4096)
    same(scaled[:21], f[:21])
    close(scaled[33], f[33] * (1 / 2 + 1 / 32))
    close(scaled[46:], f[46:] / 16)
    assert scaled[21] < f[21] and scaled[45] > f[45] / 16


def test_yarn_frequencies_at_the_edges():
    # equal ends: a step. d(3) = log2(64 / (6 pi)) = 1.76, unrounded at both ends
    step = {"original": 64, "beta_fast": 3.0, "beta_slow": 3.0, "truncate": False}
    close(yarn_frequencies(8, **OCTAVES, **step), [1, 1 / 2, 1 / 16, 1 / 32])
    # d(32) < 0, clamped to 0; d(1) = log2(5 / (2 pi)) = -0.33, rounded up to 0: a step after pair 0
    close(yarn_frequencies(8, **OCTAVES, original=5), [1, 1 / 8, 1 / 16, 1 / 32])
    # d(1) = log2(1 / (2 pi)) = -2.7, rounded up to -2, not clamped: the ramp falls, and is below 0 everywhere
    close(yarn_frequencies(8, **OCTAVES, original=1), [1, 1 / 2, 1 / 4, 1 / 8])
    # d(1) = log2(65536 / (2 pi)) = 13.3, clamped to 7; d(512) = 4.3, rounded down to 4: beyond the last pair
    close(yarn_frequencies(8, **OCTAVES, original=65536, beta_fast=512.0), [1, 1 / 2, 1 / 4, 1 / 8])
    # d(4096) = 1.3, rounded down to 1: g = 0, 0, 1/6, 2/6
    held = yarn_frequencies(8, **OCTAVES, original=65536, beta_fast=4096.0)
    close(held, [1, 1 / 2, 1 / 4 * (5 / 6 + 1 / 24), 1 / 8 * (4 / 6 + 2 / 24)])
    # d(32) = 8.3, rounded down to 8, which is above 7: the ramp falls, and is above 1 everywhere
    close(yarn_frequencies(8, **OCTAVES, original=65536), [1 / 4, 1 / 8, 1 / 16, 1 / 32])


def test_yarn_magnitude():
    close(yarn_magnitude(math.e), 1.1)
    close(yarn_magnitude(math.e**10), 2.0)
    assert yarn_magnitude(1.0) == yarn_magnitude(0.5) == yarn_magnitude(0.5, mscale=2.0, mscale_all_dim=1.0) == 1.0
    close(yarn_magnitude(math.e**10, mscale=3.0, mscale_all_dim=1.0), 4 / 2)
    assert yarn_magnitude(40.0, mscale=0.707, mscale_all_dim=0.707) == 1.0


def test_yarn_score_scale():
    """DeepSeek-V3 has a factor of 40 and mscale_all_dim = 1: 1.3689^2."""
    close(yarn_score_scale(40.0, mscale_all_dim=1.0), (1 + 0.1 * math.log(40)) ** 2)
    close(yarn_score_scale(math.e**10, mscale_all_dim=0.5), 1.5**2)
    assert (
        yarn_score_scale(40.0) == yarn_score_scale(40.0, mscale_all_dim=0.0) == yarn_score_scale(0.5, mscale_all_dim=1.0) == 1.0
    )
    # one of them alone, or a zero, counts as missing
    for pair in ((3.0, None), (None, 3.0), (0.0, 3.0), (3.0, 0.0)):
        close(yarn_magnitude(math.e**10, mscale=pair[0], mscale_all_dim=pair[1]), 2.0)


def test_longrope():
    close(longrope_frequencies(8, base=16.0, factors=[1.0, 2.0, 5.0, 8.0]), [1, 1 / 4, 1 / 20, 1 / 64])
    with pytest.raises(ValueError, match="4 factors are needed, not 3"):
        longrope_frequencies(8, base=16.0, factors=[1.0, 2.0, 5.0])
    close(longrope_magnitude(8.0, original=2), 2.0)  # sqrt(1 + 3 / 1)
    assert longrope_magnitude(1.0, original=2) == longrope_magnitude(0.5, original=2) == 1.0
    with pytest.raises(ValueError, match="original must be above 1, not 1"):
        longrope_magnitude(8.0, original=1)


def test_llama3_frequencies():
    # original 16 pi: 8, 4, 2, 1 turns. 8 > 6: unchanged. s = (4 - 1.5) / 4.5 = 5/9: 1/2 (5/9 + 4/36) = 1/3.
    # s = (2 - 1.5) / 4.5 = 1/9: 1/4 (1/9 + 8/36) = 1/12. 1 < 1.5: 1/8 / 4.
    bounds = {"low_freq_factor": 1.5, "high_freq_factor": 6.0, "original": 16 * math.pi}
    close(llama3_frequencies(8, **OCTAVES, **bounds), [1, 1 / 3, 1 / 12, 1 / 32])
    # Llama 3.1: 8192 / (2 pi) = 1304 turns for the first pair, 0.003 for the last
    f = frequencies(128, base=500000.0)
    scaled = llama3_frequencies(128, base=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original=8192)
    assert scaled[0] == f[0] == 1.0
    close(scaled[-1], f[-1] / 8)
    turns = 8192 * f / (2 * math.pi)
    same(scaled[turns > 4], f[turns > 4])
    close(scaled[turns < 1], f[turns < 1] / 8)
    assert (np.diff(scaled) < 0).all() and (scaled <= f).all() and (scaled >= f / 8 * (1 - 1e-12)).all()


def test_factor_1_leaves_the_frequencies():
    f = frequencies(32, base=500.0)
    one = {"base": 500.0, "factor": 1.0}
    same(linear_frequencies(32, **one), f)
    close(yarn_frequencies(32, **one, original=2048), f)
    close(llama3_frequencies(32, **one, low_freq_factor=1.0, high_freq_factor=4.0, original=2048), f)


def test_frequencies_refuse():
    scalings = (
        frequencies,
        partial(linear_frequencies, factor=2.0),
        partial(dynamic_frequencies, factor=2.0, original=8, length=9),
        partial(yarn_frequencies, factor=2.0, original=8),
        partial(llama3_frequencies, factor=2.0, low_freq_factor=1.0, high_freq_factor=4.0, original=8),
    )
    for scaling in scalings:
        for width in (0, 7, -4):
            with pytest.raises(ValueError):
                scaling(width, base=10.0)
        with pytest.raises(ValueError):
            scaling(8, base=0.0)
    for scaling in scalings[1:]:
        with pytest.raises(ValueError):
            scaling(8, base=10.0, factor=0.0)
    for scaling in scalings[2:]:
        with pytest.raises(ValueError):
            scaling(8, base=10.0, original=0)
    with pytest.raises(ValueError):
        dynamic_frequencies(2, base=10.0, factor=2.0, original=8, length=9)
    for wrong in ({"base": 1.0}, {"base": 10.0, "beta_slow": 33.0}, {"base": 10.0, "beta_slow": 0.0}):
        with pytest.raises(ValueError):
            scalings[3](8, **wrong)
    for low in (0.0, 4.0, 5.0):
        with pytest.raises(ValueError):
            scalings[4](8, base=10.0, low_freq_factor=low)


# Sampling

LOGITS = np.log([0.1, 0.4, 0.2, 0.3])


def test_min_p():
    # thresholds 0.24, 0.16, 0.08
    close(token_distribution(LOGITS, min_p=0.6), [0, 4 / 7, 0, 3 / 7])
    close(token_distribution(LOGITS, min_p=0.4), [0, 4 / 9, 2 / 9, 3 / 9])
    for keeps_all in (0.0, 0.2, None):
        close(token_distribution(LOGITS, min_p=keeps_all), [0.1, 0.4, 0.2, 0.3])
    same(token_distribution(LOGITS, min_p=1.0), [0, 1, 0, 0])
    # a value exactly at the threshold is not below it
    close(token_distribution(np.array([2.0, 0.0, 2.0]), min_p=1.0), [0.5, 0, 0.5])
    close(token_distribution(np.array([0.0, -np.inf, 0.0]), min_p=0.0), [0.5, 0, 0.5])


def test_min_p_comes_last():
    # temperature 1/2: 1, 16, 4, 9 thirtieths; 1 and 4 are below 0.5 * 16
    close(token_distribution(LOGITS, temperature=0.5, min_p=0.5), [0, 16 / 25, 0, 9 / 25])
    same(token_distribution(LOGITS, temperature=0.0, min_p=0.1), [0, 1, 0, 0])
    # top-p 0.5 keeps 4 and 3 tenths; applied after min-p, to 4 and 3 sevenths, it would keep one
    close(token_distribution(LOGITS, top_p=0.5, min_p=0.6), [0, 4 / 7, 0, 3 / 7])
    close(token_distribution(LOGITS, top_k=3, min_p=0.6), [0, 4 / 7, 0, 3 / 7])
    same(token_distribution(LOGITS, top_k=1, min_p=0.1), [0, 1, 0, 0])
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError):
            token_distribution(LOGITS, min_p=wrong)


def test_penalise_repetition():
    logits = np.array([3.0, -3.0, 0.0, 5.0, -np.inf])
    logits.flags.writeable = False
    same(penalise_repetition(logits, {0, 1, 2, 4}, penalty=2.0), [1.5, -6.0, 0.0, 5.0, -np.inf])
    same(penalise_repetition(logits, [1, 0, 1, 0, 0], penalty=2.0), [1.5, -6.0, 0.0, 5.0, -np.inf])
    same(penalise_repetition(logits, np.array([0, 1]), penalty=0.5), [6.0, -1.5, 0.0, 5.0, -np.inf])
    same(penalise_repetition(logits, iter([0, 1]), penalty=1.0), logits)
    for seen, penalty in (([0], 0.0), ([0], -1.0), ([5], 2.0), ([-1], 2.0)):
        with pytest.raises(ValueError):
            penalise_repetition(logits, seen, penalty=penalty)


def banned(ids, n):
    """The tokens, out of five, that are banned after ids."""
    logits = np.arange(5.0)
    y = ban_repeated_ngrams(logits, ids, n=n)
    allowed = np.isfinite(y)
    same(y[allowed], logits[allowed])
    assert (y[~allowed] == -np.inf).all()
    return np.flatnonzero(~allowed).tolist()


def test_ban_repeated_ngrams():
    assert banned([1, 3, 1], 1) == [1, 3]
    # 1 was followed by 2 and by 4; nothing follows the final 1 yet
    assert banned([1, 2, 1, 4, 1], 2) == [2, 4]
    assert banned([1, 2, 1, 4, 1], 3) == []
    assert banned([1, 2, 3, 0, 1, 2], 3) == [3]
    assert banned([1, 2, 3, 0, 3, 2], 3) == []
    # a third 0 would repeat 0 0; 0 0 0 itself occurs only once there are three
    assert banned([0, 0], 2) == [0]
    assert banned([0, 0], 3) == []
    assert banned(np.array([0, 0, 0]), 3) == [0]
    # too short for an n-gram, or for the prefix of one
    assert banned([], 1) == banned([], 2) == banned([1], 2) == banned([1], 4) == banned([1, 2, 3], 4) == []

    for ids, n in (([0], 0), ([0], -1), ([5], 1), ([-1], 2)):
        with pytest.raises(ValueError):
            ban_repeated_ngrams(np.zeros(5), ids, n=n)
