"""The quality score: features, the regression against its formula, training, files, the step and its draws."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data.quality import logistic_loss
from tinyplm.data.pipeline import Document
from tinyplm.data.quality import QualityModel, load_quality, pareto_draw, quality, quality_logits, text_features, train_quality
from tinyplm.data.quality.features import padded, text_words
from tinyplm.losses.regression import binary_cross_entropy

EPS = 2.0**-53


def texts(good: bool, count: int, seed: int) -> list[str]:
    """Texts of 40 words: 100 words in either kind, half of which are three times as frequent in one of them."""
    rng = np.random.default_rng(seed)
    p = np.repeat([3.0, 1.0] if good else [1.0, 3.0], 50)
    return [" ".join(f"w{i}" for i in rng.choice(100, 40, p=p / p.sum())) for _ in range(count)]


GOOD, BAD = texts(True, 60, 1), texts(False, 90, 2)
MODEL = train_quality(GOOD, BAD, bits=12, epochs=6)


def test_words():
    assert text_words("It's 3 O'Clock_x, naïve… 你好world カナ") == [
        "it",
        "s",
        "3",
        "o",
        "clock_x",
        "naïve",
        "你",
        "好",
        "world",
        "カ",
        "ナ",
    ]


@given(st.lists(st.sampled_from("a b c dd ee 你 ,".split())), st.integers(1, 24))
@settings(max_examples=25)
def test_features_are_counts_of_words_and_pairs(parts, bits):
    buckets, values = text_features(" ".join(parts), bits=bits)
    words = [part for part in parts if part != ","]
    assert (np.diff(buckets) > 0).all() and len(buckets) == len(values) and values.dtype == np.float32
    assert not len(buckets) or 0 <= buckets[0] and buckets[-1] < 2**bits
    if bits == 24:  # the buckets of these few differ
        pairs = [*words, *zip(words, words[1:], strict=False)]
        counts = sorted(pairs.count(pair) for pair in set(pairs))
        norm = math.sqrt(sum(c * c for c in counts))
        assert np.array_equal(np.sort(values), np.array([c / norm for c in counts], np.float32))
    # c / sqrt(sum c^2) rounded to float32: the sum of squares is off by at most 2 * 2^-24 in relative terms
    assert not len(values) or abs((values.astype(np.float64) ** 2).sum() - 1) <= 3 * 2.0**-24


@given(st.integers(0, 2**32))
@settings(max_examples=15)
def test_loss_and_gradient_are_those_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    B, N, V = (int(n) for n in rng.integers(1, 6, 3))
    params = {"w": rng.normal(size=(V, 1)), "b": rng.normal(size=1)}
    ids, values = rng.integers(0, V, (B, N)), rng.random((B, N))
    targets, weights = rng.integers(0, 2, B).astype(float), rng.random(B) + 0.1
    z, z_back = quality_logits(params, ids=ids, weights=values)
    loss, loss_back = binary_cross_entropy(z, targets=targets, weights=weights)
    dloss = rng.normal()
    gradient = z_back(loss_back(dloss))
    expected, dw, db = logistic_loss(params["w"][:, 0], params["b"][0], ids=ids, values=values, targets=targets, weights=weights)
    # z: N products of numbers below 4; p, log p and the sums over B rows: a few roundings each, of numbers below 1 + |z|
    bound = (8 * N + 4 * B + 20) * EPS * (1 + 4 * N)
    assert abs(loss - expected) <= bound
    assert np.abs(gradient["w"][:, 0] - dloss * dw).max() <= bound * abs(dloss) * N
    assert abs(gradient["b"][0] - dloss * db) <= bound * abs(dloss)


def test_training_tells_them_apart():
    """On texts that it has not seen.  The best test there is, the likelihood ratio, errs in well under 1% here."""
    right = [MODEL.score(t) > 0.5 for t in texts(True, 100, 3)] + [MODEL.score(t) < 0.5 for t in texts(False, 100, 4)]
    assert np.mean(right) > 0.95
    again = train_quality(iter(GOOD), iter(BAD), bits=12, epochs=6)
    assert np.array_equal(again.w, MODEL.w) and again.b == MODEL.b
    ids, weights = padded([text_features(t, bits=12) for t in GOOD[:3]])
    z, _ = quality_logits({"w": MODEL.w[:, None], "b": np.array([MODEL.b])}, ids=ids, weights=weights)
    scores = [MODEL.score(t) for t in GOOD[:3]]
    # z in float32: fewer than 100 products, |w x| < 1 in sum below 10; the sigmoid has slope 1/4 at most
    assert np.abs(1 / (1 + np.exp(-z.astype(np.float64))) - scores).max() < 100 * 2.0**-24 * 10 / 4
    assert 0 <= MODEL.score("") <= 1


def test_files(tmp_path):
    path = tmp_path / "quality.safetensors"
    MODEL.save(path)
    again = load_quality(path)
    assert np.array_equal(again.w, MODEL.w) and again.b == MODEL.b and again.bits == 12
    QualityModel(np.array([np.nan, 1], np.float32), 0.0).save(path)
    with pytest.raises(ValueError, match="w: expected finite numbers"):
        load_quality(path)
    QualityModel(np.ones(3, np.float32), 0.0).save(path)
    with pytest.raises(ValueError, match=r"w: expected 2\^1 to 2\^24 numbers, got 3"):
        load_quality(path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match="expected a model's safetensors file"):
        load_quality(path)


def test_threshold():
    step = pickle.loads(pickle.dumps(quality(model=MODEL, threshold=0.5)))
    kept, counts = step(Document(GOOD[0], "a", {"id": 1}))
    assert kept is not None and kept.fields == {"id": 1, "quality": MODEL.score(GOOD[0])} and counts == {}
    assert step(Document(BAD[0], "b")) == (None, {"quality below 0.5": 1})
    everything = quality(model=MODEL, alpha=None)
    assert everything(Document(BAD[0], "b"))[0] == Document(BAD[0], "b", {"quality": MODEL.score(BAD[0])})


def test_draws_follow_the_pareto_law():
    """P(draw > x) = (1 + x)^-alpha, within five standard deviations of 4,000 draws (odds against: 10^6)."""
    n = 4000
    for alpha, x in ((9.0, 0.1), (9.0, 0.3), (1.0, 1.0)):
        p = (1 + x) ** -alpha
        draws = [pareto_draw(f"text {i}", alpha=alpha, seed=5) for i in range(n)]
        assert abs(np.mean(np.array(draws) > x) - p) < 5 * math.sqrt(p * (1 - p) / n)
        assert min(draws) >= 0
    assert pareto_draw("a", alpha=9, seed=1) == pareto_draw("a", alpha=9, seed=1) != pareto_draw("a", alpha=9, seed=2)
    assert pareto_draw("a", alpha=1e-9) == math.inf


def test_sampling_by_quality():
    """A document stays with the probability (2 - score)^-alpha, whatever else is in the corpus."""
    flat = QualityModel(np.zeros(4, np.float32), math.log(0.9 / 0.1))  # every text has the score 0.9
    step = quality(model=flat, alpha=9.0, seed=3)
    kept = [step(Document(f"text {i}", "a")) for i in range(2000)]
    p = 1.1**-9
    assert abs(np.mean([document is not None for document, _ in kept]) - p) < 5 * math.sqrt(p * (1 - p) / 2000)
    assert all(counts == ({} if document else {"not drawn by quality": 1}) for document, counts in kept)
    sure = quality(model=QualityModel(np.zeros(4, np.float32), 100.0))  # a score of 1
    assert sure(Document("x", "a"))[0] is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_quality("abc", ["b"]), "good: expected several strings"),
        (lambda: train_quality(["a"], []), "bad: expected at least one text, got none"),
        (lambda: train_quality(["a"], ["b"], bits=25), "bits: expected an integer from 1 to 24"),
        (lambda: train_quality(["a"], ["b"], rate=0), "rate: expected a finite number > 0"),
        (lambda: quality(model=MODEL, threshold=1.5), "quality: threshold: expected None or a finite number"),
        (lambda: quality(model=MODEL, alpha=0), "quality: alpha: expected None or a finite number > 0"),
        (lambda: quality(model=None), "quality: model: expected a path"),
        (lambda: quality(model="/nowhere/at/all"), "/nowhere/at/all: expected a file"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
