"""The rational function in tinyplm.backend._erf32, found again: python -m reference.fit_erf

erf(x) = tanh(x R(x^2)) with R(s) = atanh(erf(x)) / x, which is smooth and grows slowly: a cubic over a cubic is enough.
The largest relative error of erf is made small by least squares with weights that grow where the error is large (Lawson 1961);
the division by the denominator is that of the round before (Sanathanan & Koerner 1963), so that each round is linear.
"""

import math

import numpy as np

DEGREE, ROUNDS = 3, 4000
x = 4.2 * np.cos(np.linspace(0, np.pi / 2, 4001))[:-1]  # beyond, erf is 1 in float32; denser at the end
erf, erfc = np.vectorize(math.erf)(x), np.vectorize(math.erfc)(x)
R = (np.log1p(erf) - np.log(erfc)) / 2 / x
slope = (1 + erf) * erfc * x / erf  # relative change of erf with R: d tanh(u) / du = 1 - tanh(u)^2


def fit() -> tuple[float, list[float], list[float]]:
    """(largest relative error, numerator, denominator), highest power first, the denominator's first coefficient 1."""
    scale = 8.0  # of s, so that its powers are of like size
    powers = np.vander(x * x / scale, DEGREE + 1, increasing=True)
    weight, denominator, best = np.ones(len(x)), np.ones(len(x)), (math.inf, None, None)
    for _ in range(ROUNDS):
        row = (slope * np.sqrt(weight) / denominator)[:, None]
        columns = np.concatenate([powers, -R[:, None] * powers[:, 1:]], axis=1)  # N(s) - R D(s) = 0 with D(0) = 1
        c = np.linalg.lstsq(columns * row, R * row[:, 0], rcond=None)[0]
        n, d = c[: DEGREE + 1], np.concatenate([[1], c[DEGREE + 1 :]])
        denominator = powers @ d
        error = np.abs(np.tanh(x * (powers @ n) / denominator) / erf - 1)
        if error.max() < best[0]:
            best = error.max(), n, d
        weight *= np.sqrt(error) + 1e-30
        weight /= weight.mean()
    largest, n, d = best
    top = d[-1] * scale**-DEGREE
    numerator, divisor = ((a / scale ** np.arange(DEGREE + 1) / top)[::-1].tolist() for a in (n, d))
    return float(largest), numerator, divisor


if __name__ == "__main__":
    largest, numerator, divisor = fit()
    print(
        "relative error of erf:", f"{largest:.2g}", " N:", *(f"{c:.9g}" for c in numerator), " D:", *(f"{c:.9g}" for c in divisor)
    )
