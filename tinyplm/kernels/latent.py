"""Latent attention (MLA) in the form that is less work."""

from __future__ import annotations

from typing import Any

from ..core import Array, Backward, Component, Tree, named
from ..layers import latent as plain
from ..layers.attention_parts import scores_and_probabilities
from ..layers.cache import parts_of
from ..layers.mask import Visible
from ..layers.norm import rmsnorm
from ..shapes import expects
from .attention import attention


@expects(plain.ARGUMENTS, hot=True)
def latent_attention(
    p: Tree,
    x: Array,
    *,
    heads: int,
    rotary: Component | None = None,
    norm: Component = rmsnorm,
    cache: Any = None,
    mask: Visible | Array | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[Array, Backward]:
    """layers.latent.latent_attention by blocks of queries, or, with a cache and few queries,
    layers.latent.absorbed_attention: see `absorbs`.

    With the heads of DeepSeek-V2-Lite (H 16, C 512, D 1024) one token after 1,023 others takes 2 ms
    in the absorbed form and 93 ms in the expanded one, 128 tokens as long in either.
    """
    more = (("scores", "probabilities"), scores_and_probabilities)
    form, attend = plain.latent_attention, named("heads", attention, more=more)
    if cache is not None and absorbs(p, x, heads=heads, cache=cache):
        form, attend = plain.absorbed_attention, named("latent_heads", attention, more=more)
    options: dict[str, Any] = {"rotary": rotary, "norm": norm, "cache": cache, "mask": mask}
    options |= {"scale": scale, "rate": rate, "key": key, "attend": attend}
    return form(p, x, heads=heads, **options)


def absorbs(p: Tree, x: Array, *, heads: int, cache: Any) -> bool:
    """Whether the absorbed form takes fewer multiplications for T new places of S in a cache.

    Of each head: expanded, S C (E + E2) for its keys and values and T S (E + R + E2) for
    attention; absorbed, T C (E + E2) for queries and outputs and T S (2 C + R).
    So for one token the absorbed form, for a prompt the expanded one.
    """
    _, R = plain.widths("latent_attention", p, heads)
    C, both = p["Wuk"].shape[0], (p["Wuk"].shape[1] + p["Wuv"].shape[1]) // heads
    _, start, window = parts_of("latent_attention: cache", cache)
    T = x.shape[1]
    S = T + (start if window is None else min(start, window - 1))
    return T * (C * both + S * (2 * C + R)) < S * (C * both + T * (both + R))
