"""The strict device: a stand-in for CuPy on machines without a GPU (DESIGN.md, "GPU").

    from tests.gpu.strict import strict as xp, counters, counting, freeze, no_synchronisation, register

    register()                                  # now tinyplm.backend knows the device "strict"
    x = xp.asarray(host_array)                  # copies to the device; x.get() copies back
    with no_synchronisation():                  # raises at the line that makes the host wait
        y, backward = layer(freeze(x))          # writing into x raises

It computes with NumPy under CuPy's rules.  Names, keywords and dtypes are those of cupy_api.json (see
snapshot.py); host and device arrays do not mix; results are arrays, never scalars; memory from `empty`
holds garbage; and whatever silently goes wrong on a GPU (indices out of range, duplicate indices in an assignment)
raises.

    strict_rules.py      the recorded API, signatures, dtypes, counters
    strict_array.py      the array
    strict_index.py      what may stand between brackets
    strict_ufunc.py      ufuncs and operators
    strict_functions.py  functions and methods
"""

from __future__ import annotations

import numpy as np

from .strict_array import StrictArray, freeze
from .strict_functions import functions, linalg_functions
from .strict_rules import API, Counters, PromotionError, SynchronisationError, counters, counting, no_synchronisation
from .strict_ufunc import UFUNCS, StrictUfunc

__all__ = [
    "Counters",
    "PromotionError",
    "StrictArray",
    "SynchronisationError",
    "counters",
    "counting",
    "freeze",
    "no_synchronisation",
    "register",
    "strict",
    "to_device",
    "to_host",
]


class Module:
    """Stands for a module of CuPy: has the names in `known`, and explains why any other is missing."""

    def __init__(self, name: str, known: dict, recorded: dict):
        self.__name__ = name
        self.__dict__.update(known)
        self._recorded = frozenset().union(*recorded.values())

    def __repr__(self) -> str:
        return f"<strict device, {self.__name__}>"

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._recorded:
            raise AttributeError(f"{self.__name__}.{name} is not in NumPy too, or not for device code")
        raise AttributeError(f"CuPy {API['version']} has no {self.__name__}.{name}")


def _module() -> Module:
    known = {name: getattr(np, name) for name in API["cupy"]["constants"] if hasattr(np, name)}
    for name in API["cupy"]["types"]:  # scalar types, dtype, finfo, iinfo are NumPy's own in CuPy too
        found = getattr(np, name, None)
        if isinstance(found, type) and (issubclass(found, np.generic) or name in ("dtype", "finfo", "iinfo")):
            known[name] = found
    known |= functions() | {name: StrictUfunc(name) for name in UFUNCS}
    linalg = linalg_functions() | {"LinAlgError": np.linalg.LinAlgError}
    known["linalg"] = Module("cupy.linalg", linalg, API["cupy.linalg"])
    known["ndarray"] = StrictArray
    return Module("cupy", known, API["cupy"])


strict = _module()


def to_device(array: np.ndarray) -> StrictArray:
    return strict.asarray(array)


def to_host(array: StrictArray) -> np.ndarray:
    return array.get()


def register() -> None:
    """Make the strict device known to tinyplm under the name "strict"."""
    from tinyplm import backend  # imported here, so that this folder can be tested on its own

    backend.register_device("strict", xp=strict, array_type=StrictArray, to_device=to_device, to_host=to_host)
