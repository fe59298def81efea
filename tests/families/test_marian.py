"""Marian's own and that of the Transformer of 2017: counts, sinusoids, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinyplm
from tests.laws import FEW, equal, relative_error
from tests.support.seq2seq_families import FAMILIES, batch, tiny
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.core import flatten
from tinyplm.families import marian, transformer
from tinyplm.hub.names import count_parameters
from tinyplm.hub.tensors import read_safetensors, write_safetensors
from tinyplm.models.seq2seq import Side


def test_published_sizes_have_the_published_counts():
    """Marian's without its sinusoids, which files carry; the Transformer's as the paper rounds them: its vocabulary has "about
    37000 tokens" (sec. 5.1), so the 65 and 213 million of table 3 leave three in a hundred."""
    assert_counts(marian, {"opus-mt-en-de": 73_886_208})
    for name, millions in (("transformer-base", 65), ("transformer-big", 213)):
        count = count_parameters(transformer.shapes(transformer.SIZES[name]))
        assert abs(count / 1e6 - millions) < 0.03 * millions, count


def test_a_layer_of_the_base_transformer_by_hand():
    """Four projections of 512 with biases, a feed-forward layer to 2,048 and back, a norm each; the decoder has one of the
    attentions more."""
    tree = transformer.shapes(transformer.SIZES["transformer-base"])["body"]
    norm, attention, mlp = 2 * 512, 4 * (512 * 512 + 512), 2 * 512 * 2048 + 2048 + 512
    assert count_parameters(tree["encoder"]["layers"][0]) == attention + mlp + 2 * norm
    assert count_parameters(tree["decoder"]["layers"][0]) == 2 * attention + mlp + 3 * norm


def embedded(module, config, start=0):
    """What the piece `embed` adds to zeros at positions start to start + 2."""
    side = Side(True, start, 3, np)
    return module.pieces(config).embed({}, np.zeros((1, 3, config.d_model)), side=side, key=None)[0][0]


def test_sinusoids_by_hand():
    """Width 6: frequencies 1, 10000^(-1/3) and 10000^(-2/3).  In the paper each sine is followed by its cosine (sec. 3.5),
    in Marian all sines come first."""
    w = [1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)]
    rows = [[f(t * x) for x in w for f in (math.sin, math.cos)] for t in (0, 1, 2)]
    apart = [[math.sin(t * x) for x in w] + [math.cos(t * x) for x in w] for t in (0, 1, 2)]
    assert rows[0] == [0, 1, 0, 1, 0, 1] and apart[0] == [0, 0, 0, 1, 1, 1]
    assert relative_error(embedded(transformer, FAMILIES["transformer"].config), np.array(rows)) < FEW
    assert relative_error(embedded(marian, FAMILIES["marian"].config), np.array(apart)) < FEW
    later = [[math.sin(t * x) for x in w] + [math.cos(t * x) for x in w] for t in (4, 5, 6)]
    assert relative_error(embedded(marian, FAMILIES["marian"].config, start=4), np.array(later)) < FEW


@pytest.mark.parametrize("family", ["marian", "transformer"])
def test_rows_of_the_table_are_scaled_by_the_root_of_the_width(family):
    config = FAMILIES[family].config
    module = FAMILIES[family].module
    x, dy = np.random.default_rng(0).normal(size=(2, 1, 3, 6))
    y, back = module.pieces(config).embed({}, x, side=Side(False, 0, 3, np), key=None)
    assert relative_error(y - embedded(module, config), 6**0.5 * x) < FEW and relative_error(back(dy)[1], 6**0.5 * dy) < FEW


def test_sinusoids_in_a_file_are_skipped(tmp_path):
    model = tiny("marian")
    tinyplm.save(model, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: np.array(a) for name, a in read_safetensors(file)[0].items()}
    tensors |= {f"model.{side}.embed_positions.weight": np.zeros((8, 6)) for side in ("encoder", "decoder")}
    write_safetensors(file, tensors, dict.fromkeys(tensors, "F64"))
    again = tinyplm.load(tmp_path)
    assert equal(again.params, model.params) and equal(again(**batch(), grad=False)[0], model(**batch(), grad=False)[0])


def test_the_table_of_both_sides_may_stand_in_a_file_more_than_once(tmp_path):
    """As copies of the shared one; another matrix in their place is refused."""
    model = tiny("marian")
    tinyplm.save(model, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: np.array(a) for name, a in read_safetensors(file)[0].items()}
    copies = {f"model.{side}.embed_tokens.weight": tensors["model.shared.weight"] for side in ("encoder", "decoder")}
    write_safetensors(file, {**tensors, **copies}, dict.fromkeys({**tensors, **copies}, "F64"))
    assert equal(tinyplm.load(tmp_path).params, model.params)
    other = {name: a + (name == "model.decoder.embed_tokens.weight") for name, a in {**tensors, **copies}.items()}
    write_safetensors(file, other, dict.fromkeys(other, "F64"))
    with pytest.raises(ValueError, match="model.decoder.embed_tokens.weight") as error:
        tinyplm.load(tmp_path)
    assert "\n" not in str(error.value)


def test_initial_values():
    """Norms 1 and 0, biases 0, all else normal."""
    for family in ("marian", "transformer", "bart", "mbart"):
        drawn = []
        for path, a in flatten(tinyplm.create(family, FAMILIES[family].config, dtype="float64", init_std=0.5).params).items():
            name = path.rsplit(".", 1)[-1]
            if name in ("gamma", "beta", "b1", "b2", "bq", "bk", "bv", "bo"):
                assert (a == (name == "gamma")).all(), path
            else:
                drawn.append(a.ravel())
        values = np.concatenate(drawn)
        error = 0.5 * values.size**-0.5
        assert len(np.unique(values)) == values.size and abs(values.mean()) < 4 * error and abs(values.std() - 0.5) < 4 * error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share_encoder_decoder_embeddings": False},
         "config: share_encoder_decoder_embeddings: expected true, one table for both languages, got False"),
        ({"decoder_vocab_size": 5}, "config: decoder_vocab_size: expected 58101 or null, got 5"),
    ],
)  # fmt: skip
def test_two_tables_are_refused(changes, message):
    assert_refused(marian.Config, changes, message)
