"""all-MiniLM-L6-v2 with its trained weights, without torch."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tests.laws import typical_rounding
from tests.support import minilm
from tinyplm.core import flatten
from tinyplm.sentence_encoder import SentenceEncoder, cosine_similarity, nearest

SENTENCES = [sentence for group in minilm.GROUPS for sentence in group]
GROUP = np.array([number for number, group in enumerate(minilm.GROUPS) for _ in group])
SIX_LAYERS = typical_rounding(*6 * [384, 384, 256, 384, 384, 1536], dtype="float32")
RECORDED = [0.130237184, -0.015772818, -0.036716683, 0.057986424, -0.059791745, 0.033053712]


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder.load(minilm.folder())


@pytest.fixture(scope="module")
def vectors(encoder):
    return encoder.encode(SENTENCES)


def test_what_the_folder_says(encoder):
    assert (encoder.pooling, encoder.normalise, encoder.max_length, encoder.lowercase) == ("mean", True, 256, False)
    assert encoder.model.parameter_count() == 22_713_216 and encoder.model.task == "pooled" and not encoder.model.fresh


def test_ids_of_the_released_vocabulary(encoder):
    """The file's own truncation and padding to 128 are ignored."""
    assert encoder.tokens(["Tokenizers don't lie."]) == [[101, 19204, 17629, 2015, 2123, 1005, 1056, 4682, 1012, 102]]
    assert [len(ids) for ids in encoder.tokens(["", "word " * 200, "word " * 300])] == [2, 202, 256]


def test_numbers_that_transformers_gave(encoder):
    """Recorded once with torch in float64 for this sentence; this test computes in float32."""
    vector = encoder.encode(["The cat sat on the mat."])[0]
    np.testing.assert_allclose(vector[:6], RECORDED, rtol=0, atol=0.1 * SIX_LAYERS)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=typical_rounding(384, dtype="float32"))


def test_the_nearest_sentence_is_about_the_same(vectors):
    assert vectors.shape == (len(SENTENCES), 384) and vectors.dtype == np.float32
    places, scores = nearest(vectors, vectors, k=2)
    np.testing.assert_array_equal(places[:, 0], np.arange(len(SENTENCES)))  # itself
    np.testing.assert_allclose(scores[:, 0], 1, rtol=typical_rounding(384, dtype="float32"))
    np.testing.assert_array_equal(GROUP[places[:, 1]], GROUP)
    similarity = cosine_similarity(vectors, vectors)
    same = (GROUP[:, None] == GROUP) & ~np.eye(len(GROUP), dtype=bool)
    assert similarity[same].mean() > 0.3 > 0.1 > similarity[GROUP[:, None] != GROUP].mean()


def test_saved_and_loaded_bit_by_bit(encoder, vectors, tmp_path):
    encoder.save(tmp_path)
    again = SentenceEncoder.load(tmp_path)
    before, after = flatten(encoder.model.params), flatten(again.model.params)
    assert before.keys() == after.keys() and all(np.array_equal(a, after[path]) for path, a in before.items())
    np.testing.assert_array_equal(again.encode(SENTENCES), vectors)
    assert again.tokens(minilm.HARD) == encoder.tokens(minilm.HARD)
    assert tinyplm.load(tmp_path).tokenizer.named_id("mask_token") == 103
