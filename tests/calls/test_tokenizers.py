"""Invalid calls of the tokenizer: every argument of every public method, every wrong kind."""

from __future__ import annotations

import pytest

from tests.support.wrong_calls import wrong_calls
from tinyplm.tokenizers import RECIPES, AddedToken, Padding, Tokenizer, Truncation
from tinyplm.tokenizers.text.encoding import Encoding, arrays, pad, truncate
from tinyplm.tokenizers.training.bpe import learn_merges, train_bpe
from tinyplm.tokenizers.training.sentencepiece_bpe import train_sentencepiece_bpe
from tinyplm.tokenizers.training.unigram import train_unigram
from tinyplm.tokenizers.training.wordpiece import train_wordpiece

TEXTS = ["the cat sat on the mat", "the dog ran to the cat"]
TOKENIZERS = {kind: Tokenizer.train(TEXTS, 60 if kind in ("BPE", "WordPiece", "Unigram") else 300, kind=kind) for kind in RECIPES}
PART = Encoding.of([1, 2], ["a", "b"], [(0, 1), (1, 2)], [0, 1])
SEVERAL = {
    "texts": ["texts", "text"],
    "pairs": ["pairs", "pair", "text"],
    "answers": ["answers", "text"],
    "pair": ["pair", "text"],
    "prompt": ["prompt", "text"],
    "after": ["after", "ids", "id"],
    "ids": ["ids", "id"],
    "padding": ["pad"],
    "added": ["special tokens"],
}


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize(
    ("method", "right"),
    [
        ("encode", {"text": "the cat", "allow_special": False, "add_special_tokens": False}),
        ("prompt", {"text": "the cat"}),
        ("continuations", {"prompt": "the ", "answers": ["cat", "dog"]}),
        ("continue_ids", {"ids": [1, 2], "text": "cat", "allow_special": False}),
        ("encode_batch", {"texts": TEXTS, "allow_special": False, "add_special_tokens": False}),
        (
            "encoding",
            {
                "text": "the",
                "pair": "cat",
                "allow_special": False,
                "add_special_tokens": True,
                "truncation": Truncation(9),
            },
        ),
        (
            "batch",
            {
                "texts": TEXTS,
                "pairs": TEXTS,
                "allow_special": False,
                "add_special_tokens": True,
                "truncation": Truncation(9),
                "padding": Padding(),
            },
        ),
        ("decode", {"ids": [1, 2], "skip_special": False, "after": [1]}),
        ("stream", {"skip_special": False, "after": [1]}),
        ("named_id", {"name": "eos_token"}),
        ("token_to_id", {"token": "t"}),
        ("id_to_token", {"id": 1}),
        ("is_special", {"id": 1}),
    ],
)
def test_methods(kind, method, right):
    call = getattr(TOKENIZERS[kind], method)
    call(**right)
    complaints = wrong_calls(call, right, aliases=SEVERAL)
    assert not complaints, "\n".join(complaints)


def test_sampling_and_bytes():
    for call, right in (
        (
            TOKENIZERS["Unigram"].sample,
            {"text": "the cat", "key": 1, "alpha": 0.1, "allow_special": False},
        ),
        (TOKENIZERS["byte-level BPE"].decode_bytes, {"ids": [1, 2]}),
        (TOKENIZERS["byte-level BPE"].stream().push, {"id": 1}),
        (TOKENIZERS["Unigram"].stream().push, {"id": 1}),
    ):
        call(**right)
        complaints = wrong_calls(call, right, aliases=SEVERAL)
        assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("kind", RECIPES)
def test_training(kind):
    options = {
        "byte-level BPE": {"pattern": None, "add_prefix_space": False, "min_frequency": 0},
        "BPE": {"lowercase": True, "limit_alphabet": 50, "min_frequency": 0},
        "SentencePiece BPE": {"byte_fallback": True},
        "WordPiece": {
            "lowercase": True,
            "continuing_subword_prefix": "##",
            "limit_alphabet": 50,
            "min_frequency": 0,
            "criterion": "likelihood",
        },
        "Unigram": {
            "byte_fallback": False,
            "shrinking_factor": 0.75,
            "n_sub_iterations": 2,
            "max_piece_length": 16,
            "seed_size": 1000,
        },
    }[kind]
    right = {
        "texts": TEXTS,
        "vocab_size": len(TOKENIZERS[kind]),
        "special_tokens": None,
        "kind": kind,
        **options,
    }
    Tokenizer.train(**right)
    complaints = wrong_calls(
        Tokenizer.train,
        right,
        aliases={
            "texts": ["text"],
            "special_tokens": ["special token"],
            "pattern": ["regular"],
            "byte_fallback": ["given"],
        },
    )
    assert not complaints, "\n".join(complaints)


WORDS = {"ab": 2, "abc": 1}


@pytest.mark.parametrize(
    ("train", "right"),
    [
        (
            learn_merges,
            {"word_counts": {"\0\1": 2}, "tokens": ["a", "b"], "vocab_size": 3, "min_frequency": 0},
        ),
        (
            train_bpe,
            {
                "word_counts": WORDS,
                "vocab_size": 20,
                "special_tokens": ["<s>"],
                "initial_alphabet": ["a"],
                "limit_alphabet": 9,
                "min_frequency": 0,
                "end_of_word_suffix": "</w>",
            },
        ),
        (
            train_wordpiece,
            {
                "word_counts": WORDS,
                "tokens": ["[UNK]"],
                "vocab_size": 20,
                "criterion": "likelihood",
                "continuing_subword_prefix": "##",
                "limit_alphabet": None,
                "min_frequency": 0,
            },
        ),
        (
            train_unigram,
            {
                "word_counts": WORDS,
                "vocab_size": 20,
                "special_tokens": [],
                "unk_token": "<unk>",
                "byte_fallback": False,
                "shrinking_factor": 0.75,
                "n_sub_iterations": 2,
                "max_piece_length": 16,
                "seed_size": 1000,
            },
        ),
        (train_sentencepiece_bpe, {"word_counts": {"▁ab": 2}, "vocab_size": 270}),
    ],
)
def test_trainers(train, right):
    train(**right)
    complaints = wrong_calls(
        train,
        right,
        aliases={"word_counts": ["word"], "tokens": ["token"], "byte_fallback": ["given"]},
    )
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (
            Truncation,
            {"max_length": 9, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        ),
        (
            Padding,
            {
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
        ),
        (
            AddedToken,
            {
                "content": "a",
                "id": 1,
                "special": True,
                "normalized": False,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
            },
        ),
        (truncate, {"first": PART, "second": PART, "truncation": Truncation(3), "added": 0}),
        (pad, {"encodings": [PART], "padding": Padding()}),
        (arrays, {"encodings": [PART], "overflowing": True}),
        (Tokenizer, TOKENIZERS["WordPiece"].parts),
        (Tokenizer, TOKENIZERS["byte-level BPE"].parts),
    ],
)
def test_parts(call, right):
    complaints = wrong_calls(
        call,
        right,
        aliases={
            **SEVERAL,
            "truncation": ["encoding"],
            "padding": ["encoding"],
            "path": ["no such", "file"],
        },
    )
    assert not complaints, "\n".join(complaints)
