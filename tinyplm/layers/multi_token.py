"""The input of a multi-token prediction module: hidden states joined with later tokens."""

from __future__ import annotations

from ..backend import array_module
from ..core import Array, Backward, Component, Tree, named
from ..shapes import expects
from .linear import linear
from .norm import rmsnorm


@expects(
    "p {hidden_norm embed_norm Wproj}, hidden (B, T, D), embeds (B, T, D); function norm", hot=True
)
def multi_token_input(
    p: Tree, hidden: Array, embeds: Array, *, norm: Component = rmsnorm
) -> tuple[Array, Backward]:
    """y = [norm(hidden), norm(embeds)] Wproj,   the input of module k's block.

    DeepSeek team 2024b (V3), eq. 21: position i joins what module k - 1 (for k = 1 the model) made
    of it with token i + k; the caller shifts, so T is k less than the model's.   The shared
    embedding, the block (eq. 22) and the shared head (eq. 23) are the family's.
    hidden and embeds (B, T, D) -> y (B, T, D).   p: hidden_norm and embed_norm (D,), Wproj (2D, D),
    its first D rows for hidden, as in the paper.  DeepSeek's files have those for embeds first.
    norm: component (x, gamma).
    dh, de = dy Wproj^T, which the norms take back;   dWproj = [norm(hidden), norm(embeds)]^T dy.
    backward returns (dp, dhidden, dembeds).
    """
    h, h_back = named("hidden_norm", norm)(hidden, p["hidden_norm"])
    e, e_back = named("embed_norm", norm)(embeds, p["embed_norm"])
    y, y_back = linear(array_module(h).concatenate([h, e], axis=-1), p["Wproj"])
    D = h.shape[-1]

    def backward(dy: Array) -> tuple[Tree, Array, Array]:
        djoined, dWproj, _ = y_back(dy)
        dhidden, dhidden_norm = h_back(djoined[..., :D])
        dembeds, dembed_norm = e_back(djoined[..., D:])
        dp = {"hidden_norm": dhidden_norm, "embed_norm": dembed_norm, "Wproj": dWproj}
        return dp, dhidden, dembeds

    return y, backward
