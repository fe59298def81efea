"""examples/gradient_check.py run as a command."""

from __future__ import annotations

import pytest

from tests.support.scripts import assert_one_line


def test_gradient_check_finds_all_right_and_sees_what_is_broken(run):
    outcome = run("gradient_check.py", "layernorm", "linear", "--cases", "2")
    assert outcome.code == 0 and "all are right" in outcome.out and "WRONG" not in outcome.out, outcome.err
    assert any(line.startswith("layernorm ") for line in outcome.out.splitlines())
    outcome = run("gradient_check.py", "layernorm", "linear", "--cases", "2", "--break")
    assert outcome.code == 1 and "WRONG" in outcome.out and "all are right" not in outcome.out + outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("options", [("no_such_component",), ("layernorm", "--cases", "0")])
def test_gradient_check_refuses_wrong_options_in_one_line(run, options):
    assert_one_line(run("gradient_check.py", *options), options[-1])
