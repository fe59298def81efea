"""GPT-3's own: the sizes of its paper, bands in every second layer.  There are no released weights to compare with."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import tinyplm
from tests.support import families
from tests.support.decoder_formulas import assert_formula, gelu_mlp, layer_norm
from tests.support.families import batch
from tests.support.sizes import assert_refused
from tinyplm.families import gpt2, gpt3
from tinyplm.hub.names import count_parameters

# Brown et al. 2020, table 2.1, in millions.
PAPER = {"small": 125, "medium": 350, "large": 760, "xl": 1300, "2.7b": 2700, "6.7b": 6700, "13b": 13000, "175b": 175000}


def test_sizes_have_the_counts_of_the_paper():
    """Which are rounded, to 2% at most, those of the table included."""
    counts = {name: count_parameters(gpt3.shapes(config)) / 1e6 for name, config in gpt3.SIZES.items()}
    assert counts.keys() == {f"gpt3-{name}" for name in PAPER}
    assert all(abs(counts[f"gpt3-{name}"] / millions - 1) < 0.02 for name, millions in PAPER.items())


def test_the_largest_size_in_full():
    """12 L D^2 of matrices, 13 L D of biases and norms, the final norm, and the two tables."""
    L, D, V, C = 96, 12288, 50257, 2048
    assert count_parameters(gpt3.shapes(gpt3.SIZES["gpt3-175b"])) == 12 * L * D**2 + 13 * L * D + 2 * D + (V + C) * D


@pytest.mark.parametrize("band", [1, 2, 3, 5, 6, None])
def test_the_whole_model_equals_the_formulas(band):
    model = families.tiny("gpt3", band=band)
    assert_formula(
        model, batch()[0], families.PADDING, norm=partial(layer_norm, eps=1e-5), heads=(2, 2), mlp=gelu_mlp,
        embed=lambda p, x: x + p["positions"][: len(x)], attention=lambda layer: {"window": band if layer else None},
    )  # fmt: skip


def test_without_bands_it_is_gpt2():
    ours, theirs = families.tiny("gpt3", band=None), families.tiny("gpt2")
    assert np.array_equal(ours(batch()[0])[0]["logits"], theirs(batch()[0])[0]["logits"])


def test_layers_alternate():
    assert [gpt3.Config(n_layer=4).window_of(i) for i in range(4)] == [None, 256, None, 256]


def test_folders(tmp_path):
    """Written and read as GPT-2's, under a model_type of its own."""
    model = families.tiny("gpt3")
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert again.family is gpt3 and again.config == model.config and gpt3.NAMES is gpt2.NAMES
    assert np.array_equal(again(batch()[0])[0]["logits"], model(batch()[0])[0]["logits"])


@pytest.mark.parametrize("band", [0, -1, 2.5])
def test_wrong_bands_are_refused(band):
    assert_refused(gpt3.Config, {"band": band}, f"config: band: expected .*, got {band}")
