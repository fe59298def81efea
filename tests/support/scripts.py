"""The example scripts as a user runs them: texts for them, and ways to run them in a new process or in this one."""

from __future__ import annotations

import functools
import importlib.util
import os
import random
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

from tinyplm import cli

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def load_example(name: str) -> ModuleType:
    """Loads an example as a module without its folder on the path, where tokenizers.py would shadow the library of that name."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


for shared in ("common", "docstrings", "encoder_decoders"):  # imported by the examples
    sys.modules.setdefault(shared, load_example(shared))


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def assert_one_line(outcome: Outcome, *words: str) -> None:
    """Expects an error that a user can act on: not a traceback, not a success."""
    assert outcome.code != 0, f"this should be refused:\n{outcome.out}"
    lines = outcome.err.rstrip("\n").split("\n")
    begin = ("error: ", "tinyplm: ")
    assert len(lines) == 1 and lines[0].startswith(begin), f"expected one line, got:\n{outcome.err}"
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


def write_texts(folder: Path) -> list[str]:
    """Two files, 40 kB in total: distinct paragraphs, in one file also split into documents."""
    rng = random.Random(0)
    subjects = ["The river", "A baker", "My sister", "The old clock", "Every sailor", "Nobody"]
    verbs = ["counted", "carried", "forgot", "painted", "sold", "remembered"]
    objects = ["stones", "loaves", "letters", "blue lamps", "apples", "stories"]
    paragraphs = []
    for number in range(130):
        sentences = [f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.randrange(1000)} {rng.choice(objects)}." for _ in range(9)]
        paragraphs.append(f"Chapter {number}. " + " ".join(sentences))
    (folder / "book.txt").write_text("\n\n".join(paragraphs[:90]) + "\n", encoding="utf-8")
    (folder / "notes.txt").write_text("\n<|endoftext|>\n".join(paragraphs[90:]) + "\n", encoding="utf-8")
    return [str(folder / "book.txt"), str(folder / "notes.txt")]


def shell(script: str, *arguments: str, cwd: Path) -> Outcome:
    """Runs an example or a command in its own process, from a folder other than the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    start = [str(ROOT / "examples" / script)] if script.endswith(".py") else ["-m", "tinyplm", script]
    done = subprocess.run([sys.executable, *start, *arguments], cwd=cwd, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=300)  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


@functools.cache
def compiled(script: str) -> CodeType:
    """An example's code: compiling it takes longer than all that a refused option lets it do."""
    file = EXAMPLES / script
    return compile(file.read_bytes(), str(file), "exec")


def runner(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Runs examples and commands in this process, which saves the startup time.

    run("pretrain_bert.py", "--steps", "6") or run("pretrain", "--steps", "6") -> Outcome
    """

    def run(script: str, *arguments: str) -> Outcome:
        capsys.readouterr()
        if not script.endswith(".py"):
            code = cli.main([script, *map(str, arguments)])
            return Outcome(code, *capsys.readouterr())
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [script, *arguments])
            patch.setattr(sys, "path", list(sys.path))
            code, message = 0, ""
            module = ModuleType("__main__")
            module.__file__ = str(EXAMPLES / script)
            patch.setitem(sys.modules, "__main__", module)
            try:
                exec(compiled(script), vars(module))
            except SystemExit as stop:  # as the interpreter would handle it
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
                message = f"{stop.code}\n" if isinstance(stop.code, str) else ""
            except BaseException:
                code, message = 1, traceback.format_exc()
        out, err = capsys.readouterr()
        return Outcome(code, out, err + message)

    return run
