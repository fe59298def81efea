# ruff: noqa: E402 - imports follow importorskip
"""DeBERTa beyond what test_encoders.py compares for every family: all settings, bucket tables, the mask decoder, files."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position, make_log_bucket_position

import tinyplm
from tests.interop.encoder_pair import FAMILIES, compare, compare_loss, inputs_for, pair, peer
from tests.interop.pair import as_torch, assert_same, float64
from tinyplm.core import flatten
from tinyplm.families import deberta_v2
from tinyplm.layers.relative_buckets import bucketed_rows, clipped_rows, log_buckets

NO_RELATIVE = {"relative_attention": False}
KINDS = {"both": ["c2p", "p2c"], "other order": ["p2c", "c2p"], "c2p": ["c2p"], "p2c": ["p2c"], "none": []}
APART = {"share_att_key": False}  # positions have their own projections
CLIPPED = {"position_buckets": -1, "max_relative_positions": 3}

SETTINGS = {
    **{f"v1, {kind}": ("deberta", {"pos_att_type": terms}) for kind, terms in KINDS.items()},
    **{f"v2, {kind}": ("deberta-v2", {"pos_att_type": terms}) for kind, terms in KINDS.items()},
    **{f"v2, apart, {kind}": ("deberta-v2", {"pos_att_type": terms, **APART}) for kind, terms in KINDS.items()},
    "v1, as a string": ("deberta", {"pos_att_type": "c2p|p2c"}),
    "v1, no relative attention": ("deberta", NO_RELATIVE),
    "v1, the window is the context": ("deberta", {"max_relative_positions": -1}),
    "v1, the head of pretraining": ("deberta", {"legacy": False}),
    "v1, as released": ("deberta", {"position_biased_input": False, "type_vocab_size": 0}),
    "v1, narrow embeddings": ("deberta", {"embedding_size": 20}),
    "v2, no relative attention": ("deberta-v2", NO_RELATIVE),
    "v2, clipped": ("deberta-v2", CLIPPED),
    "v2, clipped, apart": ("deberta-v2", {**CLIPPED, **APART}),
    "v2, more buckets than distances": ("deberta-v2", {"position_buckets": 20}),
    "v2, no norm": ("deberta-v2", {"norm_rel_ebd": "none"}),
    "v2, no convolution": ("deberta-v2", {"conv_kernel_size": 0}),
    "v2, five in groups, tanh": ("deberta-v2", {"conv_kernel_size": 5, "conv_groups": 4, "conv_act": "tanh"}),
    "v2, the head of pretraining": ("deberta-v2", {"legacy": False}),
    "v2, as released": ("deberta-v2", {"position_biased_input": False, "type_vocab_size": 0, "attention_head_size": 8}),
    "v2, narrow embeddings": ("deberta-v2", {"embedding_size": 20}),
}
# What affects no output: embeddings that no term uses, and their norm.
UNUSED = ("rel_embeddings", "encoder.LayerNorm")


def _exempt(changes):
    return UNUSED if changes.get("pos_att_type") == [] or changes == NO_RELATIVE else ()


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting(tmp_path, setting):
    """Outputs, the loss and all gradients; the sequences (7 of at most 12) are longer than the windows and exact buckets."""
    family, changes = SETTINGS[setting]
    theirs, ours = pair(family, "masked_lm", tmp_path, **changes)
    inputs = inputs_for(family, "masked_lm")
    compare(theirs, ours, inputs, exempt=_exempt(changes))
    compare_loss(theirs, ours, inputs, exempt=_exempt(changes))


@pytest.mark.parametrize(("family", "changes"), [("deberta", {}), ("deberta-v2", {}), ("deberta-v2", CLIPPED)])
@pytest.mark.parametrize("T", [1, 2, 12])
def test_lengths(tmp_path, family, changes, T):
    theirs, ours = pair(family, "token_classification", tmp_path, **changes)
    alone = ("self.q", "self.key", "self.pos", *FAMILIES[family].one_token) if T == 1 else ()
    compare(theirs, ours, inputs_for(family, "token_classification", T=T), exempt=alone)


@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
def test_without_absolute_positions_there_is_no_longest_sequence(tmp_path, family):
    """30 tokens, although max_position_embeddings is 12."""
    theirs, ours = pair(family, "body", tmp_path, position_biased_input=False)
    assert ours.config.context is None
    compare(theirs, ours, inputs_for(family, "body", T=30))


@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
def test_positions_and_embeddings_given(tmp_path, family):
    theirs, ours = pair(family, "body", tmp_path, embedding_size=20)
    rng = np.random.default_rng(0)
    embeds, positions = rng.normal(size=(2, 5, 20)), rng.integers(0, 12, (2, 5))
    given = torch.from_numpy(embeds).requires_grad_()
    with float64():
        expected = theirs(inputs_embeds=given, position_ids=torch.from_numpy(positions))[0]
    outputs, backward = ours(inputs_embeds=embeds, position_ids=positions)
    assert_same("hidden", outputs["hidden"], expected.detach().numpy())
    cotangent = rng.normal(size=expected.shape)
    expected.backward(torch.from_numpy(cotangent))
    assert_same("the gradient of inputs_embeds", backward({"hidden": cotangent})[1], given.grad.numpy())


@pytest.mark.parametrize(("family", "task"), [("deberta", "sequence_classification"), ("deberta-v2", "multiple_choice")])
def test_the_poolers_activation(tmp_path, family, task):
    theirs, ours = pair(family, task, tmp_path, pooler_hidden_act="tanh")
    compare(theirs, ours, inputs_for(family, task))


# -------------------------------------------------------------------------------------------------------- bucket tables


@pytest.mark.parametrize("buckets", [2, 3, 8, 31, 32, 100, 256, 257, 320])
@pytest.mark.parametrize("longest", [64, 127, 512, 1024])
def test_buckets(buckets, longest):
    """In float32 on both sides, distance by distance, including beyond the longest; the published models have 256 and 512."""
    if buckets // 2 >= longest - 1:
        with pytest.raises(ValueError, match="log_buckets"):
            log_buckets(np.arange(3), buckets=buckets, longest=longest)
        return
    d = np.arange(-1100, 1101)
    theirs = make_log_bucket_position(torch.from_numpy(d), buckets, longest).long().numpy()
    np.testing.assert_array_equal(log_buckets(d, buckets=buckets, longest=longest), theirs)


@pytest.mark.parametrize("T", [1, 5, 600])
def test_rows(T):
    """The table that the attention reads: delta[t, s] = rows[t - s + T]."""
    places = np.arange(T)[:, None] - np.arange(T) + T
    x = torch.zeros(1, T, 1)
    for rows, span, relative in (
        (bucketed_rows(T, T, buckets=256, longest=512), 256, build_relative_position(x, x, 256, 512)),
        (clipped_rows(T, T, span=512), 512, build_relative_position(x, x)),
    ):
        expected = torch.clamp(relative[0] + span, 0, 2 * span - 1).numpy()
        np.testing.assert_array_equal(rows[places], expected)


# ------------------------------------------------------------------------------------------- the enhanced mask decoder


@pytest.mark.parametrize("changes", [{}, APART, CLIPPED, {"conv_kernel_size": 0, "num_hidden_layers": 3}])
def test_decoder_is_their_last_layer_applied_to_queries(tmp_path, changes):
    """transformers has no such decoder, but its v2 layers accept separate queries: its last layer is applied twice here."""
    theirs, ours = pair("deberta-v2", "body", tmp_path, **changes)
    inputs = inputs_for("deberta-v2", "body")
    rng = np.random.default_rng(0)
    table = rng.normal(size=(12, 32))
    positions = torch.from_numpy(table).requires_grad_()
    with float64():
        output = theirs(**as_torch(**inputs), output_hidden_states=True)
        h = output.hidden_states[-2]
        query = h + positions[: h.shape[1]]
        encoder = theirs.encoder
        mask = encoder.get_attention_mask(torch.from_numpy(inputs["attention_mask"]))
        relative = {"relative_pos": encoder.get_rel_pos(h), "rel_embeddings": encoder.get_rel_embedding()}
        for _ in range(2):
            query, _ = encoder.layer[-1](h, mask, query_states=query, **relative)
    p = {**ours.params["body"], "decoder_positions": table}
    hidden, backward = deberta_v2.decoder_body(p, config=ours.config, **ours.inputs(**inputs))
    real = inputs["attention_mask"] == 1
    assert_same("hidden", hidden[real], query.detach().numpy()[real])
    cotangent = rng.normal(size=hidden.shape) * real[..., None]
    query.backward(torch.from_numpy(cotangent))
    dp, _ = backward(cotangent)
    assert_same("the positions' gradient", dp.pop("decoder_positions"), positions.grad.numpy())
    gradients = tinyplm.hub.folders.gradients_by_hub_name(ours, {"body": dp})
    for name, parameter in theirs.named_parameters():
        assert_same(f"the gradient of {name}", gradients["deberta." + name], parameter.grad.numpy())


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("task", ["body", "sequence_classification", "masked_lm"])
def test_a_file_of_pretraining(tmp_path, task):
    """Microsoft's files also hold the decoder's positions and both pretraining heads; these are skipped where unused."""
    theirs = peer("deberta-v2", "body", position_biased_input=False, type_vocab_size=0)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    rng = np.random.default_rng(0)
    D, V = 32, 41
    head = {"dense.weight": (D, D), "dense.bias": (D,), "LayerNorm.weight": (D,), "LayerNorm.bias": (D,), "bias": (V,)}
    others = {f"lm_predictions.lm_head.{name}": rng.normal(size=shape) for name, shape in head.items()}
    others |= {"mask_predictions.dense.weight": rng.normal(size=(D, D)), "mask_predictions.classifier.bias": rng.normal(size=1),
               "deberta.embeddings.position_embeddings.weight": rng.normal(size=(12, D))}  # fmt: skip
    save_file({f"deberta.{name}": t for name, t in tensors.items()} | others, tmp_path / "model.safetensors")
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "legacy": task != "masked_lm"}))
    ours = tinyplm.load(tmp_path, task=task)
    assert "positions" not in ours.params["body"]
    if task == "masked_lm":  # its own head, which the config selects
        assert not ours.fresh
        np.testing.assert_array_equal(ours.params["head"]["lm_head"]["W"], others["lm_predictions.lm_head.dense.weight"].T)
        np.testing.assert_array_equal(ours.params["head"]["bias"], others["lm_predictions.lm_head.bias"])
    else:
        assert all(name.startswith("head.") for name in ours.fresh)
        assert set(ours.fresh) == set(flatten({"head": ours.params["head"]}))
    inputs = inputs_for("deberta-v2", "body", types=False, side="none")
    with float64():
        expected = theirs(**as_torch(**inputs))[0].detach().numpy()
    assert_same("hidden", ours(**inputs, grad=False)[0]["hidden"], expected)
