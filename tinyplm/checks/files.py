"""Files of traces, and other files of arrays: safetensors, and npz without pickles.

A trace's file is safetensors with the arrays

    value:PATH, gradient:PATH     of each record
    parameter:HUBNAME             gradients of parameters
    input:NAME                    what the model was given

and in the metadata under "tinyplm.trace" a JSON object: version, model (its type), source (see
tracing.Call), order and backward (paths in the order of the forward and of the backward), names,
dtypes.  Any other file is one trace without gradients, whose paths are the names of its arrays;
names with one of the prefixes above have that meaning there too.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arguments import check_path, known_arguments, wrong
from ..core import complete
from ..files import open_regular, parse_json, printable
from ..hub.tensors import open_safetensors, read_metadata, write_safetensors
from ..models.names import names_of, to_hub
from .tracing import Call, Record

KINDS = ("value", "gradient", "parameter", "input")
KEY, VERSION = "tinyplm.trace", 1
FIELDS = {"model": str, "source": str, "order": list, "backward": list, "dtypes": dict}


@known_arguments
def save_trace(trace: Call, path: str | os.PathLike) -> None:
    """Write a trace, or one of its calls: under a temporary name, flushed and renamed."""
    check_trace("save_trace: trace", trace)
    check_path("save_trace: path", path)
    arrays = {f"value:{name}": record.value for name, record in trace.items()}
    for name, record in trace.items():
        if record.gradient is not None:
            arrays[f"gradient:{name}"] = record.gradient
    arrays |= {f"parameter:{name}": a for name, a in parameter_gradients(trace).items()}
    arrays |= {f"input:{name}": a for name, a in trace.inputs.items()}
    about = {
        "version": VERSION,
        "model": model_type(trace),
        "source": trace.source,
        "order": list(trace),
        "backward": trace.backward,
        "names": trace.names,
        "dtypes": trace.dtypes,
    }
    write_safetensors(path, arrays, metadata={KEY: json.dumps(about)})


@known_arguments
def read_trace(path: str | os.PathLike) -> Call:
    """The trace in a file, or the arrays of another safetensors or npz file as one.

    ValueError naming the file if it is neither, or is damaged.
    """
    check_path("read_trace: path", path)
    with open_regular(path) as file:
        zipped = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if zipped:
        return _call(_npz(path), {}, printable(path))
    try:
        arrays = {name: np.asarray(a) for name, a in open_safetensors(path).items()}
    except ValueError as error:
        raise ValueError(f"{error}; a trace is in a safetensors or npz file") from None
    return _call(arrays, _about(path), printable(path))


def _npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        problem = printable(str(error))
        raise ValueError(f"{printable(path)}: expected an npz of arrays, got {problem}") from None


def _about(path: str | os.PathLike) -> dict[str, Any]:
    text = read_metadata(path).get(KEY)
    if text is None:
        return {}
    where = f"{printable(path)}: {KEY}"
    about = parse_json(text, where)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise wrong(where, f"an object with version {VERSION}", about)
    for name, kind in FIELDS.items():
        if not isinstance(about.get(name), kind):
            raise wrong(f"{where}: {name}", f"a {kind.__name__}", about.get(name))
    return about


def _call(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], where: str) -> Call:
    """The trace of these arrays."""
    values: dict[str, np.ndarray] = {}
    kinds: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    for name, a in arrays.items():
        kind, colon, path = name.partition(":")
        if colon and kind in kinds:
            kinds[kind][path] = a
        else:
            values[name] = a
    values |= kinds["value"]
    order = about.get("order", list(values))
    if about and set(order) != values.keys():
        raise wrong(f"{where}: order", "the paths of the values", order)
    if not values:
        raise wrong(where, "a file with arrays", list(arrays))
    call = Call(None, about.get("source", "arrays"))
    call.file_type = about.get("model", "")
    call.records = {name: Record(values[name], kinds["gradient"].get(name)) for name in order}
    known = [name for name in order[::-1] if name in kinds["gradient"]]
    call.backward = about.get("backward") or known
    call.gradients = kinds["parameter"] or None
    call.inputs = kinds["input"]
    call.names, call.dtypes = about.get("names"), about.get("dtypes", {})
    return call


def parameter_gradients(trace: Call) -> dict[str, np.ndarray]:
    """The gradients of the parameters by hub names, {} without a backward; zero where frozen."""
    gradients = trace.gradients
    if not gradients:
        return {}
    if trace.model is None:
        return dict(gradients)
    names = names_of(trace.model.family, trace.model.config)
    return to_hub(complete(gradients, trace.model.params), names)


def model_type(trace: Call) -> str:
    """The config's model_type, "" where it is not known."""
    return trace.file_type if trace.model is None else trace.model.config.MODEL_TYPE


def check_trace(name: str, trace: Any) -> None:
    """ValueError unless it is a trace with at least one record."""
    if not isinstance(trace, Call):
        raise wrong(name, "a trace, as tinyplm.trace() or trace_torch gives it", trace)
    if not len(trace):
        raise ValueError(f"{name}: expected the trace of a call, got an empty one")
