# ruff: noqa: E402 - imports follow importorskip
"""Sentence embeddings against the library sentence-transformers itself: vectors, and folders written by either side."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")

from tests.support import minilm
from tests.test_sentence_encoder import TEXTS, encoder
from tinyplm.sentence_encoder import SentenceEncoder


def theirs(folder):
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def test_trained_weights():
    """float32 on both sides: see test_minilm.py."""
    folder = minilm.folder()
    sentences = [sentence for group in minilm.GROUPS for sentence in group] + minilm.HARD
    vectors = SentenceEncoder.load(folder).encode(sentences, allow_special=True)
    np.testing.assert_allclose(vectors, theirs(folder).encode(sentences), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("lowercase", [True, False])
def test_folders_of_either_side(tmp_path, pooling, normalise, lowercase):
    """In float32; unnormalised vectors have entries of about 1."""
    ours = encoder(pooling, dtype="float32", task="pooled", normalise=normalise, lowercase=lowercase, max_length=9)
    vectors = ours.encode(TEXTS)
    ours.save(tmp_path / "ours")
    loaded = theirs(tmp_path / "ours")
    np.testing.assert_allclose(loaded.encode(TEXTS), vectors, rtol=0, atol=1e-5)
    loaded.save(str(tmp_path / "theirs"))
    again = SentenceEncoder.load(tmp_path / "theirs")
    assert (again.pooling, again.normalise, again.max_length) == (pooling, normalise, 9)
    np.testing.assert_array_equal(again.encode(TEXTS), vectors)
