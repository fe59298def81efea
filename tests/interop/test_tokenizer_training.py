"""Tokenizer.train against the trainers of the library `tokenizers`, with equal settings, where the results must be equal."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.test_tokenizers import CORPUS
from tests.support.hard_strings import END, HARD
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.patterns import CL100K_PATTERN, O200K_PATTERN, QWEN2_PATTERN
from tinyplm.tokenizers.training.unigram import train_unigram
from tinyplm.tokenizers.training.wordpiece import train_wordpiece

hf = pytest.importorskip("tokenizers")

CORPORA = {"sentences": CORPUS, "hard strings": HARD, "one line": ["low low low lower lowest, newest widest; 1 2 3"]}
PATTERNS = {"GPT-2": None, "cl100k": CL100K_PATTERN, "Qwen2": QWEN2_PATTERN, "o200k": O200K_PATTERN}
corpora = pytest.mark.parametrize("corpus", CORPORA)


def model_of(tokenizer):
    return json.loads(tokenizer.to_str())["model"]


def same_bpe(ours, theirs):
    model = model_of(theirs)
    assert ours.model.vocab == model["vocab"]
    assert ours.model.merges == [tuple(merge) for merge in model["merges"]]


@corpora
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("vocab_size", [300, 1000])
def test_byte_level_bpe(corpus, pattern, vocab_size):
    theirs = hf.Tokenizer(hf.models.BPE())
    byte_level = hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=PATTERNS[pattern] is None)
    theirs.pre_tokenizer = byte_level
    if PATTERNS[pattern]:
        split = hf.pre_tokenizers.Split(hf.Regex(PATTERNS[pattern]), "isolated")
        theirs.pre_tokenizer = hf.pre_tokenizers.Sequence([split, byte_level])
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    theirs.train_from_iterator(CORPORA[corpus], trainer)
    same_bpe(Tokenizer.train(CORPORA[corpus], vocab_size, pattern=PATTERNS[pattern]), theirs)


def bpe_there(texts, vocab_size, **options):
    """Their ids of letters with the suffix follow hash order, and so do tied merges."""
    theirs = hf.Tokenizer(hf.models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    theirs.normalizer = hf.normalizers.BertNormalizer()
    theirs.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False, **options
    )
    theirs.train_from_iterator(texts, trainer)
    return theirs


@corpora
def test_bpe_with_a_suffix(corpus):
    """The alphabet, which does not depend on merge order."""
    texts = CORPORA[corpus]
    ours = Tokenizer.train(texts, 10_000, kind="BPE")
    theirs = bpe_there(texts, len(ours.model.vocab) - len(ours.model.merges))
    assert set(ours.model.vocab) - {a + b for a, b in ours.model.merges} == set(theirs.get_vocab())


@settings(max_examples=60)
@given(st.lists(st.text("ab ", min_size=1, max_size=30), min_size=1, max_size=6).filter(lambda texts: any(map(str.split, texts))))
def test_bpe_with_a_suffix_until_nothing_is_left(texts):
    """Every word ends up as one token, however ties are broken."""
    ours, theirs = Tokenizer.train(texts, 10_000, kind="BPE"), bpe_there(texts, 10_000)
    for text in texts:
        assert [ours.id_to_token(id) for id in ours.encode(text)] == theirs.encode(text).tokens


def words_there(texts, normalizer, pre_tokenizer):
    return Counter(word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))


@corpora
def test_unigram_learns_from_the_words_cut_there(corpus):
    """Their trainer departs from the paper (training/unigram.py; see test_unigram.py); the words must be the same."""
    texts, normalizers = CORPORA[corpus], hf.normalizers
    tidy = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(hf.Regex(" {2,}"), " "), normalizers.Strip()]
    words = words_there(texts, normalizers.Sequence(tidy), hf.pre_tokenizers.Metaspace())
    special = ["<pad>", "</s>", "<unk>"]
    pieces, unknown = train_unigram(words, 1600, special_tokens=special)
    model = Tokenizer.train(texts, 1600, kind="Unigram").model
    assert (model.unk_id, model.pieces) == (unknown, tuple(pieces))


@corpora
@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_learns_from_the_words_cut_there(corpus, lowercase):
    """Their trainer is the BPE trainer; ours selects by likelihood gain."""
    texts, special = CORPORA[corpus], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer = hf.normalizers.BertNormalizer(lowercase=lowercase)
    words = words_there(texts, normalizer, hf.pre_tokenizers.BertPreTokenizer())
    ours = Tokenizer.train(texts, 3600, kind="WordPiece", lowercase=lowercase)
    assert list(ours.model.vocab) == train_wordpiece(words, special, 3600)
