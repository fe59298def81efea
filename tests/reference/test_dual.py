"""Dual numbers against known derivatives and exact fractions, and the bounds on their rounding errors."""

import math
import operator
from fractions import Fraction

import numpy as np
import pytest

from reference import scalar
from reference.dual import Dual
from tests.laws import FEW
from tests.support.running_error import Bounded
from tinyplm.checks.rounding import EPS

POINTS = (0.3, 1.0, 2.5)
FUNCTIONS = {
    scalar.exp: (math.exp, math.exp),
    scalar.expm1: (math.expm1, math.exp),
    scalar.log: (math.log, lambda a: 1 / a),
    scalar.log1p: (math.log1p, lambda a: 1 / (1 + a)),
    scalar.sqrt: (math.sqrt, lambda a: 0.5 * a**-0.5),
    scalar.tanh: (math.tanh, lambda a: math.cosh(a) ** -2),
    scalar.erf: (math.erf, lambda a: 2 * math.pi**-0.5 * math.exp(-(a**2))),
    scalar.sin: (math.sin, math.cos),
    scalar.cos: (math.cos, lambda a: -math.sin(a)),
}


def parts(x):
    return x.value, x.derivative


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_functions(f):
    plain, slope = FUNCTIONS[f]
    for a in POINTS if plain in (math.log, math.sqrt) else (-0.7, 0.0, *POINTS):
        y = f(Dual(a, -1.5))
        assert y.value == f(a) == plain(a)
        assert y.derivative == pytest.approx(-1.5 * slope(a), rel=FEW)
        h = 1e-5  # its square, and 1e-16 / h, are below 1e-9
        if plain not in (math.log, math.sqrt) or a > h:
            assert y.derivative == pytest.approx(-1.5 * (plain(a + h) - plain(a - h)) / (2 * h), abs=1e-8)


def test_slopes_far_out():
    """In full relative precision, where 1 - tanh^2 is nothing but rounding; no overflow."""
    assert Dual(-20.0, 1.0).tanh().derivative == pytest.approx(4 * math.exp(-40), rel=FEW)
    assert parts(Dual(1e4, 1.0).tanh()) == (1.0, 0.0)
    assert Dual(6.0, 1.0).erf().derivative == pytest.approx(2 / math.sqrt(math.pi) * math.exp(-36), rel=FEW)


ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv)


@pytest.mark.parametrize("f", ARITHMETIC)
def test_arithmetic(f):
    """(f(x + h b, y + h d) - f(x, y)) / h as h vanishes, in exact fractions; f is at most bilinear or a quotient."""
    a, b, c, d = (Fraction(n, 7) for n in (5, -3, 11, 2))
    exact = {operator.add: b + d, operator.sub: b - d, operator.mul: a * d + b * c, operator.truediv: (b * c - a * d) / c**2}[f]
    only_x = {operator.add: b, operator.sub: b, operator.mul: b * c, operator.truediv: b / c}[f]
    only_y = {operator.add: d, operator.sub: -d, operator.mul: a * d, operator.truediv: -a * d / c**2}[f]
    assert parts(f(Dual(a, b), Dual(c, d))) == (f(a, c), exact)
    assert parts(f(Dual(a, b), c)) == (f(a, c), only_x)
    assert parts(f(a, Dual(c, d))) == (f(a, c), only_y)


@pytest.mark.parametrize("f", (*ARITHMETIC, operator.pow))
def test_numbers_of_numpy_on_either_side(f):
    x, two = Dual(3.0, 0.5), np.float64(2.0)
    assert parts(f(two, x)) == parts(f(2.0, x)) and parts(f(x, two)) == parts(f(x, 2.0))
    assert parts(f(np.int64(2), x)) == parts(f(2.0, x))


def test_signs():
    x = Dual(-2.0, 0.5)
    assert parts(-x) == (2.0, -0.5) and parts(+x) == (-2.0, 0.5)
    assert parts(abs(x)) == (2.0, -0.5) and parts(abs(-x)) == (2.0, -0.5)


def test_powers():
    for a in (*POINTS, -1.5):
        for n in (-2, -1, 0, 1, 2, 3):
            y = Dual(a, 0.5) ** n
            assert y.value == a**n and y.derivative == pytest.approx(0.5 * n * a ** (n - 1), rel=FEW)
    assert parts(Dual(0.0, 0.5) ** 2) == (0.0, 0.0) and parts(Dual(0.0, 0.5) ** 0) == (1.0, 0.0)
    assert (Dual(4.0, 1.0) ** -0.5).derivative == pytest.approx(-0.5 * 4**-1.5, rel=FEW)
    assert (3.0 ** Dual(2.0, 0.5)).derivative == pytest.approx(0.5 * 9 * math.log(3), rel=FEW)
    x, y = Dual(3.0, 0.5), Dual(2.0, -0.7)
    assert (x**y).value == 9.0
    assert (x**y).derivative == pytest.approx((y * x.log()).exp().derivative, rel=FEW)


def test_identities():
    for a in POINTS:
        x = Dual(a, 0.5)
        for same in (x.log().exp(), x.sqrt() ** 2, x.expm1().log1p(), 1.0 / (1.0 / x), (x.exp() - 1.0).log1p()):
            assert same.derivative == pytest.approx(0.5, rel=10 * FEW)
        assert abs((x.sin() ** 2 + x.cos() ** 2).derivative) < FEW
        assert x.tanh().derivative == pytest.approx((1 - 2 / ((2 * x).exp() + 1)).derivative, rel=10 * FEW)


def test_comparisons_go_by_value():
    x, y = Dual(1.0, 5.0), Dual(2.0, -5.0)
    assert x < y and x <= y and y > x and y >= x and x != y and x == Dual(1.0, 0.0)
    assert x < 1.5 and 1.5 > x and np.float64(1.5) > x and x >= np.float64(1.0) and x == 1.0 and x != 1.5
    assert max(x, y) is y and min(x, y) is x and max(0.0, x) is x and min(max(x, 1.5), 9.0) == 1.5
    assert max(x, Dual(1.0, 7.0)) is x  # a tie


def test_no_derivative_is_dropped():
    """Whatever would turn a dual number into a float raises, and says why."""
    x = Dual(1.0, 2.0)
    held = np.array([x, x])
    for convert in (float, int, bool, math.exp, lambda x: np.zeros(1).__setitem__(0, x), lambda x: held.astype(float),
                    lambda x: np.asarray([x], dtype=np.float64), lambda x: np.full(2, x, dtype=float)):  # fmt: skip
        with pytest.raises(TypeError, match="dual number"):
            convert(x)
    with pytest.raises(TypeError):
        hash(x)
    with pytest.raises(TypeError):
        np.exp(x)


def test_arrays():
    """`numbers` and `zeros` make arrays of float64, and of objects as soon as one input holds dual numbers."""
    x, held = np.ones(2, dtype=np.float32), np.array([Dual(1.0, 2.0), 3.0])
    assert scalar.numbers(x).dtype == scalar.zeros(3, like=x).dtype == scalar.zeros(3, like=(x, None)).dtype == np.float64
    assert scalar.numbers(held) is held
    assert scalar.zeros(3, like=held).dtype == scalar.zeros(3, like=(x, None, held)).dtype == object
    assert scalar.zeros((2, 3), like=held).tolist() == [[0.0] * 3] * 2
    assert scalar.number(held[0]) is held[0] and type(scalar.number(x[0])) is float


def test_bounds_on_rounding_hold_and_are_not_far_off():
    """Random formulas that cancel, against the same in exact fractions."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        a, b, c, d = rng.normal(size=4)
        numbers = {kind: (kind(of(a), of(b)), kind(of(c), of(d))) for kind, of in ((Bounded, float), (Dual, Fraction))}
        order = rng.permutation(6)
        found = {}
        for kind, (x, y) in numbers.items():
            z = x
            for step in order:
                z = (z + y, z * x - y, z / (y * y + 2), z**2 - z, (z - x) * z, 3 * z - x)[step]
            found[kind] = z
        bounded, exact = found[Bounded], found[Dual]
        for error, bound in (
            (abs(Fraction(bounded.value) - exact.value), EPS * bounded.value_error),
            (abs(Fraction(bounded.derivative) - exact.derivative), EPS * bounded.derivative_error),
        ):
            assert error <= bound
            shares.append(float(error) / bound)
    assert max(shares) > 0.02
