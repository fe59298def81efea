"""Mixtral in PyTorch, its experts in one of two forms: a grouped product, or a loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peer import Block, Model, fill
from torch import nn

FORMS = ("grouped", "loop")


class Experts(nn.Module):
    """Router and experts of (N, D) tokens; gate and up are one product, as in transformers.

    grouped: tokens sorted by expert, then torch's grouped product, a loop in C++ on the CPU.
    loop: as transformers' eager form.  Its "batched_mm" copies the weights of each token's experts,
    3 GB for 2,048 pairs of D 256 and F 512, so it is for decoding alone.
    """

    def __init__(self, D: int, width: int, X: int, k: int, form: str):
        super().__init__()
        self.X, self.k, self.form = X, k, form
        self.router = nn.Linear(D, X, bias=False)
        self.up = nn.Parameter(torch.randn(X, D, 2 * width) * 0.02)
        self.down = nn.Parameter(torch.randn(X, width, D) * 0.02)

    def forward(self, x):
        tokens = x.flatten(0, -2)
        logits, choice = torch.topk(self.router(tokens), self.k, dim=-1)
        y = (self.grouped if self.form == "grouped" else self.loop)(
            tokens, logits.softmax(-1), choice
        )
        return y.view(x.shape)

    def grouped(self, x, weights, choice):
        pairs = choice.flatten()
        order = torch.argsort(pairs, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        ends = torch.bincount(pairs, minlength=self.X).cumsum(0).to(torch.int32)
        gate, up = torch._grouped_mm(x[order // self.k], self.up, offs=ends).chunk(2, -1)
        o = torch._grouped_mm(F.silu(gate) * up, self.down, offs=ends)
        o = o * weights.flatten()[order][:, None]
        return o[place].view(len(x), self.k, -1).sum(1)

    def loop(self, x, weights, choice):
        y = torch.zeros_like(x)
        chosen = F.one_hot(choice, self.X).permute(2, 1, 0)
        for c in range(self.X):
            j, token = torch.where(chosen[c])
            if len(token):
                gate, up = (x[token] @ self.up[c]).chunk(2, -1)
                o = (F.silu(gate) * up) @ self.down[c]
                y.index_add_(0, token, o * weights[token, j, None])
        return y

    @torch.no_grad()
    def copy(self, p: dict) -> None:
        """Load the parameters of tinyplm's moe."""
        fill(self.router.weight, p["router"]["W"].T)
        width = self.down.shape[1]
        fill(self.up[..., :width], p["experts"]["Wgate"])
        fill(self.up[..., width:], p["experts"]["Wup"])
        fill(self.down, p["experts"]["Wdown"])


class RoutedBlock(Block):
    """LLaMA's block with experts."""

    def __init__(self, D: int, H: int, width: int, X: int, k: int, form: str):
        super().__init__("llama", D, H)
        del self.up, self.down
        self.experts = Experts(D, width, X, k, form)

    def mlp(self, x):
        return self.experts(x)


class Mixtral(Model):
    """peer.Model's LLaMA with experts."""

    def __init__(self, shape: list[int], width: int, X: int, k: int, form: str):
        super().__init__("llama", shape)
        L, D, H = shape[:3]
        self.layers = nn.ModuleList(RoutedBlock(D, H, width, X, k, form) for _ in range(L))

    @torch.no_grad()
    def copy(self, params: dict) -> None:
        body = params["body"]
        fill(self.tokens.weight, body["tokens"])
        fill(self.norm.weight, body["norm"]["gamma"])
        for layer, p in zip(self.layers, body["layers"]):
            layer.copy_attention(p)
            layer.experts.copy(p["mlp"])
