"""What the formulas are computed with: floats, or dual numbers where a derivative is wanted.

The loops of the reference take exp, sqrt, ... from here instead of from math, and make their arrays
with `numbers` and `zeros`.  With floats these are math's functions and NumPy's arrays of float64.
With dual numbers (dual.py) among the inputs, the same loop gives the exact derivative as well.
"""

import math

import numpy as np

from reference.dual import Dual


def number(x):
    """x as a float; as it is if it is a dual number."""
    return x if isinstance(x, Dual) else float(x)


def numbers(x) -> np.ndarray:
    """x as an array of float64; as it is if it holds dual numbers."""
    x = np.asarray(x)
    return x if x.dtype == object else np.asarray(x, dtype=np.float64)


def zeros(shape, *, like) -> np.ndarray:
    """An array of zeros for results computed from `like`, an array or a tuple of arrays or None.

    float64; able to hold dual numbers if one of those arrays holds some.
    """
    sources = like if isinstance(like, tuple) else (like,)
    dual = any(isinstance(source, np.ndarray) and source.dtype == object for source in sources)
    return np.full(shape, 0.0, dtype=object if dual else np.float64)


def exp(x):
    return x.exp() if isinstance(x, Dual) else math.exp(x)


def expm1(x):
    return x.expm1() if isinstance(x, Dual) else math.expm1(x)


def log(x):
    return x.log() if isinstance(x, Dual) else math.log(x)


def log1p(x):
    return x.log1p() if isinstance(x, Dual) else math.log1p(x)


def sqrt(x):
    return x.sqrt() if isinstance(x, Dual) else math.sqrt(x)


def tanh(x):
    return x.tanh() if isinstance(x, Dual) else math.tanh(x)


def erf(x):
    return x.erf() if isinstance(x, Dual) else math.erf(x)


def sin(x):
    return x.sin() if isinstance(x, Dual) else math.sin(x)


def cos(x):
    return x.cos() if isinstance(x, Dual) else math.cos(x)
