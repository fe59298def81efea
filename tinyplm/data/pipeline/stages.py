"""The steps in stages: a stage ends where a step of the whole corpus must read all documents."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np

from ...files import replaced
from ..corpus import SEPARATOR
from .compression import written
from .readers import Part, read
from .registry import Spec, is_corpus_step, make
from .step import CorpusStep, Document, Ragged, Result, Step
from .tally import Tally, size

READ = "read"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a process needs to know; the same in each."""

    out: Path
    specs: tuple[Spec, ...]
    shards: tuple[tuple[Part, ...], ...]
    field: str
    longest: int
    format: str  # "jsonl" or "text"
    compression: str

    @property
    def work(self) -> Path:
        return self.out / "work"

    def place(self, stage: int, shard: int | None, what: str) -> Path:
        """A file of the work; shard None: of the whole stage."""
        name = f"{stage}" if shard is None else f"{stage}-{shard:05d}"
        return self.work / f"{name}.{what}"

    def output(self, shard: int) -> Path:
        end = "txt" if self.format == "text" else "jsonl"
        packed = "" if self.compression == "none" else f".{self.compression}"
        folder = self.work if self.format == "text" else self.out
        return folder / f"documents-{shard:05d}.{end}{packed}"


@dataclasses.dataclass
class Stage:
    """begin: the step that has decided, to be applied; end: the step that reads at last."""

    begin: CorpusStep | None
    steps: list[Step]
    end: CorpusStep | None
    names: list[str]  # of `begin` and `steps`


def stages_of(specs: Sequence[Spec]) -> list[Stage]:
    found = [Stage(None, [], None, [])]
    for spec in specs:
        step = make(spec)
        if is_corpus_step(step):
            found[-1].end = cast(CorpusStep, step)
            found.append(Stage(cast(CorpusStep, step), [], None, [spec.name]))
        else:
            found[-1].steps.append(cast(Step, step))
            found[-1].names.append(spec.name)
    return found


# ---- one shard


def run_shard(plan: Plan, stages: list[Stage], number: int, shard: int, decisions: Any) -> None:
    """One shard through one stage: its documents, signatures and, at last, its tally on disk."""
    stage = stages[number]
    last = number == len(stages) - 1
    tallies = [Tally(name) for name in ([READ] if number == 0 else []) + stage.names]
    if number == 0:
        documents = _read(plan, shard, tallies[0])
    else:
        documents = _held(plan.place(number - 1, shard, "jsonl"))
    own, seconds = tallies[number == 0 :], 0.0
    if stage.begin is not None:
        documents = _decided(documents, stage.begin, decisions, own[0])
        own = own[1:]
    passed = _passed(documents, stage.steps, own)
    if last:
        _write(plan, shard, passed)
        signatures: list[np.ndarray] = []
    else:
        with replaced(plan.place(number, shard, "jsonl")) as temporary:
            signatures, seconds = _hold(temporary, passed, stage.end)
        _save_signatures(plan, number, shard, signatures, stage.end)
    marker = [dataclasses.asdict(tally) for tally in tallies]
    with replaced(plan.place(number, shard, "json")) as temporary:
        counted = {"documents": len(signatures), "seconds": seconds}
        contents = {**counted, "tallies": marker}
        temporary.write_text(json.dumps(contents, ensure_ascii=True), encoding="ascii")


def _read(plan: Plan, shard: int, tally: Tally) -> Iterator[Document]:
    clock = perf_counter()
    for part in plan.shards[shard]:
        for name, document, counts in read(part, field=plan.field, longest=plan.longest):
            tally.documents_in += 1
            if document is None:
                tally.unread(name, counts)
                continue
            if counts:
                tally.note(document, document, counts)
            length = size(document.text)
            tally.documents_out += 1
            tally.bytes_in += length
            tally.bytes_out += length
            tally.seconds += perf_counter() - clock
            yield document
            clock = perf_counter()
    tally.seconds += perf_counter() - clock


def _held(file: Path) -> Iterator[Document]:
    with open(file, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield Document(*json.loads(line))


def _decided(
    documents: Iterable[Document], step: CorpusStep, decisions: Any, tally: Tally
) -> Iterator[Document]:
    for document, decision in zip(documents, decisions):
        yield from _one(document, step.apply, tally, decision)


def _passed(
    documents: Iterable[Document], steps: list[Step], tallies: list[Tally]
) -> Iterator[Document]:
    for step, tally in zip(steps, tallies):
        documents = _through(documents, step, tally)
    yield from documents


def _through(documents: Iterable[Document], step: Step, tally: Tally) -> Iterator[Document]:
    for document in documents:
        yield from _one(document, step, tally)


def _one(
    document: Document, step: Callable[..., Result], tally: Tally, *more: Any
) -> Iterator[Document]:
    begin = perf_counter()
    after, counts = step(document, *more)
    tally.seconds += perf_counter() - begin
    before = size(document.text)
    tally.documents_in += 1
    tally.bytes_in += before
    if counts or after is not document:
        tally.note(document, after, counts)
    if after is not None:
        tally.documents_out += 1
        tally.bytes_out += before if after.text is document.text else size(after.text)
        yield after


# ---- on disk


def _write(plan: Plan, shard: int, documents: Iterable[Document]) -> None:
    encode = as_text if plan.format == "text" else as_line
    with replaced(plan.output(shard)) as temporary:
        with written(temporary, plan.compression) as file:
            for document in documents:
                file.write(encode(document).encode("utf-8", "replace"))


def as_line(document: Document) -> str:
    """A JSON line with the text, where it is from, and the other fields of its line."""
    contents = {"text": document.text, "source": document.name, **document.fields}
    return json.dumps({**contents, "text": document.text}, ensure_ascii=False) + "\n"


def as_text(document: Document) -> str:
    """The text, and a line of SEPARATOR; such lines within the text are left out."""
    lines = document.text.split("\n")
    if SEPARATOR in document.text:
        lines = [line for line in lines if line.strip() != SEPARATOR]
    return "\n".join([*lines, SEPARATOR, ""])


def _hold(
    file: Path, documents: Iterable[Document], step: CorpusStep | None
) -> tuple[list[np.ndarray], float]:
    """Their signatures, and the seconds that these took."""
    assert step is not None
    signatures, seconds = [], 0.0
    with open(file, "w", encoding="utf-8", errors="replace", newline="\n") as lines:
        for document in documents:
            begin = perf_counter()
            signatures.append(np.asarray(step.read(document), step.dtype))
            seconds += perf_counter() - begin
            lines.write(json.dumps(list(document), ensure_ascii=False) + "\n")
    return signatures, seconds


def _save_signatures(
    plan: Plan, stage: int, shard: int, signatures: list[np.ndarray], step: CorpusStep | None
) -> None:
    assert step is not None
    found = Ragged.of(signatures, step.dtype)
    for what, array in (("values", found.values), ("offsets", found.offsets)):
        with replaced(plan.place(stage, shard, f"{what}.npy")) as temporary:
            with open(temporary, "wb") as file:
                np.save(file, array, allow_pickle=False)
