"""Gemma 3's text model (Gemma team 2025): as Gemma 2, except that (sec. 2)

    each head of the queries and of the keys is normed before RoPE, as in Qwen3, with gain 1 + w
    five layers with a window stand before each layer that sees all keys
    RoPE has base 10,000 in layers with a window, 1,000,000 and a linear scaling in the others
    nothing is capped

Parameters as in Gemma 2, with q_norm and k_norm (E,).  The released models of 4B parameters and
more also see images; of their folders (model_type gemma3) the text model is read: hub/text_part.py.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from typing import Any, ClassVar

from ..arguments import wrong
from ..kernels.norm import unit_rmsnorm
from ..models import causal_lm, decoder
from ..models.config import check_positive
from ..models.decoder import Pieces
from ..models.rope import Rope, read_rope, rotary
from ..models.rotary_config import LAYER_TYPES
from . import gemma, gemma2, llama

LOCAL_BASE, GLOBAL_BASE = 10000.0, 1000000.0


@dataclasses.dataclass(frozen=True)
class Config(gemma2.Config):
    """config.json of Gemma 3's text model: Gemma 2's fields, the pattern and the local RoPE.

    transformers 5 writes rope_parameters {layer type: settings}, earlier versions write
    rope_theta, rope_local_base_freq, and rope_scaling for the layers that see all keys.
    """

    MODEL_TYPE: ClassVar[str] = "gemma3_text"
    ARCHITECTURE: ClassVar[str] = "Gemma3ForCausalLM"
    SCORED: ClassVar[str] = "Gemma3TextForSequenceClassification"
    OLD: ClassVar[tuple[str, ...]] = (
        *gemma2.Config.OLD,
        *("sliding_window_pattern", "rope_local_base_freq"),
    )

    vocab_size: int = 262208
    max_position_embeddings: int = 131072
    sliding_window_pattern: int | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | None = False
    rope_local_base_freq: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "sliding_window_pattern")
        if self.sliding_window is None and self.layer_types is None:
            raise wrong("config: sliding_window", "a positive integer without layer_types", None)
        self.local_rope.frequencies(self.head_width, 1)  # ValueError for settings that do not fit

    # every sixth layer sees all keys, where layer_types is None
    pattern = property(lambda self: self.sliding_window_pattern or 6)

    @property
    def cache_context(self) -> int:
        return min(self.rope.cache_context, self.local_rope.cache_context)

    @cached_property
    def rope(self) -> Rope:
        """Of the layers that see all keys."""
        scaling = None if self.rope_parameters else self.rope_scaling
        return self._rope("full_attention", scaling, self.rope_theta, GLOBAL_BASE)

    @cached_property
    def local_rope(self) -> Rope:
        """Of the layers with a window."""
        return self._rope("sliding_attention", None, self.rope_local_base_freq, LOCAL_BASE)

    def _rope(self, kind: str, scaling: Any, theta: float | None, base: float) -> Rope:
        nested = self.rope_parameters or {}
        objects = all(isinstance(settings, dict) for settings in nested.values())
        if not objects or not set(nested) <= set(LAYER_TYPES):
            expected = f"an object with settings for each of {', '.join(LAYER_TYPES)}"
            raise wrong("config: rope_parameters", expected, nested)
        own = {"rope_theta": base if theta is None else theta, **nested.get(kind, {})}
        given = own if scaling is None else {**own, **scaling}
        return read_rope(given, None, None, self.max_position_embeddings)


def _size(D: int, F: int, L: int, H: int, K: int, context: int = 131072, **others: Any) -> Config:
    window = 512 if D < 2000 else 1024
    more: dict[str, Any] = {"vocab_size": 262144 if D < 2000 else 262208, "sliding_window": window}
    stretch = {"rope_type": "linear", "factor": 8.0} if D > 2000 else {"rope_type": "default"}
    more["rope_parameters"] = {
        "full_attention": {"rope_theta": GLOBAL_BASE, **stretch},
        "sliding_attention": {"rope_theta": LOCAL_BASE, "rope_type": "default"},
    }
    return Config.of(D, F, L, H, K, context=context, **{**more, **others})


# Gemma team 2025, table 1; and the text configurations of the released models.
SIZES = {
    "gemma-3-270m": _size(640, 2048, 18, 4, 1, 32768),
    "gemma-3-1b": _size(1152, 6912, 26, 4, 1, 32768),
    "gemma-3-4b": _size(2560, 10240, 34, 8, 4),
    "gemma-3-12b": _size(3840, 15360, 48, 16, 8),
    "gemma-3-27b": _size(5376, 21504, 62, 32, 16, head_dim=128, query_pre_attn_scalar=168),
}


def shapes(config: Config) -> dict:
    """Gemma 2's, with the gains of the norms of queries and keys."""
    layer = gemma2.layer_shapes(config)
    layer["attention"] |= {f"{n}_norm": (config.head_width,) for n in "qk"}
    return llama.model_shapes(config, layer)


def pieces(config: Config) -> Pieces:
    """Gemma 2's, with normed heads and a RoPE of each kind of layer."""
    head_norm = partial(unit_rmsnorm, eps=config.rms_norm_eps)
    everywhere, local = (rotary(r, config.head_width) for r in (config.rope, config.local_rope))

    def positions(position_ids: Any, **options: Any) -> Any:
        turns = {w: f(position_ids, **options) for w, f in ((False, everywhere), (True, local))}
        return lambda layer, seen: turns[config.window_of(layer) is not None](layer, seen)

    return gemma2.pieces(config, head_norm=head_norm)._replace(positions=positions)


init = gemma.init
body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix
NAMES = [*gemma2.NAMES, *llama.QK_NORMS]
PREFIX, SKIPPED, TIED = llama.PREFIX, llama.SKIPPED, llama.TIED
