"""Small PyTorch models written out: LLaMA, GPT-2 and BERT with the hub's module names and our models' weights.

Each computes what our model of the family does.  A mistake is planted by replacing one of its pieces, see tests/interop/
test_planted_mistakes.py.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from tinyplm.hub.folders import gradients_by_hub_name


class Norm(nn.Module):
    """RMSNorm, or LayerNorm with a bias."""

    def __init__(self, width, eps, pieces, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps, self.f = eps, pieces.norm

    def forward(self, x):
        return self.f(x, self.weight, self.bias, self.eps)


class Conv1D(nn.Module):
    """x W + b with W (in, out), as in GPT-2."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(n_in, n_out)), nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return x @ self.weight + self.bias


# ------------------------------------------------------------------------------------------------------------ pieces


def rms(x, weight, bias, eps):
    return weight * (x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt())


def layer_norm(x, weight, bias, eps):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def rotate(q, k, positions, base):
    E = q.shape[-1]
    angles = positions[..., None].to(q.dtype) * base ** (-torch.arange(0, E, 2, dtype=q.dtype) / E)
    cos, sin = (f(torch.cat([angles, angles], -1)).reshape(-1, 1, q.shape[2], E) for f in (torch.cos, torch.sin))
    return q * cos + half(q) * sin, k * cos + half(k) * sin


def causal(T, padding, window=None):
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    seen = (seen if window is None else seen & ~seen.tril(-window))[None, None]
    return seen if padding is None else seen & (padding != 0)[:, None, None]


def everything(T, padding):
    return torch.ones(1, 1, 1, T, dtype=torch.bool) if padding is None else (padding != 0)[:, None, None]


def softmax(scores, mask):
    P = scores.masked_fill(~mask, -1e30).softmax(-1)
    return P * mask.any(-1, keepdim=True)


def attend(q, k, v, mask, scale, pieces):
    return pieces.softmax(pieces.scores(q @ k.transpose(-1, -2) * scale), mask) @ v


def split(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


PIECES = {
    "rotate": rotate, "mask": causal, "softmax": softmax, "scores": lambda A: A, "attend": attend, "merge": merge, "split": split,
    "share": lambda x, times: x.repeat_interleave(times, dim=1),
    "qkv": lambda x, heads: x.chunk(3, dim=-1),
    "scale": lambda E: E**-0.5,
    "positions": lambda T, padding: torch.arange(T),
    "embed": lambda x: x,
    "embedding": lambda table, ids: table(ids),
    "product": lambda gate, up: F.silu(gate) * up,
    "activation": lambda x: x,
    "add": lambda x, y: x + y,
    "join": lambda x, y: x + y,  # the second sum of a block
    "before": lambda norm, x: norm(x),
    "head": lambda model, hidden: model.lm_head(hidden),
    "loss": lambda logits, targets, inputs: F.cross_entropy(logits.flatten(0, 1), targets.flatten()),
}  # fmt: skip


def pieces_of(mistake, **own):
    return SimpleNamespace(**{**PIECES, **own, **mistake})


# ------------------------------------------------------------------------------------------------------------- models


class LlamaLayer(nn.Module):
    def __init__(self, c, pieces):
        super().__init__()
        D, F_, E, H, K = c.hidden_size, c.intermediate_size, c.head_width, c.heads, c.kv_heads
        self.input_layernorm = Norm(D, c.rms_norm_eps, pieces, False)
        self.post_attention_layernorm = Norm(D, c.rms_norm_eps, pieces, False)
        shapes = {"q_proj": (D, H * E), "k_proj": (D, K * E), "v_proj": (D, K * E), "o_proj": (H * E, D)}
        self.self_attn = nn.ModuleDict({name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()})
        shapes = {"gate_proj": (D, F_), "up_proj": (D, F_), "down_proj": (F_, D)}
        self.mlp = nn.ModuleDict({name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()})
        self.p, self.H, self.K, self.base = pieces, H, K, c.rope.base

    def forward(self, x, mask, positions):
        p, a, m = self.p, self.self_attn, self.mlp
        n = p.before(self.input_layernorm, x)
        q, k, v = (p.split(a[name](n), heads) for name, heads in (("q_proj", self.H), ("k_proj", self.K), ("v_proj", self.K)))
        q, k = p.rotate(q, k, positions, self.base)
        k, v = (p.share(t, self.H // self.K) for t in (k, v))
        x = p.add(x, a["o_proj"](p.merge(p.attend(q, k, v, mask, p.scale(q.shape[-1]), p))))
        n = p.before(self.post_attention_layernorm, x)
        return p.join(x, m["down_proj"](p.product(m["gate_proj"](n), m["up_proj"](n))))


class Llama(nn.Module):
    def __init__(self, ours, **mistake):
        super().__init__()
        c = ours.config
        p = self.p = pieces_of({"norm": rms, **mistake})
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.model.layers = nn.ModuleList([LlamaLayer(c, p) for _ in range(c.num_hidden_layers)])
        self.model.norm = Norm(c.hidden_size, c.rms_norm_eps, p, False)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        load(self, ours)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids, attention_mask=None):
        p, T = self.p, input_ids.shape[1]
        x = p.embed(p.embedding(self.model.embed_tokens, input_ids))
        mask, positions = p.mask(T, attention_mask), p.positions(T, attention_mask)
        for layer in self.model.layers:
            x = layer(x, mask, positions)
        return p.head(self, self.model.norm(x))


class GPT2Block(nn.Module):
    def __init__(self, c, pieces):
        super().__init__()
        D, p = c.n_embd, pieces
        self.ln_1, self.ln_2 = (Norm(D, c.layer_norm_epsilon, p, True) for _ in range(2))
        self.attn = nn.ModuleDict({"c_attn": Conv1D(D, 3 * D), "c_proj": Conv1D(D, D)})
        self.mlp = nn.ModuleDict({"c_fc": Conv1D(D, 4 * D), "c_proj": Conv1D(4 * D, D)})
        self.p, self.H = p, c.n_head

    def forward(self, x, mask):
        p = self.p
        q, k, v = (p.split(t, self.H) for t in p.qkv(self.attn["c_attn"](p.before(self.ln_1, x)), self.H))
        o = p.merge(p.attend(q, k, v, mask, p.scale(q.shape[-1]), p))
        x = p.add(x, self.attn["c_proj"](o))
        h = self.mlp["c_fc"](p.before(self.ln_2, x))
        return p.join(x, self.mlp["c_proj"](p.activation(h)))


class GPT2(nn.Module):
    def __init__(self, ours, **mistake):
        super().__init__()
        c = ours.config
        p = self.p = pieces_of({"norm": layer_norm, "activation": lambda x: F.gelu(x, approximate="tanh"), **mistake})
        self.transformer = nn.Module()
        self.transformer.wte = nn.Embedding(c.vocab_size, c.n_embd)
        self.transformer.wpe = nn.Embedding(c.n_positions, c.n_embd)
        self.transformer.h = nn.ModuleList([GPT2Block(c, p) for _ in range(c.n_layer)])
        self.transformer.ln_f = Norm(c.n_embd, c.layer_norm_epsilon, p, True)
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
        load(self, ours)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, input_ids, attention_mask=None):
        p, t, T = self.p, self.transformer, input_ids.shape[1]
        x = p.embed(p.embedding(t.wte, input_ids)) + t.wpe(p.positions(T, attention_mask))
        mask = p.mask(T, attention_mask)
        for block in t.h:
            x = block(x, mask)
        return p.head(self, t.ln_f(x))


class BertLayer(nn.Module):
    def __init__(self, c, pieces):
        super().__init__()
        D, F_ = c.hidden_size, c.intermediate_size
        self.attention = nn.Module()
        self.attention.self = nn.ModuleDict({name: nn.Linear(D, D) for name in ("query", "key", "value")})
        self.attention.output = nn.Module()
        self.attention.output.dense, self.attention.output.LayerNorm = nn.Linear(D, D), Norm(D, c.layer_norm_eps, pieces, True)
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense = nn.Linear(D, F_)
        self.output.dense, self.output.LayerNorm = nn.Linear(F_, D), Norm(D, c.layer_norm_eps, pieces, True)
        self.p, self.H = pieces, c.num_attention_heads

    def forward(self, x, mask):
        p, a = self.p, self.attention
        q, k, v = (p.split(a.self[name](x), self.H) for name in ("query", "key", "value"))
        o = a.output.dense(p.merge(p.attend(q, k, v, mask, p.scale(q.shape[-1]), p)))
        h = a.output.LayerNorm(p.add(x, o))
        m = self.output.dense(p.activation(self.intermediate.dense(h)))
        return self.output.LayerNorm(p.join(h, m))


class Bert(nn.Module):
    """The masked language model."""

    def __init__(self, ours, **mistake):
        super().__init__()
        c = ours.config
        p = self.p = pieces_of({"norm": layer_norm, "activation": F.gelu, "mask": everything, **mistake})
        self.bert, self.cls = nn.Module(), nn.Module()
        e = self.bert.embeddings = nn.Module()
        sizes = {"word": c.vocab_size, "position": c.max_position_embeddings, "token_type": c.type_vocab_size}
        for name, rows in sizes.items():
            setattr(e, f"{name}_embeddings", nn.Embedding(rows, c.hidden_size))
        e.LayerNorm = Norm(c.hidden_size, c.layer_norm_eps, p, True)
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = nn.ModuleList([BertLayer(c, p) for _ in range(c.num_hidden_layers)])
        h = self.cls.predictions = nn.Module()
        h.transform = nn.Module()
        h.transform.dense = nn.Linear(c.hidden_size, c.hidden_size)
        h.transform.LayerNorm = Norm(c.hidden_size, c.layer_norm_eps, p, True)
        h.bias = nn.Parameter(torch.zeros(c.vocab_size))
        h.decoder = nn.Linear(c.hidden_size, c.vocab_size)
        load(self, ours)
        h.decoder.weight, h.decoder.bias = e.word_embeddings.weight, h.bias

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        p, e, T = self.p, self.bert.embeddings, input_ids.shape[1]
        x = p.embed(p.embedding(e.word_embeddings, input_ids)) + e.token_type_embeddings(token_type_ids)
        x = e.LayerNorm(x + e.position_embeddings(p.positions(T, attention_mask)))
        mask = p.mask(T, attention_mask)
        for layer in self.bert.encoder.layer:
            x = layer(x, mask)
        h = self.cls.predictions
        return h.decoder(h.transform.LayerNorm(F.gelu(h.transform.dense(x))))


def load(model, ours):
    """Our model's parameters, in its dtype; what is tied is absent."""
    weights = {name: torch.from_numpy(a.copy()) for name, a in gradients_by_hub_name(ours, ours.params).items()}
    model.to(next(iter(weights.values())).dtype)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith(("lm_head", "cls.predictions.decoder")) for name in missing), (
        missing,
        unexpected,
    )
