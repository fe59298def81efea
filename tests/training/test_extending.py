"""Runs that are resumed with more steps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.support import families
from tests.support.survivor import QUICK, TOKENS, contents, interrupted, run
from tinyplm.hub.tensors import read_safetensors
from tinyplm.training.checkpoint import find
from tinyplm.training.log import read
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings

PEAK, W = 0.01, 2  # as in survivor.QUICK
QUIET = {"evaluate_every": 100, "keep": 9}


def rates(out: Path) -> list[float]:
    return [record["learning_rate"] for record in read(out / "log.jsonl") if "loss" in record]


def parameters(out: Path) -> dict[str, bytes]:
    return {name: a.tobytes() for name, a in read_safetensors(find(out) / "model.safetensors")[0].items()}


def cosine(s: int, T: int, w: int = W) -> float:
    return PEAK * (s + 1) / w if s < w else PEAK * (1 + math.cos(math.pi * (s - w) / (T - w))) / 2


def linear(s: int, T: int, w: int = W) -> float:
    return PEAK * (s + 1) / w if s < w else PEAK * (T - s) / (T - w)


FORMULAS = {"cosine": cosine, "linear": linear}


@pytest.mark.parametrize("schedule", FORMULAS)
@pytest.mark.parametrize("extend", ["stretch", "restart"])
def test_the_rates_are_those_of_the_docstring_and_the_extended_run_resumes(schedule, extend, tmp_path):
    """Extended from 4 steps to 9, and again to 11; interrupted, it continues without being told how it was extended."""
    eta = FORMULAS[schedule]
    for out in (tmp_path / "whole", tmp_path / "cut"):
        run(out, steps=4, schedule=schedule, **QUIET)
    run(tmp_path / "whole", steps=9, schedule=schedule, extend=extend, **QUIET)
    with interrupted(4):  # before its first checkpoint: told again
        run(tmp_path / "cut", steps=9, schedule=schedule, extend=extend, **QUIET)
    with interrupted(6):
        run(tmp_path / "cut", steps=9, schedule=schedule, extend=extend, **QUIET)
    with interrupted(7):  # a repeated call extends nothing
        run(tmp_path / "cut", steps=9, schedule=schedule, extend="restart", **QUIET)
    run(tmp_path / "cut", steps=9, schedule=schedule, **QUIET)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    before = [eta(s, 4) for s in range(4)]
    c = 4 if extend == "restart" else 0
    assert rates(tmp_path / "cut") == pytest.approx(before + [eta(s - c, 9 - c) for s in range(4, 9)], rel=1e-12, abs=1e-15)
    run(tmp_path / "cut", steps=11, schedule=schedule, extend="stretch", **QUIET)
    assert rates(tmp_path / "cut")[9:] == pytest.approx([eta(s - c, 11 - c) for s in (9, 10)], rel=1e-12)
    assert json.loads((find(tmp_path / "cut") / "trainer.json").read_text())["state"]["cycle"] == c


@pytest.mark.parametrize("schedule", ["constant", "inverse-sqrt", "constant-inverse-sqrt", "stable-decay"])
def test_other_schedules_are_extended_as_if_the_run_had_been_longer(schedule, tmp_path):
    """stable-decay: before its decay has begun, here at step 3 of 5."""
    out, changes = tmp_path / "out", {"schedule": schedule, "decay": 2}
    with interrupted(3):
        run(out, steps=5, **changes, **QUIET)
    run(out, steps=8, **changes, **QUIET)
    run(tmp_path / "longer", steps=8, **changes, **QUIET)
    assert parameters(out) == parameters(tmp_path / "longer") and rates(out) == rates(tmp_path / "longer")


def test_a_decay_that_has_begun_needs_a_decision(tmp_path):
    changes = {"schedule": "stable-decay", "decay": 2, **QUIET}
    run(tmp_path, steps=5, **changes)
    with pytest.raises(
        ValueError, match='extend: expected "stretch" .* or "restart" .*, since stable-decay depends on the number'
    ):
        run(tmp_path, steps=9, **changes)
    run(tmp_path, steps=9, extend="stretch", **changes)
    assert rates(tmp_path) == pytest.approx([PEAK * x for x in (0.5, 1, 1, 1, 0.5, 1, 1, 1, 0.5)])


def test_a_short_rest_of_a_run_has_a_short_warm_up(tmp_path):
    """With w = 2 and two steps left, the warm-up is one step; the decay of a fifth is one step, too."""
    for schedule, second in (("cosine", 1.0), ("stable-decay", 1.0)):
        run(tmp_path / schedule, steps=4, schedule=schedule, **QUIET)
        run(tmp_path / schedule, steps=6, schedule=schedule, extend="restart", **QUIET)
        assert rates(tmp_path / schedule)[4:] == pytest.approx([PEAK, PEAK * second])


def test_what_is_refused(tmp_path):
    """In one line, with nothing changed."""
    run(tmp_path / "out", steps=4, **QUIET)
    before = contents(tmp_path / "out")
    choice = '"stretch" .the rate of the longer schedule from here. or "restart" .another warm-up and cycle for the remaining'
    for changes, message in (
        ({"steps": 9}, f"^extend: expected {choice} steps., since cosine depends on the number of steps, got None for 9 steps"),
        ({"steps": 3}, "^settings.steps: expected at least 4, as in .*trainer.json, got 3"),
        ({"steps": 9, "extend": "stretch", "seed": 5}, "settings.seed was 0, now 5"),
        ({"steps": 9, "extend": "longer"}, "^extend: expected .*stretch.*restart.*, got 'longer'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message) as error:
            run(tmp_path / "out", **{**QUIET, **changes})
        assert "\n" not in str(error.value) and contents(tmp_path / "out") == before
    with pytest.raises(ValueError, match="^extend: expected None without resume, got stretch"):
        train(families.tiny("gpt2"), TOKENS, TOKENS, Settings(**QUICK), out=tmp_path / "new", extend="stretch")
    assert not (tmp_path / "new").exists()
