"""GPT-1's own: the published count, norms after the additions and none at the end."""

from __future__ import annotations

from functools import partial

import pytest

import reference.layers.activation as ref_activation
import reference.layers.mlp as ref_mlp
import reference.models.decoder as ref
from tests.support import families
from tests.support.decoder_formulas import assert_formula, layer_norm
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.families import openai_gpt


def test_the_published_size_has_the_published_count():
    assert_counts(openai_gpt, {"openai-gpt": 116_534_784})


@pytest.mark.parametrize(("afn", "activation"), [("gelu", "gelu_tanh"), ("relu", "relu"), ("silu", "silu"), ("swish", "silu")])
@pytest.mark.parametrize("tied", [True, False])
def test_the_whole_model_equals_the_formulas(afn, activation, tied):
    model = families.tiny("openai-gpt", afn=afn, tie_word_embeddings=tied)
    assert_formula(
        model, batch()[0], families.PADDING, norm=partial(layer_norm, eps=1e-5), heads=(2, 2), wiring=ref.post_norm, final=False,
        mlp=partial(ref_mlp.mlp, activation=getattr(ref_activation, activation)),
        embed=lambda p, x: x + p["positions"][: len(x)], attention=lambda layer: {},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_head": 5}, "n_embd: expected a multiple of n_head = 5, got 768"),
        ({"afn": "gelu_new"}, "afn: expected one of gelu, relu, silu, swish, got 'gelu_new'"),
        ({"n_positions": 0}, "n_positions: expected a positive integer, got 0"),
        ({"embd_pdrop": -0.1}, r"embd_pdrop: expected a number in \[0, 1\), got -0.1"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(openai_gpt.Config, changes, message)
