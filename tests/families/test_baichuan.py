"""Baichuan's own: the authors' numbers, published counts, which of the four a config is, ALiBi and the normalised head;
behaviour shared with other families is in tests/models."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from reference.models import published
from tests.laws import MODEL, relative_error
from tests.support.families import PADDING, batch, tiny
from tests.support.vectors import CLOSE, assert_vector, vector, weights_of
from tinyplm.core import Product
from tinyplm.families import baichuan
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import from_dict, to_dict

# The README of Baichuan-13B has those of the first two; the others have 61,696 more tokens in two matrices.
COUNTS = {
    "baichuan-7b": 7_000_559_616,
    "baichuan-13b": 13_264_901_120,
    "baichuan2-7b": 7_505_973_248,
    "baichuan2-13b": 13_896_668_160,
}
# {vector: (ALiBi's slopes of 3 heads, normalised head)}: 2^-4 and 2^-8 of 2 heads, then the first of 4 heads, 2^-2
SLOPES = [2.0**-4, 2.0**-8, 2.0**-2]
KINDS = {
    "baichuan-7b": (None, False),
    "baichuan-13b": (SLOPES, False),
    "baichuan2-7b": (None, True),
    "baichuan2-13b": (SLOPES, True),
}
ALIBI = {"max_position_embeddings": None, "model_max_length": 6}


@pytest.mark.parametrize("size", COUNTS)
def test_published_sizes_have_the_published_counts(size):
    assert count_parameters(baichuan.shapes(baichuan.SIZES[size])) == COUNTS[size]
    assert COUNTS.keys() == baichuan.SIZES.keys()


@pytest.mark.parametrize("name", KINDS)
def test_the_authors_numbers(name, tmp_path):
    model = assert_vector(name, tmp_path)
    assert (model.config.alibi, model.config.unit_head) == (KINDS[name][0] is not None, KINDS[name][1])


@pytest.mark.parametrize("name", KINDS)
def test_the_formulas_from_the_published_tensors(name):
    v, (slopes, unit) = vector(name), KINDS[name]
    settings = {"layers": 2, "heads": 3, "eps": v["config"]["rms_norm_eps"], "slopes": slopes, "unit": unit}
    assert relative_error(published.baichuan(weights_of(v), v["input_ids"], **settings), v["logits"]) < CLOSE


@pytest.mark.parametrize("size", COUNTS)
def test_which_of_the_four_a_file_is(size):
    written = to_dict(baichuan.SIZES[size])
    config = from_dict(baichuan.Config, written)
    assert config == baichuan.SIZES[size] and to_dict(config) == written
    assert (config.alibi, config.unit_head) == ("13b" in size, "baichuan2" in size)
    assert ("max_position_embeddings" in written) == ("7b" in size)
    assert not written.keys() & {"rope_theta", "rope_parameters", "num_key_value_heads", "head_dim"}


def test_an_early_file_of_baichuan_2_lacks_z_loss_weight():
    config = from_dict(
        baichuan.Config, {"vocab_size": 125696, "hidden_size": 5120, "num_attention_heads": 40, "model_max_length": 4096}
    )
    assert config.alibi and config.unit_head


def test_the_context_with_and_without_alibi():
    assert baichuan.SIZES["baichuan-7b"].context == 4096
    assert baichuan.SIZES["baichuan-13b"].context == baichuan.SIZES["baichuan-13b"].cache_context == 1 << 16


@pytest.mark.parametrize("changes", [ALIBI, {**ALIBI, "z_loss_weight": 0}])
def test_alibi_token_by_token_equals_the_whole_pass_with_padding(changes):
    model, (ids, _) = tiny("baichuan", **changes), batch()
    left = np.sort(PADDING, axis=1)
    whole = model(ids, attention_mask=left, grad=False)[0]["logits"]
    cache = model.empty_cache(3, 5)
    for t in range(5):
        outputs, _ = model(ids[:, t : t + 1], attention_mask=left[:, : t + 1], cache=cache, grad=False)
        cache, real = outputs["cache"], left[:, t] == 1
        assert relative_error(outputs["logits"][real, 0], whole[real, t]) < MODEL


def test_alibi_reads_beyond_model_max_length():
    model = tiny("baichuan", **ALIBI)
    longer = np.random.default_rng(0).integers(0, 11, (1, 9))
    assert relative_error(model(longer)[0]["logits"][:, :5], model(longer[:, :5])[0]["logits"]) < MODEL


def test_the_length_of_a_row_of_the_head_changes_nothing_and_gets_no_gradient():
    model, (ids, targets) = tiny("baichuan", z_loss_weight=0), batch()
    loss, backward = model.loss(input_ids=ids, targets={"logits": targets})
    W, dW = model.params["head"]["W"], backward(1.0)["head"]["W"]
    along = (W * dW).sum(axis=0) / (np.abs(W * dW).sum(axis=0))
    assert np.abs(along).max() < MODEL
    scaled = {**model.params, "head": {"W": W * np.linspace(0.1, 9, 11)}}
    assert abs(model.with_params(scaled).loss(input_ids=ids, targets={"logits": targets})[0] - loss) < MODEL * loss
    plain = tiny("baichuan")
    lengths = np.linalg.norm(plain.params["head"]["W"], axis=0)
    assert relative_error(model(ids)[0]["logits"], plain(ids)[0]["logits"] / lengths) < MODEL


def test_a_gradient_in_two_factors_is_that_of_their_product():
    model = tiny("baichuan", z_loss_weight=0)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6)), rng.normal(size=(2, 11))
    _, back = baichuan.output_matrix(model.params, config=model.config)
    gradients = [back(dU)["head"]["W"] for dU in (Product(a, b), a.T @ b)]
    assert np.array_equal(*gradients)


def test_lengths_are_computed_in_float32():
    """In float16 the square of 300 is infinite."""
    model = tiny("baichuan", dtype="float16", z_loss_weight=0)
    model.params["head"]["W"] *= np.float16(300)
    U, back = baichuan.output_matrix(model.params, config=model.config)
    assert U.dtype == np.float16 and np.abs(np.linalg.norm(U.astype("float64"), axis=0) - 1).max() < 1e-3
    dW = back(np.random.default_rng(0).normal(size=U.shape).astype("float16"))["head"]["W"]
    assert dW.dtype == np.float16 and np.isfinite(dW).all() and dW.any()


def test_laid_out_for_decoding_it_gives_the_same_logits():
    model, (ids, _) = tiny("baichuan", z_loss_weight=0), batch()
    fast = model.for_decoding()
    W, _ = baichuan.output_matrix(fast.params, config=fast.config)
    assert W is fast.params["head"]["W"], "normalised once, not at each token"
    assert relative_error(fast(ids, grad=False)[0]["logits"], model(ids, grad=False)[0]["logits"]) < MODEL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_position_embeddings": None},
            "max_position_embeddings: expected it, or model_max_length as in the models with ALiBi, got",
        ),
        ({"z_loss_weight": 0.1}, "z_loss_weight: expected None or 0 for baichuan, got 0.1"),
        ({"max_position_embeddings": 0}, "max_position_embeddings: expected a positive integer, got 0"),
        ({"model_max_length": -1}, "model_max_length: expected a positive integer, got -1"),
        ({"num_attention_heads": 40}, "hidden_size: expected a multiple of num_attention_heads = 40, got 4096"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config: expected a model without quantization, got"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(baichuan.Config, {"max_position_embeddings": 4096, **changes})
    assert "\n" not in str(error.value)


def test_a_tensor_of_another_layout_is_named(tmp_path):
    from safetensors.numpy import load_file, save_file

    tinyplm.save(tiny("baichuan"), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.self_attn.W_pack.weight"
    save_file({**tensors, name: np.ascontiguousarray(tensors[name].T)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=re.escape(f"{name}: expected shape (18, 6), got (6, 18)")):
        tinyplm.load(tmp_path)
