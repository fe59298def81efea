"""Dual numbers that also bound their own rounding errors (running error analysis: Wilkinson 1986; Higham 2002, sec. 3.3).

A gradient that cancels is all rounding: those of a softmax over a single key are zero in exact arithmetic, those of a saturated
tanh are tiny beside the terms of 1 - tanh^2.  Its error, divided by itself, says nothing.  The bound says what rounding explains.

Next to a + b eps, a number has a bound on the error of a and one on that of b, in units of EPS and to first order.  For z = f(x),

    value        |f'| error(x) + |f|                              what x passes on, and the rounding of z
    derivative   |f'| error(x') + |x'| (|f''| error(x) + |f'|)    z' = f'(x) x': from x', from f'(x), and its rounding

and alike for z = f(x, y).  Sums count the size of their terms, not of the result: a backward pass adds the same terms in another
order.
"""

from __future__ import annotations

import math

from reference.dual import Dual


class Bounded(Dual):
    """value + derivative eps, and a bound on the error of either."""

    __slots__ = ("derivative_error", "value_error")

    def __init__(self, value: float, derivative: float, value_error: float = 0.0, derivative_error: float = 0.0) -> None:
        super().__init__(value, derivative)
        self.value_error = value_error
        self.derivative_error = derivative_error

    def __neg__(self):
        return Bounded(-self.value, -self.derivative, self.value_error, self.derivative_error)

    def __add__(self, other):
        x, y = self, _bounded(other)
        return Bounded(
            x.value + y.value,
            x.derivative + y.derivative,
            x.value_error + y.value_error + abs(x.value) + abs(y.value),
            x.derivative_error + y.derivative_error + abs(x.derivative) + abs(y.derivative),
        )

    def __mul__(self, other):
        x, y = self, _bounded(other)
        a, b, c, d = abs(x.value), abs(x.derivative), abs(y.value), abs(y.derivative)
        return Bounded(
            x.value * y.value,
            x.value * y.derivative + x.derivative * y.value,
            a * y.value_error + c * x.value_error + a * c,
            a * y.derivative_error + d * x.value_error + c * x.derivative_error + b * y.value_error + a * d + b * c,
        )

    def _function(self, value: float, slope: float, curvature: float, terms: float | None = None):
        """f(self) from f, f' and f'' at its value; `terms`: the size of the terms of f', if it is a sum of larger ones."""
        s, b = abs(slope), abs(self.derivative)
        return Bounded(
            value,
            slope * self.derivative,
            s * self.value_error + abs(value),
            s * self.derivative_error + b * (abs(curvature) * self.value_error + (s if terms is None else terms)),
        )

    def __radd__(self, other):
        return _bounded(other) + self

    def __sub__(self, other):
        return self + -_bounded(other)

    def __rsub__(self, other):
        return _bounded(other) + -self

    def __rmul__(self, other):
        return _bounded(other) * self

    def __truediv__(self, other):
        y = _bounded(other)
        return self * y._function(1 / y.value, -1 / y.value**2, 2 / y.value**3)

    def __rtruediv__(self, other):
        return _bounded(other) / self

    def __pow__(self, n):
        a = self.value
        if n == 2:
            return self._function(a**2, 2 * a, 2.0)
        return self._function(a**n, n * a ** (n - 1), n * (n - 1) * a ** (n - 2))

    def exp(self):
        y = math.exp(self.value)
        return self._function(y, y, y)

    def log(self):
        return self._function(math.log(self.value), 1 / self.value, -1 / self.value**2)

    def sqrt(self):
        y = math.sqrt(self.value)
        return self._function(y, 1 / (2 * y), -1 / (4 * y**3))

    def tanh(self):
        y, slope = math.tanh(self.value), Dual(self.value, 1.0).tanh().derivative
        return self._function(y, slope, -2 * y * slope, terms=1 + y**2)  # slope = 1 - y^2

    def erf(self):
        slope = Dual(self.value, 1.0).erf().derivative
        return self._function(math.erf(self.value), slope, -2 * self.value * slope)


def _bounded(x) -> Bounded:
    return x if isinstance(x, Bounded) else Bounded(x, 0.0)
