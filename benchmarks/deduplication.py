"""Near duplicates against datasketch: signatures, bands, clusters; and both against all pairs.

    python benchmarks/deduplication.py
    python benchmarks/deduplication.py --documents 20000

Both libraries find the near duplicates of the same documents, from text to the number of the first
document of each cluster, with the same shingles, permutations, bands and rows, without checking
candidates.  Each runs in its own process; the two alternate, one call each.  datasketch gets its
bulk constructor and, in a second row, a faster hash than its default: CRC-32.  A third row is our
default, which also compares the signatures of candidates.  Prints seconds per call (medians), and
the peer's time over ours: 2.00 means that ours takes half the time.

A second table compares the duplicates of both with the true Jaccard similarity of all pairs, over
documents with planted near copies: recall is the share of the similar pairs that end up in one
cluster, precision the share of the pairs in one cluster that belong to one true cluster.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
from table import Table, add_option
from turns import median_ratio, serve, take_turns

WIDTH, PERMUTATIONS, THRESHOLD, BANDS, ROWS = 5, 128, 0.8, 9, 13


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=5000, help="(default: %(default)s)")
    parser.add_argument(
        "--words", type=int, default=300, help="of a document (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--no-pairs", action="store_true", help="without the table of all pairs")
    add_option(parser, __file__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    texts = corpus(options.documents, options.words)
    if options.serve:
        find = FINDERS[options.serve]
        serve(lambda: find(texts), warm_up=1)
        return
    shape = ["--documents", f"{options.documents}", "--words", f"{options.words}"]
    size = sum(map(len, texts)) / 1e6
    note = f"{options.documents} documents, {size:.1f} MB, {PERMUTATIONS} permutations, "
    note += f"{BANDS} bands of {ROWS} rows; seconds (medians)"
    columns = {"tinyplm": ".2f", "peer": ".2f", "ratio": ".2f", "tinyplm MB/s": ".1f"}
    table = Table("peer", columns, file=options.json, note=note)
    results = take_turns(__file__, tuple(FINDERS), shape, options.rounds)
    ours = results["tinyplm"][1]
    for name in FINDERS:
        if name != "tinyplm":
            theirs, median = results[name][1], statistics.median(ours)
            values = median, statistics.median(theirs), median_ratio(theirs, ours), size / median
            table.row(name, *values)
    if not options.no_pairs:
        all_pairs(texts, options.json)


# ---- documents


def corpus(count: int, words: int) -> list[str]:
    """Words with Zipf's frequencies; every fourth document an earlier one with some replaced."""
    rng = random.Random(0)
    vocabulary = [
        "".join(rng.choices("abcdefghijklmnopqrst", k=rng.randint(2, 9))) for _ in range(20_000)
    ]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(vocabulary))))
    texts: list[str] = []
    for number in range(count):
        if number % 4 == 3:
            some = rng.choice(texts).split()
            for _ in range(rng.randrange(words // 30 + 1)):
                some[rng.randrange(len(some))] = rng.choice(vocabulary)
        else:
            length = rng.randint(words // 2, words * 3 // 2)
            some = rng.choices(vocabulary, cum_weights=weights, k=length)
        texts.append(" ".join(some))
    return texts


# ---- from texts to the first document of each cluster


def by_tinyplm(verify: str) -> Callable[[list[str]], list[int]]:
    def find(texts: list[str]) -> list[int]:
        from tinyplm.data.deduplication import minhash
        from tinyplm.data.pipeline import Document, Ragged

        step = minhash(
            width=WIDTH,
            normalize="none",
            permutations=PERMUTATIONS,
            threshold=THRESHOLD,
            bands=BANDS,
            rows=ROWS,
            verify=verify,
        )
        read = [step.read(Document(text, "")) for text in texts]
        decisions = step.decide(Ragged.of(read, step.dtype))
        return [i if first < 0 else int(first) for i, first in enumerate(decisions)]

    return find


def by_datasketch(crc: bool) -> Callable[[list[str]], list[int]]:
    def find(texts: list[str]) -> list[int]:
        from zlib import crc32

        from datasketch import MinHash, MinHashLSH

        index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
        sets = [[" ".join(run).encode() for run in runs(text)] for text in texts]
        options = {"hashfunc": crc32} if crc else {}
        first = list(range(len(texts)))

        def root(i: int) -> int:
            while first[i] != i:
                first[i] = first[first[i]]
                i = first[i]
            return i

        made = MinHash.generator(sets, num_perm=PERMUTATIONS, **options)
        for number, found in enumerate(made):
            for other in index.query(found):
                a, b = root(number), root(other)
                first[max(a, b)] = min(a, b)
            index.insert(number, found, check_duplication=False)
        return [root(i) for i in range(len(texts))]

    return find


FINDERS = {
    "tinyplm": by_tinyplm("none"),
    "datasketch": by_datasketch(False),
    "datasketch, CRC-32": by_datasketch(True),
    "tinyplm, candidates verified": by_tinyplm("signatures"),
    "tinyplm, verified by shingles": by_tinyplm("shingles"),
}


def runs(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + WIDTH]) for i in range(len(words) - WIDTH + 1)}


# ---- all pairs


def all_pairs(texts: list[str], file: Path | None) -> None:
    similar = similar_pairs([runs(text) for text in texts])
    true = clusters(len(texts), [pair for pair, s in similar.items() if s >= THRESHOLD])
    pairs = {pair for pair, s in similar.items() if s >= THRESHOLD}
    mean = statistics.fmean(1 - (1 - similar[pair] ** ROWS) ** BANDS for pair in pairs)
    note = f"\n{len(pairs)} pairs of at least {THRESHOLD}; of these 1 - (1 - s^r)^b: {mean:.4f}"
    columns = {"dropped": ".0f", "truly": ".0f", "recall": ".4f", "precision": ".4f"}
    path = file and file.with_name(f"{file.stem}_pairs.json")
    table = Table("duplicates by", columns, file=path, note=note)
    truly = sum(first != i for i, first in enumerate(true))
    for name, find in FINDERS.items():
        found = find(texts)
        recall = statistics.fmean(found[a] == found[b] for a, b in pairs)
        together = [(first, i) for i, first in enumerate(found) if first != i]
        precision = statistics.fmean(true[a] == true[b] for a, b in together)
        table.row(name, len(together), truly, recall, precision)


def similar_pairs(sets: list[set]) -> dict[tuple[int, int], float]:
    """The exact Jaccard similarity of all pairs that share a shingle."""
    holders: dict[tuple[str, ...], list[int]] = {}
    for number, found in enumerate(sets):
        for run in found:
            holders.setdefault(run, []).append(number)
    shared: dict[tuple[int, int], int] = {}
    for numbers in holders.values():
        for pair in itertools.combinations(numbers, 2):
            shared[pair] = shared.get(pair, 0) + 1
    return {
        (a, b): count / (len(sets[a]) + len(sets[b]) - count) for (a, b), count in shared.items()
    }


def clusters(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    from tinyplm.data.deduplication.clusters import join, singletons

    first = singletons(count)
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    join(first, left, right)
    return first.tolist()


if __name__ == "__main__":
    main()
