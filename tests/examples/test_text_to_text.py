"""examples/text_to_text.py as a user runs it, and the tasks that it makes."""

from __future__ import annotations

import ast

import pytest

import tinyplm
from tests.support.scripts import EXAMPLES, load_example
from tinyplm import random

QUICK = ("--size", "tiny", "--samples", "60", "--tests", "4", "--validation", "4", "--vocabulary", "300", "--steps", "5",
         "--batch", "4", "--evaluate-every", "5")  # fmt: skip
OPTIONS = {"seed": 0, "samples": 400, "validation": 4, "tests": 8}


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return load_example("text_to_text")


@pytest.fixture
def a_small_library(monkeypatch):
    """Instead of the standard library, which takes seconds to read."""

    def documented():
        for n in range(200):
            node = ast.parse(f"def f{n}(a, b={n}): pass").body[0]
            yield f"package.m{n // 4}", node, f"Return the number {n} of it.\n\nIt comes from a list of {n} names."

    monkeypatch.setattr("docstrings.documented", documented)


@pytest.mark.parametrize("alone", ["none", "share", "full"])
def test_the_whole_story(run, a_small_library, tmp_path, alone):
    out = tmp_path / "out"
    done = run("text_to_text.py", *QUICK, "--alone", alone, "--out", str(out))
    assert done.code == 0, done.err
    for task in ("summarize", "describe", "reverse", "count", "sentiment"):
        assert f"source     {task}: " in done.out and (f"{task} alone" in done.out) == (alone != "none")
    assert ("one for the task" in done.out) == (alone != "none")
    if alone == "full":
        assert all(tinyplm.load(out / task / "step-5").task == "seq2seq_lm" for task in ("together", "count"))
    again = run("text_to_text.py", "--out", str(out), "--resume")
    assert again.code == 0 and again.out.rsplit("Test, ", 1)[1] == done.out.rsplit("Test, ", 1)[1], again.err
    assert run("text_to_text.py", "--out", str(out)).code == 1


def test_no_text_is_trained_on_and_tested(example, a_small_library):
    import docstrings  # the module that the example imports

    example.documented = docstrings.documented
    for name, task in example.tasks(OPTIONS).items():
        sources = [source for part in task for source, _ in part]
        assert len({*sources}) == len(sources) and len(task.test) == 8 and len(task.validation) == 4, name
        if name == "describe":  # f17 is in module 4: no module is on both sides
            trained, tested = ({int(source[1:].split("(")[0]) // 4 for source, _ in part} for part in (task.training, task.test))
            assert trained and not trained & tested
    with pytest.raises(ValueError, match="--tests: expected fewer, got 500"):
        example.tasks({**OPTIONS, "tests": 500})


def test_made_up_tasks_are_right(example):
    draw = random.generator(1)
    for _ in range(300):
        source, target = example.reverse(draw)
        assert source.split() == target.split()[::-1]
        source, target = example.count(draw)
        word, _, *words = source.split()
        assert example.NUMBERS.index(target) == words.count(word)
        source, target = example.sentiment(draw)
        last = source.rstrip(".").split(", but ")[-1].split(" and ")[-1]
        words = {*last.split()}
        good = bool(words & {*example.GOOD, "liked"}) != bool(words & {"not", "never"})
        assert target == ("positive" if good else "negative"), source


def test_measures(example):
    task = example.Task([], [], [("a", "one two"), ("b", "three")])
    exact, rouge_l = example.measured(["one two", "four"], task)
    assert exact == rouge_l == 0.5
    assert example.measured(["one", "three"], task) == (0.5, pytest.approx((2 / 3 + 1) / 2))
