"""The command in this process."""

from __future__ import annotations

import sys

import pytest

from tinyplm import cli


@pytest.fixture
def tinyplm(capsys, monkeypatch):
    """tinyplm("check", "--list") -> (status, stdout, stderr)."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def run(*arguments):
        capsys.readouterr()
        status = cli.main([str(a) for a in arguments])
        return (status, *capsys.readouterr())

    yield run
    for name in {"checked_mine_to_check", "checked_broken", "checked_numpy", "checked_stops", "helpers"} - before:
        sys.modules.pop(name, None)
