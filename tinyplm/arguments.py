"""Checks of arguments at the public border.  Every error is one line: "name: expected ..., got ..."."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Collection
from typing import Any

LONGEST = 80  # characters of a value that a message repeats


def shown(value: Any, longest: int = LONGEST) -> str:
    """A value as a message repeats it: on one line, printable, not longer than `longest`; arrays by dtype and shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} array of shape {tuple(value.shape)}"
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print thousands of digits
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        text = repr(value[: longest + 1])
    else:
        try:
            text = repr(value)
        except (RecursionError, ValueError):  # nested too deep, or with such an integer inside
            text = f"a {type(value).__name__}"
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def wrong(name: str, expected: str, value: Any) -> ValueError:
    """The error to raise for an argument that is not what was expected."""
    return ValueError(f"{name}: expected {expected}, got {shown(value)}")


def is_whole(value: Any) -> bool:
    """Whether it is an integer, Python's or NumPy's; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite real number, Python's or NumPy's; True and False are none."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float
        return False


def check_whole(name: str, value: Any, least: int = 0, most: int | None = None, *, or_none: bool = False) -> None:
    """ValueError unless value is an integer from `least` to `most` (or None, where that is allowed)."""
    if (or_none and value is None) or (is_whole(value) and least <= value and (most is None or value <= most)):
        return
    limits = f">= {least}" if most is None else f"from {least} to {most}"
    raise wrong(name, f"{'None or ' * or_none}an integer {limits}", value)


def check_number(name: str, value: Any, *, least: float | None = None, most: float | None = None, above: float | None = None,
                 below: float | None = None, or_none: bool = False) -> None:  # fmt: skip
    """ValueError unless value is a finite number with least <= value <= most and above < value < below."""
    if or_none and value is None:
        return
    holds = (
        is_number(value)
        and (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not holds:
        limits = [f"{sign} {limit}" for sign, limit in ((">=", least), (">", above), ("<=", most), ("<", below))
                  if limit is not None]  # fmt: skip
        raise wrong(name, f"{'None or ' * or_none}a finite number{' ' * bool(limits)}{' and '.join(limits)}", value)


def plain_numbers(settings: Any) -> None:
    """Replace NumPy's numbers in a frozen dataclass by Python's, which can be written as JSON."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if type(value) not in (int, float) and (is_whole(value) or is_number(value)):
            object.__setattr__(settings, field.name, int(value) if is_whole(value) else float(value))


def check_choice(name: str, value: Any, choices: Collection[Any], *, or_none: bool = False) -> None:
    """ValueError unless value is one of the choices."""
    if (or_none and value is None) or any(type(value) is type(choice) and value == choice for choice in choices):
        return
    raise wrong(name, f"{'None or ' * or_none}one of {', '.join(map(str, choices))}", value)


def check_text(name: str, value: Any, *, or_none: bool = False, empty: bool = True) -> None:
    """ValueError unless value is a string (that is not empty, where empty=False)."""
    if not ((or_none and value is None) or (isinstance(value, str) and (empty or value))):
        raise wrong(name, f"{'None or ' * or_none}a string{' that is not empty' * (not empty)}", value)


def check_flag(name: str, value: Any) -> None:
    """ValueError unless value is True or False."""
    if not isinstance(value, bool):
        raise wrong(name, "True or False", value)
