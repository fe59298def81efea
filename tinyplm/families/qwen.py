"""Qwen 1 (Bai et al. 2023): as LLaMA, except that queries, keys and values have biases (sec. 2.3),
that embeddings have dropout, and that files have names, and an MLP, of their own.

    c_attn = [Wq, Wk, Wv] with the only biases,   w2 = Wgate, w1 = Wup, c_proj = Wdown
    x_0 = dropout(tokens[ids])

`intermediate_size` counts both halves: F = intermediate_size / 2.  In evaluation, but not in
training, the authors' code turns more slowly (use_dynamic_ntk) and scales queries (use_logn_attn)
from `seq_length` tokens on: a config with either has a context of seq_length.
Parameters as in LLaMA, with bq, bk and bv.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..core import Tree
from ..layers.dropout import dropout
from ..models import causal_lm, decoder, walks
from ..models.config import check_only, check_positive, check_rates
from ..models.decoder import Pieces
from ..models.names import Rename, concatenate, fused, linears
from ..models.rope import Rope, read_rope
from ..models.rotary_config import MultiHeadConfig
from . import llama


@dataclasses.dataclass(frozen=True)
class Config(MultiHeadConfig):
    """The fields of Qwen 1's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "qwen"
    ARCHITECTURE: ClassVar[str] = "QWenLMHeadModel"
    SCORED: ClassVar[str] = "QWenForSequenceClassification"
    PARTIAL: ClassVar[float | None] = 1.0
    ALIASES: ClassVar[dict[str, str]] = {  # of the first release
        **{
            "n_embd": "hidden_size",
            "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads",
        },
        **{"n_positions": "max_position_embeddings", "ffn_hidden_size": "intermediate_size"},
        **{"embd_pdrop": "emb_dropout_prob", "attn_pdrop": "attn_dropout_prob"},
    }

    # fields of MultiHeadConfig that this family's files lack, or have under other names
    hidden_act: ClassVar[Any] = "silu"  # type: ignore[misc]
    rms_norm_eps: ClassVar[Any] = property(lambda self: self.layer_norm_epsilon)  # type: ignore[misc]
    attention_dropout: ClassVar[Any] = property(lambda self: self.attn_dropout_prob)  # type: ignore[misc]

    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 8192
    seq_length: int = 8192
    kv_channels: int = 128
    layer_norm_epsilon: float = 1e-6
    emb_dropout_prob: float = 0.0
    attn_dropout_prob: float = 0.0
    rotary_pct: float = 1.0
    rotary_emb_base: float = 10000
    use_dynamic_ntk: bool = True
    use_logn_attn: bool = True
    no_bias: bool = True
    use_cache_quantization: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "seq_length")
        check_rates(self, "emb_dropout_prob")
        check_only(self, use_cache_quantization=(False,))  # 8-bit keys and values
        if self.intermediate_size % 2:
            expected = "an even number, of both halves together"
            raise wrong("config: intermediate_size", expected, self.intermediate_size)
        if self.kv_channels != self.head_width:
            expected = f"hidden_size / num_attention_heads = {self.head_width}"
            raise wrong("config: kv_channels", expected, self.kv_channels)

    mlp_width = property(lambda self: self.intermediate_size // 2)

    @cached_property
    def rope(self) -> Rope:
        for name, least, most in (("rotary_pct", 0, 1), ("rotary_emb_base", 1, 1e15)):
            if not least < (value := getattr(self, name)) <= most:
                raise wrong(f"config: {name}", f"a number in ({least}, {most:g}]", value)
        scaled = self.use_dynamic_ntk or self.use_logn_attn
        longest = self.seq_length if scaled else self.max_position_embeddings
        return read_rope(None, None, self.rotary_emb_base, longest, share=self.rotary_pct)


def _size(D: int, F: int, L: int, H: int, context: int, **others: Any) -> Config:
    sizes: dict[str, Any] = {"hidden_size": D, "intermediate_size": F, "num_hidden_layers": L}
    return Config(**sizes, num_attention_heads=H, seq_length=context, **others)


_LONG: dict[str, Any] = {"max_position_embeddings": 32768, "rotary_emb_base": 1e6}
_LONG |= {"use_dynamic_ntk": False, "use_logn_attn": False}

# Bai et al. 2023, table 1, and the configurations of the released base models.
SIZES = {
    "qwen-1.8b": _size(2048, 11008, 24, 16, 8192),
    "qwen-7b": _size(4096, 22016, 32, 32, 8192, max_position_embeddings=32768),
    "qwen-14b": _size(5120, 27392, 40, 40, 2048, vocab_size=152064),
    "qwen-72b": _size(8192, 49152, 80, 64, 32768, vocab_size=152064, **_LONG),
}


def shapes(config: Config) -> dict:
    """LLaMA's, with biases."""
    others = not config.no_bias
    layer = llama.layer_shapes(config, "qkv" + "o" * others, ("gate", "up", "down") * others)
    return llama.model_shapes(config, layer)


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """N(0, initializer_range^2), for Wo and Wdown divided by sqrt(2 L), as in GPT-2."""
    last = path.endswith((".Wo", ".Wdown"))
    std = config.initializer_range / (2 * config.num_hidden_layers) ** (0.5 * last)
    return walks.normal_init(path, shape, std=std, key=key)


def embed(p: Tree, x: Any, *, position_ids: Any, key: Any, rate: float) -> tuple[Any, Callable]:
    """y = dropout(x)."""
    y, back = dropout(x, rate=rate, key=key)
    return y, lambda dy: ({}, back(dy))


def pieces(config: Config) -> Pieces:
    """LLaMA's, with dropout of the embeddings."""
    return llama.pieces(config)._replace(embed=partial(embed, rate=config.emb_dropout_prob))


body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "transformer.h.{i}"
_WEIGHTS, _BIASES = ([f"{_LAYER}.attention.{kind}{n}" for n in "qkv"] for kind in "Wb")
NAMES = [
    Rename("transformer.wte.weight", "body.tokens"),
    Rename(f"{_HUB}.ln_1.weight", f"{_LAYER}.norm1.gamma"),
    Rename(f"{_HUB}.attn.c_attn.weight", *_WEIGHTS, operation=fused()),
    Rename(f"{_HUB}.attn.c_attn.bias", *_BIASES, operation=concatenate(0)),
    *linears(f"{_HUB}.attn", f"{_LAYER}.attention", c_proj="o"),
    Rename(f"{_HUB}.ln_2.weight", f"{_LAYER}.norm2.gamma"),
    *linears(f"{_HUB}.mlp", f"{_LAYER}.mlp", w1="up", w2="gate", c_proj="down"),
    Rename("transformer.ln_f.weight", "body.norm.gamma"),
    *decoder.HEADS,
]
PREFIX, SKIPPED = "transformer.", (r"attn\.masked_bias$", r"rotary_emb\.inv_freq$")
TIED = {"lm_head.weight": "transformer.wte.weight"}
