"""The frequencies of RoPE, and the ways to stretch them to contexts longer than those of training.

Host functions of plain numbers, in float64: each returns (R/2,) frequencies in radians per position
for R rotated components.  The wavelength of frequency f is 2 pi / f positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arguments import check_flag, check_number, check_whole, listed, mismatch, wrong

MOST = 2**20  # components of a head
BETA_FAST, BETA_SLOW = 32.0, 1.0  # YaRN's turns, Peng et al. 2023, sec. 3.2


def rope_frequencies(width: int, *, base: float = 10000.0) -> np.ndarray:
    """f_i = base^(-2i / R),   i = 0 .. R/2 - 1, with R = width.         Su et al. 2021, eq. 15"""
    check_whole("RoPE: width", width, most=MOST)
    _check_positive(base=base)
    if width < 2 or width % 2:
        raise wrong("RoPE: width", "an even number of components, at least 2", width)
    return base ** (-np.arange(0, width, 2) / width)


def linear_frequencies(width: int, *, base: float, factor: float) -> np.ndarray:
    """f_i / factor: position t is read as t / factor.             Chen et al. 2023, sec. 2.3"""
    _check_positive(factor=factor)
    return rope_frequencies(width, base=base) / factor


def dynamic_frequencies(
    width: int, *, base: float, factor: float, original: int, length: int
) -> np.ndarray:
    """The frequencies of a larger base, base (factor L / original - (factor - 1))^(R / (R - 2)).

    L = max(length, original).  Up to the original context nothing changes; beyond it the base grows
    with the length: the lowest frequency is divided by the bracket, the highest stays.
    NTK-aware scaling, bloc97 2023; dynamic: emozilla 2023; Peng et al. 2023, sec. 3.3.
    """
    check_whole("RoPE: width", width, most=MOST)
    _check_positive(base=base, factor=factor, original=original)
    check_number("RoPE: length", length, least=0)
    if width <= 2:
        raise wrong("RoPE: width", "more than 2 components for dynamic scaling", width)
    stretch = factor * max(length, original) / original - (factor - 1)
    return rope_frequencies(width, base=base * stretch ** (width / (width - 2)))


def yarn_frequencies(
    width: int,
    *,
    base: float,
    factor: float,
    original: int,
    beta_fast: float = BETA_FAST,
    beta_slow: float = BETA_SLOW,
    truncate: bool = True,
) -> np.ndarray:
    """(1 - g_i) f_i / factor + g_i f_i,   g_i = 1 - clip((i - low) / (high - low), 0, 1).

    YaRN, Peng et al. 2023, sec. 3.2.   low and high are the indices of the frequencies that make
    beta_fast and beta_slow turns within the original context:
    index(beta) = R ln(original / (2 pi beta)) / (2 ln base), rounded outwards if `truncate`; low is
    at least 0, high at most R - 1.  So fast components keep their frequency (g = 1), slow ones are
    interpolated (g = 0), with a ramp between.
    """
    _check_positive(factor=factor, original=original, beta_fast=beta_fast, beta_slow=beta_slow)
    check_flag("RoPE: truncate", truncate)
    check_number("RoPE: base", base, above=1)
    f = rope_frequencies(width, base=base)
    low, high = (
        width * math.log(original / (2 * math.pi * beta)) / (2 * math.log(base))
        for beta in (beta_fast, beta_slow)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001  # a step, without dividing by zero
    g = 1 - np.clip((np.arange(width // 2) - low) / (high - low), 0, 1)
    return (1 - g) * f / factor + g * f


def yarn_magnitude(
    factor: float, *, mscale: float | None = None, mscale_all_dim: float | None = None
) -> float:
    """m(1),   m(s) = 0.1 s ln(factor) + 1 for factor > 1, else 1: q and k are multiplied by it.

    Peng et al. 2023, sec. 3.4.   With mscale and mscale_all_dim, as in DeepSeek:
    m(mscale) / m(mscale_all_dim).
    """
    _check_positive(factor=factor)
    for name, value in (("mscale", mscale), ("mscale_all_dim", mscale_all_dim)):
        check_number(f"RoPE: {name}", value, least=0, or_none=True)
    if mscale and mscale_all_dim:
        return _yarn_m(mscale, factor) / _yarn_m(mscale_all_dim, factor)
    return _yarn_m(1, factor)


def yarn_score_scale(factor: float, *, mscale_all_dim: float | None = None) -> float:
    """m(mscale_all_dim)^2, a factor on the scale of DeepSeek's attention; 1 for None or 0.

    m as in `yarn_magnitude`.   YaRN's temperature for all components of a head: the magnitude
    reaches only those that RoPE turns, so DeepSeek takes it from there (mscale = mscale_all_dim
    makes it 1) to the scores.   DeepSeek-V2's released code, 2024.
    """
    _check_positive(factor=factor)
    check_number("RoPE: mscale_all_dim", mscale_all_dim, least=0, or_none=True)
    return _yarn_m(mscale_all_dim, factor) ** 2 if mscale_all_dim else 1.0


def _yarn_m(s: float, factor: float) -> float:
    return 0.1 * s * math.log(factor) + 1 if factor > 1 else 1.0


def llama3_frequencies(
    width: int,
    *,
    base: float,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original: int,
) -> np.ndarray:
    """(1 - g_i) f_i / factor + g_i f_i,   g_i = clip((n_i - low) / (high - low), 0, 1).

    Llama 3.1's released code, 2024.   n_i = original f_i / (2 pi) is the number of turns that
    frequency i makes within the original context; low and high are low_freq_factor and
    high_freq_factor.
    """
    _check_positive(factor=factor, original=original)
    _check_positive(low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor)
    check_number("RoPE: high_freq_factor", high_freq_factor, above=low_freq_factor)
    f = rope_frequencies(width, base=base)
    turns = original * f / (2 * math.pi)
    g = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return (1 - g) * f / factor + g * f


def longrope_frequencies(width: int, *, base: float, factors: Any) -> np.ndarray:
    """f_i / factors_i: each component pair has its own stretch.

    LongRoPE, Ding et al. 2024, sec. 3.1 (lambda_i, found by a search; here n = 0, so the first
    tokens are stretched as well).   factors: R/2 numbers.
    """
    f = rope_frequencies(width, base=base)
    factors = listed("RoPE: factors", factors, f"{len(f)} numbers")
    if len(factors) != len(f):
        raise mismatch("RoPE: factors", f"{len(f)} numbers", len(factors))
    for factor in factors:
        check_number("RoPE: factors", factor, above=0)
    return f / np.array(factors, dtype=np.float64)


def longrope_magnitude(factor: float, *, original: int) -> float:
    """sqrt(1 + ln(factor) / ln(original)) for factor > 1, else 1: q and k are multiplied by it.

    Phi-3's released code, 2024; factor is the extended context over the original one.
    """
    _check_positive(factor=factor)
    check_number("RoPE: original", original, above=1)
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        check_number(f"RoPE: {name}", value, above=0)
