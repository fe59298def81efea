"""The command tinyplm: its commands, their help, what they refuse."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.support.scripts import ROOT
from tinyplm import cli


def options(parser):
    return [a for a in parser._actions if a.dest not in ("help", "command")]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_sentences(name, tinyplm):
    status, out, err = tinyplm(name, "--help")
    assert status == 0 and err == "" and out.startswith(f"usage: tinyplm {name}")
    (commands,) = [a.choices for a in cli.parser()._actions if a.dest == "command"]
    for action in options(commands[name]):
        assert action.help[0].isupper() and action.help.endswith("."), action.dest
    first = cli.COMMANDS[name].__doc__.splitlines()[0]
    assert first[-1] in ".?" and first in out and first.split()[0] in tinyplm("--help")[1]


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "tinyplm: the following arguments are required: COMMAND\n"),
    (("chek",), "tinyplm: COMMAND: invalid choice: 'chek'"),
    (("check", "--lik", "rmsnorm"), "unrecognized arguments: --lik"),
    (("check", "--cases", "many"), "tinyplm check: --cases: invalid int value: 'many'\n"),
    (("vectors",), "tinyplm vectors: the following arguments are required: --out\n"),
    (("compare", "a.npz"), "tinyplm compare: the following arguments are required: B\n"),
])  # fmt: skip
def test_bad_options_are_one_line_and_status_2(tinyplm, arguments, message):
    status, out, err = tinyplm(*arguments)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1


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


class Compared:
    def __init__(self, equal):
        self.equal = equal

    def __str__(self):
        return "the table"


@pytest.mark.parametrize("equal", [True, False])
def test_compare(tinyplm, monkeypatch, equal):
    from tinyplm import checks

    given = []
    monkeypatch.setattr(checks, "compare", lambda a, b: given.append((a, b)) or Compared(equal), raising=False)
    assert tinyplm("compare", "a.npz", "b.npz") == (int(not equal), "the table\n", "")
    assert given == [("a.npz", "b.npz")]


def test_vectors(tinyplm, monkeypatch):
    from tinyplm import checks

    given = []

    class Module:
        @staticmethod
        def write(out, **kwargs):
            given.append((out, kwargs))
            return out

    monkeypatch.setattr(checks, "vectors", Module, raising=False)
    assert tinyplm("vectors", "--out", "here", "--component", "a", "--component", "b", "--dtype", "float64") == (0, "here\n", "")
    assert given == [("here", {"components": ["a", "b"], "families": None, "dtypes": ["float64"]})]


def test_what_a_command_refuses_is_one_line(tinyplm, monkeypatch):
    def refused(_):
        raise ValueError("a: expected a file,\n got a folder")

    monkeypatch.setattr(cli.compare, "run", refused)
    assert tinyplm("compare", "a", "b") == (2, "", "tinyplm: a: expected a file, got a folder\n")
