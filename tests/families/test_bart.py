"""BART's and mBART's own: published counts, positions, rotated labels, the bias of the logits, files, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import FEW, MODEL, equal, relative_error
from tests.support.encoder_families import random_like
from tests.support.seq2seq_families import FAMILIES, batch, labels, tiny
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.core import flatten
from tinyplm.families import bart, marian, mbart, transformer
from tinyplm.hub.tensors import read_safetensors
from tinyplm.models.config import from_dict, to_dict


def test_published_sizes_have_the_published_counts():
    """A vocabulary of 50,264 in bart-large-cnn is one row of 1,024 less."""
    assert_counts(bart, {"bart-base": 139_420_416, "bart-large": 406_291_456, "bart-large-cnn": 406_290_432})
    assert_counts(mbart, {"mbart-large-cc25": 610_851_840})


def test_positions_are_the_rows_from_the_third_on():
    """x_0 = norm(scale tokens[ids] + positions[t + 2]): the first two rows of each table are never read."""
    for family in ("bart", "mbart"):
        model = tiny(family)
        expected, backward = model(**batch())
        gradient = backward({"hidden": random_like(expected)["hidden"]})["body"]
        for side, T in (("encoder", 5), ("decoder", 4)):
            table, d = model.params["body"][side]["positions"], gradient[side]["positions"]
            assert table.shape == (10, 6) and d[2 : T + 2].any(axis=1).all()
            assert not d[:2].any() and not d[T + 2 :].any()
            table[:2] += 1.0
        assert equal(model(**batch(), grad=False)[0], expected)


def test_mbart_rotates_its_labels():
    """The decoder begins with each row's last token, its language; -100 and padding come after it."""
    config = FAMILIES["mbart"].config  # padding is 1
    given = np.array([[5, 6, 2, 9], [7, 2, 10, -100], [4, -100, -100, -100], [6, 8, 1, 1]])
    wanted = [[9, 5, 6, 2], [10, 7, 2, 10], [4, 4, 1, 1], [8, 6, 8, 1]]
    assert config.decoder_ids(given).tolist() == wanted
    assert config.decoder_ids(np.full((1, 3), -100)).tolist() == [[1, 1, 1]]
    assert bart.Config().decoder_ids(given).tolist() == [[2, 5, 6, 2], [2, 7, 2, 10], [2, 4, 1, 1], [2, 6, 8, 1]]
    model = tiny("mbart")
    loss, _ = model.loss(input_ids=batch()["input_ids"][:2], targets={"logits": given[:2]})
    same, _ = model.loss(input_ids=batch()["input_ids"][:2], decoder_input_ids=wanted[:2], targets={"logits": given[:2]})
    assert loss == same


def test_a_bart_without_a_start_token_asks_for_it():
    model = tiny("bart", decoder_start_token_id=None)
    with pytest.raises(ValueError, match="^config: decoder_start_token_id: expected a token to put before the labels, got None$"):
        model(batch()["input_ids"], labels=labels())


@pytest.mark.parametrize("family", ["bart", "mbart", "marian"])
def test_the_bias_of_the_logits_is_saved_and_not_trained(family, tmp_path):
    """It is added to them, kept with other parameters, and no gradient is formed of it."""
    model = tiny(family)
    assert flatten(model.buffers).keys() == {"logits_bias"} and "logits_bias" not in str(flatten(model.params).keys())
    inputs, bias = batch(), model.buffers["logits_bias"]
    outputs, backward = model(**inputs)
    expected = outputs["hidden"] @ model.params["body"]["tokens"].T + bias
    assert bias.shape == (1, 11) and relative_error(outputs["logits"], expected) < FEW
    assert flatten(backward({"logits": outputs["logits"]})).keys() == flatten(model.params).keys()
    assert model.with_params(model.params).buffers is model.buffers
    cache = model.source_cache(model.encode(inputs["input_ids"]), capacity=4)
    step = model.decode(inputs["decoder_input_ids"], cache=cache)
    full, _ = model(inputs["input_ids"], decoder_input_ids=inputs["decoder_input_ids"], grad=False)
    assert relative_error(step["logits"], full["logits"]) < MODEL
    tinyplm.save(model, tmp_path)
    stored, _ = read_safetensors(tmp_path / "model.safetensors")
    assert np.array_equal(np.array(stored["final_logits_bias"]), bias)
    again = tinyplm.load(tmp_path)
    assert equal(again.buffers, model.buffers) and equal(again(**inputs, grad=False)[0], outputs)
    fresh = tinyplm.create(family, model.config)
    assert not fresh.buffers["logits_bias"].any() and fresh.buffers["logits_bias"].dtype == np.float32


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_folder_holds_the_whole_model(family, dtype, tmp_path):
    """In the dtype of the parameters, buffers as well; an untied head has a tensor of its own."""
    model = tiny(family).astype(dtype)
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert type(again) is type(model) and again.task == model.task and again.config == model.config and again.dtype == dtype
    assert equal(again.params, model.params) and equal(again.buffers, model.buffers)
    stored, _ = read_safetensors(tmp_path / "model.safetensors")
    assert {np.array(a).dtype.name for a in stored.values()} == {dtype}
    assert ("lm_head.weight" in stored) == (not model.config.tie_word_embeddings)


def test_mbart_differs_from_bart_in_where_its_norms_stand():
    one, other = (tinyplm.create(name, FAMILIES[name].config) for name in ("bart", "mbart"))
    more = flatten(other.params).keys() - flatten(one.params).keys()
    assert more == {f"body.{side}.norm.{n}" for side in ("encoder", "decoder") for n in ("gamma", "beta")}
    assert not flatten(one.params).keys() - flatten(other.params).keys()
    assert mbart.Config().embedding_scale == 1 and mbart.SIZES["mbart-large-cc25"].embedding_scale == 32


def test_a_config_is_read_and_written_unchanged():
    fields = {**to_dict(bart.SIZES["bart-base"]), "hidden_size": 768, "use_cache": True, "num_beams": 4}
    again = from_dict(bart.Config, fields)
    assert to_dict(again) == fields and (again.hidden_size, again.heads, again.context) == (768, 12, 1024)


@pytest.mark.parametrize("cls", [bart.Config, mbart.Config, marian.Config, transformer.Config])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_layerdrop": 0.1}, "config: encoder_layerdrop: expected 0 for [a-z]+, got 0.1"),
        ({"decoder_layerdrop": 0.1}, "config: decoder_layerdrop: expected 0 for [a-z]+, got 0.1"),
        ({"is_encoder_decoder": False}, "config: is_encoder_decoder: expected True for "),
        ({"activation_function": "swiglu"}, "config: activation_function: expected one of .*, got 'swiglu'"),
        ({"decoder_attention_heads": 7}, "decoder_attention_heads"),
        ({"decoder_start_token_id": 10**6}, "config: decoder_start_token_id: expected a token from 0 to "),
        ({"pad_token_id": -1}, "config: pad_token_id: expected a token from 0 to "),
        ({"attention_dropout": 1.0}, "config: attention_dropout: expected "),
        ({"d_model": 0}, "config: d_model: expected "),
        ({"init_std": -1.0}, "config: init_std: expected "),
    ],
)
def test_wrong_configs_are_refused_in_one_line(cls, changes, message):
    assert_refused(cls, changes, message)
