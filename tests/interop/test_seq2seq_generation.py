# ruff: noqa: E402 - imports follow importorskip
"""Decoding of encoder-decoders against transformers: greedy ids, and the ids and scores of beam search, in float64."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.pair import float64
from tests.interop.seq2seq_pair import FAMILIES, FIRST, pair

LENGTHS = (7, 3, 5)
NEW = 9
# ours: theirs
BEAMS = {
    "three": ({"beams": 3}, {"num_beams": 3}),
    "several results": (
        {"beams": 4, "results": 2, "length_penalty": 0.0, "early_stopping": True},
        {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.0, "early_stopping": True},
    ),
    "no repeats": (
        {"beams": 4, "no_repeat_ngram": 2, "early_stopping": "never", "length_penalty": 2.0},
        {"num_beams": 4, "no_repeat_ngram_size": 2, "early_stopping": "never", "length_penalty": 2.0},
    ),
    "forced": (
        {"beams": 3, "forced_first": 9, "forced_last": 11, "min_new_tokens": 5, "length_penalty": -1.0},
        {"num_beams": 3, "forced_bos_token_id": 9, "forced_eos_token_id": 11, "min_new_tokens": 5, "length_penalty": -1.0},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(FAMILIES))
def models(request, tmp_path_factory):
    """transformers makes the cache of T5's decoder as deep as the encoder, so both are equally deep here."""
    depth = {"num_decoder_layers": 2} if "t5" in request.param else {"decoder_layers": 2}
    theirs, ours = pair(request.param, tmp_path_factory.mktemp("model"), **depth)
    ours.generation = {"decoder_start_token_id": 2}
    return theirs, ours


def sources():
    rng = np.random.default_rng(3)
    return [rng.integers(FIRST, 41, n).tolist() for n in LENGTHS]


def theirs_of(theirs, ours, stop, **options):
    """(ids without start and stop tokens, scores)."""
    ids = np.full((len(LENGTHS), max(LENGTHS)), ours.config.pad_token_id)
    mask = np.zeros_like(ids)
    for n, source in enumerate(sources()):
        ids[n, : len(source)], mask[n, : len(source)] = source, 1
    settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": stop, "pad_token_id": ours.config.pad_token_id}
    settings |= {"decoder_start_token_id": 2, "output_scores": True, "return_dict_in_generate": True, **options}
    with float64(), torch.no_grad():
        out = theirs.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **settings)
    rows = [row[1:] for row in out.sequences.tolist()]
    return [row[: row.index(stop)] if stop in row else row for row in rows], getattr(out, "sequences_scores", None)


def a_frequent_token(ours):
    """A token that ends some of the texts early."""
    texts = [one.ids for one in tinyplm.generate(ours, sources(), max_new_tokens=NEW, temperature=0, stop_ids=())]
    return texts[0][NEW // 2]


@pytest.mark.parametrize("cached", [True, False])
def test_greedy_decoding(models, cached):
    theirs, ours = models
    stop = a_frequent_token(ours)
    texts = tinyplm.generate(ours, sources(), max_new_tokens=NEW, temperature=0, stop_ids=[stop], cached=cached)
    assert [one.ids for one in texts] == theirs_of(theirs, ours, stop)[0]
    assert any(len(one.ids) < NEW for one in texts)


@pytest.mark.parametrize("name", list(BEAMS))
def test_beam_search(models, name):
    theirs, ours = models
    options, their_options = BEAMS[name]
    stop = 11 if name == "forced" else a_frequent_token(ours)
    their_ids, scores = theirs_of(theirs, ours, stop, **their_options)
    for cached in (True, False):
        found = tinyplm.beam_search(ours, sources(), max_new_tokens=NEW, stop_ids=[stop], cached=cached, **options)
        assert [one.ids for one in found] == their_ids
        assert np.allclose([one.score for one in found], scores.numpy(), rtol=1e-9, atol=0)
