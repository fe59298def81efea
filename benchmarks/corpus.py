"""The default pipeline on N MB of made-up text: speed of each step, peak memory of all processes.

    python -m benchmarks.corpus 1000 --workers 2

Text: paragraphs of the default corpus in new orders, a few words of each replaced; one document in
ten repeats an earlier one, every second of those with a changed word.  Memory is read from /proc
ten times a second: the sum over processes of what they hold (anonymous), and with the files that
they have mapped (resident; shared pages count in each).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tinyplm.cli.output import table
from tinyplm.data import default_corpus
from tinyplm.data.pipeline import run_pipeline
from tinyplm.data.pipeline.registry import DEFAULT

FILE = 1 << 26  # bytes of a file
INTERVAL = 0.1  # seconds


def write(folder: Path, megabytes: int, rng: np.random.Generator) -> int:
    """JSON lines in files of FILE bytes; returns the bytes."""
    paragraphs = [p for text in default_corpus() for p in text.split("\n\n") if len(p) > 200]
    words = sorted({word for p in paragraphs for word in p.split() if word.isalpha()})
    total, number, earlier = 0, 0, [""]
    while total < megabytes * 1_000_000:
        with open(folder / f"{number:04d}.jsonl", "w", encoding="utf-8") as file:
            size = 0
            while size < FILE and total < megabytes * 1_000_000:
                text = document(paragraphs, words, earlier, rng)
                line = json.dumps({"text": text}) + "\n"
                file.write(line)
                size += len(line)
                total += len(line)
        number += 1
    return total


def document(
    paragraphs: list[str], words: list[str], earlier: list[str], rng: np.random.Generator
) -> str:
    draw = rng.random()
    if draw < 0.1:
        text = earlier[rng.integers(len(earlier))]
        return text + (" " + words[rng.integers(len(words))] + "." if draw < 0.05 else "")
    chosen = rng.integers(len(paragraphs), size=rng.integers(2, 9))
    parts = []
    for place in chosen:
        part = paragraphs[place].split(" ")
        for spot in rng.integers(len(part), size=len(part) // 6):
            part[spot] = words[rng.integers(len(words))]
        parts.append(" ".join(part))
    text = "\n\n".join(parts)
    if len(earlier) < 2000:
        earlier.append(text)
    else:
        earlier[rng.integers(2000)] = text
    return text


class Memory:
    """The peak of this process and its children, in bytes: anonymous and resident."""

    def __init__(self) -> None:
        self.anonymous = self.resident = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.stop.wait(INTERVAL):
            found = [status(pid) for pid in family()]
            self.anonymous = max(self.anonymous, sum(f.get("RssAnon", 0) for f in found))
            self.resident = max(self.resident, sum(f.get("VmRSS", 0) for f in found))


def family() -> list[str]:
    """This process, its children and theirs."""
    found = ["self"]
    for pid in found:
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += file.read_text().split()
            except OSError:  # ended
                pass
    return found


def status(pid: str) -> dict[str, int]:
    """Bytes by name."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    cells = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): 1024 * int(value) for name, value, _ in cells}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("megabytes", type=int, nargs="?", default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    source, out = folder / "source", folder / "out"
    source.mkdir()
    try:
        size = write(source, options.megabytes, np.random.default_rng(1))
        print(f"{size / 1e6:,.0f} MB in {len(list(source.iterdir()))} files", flush=True)
        begin = time.perf_counter()
        with Memory() as memory:
            report = run_pipeline(source, DEFAULT, out, workers=options.workers)
        seconds = time.perf_counter() - begin
    finally:
        shutil.rmtree(folder)
    print(table(report.lines()))
    print(f"\n{seconds:,.0f} s, {size / 1e6 / seconds:.2f} MB/s with {options.workers} processes")
    print("MB/s of a step are of one process, with its signatures and decisions")
    peaks = f"{memory.anonymous / 1e6:,.0f} MB anonymous, {memory.resident / 1e6:,.0f} MB resident"
    print(f"peak of all processes: {peaks}")


if __name__ == "__main__":
    sys.exit(main())
