"""The rules of CuPy that need no array class: the recorded API, signatures, dtypes, and the counters."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import inspect
import json
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np

API = json.loads(pathlib.Path(__file__).with_name("cupy_api.json").read_text())
DTYPES = frozenset(np.dtype(name) for name in API["dtypes"])


class SynchronisationError(RuntimeError):
    """Something made the host wait for the device inside `no_synchronisation()`."""


class PromotionError(TypeError):
    """CuPy and NumPy would give results of different dtypes, so the code is not portable."""


@dataclasses.dataclass
class Counters:
    """What crossed between host and device.  A copy to the host is also a synchronisation."""

    synchronisations: int = 0
    host_to_device: int = 0
    device_to_host: int = 0

    def reset(self) -> None:
        self.synchronisations = self.host_to_device = self.device_to_host = 0


counters = Counters()
_forbidden = 0  # number of open no_synchronisation() blocks


def synchronise(what: str) -> None:
    """Called where CuPy waits for the device; `what` is the operation."""
    if _forbidden:
        raise SynchronisationError(f"{what} makes the host wait for the device")
    counters.synchronisations += 1


def copy_to_host(what: str) -> None:
    synchronise(what)
    counters.device_to_host += 1


@contextlib.contextmanager
def no_synchronisation() -> Iterator[None]:
    """Every host synchronisation in the block raises SynchronisationError, at the line that causes it."""
    global _forbidden
    _forbidden += 1
    try:
        yield
    finally:
        _forbidden -= 1


@contextlib.contextmanager
def counting() -> Iterator[Counters]:
    """Yields counters that hold what happened in the block, once it has ended."""
    before = dataclasses.replace(counters)
    inside = Counters()
    try:
        yield inside
    finally:
        for field in dataclasses.fields(Counters):
            setattr(inside, field.name, getattr(counters, field.name) - getattr(before, field.name))


_thread = threading.local()


def quietly(function: Callable, /, *args, **kwargs):
    """function(...) without NumPy's warnings: a GPU neither warns nor raises.

    As under np.errstate(all="ignore"), which is entered once a thread: once an operation takes as long as a small operation.
    """
    try:
        run = _thread.run
    except AttributeError:
        with np.errstate(all="ignore"):
            run = _thread.run = contextvars.copy_context().run
    return run(function, *args, **kwargs)


def checked_dtype(dtype) -> np.dtype:
    """`dtype` as NumPy's dtype, if CuPy has arrays of it (no object, longdouble, strings, big-endian)."""
    found = np.dtype(dtype)
    if found not in DTYPES:
        raise TypeError(f"Unsupported dtype {found}: CuPy has {', '.join(API['dtypes'])}")
    return found


def signature_of(text: str) -> inspect.Signature:
    """The signature recorded as text, e.g. 'a, axis=None, *, dtype=float'."""
    names = {"float": float, "int": int, "float64": np.float64}
    return inspect.signature(eval(f"lambda {text}: None", names))  # the text is our own, from cupy_api.json


class Call:
    """How CuPy's function may be called, and where the same call means something else in NumPy."""

    def __init__(self, name: str, text: str, numpy_function, *, method: bool = False):
        self.name = name
        self.signature = signature_of(text)
        self.parameters = list(self.signature.parameters.values())
        self.refused = API["refused"].get(name, {})
        self.known: dict[tuple, list[str]] = {}  # the names of positional arguments, by the form of the call
        self.explicit = []  # parameters whose default differs: leaving them out means different things
        self.positional = sys.maxsize  # up to this many positional arguments mean the same to both
        try:
            theirs = list(inspect.signature(numpy_function).parameters.values())[method:]
        except (TypeError, ValueError):  # NumPy before 2.4 has no signature for functions in C
            return
        # NumPy 2.1 renamed reshape's second argument; the old name remains as a keyword until 2.4
        theirs = [p for p in theirs if (self.name, p.name) != ("reshape", "newshape")]
        places = {p.name: i for i, p in enumerate(theirs)}
        ours = {p.name for p in self.parameters}
        for i, parameter in enumerate(self.parameters):
            place = places.get(parameter.name, i)
            other = theirs[i].name if i < len(theirs) else parameter.name
            by_position = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            if by_position and (place != i or (other != parameter.name and other in ours)):
                self.positional = min(self.positional, i)
            if parameter.name in places:
                defaults = (theirs[place].default, parameter.default)
                if all(isinstance(d, str) for d in defaults) and defaults[0] != defaults[1]:
                    self.explicit.append(parameter.name)

    def bind(self, args: tuple, kwargs: dict) -> list[tuple[str, object]]:
        """(parameter, value) of the positional arguments; TypeError if CuPy would refuse the call."""
        form = (len(args), *kwargs)  # all that binding depends on
        if form not in self.known:
            self.known[form] = self._names(args, kwargs)
        positional = list(zip(self.known[form], args, strict=False))
        if self.refused:
            given = dict(positional) | kwargs
            for name, values in self.refused.items():
                if name in given and not any(given[name] is v or given[name] == v for v in values):
                    raise TypeError(f"cupy.{self.name} takes {name} only as {values}, got {given[name]!r}")
        return positional

    def _names(self, args: tuple, kwargs: dict) -> list[str]:
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"cupy.{self.name}{self.signature}: {error}") from None
        for name in self.explicit:
            if name not in bound:
                raise TypeError(f"{self.name}: the default of {name} differs between NumPy and CuPy; give it")
        if len(args) > self.positional:
            name = self.parameters[self.positional].name
            raise TypeError(f"{self.name}: {name} stands elsewhere in NumPy; give it by keyword")
        names = []
        for parameter in self.parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                names.extend([parameter.name] * (len(args) - len(names)))
            else:
                names.append(parameter.name)
        return names
