"""The meter of a chat template's render: limits on time, sizes and depth.

Every step of the template goes through it (sandbox.py): each iteration of a loop, each call,
filter, test and operator that creates a value, and each piece of output.  For m messages of n
characters in total, a render is refused if

    time     it takes more than SECONDS + m / 1000 seconds
    size     a value has more than LARGEST + 16 n characters and items, counted as if printed
    memory   all values and all output together exceed ROOM + 1000 n characters
    depth    calls (macros) or values are nested more than DEEPEST levels deep

A single step takes time proportional to the sizes of its arguments and result, which are known
before it runs, so no limit is exceeded by much.  There are no signals and no processes: this works
in any thread, on any system.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

from jinja2 import TemplateError, Undefined

SECONDS = 1.0
LARGEST = 10**6
ROOM = 10**8
DEEPEST = 100
MAX_BITS = 4096  # of an integer

_VIEWS: tuple[type, ...] = (type({}.items()), type({}.keys()), type({}.values()))


class LimitError(TemplateError):
    """A template exceeds a limit; the message is complete."""


class Meter:
    """What a render may still use."""

    def __init__(self, size: int, messages: int):
        self.seconds = SECONDS + messages / 1000
        self.deadline = perf_counter() + self.seconds
        self.largest, self.room = LARGEST + 16 * size, ROOM + 1000 * size
        self.limit = self.room
        self.depth = 0
        # id -> (the container, kept alive while its id is in use; weight; depth)
        self.known: dict[int, tuple[Any, int, int]] = {}

    def step(self) -> None:
        """Check the time."""
        if perf_counter() > self.deadline:
            raise LimitError(f"expected at most {self.seconds:g} seconds, got more")

    def weight(self, value: Any) -> int:
        """The characters and items of a value, including its content."""
        return self._weight(value, 0)[0]

    def _weight(self, value: Any, level: int) -> tuple[int, int]:
        if isinstance(value, str):
            return len(value), 0
        if value is None or isinstance(value, (bool, float, Undefined)):
            return 1, 0
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise LimitError(f"expected integers of at most {MAX_BITS} bits, got more")
            return 1 + value.bit_length() // 4, 0
        if isinstance(value, range):
            return 8 * len(value), 1
        # Objects of jinja2: a macro, a namespace.
        if not isinstance(value, (list, tuple, Mapping, *_VIEWS)):
            return 100, 0
        if id(value) in self.known:
            return self.known[id(value)][1:]
        contents: Any = value
        if isinstance(value, Mapping):
            contents = itertools.chain.from_iterable(value.items())
        weight, depth = 2, 0
        for item in contents:
            w, d = self._weight(item, level + 1)
            weight, depth = weight + w + 2, max(depth, d + 1)
            if weight > self.largest or depth + level > DEEPEST:
                break
        if weight > self.largest:
            raise self.too_large()
        if depth + level > DEEPEST:
            raise LimitError(f"expected values nested at most {DEEPEST} levels deep, got more")
        self.known[id(value)] = value, weight, depth
        return weight, depth

    def too_large(self) -> LimitError:
        """The error for a value beyond the largest size."""
        return LimitError(
            f"expected values of at most {self.largest:,} characters and items, got more"
        )

    def made(self, value: Any) -> Any:
        """A value created by a step.

        Generators become lists: they have no size, and a million nested ones crash Python.
        """
        if isinstance(value, Iterator):
            value = list(value)
        if (weight := self.weight(value)) > self.largest:
            raise self.too_large()
        self.charge(8 * len(value) if isinstance(value, (list, tuple, Mapping)) else weight)
        return value

    def charge(self, count: int) -> None:
        """Count characters against the limit on memory."""
        self.room -= count
        if self.room < 0:
            raise LimitError(f"expected at most {self.limit:,} characters in all, got more")

    def product(self, name: str, values: Sequence[Any]) -> None:
        """Check a step before it runs, if its cost is the product of its arguments' sizes."""
        if name == "replace":
            values = [*values[:1], *values[2:]]  # not the text to be replaced
        sizes = (
            abs(v) if isinstance(v, int) else self.weight(v)
            for v in values
            if v is not None and not isinstance(v, bool)
        )
        product = math.prod(1 + size for size in sizes)
        if product > self.limit:
            raise LimitError(f"{name}: expected at most {self.limit:,} steps, got more")
