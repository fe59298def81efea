"""T5's and mT5's own: published counts, the bias of each side, the scaled output, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinyplm
from tests.laws import FEW, MODEL, apart, equal, relative_error
from tests.support.encoder_families import random_like
from tests.support.seq2seq_families import FAMILIES, GATED, T5, batch, tiny
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.core import flatten
from tinyplm.families import mt5, t5
from tinyplm.models.config import from_dict, to_dict

V1_1 = {
    "small": 76_961_152, "base": 247_577_856, "large": 783_150_080, "xl": 2_849_757_184, "xxl": 11_135_332_352,
}  # fmt: skip


def test_published_sizes_have_the_published_counts():
    assert_counts(t5, {
        "t5-small": 60_506_624, "t5-base": 222_903_552, "t5-large": 737_668_096, "t5-3b": 2_851_598_336,
        "t5-11b": 11_307_321_344, **{f"{name}-{size}": n for name in ("t5-v1_1", "flan-t5") for size, n in V1_1.items()},
    })  # fmt: skip
    assert_counts(mt5, {
        "mt5-small": 300_176_768, "mt5-base": 582_401_280, "mt5-large": 1_229_581_312, "mt5-xl": 3_742_619_648,
        "mt5-xxl": 12_921_057_280,
    })  # fmt: skip


def test_only_the_first_version_shares_the_table_with_the_output_and_scales_it():
    assert t5.SIZES["t5-small"].logit_scale == 512**-0.5 and "head" not in t5.shapes(t5.SIZES["t5-small"])
    for config in (t5.SIZES["t5-v1_1-small"], mt5.SIZES["mt5-small"]):
        assert config.logit_scale == 1 and t5.shapes(config)["head"]["W"] == (512, config.vocab_size)
    assert t5.Config(**GATED, scale_decoder_outputs=True).logit_scale == 512**-0.5
    assert mt5.Config(tie_word_embeddings=True).logit_scale == 1
    model = tiny("t5")
    outputs, _ = model(**batch(), grad=False)
    expected = 6**-0.5 * outputs["hidden"] @ model.params["body"]["tokens"].T
    assert relative_error(outputs["logits"], expected) < FEW


def test_gated_gelu_is_the_tanh_gelu_and_gelu_the_exact_one():
    names = {kind: t5.Config(feed_forward_proj=kind).activation.__name__ for kind in ("relu", "gelu", "gated-gelu", "gated-silu")}
    assert names == {"relu": "relu", "gelu": "gelu", "gated-gelu": "gelu_tanh", "gated-silu": "silu"}


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_tokens_have_no_positions_but_distances(family):
    """A source moved to the right by padding, and a decoder's target likewise, changes nothing but rounding."""
    model = tiny(family)
    inputs = batch(padded=False)
    expected, _ = model(**inputs, grad=False)
    before = np.zeros((3, 2), dtype=int)
    moved, seen = {}, {"": "attention_mask", "decoder_": "decoder_attention_mask"}
    for prefix, name in seen.items():
        ids = inputs[f"{prefix}input_ids"]
        moved |= {f"{prefix}input_ids": np.concatenate([before, ids], axis=1),
                  name: np.concatenate([before, np.ones_like(ids)], axis=1)}  # fmt: skip
    found, _ = model(**moved, grad=False)
    assert apart({n: a[:, 2:] for n, a in found.items()}, expected) < MODEL


def test_each_side_has_one_table_of_biases_that_its_layers_share():
    """Its gradient is the sum over the layers: with all but the last layer frozen it is that of the last layer alone."""
    model = tiny("t5")
    outputs, backward = model(**batch())
    c = random_like(outputs)
    full = backward(c)["body"]
    part = model(**batch(), frozen=3)[1](c)["body"]
    assert full["decoder"]["bias"].shape == (6, 2) and not np.allclose(full["decoder"]["bias"], part["decoder"]["bias"])
    assert part["decoder"]["bias"].any() and not part["encoder"]["bias"].any()
    # a decoder's queries see no later keys: buckets 0 .. 5 are distances 0, -1, -2, -3 and beyond
    assert full["decoder"]["bias"][:4].all() and full["encoder"]["bias"][[0, 1, 2, 4, 5]].all()
    model.params["body"]["decoder"]["bias"] += 1.0  # the same for all keys, which softmax does not see
    assert apart(model(**batch(), grad=False)[0], outputs) < MODEL


def test_initial_values_are_those_of_the_released_code():
    config = t5.Config(**{**T5, "d_model": 64, "d_ff": 100, "d_kv": 16, "num_heads": 4, "vocab_size": 300,
                          "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}, **GATED)  # fmt: skip
    params = flatten(tinyplm.create("t5", config, dtype="float64", key=1).params)
    std = {"Wq": (64 * 16) ** -0.5, "Wk": 64**-0.5, "Wv": 64**-0.5, "Wo": 64**-0.5, "Wgate": 64**-0.5, "Wup": 64**-0.5,
           "Wdown": 0.1, "tokens": 1.0, "W": 1.0, "bias": 64**-0.5}  # fmt: skip
    for path, a in params.items():
        name = path.rsplit(".", 1)[-1]
        if name == "gamma":
            assert (a == 1).all(), path
        else:  # the standard deviation of n draws is off by std / sqrt(2 n); five times that in 70 arrays is rare
            assert abs(a.std() / std[name] - 1) < 5 * (2 * a.size) ** -0.5, path


def test_a_config_is_read_and_written_unchanged():
    fields = {**to_dict(t5.SIZES["t5-v1_1-small"]), "n_positions": 512, "output_past": True}
    assert to_dict(from_dict(t5.Config, fields)) == fields
    again = from_dict(mt5.Config, {"model_type": "mt5", "d_model": 16, "num_decoder_layers": None})
    assert (again.d_model, again.depth, again.context, again.gated) == (16, 8, None, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feed_forward_proj": "gated-swish-gelu"},
            "config: feed_forward_proj: expected one of gated-gelu, .*got 'gated-swish-gelu'",
        ),
        ({"relative_attention_num_buckets": 3}, "buckets >= 4 and longest > 0, got 3 and 128"),
        ({"relative_attention_max_distance": 8}, "buckets >= 4 and longest > 8, got 32 and 8"),
        ({"relative_attention_max_distance": 16}, "buckets >= 2 and longest > 16, got 32 and 16"),
        ({"decoder_start_token_id": 32128}, "config: decoder_start_token_id: expected a token from 0 to 32127, got 32128"),
        ({"pad_token_id": -1}, "config: pad_token_id: expected a token from 0 to 32127, got -1"),
        ({"dropout_rate": 1.0}, "config: dropout_rate: expected "),
        ({"d_kv": 0}, "config: d_kv: expected "),
        ({"num_decoder_layers": 0}, "config: num_decoder_layers: expected "),
        ({"is_encoder_decoder": False}, "config: is_encoder_decoder: expected True for t5, got False"),
        ({"num_heads": "8"}, "config: num_heads: expected "),
    ],
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(t5.Config, changes, message)


def test_mt5_is_t5_under_another_name():
    assert mt5.body is t5.body and mt5.NAMES is t5.NAMES and mt5.pieces is t5.pieces
    model = tiny("mt5")
    other = tinyplm.create("t5", t5.Config(**{n: v for n, v in vars(FAMILIES["mt5"].config).items() if n != "source"}))
    assert math.isclose(other.config.logit_scale, 1) and equal(
        model(**batch(), grad=False)[0], other.with_params(model.params)(**batch(), grad=False)[0]
    )
