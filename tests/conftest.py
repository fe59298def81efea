"""Hypothesis profiles and the devices that tests run on."""

from __future__ import annotations

import gc
import os
import signal
import threading

import hypothesis
import pytest

from tests.support import scripts
from tinyplm.tokenizers import Tokenizer

pytest_plugins = ["tests.support.bytecode"]

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("long", max_examples=500, deadline=None, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="many random examples instead of a few that are always the same")


def pytest_configure(config: pytest.Config) -> None:
    os.fsync = os.fstat  # a flush takes milliseconds, and no test crashes the machine; what is flushed when, tests spy on
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "ci")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # `pytest &` in a script: children would ignore it too


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()  # thousands of tests and their cases stay to the end; no collection need visit them again


def devices() -> list[str]:
    """cpu, the stand-in for CuPy, and a real GPU if there is one."""
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


TOKENIZER_TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog's owner didn't see it; they've seen 1234 foxes.\n",
    "def f(x):\n    return [x ** 2 for x in range(10)]\n\n\n# naïve café: übergrößenträger, señor, żółć\n",
    "春天来了，花开了。The 春天 is here. 日本語のテキスト、한국어. Привет, мир! שלום עולם. 👩‍👩‍👧‍👦🇩🇪\t\t",
    "low low low low low lower lower newest newest newest newest newest newest widest widest",
]


@pytest.fixture(scope="session")
def trained() -> Tokenizer:
    """A small shared tokenizer; do not modify it."""
    return Tokenizer.train(TOKENIZER_TEXTS * 3, 450)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two text files for the example scripts."""
    return scripts.write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def run(monkeypatch, capsys):
    """run("pretrain", "--steps", "6") -> scripts.Outcome, in this process; see scripts.runner."""
    return scripts.runner(monkeypatch, capsys)
