"""The command tinyplm: its commands, their help, what they refuse."""

from __future__ import annotations

import re
import runpy
import sys

import numpy as np
import pytest

from tests.support.families import tiny
from tests.support.scripts import ROOT
from tinyplm import cli, save
from tinyplm.checks import save_trace, trace


def options(parser):
    return [a for a in parser._actions if a.dest not in ("help", "command")]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_sentences(name, tinyplm):
    status, out, err = tinyplm(name, "--help")
    assert status == 0 and err == "" and out.startswith(f"usage: tinyplm {name}")
    for action in options(cli.parsers()[1][name]):
        assert action.help[0].isupper() and action.help.endswith("."), action.dest
    first = cli.COMMANDS[name].__doc__.splitlines()[0]
    assert first[-1] in ".?" and first in " ".join(out.split()) and first.split()[0] in tinyplm("--help")[1]


def test_alone_it_lists_the_commands(tinyplm):
    status, out, err = tinyplm()
    assert (status, out) == (2, "") and all(name in err for name in cli.COMMANDS)


@pytest.mark.parametrize(("arguments", "message"), [
    (("chek",), "tinyplm: COMMAND: invalid choice: 'chek'"),
    (("check", "--lik", "rmsnorm"), "unrecognized arguments: --lik"),
    (("check", "--cases", "many"), "tinyplm: --cases: expected an integer from 1 to 1000, got 'many'\n"),
    (("vectors",), "tinyplm: --out: expected a value, got none\n"),
    (("generate", "--beams", "1001"), "tinyplm: --beams: expected an integer from 1 to 1000, got 1001\n"),
    (("compare", "a.npz"), "tinyplm: the following arguments are required: B\n"),
])  # fmt: skip
def test_bad_options_are_one_line_and_status_2(tinyplm, arguments, message):
    status, out, err = tinyplm(*arguments)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1


def test_an_interruption_while_it_starts_is_one_line(tinyplm, monkeypatch):
    monkeypatch.setattr(cli, "parsers", lambda only: (_ for _ in ()).throw(KeyboardInterrupt))
    assert tinyplm("count", "--list") == (130, "", "\ntinyplm: interrupted\n")


def test_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tinyplm", "check", "--list"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("tinyplm", run_name="__main__")
    assert stop.value.code == 0 and "rmsnorm: RMSNorm\n    x, gamma; eps=1e-06\n" in capsys.readouterr().out


def test_the_entry_point_exists():
    assert '"tinyplm=tinyplm.cli:main"' in (ROOT / "setup.py").read_text() and callable(cli.main)


def test_other_errors_are_not_hidden(monkeypatch):
    def broken(_):
        raise ZeroDivisionError

    monkeypatch.setattr(cli.check, "run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["check"])


# ---------------------------------------------------------------------------------------- commands that call others' modules


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Arrays, the same arrays, others, one that is missing, and what is no file of arrays."""
    folder = tmp_path_factory.mktemp("arrays")
    x = np.random.default_rng(0).normal(size=(2, 3))
    np.savez(folder / "a.npz", x=x, y=x)
    np.savez(folder / "same.npz", x=x, y=x)
    np.savez(folder / "other.npz", x=x, y=x + 1e-3)
    np.savez(folder / "fewer.npz", x=x)
    (folder / "text.npz").write_text("no arrays")
    return folder


@pytest.mark.parametrize(("other", "more", "status", "said"), [
    ("same.npz", (), 0, "equal: 2 values"), ("same.npz", ("--all",), 0, "x"), ("other.npz", (), 1, "y"),
    ("fewer.npz", ("--partial", "--all"), 0, "x"),
])  # fmt: skip
def test_compare(tinyplm, files, other, more, status, said):
    found, out, err = tinyplm("compare", str(files / "a.npz"), str(files / other), *more)
    assert (found, err) == (status, "") and re.search(rf"^[ *]*{said}\b", out, re.M)


@pytest.mark.parametrize("other", ["fewer.npz", "text.npz", "missing.npz"])
def test_compare_refuses_bad_files_in_one_line(tinyplm, files, other):
    status, out, err = tinyplm("compare", str(files / "a.npz"), str(files / other))
    assert (status, out) == (2, "") and err.startswith("tinyplm: ") and err.count("\n") == 1


def test_traces_are_explained_with_their_model(tinyplm, tmp_path):
    """The same weights with another epsilon: the command names it."""
    model = tiny("llama")
    other = tiny("llama", rms_norm_eps=1e-2)
    for name, own in (("model", model), ("other", other)):
        with trace() as t:
            own(np.arange(6).reshape(2, 3), grad=False)
        save_trace(t, tmp_path / f"{name}.safetensors")
    save(model, tmp_path / "folder")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("model", "other")]
    status, out, err = tinyplm("compare", *files, "--model", str(tmp_path / "folder"))
    assert (status, err) == (1, "") and "layers.0.norm1" in out and "eps" in out


def test_vectors(tinyplm, tmp_path):
    status, out, err = tinyplm("vectors", "--out", str(tmp_path / "here"), "--component", "rmsnorm", "--dtype", "float64")
    assert (status, err) == (0, "") and (tmp_path / "here" / "manifest.json").is_file() and "here" in out
    status, out, err = tinyplm("vectors", "--out", str(tmp_path / "other"), "--component", "rmsnrom")
    assert (status, out) == (2, "") and "rmsnorm" in err and not (tmp_path / "other").exists()


def test_what_a_command_refuses_is_one_line(tinyplm, monkeypatch):
    def refused(_):
        raise ValueError("a: expected a file,\n got a folder")

    monkeypatch.setattr(cli.compare, "run", refused)
    assert tinyplm("compare", "a", "b") == (2, "", "tinyplm: a: expected a file, got a folder\n")
