"""Embedding look-up, of single rows and of weighted sums of rows."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import is_host, scatter_add, sum_float32
from ..core import Array, Backward
from ..shapes import expects


@expects("table (V, D), ids (...) integers", hot=True)
def embedding(table: Array, *, ids: Array, name: str = "token id") -> tuple[Array, Backward]:
    """y[...] = table[ids[...]].

    table (V, D), ids (...) integers in [0, V) -> y (..., D).   Keeps ids.
    dtable[v] = sum of dy over all places where ids = v (backend.scatter_add).
    ValueError on an id out of range, in which `name` says what the ids are.  On a GPU this check
    would wait for the device, so there the model checks its inputs once, before any work.
    """
    if table.ndim != 2:
        raise wrong("embedding: table", "an array (V, D)", table)
    if is_host(ids):
        check_ids(ids, table.shape[0], name)

    def backward(dy: Array) -> Array:
        V, D = table.shape
        return scatter_add(V, ids.reshape(-1), dy.reshape(-1, D))

    return table[ids], backward


@expects("table (V, D), ids (B, N) integers, weights (B, N) numbers")
def embedding_bag(table: Array, *, ids: Array, weights: Array) -> tuple[Array, Backward]:
    """y_i = sum_n w_in table[ids_in].                                 Joulin et al. 2016, sec. 2

    table (V, D), ids (B, N) integers in [0, V), weights w (B, N): 0 for padding -> y (B, D).
    With w = counts, it is x table of the sparse matrix x (B, V) that has them.   Keeps ids and w.
    dtable[v] = sum of w_in dy_i over all places where ids = v.
    ValueError (on the host) on an id out of range.
    """
    if is_host(ids):
        check_ids(ids, table.shape[0])
    w = weights.astype(table.dtype)[..., None]

    def backward(dy: Array) -> Array:
        V, D = table.shape
        return scatter_add(V, ids.reshape(-1), (w * dy[:, None]).reshape(-1, D))

    return sum_float32(w * table[ids], axis=1), backward


def check_ids(ids: Array, vocabulary: int, name: str = "token id") -> None:
    """ValueError unless the host array ids holds integers in [0, vocabulary)."""
    if getattr(getattr(ids, "dtype", None), "kind", None) not in ("i", "u"):
        raise wrong(f"{name}s", "an array of integers", ids)
    # one id, as in decoding: the two reductions below would cost 5 microseconds
    if ids.size == 1 and 0 <= ids.item() < vocabulary:
        return
    if ids.size and not (0 <= ids.min() and ids.max() < vocabulary):
        bad = ids.max() if ids.min() >= 0 else ids.min()
        raise wrong(f"{name}s", f"integers from 0 to {vocabulary - 1}", int(bad))
