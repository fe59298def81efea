"""The config.json of ChatGLM2, ChatGLM3, CodeGeeX2 and the authors' GLM-4."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar

from ..arguments import is_number, wrong
from . import config as base
from .rope import BASE, Rope

GLM4_VOCABULARY = 151552
_NAMES = ("chatglm2", "chatglm3", "glm-4", "codegeex4")  # part of _name_or_path, in lower case


@dataclasses.dataclass(frozen=True)
class ChatGLMConfig(base.ScoreLabels):
    """The fields of config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str]
    OLD: ClassVar[tuple[str, ...]] = ("_name_or_path", "pre_seq_len", *base.LABELS)
    ALIASES: ClassVar[dict[str, str]] = {
        **{"vocab_size": "padded_vocab_size", "num_hidden_layers": "num_layers"}
    }

    padded_vocab_size: int = 65024
    hidden_size: int = 4096
    ffn_hidden_size: int = 13696
    num_layers: int = 28
    num_attention_heads: int = 32
    kv_channels: int = 128
    multi_query_attention: bool = False
    multi_query_group_num: int = 1
    seq_length: int = 2048
    rope_ratio: float = 1
    _name_or_path: str | None = None
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    classifier_dropout: float | None = None
    add_qkv_bias: bool = False
    add_bias_linear: bool = False
    tie_word_embeddings: bool = False
    rmsnorm: bool = True
    post_layer_norm: bool = True
    apply_residual_connection_post_layernorm: bool = False
    quantization_bit: int | None = 0
    pre_seq_len: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    hidden_act: ClassVar[str] = "silu"

    def __post_init__(self) -> None:
        base.check_types(self)
        base.check_positive(
            self,
            *("padded_vocab_size", "hidden_size", "ffn_hidden_size", "num_layers"),
            *("num_attention_heads", "kv_channels", "multi_query_group_num", "seq_length"),
        )
        base.check_not_negative(self, "layernorm_epsilon", "initializer_range")
        base.check_rates(self, "hidden_dropout", "attention_dropout", "classifier_dropout")
        base.check_only(
            self,
            **dict.fromkeys(("rmsnorm", "post_layer_norm"), (True,)),
            apply_residual_connection_post_layernorm=(False,),
        )
        check_plain(self)
        if self.multi_query_attention:
            base.check_heads(self, "num_attention_heads", "multi_query_group_num")
        self.rope.frequencies(self.rotary_width, 1)  # ValueError for a width RoPE cannot rotate

    vocab_size = property(lambda self: self.padded_vocab_size)
    num_hidden_layers = property(lambda self: self.num_layers)
    heads = property(lambda self: self.num_attention_heads)
    head_width = property(lambda self: self.kv_channels)
    rotary_width = property(lambda self: self.kv_channels // 2)
    mlp_width = property(lambda self: self.ffn_hidden_size)
    rms_norm_eps = property(lambda self: self.layernorm_epsilon)
    context = cache_context = property(lambda self: self.seq_length)
    score_rate = property(lambda self: self.classifier_dropout or 0.0)

    @property
    def kv_heads(self) -> int:
        return self.multi_query_group_num if self.multi_query_attention else self.heads

    @property
    def cache_sizes(self) -> dict[str, int]:
        return {"layers": self.num_layers, "kv_heads": self.kv_heads, "width": self.kv_channels}

    @cached_property
    def rope(self) -> Rope:
        ratio, name = self.rope_ratio, (self._name_or_path or "").lower()
        if not is_number(ratio) or not 1 <= ratio <= 1e6:
            raise wrong("config: rope_ratio", "a number from 1 to 1e6", ratio)
        newer = self.padded_vocab_size == GLM4_VOCABULARY
        if ratio == 1 or newer or any(known in name for known in _NAMES[1:]):
            return Rope("default", BASE * ratio, self.seq_length, self.seq_length, {}, 0.5)
        if _NAMES[0] not in name:
            what = "which say what rope_ratio scales"
            expected = f"one of {', '.join(_NAMES)} in it, {what}"
            raise wrong("config: _name_or_path", expected, self._name_or_path)
        stretch = {"factor": float(ratio)}
        return Rope("linear", BASE, self.seq_length, self.seq_length, stretch, 0.5)


def check_plain(config: Any) -> None:
    """ValueError for integer weights (quantization_bit) and for prefix tuning (pre_seq_len)."""
    if config.quantization_bit:
        expected = "0, in the same model's folder without -int4 or -int8 in its name"
        raise wrong("config: quantization_bit", expected, config.quantization_bit)
    if config.pre_seq_len is not None:
        expected = "None; tuning.load_ptuned reads the model and its prefix"
        raise wrong("config: pre_seq_len", expected, config.pre_seq_len)
