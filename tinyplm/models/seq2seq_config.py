"""The config that the Transformer, Marian, BART and mBART share: fields, checks, derived sizes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ..arguments import wrong
from ..core.shift import shift_right
from ..kernels.activation import ACTIVATIONS
from . import config as base

SEQ2SEQ = "seq2seq_lm"  # the task of an encoder-decoder with its language model's head


def check_special_tokens(config: Any, *names: str) -> None:
    """ValueError unless these fields are tokens of the vocabulary, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < config.vocab_size:
            raise wrong(f"config: {name}", f"a token from 0 to {config.vocab_size - 1}", value)


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig(base.ScoreLabels):
    """What every encoder-decoder's config has: labels of a head, special tokens, derived sizes."""

    OLD: ClassVar[tuple[str, ...]] = base.LABELS

    pad_token_id: int = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 2
    tie_word_embeddings: bool = True
    is_encoder_decoder: bool = True
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    logit_scale: ClassVar[float] = 1.0  # of the hidden states before the output matrix
    initializer_range: ClassVar[Any]

    def decoder_ids(self, labels: Any) -> Any:
        """What the decoder reads to predict labels (..., T): the labels shifted right, after the
        start token, with padding for -100."""
        start = self.decoder_start_token_id
        if start is None:
            raise wrong("config: decoder_start_token_id", "a token to put before the labels", start)
        return shift_right(labels, start, self.pad_token_id)

    @property
    def cache_context(self) -> int | None:
        """The most tokens that a decoder's cache can hold; None: any number."""
        return self.context  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class BothSides(Seq2SeqConfig):
    """The fields of BART's config.json, which its relatives share, with BART's defaults."""

    ALIASES: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
    }

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    d_model: int = 1024
    encoder_layers: int = 12
    encoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_layers: int = 12
    decoder_attention_heads: int = 16
    decoder_ffn_dim: int = 4096
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    classifier_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    bos_token_id: int | None = 0

    def __post_init__(self) -> None:
        base.check_types(self)
        sides = [f"{side}_{n}" for side in ("encoder", "decoder") for n in ("layers", "ffn_dim")]
        heads = ("encoder_attention_heads", "decoder_attention_heads")
        base.check_positive(
            self, "vocab_size", "max_position_embeddings", "d_model", *sides, *heads
        )
        base.check_not_negative(self, "init_std")
        base.check_rates(
            self, "dropout", "attention_dropout", "activation_dropout", "classifier_dropout"
        )
        for name in heads:
            base.check_heads(self, "d_model", name)
        base.check_known(self, "activation_function", ACTIVATIONS)
        base.check_only(
            self, is_encoder_decoder=(True,), encoder_layerdrop=(0,), decoder_layerdrop=(0,)
        )
        check_special_tokens(self, "pad_token_id", "decoder_start_token_id")
        base.check_labels(self)

    @property
    def embedding_scale(self) -> float:
        """What the rows of the table are multiplied by."""
        return self.d_model**0.5 if self.scale_embedding else 1.0

    initializer_range = property(lambda self: self.init_std)
    heads = property(lambda self: self.decoder_attention_heads)
    hidden_size = property(lambda self: self.d_model)
    context = property(lambda self: self.max_position_embeddings)

    @property
    def cache_sizes(self) -> dict[str, int]:
        H = self.decoder_attention_heads
        return {"layers": self.decoder_layers, "kv_heads": H, "width": self.d_model // H}
