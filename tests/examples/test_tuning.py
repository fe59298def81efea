"""The tuning examples as a user runs them, with small models on a small corpus, and hand-checked skills."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import ROOT
from tinyplm.data import corpus
from tinyplm.tokenizers.chat.formats import TEMPLATES, folder_template
from tinyplm.training.log import read

SENTENCES = [f"The {a} {b} the {c} of a {d} module." for a in ("old", "new", "next", "last") for b in ("reads", "writes", "keeps")
             for c in ("name", "value", "size", "type") for d in ("small", "large")]  # fmt: skip
PLOT = importlib.util.find_spec("matplotlib") is not None


def documents():
    draw = np.random.default_rng(0)
    return [" ".join(SENTENCES[n] for n in draw.permutation(len(SENTENCES))[:40]) for _ in range(40)]


@pytest.fixture
def example(monkeypatch, run):
    """run(script, *arguments), where skills.py has a small model and corpus; the modules are freshly imported."""
    monkeypatch.setattr(corpus, "default_corpus", documents)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    for name in ("skills", "dpo"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import skills

    skills.new_model.__kwdefaults__["layers"] = 1
    skills.base_model.__kwdefaults__["width"] = 64
    yield run
    for name in ("skills", "dpo"):
        sys.modules.pop(name, None)


def finished(done, *expected):
    assert done.code == 0, done.err
    for text in expected:
        assert text in done.out
    return done


def stops_at_the_end_of_a_turn(folder):
    model = tinyplm.load(folder)
    end = model.tokenizer.token_to_id("<|im_end|>")
    assert end is not None and model.end_ids() == {model.tokenizer.eos_id, end}
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [model.tokenizer.eos_id, end]
    assert folder_template(model.files) is TEMPLATES["chatml"]


def test_the_skills_by_hand(example):
    import skills

    for skill in skills.TASKS:
        training, test = (skills.samples(skill, 60, held_out=held_out) for held_out in (False, True))
        inputs = [{tuple(v for k, v in s.fields.items() if k != "answer") for s in some} for some in (training, test)]
        assert len(inputs[0]) == len(inputs[1]) == 60 and not inputs[0] & inputs[1]
        for sample in training:
            items, fields = sample.fields.get("items", "").split(), sample.fields
            right = {"copy": items, "reverse": items[::-1], "sort": sorted(items)}
            assert sample.answer == (str(int(fields["a"]) + int(fields["b"])) if skill == "add" else " ".join(right[skill]))
            assert {sample.messages(key)[1]["content"] for key in range(5)} == {sample.answer}
    assert len({skills.samples("copy", 1, held_out=True)[0].messages(key)[0]["content"] for key in range(20)}) == 3
    with pytest.raises(ValueError, match="expected at most"):
        skills.samples("add", 700, held_out=True)


def test_sft(example, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # known formats are rendered without it
    out = tmp_path / "out"
    small = ("--base-steps", "3", "--steps", "8", "--batch", "8", "--samples", "40", "--tests", "4", "--workers", "1")
    finished(example("sft.py", *small, "--out", str(out)), "exact match on held-out", "Put in order: j b e", "held-out answers")
    assert (out / "sft.png").exists() == PLOT and (out / "final/chat_template.jinja").exists()
    stops_at_the_end_of_a_turn(out / "final")


START = ("--base-steps", "3", "--sft-steps", "45", "--samples", "60", "--tests", "12", "--workers", "1")


def test_dpo(example, tmp_path):
    done = finished(
        example("dpo.py", *START, "--steps", "3", "--beta", "0.1", "1", "--out", str(tmp_path / "out")), "win rate", "reference"
    )
    assert (tmp_path / "out/dpo.png").exists() == PLOT
    assert "DPO        beta 0.1, seed 0\n" in done.out and "DPO        beta 1, seed 0\n" in done.out
    assert " to " not in done.out[done.out.index("held-out prompts, seed 0") :]  # a single seed has no range
    stops_at_the_end_of_a_turn(tmp_path / "out/seed-0/beta-1/final")
    records = list(read(tmp_path / "out/seed-0/beta-1/log.jsonl"))
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3] and "validation_accuracy" in records[0]
    assert example("dpo.py", *START, "--out", str(tmp_path / "out")).code == 1 and done.err is not None


def test_what_dpo_prefers(example):
    import dpo
    import skills

    sample = skills.samples("sort", 1, held_out=True)[0]
    texts = [sample.answer, f"Of course: {sample.answer}", "x", "Of course: x"]
    assert [dpo.rank(sample, text) for text in texts] == [3, 1, 2, 0]


def test_rlhf(example, tmp_path):
    finished(example("rlhf.py", *START, "--reward-steps", "3", "--rounds", "2", "--prompts", "6", "--out", str(tmp_path / "out")),
             "reward     ", "courtesy", "The reward model's score")  # fmt: skip
    assert (tmp_path / "out/rlhf.png").exists() == PLOT
    stops_at_the_end_of_a_turn(tmp_path / "out/ppo/final")
    assert tinyplm.load(tmp_path / "out/reward/final").task == "sequence_classification"


def test_distill(example, tmp_path):
    small = ("--teacher-steps", "3", "--steps", "8", "--width", "16", "--layers", "1", "--tokens", "2000", "--workers", "1")
    finished(example("distill.py", *small, "--out", str(tmp_path / "out")), "gain from the teacher", "student, text alone")
    assert (tmp_path / "out/distill.png").exists() == PLOT


def test_lora(example, tmp_path):
    small = ("--base-steps", "3", "--steps", "3", "--tokens", "4000", "--ranks", "1", "2", "--workers", "1")
    finished(example("lora.py", *small, "--out", str(tmp_path / "out")), "LoRA, rank 2", "last layer", "everything")
    assert (tmp_path / "out/lora.png").exists() == PLOT


def test_prompting(example, tmp_path):
    small = ("--documents", "120", "--steps", "3", "--tuning-steps", "2", "--draws", "1", "--shots", "0", "2", "--workers", "1")
    done = finished(example("prompting.py", *small, "--out", str(tmp_path / "out")), "soft prompt, ", "calibrated", "2 in the pr")
    assert "trained" in done.out and (tmp_path / "out/prompting.png").exists() == PLOT


def test_the_whole_path(example, tmp_path):
    small = ("--dpo-steps", "2", "--rounds", "2", "--out", str(tmp_path / "out"))
    finished(example("whole_path.py", *START, *small), "4-grpo", "preference accuracy", "text loss")
    for name in ("1-pretrained", "2-sft", "3-dpo", "4-grpo"):
        stops_at_the_end_of_a_turn(tmp_path / "out" / name)
    assert (tmp_path / "out/path.png").exists() == PLOT


@pytest.mark.parametrize("script, arguments, message", [
    ("sft.py", ("--steps", "0"), "--steps: expected an integer >= 1, got 0"), ("dpo.py", ("--seeds", "0"), "--seeds: expected"),
    ("dpo.py", ("--beta", "0"), "beta"), ("rlhf.py", ("--rounds", "0"), "--rounds"), ("distill.py", ("--tokens", "3"), "--tok"),
    ("lora.py", ("--tokens", "3"), "--tokens"), ("prompting.py", ("--draws", "0"), "--draws"),
    ("whole_path.py", ("--tests", "0"), "--tests"),
    ("lora.py", ("--ranks", "129"), "--ranks: expected an integer from 1 to 128, got 129"),
])  # fmt: skip
def test_bad_options(example, script, arguments, message, tmp_path):
    done = example(script, *arguments, "--out", str(tmp_path / "out"))
    assert done.code == 1 and message in done.err and "Traceback" not in done.err


def test_a_row_too_short_for_the_sequences_is_refused_before_training(example, tmp_path):
    for packed in ("1", "129"):
        done = example("sft.py", "--packed", packed, "--samples", "4", "--tests", "2", "--out", str(tmp_path / "out"))
        assert done.code == 1 and "--packed: expected an integer from " in done.err and "base   " not in done.out
