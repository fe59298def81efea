"""PaLM's own, from its paper: sizes, the whole model, how parameters start.  There are no released weights to compare with."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import reference.models.decoder as ref
import tinyplm
from tests.support import families
from tests.support.decoder_formulas import assert_formula, layer_norm, turn
from tests.support.families import batch
from tests.support.sizes import assert_refused
from tinyplm.core import flatten
from tinyplm.families import palm
from tinyplm.hub.names import count_parameters


def test_sizes_have_the_counts_of_the_paper():
    """Chowdhery et al. 2022, table 1, in units of 10 million."""
    counts = {name: round(count_parameters(palm.shapes(config)) / 1e7) for name, config in palm.SIZES.items()}
    assert counts == {"palm-8b": 863, "palm-62b": 6250, "palm-540b": 54036}
    assert all(config.intermediate_size == 4 * config.hidden_size for config in palm.SIZES.values())


@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 2, "tie_word_embeddings": False}, {"rms_norm_eps": 0.1}], ids=str
)
def test_the_whole_model_equals_the_formulas(changes):
    model = families.tiny("palm", **changes)
    norm = partial(layer_norm, eps=changes.get("rms_norm_eps", 1e-6))
    assert_formula(
        model, batch()[0], families.PADDING, norm=norm, heads=(4, model.config.kv_heads), wiring=ref.parallel, scale=6**-0.5,
        attention=lambda layer: {"turn": turn(10.0)},
    )  # fmt: skip


def test_how_parameters_start():
    """Sec. 5.1: the table N(0, 1), matrices with a standard deviation of 1 / sqrt(inputs)."""
    sizes = {"vocab_size": 500, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 16}
    params = flatten(tinyplm.create("palm", **sizes).params)
    for path, a in params.items():
        if path.endswith("gamma"):
            assert (a == 1).all()
        else:
            std = 1 if path.endswith("tokens") else a.shape[0] ** -0.5
            assert abs(a.std() / std - 1) < 5 / (2 * a.size) ** 0.5 and abs(a.mean()) < 5 * std / a.size**0.5, path


def test_folders(tmp_path):
    model = families.tiny("palm")
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert again.family is palm and again.config == model.config
    assert np.array_equal(again(batch()[0])[0]["logits"], model(batch()[0])[0]["logits"])


def test_wrong_configs_are_refused_in_one_line():
    assert_refused(palm.Config, {"num_key_value_heads": 3}, "num_attention_heads: expected a multiple of num_key_value_heads = 3")
