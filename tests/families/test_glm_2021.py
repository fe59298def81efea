"""The original GLM's own: the authors' numbers, two positions a token, published counts, two families of one model_type;
behaviour shared with other families is in tests/models, prefixes of all decoders in tests/models/test_prefix.py."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinyplm
from reference.models.glm import glm as formula
from tests.laws import relative_error
from tests.support.families import batch, tiny
from tests.support.sizes import assert_counts
from tests.support.vectors import CLOSE, assert_files, folder_of, vector, weights_of
from tinyplm.core import add, flatten, tree_map
from tinyplm.families import glm, glm_2021
from tinyplm.hub import gradients_by_hub_name
from tinyplm.models.config import from_dict, to_dict
from tinyplm.objectives import BlankTokens, restore_blanks

INPUTS = ("input_ids", "position_ids", "prefix_lengths")
# The README of the released code: 110M, 335M, 410M, 515M, 2B and 10B.
COUNTS = {
    "glm-base": 109_338_624,
    "glm-large": 334_688_256,
    "glm-410m": 410_265_600,
    "glm-515m": 514_632_960,
    "glm-2b": 1_920_122_880,
    "glm-10b": 9_880_682_496,
}


def infilled(B=2, T=7, seed=0, **changes):
    """(model, inputs): position pairs and prefixes of two lengths."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 7, (B, 2, T))
    return tiny("glm_2021", **changes), {
        "input_ids": rng.integers(0, 11, (B, T)), "position_ids": pairs, "prefix_lengths": np.array([3, 5, 0, T])[:B],
    }  # fmt: skip


def test_published_sizes_have_the_published_counts():
    assert_counts(glm_2021, COUNTS)


# ---- the authors' numbers


def test_the_authors_numbers(tmp_path):
    """Logits, loss and all gradients of two samples of blank infilling, one of them with padding at the end."""
    v = vector("glm-2021")
    model = tinyplm.load(folder_of(v, tmp_path / "theirs"))
    inputs, targets = {name: v[name] for name in INPUTS}, {"logits": v["labels"]}
    assert relative_error(model(**inputs, grad=False)[0]["logits"], v["logits"]) < CLOSE
    loss, backward = model.loss(**inputs, targets=targets)
    assert abs(loss - v["loss"]) < CLOSE * v["loss"]
    gradients = gradients_by_hub_name(model, backward(1.0))
    assert gradients.keys() == v["gradients"].keys()
    for hub, gradient in v["gradients"].items():
        assert gradients[hub].shape == gradient.shape and relative_error(gradients[hub], gradient) < CLOSE, hub
    assert_files(model, v, tmp_path)


def test_the_authors_memories(tmp_path):
    """Part A, then part B token by token: our cache gives what their memories of hidden states give."""
    v = vector("glm-2021")
    model = tinyplm.load(folder_of(v, tmp_path / "theirs"))
    for row, A in enumerate(v["prefix_lengths"].tolist()):
        ids, pairs = v["input_ids"][row : row + 1], v["position_ids"][row : row + 1]
        cache, found = model.empty_cache(1), []
        for start, stop, prefix in [(0, A, [A]), *((t, t + 1, None) for t in range(A, ids.shape[1]))]:
            own = {"input_ids": ids[:, start:stop], "position_ids": pairs[..., start:stop], "prefix_lengths": prefix}
            outputs, _ = model(**own, cache=cache, grad=False)
            cache = outputs["cache"]
            found.append(outputs["logits"])
        assert relative_error(np.concatenate(found, axis=1), v["memory_logits"][row : row + 1]) < CLOSE


def test_the_formula_from_the_published_tensors():
    v = vector("glm-2021")
    logits = formula(weights_of(v), *(v[name] for name in INPUTS), layers=2, heads=2)
    assert relative_error(logits, v["logits"]) < CLOSE


def test_the_vector_is_a_sample_of_the_objective():
    """Its text comes back from the two parts."""
    v, tokens = vector("glm-2021"), BlankTokens(1, 2, 3, 0, document_mask_id=5, first=(6,))
    for row, text in enumerate([[10, 11, 12, 13, 14, 15], [7, 8, 9, 16, 17, 18, 7]]):
        prefix = int(v["prefix_lengths"][row])
        n = prefix + int((v["labels"][row] != -100).sum())
        ids, pairs = v["input_ids"][row, :n], v["position_ids"][row, :, :n]
        assert restore_blanks(ids, pairs, prefix=prefix, tokens=tokens).tolist() == text


# ---- two positions


def test_one_position_has_0_as_the_second():
    model, inputs = infilled()
    one = inputs["position_ids"][:, 0] % 6
    pairs = np.stack([one, 0 * one], axis=1)
    ids = inputs["input_ids"][:, :6]
    expected = model(ids, position_ids=pairs[..., :6], grad=False)[0]["logits"]
    assert np.array_equal(model(ids, position_ids=one[:, :6], grad=False)[0]["logits"], expected)
    first = np.stack([np.arange(6), np.zeros(6, int)])[None].repeat(2, axis=0)
    assert np.array_equal(model(ids, grad=False)[0]["logits"], model(ids, position_ids=first, grad=False)[0]["logits"])


def test_with_two_positions_a_sequence_may_be_longer_than_the_table():
    model, inputs = infilled(T=14)
    assert model.config.context == 6 and model.config.position_rows == 7 and model.config.cache_context == 14
    assert model.empty_cache(1).capacity == 14
    with pytest.raises(ValueError, match="capacity: expected an integer from 1 to 14, got 15"):
        model.empty_cache(1, 15)
    assert model(**inputs, grad=False)[0]["logits"].shape == (2, 14, 11)
    with pytest.raises(ValueError, match=r"input_ids: expected at most 6 tokens, the context, got 14"):
        model(inputs["input_ids"])
    with pytest.raises(ValueError, match=r"input_ids: expected at most 14 tokens"):
        model(**infilled(T=15)[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_ids": np.zeros((2, 3, 7), int)}, "position_ids: expected shape (7,) or (2, 7) or (2, 2, 7), got (2, 3, 7)"),
        ({"position_ids": np.full((2, 2, 7), 7)}, "position_ids: expected integers from 0 to 6, got 7"),
        ({"prefix_lengths": [1]}, "prefix_lengths: expected shape (2,), got (1,)"),
        ({"prefix_lengths": [1, 8]}, "prefix_lengths: expected integers from 0 to 7, got 8"),
        ({"prefix_lengths": [0.5, 1]}, "prefix_lengths: expected integers, got"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused_in_one_line(changes, message):
    model, inputs = infilled()
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        model(**{**inputs, **changes})
    assert "\n" not in str(error.value)


def test_other_families_take_one_position():
    with pytest.raises(ValueError, match=re.escape("position_ids: expected shape (5,) or (3, 5), got (3, 2, 5)")):
        tiny("gpt2")(batch()[0], position_ids=np.zeros((3, 2, 5), int))


# ---- files


def test_two_families_share_a_model_type(tmp_path):
    """A file with num_layers is the original's, one with num_hidden_layers that of GLM-4."""
    model = tiny("glm_2021")
    tinyplm.save(model, tmp_path / "old")
    tinyplm.save(tiny("glm"), tmp_path / "new")
    settings = {name: json.loads((tmp_path / name / "config.json").read_text()) for name in ("old", "new")}
    assert settings["old"]["model_type"] == settings["new"]["model_type"] == "glm"
    assert "num_layers" in settings["old"] and "num_layers" not in settings["new"]
    assert tinyplm.load(tmp_path / "old").family is glm_2021 and tinyplm.load(tmp_path / "new").family is glm
    assert from_dict(glm_2021.Config, to_dict(model.config)) == model.config
    assert tinyplm.create("glm_2021", settings["old"]).config == model.config


def test_files_of_the_classes_with_a_head_have_a_prefix(tmp_path):
    model = tiny("glm_2021", dtype="float32")
    tinyplm.save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"glm.{name}": a for name, a in tensors.items()}, tmp_path / "model.safetensors")
    ids = batch()[0]
    assert np.array_equal(tinyplm.load(tmp_path)(ids)[0]["logits"], model(ids)[0]["logits"])
    save_file({"glm.word_embeddings.weight": tensors["word_embeddings.weight"], **tensors}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="expected one name for each tensor, got glm.word_embeddings.weight and word_emb"):
        tinyplm.load(tmp_path)


def test_attention_scale_changes_nothing():
    """The released code divides by it before the maximum is subtracted, and multiplies afterwards."""
    (model, inputs), (scaled, _) = infilled(), infilled(attention_scale=8.0)
    assert np.array_equal(model(**inputs)[0]["logits"], scaled(**inputs)[0]["logits"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_encoding": True}, "config: relative_encoding: expected False for glm_2021, got True"),
        ({"block_position_encoding": False}, "config: block_position_encoding: expected True for glm_2021, got False"),
        ({"spell_length": 3}, "config: spell_length: expected None for glm_2021, got 3"),
        ({"num_layers": 0}, "config: num_layers: expected a positive integer, got 0"),
        ({"num_attention_heads": 5}, "config: hidden_size: expected a multiple of num_attention_heads = 5, got 1024"),
        ({"output_dropout_prob": 1.0}, "config: output_dropout_prob: expected a number in [0, 1), got 1.0"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(glm_2021.Config, {"model_type": "glm", **changes})
    assert "\n" not in str(error.value)


def test_every_gradient_with_pairs_and_a_prefix():
    """By central differences along a random direction of all parameters at once."""
    model, inputs = infilled()
    targets = np.random.default_rng(3).integers(0, 11, (2, 7))
    targets[0, :3] = -100
    loss, backward = model.loss(**inputs, targets={"logits": targets})
    rng = np.random.default_rng(4)
    directions = tree_map(lambda a: rng.normal(size=a.shape), model.params)

    def at(h):
        moved = add(model.params, tree_map(lambda d: h * d, directions))
        return model.with_params(moved).loss(**inputs, targets={"logits": targets}, grad=False)[0]

    products = [g * d for g, d in zip(*(flatten(t).values() for t in (backward(1.0), directions)))]
    slope, size = sum(p.sum() for p in products), sum(np.abs(p).sum() for p in products)
    assert abs((at(1e-5) - at(-1e-5)) / 2e-5 - slope) < 1e-8 * size
