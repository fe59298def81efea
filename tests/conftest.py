"""Hypothesis profiles and the devices that tests run on."""

from __future__ import annotations

import hypothesis
import pytest

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("long", max_examples=500, deadline=None, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="many random examples instead of a few that are always the same")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "ci")


def devices() -> list[str]:
    """cpu, the stand-in for CuPy, and a real GPU where there is one."""
    from tests.gpu.strict import register

    register()
    try:
        import cupy

        real = ["gpu"] if cupy.is_available() else []
    except ImportError:
        real = []
    return ["cpu", "strict", *real]


@pytest.fixture(params=devices())
def device(request: pytest.FixtureRequest) -> str:
    return request.param
