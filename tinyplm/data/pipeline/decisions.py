"""Signatures of all shards as one memory-mapped array, and the decisions on them, on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ...arguments import mismatch
from ...files import read_json, replaced, write_json
from .stages import Plan
from .step import CorpusStep, Ragged

Decisions = Sequence[Any] | np.ndarray | Ragged


def decide(plan: Plan, stage: int, step: CorpusStep) -> Decisions:
    """The decisions of a stage's step: from disk, or made now and written."""
    done = plan.place(stage, None, "decided.json")
    if not done.exists():
        signatures = _joined(plan, stage, step)
        begin = perf_counter()
        made = step.decide(signatures)
        seconds = perf_counter() - begin
        if len(made) != len(signatures):
            expected = f"{len(signatures)} decisions, one for each document"
            raise mismatch(type(step).__name__, expected, len(made))
        kind = _save(plan, stage, made)
        if kind == "list":  # made again when a run is resumed
            return made
        write_json(done, {"seconds": seconds})
        del signatures
        for what in ("values", "offsets"):
            plan.place(stage, None, f"{what}.npy").unlink()
            for shard in range(len(plan.shards)):
                plan.place(stage, shard, f"{what}.npy").unlink(missing_ok=True)
    values = np.load(plan.place(stage, None, "decisions.npy"), mmap_mode="r", allow_pickle=False)
    ends = plan.place(stage, None, "decision-offsets.npy")
    if not ends.exists():
        return values
    return Ragged(values, np.load(ends, mmap_mode="r", allow_pickle=False))


def seconds_of(plan: Plan, stage: int) -> float:
    """What the signatures and the decisions of a stage took."""
    done = plan.place(stage, None, "decided.json")
    markers = [plan.place(stage, shard, "json") for shard in range(len(plan.shards))]
    files = [*markers, done] if done.exists() else markers
    return sum(read_json(file)["seconds"] for file in files)


def forget(plan: Plan, stage: int) -> None:
    """Remove what the next stage has used."""
    for what in ("decisions.npy", "decision-offsets.npy", "values.npy", "offsets.npy"):
        plan.place(stage, None, what).unlink(missing_ok=True)
    for shard in range(len(plan.shards)):
        for what in ("jsonl", "values.npy", "offsets.npy"):
            plan.place(stage, shard, what).unlink(missing_ok=True)


def part_of(decisions: Decisions, first: int, count: int) -> Decisions:
    """Those of a shard, in memory."""
    if isinstance(decisions, Ragged):
        ends = np.array(decisions.offsets[first : first + count + 1])
        return Ragged(np.array(decisions.values[ends[0] : ends[-1]]), ends - ends[0])
    if isinstance(decisions, np.ndarray):
        return np.array(decisions[first : first + count])
    return decisions[first : first + count]


def _load(path: Path) -> np.ndarray:
    """Memory-mapped, unless it is empty."""
    return np.load(path, mmap_mode="r" if path.stat().st_size > 1024 else None, allow_pickle=False)


def _joined(plan: Plan, stage: int, step: CorpusStep) -> Ragged:
    parts = [
        [plan.place(stage, shard, f"{what}.npy") for shard in range(len(plan.shards))]
        for what in ("values", "offsets")
    ]
    total = sum(len(_load(path)) for path in parts[0])
    documents = sum(len(_load(path)) - 1 for path in parts[1])
    values = _join(plan.place(stage, None, "values.npy"), step.dtype, total, map(_load, parts[0]))

    def ends() -> Iterator[np.ndarray]:
        last = np.zeros(1, np.int64)
        yield last
        for path in parts[1]:
            found = _load(path)[1:] + last[-1]
            yield found
            last = found if len(found) else last

    name = plan.place(stage, None, "offsets.npy")
    return Ragged(values, _join(name, np.dtype(np.int64), documents + 1, ends()))


def _join(path: Path, dtype: Any, total: int, arrays: Iterator[np.ndarray]) -> np.ndarray:
    with replaced(path) as temporary:
        if not total:
            with open(temporary, "wb") as file:
                np.save(file, np.empty(0, dtype))
        else:
            joined = np.lib.format.open_memmap(temporary, "w+", dtype, (total,))
            place = 0
            for array in arrays:
                joined[place : place + len(array)] = array
                place += len(array)
            joined.flush()
            del joined
    return _load(path)


def _save(plan: Plan, stage: int, made: Decisions) -> str:
    arrays: dict[str, Any] = {"decisions": made}
    if isinstance(made, Ragged):
        arrays = {"decisions": made.values, "decision-offsets": made.offsets}
    elif not isinstance(made, np.ndarray) or made.dtype.hasobject:
        return "list"
    for what, array in arrays.items():
        with replaced(plan.place(stage, None, f"{what}.npy")) as temporary:
            with open(temporary, "wb") as file:
                np.save(file, array, allow_pickle=False)
    return "arrays"
