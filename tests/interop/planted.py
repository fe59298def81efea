# ruff: noqa: E402 - imports follow importorskip
"""Mistakes to plant in the PyTorch models of tests/support/torch_models.py: what is wrong, where it shows first, and its name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F

from tests.support.torch_models import causal, everything, rms, rotate


class Mistake(NamedTuple):
    family: str
    place: str  # the first that differs
    name: str | None  # of the alternative; None where none is known
    pieces: dict[str, Any] = {}
    weights: Callable | None = None  # changes the model
    scaled: bool = False  # our config scales the rotary frequencies
    detail: str = ""


HEADS, NORM1 = "layers.0.attention.heads", "layers.0.norm1"
BAND = torch.ones(5, 5, dtype=torch.bool)


def mean_loss(logits, targets, **options):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), **options)


# ----------------------------------------------------------------------------------------------------- values


def interleaved(q, k, positions, base):
    angles = positions[..., None].to(q.dtype) * base ** (-torch.arange(0, q.shape[-1], 2, dtype=q.dtype) / q.shape[-1])
    cos, sin = (f(angles).reshape(-1, 1, *angles.shape[-2:]) for f in (torch.cos, torch.sin))

    def turned(x):
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)

    return turned(q), turned(k)


def based(base):
    return {"rotate": lambda q, k, positions, _: rotate(q, k, positions, base)}


def queries_ahead(q, k, positions, base):
    return rotate(q, q, positions + 1, base)[0], rotate(k, k, positions, base)[0]


def masked(band):
    return {"mask": lambda T, padding: band[None, None] & (padding != 0)[:, None, None]}


def by_head(x, heads):
    return x.reshape(*x.shape[:2], heads, 3, -1).transpose(2, 3).flatten(3).unbind(2)


def unbiased(x, weight, bias, eps):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt() + bias


def cast_before_gain(x, weight, bias, eps):
    return weight * rms(x, 1, None, eps).bfloat16().to(x.dtype)


def changed(path, f):
    """The model with this parameter changed."""

    def change(model):
        with torch.no_grad():
            model.get_parameter(path).copy_(f(model.get_parameter(path)))

    return change


def pairs_of_halves(W, width=4):
    """The rows of each head from halves to neighbouring pairs."""
    return W.reshape(-1, 2, width // 2, W.shape[1]).transpose(1, 2).reshape(W.shape)


def untied(model):
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * torch.linspace(0.5, 2, 6, dtype=torch.float64))


def layers_as(f):
    """The model with another forward of its layers."""

    def change(model):
        body = getattr(model, "model", None) or model.bert.encoder
        for layer in getattr(body, "layers", None) or body.layer:
            layer.forward = functools.partial(f, layer)

    return change


def llama_parts(layer, mask, positions):
    """Attention and feed-forward part of a LLaMA layer, without norms and residuals."""
    p, a, m = layer.p, layer.self_attn, layer.mlp

    def attention(x):
        q, k, v = (p.split(a[name](x), n) for name, n in (("q_proj", layer.H), ("k_proj", layer.K), ("v_proj", layer.K)))
        q, k = p.rotate(q, k, positions, layer.base)
        k, v = (p.share(t, layer.H // layer.K) for t in (k, v))
        return a["o_proj"](p.merge(p.attend(q, k, v, mask, p.scale(q.shape[-1]), p)))

    return attention, lambda x: m["down_proj"](p.product(m["gate_proj"](x), m["up_proj"](x)))


def post_norm(layer, x, mask, positions):
    attention, mlp = llama_parts(layer, mask, positions)
    x = layer.input_layernorm(x + attention(x))
    return layer.post_attention_layernorm(x + mlp(x))


def parallel(layer, x, mask, positions):
    attention, mlp = llama_parts(layer, mask, positions)
    return x + attention(layer.input_layernorm(x)) + mlp(layer.post_attention_layernorm(x))


def pre_norm(layer, x, mask):
    p, a = layer.p, layer.attention
    q, k, v = (p.split(a.self[name](a.output.LayerNorm(x)), layer.H) for name in ("query", "key", "value"))
    x = x + a.output.dense(p.merge(p.attend(q, k, v, mask, p.scale(q.shape[-1]), p)))
    return x + layer.output.dense(p.activation(layer.intermediate.dense(layer.output.LayerNorm(x))))


def head_of_table(model, hidden):
    return torch.func.functional_call(model.lm_head, {"weight": model.model.embed_tokens.weight}, (hidden,))


VALUES = [
    Mistake("llama", HEADS, "rotary pairs interleaved", {"rotate": interleaved}),
    Mistake("llama", HEADS, "another rotary base", based(500.0), detail="base 500"),
    Mistake("llama", HEADS, "another rotary base", based(123.0), detail="base 123"),
    Mistake("llama", HEADS, "query position off by one", {"rotate": queries_ahead}, detail="+1"),
    Mistake("llama", HEADS, "no rotation", {"rotate": lambda q, k, *_: (q, k)}),
    Mistake("llama", HEADS, "rotated backwards", {"rotate": lambda q, k, t, base: rotate(q, k, -t, base)}),
    Mistake("llama", HEADS, "no scaling of the rotary frequencies", scaled=True),
    Mistake("gpt2", "embeddings", "positions off by one", {"positions": lambda T, _: torch.arange(T) + 1}, detail="+1"),
    Mistake("gpt2", "embeddings", "positions counted differently over padding",
            {"positions": lambda T, padding: (padding.cumsum(1) - 1).clamp(min=0)}, detail="padding does not count"),
    Mistake("bert", "norm", "positions off by one", {"positions": lambda T, _: torch.arange(T) + 1}),
    Mistake("llama", "embeddings", "embeddings scaled", {"embed": lambda x: x * x.shape[-1] ** 0.5}),
    Mistake("gpt2", "layers.0.mlp.activation", "GELU by erf", {"activation": F.gelu}),
    Mistake("bert", "layers.0.mlp.activation", "GELU by tanh", {"activation": lambda x: F.gelu(x, approximate="tanh")}),
    Mistake("gpt2", "layers.0.mlp.activation", "quick GELU", {"activation": lambda x: x * torch.sigmoid(1.702 * x)}),
    Mistake("llama", "layers.0.mlp.product", "ReLU", {"product": lambda gate, up: F.relu(gate) * up}),
    Mistake("llama", "layers.0.mlp.product", "gate and up swapped", {"product": lambda gate, up: gate * F.silu(up)}),
    Mistake("llama", NORM1, "another eps", {"norm": lambda x, w, b, _: rms(x, w, b, 1e-5)}, detail="eps 1e-05"),
    Mistake("llama", NORM1, "eps outside the root",
            {"norm": lambda x, w, b, eps: w * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps)}),
    Mistake("llama", NORM1, "gain of 1 + gamma", {"norm": lambda x, w, b, eps: rms(x, 1 + w, b, eps)}),
    Mistake("llama", NORM1, "LayerNorm", {"norm": lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, None, eps)}),
    Mistake("gpt2", NORM1, "RMSNorm", {"norm": lambda x, w, b, eps: rms(x, w, b, eps) + b}),
    Mistake("gpt2", NORM1, "unbiased variance", {"norm": unbiased}),
    Mistake("gpt2", NORM1, "no bias of the norm", {"norm": lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, None, eps)}),
    Mistake("llama", NORM1, "normalised row cast before the gain", {"norm": cast_before_gain}, detail="bfloat16"),
    Mistake("llama", "layers.0.attention.q", "input not normalised", {"before": lambda norm, x: x}),
    Mistake("llama", NORM1, "norm after the sum (post-norm)", weights=layers_as(post_norm)),
    Mistake("bert", "layers.0.attention.q", "input normalised first (pre-norm)", weights=layers_as(pre_norm)),
    Mistake("llama", "layers.0.residual", "the part is not added", weights=layers_as(parallel)),
    Mistake("llama", HEADS, "no scale of the scores", {"scale": lambda E: 1.0}),
    Mistake("llama", HEADS, "scores scaled by 1/E", {"scale": lambda E: 1 / E}),
    Mistake("gpt2", HEADS, "another scale of the scores", {"scale": lambda E: 0.123}, detail="scale 0.123"),
    Mistake("llama", HEADS, "a soft cap of the scores", {"scores": lambda A: 2 * torch.tanh(A / 2)}, detail="cap 2"),
    Mistake("gpt2", HEADS, "sees the next token", masked(BAND.tril(1))),
    Mistake("gpt2", HEADS, "does not see itself", masked(BAND.tril(-1))),
    Mistake("llama", HEADS, "no causal mask", {"mask": everything}),
    Mistake("bert", HEADS, "a causal mask", {"mask": causal}),
    Mistake("bert", HEADS, "padding seen", {"mask": lambda T, padding: everything(T, None)}),
    Mistake("mistral", HEADS, "window off by one", masked(BAND.tril() & ~BAND.tril(-4)), detail="one longer"),
    Mistake("mistral", HEADS, "no window", {"mask": causal}),
    Mistake("llama", HEADS, "key/value heads tiled", {"share": lambda x, times: x.repeat(1, times, 1, 1)}),
    Mistake("gpt2", HEADS, "q, k and v interleaved by head", {"qkv": by_head}),
    Mistake("llama", HEADS, "heads merged without a transposition",
            {"merge": lambda x: x.reshape(x.shape[0], x.shape[2], -1)}),
    Mistake("gpt2", "layers.0.attention", "transposed weight",
            weights=changed("transformer.h.0.attn.c_proj.weight", lambda W: W.T.clone())),
    Mistake("llama", "layers.0.attention.q", "rows of q and k permuted for rotary pairs",
            weights=changed("model.layers.0.self_attn.q_proj.weight", pairs_of_halves)),
    Mistake("bert", "layers.0.attention.k", "no bias",
            weights=changed("bert.encoder.layer.0.attention.self.key.bias", torch.zeros_like)),
    Mistake("llama", "layers.0.residual", "no residual", {"add": lambda x, y: y}),
    Mistake("llama", "logits", "head tied to the embeddings", {"head": head_of_table}),
    Mistake("gpt2", "logits", "another matrix", weights=untied),
    Mistake("llama", "loss", "targets shifted twice", {"loss": lambda z, t, _: mean_loss(z[:, :-1], t[:, 1:])}),
    Mistake("llama", "loss", "targets not shifted", {"loss": lambda z, t, ids: mean_loss(z, ids["input_ids"])}),
    Mistake("llama", "loss", "mean over all tokens",
            {"loss": lambda z, t, _: mean_loss(z, t, reduction="sum") / t.numel()}, detail="all positions"),
    Mistake("gpt2", "loss", "ignored targets counted", {"loss": lambda z, t, _: mean_loss(z, t.clamp(min=0))}),
    # A mixture of two mistakes at one place, which no alternative is.
    Mistake("llama", HEADS, None, {"rotate": interleaved, "scale": lambda E: 1 / E}),
    Mistake("gpt2", "layers.0.mlp.activation", None, {"activation": lambda x: F.gelu(x, approximate="tanh") + 0.01 * x.sin()}),
]  # fmt: skip

# -------------------------------------------------------------------------------------------- gradients alone


def softmax_without_sum(A, mask):
    """The denominator is a constant: its gradient is P dP."""
    A = A.masked_fill(~mask, -1e30)
    return (A - A.logsumexp(-1, keepdim=True).detach()).exp() * mask.any(-1, keepdim=True)


def constant_rms(x, weight, bias, eps):
    return weight * (x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt().detach())


def constant_sd(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return weight * (centred * (centred.pow(2).mean(-1, keepdim=True) + eps).rsqrt().detach()) + bias


class Forwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, positions, base):
        ctx.rest = positions, base
        return rotate(x, x, positions, base)[0]

    @staticmethod
    def backward(ctx, dy):
        return rotate(dy, dy, *ctx.rest)[0], None, None


class Assigned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, W, ids):
        ctx.ids, ctx.shape = ids, W.shape
        return W[ids]

    @staticmethod
    def backward(ctx, dy):
        dW = torch.zeros(ctx.shape, dtype=dy.dtype)
        for i, row in zip(ctx.ids.flatten().tolist(), dy.flatten(0, 1)):
            dW[i] = row
        return dW, None


class GeluOfTanh(torch.autograd.Function):
    """The exact GELU with the derivative of its approximation."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx, dy):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(F.gelu(x, approximate="tanh"), x, dy)[0]


def one_of_the_shared(x, times):
    return torch.stack([x.detach()] * (times - 1) + [x], 2).flatten(1, 2)


def detached_head(model, hidden):
    return torch.func.functional_call(model.lm_head, {"weight": model.lm_head.weight.detach()}, (hidden,))


def gradient_of_the_sum(logits, targets, _):
    total = mean_loss(logits, targets, reduction="sum")
    return total - total.detach() + mean_loss(logits, targets).detach()


def rotated_gradients(q, k, positions, base):
    return Forwards.apply(q, positions, base), Forwards.apply(k, positions, base)


Q1 = "layers.1.attention.q"
GRADIENTS = [
    Mistake("llama", Q1, "softmax backward without its sum", {"softmax": softmax_without_sum}),
    Mistake("llama", "layers.1", "norm backward without the mean term", {"norm": constant_rms}),
    Mistake("gpt2", "layers.1", "norm backward without the mean term", {"norm": constant_sd}, detail="without mean(dxhat xhat)"),
    Mistake("llama", Q1, "rotary gradient turned forwards", {"rotate": rotated_gradients}),
    Mistake("llama", "layers.1.attention.k", "gradients of shared key/value heads not summed", {"share": one_of_the_shared},
            detail="last"),
    Mistake("llama", "model.embed_tokens.weight", "gradients of repeated ids assigned, not added",
            {"embedding": lambda table, ids: Assigned.apply(table.weight, ids)}, detail="the last"),
    Mistake("gpt2", "transformer.wte.weight", "tied table without the head's term", {"head": detached_head}),
    Mistake("llama", "layers.1.attention", "gradient stopped", {"add": lambda x, y: x + y.detach()}),
    Mistake("llama", "layers.1.attention", "a branch is detached", {"before": lambda norm, x: norm(x.detach())},
            detail="without the mlp"),
    Mistake("bert", "layers.1.residual", "a branch is detached", {"join": lambda x, y: x.detach() + y},
            detail="without the residual"),
    Mistake("gpt2", "logits", "loss gradient not divided by the count", {"loss": gradient_of_the_sum}),
    Mistake("bert", "layers.1.mlp.up", "derivative of another activation", {"activation": GeluOfTanh.apply}, detail="gelu_new"),
]  # fmt: skip

MISTAKES = VALUES + GRADIENTS
