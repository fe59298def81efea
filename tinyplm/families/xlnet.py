"""XLNet (Yang et al. 2019): Transformer-XL (Dai et al. 2019), predicting tokens in permuted order.

    h_0 = tokens[ids]   the content stream, which knows its token
    g_0 = mask          the query stream, which knows its place alone
    x   = norm1(x + attention(x, [memory_i, h_i])),   then norm2(x + mlp(x)),   for both streams
    hidden = g_L of the targets (target_mapping), or without targets h_L

with dropout on hidden, h_0, g_0 and the distances.  Attention knows distances, and whether two
tokens are of the same segment (layers/two_stream.py); without positions, no sequence is too long.
Pad on the left: a sequence is summarised by its last token.
Parameters: {"body": {"tokens" (V, D), "mask" (D,), "layers": [...]}, "head": by task}.
Heads: permutation LM, logits = hidden tokens^T + bias, with targets in the order of target_mapping,
not shifted; classes and choices from tanh(hidden_last W + b); others from hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

from ..backend import array_module, sum_float32
from ..core import StackOptions, Tree, chain, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.mlp import mlp
from ..layers.block import block, post_norm
from ..layers.dropout import dropout
from ..layers.memory import extended, length
from ..layers.norm import layernorm
from ..layers.relative_shift import distance_encodings
from ..layers.stream_views import one_way_band, stream_views
from ..layers.two_stream import two_stream_attention
from ..models import encoder, tasks, walks
from ..models import encoder_names as names
from ..models.config import LABELS, check_encoder, check_known
from ..random import fold


@dataclasses.dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """The fields of XLNet's config.json that affect the computation; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "xlnet"
    ALIASES = dict(hidden_size="d_model", num_attention_heads="n_head", num_hidden_layers="n_layer")
    ALIASES |= {"n_token": "vocab_size"}
    OLD = (*LABELS, "d_head", "untie_r", "summary_first_dropout", "summary_proj_to_labels")

    vocab_size: int = 32000
    d_model: int = 1024
    n_layer: int = 24
    n_head: int = 16
    d_inner: int = 4096
    d_head: int | None = None
    ff_activation: str = "gelu"
    attn_type: str = "bi"
    same_length: bool = False
    dropout: float = 0.1
    mem_len: int | None = 512
    reuse_len: int | None = None
    clamp_len: int = -1
    bi_data: bool = False
    untie_r: bool | None = None
    summary_type: str = "last"
    summary_use_proj: bool = True
    summary_activation: str | None = "tanh"
    summary_first_dropout: float | None = None
    summary_last_dropout: float = 0.1
    summary_proj_to_labels: bool | None = None
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 5
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        only: dict = {"summary_type": ("last", "first"), "summary_use_proj": (True,)}
        only |= {"summary_first_dropout": (None, 0), "summary_proj_to_labels": (None, False)}
        only |= {"attn_type": ("bi", "uni"), "bi_data": (False,), "untie_r": (None, True)}
        sizes = ("vocab_size", "d_model", "n_layer", "n_head", "d_inner")
        rates = ("dropout", "summary_last_dropout")
        check_encoder(self, sizes=sizes, rates=rates, tie_word_embeddings=(True,), **only)
        check_known(self, "ff_activation", ACTIVATIONS)
        if self.summary_activation:
            check_known(self, "summary_activation", ACTIVATIONS)
        D, H, E = self.d_model, self.n_head, self.d_head
        if D % 2 or D % H or E not in (None, D // H):
            raise ValueError(f"config: d_model: expected n_head d_head, even, got {D}, {H}, {E}")
        for name in ("mem_len", "reuse_len"):
            if (own := getattr(self, name)) is not None and own < 0:
                raise ValueError(f"config: {name}: expected an integer >= 0 or null, got {own}")

    context = property(lambda self: None)  # no longest sequence
    hidden_size = property(attrgetter("d_model"))  # BERT's name


init = walks.init
INPUTS = ("token_type_ids", "input_mask", "perm_mask", "target_mapping", "mems")
OWN_SHAPES = ("perm_mask", "target_mapping", "mems")  # not (B, T)
PADDING = {"direction": "Left", "pad_type_id": 3}  # how tuning.data pads a batch
# Yang et al. 2019, appendix A.4 (large); the base has the sizes of BERT's.
_base = Config(d_model=768, n_layer=12, n_head=12, d_inner=3072)
SIZES = {"xlnet-base-cased": _base, "xlnet-large-cased": Config()}


def _summary(config: Config) -> dict:
    """How a sequence is pooled."""
    activation = ACTIVATIONS.get(config.summary_activation or "", lambda x: (x, lambda dy: dy))
    return {"activation": activation, "place": 0 if config.summary_type == "first" else -1}


_classes: dict = {"rate": attrgetter("summary_last_dropout"), "pooling": _summary}
TASKS = {
    "permutation_lm": tasks.bare_lm("XLNetLMHeadModel"),
    "sequence_classification": tasks.classes("XLNet", **_classes),
    "multiple_choice": tasks.choices("XLNet", **_classes),
    "token_classification": tasks.tokens("XLNet"),
    "question_answering": tasks.answers("XLNet", suffix="Simple"),
    "body": tasks.no_head("XLNet"),
}


def shapes(config: Config, task: str = "permutation_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D, H, E = config.d_model, config.n_head, config.d_model // config.n_head
    attention: dict = {f"W{n}": (D, H, E) for n in "qkvr"} | {"Wo": (H, E, D)}
    attention |= {f"{n}_bias": (H, E) for n in "krs"} | {"segments": (2, H, E)}
    layer = tasks.block_shapes(D, config.d_inner) | {"attention": attention}
    body = {"tokens": (config.vocab_size, D), "mask": (D,), "layers": [layer] * config.n_layer}
    return {"body": body, "head": TASKS[task].shapes(config)}


def body(
    p: Tree,
    inputs_embeds: Any = None,
    *,
    config: Config,
    input_ids: Any = None,
    mems: Any = None,
    remember: Callable | None = None,
    key: Any = None,
    stacking: StackOptions = StackOptions(),
    **masks: Any,
) -> tuple[Any, Any]:
    """States of the last layer: of the targets where there is a target_mapping, else of all tokens.

    As in encoder.body_of; mems (B, L, S - T, D): what `body_with_memory` gives; remember(i, h) is
    called with the content states that enter layer i; masks: attention_mask, input_mask, perm_mask,
    target_mapping, token_type_ids as in layers.stream_views.   -> hidden (B, M, D) or (B, T, D).
    """
    x, tokens_back = walks.look_up(p, input_ids, inputs_embeds)
    xp, (B, T, D) = array_module(x), x.shape
    L, rate, targets = config.n_layer, config.dropout, masks.get("target_mapping")
    S, M = T + length(mems, (B, L, D)), 0 if targets is None else targets.shape[1]
    both_ways, same = config.attn_type == "bi", config.same_length
    band = None if both_ways else one_way_band(T, S, same_length=same, xp=xp)
    content, query = stream_views((B, T, S), band=band, xp=xp, **masks)
    relative = distance_encodings(T, S, D, clamp=config.clamp_len, dtype=x.dtype, xp=xp)[None]
    if key is not None:
        relative = xp.broadcast_to(relative, (B, T + S, D))
        relative, _ = dropout(relative, rate=rate, key=fold(key, L))
    attention = partial(two_stream_attention, relative=relative, content=content, query=query)
    activation = ACTIVATIONS[config.ff_activation]
    norm = partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps)

    def layer(p, x, *, index, key):
        if remember is not None:
            remember(index, x[:, :T])
        own = {"memory": None if mems is None else mems[:, index], "key": fold(key, 0)}
        drop = partial(dropout, rate=rate, key=fold(key, 3))
        feed_forward = partial(mlp, activation=lambda h: chain(h, activation, drop))
        parts = {"attention": partial(attention, rate=rate, **own), "mlp": feed_forward}
        return block(p, x, residual=post_norm, norm=norm, rate=rate, key=key, **parts)

    h, h_back = dropout(x, rate=rate, key=fold(key, L + 1))
    g, g_back = dropout(xp.broadcast_to(p["mask"], (B, M, D)), rate=rate, key=fold(key, L + 2))
    each: dict = {"each": lambda i: {"index": i, "key": fold(key, i)}, "options": stacking}
    both, stack_back = stack(layer, p["layers"], xp.concatenate([h, g], axis=1), **each)
    hidden, last_back = dropout(both[:, T:] if M else both, rate=rate, key=fold(key, L + 3))

    def backward(dhidden):
        dlast = last_back(dhidden)
        unread = xp.zeros((B, T + M - dlast.shape[1], D), dtype=dlast.dtype)  # last content states
        dlayers, dboth = stack_back(xp.concatenate([unread, dlast], axis=1))
        dx, dg = h_back(dboth[:, :T]), g_back(dboth[:, T:])
        dp = {"mask": sum_float32(dg, axis=(0, 1)), "layers": dlayers}
        dtokens, dinputs_embeds = tokens_back(dx)
        return dtokens | dp, dinputs_embeds

    return hidden, backward


def body_with_memory(p: Tree, *x: Any, config: Config, mems: Any = None, **inputs: Any) -> tuple:
    """((hidden, mems of the next segment, see layers.memory.extended), the backward of `body`)."""
    entered: list[Any] = [None] * config.n_layer
    more = {"mems": mems, "remember": entered.__setitem__, **inputs}
    hidden, backward = body(p, *x, config=config, **more)
    memory = extended(mems, entered, longest=config.mem_len, first=config.reuse_len)
    return (hidden, memory), backward


_HUB, _ATTENTION = "transformer.layer.{i}", f"{names.LAYER}.attention"
_OURS = {"r_w_bias": "k_bias", "r_r_bias": "r_bias", "r_s_bias": "s_bias", "seg_embed": "segments"}
_ROW = names.Operation(lambda a: a[0][None, None], lambda t, _: [t[0, 0]], lambda s: (1, 1, *s[0]))
NAMES = [
    names.Rename("transformer.word_embedding.weight", "body.tokens"),
    names.Rename("transformer.mask_emb", "body.mask", operation=_ROW),
    *(names.Rename(f"{_HUB}.rel_attn.{n}", f"{_ATTENTION}.W{n}") for n in "qkvr"),
    names.Rename(f"{_HUB}.rel_attn.o", f"{_ATTENTION}.Wo", operation=names.permuted(2, 0, 1)),
    *(names.Rename(f"{_HUB}.rel_attn.{n}", f"{_ATTENTION}.{m}") for n, m in _OURS.items()),
    *names.norm(f"{_HUB}.rel_attn.layer_norm", f"{names.LAYER}.norm1"),
    *names.linears(f"{_HUB}.ff", f"{names.LAYER}.mlp", layer_1="1", layer_2="2"),
    *names.norm(f"{_HUB}.ff.layer_norm", f"{names.LAYER}.norm2"),
    names.Rename("lm_loss.bias", "head.bias"),
    *names.linear("sequence_summary.summary", "head.pooler"),
    *names.linear("logits_proj", "head.classifier"),
    *names.linear("classifier", "head.tokens"),
    *names.linear("qa_outputs", "head.span"),
]
PREFIX, SKIPPED, TIED = "transformer.", (), {"lm_loss.weight": "transformer.word_embedding.weight"}
