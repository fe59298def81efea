"""Linear layers that differ: biases, transposed and permuted weights, other matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...backend import to_host
from .parts import LINEAR, Linear, linear_of
from .site import LITTLE, NotHere, Site, alternative, layers_own

SPARE = 4  # rows beyond those that any matrix fits
FEW = 32  # columns
QK = layers_own(r"attention\.[qk]")
OTHERS = ("attention.q", "attention.k", "attention.v", "mlp.gate", "mlp.up")


def layer_of(site: Site) -> Linear:
    """The linear layer here, or the output matrix of the model."""
    return output_of(site) if site.name == "logits" else linear_of(site)


def output_of(site: Site) -> Linear:
    """logits = x W + b of a language model; x may be scaled, and b a buffer."""
    tied = site.optional("head.W")
    W = site.parameter("body.tokens").T if tied is None else tied
    last = list(site.trace)[list(site.trace).index("logits") - 1]
    x = getattr(site.model.config, "logit_scale", 1.0) * site.value(last)
    fixed = site.model.buffers.get("logits_bias")
    b = site.optional("head.bias") if fixed is None else to_host(fixed)[0].astype("float64")
    own = Linear(x, W, b)
    if own.x.shape[-1] != len(W) or (site.kind == "forward" and not site.is_ours(own.of(own.x))):
        raise NotHere
    return own


@alternative("transposed weight", at=LINEAR, formula="x W^T + b")
def transposed(site: Site) -> np.ndarray:
    """The square weight of theirs is transposed."""
    own = linear_of(site)
    if own.W.shape[0] != own.W.shape[1]:
        raise NotHere
    return Linear(own.x, own.W.T, own.b).of(own.x)


@alternative("no bias", at=f"{LINEAR}|logits$", formula="x W")
def no_bias(site: Site) -> np.ndarray:
    """Theirs leaves out the bias."""
    own = layer_of(site)
    if own.b is None:
        raise NotHere
    return own.x @ own.W


@alternative("bias added twice", at=f"{LINEAR}|logits$", formula="x W + 2 b")
def bias_twice(site: Site) -> np.ndarray:
    """Theirs adds the bias twice."""
    own = layer_of(site)
    if own.b is None:
        raise NotHere
    return own.of(own.x) + own.b


@alternative(
    "rows of q and k permuted for rotary pairs", at=QK, formula="(i, i + E/2) <-> (2i, 2i + 1)"
)
def permuted(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The weight of theirs has the rows of each head in the order of the other kind of rotary
    pairs, as in Meta's files beside the hub's."""
    y = linear_of(site).of(linear_of(site).x)
    E = site.value("attention.heads").shape[-1]
    if E % 2:
        raise NotHere
    heads = y.reshape(*y.shape[:2], -1, E)
    pairs = heads.reshape(*heads.shape[:3], 2, E // 2)
    yield "halves to pairs", pairs.swapaxes(-1, -2).reshape(y.shape)
    pairs = heads.reshape(*heads.shape[:3], E // 2, 2)
    yield "pairs to halves", pairs.swapaxes(-1, -2).reshape(y.shape)


@alternative("heads in another order", at=layers_own(r"attention\.[qkv]"))
def reordered(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The weight of theirs has the heads' columns in another order."""
    y = linear_of(site).of(linear_of(site).x)
    E = site.value("attention.heads").shape[-1]
    heads = y.reshape(*y.shape[:2], -1, E)
    yield "reversed", heads[:, :, ::-1].reshape(y.shape)
    yield "components before heads", heads.swapaxes(-1, -2).reshape(y.shape)


@alternative("another layer's weight", at=layers_own(r"(attention\.[qkv]|mlp\.(gate|up))"))
def exchanged(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs applies another of the layers that read the same input: swapped names."""
    for role in OTHERS:
        same = role.partition(".")[0] == site.role.partition(".")[0]
        if same and role != site.role and site.has(role):
            y = site.value(role)
            if y.shape == site.theirs.shape:
                yield role, y


@alternative("another matrix", at=f"{LINEAR}|logits$", formula="x M, M not our W", fitted=True)
def another(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs is linear in what this layer reads, by another matrix or bias: the weights differ.

    A few columns tell whether there is such a matrix before all are solved for.
    """
    own = layer_of(site)
    rows = site.real.reshape(-1, site.theirs.shape[-1])[:, 0]
    x, y = own.x.reshape(-1, own.x.shape[-1]), site.theirs.reshape(-1, site.theirs.shape[-1])
    for name, columns in (("", x), ("with a bias", np.c_[x, np.ones(len(x))])):
        known = columns[rows]
        rank = known.shape[1]
        if len(known) >= rank + SPARE and np.linalg.matrix_rank(known) == rank:
            few = y[rows, :FEW].astype("float64")
            left = few - known @ np.linalg.lstsq(known, few, rcond=None)[0]
            if np.abs(left).max() <= LITTLE * site.distance(site.own()):
                M = np.linalg.lstsq(known, y[rows].astype("float64"), rcond=None)[0]
                yield name, (columns @ M).reshape(site.theirs.shape)
