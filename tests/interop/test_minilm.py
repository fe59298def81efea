# ruff: noqa: E402 - imports follow importorskip
"""all-MiniLM-L6-v2 with its trained weights: ids and sentence embeddings against transformers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.interop.pair import float64
from tests.support import minilm
from tinyplm.sentence_encoder import SentenceEncoder

SENTENCES = [sentence for group in minilm.GROUPS for sentence in group] + minilm.HARD
POOLINGS = ("mean", "cls", "max")


@pytest.fixture(scope="module")
def folder():
    return minilm.folder()


@pytest.fixture(scope="module")
def encoder(folder):
    return SentenceEncoder.load(folder)


@pytest.fixture(scope="module")
def inputs(folder):
    """transformers' tokenizer, called as sentence-transformers calls it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer([text.strip() for text in SENTENCES], padding=True, truncation="longest_first", max_length=256,
                     return_tensors="pt")  # fmt: skip


def pooled(hidden, mask, pooling):
    """As defined by sentence-transformers' modules Pooling and Normalize."""
    mask = mask[:, :, None]
    vectors = {
        "mean": (hidden * mask).sum(1) / mask.sum(1),
        "max": hidden.masked_fill(mask == 0, float("-inf")).max(1).values,
        "cls": hidden[:, 0],
    }[pooling]
    return torch.nn.functional.normalize(vectors, p=2, dim=1).numpy()


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()


def hidden_of(model, inputs):
    with torch.no_grad():
        return model(**inputs).last_hidden_state


def test_ids_are_those_of_transformers(encoder, inputs):
    ours = encoder.inputs(SENTENCES, allow_special=True)  # as in transformers, where "[MASK]" in a text is always the token
    assert set(ours) == set(inputs)
    assert ours["attention_mask"].sum(1).max() == 256 and ours["attention_mask"].sum(1).min() == 2
    for name, values in ours.items():
        np.testing.assert_array_equal(values, inputs[name].numpy(), err_msg=name)


def test_embeddings_in_float32(encoder, theirs, inputs):
    """The largest entry of a unit vector is about 0.2, and reordered float32 sums of 1536 terms differ by 1e-7."""
    expected = pooled(hidden_of(theirs, inputs), inputs["attention_mask"], "mean")
    ours = encoder.encode(SENTENCES, allow_special=True)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_embeddings_in_float64(encoder, theirs, inputs):
    """Every fifth sentence, including one beyond the limit: the arithmetic is the same for all."""
    some = slice(0, None, 5)
    inputs = {name: values[some] for name, values in inputs.items()}
    assert inputs["attention_mask"].sum(1).max() == 256
    with float64():
        hidden = hidden_of(copy.deepcopy(theirs).double(), inputs)
    model = encoder.model.astype("float64")
    for pooling in POOLINGS:
        expected = pooled(hidden, inputs["attention_mask"], pooling)
        ours = SentenceEncoder(model, pooling, max_length=256).encode(SENTENCES[some], allow_special=True)
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9, err_msg=pooling)


def test_what_we_save_is_read_by_transformers(encoder, theirs, tmp_path, inputs):
    encoder.save(tmp_path)
    ours, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = theirs.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = tokenizer([text.strip() for text in SENTENCES], padding=True, truncation=True, max_length=256)
    assert again["input_ids"] == inputs["input_ids"].tolist()


def test_what_we_save_has_the_settings_that_were_read(encoder, folder, tmp_path):
    encoder.save(tmp_path)
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        before, after = (json.loads(Path(place, name).read_text()) for place in (folder, tmp_path))
        if name.startswith("1_"):
            after = {key: value for key, value in after.items() if key in before or value}  # newer versions have more modes
        assert after == before, name
