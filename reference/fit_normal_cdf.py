"""Refits the polynomial in tinyplm.kernels.activation.normal_cdf.

    python -m reference.fit_normal_cdf

Phi(x) = (1 + tanh(x P(x^2))) / 2 with P(x^2) = atanh(erf(x / sqrt 2)) / x.  P grows slowly and
smoothly, so a polynomial of low degree is enough; Hendrycks & Gimpel 2016 use degree 1.  The
largest error of Phi is minimised by least squares with weights that increase where the error is
large (Lawson 1961).
"""

import math

import numpy as np

DEGREE, LAST, ROUNDS = 6, 6.0, 20000
x = LAST * np.cos(np.linspace(0, np.pi / 2, 2001))[:-1]
tail = np.array([math.erfc(v / math.sqrt(2)) / 2 for v in x])  # 1 - Phi
P = (np.log1p(-tail) - np.log(tail)) / 2 / x
slope = 2 * (1 - tail) * tail * x  # d Phi / d P


def fit() -> tuple[float, list[float]]:
    """(largest error of Phi, coefficients, highest power of x^2 first)."""
    powers = np.polynomial.chebyshev.chebvander(2 * (x / LAST) ** 2 - 1, DEGREE)
    weight, best = np.ones(len(x)), (math.inf, None)
    for _ in range(ROUNDS):
        row = slope * np.sqrt(weight)
        c = np.linalg.lstsq(powers * row[:, None], P * row, rcond=None)[0]
        error = np.abs((1 + np.tanh(x * (powers @ c))) / 2 - (1 - tail))
        if error.max() < best[0]:
            best = error.max(), c
        weight *= np.sqrt(error) + 1e-30
        weight /= weight.mean()
    series = np.polynomial.Chebyshev(best[1], domain=[0, LAST**2])
    power_series = series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1])
    return float(best[0]), power_series.coef[::-1].tolist()


if __name__ == "__main__":
    largest, coefficients = fit()
    print(f"error of Phi: {largest:.2g}")
    print(*(f"{c:.9g}" for c in coefficients), sep=", ")
