"""GPT-2 and LLaMA in PyTorch, optimized for eager mode.

One product for queries, keys and values, one for LLaMA's gate and up, scaled_dot_product_attention,
rms_norm, RoPE from tables for queries and keys at once, tied heads.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from steps import feed_forward
from torch import nn
from torch.utils.checkpoint import checkpoint

BASE, EPS = 10000.0, 1e-6  # RoPE's base and RMSNorm's eps, as in tinyplm's llama.Config


class Block(nn.Module):
    def __init__(self, family: str, D: int, H: int):
        super().__init__()
        self.H, self.gated = H, family == "llama"
        self.norm1, self.norm2 = norm(family, D), norm(family, D)
        bias, inner = not self.gated, feed_forward(D) if self.gated else 4 * D
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=bias), nn.Linear(D, D, bias=bias)
        self.up, self.down = (
            nn.Linear(D, inner * (1 + self.gated), bias=bias),
            nn.Linear(inner, D, bias=bias),
        )

    def forward(self, x, cos, sin, mask=None):
        B, T, D = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, T, 3, self.H, D // self.H)
        if self.gated:
            qk, v = qkv[:, :, :2], qkv[:, :, 2]
            a, b = qk.chunk(2, -1)
            q, k = (qk * cos + torch.cat([b, a], -1) * sin).unbind(2)
        else:
            q, k, v = qkv.unbind(2)
        q, k, v = (a.transpose(1, 2) for a in (q, k, v))
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.out(o.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.norm2(x))

    def mlp(self, x):
        h = self.up(x)
        if self.gated:
            gate, up = h.chunk(2, -1)
            return self.down(F.silu(gate) * up)
        return self.down(F.gelu(h, approximate="tanh"))

    def copy_attention(self, p: dict) -> None:
        """Load attention and norms of one of tinyplm's layers."""
        fill_norm(self.norm1, p["norm1"])
        fill_norm(self.norm2, p["norm2"])
        fill_linear(self.qkv, p["attention"], "q", "k", "v")
        fill_linear(self.out, p["attention"], "o")


def norm(family: str, D: int) -> nn.Module:
    return nn.LayerNorm(D) if family == "gpt2" else nn.RMSNorm(D, eps=EPS)


class Model(nn.Module):
    """chunked: never hold all logits in the loss.

    With a small vocabulary that takes less memory and as much time as the plain loss.  With 50257
    entries the whole step took six times as long (torch 2.13), and torch.compile falls back to
    eager mode there.
    """

    def __init__(
        self, family: str, shape: list[int], checkpointing: bool = False, chunked: bool = False
    ):
        super().__init__()
        L, D, H, T, _, V = shape
        self.checkpointing = checkpointing
        self.chunks = nn.LinearCrossEntropyOptions() if chunked else None
        self.tokens = nn.Embedding(V, D)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.positions = nn.Embedding(T, D) if family == "gpt2" else None
        self.layers, self.norm = (
            nn.ModuleList(Block(family, D, H) for _ in range(L)),
            norm(family, D),
        )
        E = D // H
        angles = torch.outer(torch.arange(T), BASE ** (-torch.arange(0, E, 2) / E)).view(
            T, 1, 1, E // 2
        )
        self.register_buffer("cos", torch.cat([angles.cos(), angles.cos()], -1))
        self.register_buffer("sin", torch.cat([-angles.sin(), angles.sin()], -1))

    def loss(self, inputs, targets):
        hidden = self.hidden(inputs["input_ids"])
        return F.linear_cross_entropy(
            hidden.flatten(0, 1), self.tokens.weight, targets.flatten(), options=self.chunks
        )

    def hidden(self, ids, mask=None, positions=None):
        """Hidden states (B, T, D).

        mask (B, 1, T, T) replaces the causal mask, positions (B, T) replace 0 .. T-1.
        """
        positions = torch.arange(ids.shape[1]) if positions is None else positions
        cos, sin = self.cos[positions], self.sin[positions]
        x = self.tokens(ids)
        if self.positions is not None:
            x = x + self.positions(positions)
        for layer in self.layers:
            if self.checkpointing:
                x = checkpoint(
                    layer, x, cos, sin, mask, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = layer(x, cos, sin, mask)
        return self.norm(x)

    @torch.no_grad()
    def copy(self, params: dict) -> None:
        """Load tinyplm's parameters."""
        body = params["body"]
        fill(self.tokens.weight, body["tokens"])
        if self.positions is not None:
            fill(self.positions.weight, body["positions"])
        fill_norm(self.norm, body["norm"])
        for layer, p in zip(self.layers, body["layers"]):
            layer.copy_attention(p)
            fill_linear(layer.up, p["mlp"], *(("gate", "up") if layer.gated else ("1",)))
            fill_linear(layer.down, p["mlp"], "down" if layer.gated else "2")


def fill(parameter, array) -> None:
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))


def fill_linear(module: nn.Linear, p: dict, *names: str) -> None:
    fill(module.weight, np.concatenate([p[f"W{name}"] for name in names], axis=1).T)
    if module.bias is not None:
        fill(module.bias, np.concatenate([p[f"b{name}"] for name in names]))


def fill_norm(module: nn.Module, p: dict) -> None:
    fill(module.weight, p["gamma"])
    if "beta" in p:
        fill(module.bias, p["beta"])
