"""The table of components with their formulas: the implementation, the reference formula, and a maker of cases for each.

The implementations and the makers are in tinyplm/checks/cases, which knows nothing of reference/.  A new component needs one
entry there and its formula here: then all laws are checked for it on every device, and examples/gradient_check.py shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import reference.layers.activation as ref_activation
import reference.layers.alibi as ref_alibi
import reference.layers.attention as ref_attention
import reference.layers.block as ref_block
import reference.layers.convolution as ref_convolution
import reference.layers.disentangled as ref_disentangled
import reference.layers.dropout as ref_dropout
import reference.layers.embedding as ref_embedding
import reference.layers.heads as ref_heads
import reference.layers.linear as ref_linear
import reference.layers.mlp as ref_mlp
import reference.layers.moe as ref_moe
import reference.layers.norm as ref_norm
import reference.layers.pooling as ref_pooling
import reference.layers.position as ref_position
import reference.layers.relative_bias as ref_relative_bias
import reference.layers.rope as ref_rope
import reference.layers.sinks as ref_sinks
import reference.layers.softmax as ref_softmax
import reference.layers.two_stream as ref_two_stream
import reference.losses.answers as ref_answers
import reference.losses.auxiliary as ref_auxiliary
import reference.losses.balance as ref_balance
import reference.losses.contrastive as ref_contrastive
import reference.losses.cross_entropy as ref_cross_entropy
import reference.losses.distillation as ref_distillation
import reference.losses.log_probs as ref_log_probs
import reference.losses.policy as ref_policy
import reference.losses.preference as ref_preference
import reference.losses.regression as ref_regression
import reference.tuning.prefix as ref_prefix
from tests.laws import Case, Sizes
from tests.support import formulas
from tinyplm.checks import case, cases
from tinyplm.checks.cases import decoders, relative_bias
from tinyplm.checks.cases.disentangled import distances
from tinyplm.layers import activation, block, norm
from tinyplm.random import fold


class Component(NamedTuple):
    f: Callable
    reference: Callable
    make: Callable[[Sizes], Case]


# {name: formula}; a kernel's is that of its plain form
FORMULAS: dict[str, Callable] = {
    "linear": ref_linear.linear,
    "embedding": ref_embedding.embedding,
    "embedding_bag": ref_embedding.embedding_bag,
    "layernorm": ref_norm.layernorm,
    "rmsnorm": ref_norm.rmsnorm,
    "relu": ref_activation.relu,
    "gelu": ref_activation.gelu,
    "gelu_tanh": ref_activation.gelu_tanh,
    "silu": ref_activation.silu,
    "tanh": ref_activation.tanh,
    "log_sigmoid": ref_activation.log_sigmoid,
    "dropout": ref_dropout.dropout,
    "softmax": ref_softmax.softmax,
    "log_softmax": ref_softmax.log_softmax,
    "learned_positions": ref_position.learned_positions,
    "mlp": ref_mlp.mlp,
    "gated_mlp": ref_mlp.gated_mlp,
    "pre_norm_block": ref_block.block,
    "post_norm_block": ref_block.block,
    "soft_cap": ref_activation.soft_cap,
    "unit_rmsnorm": ref_norm.unit_rmsnorm,
    "after_norm_block": ref_block.block,
    "deep_norm_block": ref_block.block,
    "scaled_norm_block": ref_block.block,
    "both_norms_block": formulas.both_norms_block,
    "parallel_block": ref_block.parallel_block,
    "rope": ref_rope.rope,
    "paired_rope": ref_rope.paired_rope,
    "rope_interleaved": ref_rope.rope,
    "attention": ref_attention.attention,
    "attention_dropout": formulas.attention_dropout,
    "block_attention": formulas.without_block(ref_attention.attention),
    "block_attention_dropout": formulas.without_block(formulas.attention_dropout),
    "decoder_attention": formulas.described_attention,
    "prefix_decoder_attention": formulas.described_attention,
    "cross_block_attention": formulas.described_attention,
    "multi_head_attention": ref_attention.multi_head_attention,
    "cross_attention": ref_attention.multi_head_attention,
    "joined_attention": formulas.joined_attention,
    "rotary_attention": formulas.rotary_attention,
    "head_norm_attention": formulas.head_norm_attention,
    "projection_norm_attention": formulas.projection_norm_attention,
    "capped_attention": formulas.capped_attention,
    "capped_block_attention": formulas.without_block(formulas.capped_attention),
    "alibi_attention": formulas.alibi_attention,
    "alibi_block_attention": formulas.without_block(formulas.alibi_attention),
    "capped_alibi_decoder_attention": formulas.described_alibi_attention,
    "sink_softmax": ref_sinks.sink_softmax,
    "sink_attention": ref_sinks.sink_attention,
    "sink_attention_dropout": formulas.sink_dropout,
    "sink_block_attention": formulas.without_block(ref_sinks.sink_attention),
    "sink_block_attention_dropout": formulas.without_block(formulas.sink_dropout),
    "sink_decoder_attention": formulas.described_sinks,
    "sink_self_attention": formulas.sink_self_attention,
    "latent_attention": formulas.latent_attention,
    "absorbed_attention": formulas.latent_attention,
    "multi_token_input": formulas.multi_token_input,
    "lm_transform": ref_heads.lm_transform,
    "pooler": ref_heads.pooler,
    "classifier": ref_heads.classifier,
    "dense_classifier": ref_heads.dense_classifier,
    "span_head": formulas.joined_span_head,
    "relative_scores": formulas.relative_scores,
    "disentangled_attention": formulas.disentangled_attention,
    "disentangled_attention_dropout": formulas.disentangled_dropout,
    "disentangled_multi_head": formulas.disentangled_multi_head,
    "split_interleaved": ref_disentangled.split_interleaved,
    "convolution": ref_convolution.convolution,
    "convolution_layer": ref_convolution.convolution_layer,
    "relative_shift": ref_two_stream.relative_shift,
    "relative_rows": ref_two_stream.relative_rows,
    "relative_attention": ref_two_stream.relative_attention,
    "relative_attention_dropout": formulas.relative_dropout,
    "content_stream_attention": ref_two_stream.two_stream_attention,
    "two_stream_attention": ref_two_stream.two_stream_attention,
    "relative_bias": formulas.relative_bias,
    "keys_and_values": formulas.joined_keys_and_values,
    "attend_to": ref_attention.attend_to,
    "two_step_cross_attention": ref_attention.multi_head_attention,
    "biased_self_attention": formulas.biased_attention,
    "pre_norm_cross_block": ref_block.cross_block,
    "post_norm_cross_block": ref_block.cross_block,
    "softmax_weights": ref_moe.softmax_weights,
    "sigmoid_weights": ref_moe.sigmoid_weights,
    "clamped_swiglu": ref_moe.clamped_swiglu,
    "clamped_gated_mlp": ref_moe.clamped_gated_mlp,
    "experts": ref_moe.experts,
    "sigmoid_gated": ref_moe.sigmoid_gated,
    "moe": ref_moe.moe,
    "routed_block": ref_moe.routed_block,
    "load_balancing_loss": ref_balance.load_balancing_loss,
    "normalised_sigmoid": ref_balance.normalised_sigmoid,
    "sequence_balance_loss": ref_balance.sequence_balance_loss,
    "router_z_loss": ref_balance.router_z_loss,
    "cross_entropy": ref_cross_entropy.cross_entropy,
    "vocabulary_cross_entropy": ref_cross_entropy.vocabulary_cross_entropy,
    "mean_pooling": ref_pooling.mean_pooling,
    "max_pooling": ref_pooling.max_pooling,
    "last_pooling": ref_pooling.last_pooling,
    "cls_pooling": ref_pooling.cls_pooling,
    "l2_normalise": ref_pooling.l2_normalise,
    "info_nce": ref_contrastive.info_nce,
    "symmetric_info_nce": ref_contrastive.symmetric_info_nce,
    "mean_squared_error": ref_regression.mean_squared_error,
    "binary_cross_entropy": ref_regression.binary_cross_entropy,
    "log_probs": formulas.summed(ref_log_probs.log_probs),
    "vocabulary_log_probs": formulas.summed(ref_log_probs.vocabulary_log_probs),
    "bradley_terry": ref_preference.bradley_terry,
    "pair_log_probs": ref_answers.pair_log_probs,
    "label_scores": ref_answers.label_scores,
    "dpo": ref_preference.dpo,
    "clipped_surrogate": ref_policy.clipped_surrogate,
    "clipped_value_loss": ref_policy.clipped_value_loss,
    "k3_kl": ref_policy.k3_kl,
    "grpo": ref_policy.grpo,
    "sequence_surrogate": ref_policy.sequence_surrogate,
    "gspo": ref_policy.gspo,
    "distillation": ref_distillation.distillation,
    "vocabulary_distillation": ref_distillation.vocabulary_distillation,
    "prefix_attention": ref_prefix.prefix_attention,
    "lora": formulas.lora_of_one_matrix,
    "with_language_model": ref_auxiliary.with_language_model,
    "ipo": ref_preference.ipo,
    "hinge": ref_preference.hinge,
    "orpo": ref_preference.orpo,
    "simpo": ref_preference.simpo,
    "kto": ref_preference.kto,
}


# --------------------------------------------------------------------- keyword arguments that the reference takes otherwise

ACTIVATIONS = {getattr(activation, name): getattr(ref_activation, name) for name in ("gelu", "gelu_tanh", "silu", "tanh")}
NORMS = {
    norm.rmsnorm: ref_norm.rmsnorm,
    norm.unit_rmsnorm: ref_norm.unit_rmsnorm,
    decoders.without_shift: ref_norm.layernorm,
}
RESIDUALS = {
    block.pre_norm: ref_block.pre_norm,
    block.post_norm: ref_block.post_norm,
    block.deep_norm: ref_block.deep_norm,
    block.scaled_norm: ref_block.scaled_norm,
    block.after_norm: ref_block.after_norm,
}


def _activation(s: Sizes, made: case.Case) -> dict[str, Any]:
    return {"activation": ACTIVATIONS[made.kwargs["activation"]]}


def _rotary(s: Sizes, made: case.Case) -> dict[str, Any]:
    return {"rotary": partial(ref_rope.rope, **made.kwargs["rotary"].keywords)}


def _two_keys(s: Sizes, made: case.Case) -> dict[str, Any]:
    key = made.kwargs["key"]
    return {"key": None if key is None else (fold(key, 0), fold(key, 1))}


def _parts(s: Sizes, made: case.Case) -> dict[str, Any]:
    """A block's parts with the settings of ours."""
    settings = {name: part.keywords for name, part in made.kwargs.items() if isinstance(part, partial)}
    residual = made.kwargs.get("residual")
    if isinstance(residual, partial):
        twin = {"residual": partial(RESIDUALS[residual.func], **residual.keywords)}
    else:
        twin = {"residual": RESIDUALS[residual]} if residual in RESIDUALS else {}
    return {
        **twin,
        "norm": lambda p, x: ref_norm.layernorm(x, p["gamma"], p["beta"], **settings["norm"]),
        "attention": lambda p, x, bias: ref_attention.multi_head_attention(p, x, None, bias, **settings["attention"]),
        "mlp": partial(ref_mlp.mlp, activation=ACTIVATIONS[settings["mlp"]["activation"]]),
    }


def _cross_parts(s: Sizes, made: case.Case) -> dict[str, Any]:
    cross = made.kwargs["cross"].keywords
    return {**_parts(s, made), "cross": partial(ref_attention.multi_head_attention, **cross)}


def _normed(s: Sizes, made: case.Case) -> dict[str, Any]:
    name = next(name for name in ("head_norm", "projection_norm") if name in made.kwargs)
    ours, rotary = made.kwargs[name], made.kwargs["rotary"]
    return {
        name: partial(NORMS[ours.func], **ours.keywords),
        "rotary": None if rotary is None else partial(ref_rope.rope, **rotary.keywords),
    }


def _norm_eps(s: Sizes, made: case.Case) -> dict[str, Any]:
    turning = _rotary(s, made) if "rotary" in made.kwargs else {}
    return {**turning, "eps": made.kwargs["norm"].keywords["eps"]}


def _alibi(s: Sizes, made: case.Case) -> dict[str, Any]:
    """The positions from which the formula makes its bias; of the queries, any will do."""
    q, k = made.args[:2]
    keys = np.broadcast_to(decoders.key_positions(s, k.shape[2]), (s.B, k.shape[2]))
    queries = np.random.default_rng(s.seed).integers(0, 20, (s.B, q.shape[2]))
    return {"queries": queries, "keys": keys, "slopes": ref_alibi.alibi_slopes(s.H)}


def _delta(s: Sizes, T: int, S: int) -> dict[str, Any]:
    row = ref_disentangled.bucketed_row if "buckets" in distances(s) else ref_disentangled.clipped_row
    return {"delta": ref_disentangled.row_table(T, S, partial(row, **distances(s)))}


def _multi_head_delta(s: Sizes, made: case.Case) -> dict[str, Any]:
    _, x, context, _ = made.args
    return _delta(s, x.shape[1], (x if context is None else context).shape[1])


def _buckets(s: Sizes, made: case.Case) -> dict[str, Any]:
    """The bucket of each query and key: T5's, or what the case drew for their distance."""
    settings, rows = relative_bias.distances(s), made.kwargs["rows"]
    first = settings.pop("offset")
    drawn = {distance: rows[distance + first + s.T - 1] for distance in range(1 - s.T - first, s.S - first)}
    bucket = partial(ref_relative_bias.t5_bucket, **settings) if s.flags[1] else drawn.get
    return {"buckets": ref_relative_bias.bucket_table(s.T, s.S, bucket, first=first)}


def _experts(s: Sizes, made: case.Case) -> dict[str, Any]:
    """A mixture's routing, experts and shared expert, with the settings of ours."""
    twins = {"expert": REF_EXPERT, "f": REF_EXPERT, "shared": partial(ref_moe.sigmoid_gated, f=REF_EXPERT)}
    routing = {n: made.kwargs[n] for n in ("choose", "weigh") if n in made.kwargs}
    ours = {n: partial(getattr(ref_moe, f.func.__name__), **f.keywords) for n, f in routing.items()}
    return ours | {n: twin for n, twin in twins.items() if n in made.kwargs}


def _routed_block(s: Sizes, made: case.Case) -> dict[str, Any]:
    settings = made.kwargs["mlp"].keywords
    mlp = {**settings, **_experts(s, case.Case([], settings))}

    def norm(p, x):
        return ref_norm.rmsnorm(x, p["gamma"])

    def attention(p, x):
        return ref_linear.linear(x, p["W"])

    return {"norm": norm, "attention": attention, "mlp": partial(ref_moe.moe, **mlp)}


REF_EXPERT = partial(ref_mlp.gated_mlp, activation=ref_activation.silu)


def _affinities(s: Sizes, made: case.Case) -> dict[str, Any]:
    return {"affinities": ref_softmax.softmax} if "affinities" in made.kwargs else {}


REFERENCE_KWARGS: dict[str, Callable[[Sizes, case.Case], dict[str, Any]]] = {
    "mlp": _activation,
    "gated_mlp": _activation,
    "lm_transform": _activation,
    "pooler": _activation,
    "convolution_layer": _activation,
    "rotary_attention": _rotary,
    "sink_self_attention": _rotary,
    "dense_classifier": _two_keys,
    "pre_norm_block": _parts,
    "post_norm_block": _parts,
    "after_norm_block": _parts,
    "deep_norm_block": _parts,
    "scaled_norm_block": _parts,
    "both_norms_block": _parts,
    "parallel_block": _parts,
    "pre_norm_cross_block": _cross_parts,
    "post_norm_cross_block": _cross_parts,
    "head_norm_attention": _normed,
    "projection_norm_attention": _normed,
    "latent_attention": _norm_eps,
    "absorbed_attention": _norm_eps,
    "multi_token_input": _norm_eps,
    "alibi_attention": _alibi,
    "alibi_block_attention": _alibi,
    "capped_alibi_decoder_attention": _alibi,
    "relative_scores": lambda s, made: _delta(s, s.T, s.S),
    "disentangled_attention": lambda s, made: _delta(s, s.T, s.S),
    "disentangled_attention_dropout": lambda s, made: _delta(s, s.T, s.S),
    "disentangled_multi_head": _multi_head_delta,
    "relative_bias": _buckets,
    "experts": _experts,
    "sigmoid_gated": _experts,
    "moe": _experts,
    "routed_block": _routed_block,
    "sequence_balance_loss": _affinities,
}


def _component(name: str, entry: case.Entry) -> Component:
    key = name if name in FORMULAS or entry.plain is None else entry.plain
    translate = REFERENCE_KWARGS.get(key)

    def make(s: Sizes) -> Case:
        made = entry.make(s)
        return Case(made.args, made.kwargs, translate(s, made) if translate else {})

    return Component(entry.f, FORMULAS[key], make)


COMPONENTS: dict[str, Component] = {name: _component(name, entry) for name, entry in cases.COMPONENTS.items()}
