"""T5 in PyTorch, optimized for eager mode.

One product for queries, keys and values, one for the keys and values of cross-attention, rms_norm,
a bias that is looked up once for each side, tied embeddings.  scaled_dot_product_attention is used
in cross-attention alone: a step takes 2% longer with it where the mask needs a gradient, as the
bias does.  transformers' model, with sdpa or eager attention, takes 1% longer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peer import fill, fill_linear
from torch import nn
from torch.utils.checkpoint import checkpoint

EPS, BUCKETS, LONGEST = 1e-6, 32, 128  # as in tinyplm's t5.Config


class SelfAttention(nn.Module):
    def __init__(self, D: int, H: int):
        super().__init__()
        self.H = H
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)

    def forward(self, x, bias):
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.H, D // self.H).permute(2, 0, 3, 1, 4)
        o = torch.softmax(q @ k.transpose(2, 3) + bias, dim=-1) @ v
        return self.out(o.transpose(1, 2).reshape(x.shape))


class CrossAttention(nn.Module):
    def __init__(self, D: int, H: int):
        super().__init__()
        self.H = H
        self.q, self.kv = nn.Linear(D, D, bias=False), nn.Linear(D, 2 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)

    def forward(self, x, context):
        B, T, D = x.shape
        q = self.q(x).view(B, T, self.H, -1).transpose(1, 2)
        k, v = self.kv(context).view(B, -1, 2, self.H, D // self.H).permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.out(o.transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    def __init__(self, D: int, H: int, decoder: bool):
        super().__init__()
        self.attention, self.cross = SelfAttention(D, H), CrossAttention(D, H) if decoder else None
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(D, eps=EPS) for _ in range(2 + decoder))

    def forward(self, x, bias, context=None):
        x = x + self.attention(self.norms[0](x), bias)
        if context is not None:
            x = x + self.cross(self.norms[1](x), context)
        return x + self.down(F.relu(self.up(self.norms[-1](x))))


class Side(nn.Module):
    """The encoder or the decoder: its layers, and the bias (1, H, T, T) that they share."""

    def __init__(self, L: int, D: int, H: int, T: int, decoder: bool, checkpointing: bool):
        super().__init__()
        self.checkpointing = checkpointing
        self.table = nn.Embedding(BUCKETS, H)
        self.layers = nn.ModuleList(Layer(D, H, decoder) for _ in range(L))
        self.norm = nn.RMSNorm(D, eps=EPS)
        distances = torch.arange(T)[None] - torch.arange(T)[:, None]  # s - t
        self.register_buffer("buckets", bucket(distances, bidirectional=not decoder))
        self.register_buffer("hidden", distances > 0 if decoder else None)

    def forward(self, x, *context):
        bias = self.table(self.buckets).permute(2, 0, 1)[None]
        if self.hidden is not None:
            bias = bias.masked_fill(self.hidden, float("-inf"))
        for layer in self.layers:
            if self.checkpointing:
                x = checkpoint(
                    layer, x, bias, *context, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = layer(x, bias, *context)
        return self.norm(x)


def bucket(distances, bidirectional: bool):
    """Raffel et al. 2020, sec. 2.1."""
    n = BUCKETS // 2 if bidirectional else BUCKETS
    d = distances.abs() if bidirectional else (-distances).clamp(min=0)
    exact = n // 2
    steps = (d.clamp(min=exact) / exact).log() / torch.tensor(LONGEST / exact).log()
    beyond = (exact + (steps * (n - exact)).long()).clamp(max=n - 1)
    return torch.where(d < exact, d, beyond) + n * ((distances > 0) & bidirectional)


class T5(nn.Module):
    """Of shape (L, D, H, T, B, V), with L layers a side and T / 2 tokens in the target."""

    def __init__(self, shape: list[int], checkpointing: bool = False):
        super().__init__()
        L, D, H, T, _, V = shape
        self.scale = D**-0.5
        self.tokens = nn.Embedding(V, D)
        self.encoder = Side(L, D, H, T, False, checkpointing)
        self.decoder = Side(L, D, H, T // 2, True, checkpointing)

    def loss(self, inputs, targets):
        context = self.encoder(self.tokens(inputs["input_ids"]))
        hidden = self.decoder(self.tokens(inputs["decoder_input_ids"]), context)
        return F.linear_cross_entropy(
            hidden.flatten(0, 1) * self.scale, self.tokens.weight, targets.flatten()
        )

    @torch.no_grad()
    def copy(self, params: dict) -> None:
        """Load tinyplm's parameters."""
        body = params["body"]
        fill(self.tokens.weight, body["tokens"])
        for side, p in ((self.encoder, body["encoder"]), (self.decoder, body["decoder"])):
            fill(side.table.weight, p["bias"])
            fill(side.norm.weight, p["norm"]["gamma"])
            for layer, values in zip(side.layers, p["layers"]):
                fill_linear(layer.attention.qkv, values["attention"], "q", "k", "v")
                fill_linear(layer.attention.out, values["attention"], "o")
                if layer.cross is not None:
                    fill_linear(layer.cross.q, values["cross"], "q")
                    fill_linear(layer.cross.kv, values["cross"], "k", "v")
                    fill_linear(layer.cross.out, values["cross"], "o")
                fill_linear(layer.up, values["mlp"], "1")
                fill_linear(layer.down, values["mlp"], "2")
                for i, norm in enumerate(layer.norms, 1):
                    fill(norm.weight, values[f"norm{i}"]["gamma"])
