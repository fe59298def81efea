"""Models of languages and of quality, trained from files."""

from __future__ import annotations

import json

import pytest

from tests.data.test_quality import BAD, GOOD
from tests.support.language_samples import SAMPLES
from tinyplm.data.language import load_language, train_language
from tinyplm.data.model_training import train_language_files, train_quality_files
from tinyplm.data.pipeline import Document
from tinyplm.data.pipeline.registry import make, specs
from tinyplm.data.quality import load_quality, train_quality


def test_languages(tmp_path):
    files = {}
    for code in ("en", "de", "ru"):
        files[code] = tmp_path / f"{code}.txt"
        files[code].write_text("\n".join([*SAMPLES[code], "12", ""]), encoding="utf-8")
    out = tmp_path / "languages.safetensors"
    figures = train_language_files(files, out, held_out=0.25, seed=3, bits=12)
    assert {code: (row["samples"], row["held_out"]) for code, row in figures["languages"].items()} == dict.fromkeys(
        files, (15, 5)
    )
    assert 0.8 <= figures["accuracy"] <= 1
    assert figures["accuracy"] == pytest.approx(sum(row["accuracy"] for row in figures["languages"].values()) / 3)
    assert load_language(out).languages == ["en", "de", "ru"] and load_language(out).bits == 12
    first = out.read_bytes()
    assert train_language_files(files, out, held_out=0.25, seed=3, bits=12) == figures and out.read_bytes() == first
    assert train_language_files(files, out, held_out=0, bits=12)["accuracy"] is None


def test_quality(tmp_path):
    good, bad, out = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "quality.safetensors"))
    for path, texts in ((good, GOOD), (bad, BAD)):
        path.write_text("".join(json.dumps({"body": text, "n": 1}) + "\n" for text in texts))
    figures = train_quality_files(good, [bad], out, field="body", bits=12, epochs=4)
    assert (figures["good"]["texts"], figures["good"]["held_out"], figures["bad"]["held_out"]) == (54, 6, 9)
    assert min(row["accuracy"] for row in figures.values()) >= 0.75
    model = load_quality(out)
    assert model.bits == 12 and model.score(GOOD[0]) > 0.5 > model.score(BAD[0])
    out.unlink()
    for call, message in (
        (lambda: train_quality_files(good, bad, out), r"good\.jsonl: expected texts, got .*good\.jsonl"),
        (lambda: train_quality_files(good, [], out, field="body"), "input: expected at least one file"),
        (lambda: train_quality_files(good, bad, tmp_path / "a" / "b", field="body"), "out: expected a file in a folder"),
        (lambda: train_quality_files(good, bad, out, field="body", held_out=1), "held_out: expected a finite number"),
        (lambda: train_language_files({}, out), "files: expected a table"),
        (lambda: train_language_files({"en": tmp_path / "none.txt"}, out), "expected a file, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not out.exists()


def test_the_steps_by_name(tmp_path):
    """As a TOML file lists them."""
    train_language(SAMPLES, bits=12).save(tmp_path / "l.safetensors")
    train_quality(SAMPLES["en"], SAMPLES["de"], bits=12, epochs=2).save(tmp_path / "q.safetensors")
    listed = [
        {"name": "language", "model": str(tmp_path / "l.safetensors"), "keep": ["en"]},
        {"name": "quality", "model": str(tmp_path / "q.safetensors"), "threshold": 0.5},
        {"name": "privacy", "kinds": ["mail"], "masks": {"mail": "[MAIL]"}},
    ]
    document = Document("The train leaves at nine; write to joe@example.com.", "a:1")
    for spec in specs(listed):
        result, _ = make(spec)(document)
        assert result is not None
        document = result
    assert document.text == "The train leaves at nine; write to [MAIL]."
    assert set(document.fields) == {"language", "language_probability", "quality"}
    with pytest.raises(ValueError, match="step 1: privacy: kinds: expected one of mail"):
        specs([{"name": "privacy", "kinds": ["post"]}])
