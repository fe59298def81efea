"""From the log-probabilities of tokens to those of whole answers."""

from __future__ import annotations

from ..arguments import wrong
from ..backend import array_module
from ..core import Array, Backward, in_float32
from ..shapes import check_array, expects


@expects("x (N, ...)")
@in_float32
def pair_log_probs(x: Array, *, second: Array) -> tuple[Array, Backward]:
    """y_n = (sum of x_n where second is False, sum of x_n where it is True).

    log p(answer) = sum_t log p(token_t | the tokens before it), so for log-probabilities of tokens
    y_n are those of the two answers to prompt n.
    x (N, ...), 0 where a token counts for neither answer; second: booleans with as many axes as x
    that broadcast to x, True for the second answer -> y (N, 2).   Keeps second.
    dx_n = dy_n0 where second is False, dy_n1 where it is True.
    """
    xp = array_module(x)
    check_second(second, x)
    tokens = tuple(range(1, x.ndim))
    y = xp.stack([xp.where(second, 0, x).sum(axis=tokens), xp.where(second, x, 0).sum(axis=tokens)])

    def backward(dy: Array) -> Array:
        first_d, second_d = (d.reshape(-1, *(1 for _ in tokens)) for d in dy.T)
        return xp.broadcast_to(xp.where(second, second_d, first_d), x.shape)

    return y.T, backward


def check_second(second: Array, x: Array) -> None:
    """ValueError unless it is booleans that broadcast to x."""
    check_array("pair_log_probs: second", second, "(...) booleans")
    if second.ndim != x.ndim or any(n not in (1, m) for n, m in zip(second.shape, x.shape)):
        raise wrong("pair_log_probs: second", f"booleans that broadcast to {x.shape}", second)
