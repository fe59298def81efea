"""The config that LLaMA-shaped decoders share: fields, checks and derived sizes."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from ..arguments import wrong
from ..kernels.activation import ACTIVATIONS
from .config import (
    LABELS,
    ScoreLabels,
    check_heads,
    check_known,
    check_not_negative,
    check_positive,
    check_rates,
    check_types,
)
from .rope import BASE, Rope, read_rope

C = TypeVar("C", bound="RotaryConfig")


@dataclasses.dataclass(frozen=True)
class RotaryConfig(ScoreLabels):
    """The fields of config.json that LLaMA and its relatives share, with LLaMA's defaults.

    A family's Config adds its own fields and overrides defaults.
    num_key_value_heads defaults to num_attention_heads, head_dim to hidden_size divided by it.
    transformers 5 writes rope_parameters, earlier versions write rope_theta and rope_scaling;
    `rope` reads both.  `source` keeps the other fields of the file.
    """

    ALIASES: ClassVar[dict[str, str]] = {}
    PARTIAL: ClassVar[float | None] = None  # the default share of a head that RoPE turns, or all
    BASE: ClassVar[float] = BASE  # rope_theta where the file has none
    OLD: ClassVar[tuple[str, ...]] = ("rope_theta", "rope_scaling", *LABELS)  # see config.to_dict

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    rope_parameters: dict | None = None
    rope_theta: float | None = None
    rope_scaling: dict | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(
            self,
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
        )
        check_not_negative(self, "rms_norm_eps", "initializer_range")
        check_rates(self, "attention_dropout")
        self._check_heads()
        check_known(self, "hidden_act", ACTIVATIONS)
        if self.rope.share != 1 and not self.PARTIAL:
            raise wrong("config: partial_rotary_factor", "1 in this family", self.rope.share)
        self.rope.frequencies(self.rotary_width, 1)  # ValueError for a width RoPE cannot rotate

    def _check_heads(self) -> None:
        if self.head_dim is None:
            check_heads(self, "hidden_size", "num_attention_heads")
        if self.num_key_value_heads is not None:
            check_heads(self, "num_attention_heads", "num_key_value_heads")

    @property
    def heads(self) -> int:
        return self.num_attention_heads

    @property
    def kv_heads(self) -> int:
        return self.heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.heads if self.head_dim is None else self.head_dim

    @property
    def mlp_width(self) -> int:
        """F, the width between the linear layers of the feed-forward sublayer."""
        return self.intermediate_size

    @cached_property
    def rope(self) -> Rope:
        name = "original_max_position_embeddings"
        original = getattr(self, name, self.source.get(name))  # a field in Phi-3
        spellings = (self.rope_parameters, self.rope_scaling, self.rope_theta)
        share = self.source.get("partial_rotary_factor") or self.PARTIAL or 1.0
        positions, base = self.max_position_embeddings, self.BASE
        return read_rope(*spellings, positions, original, share=share, base=base)

    @property
    def rotary_width(self) -> int:
        """How many components of a head RoPE turns."""
        return int(self.head_width * self.rope.share)

    @property
    def context(self) -> int:
        return self.rope.context

    @property
    def cache_context(self) -> int:
        return self.rope.cache_context

    @property
    def cache_sizes(self) -> dict[str, Any]:
        return {
            "layers": self.num_hidden_layers,
            "kv_heads": self.kv_heads,
            "width": self.head_width,
        }

    @classmethod
    def of(
        cls: type[C],
        D: int,
        F: int,
        L: int,
        H: int,
        K: int | None = None,
        *,
        context: int,
        base: float = 10000.0,
        rope: dict[str, Any] | None = None,
        **others: Any,
    ) -> C:
        """The config of a published size.

        D: model width, F: feed-forward width, L: layers, H: heads, K: key/value heads; base, rope:
        RoPE's base and its other settings; others: more fields of config.json.
        """
        sizes: dict[str, Any] = {
            "hidden_size": D,
            "intermediate_size": F,
            "num_hidden_layers": L,
            "num_attention_heads": H,
            "num_key_value_heads": K,
            "max_position_embeddings": context,
        }
        parameters = {"rope_type": "default", "rope_theta": base, **(rope or {})}
        return cls(**{**sizes, "rope_parameters": parameters, **others})


@dataclasses.dataclass(frozen=True)
class MultiHeadConfig(RotaryConfig):
    """RotaryConfig for files whose code reads none of these fields: each head has its own keys, and
    a family says itself how RoPE turns (`rope`)."""

    num_key_value_heads: ClassVar[Any] = None  # type: ignore[misc]
    head_dim: ClassVar[Any] = None  # type: ignore[misc]
    rope_parameters: ClassVar[Any] = None  # type: ignore[misc]
    rope_theta: ClassVar[Any] = None  # type: ignore[misc]
    rope_scaling: ClassVar[Any] = None  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class WindowedConfig(RotaryConfig):
    """RotaryConfig with a window in some layers: those from `max_window_layers` on, or by type."""

    OLD: ClassVar[tuple[str, ...]] = (*RotaryConfig.OLD, "head_dim", "layer_types")
    UNUSED: ClassVar[int | None] = None  # sliding_window where transformers has switched it off

    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_sliding_window or self.sliding_window != self.UNUSED:
            check_positive(self, "sliding_window")
        check_not_negative(self, "max_window_layers")
        check_layer_types(self.layer_types, self.num_hidden_layers, self.window)

    @property
    def window(self) -> int | None:
        """The window of the layers that have one."""
        return self.sliding_window if self.use_sliding_window else None

    def window_of(self, layer: int) -> int | None:
        """How many keys a query of this layer sees; None for all before it."""
        if self.layer_types is None:
            return self.window if layer >= self.max_window_layers else None
        return self.window if self.layer_types[layer] == "sliding_attention" else None


LAYER_TYPES = ("full_attention", "sliding_attention")


def check_layer_types(kinds: list[str] | None, layers: int, window: int | None) -> None:
    """ValueError unless kinds has one of LAYER_TYPES per layer, and a window for sliding ones."""
    if kinds is None:
        return
    if len(kinds) != layers or not set(kinds) <= set(LAYER_TYPES):
        expected = f"{layers} of {' and '.join(LAYER_TYPES)}"
        raise wrong("config: layer_types", expected, kinds)
    if "sliding_attention" in kinds and window is None:
        raise wrong("config: layer_types", "full_attention alone without a window", kinds)
