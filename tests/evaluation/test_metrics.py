"""Metrics for classification, regression, tagging and answers, compared with reference/ and hand-computed numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.evaluation import metrics as reference
from tests.laws import FEW, PART, rounding
from tinyplm.evaluation.metrics import (
    accuracy,
    confusion,
    matthews_correlation,
    pearson_correlation,
    precision_recall_f1,
    ranks,
    scores,
    spearman_correlation,
)
from tinyplm.evaluation.spans import (
    Chunk,
    answer_f1,
    answer_scores,
    chunk_f1,
    chunk_f1_by_kind,
    chunks,
    exact_match,
    normalise_answer,
)

CLOSE = rounding(100)  # a few dozen additions and one division


def pairs_of(values, most=40):
    """(predictions, labels) of equal length, 1 to 40."""
    return st.lists(st.tuples(values, values), min_size=1, max_size=most).map(lambda rows: tuple(map(list, zip(*rows))))


# ---- classes


@given(pairs_of(st.integers(0, 3)), st.integers(4, 6))
def test_class_metrics_are_their_references(pair, classes):
    p, t = pair
    assert accuracy(p, t) == pytest.approx(reference.accuracy(p, t), abs=CLOSE)
    occurring = sorted({*p, *t})
    for kinds, given_classes in ((occurring, None), (range(classes), classes)):
        for average, formula in (("macro", reference.macro), ("micro", reference.micro)):
            found = precision_recall_f1(p, t, average=average, classes=given_classes)
            assert found == pytest.approx(formula(p, t, kinds), abs=CLOSE)
    assert matthews_correlation(p, t) == pytest.approx(reference.matthews_correlation(p, t), abs=PART)  # sums of squares cancel
    matrix = confusion(p, t, classes)
    assert all(matrix[i, j] == sum((a, b) == (j, i) for a, b in zip(p, t)) for i in range(classes) for j in range(classes))


@given(pairs_of(st.integers(0, 1)), st.integers(0, 1))
def test_binary_scores_are_their_reference(pair, positive):
    p, t = pair
    expected = reference.precision_recall_f1_of_class(p, t, positive)
    assert precision_recall_f1(p, t, positive=positive) == pytest.approx(expected, abs=CLOSE)
    assert precision_recall_f1(np.array(p, bool), np.array(t, bool), positive=positive) == pytest.approx(expected, abs=CLOSE)


@given(pairs_of(st.tuples(*[st.integers(0, 1)] * 3)))
def test_multi_label_scores_are_those_of_the_columns(pair):
    p, t = (np.array(rows) for rows in pair)
    columns = [reference.counts_of_class(p[:, k].tolist(), t[:, k].tolist(), 1) for k in range(3)]
    rows = [reference.from_counts(*column) for column in columns]
    assert precision_recall_f1(p, t, average="macro") == pytest.approx(np.mean(rows, axis=0).tolist(), abs=CLOSE)
    micro = reference.from_counts(*np.sum(columns, axis=0).tolist())
    assert precision_recall_f1(p, t, average="micro") == pytest.approx(micro, abs=CLOSE)
    assert accuracy(p, t) == pytest.approx(np.mean([list(a) == list(b) for a, b in zip(p, t)]))


def test_classes_by_hand():
    p, t = [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]  # tp 2, fp 1, fn 1, tn 1
    assert precision_recall_f1(p, t) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert matthews_correlation(p, t) == pytest.approx((2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    assert accuracy(p, t) == 0.6
    assert confusion(p, t).tolist() == [[1, 1], [1, 2]]
    # class 2 is never predicted: precision 0 / 0 counts as 0
    p, t = [0, 0, 1, 1], [0, 1, 1, 2]
    assert precision_recall_f1(p, t, average="macro") == pytest.approx(((1 / 2 + 1 / 2 + 0) / 3, (1 + 1 / 2 + 0) / 3,
                                                                       (2 / 3 + 1 / 2 + 0) / 3))  # fmt: skip
    assert precision_recall_f1(p, t, average="micro") == (0.5, 0.5, 0.5)
    # Gorodkin's: c = 2, s = 4, p = (2, 2, 0), t = (1, 2, 1): (8 - 6) / sqrt((16 - 8) (16 - 6))
    assert matthews_correlation(p, t) == pytest.approx(2 / math.sqrt(80))
    assert matthews_correlation([0, 1, 2], [0, 1, 2]) == pytest.approx(1)
    assert matthews_correlation([0, 1], [1, 0]) == pytest.approx(-1)
    assert matthews_correlation([1, 1], [1, 0]) == 0
    many = 10**6  # the products have 24 digits
    assert matthews_correlation([0, 1] * many, [0, 1] * many) == 1
    assert scores(0, 0, 0) == (0, 0, 0)


# ---- correlations


@given(pairs_of(st.integers(-20, 20).map(lambda n: n / 4), most=20))
def test_correlations_are_their_references(pair):
    x, y = pair
    assert ranks(x).tolist() == reference.ranks(x)
    assert pearson_correlation(x, y) == pytest.approx(reference.pearson_correlation(x, y), abs=PART)
    assert spearman_correlation(x, y) == pytest.approx(reference.spearman_correlation(x, y), abs=PART)


@given(pairs_of(st.integers(-20, 20)), st.floats(0.01, 100), st.floats(-100, 100))
def test_correlations_do_not_feel_scale_and_shift(pair, scale, shift):
    x, y = (np.array(values) for values in pair)
    assert pearson_correlation(scale * x + shift, y) == pytest.approx(pearson_correlation(x, y), abs=1e4 * FEW)  # shift / scale
    assert pearson_correlation(-x, y) == pytest.approx(-pearson_correlation(x, y), abs=PART)
    assert spearman_correlation(np.exp(x / 10), y) == spearman_correlation(x, y)
    assert pearson_correlation(x, y) == pearson_correlation(y, x)


def test_correlations_by_hand():
    assert pearson_correlation([1, 2, 3], [1, 2, 4]) == pytest.approx(3 / math.sqrt(2 * 14 / 3))
    assert ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1, 3.5, 2]
    # without ties 1 - 6 sum d^2 / (n (n^2 - 1)): d = (0, 1, -1)
    assert spearman_correlation([1, 2, 3], [10, 30, 20]) == pytest.approx(1 - 6 * 2 / (3 * 8))
    assert pearson_correlation([0.1, 0.1, 0.1], [1, 2, 3]) == 0  # their mean is not 0.1
    assert pearson_correlation([1e200, 2e200, 3e200], [1e-200, 2e-200, 3e-200]) == pytest.approx(1)
    assert pearson_correlation(np.float32([1, 2]), [2, 3]) == 1


# ---- tagging

TAGS = st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"])


@given(st.lists(TAGS, max_size=12))
def test_chunks_are_their_reference(tags):
    assert [tuple(chunk) for chunk in chunks(tags)] == reference.chunks(tags)


@given(st.lists(st.lists(st.tuples(TAGS, TAGS), max_size=10), min_size=1, max_size=4))
def test_chunk_f1_is_its_reference(sentences):
    p, t = ([[row[i] for row in sentence] for sentence in sentences] for i in (0, 1))
    assert chunk_f1(p, t) == pytest.approx(reference.chunk_f1(p, t), abs=CLOSE)
    for kind, found in chunk_f1_by_kind(p, t).items():
        only = [[["O" if tag[2:] != kind else tag for tag in tags] for tags in side] for side in (p, t)]
        assert found == pytest.approx(reference.chunk_f1(*only), abs=CLOSE)


def test_chunks_by_hand():
    tags = ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "I-LOC", "I-ORG", "B-a-b", "I-a-b"]
    assert chunks(tags) == [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 6), ("ORG", 6, 7), ("a-b", 7, 9)]
    assert chunks(["O", "B-PER"]) == [Chunk("PER", 1, 2)] and chunks([]) == []
    labels = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"]]
    found = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "O"]]  # 1 right, 2 predicted, 3 labelled
    assert chunk_f1(found, labels) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert chunk_f1_by_kind(found, labels) == {"LOC": (0, 0, 0), "ORG": (0, 0, 0), "PER": (1, 1, 1)}


# ---- answers

TEXTS = st.text(st.sampled_from("aAtThHeE nN.,-'_1é\u0301\n"), max_size=20)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_answers_are_their_reference(prediction, answers):
    assert normalise_answer(prediction) == reference.normalise_answer(prediction)
    some = [answer for answer in answers if reference.normalise_answer(answer)] or [""]
    best = max(reference.answer_f1(prediction, answer) for answer in some)
    assert answer_f1(prediction, answers) == pytest.approx(best, abs=CLOSE)
    expected = any(reference.normalise_answer(prediction) == reference.normalise_answer(answer) for answer in some)
    assert exact_match(prediction, answers) == expected


def test_answers_by_hand():
    assert normalise_answer("The  Cat's\nan-the a (mat)!") == "cats anthe mat"
    assert normalise_answer("«the» Theatre") == "« » theatre"  # other quotes are not ASCII punctuation
    assert exact_match("The Beatles.", ["beatles"]) == 1 and exact_match("Beatle", ["beatles", "the stones"]) == 0
    assert answer_f1("the big red dog", ["red dog"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert answer_f1("dog dog", ["dog"]) == pytest.approx(2 / 3)  # a word counts as often as it occurs in both
    assert answer_f1("dog dog dog", ["dog dog"]) == pytest.approx(2 * 2 / 5)
    assert answer_f1("cat", ["dog", "cat sat"]) == pytest.approx(2 / 3)  # the best match counts
    assert answer_f1("", []) == exact_match("the", []) == 1 and answer_f1("dog", []) == exact_match("", ["dog"]) == 0
    assert answer_scores(["a dog", "x"], [["dog"], ["x y", "z"]]) == {"exact_match": 0.5, "f1": pytest.approx((1 + 2 / 3) / 2)}


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: accuracy([1, 0], [1]), "labels: expected one per prediction, got (1,) for"),
        (lambda: accuracy([], []), "labels: expected at least one, got none"),
        (lambda: accuracy(1, 1), "labels: expected one per prediction, got "),
        (lambda: accuracy([0.5], [1]), "predictions: expected integers"),
        (lambda: accuracy([[1, 0]], [1]), "labels: expected integers (N,) or 0 and 1 (N, C), the same for both"),
        (lambda: accuracy([[2, 0]], [[1, 0]]), "predictions: expected class numbers from 0 to 1, got 2"),
        (lambda: accuracy([-1], [0]), "predictions: expected class numbers >= 0, got -1"),
        (lambda: precision_recall_f1([2, 1], [0, 1]), "average: expected macro or micro for more than the classes 0 and 1"),
        (lambda: precision_recall_f1([1, 1], [0, 1], positive=2), "positive: expected an integer from 0 to 1, got 2"),
        (
            lambda: precision_recall_f1([1], [0], average="weighted"),
            "average: expected one of binary, micro, macro, got 'weighted'",
        ),
        (lambda: precision_recall_f1([3], [0], average="macro", classes=3), "expected class numbers from 0 to 2, got 3"),
        (lambda: precision_recall_f1([[1, 0]], [[1, 0]], average="macro", classes=3), "expected 3 columns, one per class"),
        (lambda: confusion([[1, 0]], [[1, 0]]), "class numbers (N,)"),
        (lambda: pearson_correlation([1, math.nan], [1, 2]), "predictions: expected finite numbers"),
        (lambda: spearman_correlation([1, 2], [1]), "labels: expected one per prediction, got "),
        (lambda: chunks(["O", "X-PER"]), "tag 1: expected O, B-kind or I-kind, got 'X-PER'"),
        (lambda: chunks(["B-"]), "tag 0: expected O, B-kind or I-kind, got 'B-'"),
        (lambda: chunks(["O-x"]), "tag 0: expected O, B-kind or I-kind, got 'O-x'"),
        (lambda: chunk_f1([["O"]], [["O", "O"]]), "predictions: sentence 0: expected 2 tags, as in labels, got "),
        (lambda: chunk_f1(["O"], ["O"]), "sentence 0"),
        (lambda: chunk_f1([], []), "labels: expected at least one, got none"),
        (lambda: answer_scores(["a"], []), "answers: expected 1, one per prediction, got []"),
        (lambda: answer_scores([], []), "answers: expected at least one, got none"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_single_string_is_no_list_of_answers():
    with pytest.raises(TypeError, match="several strings"):
        exact_match("a", "abc")
