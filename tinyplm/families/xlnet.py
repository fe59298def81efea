"""XLNet (Yang et al. 2019): Transformer-XL's layers (Dai et al. 2019), trained to predict tokens in a permuted order.

    h_0     = tokens[ids], the content stream, which knows its token;   g_0 = mask, the query stream, which knows its place alone
    h_{i+1} = block(h_i),   g_{i+1} = block(g_i):   x = norm1(x + attention(x, [memory_i, h_i]));   x = norm2(x + mlp(x))
    hidden  = g_L of the targets (target_mapping), or without targets h_L            (+ dropout, as on h_0, g_0 and the distances)

Attention knows distances, and whether two tokens are of the same segment (layers/two_stream.py); there are no positions, and so
no longest sequence.  Pad on the left: a sequence is summed up by its last token.

Parameters: {"body": {"tokens" (V, D), "mask" (D,), "layers": [...]}, "head": by task}.
Heads: permutation LM, logits = hidden tokens^T + bias, whose targets are in the order of target_mapping, not shifted; classes and
choices from tanh(hidden_last W + b); classes of tokens and the ends of an answer straight from hidden.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar

from ..backend import array_module, sum_float32
from ..core import StackOptions, chain, on_tree, stack
from ..kernels.activation import ACTIVATIONS
from ..kernels.mlp import mlp
from ..layers.block import block, post_norm
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.memory import extended, length
from ..layers.norm import layernorm
from ..layers.relative_shift import distance_encodings
from ..layers.stream_views import one_way_band, stream_views
from ..layers.two_stream import two_stream_attention
from ..models import encoder
from ..models.config import LABELS, check_encoder, check_known, label_count
from ..models.names import Operation, Rename, linear, linears, weight_and_bias
from ..models.tasks import Task, answer_head, dense, norm_shapes, pooled_head, pooled_shapes, token_head
from ..random import fold


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of XLNet's config.json that say what is computed; `source` keeps the others."""

    MODEL_TYPE: ClassVar[str] = "xlnet"
    ALIASES: ClassVar[dict[str, str]] = {"n_token": "vocab_size", "hidden_size": "d_model", "num_attention_heads": "n_head",
                                         "num_hidden_layers": "n_layer"}  # fmt: skip
    context: ClassVar[None] = None  # no longest sequence
    OLD: ClassVar[tuple[str, ...]] = (*LABELS, "d_head", "untie_r", "summary_first_dropout", "summary_proj_to_labels")

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
    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_encoder(self, sizes=("vocab_size", "d_model", "n_layer", "n_head", "d_inner"),
                      rates=("dropout", "summary_last_dropout"), attn_type=("bi", "uni"), bi_data=(False,), untie_r=(None, True),
                      tie_word_embeddings=(True,), summary_type=("last", "first"), summary_use_proj=(True,),
                      summary_first_dropout=(None, 0), summary_proj_to_labels=(None, False))  # fmt: skip
        check_known(self, "ff_activation", ACTIVATIONS)
        if self.summary_activation:
            check_known(self, "summary_activation", ACTIVATIONS)
        if self.d_model % 2 or self.d_model % self.n_head or self.d_head not in (None, self.d_model // self.n_head):
            raise ValueError(f"config: expected even d_model = n_head d_head, got {self.d_model}, {self.n_head}, {self.d_head}")
        if min(self.mem_len or 0, self.reuse_len or 0) < 0:
            raise ValueError(f"config: expected mem_len, reuse_len >= 0 or null, got {self.mem_len}, {self.reuse_len}")

    @property
    def num_labels(self) -> int:
        return label_count(self)


INPUTS = ("token_type_ids", "input_mask", "perm_mask", "target_mapping", "mems")
OWN_SHAPES = ("perm_mask", "target_mapping", "mems")  # not (B, T)
PADDING = {"direction": "Left", "pad_type_id": 3}  # how tuning.data fills up a batch
# Yang et al. 2019, appendix A.4 (large); the base has the sizes of BERT's.
SIZES = {"xlnet-base-cased": Config(d_model=768, n_layer=12, n_head=12, d_inner=3072), "xlnet-large-cased": Config()}


def _classes(p, hidden, *, config, key):
    activation = ACTIVATIONS.get(config.summary_activation, lambda x: (x, lambda dy: dy))
    return pooled_head(p, hidden, activation=activation, place=0 if config.summary_type == "first" else -1,
                       rate=config.summary_last_dropout, key=key)  # fmt: skip


TASKS = {
    "permutation_lm": Task("XLNetLMHeadModel", lambda c: {"bias": (c.vocab_size,)},
                           lambda p, hidden, *, config: (hidden, lambda dh: (None, dh))),
    "sequence_classification": Task("XLNetForSequenceClassification",
                                    lambda c: pooled_shapes(c.d_model, classifier=c.num_labels), None, _classes),
    "multiple_choice": Task("XLNetForMultipleChoice", lambda c: pooled_shapes(c.d_model, classifier=1), None, _classes),
    "token_classification": Task("XLNetForTokenClassification", lambda c: {"tokens": dense(c.d_model, c.num_labels)}, None,
                                 lambda p, h, *, config, key: token_head(p, h)),
    "question_answering": Task("XLNetForQuestionAnsweringSimple", lambda c: {"span": dense(c.d_model, 2)}, None,
                               lambda p, h, *, config, key: answer_head(p, h)),
    "body": Task("XLNetModel", lambda c: {}),
}  # fmt: skip


def shapes(config: Config, task: str = "permutation_lm") -> dict:
    """The tree of parameter shapes; nothing is allocated."""
    D, F, heads = config.d_model, config.d_inner, (config.n_head, config.d_model // config.n_head)
    layer = {
        "attention": {**{f"W{n}": (D, *heads) for n in "qkvr"}, "Wo": (*heads, D), **{f"{n}_bias": heads for n in "krs"},
                      "segments": (2, *heads)},
        "norm1": norm_shapes(D),
        "mlp": {"W1": (D, F), "b1": (F,), "W2": (F, D), "b2": (D,)},
        "norm2": norm_shapes(D),
    }  # fmt: skip
    return {"body": {"tokens": (config.vocab_size, D), "mask": (D,), "layers": [layer] * config.n_layer},
            "head": TASKS[task].shapes(config)}  # fmt: skip


init = encoder.init


def body(p, inputs_embeds=None, *, config, input_ids=None, attention_mask=None, token_type_ids=None, input_mask=None,
         perm_mask=None, target_mapping=None, mems=None, remember=None, key=None, stacking=StackOptions()):  # fmt: skip
    """States of the last layer: of the targets where there is a target_mapping, else of all tokens.

    p = params["body"]; input_ids (B, T), or inputs_embeds (B, T, D) in place of the look-up; attention_mask (B, T) with 0 for
    padding, or input_mask with 1 for it; token_type_ids (B, T): segments, any integers; perm_mask and target_mapping:
    see layers.stream_views; mems (B, L, S - T, D): what `body_with_memory` gives; remember(i, h), called with the content states
    that enter layer i; key (B,), one per sample, for dropout, None for none; stacking: see core.StackOptions.
    -> hidden (B, M, D) or (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    x, tokens_back = embedding(p["tokens"], ids=input_ids) if inputs_embeds is None else (inputs_embeds, None)
    xp = array_module(x)
    (B, T, D), L, rate = x.shape, config.n_layer, config.dropout
    S, M = T + length(mems, (B, L, D)), 0 if target_mapping is None else target_mapping.shape[1]
    band = None if config.attn_type == "bi" else one_way_band(T, S, same_length=config.same_length, xp=xp)
    content, query = stream_views((B, T, S), band=band, attention_mask=attention_mask, input_mask=input_mask, perm_mask=perm_mask,
                                  target_mapping=target_mapping, token_type_ids=token_type_ids, xp=xp)  # fmt: skip
    relative = distance_encodings(T, S, D, clamp=config.clamp_len, dtype=x.dtype, xp=xp)[None]
    if key is not None:
        relative, _ = dropout(xp.broadcast_to(relative, (B, T + S, D)), rate=rate, key=fold(key, L))

    def layer(p, x, *, index, key):
        if remember is not None:
            remember(index, x[:, :T])
        attention = partial(two_stream_attention, relative=relative, content=content, query=query, rate=rate, key=fold(key, 0),
                            memory=None if mems is None else mems[:, index])  # fmt: skip

        def activation(h):
            return chain(h, ACTIVATIONS[config.ff_activation], partial(dropout, rate=rate, key=fold(key, 3)))

        return block(p, x, residual=post_norm, norm=partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps),
                     attention=attention, mlp=partial(mlp, activation=activation), rate=rate, key=key)  # fmt: skip

    h, h_back = dropout(x, rate=rate, key=fold(key, L + 1))
    g, g_back = dropout(xp.broadcast_to(p["mask"], (B, M, D)), rate=rate, key=fold(key, L + 2))  # of no rows without targets
    both, stack_back = stack(layer, p["layers"], xp.concatenate([h, g], axis=1), options=stacking,
                             each=lambda i: {"index": i, "key": fold(key, i)})  # fmt: skip
    hidden, last_back = dropout(both[:, T:] if M else both, rate=rate, key=fold(key, L + 3))

    def backward(dhidden):
        dlast = last_back(dhidden)
        unread = xp.zeros((B, T + M - dlast.shape[1], D), dtype=dlast.dtype)  # the last content states, with targets
        dlayers, dboth = stack_back(xp.concatenate([unread, dlast], axis=1))
        dx, dg = h_back(dboth[:, :T]), g_back(dboth[:, T:])
        dp = {"mask": sum_float32(dg, axis=(0, 1)), "layers": dlayers}
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return hidden, backward


def body_with_memory(p, inputs_embeds=None, *, config, mems=None, **inputs):
    """((hidden, mems for the next segment), backward of hidden): `body`, and what it hands on (layers.memory.extended)."""
    entered = [None] * config.n_layer
    hidden, backward = body(p, inputs_embeds, config=config, mems=mems, remember=entered.__setitem__, **inputs)
    return (hidden, extended(mems, entered, longest=config.mem_len, first=config.reuse_len)), backward


_LAYER, _HUB = "body.layers.{i}", "transformer.layer.{i}"
_VECTOR = Operation(lambda a: a[0][None, None], lambda t, _: [t[0, 0]], lambda s: (1, 1, *s[0]))
_LAST = Operation(lambda a: a[0].transpose(2, 0, 1), lambda t, _: [t.transpose(1, 2, 0)], lambda s: (s[0][2], *s[0][:2]))
_BIASES = {"r_w_bias": "k_bias", "r_r_bias": "r_bias", "r_s_bias": "s_bias", "seg_embed": "segments"}
NAMES = [
    Rename("transformer.word_embedding.weight", "body.tokens"),
    Rename("transformer.mask_emb", "body.mask", operation=_VECTOR),
    *(Rename(f"{_HUB}.rel_attn.{n}", f"{_LAYER}.attention.W{n}") for n in "qkvr"),
    Rename(f"{_HUB}.rel_attn.o", f"{_LAYER}.attention.Wo", operation=_LAST),
    *(Rename(f"{_HUB}.rel_attn.{theirs}", f"{_LAYER}.attention.{ours}") for theirs, ours in _BIASES.items()),
    *weight_and_bias(f"{_HUB}.rel_attn.layer_norm", f"{_LAYER}.norm1.gamma", f"{_LAYER}.norm1.beta"),
    *linears(f"{_HUB}.ff", f"{_LAYER}.mlp", layer_1="1", layer_2="2"),
    *weight_and_bias(f"{_HUB}.ff.layer_norm", f"{_LAYER}.norm2.gamma", f"{_LAYER}.norm2.beta"),
    Rename("lm_loss.bias", "head.bias"),
    *linears("sequence_summary", "head.pooler", summary=""),
    *linear("logits_proj", "head.classifier"),
    *linear("classifier", "head.tokens"),
    *linear("qa_outputs", "head.span"),
]
PREFIX = "transformer."  # a file of the bare body lacks it
IGNORED = ()
TIED = {"lm_loss.weight": "transformer.word_embedding.weight"}
