"""Invalid calls of the steps of the corpus pipeline and of what they are made of: every argument, every wrong kind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.wrong_calls import wrong_calls
from tinyplm.data import cleaning, language, pipeline, privacy, quality
from tinyplm.data.pipeline.comparison import compare_corpora

LANGUAGE = language.train_language({"en": ["the house"], "de": ["das Haus"]}, bits=6)
QUALITY = quality.QualityModel(np.zeros(8, np.float32), 0.0)
KINDS = {"kinds": ["mail", "ip"], "public_only": True, "old_identity": False}
PRIVACY = [
    (privacy.privacy, {**KINDS, "action": "mask", "masks": {"mail": "M"}, "pseudonyms": 3}),
    (privacy.find, {"text": "a@b.com", **KINDS}),
    (privacy.luhn, {"digits": "18"}),
    (privacy.luhn_digit, {"digits": "1"}),
    (privacy.identity_check, {"digits": "11010519491231002"}),
    (privacy.is_identity_number, {"text": "11010519491231002X"}),
    (privacy.is_old_identity_number, {"text": "130503670401001"}),
    (privacy.card_issuer, {"digits": "4111111111111111"}),
    (privacy.is_card_number, {"digits": "4111111111111111"}),
]
MODELS = [
    (language.character_ngrams, {"text": "abc", "longest": 4, "bits": 6}),
    (language.language, {"model": LANGUAGE, "keep": ["en"], "threshold": 0.5}),
    (language.train_language, {"samples": {"en": ["a"]}, "longest": 4, "bits": 6, "smoothing": 0.1}),
    (language.load_language, {"path": "/nowhere/at/all"}),
    (LANGUAGE.probabilities, {"text": "abc"}),
    (LANGUAGE.guess, {"text": "abc"}),
    (quality.text_features, {"text": "a b", "bits": 6}),
    (quality.quality, {"model": QUALITY, "threshold": None, "alpha": 9.0, "seed": 0}),
    (quality.pareto_draw, {"text": "a", "alpha": 9.0, "seed": 0}),
    (quality.train_quality, {"good": ["a"], "bad": ["b"], "bits": 6, "epochs": 1, "batch": 1, "rate": 0.1, "weight_decay": 0.0,
                             "seed": 0}),
    (quality.load_quality, {"path": "/nowhere/at/all"}),
    (QUALITY.score, {"text": "abc"}),
]  # fmt: skip
SHARES = {"most_lines": 0.3, "most_line_characters": 0.2, "most_paragraphs": 0.3, "most_paragraph_characters": 0.2}
GOPHER = {
    "least_words": 50,
    "most_words": 99,
    "least_length": 3.0,
    "most_length": 10.0,
    "most_symbols": 0.1,
    "most_bullets": 0.9,
    "most_ellipses": 0.3,
    "least_alphabetic": 0.8,
    "least_stop_words": 2,
}
CLEANING = [
    (cleaning.unicode, {"form": "NFC", "mojibake": True, "controls": True, "spaces": True}),
    (cleaning.c4, {"least_words": 5, "least_sentences": 3, "longest_word": 1000, "ends": ".", "bad_words": None}),
    (cleaning.c4_spans, {"sentences": 3}),
    (cleaning.gopher_quality, GOPHER),
    (cleaning.gopher_repetition, {**SHARES, "top": 1.0, "duplicate": 1.0}),
    (
        cleaning.fineweb,
        {"least_punctuation": 0.12, "most_short": 0.67, "short": 30, "most_duplicates": 0.01, "most_line_ends": 0.3},
    ),
]
WORDS = {"bad_words": ["file"], "model": ["file", "hello", "xxx"], "path": ["file", "/", "hello", "xxx"]}


@pytest.mark.parametrize(("f", "right"), [*PRIVACY, *MODELS, *CLEANING], ids=lambda v: getattr(v, "__qualname__", ""))
def test_wrong_kinds(f, right):
    if right.get("path") != "/nowhere/at/all":
        f(**right)
    complaints = wrong_calls(f, right, aliases=WORDS)
    complaints = [c for c in complaints if "No such file or directory" not in c and "File name too long" not in c]
    assert not complaints, "\n".join(complaints)


def test_wrong_kinds_for_whole_runs(tmp_path, monkeypatch):
    """Of each the file that it reads is small; every wrong call ends before anything is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("One.")
    steps, out = [{"name": "unicode"}], "out"
    right = {"inputs": "a.txt", "steps": steps, "out": out, "field": "text", "workers": 1, "resume": True, "format": "jsonl",
             "compression": "none", "shard": 99, "longest": 99, "progress": None}  # fmt: skip
    pipeline.run_pipeline(**right)
    names = {"inputs": ["input", "file"], "steps": ["step"], "out": ["out", "manifest"]}
    assert not (found := wrong_calls(pipeline.run_pipeline, right, aliases=names)), "\n".join(found)
    right = {"a": "a.txt", "b": "a.txt", "field": "text", "longest": 99}
    assert not (found := wrong_calls(compare_corpora, right, aliases={"a": ["file", "input"], "b": ["file", "input"]})), (
        "\n".join(found)
    )
