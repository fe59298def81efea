"""ROUGE, BLEU and equality of texts: the references, numbers by hand, bounds and identities."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.evaluation import bleu as ref_bleu
from reference.evaluation import rouge as ref_rouge
from tests.laws import rounding
from tinyplm.evaluation import (
    corpus_bleu,
    normalise_answer,
    rouge,
    rouge_l,
    rouge_lsum,
    rouge_n,
    rouge_words,
    sentence_bleu,
    share_equal,
    single_spaces,
    tokens_13a,
)

CLOSE = rounding(100)  # a few divisions, logarithms and an exponential
WORDS = st.lists(st.sampled_from("abcd"), max_size=6)
TEXTS = st.lists(st.sampled_from(["a", "b", "C", "the", "it's", "3.5", "7-", "é", ",", ".", "&quot;", "\n", "x-y"]),
                 max_size=9).map(" ".join)  # fmt: skip
SENTENCES = st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=1, max_size=3)


# ---- ROUGE


@given(st.text(alphabet="aZ9 é\n_-ſİK中", max_size=12))
def test_words_are_their_reference(text):
    assert rouge_words(text) == ref_rouge.words(text)


@given(WORDS, WORDS, st.integers(1, 3))
def test_rouge_is_its_reference(p, r, n):
    texts = " ".join(p), [" ".join(r)]
    assert rouge_n(*texts, n=n) == pytest.approx(ref_rouge.rouge_n(p, r, n), abs=CLOSE)
    assert rouge_l(*texts) == pytest.approx(ref_rouge.rouge_l(p, r), abs=CLOSE)


@given(SENTENCES, SENTENCES)
def test_rouge_of_summaries_is_its_reference(p, r):
    summary, model = ("\n".join(map(" ".join, sentences)) for sentences in (p, r))
    assert rouge_lsum(summary, [model]) == pytest.approx(ref_rouge.rouge_lsum(p, r), abs=CLOSE)


MEASURES = [rouge_l, rouge_lsum, rouge_n, lambda p, r: rouge_n(p, r, n=2)]


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_rouge_has_bounds_and_the_order_of_references_does_not_count(text, references):
    for measure in MEASURES:
        found = measure(text, references)
        assert all(0 <= value <= 1 for value in found)
        assert found.f1 == measure(text, references[::-1]).f1 == max(measure(text, [one]).f1 for one in references)
        forward, backward = measure(text, references[:1]), measure(references[0], [text])
        if measure is not rouge_lsum:  # which takes the union over the sentences of one side only
            assert (forward.precision, forward.recall) == (backward.recall, backward.precision)
        same = measure(text, [text])
        empty = len(rouge_words(text)) < (2 if measure is MEASURES[3] else 1)
        assert same == ((0, 0, 0) if empty else (1, 1, 1))


def test_rouge_by_hand():
    """Lin 2004, sec. 3.1: S1 police killed the gunman; S2 has an LCS of three words with it, S3 of two."""
    reference = ["police killed the gunman"]
    assert rouge_l("police kill the gunman", reference) == (3 / 4, 3 / 4, 3 / 4)
    assert rouge_l("the gunman kill police", reference) == (2 / 4, 2 / 4, 2 / 4)
    for text in ("police kill the gunman", "the gunman kill police"):  # the same bigram and the same words
        assert rouge_n(text, reference, n=2) == (1 / 3, 1 / 3, 1 / 3)
        assert rouge_n(text, reference) == (3 / 4, 3 / 4, 3 / 4)
    # a word counts as often as in both: 2 of 3, of 4
    assert rouge_n("the the the", ["The cat, the hat."]) == pytest.approx((2 / 3, 2 / 4, 4 / 7))
    # Lin 2004, sec. 3.2: LCS w1 w2 and w1 w3 w5, their union w1 w2 w3 w5, 4 of 5
    found = rouge_lsum("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5"])
    assert found == pytest.approx((4 / 10, 4 / 5, 8 / 15))
    assert rouge_lsum("w1 w3\nw2", ["w1 w2 w3"]) == (1, 1, 1) and rouge_l("w1 w3\nw2", ["w1 w2 w3"]).recall == 2 / 3
    assert rouge_n("", ["a"]) == rouge_l("", [""]) == rouge_lsum("\n", ["a"]) == (0, 0, 0)


def test_rouge_of_a_corpus_and_other_tokenizers():
    found = rouge(["a b", "c"], [["a b"], ["d", "c d"]])
    assert found["rouge1"] == pytest.approx((1, 3 / 4, (1 + 2 / 3) / 2)) and found["rougeL"] == found["rouge1"]
    assert found["rouge2"] == (0.5, 0.5, 0.5)
    assert rouge_n("中文", ["中文"]) == (0, 0, 0), "no Latin letters, no words"
    assert rouge_n("中文", ["中国"], tokenize=list) == (0.5, 0.5, 0.5)
    assert rouge(["中文"], [["中文"]], tokenize=list)["rougeLsum"] == (1, 1, 1)


# ---- BLEU


CORPORA = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=3)


@given(CORPORA, st.sampled_from(["exp", "floor", "none"]), st.integers(1, 5), st.booleans(), st.floats(1e-3, 1))
def test_bleu_is_its_reference(corpus, smoothing, order, effective, floor):
    predictions, references = zip(*corpus)
    options = {"smoothing": smoothing, "order": order, "effective": effective, "floor": floor}
    texts, labelled = [" ".join(p) for p in predictions], [[" ".join(r) for r in some] for some in references]
    found = corpus_bleu(texts, labelled, tokenize="none", **options)
    score, precisions, penalty = ref_bleu.bleu(predictions, references, **options)
    assert found.score == pytest.approx(score, rel=CLOSE)
    assert found.precisions == pytest.approx(precisions, rel=CLOSE) or not any(precisions)
    assert found.brevity_penalty == pytest.approx(penalty, rel=CLOSE)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from(["13a", "none", "char", rouge_words]),
       st.sampled_from(["exp", "floor", "none"]))  # fmt: skip
def test_bleu_has_bounds_and_the_order_of_references_does_not_count(text, references, tokenize, smoothing):
    found = sentence_bleu(text, references, tokenize=tokenize, smoothing=smoothing)
    assert all(0 <= value <= 1 for value in (found.score, found.brevity_penalty, *found.precisions))
    assert found == sentence_bleu(text, references[::-1], tokenize=tokenize, smoothing=smoothing)
    same = sentence_bleu(text, [*references, text], tokenize=tokenize, smoothing=smoothing)
    assert same.score == (same.length > 0)
    assert corpus_bleu([text, text], [references] * 2, tokenize=tokenize).length == 2 * found.length


def test_bleu_by_hand():
    """Papineni et al. 2002, sec. 2.1, examples 2 and 3."""
    references = ["The cat is on the mat", "There is a cat on the mat"]
    found = sentence_bleu("the the the the the the the", [r.lower() for r in references])
    assert found.precisions[0] == 2 / 7 and found.brevity_penalty == 1 and (found.length, found.reference_length) == (7, 7)
    # unmatched orders 2, 3, 4 of 6, 5 and 4 n-grams: 1 / (2 * 6), 1 / (4 * 5), 1 / (8 * 4)
    assert found.precisions == pytest.approx((2 / 7, 1 / 12, 1 / 20, 1 / 32))
    assert found.score == pytest.approx((2 / 7 / 12 / 20 / 32) ** 0.25)
    floored = sentence_bleu("the the the the the the the", [r.lower() for r in references], smoothing="floor")
    assert floored.precisions == pytest.approx((2 / 7, 0.1 / 6, 0.1 / 5, 0.1 / 4))
    assert sentence_bleu("the the the the", ["the cat"], smoothing="none").score == 0
    # c = 2, r = 4: BP = e^(1 - 2), orders 1 and 2 alone are effective
    assert sentence_bleu("a b", ["a b c d"]).score == pytest.approx(math.exp(-1))
    assert corpus_bleu(["a b"], [["a b c d"]]).score == 0
    # counts are summed over the corpus: (1 + 3) / (2 + 3) unigrams, (0 + 2) / (1 + 2) bigrams
    found = corpus_bleu(["a x", "c d e"], [["a b"], ["c d e"]], order=2, smoothing="none")
    assert found.precisions == (4 / 5, 2 / 3) and found.score == pytest.approx(math.sqrt(8 / 15))
    # two references as close as each other: the shorter one
    assert sentence_bleu("a b c", ["a b c d", "a b"]).reference_length == 2
    assert sentence_bleu("", ["a"]) == (0, (0, 0, 0, 0), 0, 0, 1)


@pytest.mark.parametrize(("text", "tokens"), [
    ("Hello, world!", "Hello , world !"),
    ("1,000.5 cost $3.", "1,000.5 cost $ 3 ."),
    ("It's well-known, 1990-95", "It's well-known , 1990 - 95"),
    ("&quot;a&amp;b&quot; &lt;c&gt;", '" a & b " < c >'),
    ("soft-\nware\nx", "software x"),
    ("a<skipped>b (c) [d]/e", "ab ( c ) [ d ] / e"),
    ("a..b ..5", "a . . b . .5"),
    ("中文。", "中文。"),
    ("", ""),
])  # fmt: skip
def test_tokens_13a_by_hand(text, tokens):
    assert tokens_13a(text) == tokens.split()


# ---- whole texts


def test_equality_by_hand():
    assert single_spaces("  a \n b\t") == "a b"
    assert share_equal(["a  b", "A", "c."], ["a b", "a", "c"]) == 1 / 3
    assert share_equal(["a  b", "A", "c."], ["a b", "a", "c"], normalise=str.lower) == 1 / 3
    assert share_equal(["the b", "A", "c."], ["b", "a", "c"], normalise=normalise_answer) == 1
    assert share_equal(["", "the"], ["", ""], normalise=str.strip) == 0.5


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_equality_counts_equal_pairs(pairs):
    p, r = zip(*pairs)
    assert share_equal(p, r) == share_equal(r, p) == sum(a.split() == b.split() for a, b in pairs) / len(pairs)
    assert share_equal(p, p) == 1


@pytest.mark.parametrize(("call", "message"), [
    (lambda: rouge_n("a", "b"), "^references: expected several strings, got 'b'"),
    (lambda: rouge_l("a", []), "^references: expected several strings, at least one, got \\[\\]"),
    (lambda: rouge_n("a", ["b"], n=0), "^n: expected an integer from 1 to 99, got 0"),
    (lambda: rouge_n("a", ["b"], tokenize=lambda text: 3), "^tokenize: expected several strings, got 3"),
    (lambda: rouge(["a"], [["a"], ["b"]]), "^references: expected 1, one per prediction, got "),
    (lambda: rouge([], []), "^references: expected at least one, got none"),
    (lambda: corpus_bleu("a", [["a"]]), "^predictions: expected a list with one entry per sample, got 'a'"),
    (lambda: corpus_bleu(["a"], ["a"]), "^references: expected several strings, got 'a'"),
    (lambda: corpus_bleu(["a"], [["a"]], tokenize="zh"), "^tokenize: expected a function, or one of 13a, none, char, got 'zh'"),
    (lambda: corpus_bleu(["a"], [["a"]], smoothing="add-k"), "^smoothing: expected one of exp, floor, none, got 'add-k'"),
    (lambda: corpus_bleu(["a"], [["a"]], floor=0), "^floor: expected a finite number > 0 and <= 1, got 0"),
    (lambda: corpus_bleu(["a"], [["a"]], order=0), "^order: expected an integer from 1 to 99, got 0"),
    (lambda: share_equal(["a"], ["a", "b"]), "^references: expected 1, one per prediction, got "),
    (lambda: share_equal(["a"], ["a"], normalise=lambda: ""), "^normalise: expected a function of .text., got one of"),
])  # fmt: skip
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
