"""examples/instruction_tuning.py as a user runs it, and its tasks by hand."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import load_example

QUICK = ("--width", "16", "--base-steps", "3", "--samples", "8", "--steps", "2", "--tests", "4", "--workers", "1")


@pytest.fixture(scope="module")
def script():
    return load_example("instruction_tuning")


def test_a_cluster_is_held_out(run, tmp_path):
    out = tmp_path / "out"
    done = run("instruction_tuning.py", *QUICK, "--clusters", "pairs", "rows", "--shots", "2", "--out", str(out))
    assert done.code == 0, done.err
    table = done.out[done.out.index("held out      m") :].splitlines()
    assert table[0].split() == ["held", "out", "majority", "few-shot", "base", "tuned", "seen"]
    rows = {line.split()[0]: [float(cell.rstrip("%")) for cell in line.split()[1:]] for line in table[1:4]}
    assert list(rows) == ["pairs", "rows", "mean"] and all(0 <= value <= 100 for row in rows.values() for value in row)
    assert np.allclose(rows["mean"], np.mean([rows["pairs"], rows["rows"]], axis=0), atol=0.1)
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["base", "without-pairs", "without-rows"]
    assert tinyplm.load(out / "without-pairs" / "final").config.hidden_size == 16
    assert (out / "instruction_tuning.png").exists() == (importlib.util.find_spec("matplotlib") is not None)


def test_tuning_sees_nothing_of_the_cluster(script, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(script, "sft", lambda model, sequences, *_, **__: seen.extend(sequences))
    training = {t.task.name: t.samples(3, held_out=False, key=1) for t in script.TASKS}
    options = script.parser().defaults
    base = script.pretrained(script.argparse.Namespace(**{**options, "base_steps": 1, "width": 8, "workers": 1}), tmp_path)
    script.tuned_without("rows", base, training, script.argparse.Namespace(**options), tmp_path)
    texts = {base.tokenizer.decode(s.ids, skip_special=True) for s in seen}
    wanted = {t.cluster: {f"{s['question']} {s['answer']}" for s in training[t.task.name]} for t in script.TASKS}
    assert len(seen) == 8 * 3 and not texts & wanted["rows"] and texts >= wanted["pairs"]


def truth(script, name, f):
    """The label of a sample, from its fields."""
    row = f.get("row", "").split()
    yes = {
        "one of a kind": lambda: script.WORDS[f["word"]] == f["kind"],
        "first letter": lambda: f["word"][0] == f["letter"],
        "last letter": lambda: f["word"][-1] == f["letter"],
        "member": lambda: f["word"] in row,
        "order": lambda: row.index(f["a"]) < row.index(f["b"]),
        "same word": lambda: f["a"] == f["b"],
        "same kind": lambda: script.WORDS[f["a"]] == script.WORDS[f["b"]],
    }
    if name in yes:
        return "yes" if yes[name]() else "no"
    return {"kind": lambda: script.WORDS[f["word"]], "count": lambda: {2: "two", 3: "three", 4: "four"}[len(row)],
            "place": lambda: "first" if row[0] == f["word"] else "last" if row[-1] == f["word"] else "?"}[name]()  # fmt: skip


def test_every_label_is_true(script):
    draw = np.random.default_rng(0)
    assert len({t.task.name for t in script.TASKS}) == len(script.TASKS) == 10 and len(script.CLUSTERS) == 5
    for task in script.TASKS:
        for label in task.labels * 12:
            fields = task.make(draw, label)
            assert truth(script, task.task.name, fields) == label, (task.task.name, fields)
            assert len({*task.task.phrasings}) == 3 and all("{" in p for p in task.task.phrasings)


def test_samples_are_held_out_by_their_words(script):
    for task in script.TASKS:
        parts = [task.samples(30, held_out=held_out, key=5) for held_out in (False, True)]
        training, tests = ({s["question"] for s in part} for part in parts)
        assert not training & tests and {s["answer"] for s in parts[0]} == set(task.labels)
        assert all(s["question"].endswith("\nAnswer:") for s in parts[0])


def test_the_majority_is_that_of_the_training_samples(script):
    solved, asked = ([{"answer": a} for a in answers] for answers in ("yyn", "nnny"))
    assert script.majority(solved, asked) == 0.25


def test_bad_input(run, tmp_path):
    for arguments, message in ((("--clusters", "none"), "--clusters: expected one of kinds, letters, rows, places, pairs, "),
                               (("--shots", "0"), "--shots: expected an integer from 1 to 16, got 0"),
                               (("--width", "20"), "--width: expected a multiple of 8, got 20")):  # fmt: skip
        done = run("instruction_tuning.py", *QUICK, *arguments, "--out", str(tmp_path / "out"))
        assert done.code == 1 and message in done.err and done.err.count("\n") == 1
