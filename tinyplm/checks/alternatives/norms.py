"""Norms that differ: eps, centring, gain, bias, order, rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...hub.tensors import round_to_bfloat16, widened
from .parts import NORM, Norm, norm_of
from .site import NotHere, Site, alternative
from .wiring import attended, fed

EPS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-7, 1e-3, 1e-2, 1e-1, 0.0)


@alternative("another eps", at=NORM, formula="1 / sqrt(var + eps)", fitted=True)
def other_eps(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs adds another number to the variance."""
    own = norm_of(site)
    return site.fit("eps", lambda eps: own.y(eps=max(eps, 0.0)), EPS)


@alternative("eps outside the root", at=NORM, formula="1 / (sqrt(var) + eps)")
def outside(site: Site) -> np.ndarray:
    """Theirs adds eps to the standard deviation, where ours adds it to the variance."""
    own = norm_of(site)
    x = own.x - own.x.mean(-1, keepdims=True) if own.centred else own.x
    return _affine(own, x / (np.sqrt(np.mean(x**2, -1, keepdims=True)) + own.eps))


@alternative("eps as a maximum", at=NORM, formula="1 / max(sqrt(var), eps)")
def maximum(site: Site) -> np.ndarray:
    """Theirs bounds the standard deviation by eps, as torch's normalize does."""
    own = norm_of(site)
    x = own.x - own.x.mean(-1, keepdims=True) if own.centred else own.x
    return _affine(own, x / np.maximum(np.sqrt(np.mean(x**2, -1, keepdims=True)), own.eps))


def _affine(own: Norm, xhat: np.ndarray) -> np.ndarray:
    return own.gamma * xhat + (0 if own.beta is None else own.beta)


@alternative("LayerNorm", at=NORM, formula="(x - mean(x)) / sqrt(var(x) + eps)")
def layer_norm(site: Site) -> np.ndarray:
    """Theirs subtracts the mean, where ours divides by the root of the mean square."""
    return norm_of(site).y(centred=True)


@alternative("RMSNorm", at=NORM, formula="x / sqrt(mean(x^2) + eps)")
def rms_norm(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs does not subtract the mean."""
    own = norm_of(site)
    yield "", own.y(centred=False)
    yield "without the bias", own.y(centred=False, beta=None)


@alternative("unbiased variance", at=NORM, formula="var = sum (x - mean)^2 / (D - 1)")
def unbiased(site: Site) -> np.ndarray:
    """Theirs divides the sum of squares by D - 1, where ours divides by D."""
    own = norm_of(site)
    D, x = own.x.shape[-1], own.x - own.x.mean(-1, keepdims=True) if own.centred else own.x
    return _affine(own, x / np.sqrt((x**2).sum(-1, keepdims=True) / (D - 1) + own.eps))


@alternative("sum in place of the mean", at=NORM, formula="x / sqrt(sum(x^2) + eps)")
def summed(site: Site) -> np.ndarray:
    """Theirs divides by the length of the row, not by the root of its mean square."""
    own = norm_of(site)
    x = own.x - own.x.mean(-1, keepdims=True) if own.centred else own.x
    return _affine(own, x / np.sqrt((x**2).sum(-1, keepdims=True) + own.eps))


@alternative("gain of 1 + gamma", at=NORM, formula="(1 + gamma) * xhat")
def one_plus(site: Site) -> np.ndarray:
    """Theirs adds 1 to the gain, as in Gemma."""
    own = norm_of(site)
    return own.y(gamma=1 + own.gamma)


@alternative("no gain", at=NORM, formula="xhat")
def no_gain(site: Site) -> np.ndarray:
    """Theirs leaves out the gain."""
    own = norm_of(site)
    return own.y(gamma=np.ones_like(own.gamma))


@alternative("no bias of the norm", at=NORM, formula="gamma * xhat")
def no_bias(site: Site) -> np.ndarray:
    """Theirs leaves out the bias."""
    return norm_of(site).y(beta=None)


@alternative("no norm", at=NORM, formula="y = x")
def no_norm(site: Site) -> np.ndarray:
    """Theirs does not normalise here."""
    return norm_of(site).x


@alternative("the layer's other norm", at=r"layers\.\d+\.norm[12]$")
def other_gain(site: Site) -> np.ndarray:
    """Theirs applies gain and bias of the layer's other norm."""
    own, other = norm_of(site), "norm2" if site.role == "norm1" else "norm1"
    return own.y(gamma=site.parameter(f"{other}.gamma"), beta=site.optional(f"{other}.beta"))


# --------------------------------------------------------------------------- rounding in the norm


def float16(x: np.ndarray) -> np.ndarray:
    """x rounded to float16."""
    with np.errstate(over="ignore"):
        return x.astype("float16").astype("float64")


def bfloat16(x: np.ndarray) -> np.ndarray:
    """x rounded to bfloat16: to nearest, ties to even."""
    return widened(round_to_bfloat16(x)).astype("float64").reshape(x.shape)


def float32(x: np.ndarray) -> np.ndarray:
    """x rounded to float32."""
    return x.astype("float32").astype("float64")


LOW: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float16": float16,
    "bfloat16": bfloat16,
    "float32": float32,
}


@alternative("normalised row cast before the gain", at=NORM, formula="gamma * cast(xhat)")
def cast_before(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs casts the normalised row to a lower precision and multiplies by the gain then."""
    own = norm_of(site)
    for name, cast in LOW.items():
        yield name, _affine(own, cast(own.xhat()))
        yield f"{name}, the product too", cast(_affine(own, cast(own.xhat())))


@alternative("output of the norm cast after the gain", at=NORM, formula="cast(gamma * xhat)")
def cast_after(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs casts the output of the norm to a lower precision."""
    own = norm_of(site)
    for name, cast in LOW.items():
        yield name, cast(own.y())


@alternative("input of the norm cast", at=NORM, formula="norm(cast(x))")
def cast_input(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs casts the input of the norm to a lower precision."""
    own = norm_of(site)
    for name, cast in LOW.items():
        yield name, own.y(cast(own.x))


# -------------------------------------------------------------------------------- what is normed


@alternative(
    "norm after the sum (post-norm)", at=r"layers\.\d+\.norm[12]$", formula="norm(x + f(x))"
)
def post_norm(site: Site) -> np.ndarray:
    """Theirs normalises after the residual addition, where ours normalises what a part reads."""
    if not site.pre_norm:
        raise NotHere
    own = norm_of(site)
    f = attended if site.role == "norm1" else fed
    return own.y(own.x + f(site, own.x))


@alternative("no residual in front of the norm", at=r"layers\.\d+\.norm[12]$", formula="norm(f(x))")
def only_part(site: Site) -> np.ndarray:
    """Theirs normalises the output of the part alone, without the residual."""
    if site.pre_norm:
        raise NotHere
    return norm_of(site).y(site.value("attention" if site.role == "norm1" else "mlp"))


@alternative("norm before the sum", at=r"layers\.\d+\.norm[12]$", formula="x + norm(f(x))")
def norm_of_part(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs normalises the output of the part and adds the residual then."""
    if site.pre_norm:
        raise NotHere
    part, x = ("attention", site.before) if site.role == "norm1" else ("mlp", "residual")
    y = norm_of(site).y(site.value(part))
    yield "", y
    yield "seen after the sum", site.value(x) + y
