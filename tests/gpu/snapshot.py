"""Records CuPy's API in cupy_api.json, so that tests on a machine without a GPU can check code against it.

Run it in its own virtual environment (CuPy's wheel installs and imports without a GPU):

    python3 -m venv /tmp/cupy
    /tmp/cupy/bin/pip install cupy-cuda12x
    /tmp/cupy/bin/python tests/gpu/snapshot.py

Nearly everything is read from the installed package: Python functions by `inspect.signature`, the compiled methods of
ndarray by the first line of their docstring, ufuncs by their attributes.  The rest is listed below, each item with its
place in CuPy's source; check there again when the version changes.
"""

from __future__ import annotations

import inspect
import json
import pathlib
import re

TARGET = pathlib.Path(__file__).with_name("cupy_api.json")

# Compiled functions without a signature; taken from their docstrings.
BY_HAND = {
    "broadcast": "*arrays",
    "from_dlpack": "array, *, device=None, copy=None",
    # _core/_gufuncs.py: _GUFunc.__call__
    "matmul": "x1, x2, /, out=None, *, axes=None, axis=None, keepdims=False, casting='same_kind', "
    "dtype=None, signature=None, order='K'",
    "min_scalar_type": "a",
    "promote_types": "type1, type2, /",
    "size": "a, axis=None",
    # Their signature says **kwargs; the names are in the body: linalg/_einsum.py, _creation/ranges.py,
    # _padding/pad.py
    "einsum": "*operands, dtype=None, casting='safe', optimize=False",
    "meshgrid": "*xi, indexing='xy', sparse=False, copy=True",
    "pad": "array, pad_width, mode='constant', *, constant_values=0, end_values=0, stat_length=None, reflect_type='even'",
}

# Keywords in a signature that CuPy refuses at run time, with the values that it does accept.
REFUSED = {
    "array": {"subok": [False]},  # _core/core.pyx: array
    "empty_like": {"subok": [None]},  # _creation/basic.py
    "ones_like": {"subok": [None]},
    "zeros_like": {"subok": [None]},
    "full_like": {"subok": [None]},
    "sort": {"kind": [None, "stable"]},  # _core/core.pyx: _check_kind_sort
    "argsort": {"kind": [None, "stable"]},
    "ndarray.sort": {"kind": [None, "stable"]},
    "ndarray.argsort": {"kind": [None, "stable"]},
    "ndarray.astype": {"subok": [None, False]},  # _core/core.pyx: _astype
    "packbits": {"axis": [None]},  # _binary/packing.py
    "unpackbits": {"axis": [None]},
    "shares_memory": {"max_work": [None]},  # _misc/memory_ranges.py
    "may_share_memory": {"max_work": [None]},
}

# The dtypes of ufunc.at with an integer index array: _core/_routines_indexing.pyx, _scatter_op_single.
INTEGERS = ["int32", "int64", "uint32", "uint64"]
AT_DTYPES = {
    "add": [*INTEGERS, "float16", "float32", "float64"],
    "sub": ["int32", "uint32"],
    "max": [*INTEGERS, "float32", "float64"],
    "min": [*INTEGERS, "float32", "float64"],
    "and": INTEGERS,
    "or": INTEGERS,
    "xor": INTEGERS,
}

# ufunc.__call__ pops exactly these from its keywords (_core/_kernel.pyx): no where=, order=, subok=.
UFUNC_KEYWORDS = ["casting", "dtype", "out"]
# The ufuncs that have each method (_core/_kernel.pyx compares their names); for all others it
# raises.
UFUNC_METHODS = {"accumulate": ["add", "multiply"], "reduce": ["add", "multiply"], "reduceat": ["add"]}
UFUNC_METHOD_SIGNATURES = {
    "accumulate": "array, axis=0, dtype=None, out=None",
    "at": "a, indices, b=None",
    "outer": "A, B, **kwargs",
    "reduce": "array, axis=0, dtype=None, out=None, keepdims=False",
    "reduceat": "array, indices, axis=0, dtype=None, out=None",
}
DTYPES = "?bBhHiIlLefdFD"  # _core/_dtype.pyx: all_type_chars; its "q" and "Q" are "l" and "L" on Linux
NO_METHODS = {"dump", "dumps", "mdspan", "toDlpack", "tofile"}  # not needed here


def signature_text(signature: inspect.Signature) -> str:
    """The parameters without annotations; types in defaults appear by name: 'a, axis=None, *, dtype=float'."""
    plain = []
    for parameter in signature.parameters.values():
        default = parameter.default
        if default is not parameter.empty and isinstance(default, type):
            name = default.__name__
            default = type("Name", (), {"__repr__": lambda self, name=name: name})()
        plain.append(parameter.replace(annotation=parameter.empty, default=default))
    return str(inspect.Signature(plain))[1:-1]


def method_signature(method) -> str | None:
    """A compiled method's: '_ndarray_base.sum(self, axis=None) -> _ndarray_base' yields 'axis=None'."""
    try:
        parameters = signature_text(inspect.signature(method)).split(", ")
    except ValueError:
        first = (method.__doc__ or "").split("\n")[0]
        found = re.match(r"_ndarray_base\.\w+\((.*)\)(?: -> \w+)?$", first)
        if not found:
            return None
        # "int axis=-1", "_ndarray_base out=None": drop the C type
        parameters = [re.sub(r"^(?:\w+ )(?=\w)", "", p) for p in found.group(1).split(", ")]
    if parameters[0] != "self":
        raise ValueError(f"not a method: {method}")
    return ", ".join(p for p in parameters[1:] if p != "/")


def ufunc_entry(ufunc) -> dict:
    entry = {"nin": ufunc.nin, "nout": ufunc.nout}
    types = []
    for loop, op in zip(ufunc.types, ufunc._ops.ops, strict=True):
        loop = loop.replace("q", "l").replace("Q", "L")
        if op.error_func is not None:  # a loop that exists to refuse its inputs, e.g. subtract of booleans
            loop = loop.split("->")[0] + "->!"
        if loop not in types:
            types.append(loop)
    entry["types"] = " ".join(types)
    if ufunc._scatter_op is not None:
        entry["at"] = ufunc._scatter_op
    for method, names in UFUNC_METHODS.items():
        if ufunc.name.removeprefix("cupy_") in names:
            entry[method] = True
    return entry


def module_entries(module, by_hand: dict) -> dict:
    """Public names of a module, by kind."""
    found = {"constants": [], "functions": {}, "types": [], "ufuncs": {}, "other": []}
    for name in sorted(n for n in dir(module) if not n.startswith("_")):
        value = getattr(module, name)
        kind = type(value).__name__
        if name in by_hand:
            found["functions"][name] = by_hand[name]
        elif kind == "ufunc":
            found["ufuncs"][name] = ufunc_entry(value)
        elif inspect.isclass(value):
            found["types"].append(name)
        elif inspect.isfunction(value):
            found["functions"][name] = signature_text(inspect.signature(value))
        elif isinstance(value, (float, type(None))):
            found["constants"].append(name)
        elif kind != "_Feature":  # `from __future__ import annotations`
            found["other"].append(name)
    return found


def ndarray_entries(ndarray) -> dict:
    methods, attributes, operators = {}, [], []
    for name in sorted(dir(ndarray)):
        value = getattr(ndarray, name)
        if name.startswith("__"):
            if callable(value):
                operators.append(name)
        elif not name.startswith("_") and name not in NO_METHODS:
            if callable(value):
                methods[name] = method_signature(value)
            else:
                attributes.append(name)
    return {"attributes": attributes, "methods": methods, "operators": operators}


def main() -> None:
    import cupy

    api = {
        "cupy": module_entries(cupy, BY_HAND),
        "cupy.linalg": module_entries(cupy.linalg, {}),
        "dtypes": [cupy.dtype(char).name for char in DTYPES],
        "at_dtypes": AT_DTYPES,
        "ndarray": ndarray_entries(cupy.ndarray),
        "refused": REFUSED,
        "ufunc_keywords": UFUNC_KEYWORDS,
        "ufunc_methods": UFUNC_METHOD_SIGNATURES,
        "version": cupy.__version__,
    }
    TARGET.write_text(json.dumps(api, indent=1, sort_keys=True) + "\n")
    print(f"{TARGET}: CuPy {cupy.__version__}, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
