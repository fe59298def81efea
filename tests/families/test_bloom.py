"""BLOOM's own: published counts, ALiBi with any number of heads, the norm of the embeddings, interleaved files."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import reference.models.decoder as ref
from tests.laws import MODEL, relative_error
from tests.support import families
from tests.support.decoder_formulas import assert_formula, gelu_mlp, layer_norm
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.families import bloom
from tinyplm.models.config import from_dict, to_dict
from tinyplm.models.names import to_hub


def test_published_sizes_have_the_published_counts():
    assert_counts(bloom, {
        "bloom-560m": 559_214_592, "bloom-1b1": 1_065_314_304, "bloom-1b7": 1_722_408_960, "bloom-3b": 3_002_557_440,
        "bloom-7b1": 7_069_016_064, "bloom": 176_247_271_424,
    })  # fmt: skip


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
@pytest.mark.parametrize("tied", [True, False])
def test_the_whole_model_equals_the_formulas(heads, tied):
    norm = partial(layer_norm, eps=1e-5)
    model = families.tiny("bloom", n_head=heads, tie_word_embeddings=tied)
    assert_formula(
        model, batch()[0], families.PADDING, norm=norm, heads=(heads, heads), mlp=gelu_mlp,
        embed=lambda p, x: norm(p["embed_norm"], x), attention=lambda layer: {"slopes": ref.slopes(heads)},
    )  # fmt: skip


def test_longer_than_any_text_it_was_trained_on():
    """ALiBi has no table of positions; seq_length says what the models were trained on."""
    model = families.tiny("bloom", seq_length=4)
    ids = np.random.default_rng(0).integers(0, 11, (1, 40))
    assert model(ids, grad=False)[0]["logits"].shape == (1, 40, 11) and model.config.context == 65536


def test_position_ids_place_keys_only_without_a_mask_of_two_dimensions():
    """Keys are placed by the tokens before them, as in transformers; a shift of all changes nothing."""
    model, (ids, _) = families.tiny("bloom"), batch()
    expected = model(ids, attention_mask=families.PADDING)[0]["logits"]
    odd = np.array([0, 3, 1, 9, 4])
    assert np.array_equal(model(ids, attention_mask=families.PADDING, position_ids=odd)[0]["logits"], expected)
    plain = model(ids)[0]["logits"]
    assert relative_error(model(ids, position_ids=np.arange(5) + 7)[0]["logits"], plain) < MODEL
    assert relative_error(model(ids, position_ids=odd)[0]["logits"], plain) > 1e-3


def test_files_hold_queries_keys_and_values_head_by_head():
    model = families.tiny("bloom")
    attention = model.params["body"]["layers"][0]["attention"]
    tensors = to_hub(model.params, bloom.renames(model.config))
    W = tensors["transformer.h.0.self_attention.query_key_value.weight"].reshape(3, 3, 2, 6)  # head, q or k or v, row, column
    b = tensors["transformer.h.0.self_attention.query_key_value.bias"].reshape(3, 3, 2)
    for n, letter in enumerate("qkv"):
        for head in range(3):
            columns = slice(2 * head, 2 * head + 2)
            assert np.array_equal(W[head, n], attention[f"W{letter}"][:, columns].T)
            assert np.array_equal(b[head, n], attention[f"b{letter}"][columns])


def test_both_spellings_of_its_sizes():
    """Files from before 2022 say n_embed and num_attention_heads."""
    old = {"model_type": "bloom", "n_embed": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "offset_alibi": 100}
    config = from_dict(bloom.Config, old)
    assert (config.hidden_size, config.n_layer, config.n_head) == (64, 3, 4)
    assert {name: value for name, value in to_dict(config).items() if name in old} == old


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_head": 5}, "hidden_size: expected a multiple of n_head = 5, got 64"),
        ({"apply_residual_connection_post_layernorm": True}, "post_layernorm: expected False for bloom, got True"),
        ({"hidden_dropout": 1.5}, r"hidden_dropout: expected a number in \[0, 1\), got 1.5"),
        ({"n_layer": 0}, "n_layer: expected a positive integer, got 0"),
        ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon: expected a finite number >= 0, got -1.0"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(bloom.Config, changes, message)
