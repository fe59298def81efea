"""Planted mistakes: code that runs under NumPy but goes wrong, or waits, on a GPU.

Each is a function of the module xp and of the `inputs` on that device.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from .inputs import HOST, HOST_IDS

# Must raise on the strict device.
MISTAKES = {
    # the wrong module
    "ufunc of NumPy": lambda xp, i: np.exp(i.x),
    "reduction of NumPy": lambda xp, i: np.sum(i.x),
    "function of NumPy": lambda xp, i: np.concatenate([i.x, i.y]),
    "conversion to NumPy": lambda xp, i: np.asarray(i.x),
    "NumPy scalar of a device array": lambda xp, i: np.float32(i.x.sum()),
    # host and device arrays mixed
    "host array on the right": lambda xp, i: i.x + HOST,
    "host array on the left": lambda xp, i: HOST * i.x,
    "host array in place": lambda xp, i: operator.imul(i.x, HOST),
    "device array into a host array in place": lambda xp, i: operator.iadd(HOST.copy(), i.x),
    "host array compared": lambda xp, i: i.x == HOST,
    "host array in a matmul": lambda xp, i: i.x @ HOST.T,
    "host array in a matmul on the left": lambda xp, i: HOST.T @ i.x,
    "host array in a ufunc": lambda xp, i: xp.maximum(i.x, HOST),
    "host array in a function": lambda xp, i: xp.where(i.mask, i.x, HOST),
    "host condition": lambda xp, i: xp.where(HOST > 0, i.x, i.y),
    "host array in a sequence": lambda xp, i: xp.concatenate([i.x, HOST]),
    "host array in einsum": lambda xp, i: xp.einsum("ij,kj->ik", i.x, HOST),
    "host array of no dimension": lambda xp, i: i.x * np.array(2.0, np.float32),
    "host array as out": lambda xp, i: xp.exp(i.x, out=HOST.copy()),
    "host array as out of a method": lambda xp, i: i.x.sum(0, out=np.empty(4, np.float32)),
    "host array as an index": lambda xp, i: i.x[HOST_IDS],
    "host array as a mask": lambda xp, i: i.x[HOST > 0],
    "host array for take": lambda xp, i: i.x.take(HOST_IDS, axis=0),
    "host array assigned": lambda xp, i: operator.setitem(i.x, slice(1, 3), HOST[:2]),
    "host array added at": lambda xp, i: xp.add.at(i.x, i.ids, HOST),
    "host array copied into": lambda xp, i: xp.copyto(i.x, HOST),
    "device array assigned to a host array": lambda xp, i: operator.setitem(HOST.copy(), ..., i.x),
    "device array as an index of a host array": lambda xp, i: HOST[i.ids],
    "list as an index": lambda xp, i: i.x[[0, 2]],
    "list assigned": lambda xp, i: operator.setitem(i.x, 0, [1.0, 2.0, 3.0, 4.0]),
    "list for a function": lambda xp, i: xp.sum([1.0, 2.0]),
    "list of scalars and device arrays": lambda xp, i: xp.asarray([i.x.sum(), 1.0]),
    "scalar for a function": lambda xp, i: xp.mean(2.0),
    "scalars stacked": lambda xp, i: xp.stack([1.0, 2.0]),
    "full of a list": lambda xp, i: xp.full((2, 3), [1.0, 2.0, 3.0]),
    # device values where the host needs them
    "device scalar as an index of a list": lambda xp, i: ["a", "b", "c"][i.one],
    "device scalar as a range": lambda xp, i: range(i.one),
    "device scalar as a slice bound": lambda xp, i: i.x[: i.one],
    "device scalar as a shape": lambda xp, i: xp.zeros((i.one, 2)),
    "device scalar as an axis": lambda xp, i: i.x.sum(axis=i.one),
    "device scalar for arange": lambda xp, i: xp.arange(i.one),
    # keywords and names that CuPy lacks
    "where= of a ufunc": lambda xp, i: xp.exp(i.x, where=i.mask, out=xp.zeros_like(i.x)),
    "where= of a reduction": lambda xp, i: xp.sum(i.x, where=i.mask),
    "where= of a method": lambda xp, i: i.x.mean(where=i.mask),
    "initial= of a method": lambda xp, i: i.x.max(initial=0.0),
    "initial= of a function": lambda xp, i: xp.sum(i.x, initial=1.0),
    "order= of a ufunc": lambda xp, i: xp.add(i.x, i.y, order="C"),
    "correction= of var": lambda xp, i: xp.var(i.x, correction=1),
    "mode= of take": lambda xp, i: xp.take(i.x, i.ids, axis=0, mode="clip"),
    "stable= of sort": lambda xp, i: xp.sort(i.x, stable=True),
    "kind of sort": lambda xp, i: xp.sort(i.x, kind="quicksort"),
    "kind of the method argsort": lambda xp, i: i.x.argsort(kind="mergesort"),
    "out= of einsum": lambda xp, i: xp.einsum("ij->i", i.x, out=xp.zeros(3, "float32")),
    "argument of item": lambda xp, i: i.x.item(0),
    "errstate": lambda xp, i: xp.errstate(all="ignore"),
    "vecdot": lambda xp, i: xp.vecdot(i.x, i.y),
    "einsum_path": lambda xp, i: xp.einsum_path("ij,kj->ik", i.x, i.y),
    "a global generator": lambda xp, i: xp.random.default_rng(),
    "setflags": lambda xp, i: i.x.setflags(write=False),
    "maximum.reduce": lambda xp, i: xp.maximum.reduce(i.x),
    "logical_and.accumulate": lambda xp, i: xp.logical_and.accumulate(i.mask),
    "in-place sort of a transposed array": lambda xp, i: i.x.T.sort(),
    # the same call means something else
    "out as the third argument of argmax": lambda xp, i: xp.argmax(i.x, 0, xp.zeros(4, "int64")),
    "density as the fifth argument": lambda xp, i: xp.histogram2d(i.x[0], i.y[0], 4, None, True),
    "default mode of put": lambda xp, i: xp.put(i.x, i.ids, 1.0),
    # dtypes
    "object": lambda xp, i: i.x.astype(object),
    "longdouble": lambda xp, i: xp.zeros(3, np.longdouble),
    "strings": lambda xp, i: xp.asarray(["a", "b"]),
    "big-endian": lambda xp, i: i.x.astype(">f4"),
    "multiply.at": lambda xp, i: xp.multiply.at(i.x, i.ids, 2.0),
    "add.at in int8": lambda xp, i: xp.add.at(i.small, i.ids, 1),
    "subtract.at in float32": lambda xp, i: xp.subtract.at(i.x, i.ids, 1.0),
    "maximum.at in float16": lambda xp, i: xp.maximum.at(i.half, i.ids, 0.0),
    # undefined on a GPU
    "duplicate indices": lambda xp, i: operator.setitem(i.x, i.ids, i.y),
    "duplicate by a negative index": lambda xp, i: operator.setitem(i.x, i.alias, i.y),
    "duplicate behind a slice": lambda xp, i: operator.setitem(i.x, (slice(None), i.ids), i.y[:, :3]),
    "duplicate pairs": lambda xp, i: operator.setitem(i.x, (i.ids, i.ids), i.y[0, :3]),
    "duplicates in place": lambda xp, i: operator.setitem(i.x, i.ids, i.x[i.ids] + i.y),
    "duplicates in put_along_axis": lambda xp, i: xp.put_along_axis(i.x, i.ids[None], i.y[:1, :3], 1),
}

# Must raise inside no_synchronisation(), and be counted outside.
WAITS = {
    "float": lambda xp, i: float(i.x.sum()),
    "int": lambda xp, i: int(i.n.max()),
    "if": lambda xp, i: 1 if i.x.sum() > 0 else 2,
    "not": lambda xp, i: not i.mask.any(),
    "item": lambda xp, i: i.x.sum().item(),
    "tolist": lambda xp, i: i.x.tolist(),
    "tobytes": lambda xp, i: i.x.tobytes(),
    "function of math": lambda xp, i: math.sqrt((i.x * i.x).sum()),
    "text": lambda xp, i: f"loss {i.x.mean():.3f}",
    "str": lambda xp, i: str(i.x),
    "loop over elements": lambda xp, i: [v for v in i.x[0]],
    "max of Python": lambda xp, i: max(i.x[0]),
    "in": lambda xp, i: 2 in i.ids,
    "comparison of everything": lambda xp, i: bool(xp.array_equal(i.x, i.y)),
    "allclose": lambda xp, i: 1 if xp.allclose(i.x, i.y) else 2,
    "read by a mask": lambda xp, i: i.x[i.mask],
    "write by a mask": lambda xp, i: operator.setitem(i.x, i.mask, 0.0),
    "nonzero": lambda xp, i: i.mask.nonzero(),
    "flatnonzero": lambda xp, i: xp.flatnonzero(i.mask),
    "argwhere": lambda xp, i: xp.argwhere(i.mask),
    "where of one argument": lambda xp, i: xp.where(i.mask),
    "unique": lambda xp, i: xp.unique(i.ids),
    "bincount": lambda xp, i: xp.bincount(i.ids),
    "counts for repeat": lambda xp, i: xp.repeat(i.x, i.ids, axis=0),
    "counts for the method repeat": lambda xp, i: i.x.repeat(i.ids, axis=0),
    "compress": lambda xp, i: xp.compress(i.mask[0], i.x, axis=1),
    "indices of a triangle": lambda xp, i: xp.tril_indices(3),
    "average with weights": lambda xp, i: xp.average(i.x, weights=i.y),
    "fill with a device scalar": lambda xp, i: i.x.fill(i.y.sum()),
}
# Indices out of range: NumPy raises too; a GPU takes them modulo the length.
OUT_OF_RANGE = {
    "read": lambda xp, i: i.x[i.ids + 1],
    "read a negative one": lambda xp, i: i.x[i.ids - 4],
    "write": lambda xp, i: operator.setitem(i.x, i.order + 1, i.y),
    "write a scalar": lambda xp, i: operator.setitem(i.x, (slice(None), i.ids + 2), 0.0),
    "take": lambda xp, i: xp.take(i.x, i.ids + 1, axis=0),
    "take_along_axis": lambda xp, i: xp.take_along_axis(i.x, i.n, axis=1),
    "add.at": lambda xp, i: xp.add.at(i.x, i.ids + 1, 1.0),
}
