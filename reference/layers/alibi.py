"""ALiBi: attention with linear biases (Press et al. 2022)."""

import numpy as np


def alibi_slopes(heads: int) -> list[float]:
    """Head h of H has the slope m_h = 2^(-8 h / H), h = 1 .. H, for H a power of two.

    For other H the released code takes the P < H slopes of the largest power of two P below H, and
    then every other slope of 2 P heads, from the first, until there are H.
    Press et al. 2022, sec. 3, and its released code
    """
    largest = 1
    while 2 * largest <= heads:
        largest *= 2
    slopes = [2.0 ** (-8.0 * h / largest) for h in range(1, largest + 1)]
    h = 1
    while len(slopes) < heads:
        slopes.append(2.0 ** (-8.0 * h / (2 * largest)))
        h += 2
    return slopes


def alibi(queries: np.ndarray, keys: np.ndarray, *, slopes: list[float]) -> np.ndarray:
    """bias[b, h, t, s] = -m_h (i - j): i the position of query t, j that of key s.

    queries (B, T) and keys (B, S), their positions -> (B, H, T, S).      Press et al. 2022, sec. 3
    """
    bias = np.zeros((len(queries), len(slopes), queries.shape[1], keys.shape[1]))
    for b, h, t, s in np.ndindex(bias.shape):
        bias[b, h, t, s] = -slopes[h] * (float(queries[b, t]) - float(keys[b, s]))
    return bias
