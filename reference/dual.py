"""Dual numbers a + b eps with eps^2 = 0, which carry a derivative through a formula.

Clifford 1873 (Preliminary sketch of biquaternions) has the algebra.  In the Taylor series of f the
powers of eps from the second on are zero, so

    f(a + b eps) = f(a) + f'(a) b eps.

A formula that starts from x + d eps thus ends with f(x) and, as the factor of eps, the derivative
of f at x in the direction d: exact except for rounding.  This is the forward mode of Griewank &
Walther 2008 (Evaluating Derivatives, 2nd ed.), sec. 3.1.

The operators of Python work on dual numbers, and mix them with floats, which have b = 0.  The
functions exp, log, ... are methods.  Comparisons, and with them max, min and branches, go by a
alone; max and min return their first argument in a tie.  A dual number does not become a float:
that would drop the derivative.
"""

import math


class Dual:
    """value + derivative eps."""

    __slots__ = ("value", "derivative")
    __array_ufunc__ = None  # NumPy's scalars leave their operators with a dual number to it

    def __init__(self, value: float, derivative: float) -> None:
        self.value = value
        self.derivative = derivative

    def __repr__(self) -> str:
        return f"{self.value} + {self.derivative} eps"

    # Arithmetic

    def __neg__(self):
        """-(a + b eps) = -a - b eps."""
        return Dual(-self.value, -self.derivative)

    def __pos__(self):
        """+(a + b eps) = a + b eps."""
        return self

    def __abs__(self):
        """|a + b eps| = |a| + sign(a) b eps; b at a = 0, as max(x, -x)."""
        return -self if self.value < 0.0 else self

    def __add__(self, other):
        """(a + b eps) + (c + d eps) = (a + c) + (b + d) eps."""
        c, d = _parts(other)
        return Dual(self.value + c, self.derivative + d)

    def __radd__(self, other):
        """c + (a + b eps) = (c + a) + b eps."""
        return Dual(other + self.value, self.derivative)

    def __sub__(self, other):
        """(a + b eps) - (c + d eps) = (a - c) + (b - d) eps."""
        c, d = _parts(other)
        return Dual(self.value - c, self.derivative - d)

    def __rsub__(self, other):
        """c - (a + b eps) = (c - a) - b eps."""
        return Dual(other - self.value, -self.derivative)

    def __mul__(self, other):
        """(a + b eps) (c + d eps) = a c + (a d + b c) eps."""
        c, d = _parts(other)
        return Dual(self.value * c, self.value * d + self.derivative * c)

    def __rmul__(self, other):
        """c (a + b eps) = c a + c b eps."""
        return Dual(other * self.value, other * self.derivative)

    def __truediv__(self, other):
        """(a + b eps) / (c + d eps) = a / c + (b - (a / c) d) / c eps."""
        c, d = _parts(other)
        quotient = self.value / c
        return Dual(quotient, (self.derivative - quotient * d) / c)

    def __rtruediv__(self, other):
        """c / (a + b eps) = c / a - (c / a) (b / a) eps."""
        quotient = other / self.value
        return Dual(quotient, -quotient * self.derivative / self.value)

    def __pow__(self, power):
        """(a + b eps)^n = a^n + n a^(n - 1) b eps for a number n; otherwise x^y = e^(y log x)."""
        if isinstance(power, Dual):
            slope = power.value * self.value ** (power.value - 1) * self.derivative
            slope += self.value**power.value * math.log(self.value) * power.derivative
            return Dual(self.value**power.value, slope)
        if power == 0:
            return Dual(self.value**power, 0.0)
        return Dual(self.value**power, power * self.value ** (power - 1) * self.derivative)

    def __rpow__(self, base):
        """c^(a + b eps) = c^a + c^a log(c) b eps."""
        power = base**self.value
        return Dual(power, power * math.log(base) * self.derivative)

    # Functions

    def exp(self):
        """e^(a + b eps) = e^a + e^a b eps."""
        y = math.exp(self.value)
        return Dual(y, y * self.derivative)

    def expm1(self):
        """e^(a + b eps) - 1 = (e^a - 1) + e^a b eps."""
        return Dual(math.expm1(self.value), math.exp(self.value) * self.derivative)

    def log(self):
        """log(a + b eps) = log a + b / a eps."""
        return Dual(math.log(self.value), self.derivative / self.value)

    def log1p(self):
        """log(1 + a + b eps) = log(1 + a) + b / (1 + a) eps."""
        return Dual(math.log1p(self.value), self.derivative / (1.0 + self.value))

    def sqrt(self):
        """sqrt(a + b eps) = sqrt(a) + b / (2 sqrt(a)) eps."""
        y = math.sqrt(self.value)
        return Dual(y, self.derivative / (2.0 * y))

    def tanh(self):
        """tanh(a + b eps) = tanh a + b / cosh(a)^2 eps;  with e = e^(-2 |a|): 4 e / (1 + e)^2."""
        e = math.exp(-2.0 * abs(self.value))
        return Dual(math.tanh(self.value), 4.0 * e / (1.0 + e) ** 2 * self.derivative)

    def erf(self):
        """erf(a + b eps) = erf(a) + 2 / sqrt(pi) e^(-a^2) b eps."""
        slope = 2.0 / math.sqrt(math.pi) * math.exp(-self.value * self.value)
        return Dual(math.erf(self.value), slope * self.derivative)

    def sin(self):
        """sin(a + b eps) = sin a + cos(a) b eps."""
        return Dual(math.sin(self.value), math.cos(self.value) * self.derivative)

    def cos(self):
        """cos(a + b eps) = cos a - sin(a) b eps."""
        return Dual(math.cos(self.value), -math.sin(self.value) * self.derivative)

    # Comparisons, by value

    def __eq__(self, other):
        return self.value == _parts(other)[0]

    def __ne__(self, other):
        return self.value != _parts(other)[0]

    def __lt__(self, other):
        return self.value < _parts(other)[0]

    def __le__(self, other):
        return self.value <= _parts(other)[0]

    def __gt__(self, other):
        return self.value > _parts(other)[0]

    def __ge__(self, other):
        return self.value >= _parts(other)[0]

    __hash__ = None  # equal by value alone: no key of a dict

    # Refused

    def __float__(self):
        raise TypeError("a dual number is no float: the conversion would drop its derivative")

    def __int__(self):
        raise TypeError("a dual number is no int: the conversion would drop its derivative")

    def __bool__(self):
        raise TypeError("a dual number is no truth value: compare it with 0")


def _parts(x) -> tuple[float, float]:
    """a and b of a + b eps; b = 0 for a float."""
    if isinstance(x, Dual):
        return x.value, x.derivative
    return x, 0
