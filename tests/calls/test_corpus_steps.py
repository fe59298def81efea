"""Invalid calls of the steps of the corpus pipeline and of what they are made of: every argument, every wrong kind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.wrong_calls import wrong_calls
from tinyplm.data import language, privacy, quality

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
WORDS = {"model": ["file", "hello", "xxx"], "path": ["file", "/", "hello", "xxx"]}


@pytest.mark.parametrize(("f", "right"), [*PRIVACY, *MODELS], ids=lambda v: getattr(v, "__qualname__", ""))
def test_wrong_kinds(f, right):
    if right.get("path") != "/nowhere/at/all":
        f(**right)
    complaints = wrong_calls(f, right, aliases=WORDS)
    complaints = [c for c in complaints if "No such file or directory" not in c and "File name too long" not in c]
    assert not complaints, "\n".join(complaints)
