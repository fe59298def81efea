# ruff: noqa: E402 - imports follow importorskip
"""Sentence embeddings of every encoder family, with tiny random models, against transformers' hidden states."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.interop.encoder_pair import FAMILIES, pair
from tests.interop.pair import as_torch, float64
from tinyplm.sentence_encoder import SentenceEncoder
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.postprocessing import TemplateProcessing

TEXTS = ["the dog ran", "a dog and a cat ate and a dog ran after the cat that ran", "cat", "that dog ran after the cat"]


def tokenizer():
    made = Tokenizer.train(["the dog ran after a cat and the cat ate that"] * 3, 36, kind="WordPiece")
    special = {token: made.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    return Tokenizer(**made.parts | {"post_processor": TemplateProcessing.of("[CLS] $A [SEP]", "$A $B", special)})


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_is_the_mean_of_the_hidden_states_of_transformers(family, tmp_path):
    theirs, ours = pair(family, "body", tmp_path)
    ours.tokenizer = tokenizer()
    encoder = SentenceEncoder(ours, max_length=10)
    ids = encoder.tokens(TEXTS)
    assert len({*map(len, ids)}) > 2 and max(map(len, ids)) == 10
    expected = []
    for row in ids:  # alone, so without padding
        with float64(), torch.no_grad():
            hidden = theirs(**as_torch(input_ids=np.array([row])))["last_hidden_state"][0].numpy()
        expected.append(hidden.mean(0) / np.linalg.norm(hidden.mean(0)))
    vectors = encoder.encode(TEXTS, batch_size=3)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-9)
    encoder.save(tmp_path / "ours")
    np.testing.assert_array_equal(SentenceEncoder.load(tmp_path / "ours").encode(TEXTS, batch_size=3), vectors)
