"""Attention by blocks of queries: its memory grows with T, not with T squared."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..backend import array_module, at_least_float32, is_host
from ..core import Array, Backward, unbroadcast
from ..layers.attention import check_heads
from ..layers.mask import Visible
from ..random import uniform_bits_of
from ..shapes import broadcastable, expects

BLOCK = 128  # queries: shorter blocks slow the matmuls, longer ones compute more hidden scores
PART = 1 << 18  # scores at a time on the host: a megabyte of float32, the size of a large L2 cache


@expects(
    "q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), bias (...) or None, "
    "offsets (N, H, M, S) or None, key (B,) keys or None; "
    "scale or None, cap > 0 or None, 0 <= rate < 1, whole block >= 1 or None"
)
def block_attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    cap: float | None = None,
    offsets: Array | None = None,
    rate: float = 0.0,
    key: Any = None,
    block: int | None = None,
) -> tuple[Array, Backward]:
    """layers.attention.attention, `block` queries at a time, with the same dropout.

    block: BLOCK unless given, on the host half of that for a window of up to 4 BLOCK keys, in which
    fewer keys are then computed that most queries of a block do not see: attention takes 4 to 20%
    less time, a training step of Mistral (D 256, T 2048, window 256) 3%.
    mask: a `Visible`, or booleans as for `attention`, or None.
    Rabe & Staats 2021; Dao et al. 2022, 2023 (FlashAttention).
    With the plain form a training step of GPT-2 (L 2, D 256) takes 3% longer and 8% more memory at
    T 256, 21% longer and twice the memory at T 1024; one of BERT takes the same time and memory.
    A block takes only the keys that some of its queries may see, and all of these at once, so the
    softmax is the ordinary one, not the online one of FlashAttention, which cuts the keys as well.
    Keeps k, v, o, Q = [scale q, -m] with m the largest score of each query, and 1 / z with
    z = sum_s exp(score - m), the last two in at least float32.

    The backward computes the scores again: [k, 1] Q^T = scale k q^T - m in one product,
    A = exp(that + bias), P = A / z.   With D = [do / (1 - rate), -sum_e do o] / z and dS the
    gradient of the scores (dA in the plain form),
    dS = A * ([v, 1] D^T), where dropout's mask applies to the product with v only;
    dq = scale dS^T k,   dk = dS (scale q),   dv = masked A times D without its last column, dk and
    dv summed over the heads that share them;   dbias = dS^T summed over the axes that broadcast.
    Here scores, A and dS have the keys first, (S, T): so the long dimension of all seven products
    is their first or their inner one, for which BLAS is fastest.   With a cap, whose tanh stands
    between the product and - m, Q has scale / cap q, m is subtracted on its own, and dS is
    multiplied by 1 - tanh^2 before it meets k and q.
    ValueError as in `attention`, and unless block >= 1.
    """
    options: dict[str, Any] = {"scale": scale, "cap": cap, "offsets": offsets}
    o, back = _by_blocks(q, k, v, bias, None, mask=mask, **options, rate=rate, key=key, block=block)
    return o, lambda do: back(do)[:4]


@expects(
    "q (B, H, T, E), k (B, K, S, E), v (B, K, S, E2), sinks (H,), key (B,) keys or None; "
    "scale or None, 0 <= rate < 1, whole block >= 1 or None"
)
def sink_block_attention(
    q: Array,
    k: Array,
    v: Array,
    sinks: Array,
    *,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Any = None,
    block: int | None = None,
) -> tuple[Array, Backward]:
    """layers.sinks.sink_attention by blocks, as in `block_attention`.

    OpenAI 2025, sec. 2.2.   With s the sink of the query's head, m is at least s and z has one more
    term, exp(s - m).   The gradients are those of block_attention, and with d the last column of D,
    ds = sum exp(s - m) d   over the samples and queries.   backward returns (dq, dk, dv, dsinks).
    """
    o, back = _by_blocks(
        q, k, v, None, sinks, mask=mask, scale=scale, rate=rate, key=key, block=block
    )

    def backward(do: Array) -> tuple[Array, Array, Array, Array]:
        dq, dk, dv, _, dsinks = back(do)
        return dq, dk, dv, dsinks

    return o, backward


def _by_blocks(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    sinks: Array | None,
    *,
    mask: Visible | Array | None,
    scale: float | None,
    cap: float | None = None,
    offsets: Array | None = None,
    rate: float,
    key: Any,
    block: int | None,
) -> tuple[Array, Backward]:
    """block_attention, with sinks or None; backward returns (dq, dk, dv, dbias, dsinks)."""
    B, H, T, E = q.shape
    K, S = k.shape[1:3]
    check_heads("block_attention", q, k, v)
    xp, G, E2 = array_module(q), H // K, v.shape[-1]
    scale = E**-0.5 if scale is None else scale
    dropping = key is not None and rate > 0
    undropped = 1 / (1 - rate) if dropping else 1.0
    visible = mask if isinstance(mask, Visible) else Visible(T, S, allowed=mask, xp=xp)
    if (visible.T, visible.S) != (T, S):
        described = (visible.T, visible.S)
        raise ValueError(f"block_attention: mask: expected T, S = {(T, S)}, got {described}")
    if visible.prefix is not None and visible.prefix.shape != (B,):
        given = visible.prefix.shape
        raise ValueError(f"block_attention: mask: expected prefix {(B,)}, got {given}")
    if visible.allowed is not None:
        broadcastable("block_attention: mask", visible.allowed, (B, H, T, S))
    if block is None:
        narrow = visible.window is not None and visible.window <= 4 * BLOCK and is_host(q)
        block = BLOCK // 2 if narrow else BLOCK
    parts = _parts(visible, B, K, G, block, host=is_host(q))
    added = {
        name: _keys_first(broadcastable(f"block_attention: {name}", a, (B, H, T, S)), K)
        for name, a in (("bias", bias), ("offsets", offsets))
        if a is not None
    }
    keys, values = at_least_float32(k), at_least_float32(v)
    number, kinds = keys.dtype, [(a.shape, a.dtype) for a in (q, k, v)]
    largest = max(part.scores(B, K, G) for part in parts)
    sink = None if sinks is None else sinks.astype(number, copy=False).reshape(1, K, G, 1, 1)

    def room() -> Array:
        return xp.empty(largest, dtype=number)

    def scores(part: _Part, queries: Array, keys: Array, out: Array, slope: Any = None) -> Array:
        """(b, k, s, G * n) in `out`, with bias, -inf where hidden; the cap's slope in `slope`."""
        rows, columns = part.rows(queries), part.columns(keys)
        s = xp.matmul(
            columns, rows.swapaxes(-1, -2), out=_shaped(out, *columns.shape[:3], rows.shape[2])
        )
        if cap is not None:
            xp.tanh(s, out=s)
            if slope is not None:
                slope = _shaped(slope, *s.shape)
                xp.subtract(1, xp.multiply(s, s, out=slope), out=slope)
            s *= cap
        apart = _by_query(s, G)
        for terms in added.values():
            apart += part.cut(terms)
        for at, seen in part.seen:
            hidden = ~part.cut(seen, keys=slice(None), queries=slice(None))
            xp.copyto(apart[:, :, at], float("-inf"), where=hidden)
        return s

    def kept(part: _Part) -> Array:
        """(b, k, s, G, n): the dropout mask, of the same bits as in `attention`."""
        h, t, s = (xp.arange(n, dtype="uint32") for n in (H, T, S))
        h = h.reshape(K, 1, G, 1)[part.heads] * T + t[part.queries]
        elements = h * S + s[part.keys].reshape(-1, 1, 1)
        return uniform_bits_of(key[part.samples], elements[None], (B, H, T, S)) >= int(rate * 2**32)

    Q = xp.empty((B, K, G, T, E + 1), dtype=number)
    inner = scale if cap is None else scale / cap
    xp.multiply(at_least_float32(q).reshape(B, K, G, T, E), inner, out=Q[..., :E])
    inverse = xp.empty((B, K, G, T, 1), dtype=number)
    o = xp.empty((B, K, G, T, E2), dtype=q.dtype)
    ones, space = xp.ones((1, S), dtype=number), room()
    for part in parts:
        A = scores(part, Q[..., :E], keys, space)
        lowest = None if sink is None else part.each(sink)
        top = _subtract_top(A, lowest, xp)
        xp.exp(A, out=A)
        z = xp.matmul(ones[:, : A.shape[2]], A)  # the sum over the keys
        z += z == 0 if lowest is None else xp.exp(lowest - top)  # an empty row: 0 / 1
        if dropping:
            A *= kept(part).reshape(A.shape)
        product = xp.matmul(A.swapaxes(-1, -2), part.columns(values))
        product *= undropped / z.swapaxes(-1, -2)
        part.put(o, product)
        part.put(inverse, 1 / z)
        part.put(Q[..., E:], -top)
    del space

    def backward(do: Array) -> tuple[Array, Array, Array, Array | None, Array | None]:
        do = at_least_float32(do).reshape(B, K, G, T, E2)
        D = xp.empty((B, K, G, T, E2 + 1), dtype=number)
        xp.multiply(do, inverse * undropped, out=D[..., :E2])
        xp.multiply((do * o).sum(axis=-1, keepdims=True), -inverse, out=D[..., E2:])
        with_ones = [xp.concatenate([a, xp.ones_like(a[..., :1])], axis=-1) for a in (keys, values)]
        dq = xp.empty((B, K, G, T, E), dtype=number)
        dk, dv = xp.zeros_like(keys), xp.zeros_like(values)
        dbias: Any = None if bias is None else xp.zeros(added["bias"].shape, dtype=number)
        spaces = [room(), room(), xp.empty(B * K * S * max(E, E2), dtype=number)]
        slope: Any = None if cap is None else room()
        for part in parts:
            if cap is None:
                A = scores(part, Q, with_ones[0], spaces[0])
            else:
                A = scores(part, Q[..., :E], keys, spaces[0], slope)
                A += part.rows(Q)[..., E:].swapaxes(-1, -2)
            xp.exp(A, out=A)
            dS = _shaped(spaces[1], *A.shape)
            D_rows = part.rows(D)
            if not dropping:
                xp.matmul(part.columns(with_ones[1]), D_rows.swapaxes(-1, -2), out=dS)
                dS *= A
            else:
                m = kept(part).reshape(A.shape)
                xp.matmul(part.columns(values), D_rows[..., :E2].swapaxes(-1, -2), out=dS)
                dS *= m
                dS += D_rows[..., E2:].swapaxes(-1, -2)
                dS *= A
                A *= m
            if bias is not None:
                total = part.cut(dbias)
                total += unbroadcast(_by_query(dS, G), total.shape)
            if cap is not None:
                dS *= _shaped(slope, *dS.shape)
            _add_product(part.columns(dv), A, D_rows[..., :E2], spaces[2], xp)
            _add_product(part.columns(dk), dS, part.rows(Q)[..., :E], spaces[2], xp)
            part.put(dq, xp.matmul(dS.swapaxes(-1, -2), part.columns(keys)))
        dq *= scale
        if cap is not None:
            dk *= cap
        if bias is not None:
            dbias = dbias.transpose(0, 1, 3, 4, 2).reshape(bias.shape)
            dbias = dbias.astype(bias.dtype, copy=False)
        dq, dk, dv = (
            d.reshape(shape).astype(dtype, copy=False)
            for d, (shape, dtype) in zip((dq, dk, dv), kinds)
        )
        if sinks is None or sink is None:
            return dq, dk, dv, dbias, None
        dsinks = (xp.exp(sink + Q[..., E:]) * D[..., E2:]).sum(axis=(0, 3, 4)).reshape(H)
        return dq, dk, dv, dbias, dsinks.astype(sinks.dtype, copy=False)

    return o.reshape(B, H, T, E2), backward


class _Part(NamedTuple):
    """What is computed at once: some samples and key/value heads, a block of queries, its keys."""

    samples: slice
    heads: slice
    queries: slice
    keys: slice
    seen: list  # [(where among the keys, booleans with the keys first)]: what is partly hidden

    def scores(self, B: int, K: int, G: int) -> int:
        """How many there are."""
        b, k = (len(range(n)[at]) for n, at in ((B, self.samples), (K, self.heads)))
        queries, keys = (at.stop - at.start for at in (self.queries, self.keys))
        return b * k * G * queries * keys

    def rows(self, a: Any) -> Any:
        """(B, K, G, T, w) -> (b, k, G * n, w): the queries of one group are rows of one matrix."""
        a = a[self.samples, self.heads, :, self.queries]
        return a.reshape(*a.shape[:2], a.shape[2] * a.shape[3], a.shape[4])

    def put(self, a: Any, rows: Any) -> None:
        """Writes rows (b, k, G * n, w), or (b, k, 1, G * n) for w = 1, into a (B, K, G, T, w)."""
        n = self.queries.stop - self.queries.start
        rows = rows.reshape(*rows.shape[:2], a.shape[2], n, a.shape[4])
        a[self.samples, self.heads, :, self.queries] = rows

    def each(self, a: Any) -> Any:
        """(1, K, G, 1, 1) -> (1, k, 1, G * n): a head's number for each of its queries."""
        n = self.queries.stop - self.queries.start
        rows = a[:, self.heads, :, 0].repeat(n, axis=3)
        return rows.reshape(1, rows.shape[1], 1, -1)

    def columns(self, a: Any) -> Any:
        """(B, K, S, w) -> (b, k, s, w), a view."""
        return a[self.samples, self.heads, self.keys]

    def cut(self, a: Any, **other: slice) -> Any:
        """What belongs to this part of a (B, K, S, G, T), each of them possibly 1; a view."""
        at = {**self._asdict(), **other}
        places = (at["samples"], at["heads"], at["keys"], slice(None), at["queries"])
        return a[tuple(slice(None) if n == 1 else place for n, place in zip(a.shape, places))]


def _parts(visible: Visible, B: int, K: int, G: int, block: int, *, host: bool) -> list[_Part]:
    """On the host, as many heads of a sample as have PART scores; on a GPU all, in few launches."""

    def blocks(sample: int | None) -> list[tuple[slice, slice, list]]:
        """(queries, keys, seen) of each block."""
        found = []
        for lo in range(0, visible.T, block):
            queries = slice(lo, min(lo + block, visible.T))
            keys, partly = visible.block(queries.start, queries.stop, sample)
            found.append((queries, keys, [(at, _keys_first(seen, K)) for at, seen in partly]))
        return found

    if not host:
        return [_Part(slice(0, B), slice(0, K), q, k, seen) for q, k, seen in blocks(None)]
    own = visible.prefix is not None  # each sample has its own
    each = [blocks(b) for b in range(B)] if own else [blocks(None)] * B
    longest = max(keys.stop - keys.start for some in each for _, keys, _ in some)
    step = max(1, PART // (G * min(block, visible.T) * longest))
    heads = [slice(h, min(h + step, K)) for h in range(0, K, step)]
    places = [(b, some) for b in range(B) for some in heads]
    return [_Part(slice(b, b + 1), h, q, k, seen) for b, h in places for q, k, seen in each[b]]


def _keys_first(a: Any, K: int) -> Any:
    """What broadcasts to (B, H, T, S) as a view that broadcasts to (B, K, S, H / K, T)."""
    B, H, T, S = (1,) * (4 - a.ndim) + a.shape
    return a.reshape(B, 1 if H == 1 else K, 1 if H == 1 else H // K, T, S).transpose(0, 1, 4, 2, 3)


def _by_query(s: Any, G: int) -> Any:
    """(b, k, s, G * n) -> (b, k, s, G, n), a view."""
    return s.reshape(*s.shape[:3], G, s.shape[3] // G)


def _shaped(space: Any, *shape: int) -> Any:
    """The beginning of a flat array, in that shape."""
    return space[: math.prod(shape)].reshape(shape)


def _subtract_top(s: Any, lowest: Any, xp: Any) -> Any:
    """s (b, k, n, r) -= its maximum along the keys n, in place -> that (b, k, 1, r), always finite.

    lowest: (1, k, 1, r), what the maximum is at least; None for the least finite number.
    Several keys are taken as one long row: NumPy spends more time on starting a row of 128 numbers
    than on the numbers.
    """
    b, k, n, r = s.shape
    fold = math.gcd(n, 16)
    wide = s.reshape(b, k, n // fold, fold * r)
    top = wide.max(axis=2).reshape(b, k, fold, r).max(axis=2, keepdims=True)
    top = xp.maximum(top, float(xp.finfo(s.dtype).min) if lowest is None else lowest)
    wide -= xp.tile(top, fold)
    return top


def _add_product(total: Any, a: Any, b: Any, space: Any, xp: Any) -> None:
    """total += a b, with the product in `space`."""
    total += xp.matmul(a, b, out=_shaped(space, *total.shape))
