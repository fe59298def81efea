"""Language identification: against the formula, on held-out sentences, files, and the step."""

from __future__ import annotations

import pickle
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data import language as reference
from tests.support.language_samples import SAMPLES
from tinyplm.data.language import character_ngrams, language, load_language, train_language
from tinyplm.data.language.ngrams import normalized
from tinyplm.data.language.scripts import code_points, main_script
from tinyplm.data.pipeline import Document

MODEL = train_language(SAMPLES, bits=14)


def test_it_is_the_formula():
    """The same counts as of the n-grams themselves, since here no two share a bucket."""
    samples = {code: [normalized(t) for t in SAMPLES[code][:2]] for code in ("en", "de", "fr")}
    texts = [*(t for some in samples.values() for t in some), " where is the haus "]
    pairs = {
        pair for t in texts for pair in zip(reference.ngrams(t, 4), character_ngrams(t, longest=4, bits=20).tolist(), strict=True)
    }
    assert len(pairs) == len({g for g, _ in pairs}) == len({bucket for _, bucket in pairs}) > 500
    model = train_language(samples, bits=20, smoothing=0.3)
    for text in texts:
        expected = reference.probabilities(normalized(text), samples, longest=4, vocabulary=2**20, smoothing=0.3)
        got = model.probabilities(text)
        # Each log p is a float32, with an error of at most 2^-24 |log p|, |log p| < 16; p changes by less than the difference of
        # two scores, which are such sums over 4.
        bound = 2 * len(reference.ngrams(normalized(text), 4)) * 16 * 2.0**-24 / 4
        assert all(abs(got[code] - p) <= bound for code, p in expected.items())


def test_held_out_sentences_of_seven_languages():
    right = []
    for part in range(4):
        training = {code: [t for i, t in enumerate(some) if i % 4 != part] for code, some in SAMPLES.items()}
        model = train_language(training, bits=14)
        right += [model.guess(t).language == code for code, some in SAMPLES.items() for t in some[part::4]]
    assert len(right) == 140 and sum(right) >= 0.97 * len(right)


@given(st.text(max_size=30), st.integers(1, 5), st.integers(1, 20))
@settings(max_examples=25)
def test_any_text(text, longest, bits):
    buckets = character_ngrams(text, longest=longest, bits=bits)
    plain = normalized(text)
    assert len(buckets) == len(reference.ngrams(plain, longest))
    assert ((buckets >= 0) & (buckets < 2**bits)).all()
    found = MODEL.probabilities(text)
    assert not found or abs(sum(found.values()) - 1) < 1e-12
    assert list(MODEL.guess(text)) == max([[None, 0.0], *map(list, found.items())], key=lambda pair: pair[1])


def test_scripts():
    texts = {
        "Latin": "aé",
        "Cyrillic": "Привет a",
        "Han": "你好啊a",
        "Kana": "東京へ",
        "Hangul": "한국어",
        "Greek": "ωα",
        None: "12 ×÷ ...",
    }
    for script, text in texts.items():
        assert main_script(code_points(text)) == script
    assert MODEL.guess("Καλημέρα σε όλους") == (None, 0.0)  # no language in this script
    assert MODEL.guess("早上好") == ("zh", 1.0) and MODEL.guess("おはよう") == ("ja", 1.0)


def test_files(tmp_path):
    path = tmp_path / "languages.safetensors"
    MODEL.save(path)
    again = load_language(path)
    assert np.array_equal(again.log_p, MODEL.log_p) and again.log_p.dtype == np.float32
    assert (again.languages, again.scripts, again.longest) == (MODEL.languages, MODEL.scripts, MODEL.longest)
    data = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == data
    for content, message in (
        (data[:-1], "expected a model's safetensors file"),
        (data.replace(b'\\"kind\\": \\"language\\"', b'\\"kind\\": \\"lingo\\"   '), "expected a language model"),
        (data.replace(b'\\"longest\\": 4', b'\\"longest\\": 9'), "longest: expected an integer from 1 to 8"),
        (data.replace(b'\\"ru\\"', b'\\"\\"  '), "a language: expected a non-empty string"),
        (data.replace(b"Cyrillic", b"Klingons"), "script of 'ru': expected one of"),
        (data.replace(b"\\\"languages\\\": [", b"\\\"languages_\\\":["), "expected lists of languages and scripts"),
    ):  # fmt: skip
        assert content != data
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_language(path)


def test_step():
    step = pickle.loads(pickle.dumps(language(model=MODEL, keep=["en", "zh"])))
    kept, counts = step(Document("We went to the harbour in the morning.", "a:1", {"id": 3}))
    assert kept is not None and not counts
    assert kept.fields["id"] == 3 and kept.fields["language"] == "en" and 0.65 < kept.fields["language_probability"] <= 1
    assert step(Document("Мы пошли домой.", "a:2")) == (None, {"language ru": 1})
    assert step(Document("12345", "a:3")) == (None, {"language unknown": 1})
    unsure = language(model=MODEL, threshold=1.0)
    assert unsure(Document("la", "a:4")) == (None, {"language unsure": 1})
    assert language(model=MODEL, threshold=0)(Document("la", "a:4"))[0] is not None


def test_fasttext(tmp_path, monkeypatch):
    """With a stand-in for the library, which has no wheel here."""
    path = tmp_path / "lid.bin"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(ValueError, match=r"expected the library fasttext, got none installed .*pip install fasttext-wheel"):
        language(model=path)

    class Library(types.ModuleType):
        def load_model(self, name):
            assert name == str(path)
            return self

        def predict(self, line, k):
            assert "\n" not in line and k == 1
            return (("__label__de",), np.array([1.00001])) if line else ((), np.array([]))

    monkeypatch.setitem(sys.modules, "fasttext", Library("fasttext"))
    step = pickle.loads(pickle.dumps(language(model=path, keep=["de"])))
    kept, _ = step(Document("Guten\nTag", "a"))
    assert kept is not None and kept.fields == {"language": "de", "language_probability": 1.0}
    assert step(Document("", "a")) == (None, {"language unknown": 1})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_language([]), "samples: expected a table"),
        (lambda: train_language({"": ["a"]}), "samples: a language: expected a non-empty string"),
        (lambda: train_language({"en": "abc"}), "samples: 'en': expected several strings"),
        (lambda: train_language({"en": ["12"]}), "samples: 'en': expected texts with letters"),
        (lambda: train_language(SAMPLES, bits=0), "bits: expected an integer from 1 to 24"),
        (lambda: train_language(SAMPLES, smoothing=0), "smoothing: expected a finite number > 0"),
        (lambda: language(model=MODEL, threshold=2), "language: threshold: expected a finite number"),
        (lambda: language(model=MODEL, keep=["xx"]), "language: keep: expected some of en, de"),
        (lambda: language(model=MODEL, keep=[]), "language: keep: expected None or at least one"),
        (lambda: language(model=3), "language: model: expected a path"),
        (lambda: language(model="/nowhere/at/all"), "/nowhere/at/all: expected a file"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
