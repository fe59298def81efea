# ruff: noqa: E402 - imports follow importorskip
"""The tokenizers in folders of encoder-decoders: T5's with its sentinels, BART's, mBART's tokenizer.json, Marian's two models.

test_tokenizer_folders.py has the single files.
"""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
sentencepiece = pytest.importorskip("sentencepiece")

import tinyplm
from tests.interop.test_seq2seq_files import random_model
from tests.interop.test_tokenizer_folders import ROBERTA, SINGLES, T5, assert_equal, merges, model, of_transformers
from tinyplm.objectives import named_sentinels, sentinel_ids

LANGUAGES = {"src_lang": "de_DE", "tgt_lang": "ro_RO"}


def again(tmp_path):
    """The folder as we write it, which both read alike."""
    ours = tinyplm.load(tmp_path)
    tinyplm.save(ours, tmp_path / "ours")
    assert_equal(tinyplm.load(tmp_path / "ours").tokenizer, transformers.AutoTokenizer.from_pretrained(tmp_path / "ours"))
    return ours.tokenizer


@pytest.mark.parametrize("settings", [None, {"tokenizer_class": "T5Tokenizer"}, {"tokenizer_class": "MT5Tokenizer"}])
def test_a_t5_and_its_sentinels(tmp_path, settings):
    """The file has no settings at all in old folders: config.json tells the class."""
    tinyplm.save(random_model("t5"), tmp_path)
    T5(tmp_path)
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = of_transformers("T5Tokenizer", tmp_path, {})
    ours = again(tmp_path)
    assert_equal(ours, theirs)
    ids = named_sentinels(ours.vocab)
    assert ids == [theirs.convert_tokens_to_ids(f"<extra_id_{k}>") for k in range(100)] == sentinel_ids(ours.vocab_size)


def test_a_t5_saved_by_transformers(tmp_path):
    tinyplm.save(random_model("t5"), tmp_path)
    T5(tmp_path)
    theirs = of_transformers("T5Tokenizer", tmp_path, {})
    (tmp_path / "spiece.model").unlink()
    theirs.save_pretrained(tmp_path)
    ours = again(tmp_path)
    assert_equal(ours, theirs)
    assert len(named_sentinels(ours.vocab)) == 100


@pytest.mark.parametrize("whole", [False, True])
def test_a_bart(tmp_path, whole):
    """Of vocab.json and merges.txt, or with a tokenizer.json."""
    tinyplm.save(random_model("bart"), tmp_path)
    merges(ROBERTA)(tmp_path)
    theirs = transformers.BartTokenizer.from_pretrained(tmp_path)
    if whole:
        theirs.save_pretrained(tmp_path)
    ours = again(tmp_path)
    for text in (text for text in SINGLES if "<mask>" not in text):  # ours takes the space before it, as in transformers 4
        for pair in (None, "the second"):
            assert ours.encoding(text, pair, allow_special=True).ids == theirs(text, pair)["input_ids"]
        ids = theirs(text)["input_ids"]
        assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.encoding("a").tokens == ["<s>", "a", "</s>"]


def test_an_mbart_with_a_tokenizer_json(tmp_path):
    """The language's token follows the text."""
    model("m.model", hard_vocab_limit=False)(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    pieces = [(theirs.id_to_piece(id), theirs.get_score(id)) for id in range(3, len(theirs))]
    codes = transformers.models.mbart.tokenization_mbart.FAIRSEQ_LANGUAGE_CODES
    vocab = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")] + pieces + [(code, 0.0) for code in [*codes, "<mask>"]]
    theirs = transformers.MBartTokenizer(vocab=vocab, **LANGUAGES)
    tinyplm.save(random_model("mbart"), tmp_path / "mbart")
    theirs.save_pretrained(tmp_path / "mbart")
    ours = tinyplm.load(tmp_path / "mbart").tokenizer
    for text in SINGLES:
        assert ours.encoding(text, allow_special=True).ids == theirs(text)["input_ids"]
    assert ours.encoding("a").tokens[-2:] == ["</s>", "de_DE"]


def test_a_marian_is_refused_with_the_reason_and_its_files_are_kept(tmp_path):
    tinyplm.save(random_model("marian"), tmp_path)
    for name in ("source.spm", "target.spm"):
        model(name, hard_vocab_limit=False)(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "source.spm"))
    vocab = {"</s>": 0, "<unk>": 1, **{theirs.id_to_piece(id): id - 1 for id in range(3, len(theirs))}, "<pad>": len(theirs) - 1}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "de"}))
    with pytest.warns(
        UserWarning, match="loaded without its tokenizer: .*source.spm: expected one tokenizer for both languages, got"
    ):
        ours = tinyplm.load(tmp_path)
    assert ours.tokenizer is None and "Marian's two" in ours.no_tokenizer
    tinyplm.save(ours, tmp_path / "ours")
    for name in ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / name).read_bytes()
