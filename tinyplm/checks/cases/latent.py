"""Cases of latent attention in both forms, and of the input of multi-token modules."""

from __future__ import annotations

from functools import partial

from ...layers import latent, multi_token, norm
from ..case import Case, Entry, Sizes
from .attention import attention_mask
from .rope import rope_settings, turned

_EPS = 0.1  # moderate curvature when a latent has one component


def latent_case(s: Sizes) -> Case:
    """Values of another width than keys, queries of low rank or not, biases or none, RoPE's pairs
    neighbours or halves; a mask of any kind, or none."""
    rng = s.rng()
    C, R, low_rank = s.S, 2 * s.K, s.seed % 3 > 0
    query = s.F if low_rank else s.D
    shapes: dict[str, tuple[int, ...]] = {
        "Wdkv": (s.D, C),
        "kv_norm": (C,),
        "Wkr": (s.D, R),
        "Wuk": (C, s.H * s.E),
        "Wuv": (C, s.H * s.F),
        "Wo": (s.H * s.F, s.D),
        "Wuq" if low_rank else "Wq": (query, s.H * (s.E + R)),
    }
    if low_rank:
        shapes |= {"Wdq": (s.D, s.F), "q_norm": (s.F,)}
    if s.flags[1]:
        shapes |= {"bdkv": (C,), "bkr": (R,), "bo": (s.D,)}
        shapes |= {"bdq": (s.F,)} if low_rank else {}
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    rotary = partial(turned, **rope_settings(s, rng, R), interleaved=bool(s.seed % 2))
    kwargs = {
        "heads": s.H,
        "rotary": rotary,
        "norm": partial(norm.rmsnorm, eps=_EPS),
        "mask": attention_mask(s, rng, s.T),
        "scale": 0.7 if s.flags[2] else None,
    }
    return Case([p, rng.normal(size=(s.B, s.T, s.D))], kwargs)


def _multi_token(s: Sizes) -> Case:
    rng = s.rng()
    shapes = {"hidden_norm": (s.D,), "embed_norm": (s.D,), "Wproj": (2 * s.D, s.D)}
    p = {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}
    hidden, embeds = rng.normal(size=(2, s.B, s.T, s.D))
    return Case([p, hidden, embeds], {"norm": partial(norm.rmsnorm, eps=_EPS)})


COMPONENTS = {
    "latent_attention": Entry(
        latent.latent_attention,
        latent_case,
        "latent attention, its keys and values expanded",
    ),
    "absorbed_attention": Entry(
        latent.absorbed_attention,
        latent_case,
        "latent attention among the latent vectors themselves",
    ),
    "multi_token_input": Entry(
        multi_token.multi_token_input,
        _multi_token,
        "hidden states joined with the embeddings of later tokens",
    ),
}
