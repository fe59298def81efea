"""Runs a list of steps over files, in shards over processes.

    OUT/manifest.json            steps, settings and inputs, by which a run is known when resumed
    OUT/documents-00000.jsonl    the documents of each shard, in the order of the inputs
    OUT/report.json              what each step did
    OUT/work/                    until the end: documents, signatures and decisions between stages

Every file appears whole, under its name, once its contents are on disk.  A shard is done when its
tally exists, so a run that was killed goes on with the shards that are missing, and ends with the
same bytes, whatever the number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...arguments import (
    check_choice,
    check_flag,
    check_function,
    check_path,
    check_text,
    check_whole,
    known_arguments,
    mismatch,
)
from ...files import printable, read_json, replaced, sole_writer, write_json
from .compression import COMPRESSIONS, zstandard
from .decisions import Decisions, decide, forget, part_of, seconds_of
from .manifest import check_same, manifest_of
from .processes import Pool
from .readers import LONGEST
from .registry import Spec, specs
from .report import REPORT, Report
from .sources import MANIFEST, SHARD, files_of, shards_of
from .stages import Plan, Stage, stages_of
from .tally import Tally

FORMATS = ("jsonl", "text")
ONE_TEXT = "documents.txt"
Progress = Callable[[int, int, str], None]  # shards done, of all stages, and the stage's name


@known_arguments
def run_pipeline(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    steps: Sequence[Mapping[str, Any]],
    out: str | os.PathLike,
    *,
    field: str = "text",
    workers: int = 1,
    resume: bool = False,
    format: str = "jsonl",
    compression: str = "none",
    shard: int = SHARD,
    longest: int = LONGEST,
    progress: Progress | None = None,
) -> Report:
    """Documents of files through steps into a folder; returns the report.

    inputs: files, folders and patterns (sources.py).  steps: tables such as {"name": "unicode",
    "form": "NFC"} (registry.py).  field: of JSON, where the text is, nested as in "a.b".
    workers: processes.  resume: continue the same run in `out`.  format: "jsonl", a file for each
    shard, or "text", one documents.txt with lines of <|endoftext|>.  compression: "none", "gz" or
    "zst".  shard: bytes of input that go together.  longest: bytes of a document; a longer line is
    dropped, a longer text is cut.

    ValueError before any work for wrong settings, steps or inputs, an output folder with other
    files, or a run that is not the same.
    """
    check_text("field", field, empty=False)
    check_whole("workers", workers, 1, 4096)
    check_flag("resume", resume)
    check_choice("format", format, FORMATS)
    check_choice("compression", compression, COMPRESSIONS)
    check_whole("shard", shard, 1, 1 << 40)
    check_whole("longest", longest, 1, 1 << 34)
    check_path("out", out)
    check_function("progress", progress, or_none=True)
    if compression == "zst":
        zstandard()
    chosen = specs(steps)
    stages = stages_of(chosen)
    files = files_of(inputs)
    folder = Path(out)
    with sole_writer(folder):
        if not resume and any(name.name != "run.json" for name in folder.iterdir()):
            raise mismatch(f"out: {printable(folder)}", "a new or empty folder", "one with files")
        sources, shards = shards_of(files, shard)
        plan = Plan(
            folder,
            tuple(chosen),
            tuple(map(tuple, shards)),
            field,
            longest,
            format,
            compression,
        )
        manifest = manifest_of(plan, sources, shard)
        if resume and (folder / MANIFEST).exists():
            check_same(folder, manifest)
        else:
            write_json(folder / MANIFEST, manifest)
        for left in folder.glob(".*.tmp"):  # of a process that was killed
            left.unlink()
        if (folder / REPORT).exists():
            shutil.rmtree(plan.work, ignore_errors=True)
            return Report.load(folder)
        plan.work.mkdir(exist_ok=True)
        report = _run(plan, stages, workers, progress)
        report.save(folder)
        shutil.rmtree(plan.work)
        return report


def _run(plan: Plan, stages: list[Stage], workers: int, progress: Progress | None) -> Report:
    count = len(plan.shards)
    total = count * len(stages)
    tell = progress or (lambda done, total, stage: None)
    tallies: list[Tally] = []
    with Pool(plan, stages, workers) as pool:
        for number, stage in enumerate(stages):
            name = stage.names[0] if stage.names else "read"
            missing = [
                shard for shard in range(count) if not plan.place(number, shard, "json").exists()
            ]
            done = number * count + count - len(missing)
            tell(done, total, name)
            for _ in pool.run(number, missing, _decisions(plan, number, stages, missing)):
                done += 1
                tell(done, total, name)
            if number:
                forget(plan, number - 1)
            tallies += _tallies(plan, number)
    if plan.format == "text":
        _join_texts(plan)
    return Report(tallies)


def _decisions(
    plan: Plan, number: int, stages: list[Stage], missing: list[int]
) -> Iterator[Decisions]:
    """Those on the documents of each missing shard, one after another."""
    if number == 0 or not missing:
        yield from ([] for _ in missing)
        return
    step = stages[number].begin
    assert step is not None
    made = decide(plan, number - 1, step)
    counts = [
        read_json(plan.place(number - 1, shard, "json"))["documents"]
        for shard in range(len(plan.shards))
    ]
    for shard in missing:
        yield part_of(made, sum(counts[:shard]), counts[shard])


def _tallies(plan: Plan, number: int) -> list[Tally]:
    """Of each step in the stage, over all shards."""
    found: list[Tally] = []
    for shard in range(len(plan.shards)):
        contents = json.loads(plan.place(number, shard, "json").read_bytes())
        own = [Tally(**fields) for fields in contents["tallies"]]
        if not found:
            found = [Tally(tally.name) for tally in own]
        for tally, more in zip(found, own):
            tally.add(more)
    if number:
        found[0].seconds += seconds_of(plan, number - 1)
    return found


def _join_texts(plan: Plan) -> None:
    packed = "" if plan.compression == "none" else f".{plan.compression}"
    with replaced(plan.out / f"{ONE_TEXT}{packed}") as temporary:
        with open(temporary, "wb") as file:  # compressed files may follow one another
            for shard in range(len(plan.shards)):
                with open(plan.output(shard), "rb") as part:
                    shutil.copyfileobj(part, file)


__all__ = ["FORMATS", "Spec", "run_pipeline"]
