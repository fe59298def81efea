"""Transformer blocks: residual sublayers, by where their norms stand; parallel sublayers."""

from __future__ import annotations

from ..arguments import MOST, check_functions, check_number, check_whole
from ..core import Array, Backward, Component, Tree, named
from ..core.named import named_part
from ..random import fold
from .dropout import dropout


def pre_norm(
    p_norm: Tree,
    p: Tree,
    x: Array,
    *shared: Array,
    norm: Component,
    f: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = x + dropout(s),   s = f(p, h, *shared),   h = norm(p_norm, x).

    Xiong et al. 2020, table 1, right.   norm and f are components; x, y (B, T, D).
    ds = dy taken back through the dropout,   dh = ds taken back through f,
    dx = dy + dh taken back through the norm;   backward returns (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("pre_norm", norm=norm, f=f)
    h, norm_back = norm(p_norm, x)
    s, f_back = f(p, h, *shared)
    d, drop_back = dropout(s, rate=rate, key=key)

    def backward(dy: Array) -> tuple:
        dp, dh, *dshared = f_back(drop_back(dy))
        dp_norm, dx = norm_back(dh)
        return dp_norm, dp, dx + dy, *dshared

    return x + d, backward


def post_norm(
    p_norm: Tree,
    p: Tree,
    x: Array,
    *shared: Array,
    norm: Component,
    f: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = norm(p_norm, r),   r = x + dropout(s),   s = f(p, x, *shared).

    Vaswani et al. 2017, sec. 3.1; Xiong et al. 2020, table 1, left.   x, y (B, T, D).
    dr = dy taken back through the norm,   ds = dr taken back through the dropout,
    dx = dr + ds taken back through f;   backward returns (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("post_norm", norm=norm, f=f)
    s, f_back = f(p, x, *shared)
    d, drop_back = dropout(s, rate=rate, key=key)
    y, norm_back = norm(p_norm, x + d)

    def backward(dy: Array) -> tuple:
        dp_norm, dr = norm_back(dy)
        dp, dx, *dshared = f_back(drop_back(dr))
        return dp_norm, dp, dx + dr, *dshared

    return y, backward


def deep_norm(
    p_norm: Tree,
    p: Tree,
    x: Array,
    *shared: Array,
    norm: Component,
    f: Component,
    alpha: float,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = norm(p_norm, r),   r = alpha x + dropout(s),   s = f(p, x, *shared).

    Wang et al. 2022 (DeepNet), sec. 4.1; Zeng et al. 2023 (GLM-130B), sec. 2.1.   x, y (B, T, D);
    alpha > 0: see deep_norm_scales.   dr = dy taken back through the norm, ds = dr taken back
    through the dropout, dx = alpha dr + ds taken back through f;
    backward returns (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("deep_norm", norm=norm, f=f)
    check_number("deep_norm: alpha", alpha, above=0)
    s, f_back = f(p, x, *shared)
    d, drop_back = dropout(s, rate=rate, key=key)
    y, norm_back = norm(p_norm, alpha * x + d)

    def backward(dy: Array) -> tuple:
        dp_norm, dr = norm_back(dy)
        dp, dx, *dshared = f_back(drop_back(dr))
        return dp_norm, dp, dx + alpha * dr, *dshared

    return y, backward


def scaled_norm(
    p_norm: Tree,
    p: Tree,
    x: Array,
    *shared: Array,
    norm: Component,
    f: Component,
    alpha: float,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = alpha n + dropout(s),   s = f(p, n, *shared),   n = norm(p_norm, x).

    GLM team 2023, the released code of ChatGLM-6B: DeepNorm with each norm at the start of the next
    sublayer, which so adds to the normed input.   x, y (B, T, D); alpha > 0: see deep_norm_scales.
    ds = dy taken back through the dropout,   dn = alpha dy + ds taken back through f,
    dx = dn taken back through the norm;   backward returns (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("scaled_norm", norm=norm, f=f)
    check_number("scaled_norm: alpha", alpha, above=0)
    n, norm_back = norm(p_norm, x)
    s, f_back = f(p, n, *shared)
    d, drop_back = dropout(s, rate=rate, key=key)

    def backward(dy: Array) -> tuple:
        dp, dn, *dshared = f_back(drop_back(dy))
        dp_norm, dx = norm_back(alpha * dy + dn)
        return dp_norm, dp, dx, *dshared

    return alpha * n + d, backward


def deep_norm_scales(layers: int) -> tuple[float, float]:
    """(alpha, beta) of a decoder with N layers: sqrt(2 N) and 1 / sqrt(2 N).

    beta multiplies the initial values of the feed-forward layers, Wv and Wo, which are Xavier's,
    N(0, 2 / (in + out)) (Glorot & Bengio 2010); Wq and Wk keep those.
    Zeng et al. 2023 (GLM-130B), sec. 2.1; Wang et al. 2022, fig. 2, has (2 N)^(1/4) and
    (8 N)^(-1/4).
    """
    check_whole("layers", layers, 1, MOST)
    return (2 * layers) ** 0.5, (2 * layers) ** -0.5


def after_norm(
    p_norm: Tree,
    p: Tree,
    x: Array,
    *shared: Array,
    norm: Component,
    f: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = x + dropout(h),   h = norm(p_norm, s),   s = f(p, x, *shared).

    OLMo team 2025, sec. 3.2: the norm precedes the addition.   x, y (B, T, D).
    dh = dy taken back through the dropout,   ds = dh taken back through the norm,
    dx = dy + ds taken back through f;   backward returns (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("after_norm", norm=norm, f=f)
    s, f_back = f(p, x, *shared)
    h, norm_back = norm(p_norm, s)
    d, drop_back = dropout(h, rate=rate, key=key)

    def backward(dy: Array) -> tuple:
        dp_norm, ds = norm_back(drop_back(dy))
        dp, dx, *dshared = f_back(ds)
        return dp_norm, dp, dx + dy, *dshared

    return x + d, backward


def both_norms(
    p_norm: Tree,
    p: Tree,
    x: Array,
    *shared: Array,
    norm: Component,
    f: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = x + dropout(h),   h = norm(after, s),   s = f(p, n, *shared),   n = norm(before, x).

    Gemma team 2024b, sec. 2.   p_norm {"before", "after"}; x, y (B, T, D).
    dh = dy taken back through the dropout,   ds through the second norm,   dn through f,
    dx = dy + dn taken back through the first norm;
    backward returns (dp_norm, dp, dx, *dshared).
    """
    if not (callable(norm) and callable(f)):
        check_functions("both_norms", norm=norm, f=f)
    n, before_back = named_part("before", norm)(p_norm["before"], x)
    s, f_back = f(p, n, *shared)
    h, after_back = named_part("after", norm)(p_norm["after"], s)
    d, drop_back = dropout(h, rate=rate, key=key)

    def backward(dy: Array) -> tuple:
        dafter, ds = after_back(drop_back(dy))
        dp, dn, *dshared = f_back(ds)
        dbefore, dx = before_back(dn)
        return {"before": dbefore, "after": dafter}, dp, dx + dy, *dshared

    return x + d, backward


def parallel_block(
    p: Tree,
    x: Array,
    *shared: Array,
    norm: Component,
    attention: Component,
    mlp: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """y = x + dropout(attention(p, h, *shared)) + dropout(mlp(p, h)),   h = norm(p, x).

    Chowdhery et al. 2022, sec. 2: both sublayers read the same h.
    p = {"norm", "attention", "mlp"}; x (B, T, D) -> y (B, T, D).
    dh = the sum of what comes back through the two,   dx = dy + dh taken back through the norm;
    backward returns (dp, dx, *dshared).
    """
    if not (callable(norm) and callable(attention) and callable(mlp)):
        check_functions("parallel_block", norm=norm, attention=attention, mlp=mlp)
    h, norm_back = named("norm", norm)(p["norm"], x)
    a, attention_back = named("attention", attention)(p["attention"], h, *shared)
    f, mlp_back = named("mlp", mlp)(p["mlp"], h)
    a, a_drop_back = dropout(a, rate=rate, key=fold(key, 1))
    f, f_drop_back = dropout(f, rate=rate, key=fold(key, 2))

    def backward(dy: Array) -> tuple:
        dmlp, dh = mlp_back(f_drop_back(dy))
        dattention, dh_attention, *dshared = attention_back(a_drop_back(dy))
        dnorm, dx = norm_back(dh + dh_attention)
        return {"norm": dnorm, "attention": dattention, "mlp": dmlp}, dx + dy, *dshared

    return x + a + f, backward


def block(
    p: Tree,
    x: Array,
    *shared: Array,
    residual: Component,
    norm: Component,
    attention: Component,
    mlp: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """h = residual(x, attention),   y = residual(h, mlp): two sublayers.

    residual: pre_norm, post_norm, deep_norm, scaled_norm, after_norm or both_norms; norm(p, x),
    attention(p, x, *shared) and mlp(p, x) are the family's components; rate: of the dropout before
    each addition.
    p = {"norm1", "attention", "norm2", "mlp"}; x (B, T, D) -> y (B, T, D).
    backward returns (dp, dx, *dshared): dy back through the second sublayer, then the first.
    """
    if not (callable(residual) and callable(attention) and callable(mlp)):
        check_functions("block", residual=residual, attention=attention, mlp=mlp)
    norm1, attention = named("norm1", norm), named("attention", attention)
    norm2, mlp = named("norm2", norm), named("mlp", mlp)
    first = named("residual", residual, scope=False)
    h, attention_back = first(
        p["norm1"], p["attention"], x, *shared, norm=norm1, f=attention, rate=rate, key=fold(key, 1)
    )
    y, mlp_back = residual(p["norm2"], p["mlp"], h, norm=norm2, f=mlp, rate=rate, key=fold(key, 2))

    def backward(dy: Array) -> tuple:
        dnorm2, dmlp, dh = mlp_back(dy)
        dnorm1, dattention, dx, *dshared = attention_back(dh)
        dp = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "mlp": dmlp}
        return dp, dx, *dshared

    return y, backward


def cross_block(
    p: Tree,
    x: Array,
    context: Array,
    *shared: Array,
    residual: Component,
    norm: Component,
    attention: Component,
    cross: Component,
    mlp: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """h = residual(x, attention),   c = residual(h, cross to context),   y = residual(c, mlp).

    Vaswani et al. 2017, sec. 3.1, the decoder's layer.   As `block`, with a sublayer between the
    two: cross(p, h, context).   p = {"norm1", "attention", "norm2", "cross", "norm3", "mlp"};
    x, y (B, T, D), context: the encoder's hidden states (B, S, D), or what `cross` takes for them.
    backward returns (dp, dx, dcontext, *dshared): dy back through the three sublayers.
    """
    if not all(map(callable, (residual, attention, cross, mlp))):
        check_functions("cross_block", residual=residual, attention=attention, cross=cross, mlp=mlp)
    norms = [named(f"norm{i}", norm) for i in (1, 2, 3)]
    attention, cross, mlp = (
        named("attention", attention),
        named("cross", cross),
        named("mlp", mlp),
    )
    first, second = (named(name, residual, scope=False) for name in ("residual", "cross_residual"))
    drop = {"rate": rate}
    h, attention_back = first(
        p["norm1"], p["attention"], x, *shared, norm=norms[0], f=attention, key=fold(key, 1), **drop
    )
    c, cross_back = second(
        p["norm2"], p["cross"], h, context, norm=norms[1], f=cross, key=fold(key, 2), **drop
    )
    y, mlp_back = residual(p["norm3"], p["mlp"], c, norm=norms[2], f=mlp, key=fold(key, 3), **drop)

    def backward(dy: Array) -> tuple:
        dnorm3, dmlp, dc = mlp_back(dy)
        dnorm2, dcross, dh, dcontext = cross_back(dc)
        dnorm1, dattention, dx, *dshared = attention_back(dh)
        dp = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "cross": dcross}
        return {**dp, "norm3": dnorm3, "mlp": dmlp}, dx, dcontext, *dshared

    return y, backward
