"""GLM-130B (Zeng et al. 2023): as ChatGLM-6B, except that L of the residual's scale is the model's
own, that the feed-forward layers are gated, that each token has one position, and that the head is
the table.

    n = norm(x),   x' = sqrt(2 L) n + f(n)          sec. 2.1, DeepNorm; layers.block.scaled_norm
    mlp(n) = (gelu(n Wgate + bgate) * (n Wup + bup)) Wdown + bdown      GeGLU, the exact GELU

Each sum is normed by the sublayer after it, so this is DeepNorm with normed embeddings: y =
norm(sqrt(2 L) y + f(y)).  RoPE turns a whole head, in pairs (i, i + E/2); its frequencies are
rounded to float16, as in the code of the release (SwissArmyTransformer 0.2.12).  The text [MASK],
[sMASK] or [gMASK], more text, <sop> (`bos_token_id`), answer says what is seen and where it stands
(models/placing.py): tokens before <sop> see each other; from <sop> on the position is that of the
mask, but after [gMASK] places count on.

Initial values as in sec. 2.1: Xavier's normal, times (2 L)^(-1/2) in the feed-forward layers, Wv
and Wo; biases 0; the table N(0, initializer_range^2).

There is no config.json: this project's has the names of the release's options.  The weights came as
pickles, mp_rank_00_model_states.pt and seven more, which are never read here.  A folder for `load`
holds model.safetensors with their names (of "module"), joined: of query_key_value, dense_h_to_4h
and word_embeddings the rows, of dense and dense_4h_to_h the columns of the weight; dense_h_to_4h is
first all the first halves, then all the second ones; the others are in each file the same.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..kernels.activation import gelu
from ..kernels.attention import self_attention
from ..kernels.mlp import gated_mlp
from ..layers.block import block, deep_norm_scales, scaled_norm
from ..layers.rope_scaling import rope_frequencies
from ..models import causal_lm, decoder, tasks, walks
from ..models import config as base
from ..models.decoder import Pieces, every
from ..models.names import Rename, concatenate, fused, grouped, linears
from ..models.placing import single_places
from ..models.rope import given_rotary
from . import bloom


@dataclasses.dataclass(frozen=True)
class Config(base.ScoreLabels):
    """The options of the released scripts that say what is computed; `source` keeps others."""

    MODEL_TYPE: ClassVar[str] = "glm_130b"
    ARCHITECTURE: ClassVar[str] = "GLM130B"
    SCORED: ClassVar[str] = ""
    OLD: ClassVar[tuple[str, ...]] = base.LABELS
    ALIASES: ClassVar[dict[str, str]] = {
        **{"num_hidden_layers": "num_layers", "max_position_embeddings": "max_sequence_length"}
    }

    vocab_size: int = 150528
    hidden_size: int = 12288
    inner_hidden_size: int = 32768
    num_layers: int = 70
    num_attention_heads: int = 96
    max_sequence_length: int = 2048
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    position_encoding_2d: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    mask_token_id: int | None = None
    smask_token_id: int | None = None
    gmask_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        base.check_types(self)
        sizes = ("vocab_size", "hidden_size", "inner_hidden_size", "num_layers")
        base.check_positive(self, *sizes, "num_attention_heads", "max_sequence_length")
        base.check_not_negative(self, "layernorm_epsilon", "initializer_range")
        base.check_only(self, position_encoding_2d=(False,))
        base.check_heads(self, "hidden_size", "num_attention_heads")
        rope_frequencies(self.hidden_size // self.heads)  # ValueError for a width it cannot turn

    heads = property(lambda self: self.num_attention_heads)
    context = cache_context = property(lambda self: self.max_sequence_length)

    @property
    def reads_places(self) -> bool:
        return self.bos_token_id is not None and bool(self.masks)

    @property
    def masks(self) -> dict[str, int]:
        """The ids of the mask tokens; of the first kind in a text the first one counts."""
        ids = {"[MASK]": self.mask_token_id, "[sMASK]": self.smask_token_id}
        ids |= {"[gMASK]": self.gmask_token_id}
        return {name: id for name, id in ids.items() if id is not None}

    @property
    def cache_sizes(self) -> dict[str, int]:
        width = self.hidden_size // self.heads
        return {"layers": self.num_layers, "kv_heads": self.heads, "width": width}


# configs/model_glm_130b.sh of the release, and the commands of its tokenizer (eop ends an answer).
_IDS: dict[str, Any] = {"mask_token_id": 150000, "gmask_token_id": 150001}
_IDS |= {"smask_token_id": 150002, "bos_token_id": 150004, "eos_token_id": [150005, 20002]}
SIZES = {"glm-130b": Config(**_IDS)}


def shapes(config: Config) -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    V, D, F = config.vocab_size, config.hidden_size, config.inner_hidden_size
    mlp = {"Wgate": (D, F), "bgate": (F,), "Wup": (D, F), "bup": (F,)}
    layer = {**tasks.block_shapes(D, F), "mlp": {**mlp, "Wdown": (F, D), "bdown": (D,)}}
    body = {"tokens": (V, D), "layers": [layer] * config.num_layers, "norm": tasks.norm_shapes(D)}
    return {"body": body} if config.tie_word_embeddings else {"body": body, "head": {"W": (D, V)}}


def init(path: str, shape: tuple[int, ...], *, config: Config, key: int) -> Any:
    """DeepNorm's, see above."""
    std, name = config.initializer_range, path.rsplit(".", 1)[-1]
    if ".layers." in path and name.startswith("W"):
        _, beta = deep_norm_scales(config.num_layers)
        scale = 1.0 if name in ("Wq", "Wk") else beta
        std = scale * (2 / sum(shape)) ** 0.5
    return walks.normal_init(path, shape, std=std, key=key)


def pieces(config: Config) -> Pieces:
    """GLM-130B for the walk of decoders."""
    alpha, _ = deep_norm_scales(config.num_layers)
    frequencies = rope_frequencies(config.hidden_size // config.heads)
    return Pieces(
        norm=partial(bloom.norm, eps=config.layernorm_epsilon),
        attention=every(partial(self_attention, heads=config.heads)),
        mlp=every(partial(gated_mlp, activation=gelu)),
        residual=partial(block, residual=partial(scaled_norm, alpha=alpha)),
        embed=decoder.no_embed,
        window=every(None),
        positions=given_rotary(frequencies.astype("float16").astype("float64")),
        finish=decoder.final_norm,
    )


def placed(ids: Any, real: Any, *, config: Any) -> dict[str, Any]:
    """position_ids and prefix_lengths of ids (B, T) with a mask and bos_token_id."""
    start = ("<sop>", config.bos_token_id)
    return single_places(ids, real, start=start, masks=config.masks, counting=("[gMASK]",))


body = partial(decoder.body, pieces)
output_matrix = causal_lm.output_matrix

_LAYER, _HUB = "body.layers.{i}", "transformer.layers.{i}"


def renames(config: Config) -> list[Rename]:
    """The authors' tensors; query_key_value holds each head's rows together."""
    weights, biases = ([f"{_LAYER}.attention.{kind}{n}" for n in "qkv"] for kind in "Wb")
    up, up_biases = ([f"{_LAYER}.mlp.{kind}{n}" for n in ("up", "gate")] for kind in "Wb")
    by_head, qkv = grouped(config.heads), f"{_HUB}.attention.query_key_value"
    return [
        Rename("transformer.word_embeddings.weight", "body.tokens"),
        *bloom.norms("transformer.final_layernorm", "body.norm"),
        *bloom.norms(f"{_HUB}.input_layernorm", f"{_LAYER}.norm1"),
        Rename(f"{qkv}.weight", *weights, operation=by_head),
        Rename(f"{qkv}.bias", *biases, operation=by_head),
        *linears(f"{_HUB}.attention", f"{_LAYER}.attention", dense="o"),
        *bloom.norms(f"{_HUB}.post_attention_layernorm", f"{_LAYER}.norm2"),
        Rename(f"{_HUB}.mlp.dense_h_to_4h.weight", *up, operation=fused()),
        Rename(f"{_HUB}.mlp.dense_h_to_4h.bias", *up_biases, operation=concatenate(0)),
        *linears(f"{_HUB}.mlp", f"{_LAYER}.mlp", dense_4h_to_h="down"),
        *decoder.HEADS,
    ]


NAMES = renames(Config())
PREFIX, SKIPPED = "transformer.", (r"rotary_emb\.inv_freq$",)
TIED = {"lm_head.weight": "transformer.word_embeddings.weight"}
