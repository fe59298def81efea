"""Invalid calls of layers, losses, the stack, trees and the optimisers' parts: every argument, every wrong kind."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest

from tests.components import COMPONENTS
from tests.laws import Sizes
from tests.support.wrong_calls import complaint, wrong_calls, wrong_values
from tinyplm import core
from tinyplm.kernels import cross_entropy as chunked
from tinyplm.kernels import distillation as chunked_distillation
from tinyplm.kernels import latent
from tinyplm.kernels import log_probs as chunked_log_probs
from tinyplm.kernels.mlp import gated_mlp
from tinyplm.layers import (
    alibi,
    block,
    cache,
    cache_size,
    mask,
    memory,
    moe,
    norm,
    position,
    relative_buckets,
    relative_shift,
    rope,
    rope_scaling,
    routing,
    stream_views,
)
from tinyplm.layers.activation import silu
from tinyplm.losses import (
    advantages,
    auxiliary,
    balance,
    contrastive,
    cross_entropy,
    distillation,
    feedback,
    log_probs,
    policy,
    preference,
    reference_free,
    regression,
    sequence_policy,
)
from tinyplm.optim import clip
from tinyplm.shapes import expects

SIZES = Sizes(B=2, T=3, S=3, D=4, K=1, G=2, E=2, F=4, V=5, seed=3, flags=(True, True, True))
FUNCTIONS = (
    "activation",
    "choose",
    "weigh",
    "expert",
    "shared",
    "affinities",
    "norm",
    "rotary",
    "head_norm",
    "projection_norm",
    "scores",
    "f",
    "layer",
    "each",
    "on_gradient",
)  # arguments that are called


def plain(component):
    """The function and its named arguments if the table holds it directly; None if it is wrapped for the laws."""
    case = component.make(SIZES)
    f = case.kernel or component.f
    module = str(getattr(f, "__module__", ""))
    if not module.startswith("tinyplm") or module.startswith("tinyplm.checks") or hasattr(f, "func"):
        return None
    names = [n for n, p in inspect.signature(f).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(f).parameters.values()):
        return None
    return f, dict(zip(names, case.args)) | case.kwargs


# A message may name what an argument becomes: the entries of a tree, a context's keys, a chunk of booleans.
WORDS = {"p": ["W", "x", "b:", "gamma", "beta", "k_bias", "Wqkv", "heads"], "heads": ["W", "divide", "q"], "bias": ["prefix"],
         "kv_heads": ["divide", "k"], "context": ["x", "k"], "x": ["mask", "cache", "memory", "positions", "groups",
              "queries"],
         "relative": ["x", "r", "q", "Kr", "Qr"], "content": ["content"], "query": ["query"], "q": ["mask", "k", "rows",
              "cache"],
         "k": ["v", "cache", "rows"], "r": ["q"], "segments": ["different"], "different": ["segments"], "rows": ["row", "N"],
         "places": ["q", "cache"], "groups": ["W", "groups"], "residual": ["x"], "table": ["id", "row", "position", "ids"],
         "W": ["x", "groups"], "ids": ["id"], "mask": ["allowed"], "class_logits": ["target"], "positions": ["position",
              "x"], "frequencies": ["components"], "terms": ["terms"],
         "logits": ["target", "weights"], "V": ["target"]}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, component in COMPONENTS.items() if plain(component)])
def test_components(name):
    f, right = plain(COMPONENTS[name])
    f(**right)
    complaints = wrong_calls(f, right, aliases={n: [*WORDS.get(n, []), *right] for n in right})
    # whether a callable is a component shows only when it is called
    complaints = [
        c for c in complaints if not c.startswith(tuple(f"{n} = {kind}:" for n in FUNCTIONS for kind in ("function", "class")))
    ]
    assert not complaints, "\n".join(complaints)


L, T2 = np.zeros((3, 5)), np.zeros(3, int)
X2, M2 = np.zeros((2, 3)), np.ones((2, 3), bool)
WEIGHTS = {"weights": np.ones(3), "total": 3.0}
LOSSES = [
    (cross_entropy.cross_entropy, {"logits": L, "targets": T2, **WEIGHTS, "smoothing": 0.1, "ignore_index": -100}),
    (chunked.vocabulary_cross_entropy, {"x": np.zeros((3, 2)), "W": np.zeros((2, 5)), "b": np.zeros(5), "targets": T2,
         **WEIGHTS,
                                              "smoothing": 0.1, "cap": 2.0, "ignore_index": -100, "chunk": 2, "grad": True,
                                                   "factors": False}),
    (log_probs.log_probs, {"logits": L, "targets": T2, "temperature": 1.0, "ignore_index": -100}),
    (chunked_log_probs.vocabulary_log_probs, {"x": np.zeros((3, 2)), "W": np.zeros((2, 5)), "b": np.zeros(5), "targets": T2,
         "temperature": 1.0, "cap": 2.0,
                                      "ignore_index": -100, "chunk": 2, "entropy": True, "grad": True}),
    (distillation.distillation, {"logits": L, "teacher_logits": L, "temperature": 1.0, "divergence": "forward", "beta": 0.5,
                                 **WEIGHTS}),
    (chunked_distillation.vocabulary_distillation, {"x": np.zeros((3, 2)), "W": np.zeros((2, 5)), "b": np.zeros(5),
                                            "teacher_x": np.zeros((3, 4)), "teacher_W": np.zeros((4, 5)),
                                                 "teacher_b": np.zeros(5),
                                            "cap": 2.0, "teacher_cap": 3.0,
                                            "temperature": 1.0, "divergence": "forward", "beta": 0.5, **WEIGHTS, "chunk": 2,
                                            "grad": True}),
    (auxiliary.with_language_model, {"class_logits": L, "lm_logits": np.zeros((3, 2, 5)), "labels": T2,
         "targets": np.zeros((3, 2), int),
                                     "weight": 0.5, "total": 3, "lm_total": 6}),
    (balance.load_balancing_loss, {"logits": L, "choice": None, "fractions": np.ones(5), **WEIGHTS}),
    (balance.sequence_balance_loss, {"logits": L, "choice": T2[:, None], **WEIGHTS}),
    (balance.router_z_loss, {"logits": L, **WEIGHTS}),
    (balance.updated_bias, {"bias": np.zeros(5), "counts": np.arange(5), "rate": 0.1}),
    (contrastive.info_nce, {"a": L, "b": L, "targets": T2, "temperature": 1.0, **WEIGHTS}),
    (contrastive.symmetric_info_nce, {"a": L, "b": L, "temperature": 1.0, **WEIGHTS}),
    (policy.clipped_surrogate, {"log_probs": X2, "old_log_probs": X2, "advantages": X2, "clip": 0.2, "clip_high": 0.3,
                                "weights": np.ones((2, 3)), "total": 2}),
    (policy.clipped_value_loss, {"values": X2, "old_values": X2, "returns": X2, "clip": 0.2, "weights": np.ones((2, 3)),
         "total": 2}),
    (policy.k3_kl, {"log_probs": X2, "reference_log_probs": X2, "weights": np.ones((2, 3)), "total": 2}),
    (policy.grpo, {"log_probs": X2, "old_log_probs": X2, "advantages": X2[:, :1], "reference_log_probs": X2, "clip": 0.2,
                   "clip_high": 0.3, "beta": 0.1, "weights": np.ones((2, 3)), "total": 2}),
    (policy.policy_statistics, {"log_probs": X2, "old_log_probs": X2, "clip": 0.2, "clip_high": 0.3, "weights": np.ones((2, 3)),
                                "total": 2}),
    (policy.ratio_range, {"clip": 0.2, "clip_high": 0.3}),
    (preference.bradley_terry, {"chosen": np.zeros(3), "rejected": np.zeros(3), "margin": 0.1, **WEIGHTS}),
    (preference.dpo, {"chosen": np.zeros(3), "rejected": np.zeros(3), "reference_chosen": np.zeros(3),
                      "reference_rejected": np.zeros(3), "beta": 0.1, "smoothing": 0.1, **WEIGHTS}),
    (preference.ipo, {"chosen": np.zeros(3), "rejected": np.zeros(3), "reference_chosen": np.zeros(3),
                      "reference_rejected": np.zeros(3), "beta": 0.1, **WEIGHTS}),
    (preference.hinge, {"chosen": np.zeros(3), "rejected": np.zeros(3), "reference_chosen": np.zeros(3),
                        "reference_rejected": np.zeros(3), "beta": 0.1, **WEIGHTS}),
    (reference_free.orpo, {"chosen": -np.ones(3), "rejected": -np.ones(3), "lam": 0.1, **WEIGHTS}),
    (reference_free.simpo, {"chosen": -np.ones(3), "rejected": -np.ones(3), "beta": 0.1, "margin": 0.1, **WEIGHTS}),
    (feedback.kto, {"log_probs": np.zeros(3), "reference_log_probs": np.zeros(3), "desirable": np.ones(3, bool), "kl": 0.1,
                    "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0, **WEIGHTS}),
    (feedback.reference_point, {"log_probs": np.zeros(3), "reference_log_probs": np.zeros(3), **WEIGHTS}),
    (sequence_policy.sequence_surrogate, {"log_probs": X2, "old_log_probs": X2, "advantages": X2[:, :1], "clip": 0.2,
                                          "clip_high": 0.3, "weights": np.ones((2, 3)), "total": 2}),
    (sequence_policy.gspo, {"log_probs": X2, "old_log_probs": X2, "advantages": X2[:, :1], "reference_log_probs": X2, "clip": 0.2,
                            "clip_high": 0.3, "beta": 0.1, "weights": np.ones((2, 3)), "total": 2}),
    (sequence_policy.sequence_statistics, {"log_probs": X2, "old_log_probs": X2, "clip": 0.2, "clip_high": 0.3,
                                           "weights": np.ones((2, 3)), "total": 2}),
    (advantages.overlong_punishment, {"lengths": T2, "longest": 4, "room": 2}),
    (preference.implicit_reward, {"log_probs": np.zeros(3), "reference_log_probs": np.zeros(3), "beta": 0.1}),
    (preference.preference_statistics, {"chosen": np.zeros(3), "rejected": np.zeros(3), **WEIGHTS}),
    (regression.mean_squared_error, {"y": np.zeros(3), "targets": np.zeros(3), **WEIGHTS}),
    (regression.binary_cross_entropy, {"logits": np.zeros(3), "targets": np.zeros(3), **WEIGHTS, "ignore_index": -100}),
    (advantages.gae, {"rewards": X2, "values": X2, "mask": M2, "gamma": 1.0, "lam": 0.9}),
    (advantages.whiten, {"x": X2, "mask": M2, "shift": True}),
    (advantages.group_advantages, {"rewards": np.zeros(4), "group": 2, "scale": True, "eps": 1e-4}),
    (advantages.kl_rewards, {"scores": np.zeros(2), "log_probs": X2, "reference_log_probs": X2, "mask": M2, "beta": 0.1}),
    (advantages.adaptive_kl, {"coefficient": 0.1, "kl": 1.0, "target": 1.0, "horizon": 10, "samples": 2}),
]  # fmt: skip
FOLLOWING = {
    "logits": ["targets", "weights", "teacher_logits", "fractions", "choice"], "choice": ["fractions"], "fractions": ["choice"],
    "x": ["targets", "W", "mask", "teacher_x"], "lm_total": ["total"],
    "chosen": ["rejected"], "W": ["target", "b", "teacher_W"], "class_logits": ["lm_logits", "labels", "target"],
    "lm_logits": ["target", "logits"], "a": ["b", "targets"], "log_probs": ["old_log_probs", "reference_log_probs"],
    "values": ["old_values"], "y": ["targets"], "rewards": ["values", "reward"], "scores": ["log_probs"],
    "labels": ["target"], "teacher_x": ["teacher_W"], "old_log_probs": ["ratio"], "group": ["groups"],
    "targets": ["target"],
}  # fmt: skip


@pytest.mark.parametrize(("loss", "right"), LOSSES, ids=lambda v: getattr(v, "__name__", ""))
def test_losses(loss, right):
    loss(**right)
    complaints = wrong_calls(loss, right, aliases=FOLLOWING)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("chunk", [-1, 0, 1.5, None])
@pytest.mark.parametrize("loss", [f for f, right in LOSSES if "chunk" in right])
def test_a_chunk_of_nothing_is_refused(loss, chunk):
    """chunk=-1 once returned a loss of 0 and uninitialised gradients."""
    right = next(right for f, right in LOSSES if f is loss)
    with pytest.raises(ValueError, match=f"{loss.__name__}: chunk: expected an integer >= 1, got"):
        loss(**{**right, "chunk": chunk})


def test_numbers_out_of_range_are_refused():
    bad = float("nan"), float("inf"), -1.0
    for f, right in LOSSES:
        for name in {"temperature", "clip_high", "beta", "gamma", "lam", "eps", "smoothing"} & right.keys():
            for value in bad:
                with pytest.raises(ValueError, match=f"{name}: expected"):
                    f(**{**right, name: value})


def test_nothing_is_broadcast_that_must_fit():
    one = np.ones(1)
    with pytest.raises(ValueError, match="advantages: expected"):
        policy.clipped_surrogate(X2, old_log_probs=X2, advantages=one)
    with pytest.raises(ValueError, match="log_probs: expected"):
        policy.clipped_surrogate(np.zeros(3), old_log_probs=np.zeros(3), advantages=one)
    with pytest.raises(ValueError, match="rewards: expected"):
        advantages.gae(one, one, one > 0)
    with pytest.raises(ValueError, match="add: expected gradients of equal shape, got "):
        core.add({"W": np.zeros((2, 3))}, {"W": np.zeros((1, 3))})


EXPERTS = {"Wgate": np.zeros((6, 4, 2)), "Wup": np.zeros((6, 4, 2)), "Wdown": np.zeros((6, 2, 4))}
MIXTURE = {"p": {"router": {"W": np.zeros((4, 6))}, "experts": EXPERTS}, "x": np.zeros((2, 3, 4)),
           "choose": partial(routing.top_experts, top_k=2), "weigh": routing.softmax_weights,
           "expert": partial(gated_mlp, activation=silu), "shared": None}  # fmt: skip
CHOICE = {"logits": np.zeros((2, 6)), "top_k": 2, "bias": np.zeros(6), "groups": 3, "kept_groups": 2, "best": 1}
LATENT = {name: np.ones((2, 2)) for name in ("Wdkv", "Wkr", "Wuk", "Wuv", "Wo")} | {"Wq": np.ones((2, 4)), "kv_norm": np.ones(2)}
LAYERS = [
    (routing.top_experts, CHOICE),
    (routing.sigmoid_choice, CHOICE),
    (routing.expert_counts, {"choice": np.zeros((2, 3, 2), int), "experts": 6, "weights": np.ones((2, 3))}),
    (moe.moe, MIXTURE),
    (moe.moe_and_logits, MIXTURE),
    (mask.padding_mask, {"attention_mask": np.ones((2, 3), int)}),
    (mask.causal_mask, {"T": 2, "S": 3, "xp": np}),
    (mask.banded_mask, {"T": 2, "S": 3, "left": 1, "right": 0, "xp": np}),
    (mask.sliding_mask, {"T": 2, "S": 3, "window": 2, "xp": np}),
    (mask.prefix_mask, {"lengths": np.array([1, 2]), "T": 3}),
    (mask.packed_mask, {"documents": np.zeros((2, 3), int)}),
    (mask.Visible, {"T": 2, "S": 3, "causal": True, "window": 2, "padding": np.ones((1, 3), bool), "allowed": None, "xp": np}),
    (mask.Visible, {"T": 2, "S": 3, "causal": True, "prefix": np.array([2]), "xp": np}),
    (block.deep_norm_scales, {"layers": 3}),
    (mask.decoder_mask, {"T": 2, "S": 3, "attention_mask": np.ones((2, 3)), "window": 2, "xp": np}),
    (mask.encoder_mask, {"T": 3, "attention_mask": np.ones((2, 3)), "xp": np}),
    (memory.extended, {"mems": np.zeros((2, 1, 2, 4)), "entered": [np.zeros((2, 3, 4))], "longest": 2, "first": 1}),
    (position.counted_positions, {"ids": np.zeros((2, 3), int), "padding_id": 1}),
    (position.sinusoidal, {"positions": np.arange(3), "width": 4, "base": 1e4, "dtype": "float32"}),
    (relative_buckets.clipped_rows, {"T": 2, "S": 3, "span": 2}),
    (relative_buckets.bucketed_rows, {"T": 2, "S": 3, "buckets": 4, "longest": 9}),
    (relative_buckets.log_buckets, {"distances": np.arange(3), "buckets": 4, "longest": 9}),
    (relative_buckets.t5_buckets, {"distances": np.arange(3), "buckets": 4, "longest": 9, "bidirectional": True}),
    (relative_buckets.t5_rows, {"T": 2, "S": 3, "buckets": 4, "longest": 9, "bidirectional": False, "offset": 1}),
    (relative_shift.distance_encodings, {"T": 2, "S": 3, "width": 4, "xp": np, "clamp": -1, "base": 1e4, "dtype": "float32"}),
    (rope.rotary_tables, {"positions": np.arange(3), "frequencies": np.ones(2), "magnitude": 1.0, "dtype": "float32"}),
    (rope_scaling.rope_frequencies, {"width": 4, "base": 1e4}),
    (rope_scaling.linear_frequencies, {"width": 4, "base": 1e4, "factor": 2.0}),
    (rope_scaling.dynamic_frequencies, {"width": 4, "base": 1e4, "factor": 2.0, "original": 8, "length": 9}),
    (rope_scaling.yarn_frequencies, {"width": 4, "base": 1e4, "factor": 2.0, "original": 8, "beta_fast": 32.0, "beta_slow": 1.0,
                                     "truncate": True}),
    (rope_scaling.yarn_magnitude, {"factor": 2.0, "mscale": 1.0, "mscale_all_dim": 1.0}),
    (rope_scaling.yarn_score_scale, {"factor": 2.0, "mscale_all_dim": 1.0}),
    (rope_scaling.longrope_frequencies, {"width": 4, "base": 1e4, "factors": [1.0, 2.0]}),
    (rope_scaling.longrope_magnitude, {"factor": 2.0, "original": 8}),
    (rope_scaling.llama3_frequencies, {"width": 4, "base": 1e4, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                       "original": 8}),
    (alibi.alibi_slopes, {"heads": 3}),
    (alibi.alibi, {"positions": np.arange(3), "slopes": np.ones(2), "dtype": "float32"}),
    (cache.Cache.empty, {"layers": 1, "batch": 1, "kv_heads": 1, "capacity": 2, "width": 2, "dtype": "float32", "windows": (2,),
                         "xp": np}),
    (cache.appended, {"x": np.zeros((1, 1, 1, 2)), "cache": ({"c": np.zeros((1, 1, 3, 2))}, 1, None), "name": "c"}),
    (cache_size.numbers_per_token, {"layers": 2, "kv_heads": 1, "width": {"c": 4, "k_r": 2}}),
    (cache_size.cache_bytes, {"layers": 1, "batch": 1, "kv_heads": 1, "capacity": 30, "width": 2, "dtype": "f2",
                              "windows": (2,)}),
    (cache.extend, {"x": np.zeros((1, 1, 1, 2)), "buffer": np.zeros((1, 1, 3, 2)), "start": 1}),
    (cache.roll, {"x": np.zeros((1, 1, 1, 2)), "buffer": np.zeros((1, 1, 18, 2)), "start": 1, "window": 3}),
    (latent.latent_attention, {"p": LATENT, "x": np.zeros((1, 1, 2)), "heads": 1, "rotary": None, "norm": norm.rmsnorm,
                               "cache": ({"c": np.zeros((1, 1, 2, 2)), "k_r": np.zeros((1, 1, 2, 2))}, 1, None), "mask": None,
                               "scale": 1.0, "rate": 0.1, "key": np.zeros(1, "uint64")}),
    (stream_views.stream_views, {"shape": (2, 3, 3), "band": np.ones((3, 3), bool), "attention_mask": np.ones((2, 3)),
                                 "perm_mask": np.zeros((2, 3, 3)), "target_mapping": np.eye(3)[None].repeat(2, 0),
                                 "token_type_ids": np.zeros((2, 3), int), "xp": np}),
    (clip.global_norm, {"tree": {"W": X2}}),
    (clip.clip_by_global_norm, {"tree": {"W": X2}, "limit": 1.0}),
    (clip.clip_scale, {"norm": np.float64(1.0), "limit": 1.0}),
    (core.tree_map, {"f": lambda a: a, "tree": {"W": X2}}),
    (core.add, {"a": {"W": X2}, "b": {"W": X2}}),
    (core.flatten, {"tree": {"W": X2}}),
    (core.unflatten, {"leaves": {"W": X2}, "like": {"W": X2}}),
    (core.complete, {"partial": {"W": X2}, "like": {"W": X2}}),
    (core.unbroadcast, {"gradient": X2, "shape": (1, 3)}),
    (core.checkpoint, {"f": np.negative}),
    (core.shards, {"batch": {"x": X2}, "count": 2}),
    (core.map_threads, {"f": str, "items": ["a", "b"], "workers": 2}),
    (core.map_shards, {"f": len, "batch": {"x": X2}, "workers": 2}),
    (core.stack, {"layer": lambda p, x: (x, lambda dx: (None, dx)), "ps": [{}, {}], "x": X2, "uses": [0, 1], "each": None,
                  "options": core.StackOptions()}),
    (core.StackOptions, {"grad": True, "once": False, "checkpointing": 0, "frozen": 0, "on_gradient": None}),
]  # fmt: skip
RELATED = {
    "limit": ["clip"], "ps": ["uses"], "count": ["shards"], "T": ["mask", "padding", "S:"], "S": ["T", "padding"],
    "attention_mask": ["padding"], "low_freq_factor": ["RoPE"], "start": ["cache"], "tree_map": ["f"],
    "tree": ["W", "array", "global_norm", "a:"], "leaves": ["W"], "like": ["leaves", "unflatten", "complete", "array"],
    "partial": ["complete"], "a": ["add"], "b": ["add"], "batch": ["batch"], "workers": ["shards", "count"],
    "frequencies": ["components"], "gradient": ["unbroadcast"], "shape": ["unbroadcast", "attention_mask"],
    "width": ["RoPE", "even"], "f": ["function"], "layer": ["function"], "each": ["function"], "on_gradient": ["function"],
    "logits": ["bias"], "choice": ["weights"], "longest": ["buckets"],
    "buckets": ["span"], "causal": ["window"], "original": ["RoPE"],
}  # fmt: skip


@pytest.mark.parametrize(("f", "right"), LAYERS, ids=lambda v: getattr(v, "__name__", ""))
def test_other_functions(f, right):
    f(**right)
    complaints = wrong_calls(f, right, aliases=RELATED)
    complaints = [
        c for c in complaints if not c.startswith(tuple(f"{n} = {kind}:" for n in FUNCTIONS for kind in ("function", "class")))
    ]
    assert not complaints, "\n".join(complaints)


def test_expects_refuses_each_kind():
    @expects("p {W b?}, x (..., D), ids (...) integers, y (B or 1, 2) or None; 0 <= rate < 1, whole n >= 1 or None, "
             "flag on, function g")  # fmt: skip
    def f(p, x, *, ids, y=None, rate=0.5, n=None, on=True, g=len):
        return x

    right = {"p": {"W": 1}, "x": X2, "ids": np.zeros(2, int), "y": np.zeros((1, 2)), "rate": 0.5, "n": 2, "on": True, "g": len}
    assert f(**right) is f(**right) is X2 and f.__name__ == "f"
    for _ in range(2):  # rejected values are not cached
        bad_values = {
            "p": {"b": 1},
            "x": X2[0, 0],
            "ids": np.zeros(3, int),
            "y": np.zeros((1, 3)),
            "rate": 1,
            "n": 0,
            "on": 1,
            "g": 3,
        }
        for name, bad in bad_values.items():
            with pytest.raises(ValueError, match=rf"\Af: {name}: expected "):
                f(**{**right, name: bad})
    with pytest.raises(ValueError, match="f: p: expected a dict with W, b. .* alone, got 'c'"):
        f(**{**right, "p": {"W": 1, "c": 2}})
    assert wrong_values() and complaint(lambda: f(**right)) is None
