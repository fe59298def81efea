"""A tiny training run for tests that interrupt it, standalone (`python -m tests.support.survivor OUT '{"steps": 9}'`) or
killed at a given disk operation; and the contents of a run that must not depend on how often that happened."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import families
from tinyplm.training import checkpoint, log, loop
from tinyplm.training.checkpoint import State
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TOKENS = np.random.default_rng(0).integers(0, 11, 200).astype(np.uint16)
QUICK = {"steps": 6, "batch_size": 4, "sequence_length": 5, "warmup": 2, "learning_rate": 0.01, "evaluate_every": 2,
         "save_every": 1, "keep": 1}  # fmt: skip
ON_DISK = ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir")  # rmtree and pathlib use these too


def run(out: Path, progress: bool = False, family: str = "gpt2", extend: str | None = None, **changes: Any) -> State:
    """Start a run, or resume it, and perhaps extend it; family: its name, or "name, task"."""
    family, _, task = family.partition(", ")
    row = families.FAMILIES[family]
    model = families.randomised(family, row.config, task or None, 0, "float32", {next(iter(row.dropout)): 0.1})
    settings = Settings(**{**QUICK, **changes})
    resume = checkpoint.started(out)
    options = {"resume": resume, "extend": extend if resume else None, "progress": progress}
    return train(model, TOKENS, TOKENS[:40], settings, out=out, **options)


@contextlib.contextmanager
def interrupted(step: int) -> Iterator[None]:
    """A run in this block ends with a KeyboardInterrupt instead of the update of this step."""
    at, update = step, loop.update

    def breaking(*args: Any, step: int, **kwargs: Any) -> Any:
        if step == at:
            raise KeyboardInterrupt
        return update(*args, step=step, **kwargs)

    loop.update = breaking
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        loop.update = update
    raise AssertionError(f"the run was over before step {at}")


def contents(out: Path) -> dict[str, Any]:
    """Everything in a run's folder except times and the hashes of files that contain times."""
    found: dict[str, Any] = {}
    for file in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(file.relative_to(out))
        if file.name == "log.jsonl":
            found[name] = [{k: v for k, v in r.items() if k not in log.MEASURED} for r in log.read(file)]
        elif file.name == "trainer.json":
            found[name] = json.loads(file.read_text())
            del found[name]["state"]["seconds"]
            found[name].get("increment", {}).pop("checksums", None)
        elif file.name == "checksums.json":
            sums = json.loads(file.read_text())
            found[name] = {n: s for n, s in sums.items() if n != "trainer.json"}
        else:
            found[name] = file.read_bytes()
    return found


def spy(act: Callable[[int, str, Callable], Any]) -> None:
    """From now on act(n, name, do) replaces this process's n-th disk operation; do() performs it."""
    count = iter(range(10**9))

    def wrapped(name: str, original: Callable) -> Callable:
        return lambda *args, **kwargs: act(next(count), name, lambda: original(*args, **kwargs))

    for name in ON_DISK:
        setattr(os, name, wrapped(name, getattr(os, name)))


def kill_at(number: int, after: bool) -> Callable[[int, str, Callable], Any]:
    """An act for `spy`: SIGKILL just before or just after operation `number`."""

    def act(n: int, name: str, do: Callable) -> Any:
        if n == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return do()
        finally:  # removing a missing file is an operation too
            if n == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return act


def forked(do: Callable[[], Any]) -> int:
    """Runs do() in a child process; returns its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            do()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_latest(out: Path) -> bool:
    """Whether `latest` and `best`, where they exist, name complete checkpoints."""
    names = [name for name in ("latest", "best") if (out / name).is_file()]  # finetune has a folder best/
    return all(checkpoint.folders.problem(checkpoint.find(out, name)) is None for name in names)


def on_disk(out: Path) -> dict[str, bytes | None]:
    """All that a killed process leaves: every file and folder."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in out.rglob("*")}


def kill_everywhere(
    work: Path, after: tuple[bool, ...], twice: bool, go: Callable[..., Any] = run, every: int = 1, **changes: Any
) -> tuple[int, int]:
    """Kill a run before or after each of its disk operations, resume it, and compare.  -> the numbers of operations and kills

    go(out, **changes) starts a run or resumes it.  every: only every so many-th of these operations.

    Of operations before which the disk holds the same (a flush, the removal of what is missing), only the first: a run that is
    killed before the others leaves the same.
    twice: also kill the resumed run, at the same number.  Children are forked: starting Python takes far longer.
    """
    go(work / "warm", **changes)  # imports and caches that each child would otherwise fill anew
    whole, operations = work / "whole", work / "operations"
    states: list[dict] = []

    def count() -> None:
        spy(lambda n, name, do: (states.append(on_disk(whole)), do())[1])
        go(whole, **changes)
        different = [n for n, state in enumerate(states) if True in after or n == 0 or state != states[n - 1]]
        operations.write_text(json.dumps([len(states), different]))

    def killed(out: Path, n: int, after: bool) -> None:
        spy(kill_at(n, after))
        go(out, **changes)

    assert forked(count) == 0
    expected, kills = contents(whole), 0
    known, different = json.loads(operations.read_text())
    for n, late in itertools.product(different[::every], after):
        where = f"{'after' if late else 'before'} operation {n}"
        out = work / where.replace(" ", "-")
        for again in range(1 + twice):
            code = forked(functools.partial(killed, out, n, late))
            assert code == -signal.SIGKILL or (again and code == 0), f"{where}: exit code {code}"
            kills += code != 0
            assert whole_latest(out), where
        assert forked(functools.partial(go, out, **changes)) == 0, f"{where}: cannot be resumed"
        found = contents(out)
        assert found.keys() == expected.keys(), f"{where}: {found.keys() ^ expected.keys()}"
        for name in expected:
            assert found[name] == expected[name], f"{where}: {name} differs"
        shutil.rmtree(out)
    return known, kills


if __name__ == "__main__":
    os.fsync = lambda file: None  # slow, and a killed process loses nothing it wrote: only a power failure would
    if sys.argv[1] == "everywhere":
        print(*kill_everywhere(Path(sys.argv[2]), **json.loads(sys.argv[3])))
    else:
        state = run(Path(sys.argv[1]), **json.loads(sys.argv[2]))
        print(json.dumps({"step": state.step, "signal": state.signal}))
