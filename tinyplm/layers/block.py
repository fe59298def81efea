"""Transformer blocks: residual sublayers with the norm before or after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import check_functions
from ..core import Tree
from ..random import fold
from .dropout import dropout

Component = Callable[..., tuple[Any, Callable]]


def pre_norm(
    p_norm: Tree,
    p: Tree,
    x: Any,
    *shared: Tree,
    norm: Component,
    f: Component,
    rate: float = 0.0,
    key: Any = None,
) -> tuple[Any, Callable]:
    """y = x + dropout(f(p, norm(x), *shared)).                 Xiong et al. 2020, table 1, right

    norm(p_norm, x) and f(p, x, *shared) are components.
    dx = dy + the gradient through f and norm; backward gives (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("pre_norm", norm=norm, f=f)
    h, norm_back = norm(p_norm, x)
    s, f_back = f(p, h, *shared)
    s, drop_back = dropout(s, rate=rate, key=key)

    def backward(dy):
        dp, dh, *dshared = f_back(drop_back(dy))
        dp_norm, dx = norm_back(dh)
        return dp_norm, dp, dx + dy, *dshared

    return x + s, backward


def post_norm(
    p_norm: Tree,
    p: Tree,
    x: Any,
    *shared: Tree,
    norm: Component,
    f: Component,
    rate: float = 0.0,
    key: Any = None,
) -> tuple[Any, Callable]:
    """y = norm(r),   r = x + dropout(f(p, x, *shared)).              Vaswani et al. 2017, sec. 3.1

    dx = dr + the gradient of r through f; backward gives (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("post_norm", norm=norm, f=f)
    s, f_back = f(p, x, *shared)
    s, drop_back = dropout(s, rate=rate, key=key)
    y, norm_back = norm(p_norm, x + s)

    def backward(dy):
        dp_norm, dr = norm_back(dy)
        dp, dx, *dshared = f_back(drop_back(dr))
        return dp_norm, dp, dx + dr, *dshared

    return y, backward


def block(
    p: Tree,
    x: Any,
    *shared: Tree,
    residual: Component,
    norm: Component,
    attention: Component,
    mlp: Component,
    rate: float = 0.0,
    key: Any = None,
) -> tuple[Any, Callable]:
    """An attention sublayer, then a feed-forward sublayer, each wrapped by `residual`:

    h = residual(x; attention(p, x, *shared)),   y = residual(h; mlp(p, h)).

    p = {"norm1", "attention", "norm2", "mlp"}; x (B, T, D) -> y (B, T, D).
    residual is pre_norm or post_norm; norm(p, x), attention and mlp are components; rate is the
    dropout before each addition.  backward gives (dp, dx, *dshared).
    """
    if not (callable(residual) and callable(attention) and callable(mlp)):
        check_functions("block", residual=residual, attention=attention, mlp=mlp)
    first, second = fold(key, 1), fold(key, 2)
    h, attention_back = residual(
        p["norm1"], p["attention"], x, *shared, norm=norm, f=attention, rate=rate, key=first
    )
    y, mlp_back = residual(p["norm2"], p["mlp"], h, norm=norm, f=mlp, rate=rate, key=second)

    def backward(dy):
        dnorm2, dmlp, dh = mlp_back(dy)
        dnorm1, dattention, dx, *dshared = attention_back(dh)
        dp = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "mlp": dmlp}
        return dp, dx, *dshared

    return y, backward
