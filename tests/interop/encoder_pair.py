# ruff: noqa: E402 - imports follow importorskip
"""Encoders: a tiny transformers model with random weights, the same model loaded by us, and their comparison.

Tolerance: see pair.py.  A new family needs one row in FAMILIES; test_encoders.py then covers it.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


from tests.interop.pair import as_torch, assert_same, float64, named_gradients, random_model, with_ours
from tinyplm.families import albert, bert, camembert, deberta, deberta_v2, distilbert, roberta, xlm_roberta, xlnet
from tinyplm.hub import folders as hub

# ours: theirs
OUTPUTS = {"hidden": ("last_hidden_state",), "logits": ("prediction_logits", "logits"), "pooled": ("pooler_output",),
           "pair_logits": ("seq_relationship_logits", "sop_logits"), "start_logits": ("start_logits",),
           "end_logits": ("end_logits",)}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Family:
    """Our module, transformers' config class, a tiny config by hub names, changes that make 3 heads of width 10, how our tests
    pad, and names of parameters that do not affect the outputs of a single token."""

    module: ModuleType
    config: type
    tiny: dict[str, Any]
    odd: dict[str, Any]
    padding_id: int | None = 0  # transformers drops the embedding gradient of this row, so only padding uses it
    classes: dict[str, str] = dataclasses.field(default_factory=dict)  # task: transformers' class, where it differs from ours
    empty: bool = False  # padding attends to nothing; transformers averages there, so outputs that read it are not compared
    one_token: tuple[str, ...] = ()
    # input: parts of the names of parameters that do not affect the outputs when it is not passed
    unused: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


# Positions start after the padding id, so there is room for 12.
_ROBERTA = {"vocab_size": 41, "max_position_embeddings": 14, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
            "num_attention_heads": 4, "type_vocab_size": 2, "pad_token_id": 1}  # fmt: skip

# Dropout rates stay at 0.1: eval() on one side and key=None on the other must switch it off.
FAMILIES = {
    "bert": Family(
        bert, transformers.BertConfig,
        {"vocab_size": 41, "max_position_embeddings": 12, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
         "num_attention_heads": 4, "type_vocab_size": 2},
        odd={"hidden_size": 30, "num_attention_heads": 3},
    ),
    "roberta": Family(
        roberta, transformers.RobertaConfig, _ROBERTA, odd={"hidden_size": 30, "num_attention_heads": 3}, padding_id=1,
    ),
    "xlm-roberta": Family(
        xlm_roberta, transformers.XLMRobertaConfig, _ROBERTA, odd={"hidden_size": 30, "num_attention_heads": 3}, padding_id=1,
    ),
    "camembert": Family(
        camembert, transformers.CamembertConfig, _ROBERTA, odd={"hidden_size": 30, "num_attention_heads": 3}, padding_id=1,
    ),
    # Two groups of two blocks each; the first group serves two layers, the second one.
    "albert": Family(
        albert, transformers.AlbertConfig,
        {"vocab_size": 41, "max_position_embeddings": 12, "embedding_size": 20, "hidden_size": 32, "intermediate_size": 44,
         "num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2, "num_attention_heads": 4, "type_vocab_size": 2},
        odd={"hidden_size": 30, "num_attention_heads": 3},
    ),
    "distilbert": Family(
        distilbert, transformers.DistilBertConfig,
        {"vocab_size": 41, "max_position_embeddings": 12, "dim": 32, "hidden_dim": 44, "n_layers": 2, "n_heads": 4},
        odd={"dim": 30, "n_heads": 3},
    ),
    "deberta": Family(
        deberta, transformers.DebertaConfig,
        {"vocab_size": 41, "max_position_embeddings": 12, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
         "num_attention_heads": 4, "type_vocab_size": 2, "relative_attention": True, "max_relative_positions": 4,
         "pos_att_type": ["c2p", "p2c"]},
        odd={"hidden_size": 30, "num_attention_heads": 3}, empty=True,
        one_token=("self.q_bias", "self.pos_proj", "self.pos_q_proj", "rel_embeddings"),
    ),
    "deberta-v2": Family(
        deberta_v2, transformers.DebertaV2Config,
        {"vocab_size": 41, "max_position_embeddings": 12, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
         "num_attention_heads": 4, "type_vocab_size": 2, "relative_attention": True, "position_buckets": 4,
         "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3,
         "conv_act": "gelu"},
        odd={"hidden_size": 30, "num_attention_heads": 3}, empty=True, one_token=("rel_embeddings", "encoder.LayerNorm"),
    ),
    "xlnet": Family(
        xlnet, transformers.XLNetConfig,
        {"vocab_size": 41, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 44},
        odd={"d_model": 30, "n_head": 3}, padding_id=None,
        unused={"token_type_ids": ("r_s_bias", "seg_embed"), "target_mapping": ("mask_emb",)},
    ),
}  # fmt: skip

CASES = [(name, task) for name, family in FAMILIES.items() for task in family.module.TASKS]


def peer(family, task, seed=0, **changes):
    """transformers' tiny model for the task."""
    row = FAMILIES[family]
    architecture = getattr(transformers, row.classes.get(task, row.module.TASKS[task].architecture))
    labels = {"num_labels": 2 if task == "question_answering" else 3}  # transformers' span head has num_labels outputs
    config = row.config(**{**row.tiny, **labels, **changes}, attn_implementation="eager")
    extra = {"add_pooling_layer": False} if task == "body" and "pooled" in row.module.TASKS else {}
    return random_model(architecture, config, seed, **extra)


def pair(family, task, folder, **changes):
    theirs, ours = with_ours(peer(family, task, **changes), folder)
    assert ours.task == task
    return theirs, ours


def inputs_for(family, task, *, B=3, T=7, side="right", seed=1, types=True, choices=2):
    """input_ids, attention_mask and token_type_ids; sample b has b padded positions (at most T - 1)."""
    rng = np.random.default_rng(seed)
    row = FAMILIES[family]
    shape = (B, choices, T) if task == "multiple_choice" else (B, T)
    ids = rng.integers(5, row.tiny["vocab_size"], shape)
    inputs = {"input_ids": ids}
    if side != "none":
        padded = np.minimum(np.arange(np.prod(shape[:-1])), T - 1)[:, None]
        mask = (np.arange(T) < T - padded) if side == "right" else (np.arange(T) >= padded)
        inputs["attention_mask"] = mask.reshape(shape).astype(np.int64)
        # Not where padding has an embedding gradient (transformers drops it): on the left as [CLS], in a span as a possible end.
        if row.padding_id is not None and side == "right" and task != "question_answering":
            inputs["input_ids"] = np.where(inputs["attention_mask"] == 1, ids, row.padding_id)
    if types and "token_type_ids" in row.module.INPUTS:
        inputs["token_type_ids"] = rng.integers(0, row.tiny.get("type_vocab_size", 2), shape)
    return inputs


def compare(theirs, ours, inputs, *, others=None, seed=1, exempt=()):
    """All outputs of the task, and all parameter gradients under random cotangents and under our loss.

    Padding rows are not compared, and their cotangents are zero.  exempt: hub names of parameters that do not affect these
    outputs (their exact gradients are zero; here they are 1e-12 of the largest or less).
    """
    rng = np.random.default_rng(seed)
    with float64():
        output = theirs(**as_torch(**inputs), **(others or {}))
    outputs, backward = ours(**inputs)
    mask = inputs.get("attention_mask")
    cotangents, total = {}, 0
    for name, ourvalue in outputs.items():
        key = next((n for n in OUTPUTS[name] if n in output), None)
        if key is None:
            continue  # hidden states returned alongside a head's outputs
        theirvalue = output[key]
        rows = np.ones(ourvalue.shape, dtype=bool)
        if mask is not None and ourvalue.shape[:2] == mask.shape and mask.ndim == 2:
            rows = np.broadcast_to((mask == 1).reshape(mask.shape + (1,) * (ourvalue.ndim - 2)), ourvalue.shape)
        assert ourvalue.shape == tuple(theirvalue.shape), name
        assert_same(name, ourvalue[rows], theirvalue.detach().numpy()[rows])
        cotangents[name] = rng.normal(size=ourvalue.shape) * rows
        total = total + (theirvalue * torch.from_numpy(cotangents[name])).sum()
    assert set(cotangents) >= set(outputs) - {"hidden"}
    total.backward(retain_graph=True)
    compare_gradients(ours, backward(cotangents), theirs, (*exempt, *unused(ours, inputs)))
    return output, outputs


def unused(ours, inputs):
    """Parts of the names of parameters that these inputs do not use."""
    return [part for name, parts in FAMILIES[ours.config.MODEL_TYPE].unused.items() if name not in inputs for part in parts]


def full_name(ours, name):
    """Names in transformers' bare model lack the prefix; XLM-RoBERTa's tied table goes by its head's name."""
    name = ours.family.TIED.get(name, name)
    return ours.family.PREFIX + name if ours.task in ("body", "pooled") else name


def compare_gradients(ours, dparams, theirs, exempt=()):
    """Every parameter's gradient; the exact gradient of a key bias is zero, since softmax cancels it."""
    gradients = hub.gradients_by_hub_name(ours, dparams)
    expected = {full_name(ours, name): g for name, g in named_gradients(theirs).items()}
    assert set(gradients) == set(expected)
    scale = max(np.abs(g).max() for g in expected.values())
    for name, g in expected.items():
        if any(f".{part}" in f".{name}" for part in (*exempt, "key.bias", "k_lin.bias")):
            assert max(np.abs(g).max(), np.abs(gradients[name]).max()) < 1e-12 * scale, name
        else:
            assert np.any(g), f"{name}: a zero gradient proves nothing"
            assert_same(f"the gradient of {name}", gradients[name], g)


def random_targets(ours, outputs, inputs, seed=2):
    """{output: targets}, some of them -100."""
    rng = np.random.default_rng(seed)
    targets = {}
    for name, value in outputs.items():
        if name in ("hidden", "pooled"):
            continue
        targets[name] = rng.integers(0, value.shape[-1], value.shape[:-1])
        if value.ndim == 3:
            targets[name][rng.random(value.shape[:-1]) < 0.5] = -100
            targets[name][0, 0] = 1
            if "attention_mask" in inputs:
                targets[name][inputs["attention_mask"] == 0] = -100
    return targets


def compare_loss(theirs, ours, inputs, *, seed=2, exempt=()):
    """Our task loss and its gradients against torch's cross-entropy of their outputs."""
    with float64():
        output = theirs(**as_torch(**inputs))
    outputs, _ = ours(**inputs, grad=False)
    targets = random_targets(ours, outputs, inputs, seed)
    expected = 0
    for name, t in targets.items():
        theirvalue = output[next(n for n in OUTPUTS[name] if n in output)]
        share = 0.5 if name in ("start_logits", "end_logits") else 1.0
        expected = expected + share * torch.nn.functional.cross_entropy(
            theirvalue.reshape(-1, theirvalue.shape[-1]), torch.from_numpy(t).reshape(-1)
        )
    expected.backward()
    loss, back = ours.loss(targets=targets, **inputs)
    assert_same("loss", loss, expected.detach().numpy())
    compare_gradients(ours, back(1.0), theirs, (*exempt, *unused(ours, inputs)))
