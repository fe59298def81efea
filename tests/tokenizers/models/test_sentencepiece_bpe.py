"""SentencePiece's BPE: training and joining by score, compared with
reference/tokenizers/sentencepiece.py, and their laws."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference.tokenizers import bpe as naive_bpe
from reference.tokenizers import sentencepiece as naive
from tinyplm.tokenizers.models.sentencepiece_bpe import merges_from_scores
from tinyplm.tokenizers.training.sentencepiece_bpe import (
    train_sentencepiece_bpe,
)

SCRIPTS = {"a": "Latin", "b": "Latin", "и": "Cyrillic", "1": "Common", "-": "Common"}

words = st.builds("▁{}".format, st.text([*SCRIPTS], max_size=9))
corpora = st.dictionaries(words, st.integers(1, 6), min_size=1, max_size=8)


def train(word_counts, vocab_size=10**4, **options):
    return train_sentencepiece_bpe(word_counts, vocab_size, **{"byte_fallback": False, "character_coverage": 1.0} | options)


def normal(pieces):
    return [text for text, _, kind in pieces if kind == "normal"]


def learnt(pieces):
    return [text for text in normal(pieces) if len(text) > 1]


# Training


@given(corpora, st.integers(0, 25), st.integers(1, 6))
@example({"▁aaaaaaa": 1, "▁aaa": 2, "▁baaaa": 3}, 25, 16)
def test_training_is_that_of_the_reference(word_counts, merges, longest):
    letters = {letter for word in word_counts for letter in word}
    pieces = train(word_counts, 3 + len(letters) + merges, max_piece_length=longest)
    assert learnt(pieces) == naive.train(word_counts, SCRIPTS, merges, longest)
    assert train(dict(reversed(word_counts.items())), 3 + len(letters) + merges, max_piece_length=longest) == pieces


@given(corpora, st.integers(0, 25))
def test_letters_that_are_left_out_are_in_no_piece(word_counts, merges):
    occurs = {letter: sum(word.count(letter) * n for word, n in word_counts.items()) for word in word_counts for letter in word}
    ordered = sorted(occurs, key=lambda letter: (-occurs[letter], letter))
    kept = ordered[: (len(ordered) + 1) // 2]
    coverage = sum(occurs[letter] for letter in kept) / sum(occurs.values())
    pieces = train(word_counts, 3 + len(kept) + merges, character_coverage=coverage)
    scripts = {letter: name for letter, name in SCRIPTS.items() if letter in kept}
    if "▁" in kept:  # the reference assumes it
        assert learnt(pieces) == naive.train(word_counts, scripts, merges)
    assert normal(pieces)[len(learnt(pieces)) :] == kept


@given(corpora)
def test_order_scores_and_kinds(word_counts):
    pieces = train(
        word_counts,
        byte_fallback=True,
        control_symbols=["<sep>"],
        user_defined_symbols=["ab", "<x>"],
    )
    special = [("<unk>", "unknown"), ("<s>", "control"), ("</s>", "control"), ("<sep>", "control")]
    special += [
        ("ab", "user_defined"),
        ("<x>", "user_defined"),
        *((f"<0x{byte:02X}>", "byte") for byte in range(256)),
    ]
    assert pieces[: len(special)] == [(text, 0.0, kind) for text, kind in special]
    rest = pieces[len(special) :]
    assert [score for _, score, _ in rest] == [-i for i in range(len(rest))]
    assert len({text for text, _, _ in pieces}) == len(pieces)
    assert not any("ab" in text for text in normal(pieces))  # special pieces in the text are not training text


def test_texts_may_be_words_or_lines():
    lines = {"▁the▁cat▁▁sat": 2, "on▁the▁mat": 1}
    by_word = {"▁the": 3, "▁cat": 2, "▁": 2, "▁sat": 2, "on": 1, "▁mat": 1}
    assert train(lines) == train(by_word)


def test_a_run_of_spaces_is_a_piece_only_if_wanted():
    text = {"▁▁▁▁a": 3, "▁b": 1}
    assert not any("▁▁" in piece for piece in normal(train(text)))
    wanted = normal(train(text, allow_whitespace_only_pieces=True))
    assert {"▁▁", "▁▁▁▁", "▁b"} <= set(wanted) and "▁▁a" not in wanted and "▁▁▁▁a" not in wanted


@pytest.mark.parametrize(
    ("text", "options", "longest"),
    [
        ("ab12", {}, ["12", "ab"]),
        ("ab12", {"split_by_number": False}, ["ab12"]),
        ("ab12", {"split_by_unicode_script": False}, ["ab12"]),
        ("ab12", {"split_digits": True}, ["ab"]),
        ("ab12", {"split_digits": True, "split_by_unicode_script": False}, ["ab"]),
        ("abи", {}, ["ab"]),
        ("漢かカー", {}, ["漢かカー"]),  # one script
        ("e\u0301e", {}, ["e\u0301e"]),  # the accent has the script of the letter before
        ("и\u0301и\u0301e", {}, ["и\u0301и\u0301"]),
        ("a1b", {"split_by_number": False, "max_piece_length": 2}, ["1b"]),
        ("ａｂ１２", {"split_by_number": False}, ["ａｂ１２"]),  # full-width digits are digits
        ("a1и", {"split_by_number": False}, ["a1и"]),  # anything may follow a digit
        ("a٣", {"split_by_number": False}, []),  # other digits are not
        ("漢-", {}, []),
    ],
)
def test_what_may_be_a_piece(text, options, longest):
    pieces = learnt(train({text: 1}, **options))
    assert [piece for piece in pieces if not any(piece in other for other in pieces if other != piece)] == longest


def test_null_is_no_letter():
    assert normal(train({"a\0a": 5, "b": 1})) == ["a", "b"]


def test_words_that_differ_in_rare_letters_only():
    """ab occurs 4 times, in words that differ only in an excluded letter; ba 3 times."""
    words = {"abv": 1, "abw": 1, "abx": 1, "aby": 1, "ba": 3}
    assert normal(train(words, character_coverage=0.77)) == ["ab", "ba", "a", "b"]


def test_coverage_is_compared_in_single_precision():
    n = 10**9
    counts = {"a": 9995 * n - 1, "b": 5 * n + 1}
    assert normal(train(counts, character_coverage=0.9995)) == ["a"]
    counts = {"a": 9990 * n, "b": 10 * n}
    assert normal(train(counts, character_coverage=0.9995)) == ["a", "b"]


def test_special_pieces_in_the_text_are_not_learnt_from():
    pieces = normal(train({"x<s>y<s>x": 4, "thex": 1}, user_defined_symbols=["th", "the"]))
    assert pieces == ["x", "y"]  # the longest match wins: nothing of "the" remains


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (({"a b": 1}, 300), {}, ValueError, "word_counts: expected spaces written ▁, got 'a b'"),
        (
            ({"▁ab": 1}, 5),
            {},
            ValueError,
            r"vocab_size: expected room for 3 special pieces and 3 letters \(a smaller",
        ),
        (({"▁ab": 1}, 300), {"character_coverage": 99.95}, ValueError, "<= 1, got 99.95"),
        (
            ({"▁ab": 1}, 300),
            {"control_symbols": ["<s>"]},
            ValueError,
            "special pieces: expected different strings that are not empty, got '<s>'",
        ),
        (
            ({"▁ab": 1}, 300),
            {"user_defined_symbols": [""]},
            ValueError,
            "expected different strings that are not empty, got ''",
        ),
        (({"▁ab": 1}, 300), {"user_defined_symbols": "ab"}, TypeError, "several strings"),
    ],
)
def test_what_training_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        train(*arguments, **options)


# Joining by score, as merges


def apply(text, pieces):
    """Applies the merges in order of rank, as BPE is defined."""
    symbols = {}
    for part in (*text, *(text for text, _, _ in pieces)):
        symbols.setdefault(part, len(symbols))
    merges = [(symbols[a], symbols[b], symbols[a + b]) for a, b in merges_from_scores(pieces)]
    spelled = list(symbols)
    return [spelled[i] for i in naive_bpe.encode([symbols[letter] for letter in text], merges)]


vocabularies = st.lists(st.text("abc", min_size=2, max_size=5), unique=True, max_size=10).map(
    lambda texts: [(text, -float(i), "normal") for i, text in enumerate([*texts, *"abc"])]
)


@given(vocabularies, st.text("abcx", max_size=14))
@example(
    [
        ("aba", 0.0, "normal"),
        ("ab", -1.0, "normal"),
        ("ba", -2.0, "normal"),
        *((c, -3.0, "normal") for c in "ab"),
    ],
    "ababa",
)
def test_merges_give_what_joining_by_score_gives(pieces, text):
    """Pieces with any scores, including unreachable ones."""
    assert apply(text, pieces) == naive.encode(text, {text: score for text, score, _ in pieces})


@given(corpora, words, st.integers(0, 25))
def test_merges_of_trained_pieces(word_counts, text, merges):
    pieces = train(word_counts, 3 + len({letter for word in word_counts for letter in word}) + merges)
    assert [a + b for a, b in merges_from_scores(pieces)] == learnt(pieces)  # all are reachable
    assert apply(text, pieces) == naive.encode(text, {text: score for text, score, kind in pieces if kind == "normal"})


def test_pieces_that_cannot_come_about_have_no_merge():
    pieces = [
        ("ab", -0.0, "normal"),
        ("bc", -1.0, "normal"),
        ("abc", -2.0, "normal"),
        ("abcc", -3.0, "normal"),
    ]
    letters = [(letter, -9.0, "normal") for letter in "abc"]
    assert merges_from_scores(pieces + letters) == [
        ("a", "b"),
        ("b", "c"),
        ("ab", "c"),
        ("abc", "c"),
    ]
    without = [piece for piece in pieces if piece[0] != "abc"]
    assert merges_from_scores(without + letters) == [
        ("a", "b"),
        ("b", "c"),
    ]  # a|b|c|c -> ab|c|c, and no further


def test_only_normal_pieces_are_joined():
    letters = [(letter, -9.0, "normal") for letter in "ab<s>"]
    others = [
        ("ab", 0.0, "user_defined"),
        ("<s>", 0.0, "control"),
        ("ba", 0.0, "byte"),
        ("bb", 0.0, "unknown"),
    ]
    assert merges_from_scores(others + letters) == []


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (
            [("ab", 0.0, "normal"), ("bc", 0.0, "normal")],
            r"pieces: expected different scores, .*, got 0\.0 for both 'ab' and 'bc'",
        ),
        (
            [("ax", 0.0, "normal")],
            "pieces: expected a piece for each letter of 'ax', got none for 'x'",
        ),
        (
            [("ab", 0.0, "unused"), ("abc", -1.0, "normal")],
            "pieces: expected no unused piece that others can form, got 'ab'",
        ),
    ],
)
def test_what_merges_cannot_say(pieces, message):
    with pytest.raises(ValueError, match=message):
        merges_from_scores(pieces + [(letter, -9.0, "normal") for letter in "abc"])


def test_what_cannot_come_about_is_no_reason_to_refuse():
    pieces = [("xyz", 0.0, "unused"), ("xyy", 0.0, "normal"), ("ab", 0.0, "normal")]
    assert merges_from_scores(pieces + [("a", -1.0, "normal"), ("b", -1.0, "normal")]) == [("a", "b")]
