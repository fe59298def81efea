"""Legitimate operations: NumPy, the strict device and a real GPU return the same.

Each is a function of the module xp and of the `inputs` on that device, and returns arrays.
"""

from __future__ import annotations

import operator

import numpy as np


def changed(array, change, *arguments, **keywords):
    """`array` after change(array, ...), for operations that write."""
    change(array, *arguments, **keywords)
    return array


def slice_written(xp, i):
    view = i.x[1:, ::2]
    view[...] = 7.0
    return i.x  # a slice is a view


def transpose_written(xp, i):
    i.x.T[0] = -1.0
    i.x.reshape(12)[5:] = 2.0
    return i.x


def masked_copy(xp, i):
    out = xp.zeros_like(i.x)
    xp.copyto(out, i.y, where=i.mask)
    return out


def moments(xp, i):
    m = xp.zeros_like(i.x)
    m *= 0.9
    m += 0.1 * i.x
    m -= i.y
    m /= xp.sqrt(i.y) + 1e-8
    return m


def log_softmax(xp, i):
    shifted = i.x - i.x.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


OPERATIONS = {
    "sum": lambda xp, i: i.x.sum(),
    "sum over axes": lambda xp, i: i.x.sum(axis=(0, 1), keepdims=True),
    "sum in another dtype": lambda xp, i: xp.sum(i.half, axis=0, dtype="float32"),
    "sum of booleans": lambda xp, i: i.mask.sum(axis=1),
    "mean": lambda xp, i: i.x.mean(-1, keepdims=True),
    "var": lambda xp, i: xp.var(i.x, axis=0, ddof=1),
    "max and argmax": lambda xp, i: (i.x.max(0), i.x.argmax(axis=1), xp.argmin(i.x, axis=-1)),
    "any and all": lambda xp, i: (i.mask.any(axis=1), xp.all(i.mask)),
    "prod and cumsum": lambda xp, i: (i.y.prod(axis=0), xp.cumsum(i.x, axis=1), i.n.cumsum()),
    "element": lambda xp, i: i.x[1, 2],
    "row of an element": lambda xp, i: i.x[i.one],
    "slices": lambda xp, i: (i.x[:, 1:3], i.x[::-1], i.x[..., None, -1], i.x[None, 0]),
    "index array": lambda xp, i: (i.x[i.ids], i.x[:, i.ids], i.x[i.order, i.order]),
    "take": lambda xp, i: (xp.take(i.x, i.ids, axis=1), i.x.take(i.ids, axis=0)),
    "take_along_axis": lambda xp, i: xp.take_along_axis(i.x, i.ids[:, None], axis=-1),
    "operators": lambda xp, i: (i.x + i.y, i.x - 1, 2 / i.y, -i.x, abs(i.x), i.y**0.5, i.y**-1),
    "integers": lambda xp, i: (i.n // 3, i.n % 5, i.n << 2, i.n >> 1, i.n & 6, i.n ^ 3, ~i.n),
    "comparisons": lambda xp, i: (i.x > 0, i.x <= i.y, i.ids == 2, (i.x != 0) & i.mask | ~i.mask),
    "Python scalar keeps float16": lambda xp, i: i.half * 0.5 + 1,
    "Python scalar keeps int8": lambda xp, i: i.small + 1,
    "NumPy scalar": lambda xp, i: np.float32(2) * i.x + np.float32(1),
    "NumPy scalar promotes": lambda xp, i: i.x * np.float64(2),
    "mixed dtypes": lambda xp, i: (i.x + i.double, i.n * i.x, i.half + i.x, i.mask * i.x),
    "in place": moments,
    "in place with a cast": lambda xp, i: operator.iadd(i.x, i.double),
    "out of a ufunc": lambda xp, i: xp.multiply(i.x, i.y, out=xp.empty_like(i.x)),
    "out positional": lambda xp, i: xp.add(i.x, i.y, i.x),
    "out of a reduction": lambda xp, i: i.x.sum(axis=0, out=xp.empty(4, dtype="float32")),
    "dtype of a ufunc": lambda xp, i: xp.add(i.x, i.y, dtype="float64"),
    "divmod and frexp": lambda xp, i: (*divmod(i.n, 5), *xp.frexp(i.y), *xp.modf(i.x)),
    "functions": lambda xp, i: (xp.exp(i.x), xp.tanh(i.x), xp.log1p(i.y), xp.sqrt(i.y), xp.sign(i.x)),
    "log_softmax": log_softmax,
    "where": lambda xp, i: (xp.where(i.mask, i.x, 0.0), xp.where(i.mask, i.half, -1), xp.where(i.mask, 1, 0)),
    "clip": lambda xp, i: (xp.clip(i.x, -1, 1), i.x.clip(0, None), xp.minimum(i.x, 0), xp.maximum(i.x, i.y)),
    "matmul": lambda xp, i: (i.x @ i.W, xp.matmul(i.x, i.y.T), i.x[None] @ i.W, i.x.dot(i.W)),
    "matmul out": lambda xp, i: xp.matmul(i.x, i.W, out=xp.empty((3, 3), "float32")),
    "einsum": lambda xp, i: (xp.einsum("ij,jk->ik", i.x, i.W), xp.einsum("ij,ij->i", i.x, i.y)),
    "tensordot and outer": lambda xp, i: (xp.tensordot(i.x, i.W, axes=1), xp.outer(i.x[0], i.y[:, 0])),
    "linalg": lambda xp, i: (xp.linalg.norm(i.x), xp.linalg.norm(i.x, axis=-1, keepdims=True)),
    "reshape": lambda xp, i: (i.x.reshape(2, -1), xp.reshape(i.x, (4, 3)), i.x.ravel(), i.x.flatten()),
    "axes": lambda xp, i: (i.x.transpose(1, 0), xp.swapaxes(i.x, 0, 1), i.x.mT, xp.moveaxis(i.x, 0, -1)),
    "expand and squeeze": lambda xp, i: (xp.expand_dims(i.x, 1), i.x[:, :1].squeeze(1), i.x[:1].squeeze()),
    "join": lambda xp, i: (xp.concatenate([i.x, i.y], axis=1), xp.stack([i.x, i.y]), xp.asarray([i.x, i.y])),
    "split": lambda xp, i: xp.split(i.x, 2, axis=1) + xp.array_split(i.x, 2),
    "repeat and tile": lambda xp, i: (xp.repeat(i.x, 2, axis=0), i.x.repeat(3), xp.tile(i.x, (2, 1))),
    "broadcast": lambda xp, i: (xp.broadcast_to(i.x[0], (2, 4)) + 0, *xp.broadcast_arrays(i.ids, i.x[:, :3])),
    "pad and roll": lambda xp, i: (
        xp.pad(i.x, ((0, 1), (2, 0)), constant_values=5),
        xp.roll(i.x, 1, axis=-1),
    ),
    "creation": lambda xp, i: (
        xp.arange(5),
        xp.zeros((2, 3)),
        xp.ones_like(i.x),
        xp.full((2,), 3.0),
        xp.eye(3),
    ),
    "triangles": lambda xp, i: (xp.tril(i.x), xp.triu(i.x, 1), xp.tri(3, 4, dtype=bool)),
    "full of a device scalar": lambda xp, i: xp.full((2, 2), i.x.sum(), dtype="float32"),
    "from the host": lambda xp, i: (
        xp.asarray([1, 2]),
        xp.array(2.5),
        xp.asarray(np.eye(2), dtype="float32"),
    ),
    "astype": lambda xp, i: (
        i.x.astype("float64"),
        i.x.astype(xp.float16),
        i.x.astype(i.x.dtype, copy=False),
    ),
    "view as integers": lambda xp, i: i.x.view("uint32") >> 31,
    "unsigned wrap": lambda xp, i: i.n.astype("uint32") * 2654435769,
    "sort": lambda xp, i: (xp.sort(i.x, axis=0), i.x.argsort(axis=1), xp.argsort(-i.n % 3, axis=1)),
    "sort in place": lambda xp, i: changed(i.x, type(i.x).sort),
    "searchsorted and isin": lambda xp, i: (xp.searchsorted(i.x[0], i.y[0]), xp.isin(i.n, i.ids)),
    "average": lambda xp, i: xp.average(i.x, axis=0),
    "slice is a view": slice_written,
    "transpose and reshape are views": transpose_written,
    "assignment": lambda xp, i: changed(i.x, operator.setitem, slice(0, 2), i.y[1:]),
    "assignment of a scalar": lambda xp, i: changed(i.x, operator.setitem, (0, 1), 5),
    "assignment of a device scalar": lambda xp, i: changed(i.x, operator.setitem, ..., i.y.sum()),
    "assignment by index": lambda xp, i: changed(i.x, operator.setitem, i.order, i.y),
    "scalar to duplicate indices": lambda xp, i: changed(i.x, operator.setitem, i.ids, 0.0),
    "masked copy": masked_copy,
    "fill": lambda xp, i: changed(i.x, type(i.x).fill, 4),
    "add.at": lambda xp, i: changed(i.x, xp.add.at, i.ids, i.y),
    "add.at float16": lambda xp, i: changed(i.half, xp.add.at, i.ids, 0.5),
    "add.at with two indices": lambda xp, i: changed(i.x, xp.add.at, (i.ids, i.ids), i.y[:, 0]),
    "maximum.at": lambda xp, i: changed(i.x, xp.maximum.at, i.ids, i.y),
    "subtract.at": lambda xp, i: changed(i.n, xp.subtract.at, i.ids, 1),
    "ufunc methods": lambda xp, i: (
        xp.add.reduce(i.x, axis=1),
        xp.add.accumulate(i.x),
        xp.multiply.outer(i.ids, i.x),
    ),
    "put_along_axis": lambda xp, i: changed(i.x, xp.put_along_axis, i.ids[:, None], 9.0, axis=1),
    "unpacking of rows": lambda xp, i: [row * 2 for row in i.x],
    "nan_to_num and isfinite": lambda xp, i: (xp.nan_to_num(i.x / 0), xp.isfinite(xp.log(i.x))),
}
