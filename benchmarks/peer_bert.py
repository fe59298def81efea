"""BERT with a masked-LM head in PyTorch, optimized for eager mode.

One product for queries, keys and values, scaled_dot_product_attention, gelu, tied embeddings; the
head is applied only at positions with a target, as a careful user would write it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peer import fill, fill_linear, fill_norm
from torch import nn
from torch.utils.checkpoint import checkpoint

EPS = 1e-12  # LayerNorm's eps, as in tinyplm's bert.Config
IGNORED = -100


class Layer(nn.Module):
    def __init__(self, D: int, H: int):
        super().__init__()
        self.H = H
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=EPS), nn.LayerNorm(D, eps=EPS)

    def forward(self, x, mask=None):
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.H, D // self.H).permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm1(x + self.out(o.transpose(1, 2).reshape(x.shape)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """all_places: apply the head at all positions, as in transformers.  chunked: see peer.Model."""

    def __init__(
        self,
        shape: list[int],
        checkpointing: bool = False,
        chunked: bool = False,
        all_places: bool = False,
    ):
        super().__init__()
        L, D, H, T, _, V = shape
        self.checkpointing, self.all_places = checkpointing, all_places
        self.chunks = nn.LinearCrossEntropyOptions() if chunked else None
        self.tokens, self.segments, self.positions = (
            nn.Embedding(V, D),
            nn.Embedding(2, D),
            nn.Embedding(T, D),
        )
        for table in (self.tokens, self.segments, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.norm = nn.LayerNorm(D, eps=EPS)
        self.layers = nn.ModuleList(Layer(D, H) for _ in range(L))
        self.transform, self.head_norm = nn.Linear(D, D), nn.LayerNorm(D, eps=EPS)
        self.bias = nn.Parameter(torch.zeros(V))

    def hidden(self, input_ids, token_type_ids, mask=None):
        x = self.norm(
            self.tokens(input_ids)
            + self.segments(token_type_ids)
            + self.positions.weight[: input_ids.shape[1]]
        )
        for layer in self.layers:
            if self.checkpointing:
                x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, mask)
        return x

    def loss(self, inputs, targets):
        x, targets = self.hidden(**inputs).flatten(0, 1), targets.flatten()
        if not self.all_places:
            places = (targets != IGNORED).nonzero().squeeze(1)
            x, targets = x[places], targets[places]
        h = self.head_norm(F.gelu(self.transform(x)))
        return F.linear_cross_entropy(
            h,
            self.tokens.weight,
            targets,
            linear_bias=self.bias,
            ignore_index=IGNORED,
            options=self.chunks,
        )

    @torch.no_grad()
    def copy(self, params: dict) -> None:
        """Load tinyplm's parameters."""
        body, head = params["body"], params["head"]
        for name in ("tokens", "segments", "positions"):
            fill(getattr(self, name).weight, body[name])
        fill_norm(self.norm, body["norm"])
        for layer, p in zip(self.layers, body["layers"]):
            fill_linear(layer.qkv, p["attention"], "q", "k", "v")
            fill_linear(layer.out, p["attention"], "o")
            fill_linear(layer.up, p["mlp"], "1")
            fill_linear(layer.down, p["mlp"], "2")
            fill_norm(layer.norm1, p["norm1"])
            fill_norm(layer.norm2, p["norm2"])
        fill_linear(self.transform, head["transform"], "")
        fill_norm(self.head_norm, head["transform"])
        fill(self.bias, head["bias"])
