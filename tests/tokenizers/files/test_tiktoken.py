"""Vocabularies with ranks, as Qwen 1's qwen.tiktoken: read, or refused by name; against the library in tests/interop/."""

from __future__ import annotations

import base64
import json
import re
import unicodedata

import pytest

from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tests.support.hard_strings import HARD
from tests.support.sentencepiece_files import bpe_model
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.patterns import QWEN2_PATTERN


def trained():
    return Tokenizer.train(TEXTS * 2, 500, [], pattern=QWEN2_PATTERN)


def lines_of(tokenizer):
    tokens = [tokenizer.decode_bytes([id]) for id in range(tokenizer.vocab_size)]
    return [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]


def folder_of(folder, lines, name="QWenTokenizer"):
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}), encoding="utf-8")
    return folder


def test_ids_are_those_of_the_trained_merges(tmp_path):
    ours = trained()
    read = Tokenizer.load(folder_of(tmp_path, lines_of(ours)))
    for text in [*TEXTS, *HARD]:
        composed = unicodedata.normalize("NFC", text)
        assert read.encode(text) == ours.encode(composed), text
        assert read.decode(read.encode(text)) == composed
    assert read.encode("e\u0301") == read.encode("\u00e9") != ours.encode("e\u0301"), "NFC comes first"


def test_special_tokens_follow_the_vocabulary(tmp_path):
    ours = trained()
    read, n = Tokenizer.load(folder_of(tmp_path, lines_of(ours))), ours.vocab_size
    assert read.vocab_size == n + 208 and read.eos_id == n
    ids = read.encode("<|im_start|>a<|im_end|><|extra_204|>", allow_special=True)
    assert ids == [n + 1, *ours.encode("a"), n + 2, n + 207]


def test_it_is_written_as_a_tokenizer_json(tmp_path):
    read = Tokenizer.load(folder_of(tmp_path, lines_of(trained())))
    read.save(tmp_path / "tokenizer.json")
    (tmp_path / "qwen.tiktoken").unlink()
    again = Tokenizer.load(tmp_path)
    for text in HARD:
        assert again.encode(text) == read.encode(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["?? 0", *lines[1:]], "line 1: expected a token in base64 and its rank, got '?? 0'"),
        (lambda lines: [" 0", *lines[1:]], "line 1: expected a token in base64 and its rank, 0, got ' 0'"),
        (lambda lines: [*lines[:5], *lines[6:]], "line 6: expected a token in base64 and its rank, 5, got"),
        (lambda lines: [*lines, lines[7].split()[0] + f" {len(lines)}"], "expected a token that is not in the file yet, got"),
        (lambda lines: lines[:255], "qwen.tiktoken: expected a token for each byte, got"),
        (lambda lines: [line.split()[0] for line in lines], "line 1: expected a token in base64 and its rank, 0, got"),
        (lambda lines: [], "expected a token for each byte"),
    ],
    ids=range(7),
)
def test_other_contents_are_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Tokenizer.load(folder_of(tmp_path, change(lines_of(trained()))))
    assert "\n" not in str(error.value) and "qwen.tiktoken" in str(error.value)


def test_an_unknown_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"qwen\.tiktoken: tokenizer_class: expected one of QWenTokenizer, got 'Other'"):
        Tokenizer.load(folder_of(tmp_path, lines_of(trained()), "Other"))


@pytest.mark.parametrize(
    "name", ["InternLMTokenizer", "InternLM2Tokenizer", "BaiChuanTokenizer", "BaichuanTokenizer", "GemmaTokenizer"]
)
def test_internlm_baichuan_and_gemma_put_bos_before_the_ids_of_the_model(tmp_path, name):
    (tmp_path / "tokenizer.model").write_bytes(bpe_model())
    model = Tokenizer.load(tmp_path / "tokenizer.model")
    for settings, bos in (({}, [1]), ({"add_bos_token": False}, [])):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **settings}), encoding="utf-8")
        read = Tokenizer.load(tmp_path)
        for text in TEXTS:
            assert read.encode(text, add_special_tokens=True) == bos + model.encode(text)
            assert read.decode(read.encode(text)) == model.decode(model.encode(text))
