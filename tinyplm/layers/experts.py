"""Experts: feed-forward layers, of which each token passes through the chosen ones only."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module, is_host, sum_float32, to_host
from ..core import Array, Backward, Component, Tree, flatten, named, tree_map
from ..shapes import expects
from .embedding import check_ids


@expects("p {...}, x (..., D), weights (..., k), choice (..., k) integers; function expert")
def experts(
    p: Tree, x: Array, weights: Array, *, choice: Array, expert: Component
) -> tuple[Array, Backward]:
    """y_n = sum_j w_nj o_nj,   o_nj = expert(p[c], x_n),   c = choice_nj.

    Shazeer et al. 2017, eq. 1.   x (..., D), weights w and choice (..., k) -> y (..., D).
    p: the parameters of one expert with a leading axis X, such as Wgate (X, D, F).
    expert: a component (p_c, rows (M, D)) -> (M, D), such as `gated_mlp`.
    The N k pairs of token and expert are sorted by expert; each expert runs once, on its rows; its
    results return to their tokens.   An expert without rows is not run.   No token is dropped.
    Sorting and sums have a fixed order, so the result is repeatable on every device.
    Keeps w, the sorted rows and results (N k, D), and what each expert keeps.
    dw_nj = <dy_n, o_nj>,   do_nj = w_nj dy_n,   and dp[c], dx_n from each expert; dp[c] = 0 for one
    without rows.   backward returns (dp, dx, dweights).
    On a GPU each call waits for the device once, to read how many rows each expert has.
    ValueError where p has no common first axis, and (on the host) for an expert out of range.
    """
    xp, (D, k) = array_module(x), (x.shape[-1], choice.shape[-1])
    X = count(p)
    if is_host(choice):
        check_ids(choice, X, "choice of expert")
    order, place, segments = by_expert(choice, X)
    token, w = order // k, weights.reshape(-1, k)
    rows = x.reshape(-1, D)[token]
    o, backs = xp.zeros_like(rows), []
    for c, part in segments:
        o[part], back = named(str(c), expert)(tree_map(lambda a, c=c: a[c], p), rows[part])
        backs.append(back)
    y = sum_float32(w[..., None] * o[place].reshape(-1, k, D), axis=1)

    def backward(dy: Array) -> tuple[Tree, Array, Array]:
        dtokens = dy.reshape(-1, D)
        dw = sum_float32(dtokens[:, None] * o[place].reshape(-1, k, D), axis=2)
        do = w.reshape(-1)[order][:, None] * dtokens[token]
        drows, dp = xp.zeros_like(rows), tree_map(xp.zeros_like, p)
        for (c, part), back in zip(segments, backs):
            dp_c, drows[part] = back(do[part])
            tree_map(lambda d, d_c, c=c: d.__setitem__(c, d_c), dp, dp_c)
        dx = sum_float32(drows[place].reshape(-1, k, D), axis=1)
        return dp, dx.reshape(x.shape), dw.reshape(weights.shape)

    return y.reshape(x.shape), backward


def by_expert(choice: Array, X: int) -> tuple[Array, Array, list[tuple[int, slice]]]:
    """(order, place, [(expert, its rows), ...]) of the pairs n k + j, sorted by expert.

    order (N k,): the pair in each row; place (N k,): the row of each pair.  Rows of one expert
    stay in the order of their tokens.  Experts without rows are left out.
    """
    xp = array_module(choice)
    pairs = choice.reshape(-1).astype("int64")
    order = xp.argsort(pairs, kind="stable")
    place = xp.argsort(order, kind="stable")
    bounds = to_host(xp.searchsorted(pairs[order], xp.arange(X + 1))).tolist()
    parts = enumerate(zip(bounds, bounds[1:]))
    return order, place, [(c, slice(*part)) for c, part in parts if part[0] < part[1]]


def count(p: Tree) -> int:
    """X; ValueError unless all arrays of p have it as their first axis."""
    leaves = flatten(p)
    sizes = {tuple(getattr(a, "shape", ()))[:1] for a in leaves.values()}
    if len(sizes) != 1 or () in sizes:
        shapes = {name: getattr(a, "shape", None) for name, a in leaves.items()}
        raise wrong("experts: p", "arrays with one axis of experts first", shapes)
    (X,) = sizes.pop()
    return X
