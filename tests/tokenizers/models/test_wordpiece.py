"""WordPiece: encoding and training compared with reference/tokenizers/wordpiece.py, and laws."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference.tokenizers import wordpiece as naive
from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.models.wordpiece import WordPiece
from tinyplm.tokenizers.training.wordpiece import train_wordpiece

BERT = ["[PAD]", "[UNK]", "un", "##aff", "##able", "##a", "##ff", "aff", "able", "##", "#", "###"]

few_letters = st.text("ab#é", max_size=12)


def model(tokens, **options):
    return WordPiece({token: i for i, token in enumerate(tokens)}, **options)


# Encoding


@pytest.mark.parametrize(
    ("word", "tokens", "spans"),
    [
        ("unaffable", ["un", "##aff", "##able"], [(0, 2), (2, 5), (5, 9)]),
        ("affable", ["aff", "##able"], [(0, 3), (3, 7)]),
        (
            "unaffably",
            ["[UNK]"],
            [(0, 9)],
        ),  # "##ably" is missing, and there is no backtracking to a shorter token
        ("##aff", ["##aff"], [(0, 5)]),  # at the start of a word the prefix is text
        ("##", ["##"], [(0, 2)]),
        ("", [], []),
    ],
)
def test_the_longest_token_first(word, tokens, spans):
    spanned = model(BERT).encode_spans(word)
    assert [BERT[i] for i, _, _ in spanned] == tokens
    assert [(start, end) for _, start, end in spanned] == spans


@given(
    st.lists(st.tuples(st.sampled_from(["", "##"]), st.text("ab#é", max_size=4)), max_size=12),
    few_letters,
    st.integers(0, 12),
)
def test_encoding_is_that_of_the_reference(parts, word, longest):
    tokens = ["[UNK]", *dict.fromkeys(prefix + text for prefix, text in parts)]
    spans = model(tokens, max_input_chars_per_word=longest).encode_spans(word)
    assert [tokens[i] for i, _, _ in spans] == naive.encode(word, tokens, longest=longest)
    assert model(tokens, max_input_chars_per_word=longest).encode(word) == [i for i, _, _ in spans]
    assert [start for _, start, _ in spans] + [len(word)] * bool(word) == [0] * bool(word) + [end for _, _, end in spans]


def test_other_prefixes():
    assert model(["a", "b", "ab", "@b"], continuing_subword_prefix="@").encode("abb") == [2, 3]
    assert model(["a", "b", "ab"], continuing_subword_prefix="").encode("bab") == [1, 2]


def test_a_word_that_is_too_long_is_unknown():
    assert model(["[UNK]", "a", "##a"]).encode("a" * 100) == [1] + [2] * 99
    assert model(["[UNK]", "a", "##a"]).encode_spans("a" * 101) == [(0, 0, 101)]


def test_a_missing_unknown_token_is_an_error_where_it_is_needed():
    assert model(["a"]).encode("a") == [0]
    with pytest.raises(
        ValueError,
        match=r"text: expected words .*, since it has no '\[UNK\]', got 'b'",
    ):
        model(["a"]).encode("b")


def test_a_million_letters_in_one_word():
    tokens = ["[UNK]", *("##" + "a" * n for n in (1, 2, 4, 50)), "a"]
    long = model(tokens, max_input_chars_per_word=10**7)
    start = time.perf_counter()
    assert long.encode("a" * (1 + 50 * 20_000)) == [5] + [4] * 20_000
    assert long.encode("a" * 10**6 + "b") == [0]
    assert long.encode("b" * 10**6) == [0]
    assert time.perf_counter() - start < 5  # a few hundredths of a second; anything quadratic takes hours


def test_json():
    ours = model(BERT, unk_token="[PAD]", continuing_subword_prefix="@", max_input_chars_per_word=7)
    assert read_component(ours.to_json(), {"WordPiece": WordPiece}, "model") == ours
    assert WordPiece.from_json({"vocab": {"a": 0}}, "model") == WordPiece({"a": 0}, "[UNK]", "##", 100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "WordPiece: vocab: expected a value, got none"),
        ({"vocab": ["a"]}, "vocab: expected an object of tokens and ids, got list"),
        (
            {"vocab": {"a": -1}},
            "WordPiece: vocab: token 'a': expected an id from 0 to 1114111, got -1",
        ),
        (
            {"vocab": {"a": True}},
            "WordPiece: vocab: token 'a': expected an id from 0 to 1114111, got True",
        ),
        (
            {"vocab": {"a": 0}, "max_input_chars_per_word": -1},
            "WordPiece: max_input_chars_per_word: expected an integer >= 0, got -1",
        ),
        ({"vocab": {"a": 0}, "unk_token": None}, "WordPiece: unk_token: expected str, got None"),
        (
            {"vocab": {"a": 0}, "dropout": 0.1},
            r"WordPiece: dropout: expected none, it is not supported, got 0\.1",
        ),
    ],
)
def test_what_is_wrong_in_a_file(content, message):
    with pytest.raises(ValueError, match=message):
        WordPiece.from_json(content, "model")


# Training


def test_a_small_corpus_by_hand():
    """hug 10, pug 5: h and ##u occur together 10 times, out of 10 and 15; ##u and ##g 15 times, out of 15 and 15.
    The scores are 1/15, 1/15, 1/15.

    So the ids break the tie, first letters before others: (h, ##u).  Then p ##u has 5/(5 5) = 1/5, hu ##g
    10/(10 15) = 1/15.
    """
    vocabulary = train_wordpiece({"hug": 10, "pug": 5}, ["[UNK]"], 100)
    assert vocabulary == ["[UNK]", *"ghpu", "##g", "##h", "##p", "##u", "hu", "pu", "hug", "pug"]


corpora = st.dictionaries(st.text("ab#c", min_size=1, max_size=8), st.integers(1, 6), min_size=1, max_size=8)


@pytest.mark.parametrize("criterion", ["likelihood", "frequency"])
@given(corpora, st.integers(0, 25), st.integers(0, 4))
@example({"aaaa": 1, "aaa": 2, "baaa": 3}, 25, 0)
@example({"baaaa": 1, "caaaa": 1, "#aaaa": 1}, 25, 2)
@example({"##a": 3, "#a": 1, "a#a": 2}, 25, 0)  # "##" + "##a" would be spelled like the letter "##a"
def test_training_is_that_of_the_reference(criterion, words, merges, least):
    size = 1 + 2 * len({letter for word in words for letter in word}) + merges
    expected = naive.train(words, ["[UNK]"], size, max(1, least), criterion == "frequency")
    for order in (words, dict(reversed(words.items()))):
        assert train_wordpiece(order, ["[UNK]"], size, min_frequency=least, criterion=criterion) == expected


@given(corpora, st.integers(0, 25))
def test_words_of_the_corpus_can_be_encoded(words, merges):
    size = 1 + 2 * len({letter for word in words for letter in word}) + merges
    vocabulary = train_wordpiece(words, ["[UNK]"], size)
    assert len(vocabulary) == len(set(vocabulary)) <= size
    for word in (*words, "abc", "cc#ab") if {*"abc#"} <= {*"".join(words)} else words:
        tokens = [vocabulary[i] for i in model(vocabulary).encode(word)]
        assert tokens[0] + "".join(token[2:] for token in tokens[1:]) == word


@given(corpora, st.integers(1, 4), st.integers(0, 20))
def test_nothing_is_learnt_from_words_with_letters_that_are_left_out(words, limit, merges):
    counts = {letter: sum(word.count(letter) * n for word, n in words.items()) for word in words for letter in word}
    kept = sorted(counts, key=lambda letter: (-counts[letter], letter))[:limit]
    size = 2 * len(kept) + merges
    others = dict.fromkeys(kept, 0) | {word: n for word, n in words.items() if set(word) <= set(kept)}
    assert train_wordpiece(words, [], size, limit_alphabet=limit) == train_wordpiece(others, [], size)


def test_special_tokens_are_not_learnt_again_and_a_letter_may_be_one():
    assert "ab" not in train_wordpiece({"abc": 9}, ["ab"], 100)[1:]
    assert train_wordpiece({"ab": 9}, ["b", "[UNK]"], 100) == [
        "b",
        "[UNK]",
        "a",
        "##a",
        "##b",
        "ab",
    ]


def test_without_a_prefix_a_letter_has_one_form():
    assert train_wordpiece({"aab": 2}, [], 100, continuing_subword_prefix="") == [
        "a",
        "b",
        "ab",
        "aab",
    ]


def test_scores_that_are_nearly_equal():
    """1/(n n) and 1/((n - 1) (n + 1)): the difference is about n^-4, too small for floats."""
    n = 10**9
    words = {"ab": 1, "a": n - 1, "b": n - 1, "cd": 1, "c": n - 2, "d": n}
    assert 1 / (n * n) == 1 / ((n - 1) * (n + 1))
    assert train_wordpiece(words, [], 5, continuing_subword_prefix="")[-1] == "cd"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            ({"ab": 1}, [], 3),
            {},
            ValueError,
            "vocab_size: expected room for 0 special tokens and two forms of 2 letters",
        ),
        (({"ab": 1}, ["x", "x"], 9), {}, ValueError, "tokens: expected different ones, got 'x'"),
        (({"ab": 1}, "[UNK]", 9), {}, TypeError, "several strings, got the single str"),
        (
            ({"ab": -1}, [], 9),
            {},
            ValueError,
            "word_counts: 'ab': expected an integer >= 0, got -1",
        ),
        (
            ({"ab": 1}, [], 9),
            {"criterion": "score"},
            ValueError,
            "one of likelihood, frequency, got 'score'",
        ),
        (({"ab": 1}, [], 9), {"limit_alphabet": 0}, ValueError, "integer >= 1, got 0"),
    ],
)
def test_what_training_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        train_wordpiece(*arguments, **options)
