"""An encoder-decoder laid out for decoding: joined projections of the decoder, and a head of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyplm
from tinyplm.core import flatten
from tinyplm.generation import beam_search, generate

T5: dict[str, Any] = {"d_model": 12, "d_kv": 5, "d_ff": 16, "num_layers": 2, "num_heads": 3, "vocab_size": 23}
BART: dict[str, Any] = {"d_model": 12, "vocab_size": 23, "max_position_embeddings": 16} | {
    f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("attention_heads", 3), ("ffn_dim", 16))
}
SIZES = {
    "t5": T5,
    "t5 untied": T5 | {"tie_word_embeddings": False},
    "mt5": T5,
    "bart": BART,
    "marian": BART | {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1},
}
SOURCES = [[4, 5, 6, 7, 8], [9, 3, 10]]


@pytest.fixture(params=list(SIZES))
def model(request):
    return tinyplm.create(request.param.split()[0], **SIZES[request.param], dtype="float64")


def test_it_computes_the_same(model):
    """Products of the same numbers: the sums of at most 16 terms may be in another order, in each of 10 products a layer."""
    quick = model.for_decoding()
    assert all("Wqkv" in layer["attention"] for layer in quick.params["body"]["decoder"]["layers"])
    assert quick.params["head"]["W"].flags.c_contiguous and quick.config.logit_scale == model.config.logit_scale
    inputs = {"input_ids": np.array([[4, 5, 6], [7, 8, 9]]), "decoder_input_ids": np.array([[2, 4], [2, 3]])}
    expected, found = model(**inputs, grad=False)[0]["logits"], quick(**inputs, grad=False)[0]["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=10 * 16 * 40 * np.finfo(float).eps * np.abs(expected).max())
    options: dict[str, Any] = {"max_new_tokens": 6, "stop_ids": ()}
    for search in (
        lambda m: generate(m, SOURCES, temperature=0, **options),
        lambda m: beam_search(m, SOURCES, beams=3, **options),
    ):
        assert [one.ids for one in search(quick)] == [one.ids for one in search(model)]


def test_its_parameters_count_once_and_it_is_not_laid_out_twice(model, tmp_path):
    quick = model.for_decoding()
    assert quick.for_decoding() is quick
    assert quick.parameter_count() == model.parameter_count() == quick.astype("float32").parameter_count()
    shared = flatten(model.params["body"]["encoder"])
    assert all(a is shared[path] for path, a in flatten(quick.params["body"]["encoder"]).items())
    with pytest.raises(ValueError, match="save: params: expected those of the config .*for_decoding"):
        tinyplm.save(quick, tmp_path / "never")


def test_a_model_with_another_head_is_refused():
    model = tinyplm.create("bart", **BART, task="sequence_classification")
    with pytest.raises(ValueError, match="model: expected a decoder that generates text, got"):
        model.for_decoding()
