"""tinyplm data train-language and train-quality: what they write, print and refuse."""

from __future__ import annotations

from tests.support.language_samples import SAMPLES
from tests.support.scripts import assert_one_line
from tinyplm.data.language import load_language
from tinyplm.data.quality import load_quality


def test_train_and_refuse(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in ("en", "de"):
        (tmp_path / f"{code}-1.txt").write_text("\n".join(SAMPLES[code]), encoding="utf-8")
        (tmp_path / f"{code}-1.jsonl").write_text("".join(f'{{"text": "{t}"}}\n' for t in SAMPLES[code]), encoding="utf-8")
    done = run("data", "train-language", "--samples", "en=en-1.txt", "de=de*.txt", "--out", "l.safetensors")
    assert done.code == 0 and [line.split()[:3] for line in done.out.splitlines()[1:3]] == [["en", "18", "2"], ["de", "18", "2"]]
    assert load_language("l.safetensors").guess("Das Haus ist schon alt.").language == "de"
    done = run("data", "train-quality", "--good", "en*.jsonl", "--bad", "de-1.jsonl", "--out", "q.safetensors")
    assert done.code == 0 and "good" in done.out and 'name = "quality"' in done.out
    model = load_quality("q.safetensors")
    assert model.score(SAMPLES["en"][0]) > 0.5 > model.score(SAMPLES["de"][0])
    for arguments, message in (
        (["train-quality", "--good", "en-1.txt", "--out", "x"], "--bad: expected files of texts"),
        (["train-language", "--samples", "en", "--out", "x"], "--samples: expected CODE=FILE"),
        (["train-language", "--out", "x"], "--samples: expected CODE=FILE for each language"),
        (["train-language", "--samples", "en=none.txt", "--out", "x"], "none.txt: expected a file"),
        (["train-language", "more", "--out", "x"], "data: expected train-language"),
        (["train-language", "--samples", "en=en-1.txt"], "--out: expected the model's file"),
    ):
        done = run("data", *arguments)
        assert done.code == 2
        assert_one_line(done, message)
    assert not (tmp_path / "x").exists()
