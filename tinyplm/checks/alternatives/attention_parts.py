"""Attention of one layer as a record of its parts, each of which an alternative may change."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .parts import by_head
from .site import NotHere, Site


@dataclasses.dataclass(frozen=True)
class Attention:
    """o = softmax(cap(scale q k^T) + offsets where mask) v by heads, q and k rotated by their
    positions; with sinks (H,), whose exponentials join the denominators.

    q (B, H, T, E), k and v (B, K, T, E) before the rotation; mask broadcastable to (B, H, T, T).
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    mask: np.ndarray
    scale: float
    positions: np.ndarray  # (B or 1, T)
    frequencies: np.ndarray | None = None  # (E/2,), None without rotation
    magnitude: float = 1.0
    key_positions: np.ndarray | None = None  # None: those of the queries
    interleaved: bool = False
    cap: float | None = None
    offsets: np.ndarray | None = None  # ALiBi's, (B or 1, H, 1, T)
    sinks: np.ndarray | None = None  # (H,)
    tiled: bool = False  # head h reads key/value head h mod K
    value_rotated: bool = False

    def rotation(self) -> np.ndarray:
        """The frequencies; NotHere without rotation."""
        if self.frequencies is None:
            raise NotHere
        return self.frequencies

    def rotated(self, x: np.ndarray, positions: np.ndarray, sign: float = 1.0) -> np.ndarray:
        """x turned by sign * position * frequency, pair by pair."""
        if self.frequencies is None:
            return x
        angles = positions[:, None, :, None] * self.frequencies
        cos, sin = self.magnitude * np.cos(angles), sign * self.magnitude * np.sin(angles)
        F, y = len(self.frequencies), x.copy()
        a, b = slice(0, F), slice(F, 2 * F)
        if self.interleaved:
            a, b = slice(0, 2 * F, 2), slice(1, 2 * F, 2)
        y[..., a] = x[..., a] * cos - x[..., b] * sin
        y[..., b] = x[..., b] * cos + x[..., a] * sin
        return y

    def shared(self, x: np.ndarray) -> np.ndarray:
        """(B, K, T, E) -> (B, H, T, E): the key/value head of each head."""
        times = self.q.shape[1] // x.shape[1]
        return np.tile(x, (1, times, 1, 1)) if self.tiled else np.repeat(x, times, axis=1)

    def turned(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """q, k, v as they enter the scores, by all H heads."""
        at = self.positions if self.key_positions is None else self.key_positions
        k, v = self.rotated(self.k, at), self.v
        v = self.rotated(v, at) if self.value_rotated else v
        return self.rotated(self.q, self.positions), self.shared(k), self.shared(v)

    def probabilities(self) -> np.ndarray:
        """P (B, H, T, T); zero in a row without keys."""
        q, k, _ = self.turned()
        A = self.scale * q @ k.swapaxes(-1, -2)
        A = A if self.cap is None else self.cap * np.tanh(A / self.cap)
        A = A if self.offsets is None else A + self.offsets
        if self.sinks is None:
            return softmax(A, self.mask)
        sink = np.broadcast_to(self.sinks[:, None, None], (*A.shape[:3], 1))  # a key in front
        mask = np.broadcast_to(self.mask, A.shape)
        seen = np.concatenate([np.ones_like(mask[..., :1]), mask], axis=-1)
        return softmax(np.concatenate([sink, A], axis=-1), seen)[..., 1:]

    def heads(self) -> np.ndarray:
        """o (B, H, T, E)."""
        return self.probabilities() @ self.turned()[2]

    def but(self, **changes: Any) -> np.ndarray:
        """The heads with other parts."""
        return dataclasses.replace(self, **changes).heads()


def softmax(A: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Over the keys that mask shows."""
    A = np.where(mask, A, -np.inf)
    top = A.max(-1, keepdims=True)
    e = np.exp(A - np.where(np.isfinite(top), top, 0))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def attention_of(site: Site) -> Attention:
    """The attention of this layer; NotHere if the formula is not that of this model."""
    key = ("attention", site.index)
    if key not in site.known:
        try:
            site.known[key] = _attention_of(site)
        except NotHere:
            site.known[key] = None
    if site.known[key] is None:
        raise NotHere
    return site.known[key]


def _attention_of(site: Site) -> Attention:
    heads = site.value("attention.heads")
    B, H, T, E = heads.shape
    v = site.value("attention.v")
    normed = site.has("attention.q_norm")
    q, k = (site.value(f"attention.{n}{'_norm' * normed}") for n in "qk")
    K = v.shape[-1] // E
    if site.has("attention.k_cached") or K * E * T != k[0].size or H % K:
        raise NotHere
    q, k = (x if x.ndim == 4 else by_head(x, n) for x, n in ((q, H), (k, K)))
    options = _options(site)
    positions = site.trace.inputs.get("position_ids")
    positions = np.arange(T) if positions is None else positions
    given = _placed(site, positions, T)
    frequencies, magnitude = (None, 1.0)
    if "rotary" in given:
        config = site.model.config
        local = window(site) is not None and hasattr(config, "local_rope")
        rope = config.local_rope if local else config.rope
        frequencies, magnitude = rope.frequencies(config.rotary_width, int(positions.max()) + 1)
    made = Attention(
        q, k, by_head(v, K), visible(site, T),
        E**-0.5 if options.get("scale") is None else options["scale"],
        np.atleast_2d(positions), frequencies, magnitude,
        interleaved="rotary" in given and given["rotary"].keywords["interleaved"],
        cap=options.get("cap"), offsets=given.get("offsets"),
        sinks=site.optional("attention.sinks"),
    )  # fmt: skip
    real = site.padding
    d = np.abs(made.heads() - heads)
    d = d if real is None else d[np.broadcast_to(real[:, None, :, None], d.shape)]
    if d.size and d.max() > max(site.allowed, 1e-5 * np.abs(heads).max()):
        raise NotHere
    return made


def _options(site: Site) -> dict[str, Any]:
    """The keywords of the family's attention in this layer, as far as they are known."""
    pieces = getattr(site.model.family, "pieces", None)
    attention = getattr(pieces(site.model.config), "attention", None) if pieces else None
    if not causal(site) or attention is None:
        return {}
    return dict(getattr(attention(site.index), "keywords", {}))


def _placed(site: Site, positions: np.ndarray, T: int) -> dict[str, Any]:
    """What the family's positions give to attention in this layer: RoPE, or ALiBi's offsets."""
    if not causal(site):
        return {}
    mask = site.trace.inputs.get("attention_mask")
    part = site.model.family.pieces(site.model.config).positions
    return part(positions, keys=T, attention_mask=mask, dtype="float64")(site.index, T)


def causal(site: Site) -> bool:
    """Whether a query sees no later keys."""
    return site.model.task == "causal_lm"


def window(site: Site) -> int | None:
    """How many keys a query sees in this layer; None for all."""
    return site.model.family.pieces(site.model.config).window(site.index) if causal(site) else None


def visible(site: Site, T: int, **changes: Any) -> np.ndarray:
    """The mask (B or 1, H or 1, T, T); changes: of `band`, padding=None, or causal=False."""
    settings = {"causal": causal(site), "window": window(site), "padding": site.padding, **changes}
    padding, allowed = settings.pop("padding"), site.trace.inputs.get("attention_mask")
    mask, prefix = band(T, **settings)[None, None], site.trace.inputs.get("prefix_lengths")
    if prefix is not None and settings["causal"]:
        mask = mask | (np.arange(T) < prefix[:, None, None, None])
    if padding is not None:
        mask = mask & padding[:, None, None, :]
    elif allowed is not None and allowed.ndim == 4:
        mask = mask & allowed
    return mask


def band(T: int, *, causal: bool, window: int | None, first: int = 0) -> np.ndarray:
    """(T, T): query t sees key s if t - window < s <= t + first."""
    t, s = np.arange(T)[:, None], np.arange(T)
    seen = s <= t + first if causal else np.ones((T, T), dtype=bool)
    return seen if window is None else seen & (s > t - window)
