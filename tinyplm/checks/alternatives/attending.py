"""Attention that differs: masks, the scale of the scores, heads, soft caps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .attention_parts import Attention, attention_of, band, causal, softmax, visible, window
from .parts import by_head
from .site import NotHere, Site, alternative, layers_own

HEADS = layers_own("attention.heads")

# ------------------------------------------------------------------------------------------ masks


def _under(site: Site, mask: np.ndarray) -> np.ndarray:
    return attention_of(site).but(mask=mask)


def _only_causal(site: Site) -> None:
    if not causal(site):
        raise NotHere


@alternative("sees the next token", at=HEADS, formula="s <= t + 1")
def sees_next(site: Site) -> np.ndarray:
    """The causal mask of theirs is off by one: each query sees one key too many."""
    _only_causal(site)
    return _under(site, visible(site, site.theirs.shape[2], first=1))


@alternative("does not see itself", at=HEADS, formula="s < t")
def not_itself(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The causal mask of theirs is off by one: a query does not see its own key."""
    _only_causal(site)
    own, T = attention_of(site), site.theirs.shape[2]
    mask = np.broadcast_to(visible(site, T, first=-1), (*site.theirs.shape[:1], 1, T, T))
    yield "zero without keys", own.but(mask=mask)
    empty = ~mask.any(-1, keepdims=True)
    yield (
        "the average without keys",
        own.but(mask=mask | empty) * ~empty + average(own) * empty,
    )


def average(own: Attention) -> np.ndarray:
    """The mean of all values, by heads: what a softmax of equal scores gives."""
    return own.shared(own.v).mean(2, keepdims=True)


@alternative("no causal mask", at=HEADS, formula="all s")
def not_causal(site: Site) -> np.ndarray:
    """Queries of theirs see later keys."""
    _only_causal(site)
    return _under(site, visible(site, site.theirs.shape[2], causal=False, window=None))


@alternative("a causal mask", at=HEADS, formula="s <= t")
def is_causal(site: Site) -> np.ndarray:
    """Queries of theirs see no later keys."""
    return _under(site, visible(site, site.theirs.shape[2], causal=True))


@alternative("causal mask transposed", at=HEADS, formula="s >= t")
def transposed_mask(site: Site) -> np.ndarray:
    """The causal mask of theirs hides earlier keys in place of later ones."""
    _only_causal(site)
    T = site.theirs.shape[2]
    mask = visible(site, T, causal=False, window=None)
    return _under(site, mask & band(T, causal=True, window=None).T)


@alternative("padding seen", at=HEADS, formula="the attention mask is not applied to the keys")
def padding_seen(site: Site) -> np.ndarray:
    """Queries of theirs see the keys of padding."""
    return _under(site, visible(site, site.theirs.shape[2], padding=None))


@alternative("no window", at=HEADS, formula="s <= t")
def no_window(site: Site) -> np.ndarray:
    """Queries of theirs see all earlier keys, where ours see a window."""
    if window(site) is None:
        raise NotHere
    return _under(site, visible(site, site.theirs.shape[2], window=None))


@alternative("window off by one", at=HEADS, formula="t - window -+ 1 < s")
def window_off(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The window of theirs is one key longer or shorter."""
    w, T = window(site), site.theirs.shape[2]
    if w is None:
        raise NotHere
    yield "one longer", _under(site, visible(site, T, window=w + 1))
    if w > 1:
        yield "one shorter", _under(site, visible(site, T, window=w - 1))


@alternative("mask after the softmax", at=HEADS, formula="P = softmax(A) * mask")
def masked_after(site: Site) -> np.ndarray:
    """Theirs sets hidden probabilities to zero after the softmax, so rows do not sum to one."""
    own = attention_of(site)
    q, k, v = own.turned()
    A = own.scale * q @ k.swapaxes(-1, -2)
    return softmax(A, np.ones_like(A, dtype=bool)) * own.mask @ v


@alternative("softmax over the queries", at=HEADS, formula="softmax along t, not s")
def wrong_axis(site: Site) -> np.ndarray:
    """The softmax of theirs is over the wrong axis."""
    own = attention_of(site)
    q, k, v = own.turned()
    A = own.scale * q @ k.swapaxes(-1, -2)
    mask = np.broadcast_to(own.mask, A.shape)
    return softmax(A.swapaxes(-1, -2), mask.swapaxes(-1, -2)).swapaxes(-1, -2) @ v


# ----------------------------------------------------------------------------------------- scores


@alternative("no scale of the scores", at=HEADS, formula="A = q k^T")
def no_scale(site: Site) -> np.ndarray:
    """Theirs does not scale the scores by E^-0.5."""
    return attention_of(site).but(scale=1.0)


@alternative("scores scaled by 1/E", at=HEADS, formula="A = q k^T / E")
def scale_by_width(site: Site) -> np.ndarray:
    """Theirs divides the scores by the width of a head, not by its root."""
    return attention_of(site).but(scale=1.0 / site.theirs.shape[3])


@alternative("scores scaled by the model's width", at=HEADS, formula="A = q k^T / sqrt(D)")
def scale_by_model(site: Site) -> np.ndarray:
    """Theirs divides the scores by the root of the model's width, not of a head's."""
    return attention_of(site).but(scale=site.model.width**-0.5)


@alternative("another scale of the scores", at=HEADS, formula="A = c q k^T", fitted=True)
def other_scale(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs scales the scores by another number."""
    own = attention_of(site)
    near = own.scale * np.array([0.5, 2.0, 0.9, 1.1, 0.1, 4.0])
    return site.fit("scale", lambda c: own.but(scale=c), near)


@alternative("a soft cap of the scores", at=HEADS, formula="A = c tanh(A / c)", fitted=True)
def capped(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs caps the scores, as in Gemma 2."""
    own = attention_of(site)
    return site.fit("cap", lambda c: own.but(cap=c), (50.0, 30.0, 20.0, 10.0, 5.0, 2.0, 1.0))


@alternative("no soft cap of the scores", at=HEADS, formula="A = scale q k^T")
def uncapped(site: Site) -> np.ndarray:
    """Theirs does not cap the scores."""
    own = attention_of(site)
    if own.cap is None:
        raise NotHere
    return own.but(cap=None)


@alternative("no sinks", at=HEADS, formula="P = softmax(A)")
def no_sinks(site: Site) -> np.ndarray:
    """The softmax of theirs has no sinks in its denominator."""
    own = attention_of(site)
    if own.sinks is None:
        raise NotHere
    return own.but(sinks=None)


@alternative("sinks of zero", at=HEADS, formula="P = exp(A) / (1 + sum exp(A))")
def zero_sinks(site: Site) -> np.ndarray:
    """The softmax of theirs is "off by one": its sinks are 0."""
    own = attention_of(site)
    if own.sinks is None:
        raise NotHere
    return own.but(sinks=np.zeros_like(own.sinks))


@alternative("no norm of queries and keys", at=HEADS, formula="A = scale (x Wq) (x Wk)^T")
def no_qk_norm(site: Site) -> np.ndarray:
    """Theirs leaves out the norms of queries and keys before the scores."""
    own = attention_of(site)
    if not site.has("attention.q_norm"):
        raise NotHere
    q, k = (
        by_head(site.value(f"attention.{n}"), x.shape[1]) for n, x in (("q", own.q), ("k", own.k))
    )
    return own.but(q=q, k=k)


@alternative("no ALiBi", at=HEADS, formula="A = scale q k^T")
def no_alibi(site: Site) -> np.ndarray:
    """The scores of theirs do not fall with the distance."""
    own = attention_of(site)
    if own.offsets is None:
        raise NotHere
    return own.but(offsets=None)


@alternative("ALiBi with the slopes reversed", at=HEADS, formula="m_h of head H - 1 - h")
def reversed_slopes(site: Site) -> np.ndarray:
    """Theirs has the slopes of the heads in the opposite order."""
    own = attention_of(site)
    if own.offsets is None:
        raise NotHere
    return own.but(offsets=own.offsets[:, ::-1])


# ------------------------------------------------------------------------------------------ heads


@alternative("key/value heads tiled", at=HEADS, formula="head h reads h mod K, not h // (H / K)")
def tiled(site: Site) -> np.ndarray:
    """Theirs repeats the sequence of key/value heads, where each should be repeated in place."""
    return attention_of(site).but(tiled=True)


@alternative("q, k and v interleaved by head", at=HEADS, formula="columns (head, q k v, E)")
def by_head_first(site: Site) -> np.ndarray:
    """Theirs splits the joint projection into heads first and into q, k and v then."""
    own = attention_of(site)
    H, E = site.theirs.shape[1], site.theirs.shape[3]
    if own.k.shape[1] != H:
        raise NotHere
    joint = np.concatenate([site.value(f"attention.{n}") for n in "qkv"], axis=-1)
    parts = joint.reshape(*joint.shape[:2], H, 3, E).transpose(3, 0, 2, 1, 4)
    return own.but(q=parts[0], k=parts[1], v=parts[2])


@alternative("components before heads", at=HEADS, formula="columns (E, head), not (head, E)")
def strided(site: Site) -> np.ndarray:
    """Theirs splits the width with the heads as the fast axis."""
    own = attention_of(site)

    def split(x: np.ndarray, heads: int) -> np.ndarray:
        return x.reshape(*x.shape[:2], -1, heads).transpose(0, 3, 1, 2)

    q, k, v = (site.value(f"attention.{n}") for n in "qkv")
    K = own.k.shape[1]
    return own.but(q=split(q, own.q.shape[1]), k=split(k, K), v=split(v, K))


@alternative(
    "heads split without a transposition", at=HEADS, formula="(B, T, H E) viewed as (B, H, T, E)"
)
def viewed(site: Site) -> np.ndarray:
    """Theirs reshapes straight to (B, H, T, E), which mixes positions and heads."""
    own = attention_of(site)
    q, k, v = (
        site.value(f"attention.{n}").reshape(p.shape) for n, p in zip("qkv", (own.q, own.k, own.v))
    )
    return own.but(q=q, k=k, v=v)


@alternative(
    "heads merged without a transposition", at=HEADS, formula="(B, H, T, E) viewed as (B, T, H E)"
)
def merged_as_is(site: Site) -> np.ndarray:
    """Theirs reshapes straight back from (B, H, T, E), which mixes positions and heads."""
    o = attention_of(site).heads()
    B, H, T, E = o.shape
    return by_head(o.reshape(B, T, H * E), H)


@alternative("queries and keys swapped", at=HEADS)
def swapped(site: Site) -> np.ndarray:
    """Theirs takes the keys for queries and the queries for keys."""
    own = attention_of(site)
    if own.q.shape != own.k.shape:
        raise NotHere
    return own.but(q=own.k, k=own.q)


@alternative("keys and values swapped", at=HEADS)
def keys_for_values(site: Site) -> np.ndarray:
    """Theirs takes the keys for values and the values for keys."""
    own = attention_of(site)
    return own.but(k=own.v, v=own.k)
