"""tinyplm check: a user's file, the table, the status."""

from __future__ import annotations

import pytest

from tinyplm.checks import COMPONENTS

MINE = """
import numpy as np

from helpers import mean
from tinyplm.checks import check_test


def rmsnorm(x, weight, *, eps=1e-6):
    r = (mean(x * x) + eps) ** -0.5

    def backward(dy):
        g = dy * weight
        return r * (g - x * r * mean(g * x * r)), (dy * x * r).reshape(-1, x.shape[-1]).sum(0)

    return x * r * weight, backward


def wrong(x, weight, *, eps=1e-6):
    y, back = rmsnorm(x, weight, eps=eps)
    return y, lambda dy: (dy * weight, back(dy)[1])


def few(x, weight, *, eps=1e-6):
    y, back = rmsnorm(x, weight, eps=eps)
    return y, lambda dy: back(dy)[:1]


class Layers:
    rmsnorm = staticmethod(rmsnorm)


def forward(x, weight, *, eps):
    return rmsnorm(x, weight, eps=eps)[0]


pair = forward, lambda dy, x, weight, *, eps: rmsnorm(x, weight, eps=eps)[1](dy)
test_mine = check_test(rmsnorm, like="rmsnorm", cases=2, dtypes="float32")
number = 3
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine_to_check.py").write_text(MINE)
    (tmp_path / "helpers.py").write_text("def mean(x):\n    return x.mean(-1, keepdims=True)\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "stops.py").write_text("import sys\nsys.exit()\n")
    (tmp_path / "not python.txt").write_text("")
    return str(tmp_path / "mine_to_check.py")


@pytest.mark.parametrize("name", ["rmsnorm", "Layers.rmsnorm", "pair"])
def test_a_right_function_has_status_0(tinyplm, mine, name):
    status, out, err = tinyplm("check", f"{mine}:{name}", "--like", "rmsnorm", "--cases", 3)
    assert status == 0 and err == "" and "all 15 passed" in out and "in 3 cases" in out


def test_a_wrong_one_has_status_1_and_the_row_says_where(tinyplm, mine):
    status, out, err = tinyplm("check", f"{mine}:wrong", "--like", "rmsnorm", "--dtype", "float32", "--seed", 3)
    assert status == 1 and err == "" and "1 of 9 failed" in out
    (line,) = [line for line in out.splitlines() if "FAILED" in line]
    assert line.startswith("gradient of x") and "float64" not in out


def test_a_test_brings_its_settings(tinyplm, mine):
    status, out, _ = tinyplm("check", f"{mine}:test_mine")
    assert status == 0 and "in 2 cases" in out and "float64" not in out
    assert "in 1 cases" in tinyplm("check", f"{mine}:test_mine", "--cases", 1)[1]


def test_the_list_has_every_component(tinyplm):
    status, out, err = tinyplm("check", "--list")
    lines = out.splitlines()
    assert (status, err) == (0, "") and [line.split(":")[0] for line in lines[::2]] == list(COMPONENTS)
    arguments = dict(zip(lines[::2], lines[1::2], strict=True))
    assert arguments["linear: linear layer, with or without a bias"] == "    x, W, b"
    (shown,) = [text for line, text in arguments.items() if line.startswith("log_probs:")]
    assert shown.startswith("    logits; targets") and shown.endswith(", a, c")
    assert max(map(len, lines)) < 300


def test_the_list_of_one_has_its_equation(tinyplm):
    status, out, _ = tinyplm("check", "--list", "--like", "rmsnorm")
    assert status == 0 and out.startswith("rmsnorm: RMSNorm\n    x, gamma; eps=1e-06\n\ny = gamma * xhat,")
    assert "did you mean rmsnorm?" in tinyplm("check", "--list", "--like", "rmsnrom")[2]


def test_a_file_may_have_the_name_of_a_library(tinyplm, mine, tmp_path):
    file = tmp_path / "numpy.py"
    file.write_text("import sys\nf = sys.modules['numpy'].tanh\n")
    status, _, err = tinyplm("check", f"{file}:f", "--like", "tanh")
    assert status == 2 and "tanh: expected the value and a backward" in err


@pytest.mark.parametrize(("name", "like", "message"), [
    ("few", "rmsnorm", "few: backward: expected 2 gradients, got 1"),
    ("number", "rmsnorm", "f: expected a callable, or a pair (forward, backward) of them, got 3"),
    ("rmsnorm", "rmsnrom", "got 'rmsnrom' (did you mean rmsnorm?)"),
    ("rmsnorm", None, "--like: expected the name of a component, got none"),
    ("nothing", "rmsnorm", "expected one of np, mean, check_test, rmsnorm, "),
    ("Layers.nothing", "rmsnorm", "got 'Layers.nothing'"),
])  # fmt: skip
def test_bad_input_is_one_line_and_status_2(tinyplm, mine, name, like, message):
    status, out, err = tinyplm("check", f"{mine}:{name}", *(("--like", like) if like else ()))
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1 and err.startswith("tinyplm: ")


@pytest.mark.parametrize(("text", "message"), [
    ("broken.py:f", "broken.py: expected a file that can be imported, got ZeroDivisionError: division by zero"),
    ("stops.py:f", "stops.py: expected a file that can be imported, got SystemExit:"),
    ("none.py:f", "none.py: expected a file, got none (no such file)"),
    ("mine_to_check.py", "FILE.py:NAME: expected a file and a name in it, got "),
    ("not python.txt:f", "FILE.py:NAME: expected a file and a name in it, got "),
    (":f", "FILE.py:NAME: expected a file and a name in it, got "),
])  # fmt: skip
def test_a_file_without_a_function_is_refused(tinyplm, mine, tmp_path, text, message):
    status, out, err = tinyplm("check", f"{tmp_path}/{text}", "--like", "rmsnorm")
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(("options", "message"), [
    (("--cases", 0), "--cases: expected an integer from 1 to 1000"),
    (("--seed", -1), "--seed: expected an integer >= 0"),
    (("--dtype", "int8"), "dtypes: expected some of float64, float32, float16, bfloat16"),
    (("--kind", "tensorflow"), "kind: expected one of ours, torch, jax"),
])  # fmt: skip
def test_bad_settings(tinyplm, mine, options, message):
    status, out, err = tinyplm("check", f"{mine}:rmsnorm", "--like", "rmsnorm", *options)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert tinyplm("check")[0] == 2
