"""Rotary position embedding, and frequency scalings that extend a model to longer contexts."""

import math
from collections.abc import Sequence

import numpy as np

from reference.scalar import numbers, zeros


def rope(
    x: np.ndarray,
    *,
    positions: np.ndarray,
    frequencies: np.ndarray,
    magnitude: float = 1.0,
    interleaved: bool = False,
) -> np.ndarray:
    """Rotates pair i of x[b, h, t], a point in the plane, by a = positions[b, t] frequencies[i]:

        y_first  = magnitude (x_first cos a - x_second sin a)
        y_second = magnitude (x_second cos a + x_first sin a)

    The pair is (x[2i], x[2i + 1]) if interleaved (the paper's layout), else (x[i], x[i + R/2]) (the
    layout of GPT-NeoX, Black et al. 2022, and of LLaMA in Hugging Face).  Each component keeps its
    place.  Components R to E - 1 are in no pair: y = x there, without the magnitude.
    x (B, H, T, E), positions (B, T) or (T,) integers, frequencies (R/2,), R <= E -> y (B, H, T, E).
    Su et al. 2021 (RoFormer), eq. 15, by component eq. 34; the magnitude is YaRN's (see
    yarn_magnitude).
    """
    x = numbers(x)
    positions = np.asarray(positions)
    frequencies = np.asarray(frequencies, dtype=np.float64)
    if x.ndim != 4:
        raise ValueError(f"x must have the shape (B, H, T, E), not {x.shape}")
    B, H, T, E = x.shape
    if positions.shape not in ((T,), (B, T)):
        raise ValueError(f"positions must have the shape {(T,)} or {(B, T)}, not {positions.shape}")
    if not np.issubdtype(positions.dtype, np.integer):
        raise ValueError(f"positions must be integers, not {positions.dtype}")
    if frequencies.ndim != 1:
        raise ValueError(f"frequencies must have the shape (R/2,), not {frequencies.shape}")
    pairs = len(frequencies)
    R = 2 * pairs
    if R > E:
        raise ValueError(f"{pairs} frequencies rotate {R} components, but there are only {E}")
    positions = np.broadcast_to(positions, (B, T))

    y = zeros(x.shape, like=x)
    for b, h, t, e in np.ndindex(x.shape):
        if e >= R:
            y[b, h, t, e] = x[b, h, t, e]
    for b, h, t, i in np.ndindex(B, H, T, pairs):
        first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + pairs)
        angle = int(positions[b, t]) * frequencies[i]
        cos, sin = math.cos(angle), math.sin(angle)
        y[b, h, t, first] = magnitude * (x[b, h, t, first] * cos - x[b, h, t, second] * sin)
        y[b, h, t, second] = magnitude * (x[b, h, t, second] * cos + x[b, h, t, first] * sin)
    return y


def paired_rope(x: np.ndarray, *, positions: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The first half of each head turned by positions[:, 0], the second by positions[:, 1].

    x (B, H, T, E), positions (B, 2, T), frequencies (E/4,).   GLM team 2023, ChatGLM-6B's code
    """
    x = numbers(x)
    half = x.shape[-1] // 2
    y = zeros(x.shape, like=x)
    for n in range(2):
        part = slice(n * half, (n + 1) * half)
        y[..., part] = rope(x[..., part], positions=positions[:, n], frequencies=frequencies)
    return y


def frequencies(width: int, *, base: float = 10000.0) -> np.ndarray:
    """f[i] = base^(-2i / width), i = 0 .. width/2 - 1, radians per position.   -> (width/2,).

    Su et al. 2021, eq. 15 (theta_i, whose i starts at 1).
    """
    if width < 2 or width % 2 != 0:
        raise ValueError(f"width must be even and at least 2, not {width}")
    if base <= 0.0:
        raise ValueError(f"base must be above 0, not {base}")
    f = np.zeros(width // 2)
    for i in range(width // 2):
        f[i] = base ** (-2 * i / width)
    return f


def linear_frequencies(width: int, *, base: float, factor: float) -> np.ndarray:
    """f'[i] = f[i] / factor: position m gets the angles of position m / factor.   -> (width/2,).

    Chen et al. 2023 (Position Interpolation), sec. 2.3, with factor = L'/L.
    """
    _refuse_factor(factor)
    f = frequencies(width, base=base)
    scaled = np.zeros(f.shape)
    for i in range(len(f)):
        scaled[i] = f[i] / factor
    return scaled


def dynamic_frequencies(
    width: int, *, base: float, factor: float, original: int, length: int
) -> np.ndarray:
    """f'[i] = base'^(-2i / width),

    base' = base (factor L / original - (factor - 1))^(width / (width - 2)),  L = max(length,
    original).  length is that of the current text, original that of the training texts: up to
    original, nothing changes.  -> (width/2,), width at least 4.
    The exponent ("NTK-aware", bloc97 2023) leaves f[0] unchanged and divides the last frequency by
    exactly the bracket; growth with the text ("dynamic NTK") is emozilla's, 2023.  Peng et al. 2023
    (YaRN) describe both.
    """
    _refuse_factor(factor)
    _refuse_original(original)
    if width < 4:
        raise ValueError(f"width must be at least 4, not {width}")
    longest = max(length, original)
    stretch = factor * longest / original - (factor - 1)
    return frequencies(width, base=base * stretch ** (width / (width - 2)))


def yarn_frequencies(
    width: int,
    *,
    base: float,
    factor: float,
    original: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> np.ndarray:
    """f'[i] = (1 - g[i]) f[i] + g[i] f[i] / factor,  g[i] = clip((i - low) / (high - low), 0, 1),

    low = max(d(beta_fast), 0),  high = min(d(beta_slow), width - 1), plus 0.001 if the two are
    equal, d(beta) = width ln(original / (2 pi beta)) / (2 ln base); with truncate, d is rounded
    down for low and up for high.  -> (width/2,).

    d(beta) is the pair that makes beta turns in original positions:
    base^(-2d / width) original = 2 pi beta.  So pairs with beta_fast turns or more are unchanged;
    those with beta_slow or fewer are divided by the factor.
    Peng et al. 2023 (YaRN), "NTK-by-parts", sec. 3.2: the interpolation is the paper's, the ramp g
    that of its released code (1 minus the paper's gamma, and linear in i, where the paper's is
    linear in the turns).  As there, low is bounded only from below and high only from above.  At
    the extremes this reverses the ramp: an original so short that high < 0 changes no pair, one so
    long that low > width - 1 divides all.
    """
    _refuse_factor(factor)
    _refuse_original(original)
    if base <= 1.0:
        raise ValueError(f"base must be above 1, not {base}")
    if not 0.0 < beta_slow <= beta_fast:
        raise ValueError(f"0 < beta_slow <= beta_fast must hold, not {beta_slow} and {beta_fast}")
    f = frequencies(width, base=base)

    low = width * math.log(original / (2 * math.pi * beta_fast)) / (2 * math.log(base))
    high = width * math.log(original / (2 * math.pi * beta_slow)) / (2 * math.log(base))
    if truncate:
        low = math.floor(low)
        high = math.ceil(high)
    low = max(low, 0)
    high = min(high, width - 1)
    if low == high:
        high += 0.001

    scaled = np.zeros(f.shape)
    for i in range(len(f)):
        g = min(max((i - low) / (high - low), 0.0), 1.0)
        scaled[i] = (1 - g) * f[i] + g * f[i] / factor
    return scaled


def yarn_magnitude(
    factor: float, *, mscale: float | None = None, mscale_all_dim: float | None = None
) -> float:
    """m(1) = 0.1 ln(factor) + 1, the factor on rotated queries and keys.

    With mscale and mscale_all_dim, neither None nor 0: m(mscale) / m(mscale_all_dim).
    m(s) = 0.1 s ln(factor) + 1, or 1 if factor <= 1.
    Peng et al. 2023 (YaRN), the attention scaling (sqrt(1/t)); the quotient: released code of
    DeepSeek-V2, 2024.
    """
    if factor <= 1.0:
        return 1.0
    if mscale and mscale_all_dim:
        return (0.1 * mscale * math.log(factor) + 1.0) / (
            0.1 * mscale_all_dim * math.log(factor) + 1.0
        )
    return 0.1 * math.log(factor) + 1.0


def yarn_score_scale(factor: float, *, mscale_all_dim: float | None = None) -> float:
    """m(mscale_all_dim)^2, a factor on the scale of attention's scores; 1 for None or 0.

    m(s) = 0.1 s ln(factor) + 1, or 1 if factor <= 1.                 released code of DeepSeek-V2,
    2024: softmax_scale * mscale * mscale.
    """
    if not mscale_all_dim or factor <= 1.0:
        return 1.0
    mscale = 0.1 * mscale_all_dim * math.log(factor) + 1.0
    return mscale * mscale


def llama3_frequencies(
    width: int,
    *,
    base: float,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original: int,
) -> np.ndarray:
    """With n[i] = original f[i] / (2 pi), the turns that pair i makes in original positions:

    f'[i] = f[i]                              if n[i] > high_freq_factor
            f[i] / factor                     if n[i] < low_freq_factor
            (1 - s) f[i] / factor + s f[i]    between,

    s = (n[i] - low_freq_factor) / (high_freq_factor - low_freq_factor).   -> (width/2,).
    Llama 3.1 as published by Meta, 2024 (code only, and in wavelengths: it compares 2 pi / f[i]
    with original / high_freq_factor and original / low_freq_factor, which is equivalent).
    """
    _refuse_factor(factor)
    _refuse_original(original)
    if not 0.0 < low_freq_factor < high_freq_factor:
        raise ValueError(
            "0 < low_freq_factor < high_freq_factor must hold, "
            f"not {low_freq_factor} and {high_freq_factor}"
        )
    f = frequencies(width, base=base)
    scaled = np.zeros(f.shape)
    for i in range(len(f)):
        turns = original * f[i] / (2 * math.pi)
        if turns > high_freq_factor:
            scaled[i] = f[i]
        elif turns < low_freq_factor:
            scaled[i] = f[i] / factor
        else:
            s = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
            scaled[i] = (1 - s) * f[i] / factor + s * f[i]
    return scaled


def longrope_frequencies(width: int, *, base: float, factors: Sequence[float]) -> np.ndarray:
    """f'[i] = f[i] / factors[i].   -> (width/2,).

    Ding et al. 2024 (LongRoPE), sec. 3.1: the rescale factors lambda_i of each dimension, without
    the first positions that the paper leaves as they are.  A model has two lists of them: one for
    texts within the original context, one for longer texts.
    """
    f = frequencies(width, base=base)
    if len(factors) != len(f):
        raise ValueError(f"{len(f)} factors are needed, not {len(factors)}")
    scaled = np.zeros(f.shape)
    for i in range(len(f)):
        _refuse_factor(factors[i])
        scaled[i] = f[i] / factors[i]
    return scaled


def longrope_magnitude(factor: float, *, original: int) -> float:
    """sqrt(1 + ln(factor) / ln(original)), 1 if factor <= 1: multiplies rotated queries and keys.

    factor = extended context / original context.  Phi-3 as published by Microsoft, 2024 (code).
    """
    if original <= 1:
        raise ValueError(f"original must be above 1, not {original}")
    if factor <= 1.0:
        return 1.0
    return math.sqrt(1.0 + math.log(factor) / math.log(original))


def _refuse_factor(factor: float) -> None:
    if factor <= 0.0:
        raise ValueError(f"factor must be above 0, not {factor}")


def _refuse_original(original: int) -> None:
    if original <= 0:
        raise ValueError(f"original must be above 0, not {original}")
