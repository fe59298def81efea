"""How much planted personal data the rules find, how many clean lines they touch, and how fast.

    python -m benchmarks.privacy 20000

Plants: made-up addresses and numbers in made-up contexts (tests/support/personal_data.py).  Clean
lines: made-up lines full of numbers, the default corpus, and the sources of the standard library,
whose few real mail addresses count as touched, too.
"""

from __future__ import annotations

import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.support.personal_data import PLANTS, clean_lines, planted
from tinyplm.data import default_corpus
from tinyplm.data.privacy import KINDS, find
from tinyplm.data.privacy.step import BY_FORM


def recall(kind: str, count: int, rng: np.random.Generator) -> float:
    """The share of `count` plants that are found whole and under their kind."""
    hits = 0
    for _ in range(count):
        text, plant = planted(kind, rng)
        number = plant.removeprefix("tel. ").removeprefix("电话")
        hits += any(text[s.start : s.end] == number and s.kind == kind for s in find(text, BY_FORM))
    return hits / count


def touched(lines: Iterable[str], kinds: tuple[str, ...]) -> tuple[int, int, Counter]:
    """(lines, lines with a span, spans by kind)."""
    total, hit, found = 0, 0, Counter[str]()
    for line in lines:
        spans = find(line, kinds)
        total, hit = total + 1, hit + bool(spans)
        found.update(span.kind for span in spans)
    return total, hit, found


def sources() -> Iterable[str]:
    """The lines of the standard library that are not blank."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from filter(str.strip, text.split("\n"))


def main(count: int) -> None:
    rng = np.random.default_rng(1)
    for kind in PLANTS:
        print(f"{kind:10} {count:,} planted   found {recall(kind, count, rng):.3%}")
    documents = default_corpus()
    lines = [line for text in documents for line in text.split("\n") if line.strip()]
    clean = {"numbers": clean_lines(rng, count), "corpus": lines, "library": sources()}
    for name, some in clean.items():
        total, hit, found = touched(some, tuple(KINDS))
        print(f"{name:10} {total:,} lines   touched {hit / total:.3%}   {dict(found)}")
    text = "\n".join(documents)
    for kinds in (BY_FORM, tuple(KINDS)):
        start = time.perf_counter()
        find(text, kinds)
        speed = len(text.encode()) / 1e6 / (time.perf_counter() - start)
        print(f"{speed:.0f} MB/s for {', '.join(kinds)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
