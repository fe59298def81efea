"""Mixing of sources: how much of each, and in which order.

How much, from n_i, the size of source i in documents, bytes or tokens:

    by size         p_i = min(n_i, K)^(1/T) / sum_j min(n_j, K)^(1/T)       `mixture_rates`
    by weights      p_i = w_i / sum_j w_j
    by epochs       c_i = min(E n_i, lambda p_i), lambda from sum_i c_i = total   `mixture_amounts`

T = 1 is proportional; 1/T is the exponent alpha of XLM (0.5; Conneau & Lample 2019, sec. 3.1) and
mT5 (0.3; Xue et al. 2021, sec. 3.2); T = infinity is equal; K is the limit of T5 (Raffel et al.
2020, sec. 3.5.2).  In the last line no source is seen more than E times; equal p_i give UniMax
(Chung et al. 2023, Algorithm 1).

In which order (`Interleaving`): sample k comes from a source and is that source's m-th one.  Both
follow from k, the amounts and the seed alone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import (
    MOST,
    check_choice,
    check_key,
    check_number,
    check_path,
    check_whole,
    is_number,
    is_whole,
    mismatch,
    wrong,
)
from ..files import open_regular, parse_json, printable
from ..random import fold, generator, key
from .pipeline.step import Document

BLOCK = 4096  # samples whose order is drawn together
MOST_SAMPLES = 2**45  # rounding errors of shares stay far below one sample
MEASURES = ("documents", "bytes")


def mixture_rates(
    sizes: Mapping[str, int], *, limit: int | None = None, temperature: float = 1.0
) -> dict[str, float]:
    """The rate of each source from its size: min(n, limit)^(1/T), rescaled to sum 1.

    temperature: T > 0; math.inf: equal rates. ValueError for an empty source.
    """
    _check_sizes(sizes)
    check_whole("limit", limit, 1, or_none=True)
    if not (type(temperature) is float and temperature == math.inf):
        check_number("temperature", temperature, above=0)
    # In logarithms, and relative to the largest, since a small T overflows.
    logs = [math.log(min(size, limit or size)) for size in map(int, sizes.values())]
    weights = [math.exp((log - max(logs)) / float(temperature)) for log in logs]
    return {name: weight / sum(weights) for name, weight in zip(sizes, weights)}


def mixture_amounts(
    sizes: Mapping[str, int],
    total: int,
    *,
    rates: Mapping[str, float] | None = None,
    epochs: float | None = None,
) -> dict[str, int]:
    """How much to take of each source, `total` in all: c_i = min(E n_i, lambda p_i), whole numbers.

    rates: weights of any sum (None: by size). epochs: E, how often a source may be seen (None: any
    number of times). Fractions go to the largest remainders.
    ValueError if all sources E times are less than `total`.
    """
    _check_sizes(sizes)
    check_whole("total", total, 1, MOST_SAMPLES)
    check_number("epochs", epochs, above=0, or_none=True)
    weights = _check_rates(dict(sizes) if rates is None else rates, sizes)
    caps = {
        name: total if epochs is None else min(math.floor(epochs * size), total)
        for name, size in sizes.items()
    }
    if sum(caps.values()) < total:
        expected = f"at most {sum(caps.values()):,}, {epochs:g} epochs of all sources"
        raise mismatch("total", expected, f"{total:,}")
    taken: dict[str, float] = {}
    free = dict(weights)
    while True:  # each round fixes the sources that reach their caps; the others share the rest
        rest = total - sum(taken.values())
        scale = rest / sum(free.values()) if free else 0.0
        full = [name for name in free if free[name] * scale >= caps[name]]
        if not full:
            break
        for name in full:
            taken[name] = caps[name]
            del free[name]
    taken |= {name: weight * scale for name, weight in free.items()}
    whole = {name: min(math.floor(taken[name]), caps[name]) for name in sizes}
    order = sorted(free, key=lambda name: whole[name] - taken[name])
    for name in order[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


class Interleaving:
    """The order of a mixture: c_i samples of source i, spread evenly, shuffled block by block.

    amounts: source -> c_i. Of source i, the first j of J blocks hold floor(c_i j / J) samples, so
    every block has nearly the whole mixture's shares, and the last one completes them exactly.
    Within a block the order is a permutation drawn from the key of seed and j. A block is found
    from its number alone; nothing is counted.
    """

    def __init__(self, amounts: Mapping[str, int], *, seed: int) -> None:
        check_key("seed", seed)
        if not isinstance(amounts, Mapping) or not amounts:
            raise wrong("amounts", "a dict from sources to numbers of samples", amounts)
        for name, amount in amounts.items():
            if not is_whole(amount) or amount < 0:
                raise wrong(f"amounts: {name!r:.60}", "an integer >= 0", amount)
        self.names = tuple(amounts)
        self.length = sum(map(int, amounts.values()))
        if not self.length:
            raise mismatch("amounts", "at least one sample", 0)
        self._amounts = [int(amount) for amount in amounts.values()]
        self._blocks = -(-self.length // BLOCK)
        self._key = key(seed)

    def drawn(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """For samples first ... first + count - 1: the source, by position in `names`, and its
        sample number m, both (count,) int64."""
        check_whole("first", first, 0, self.length)
        check_whole("count", count, 0, self.length - first)
        sources, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        block = self._block_of(first)
        done = first
        while done < first + count:
            start = sum(self._before(block))
            here = slice(done - start, first + count - start)
            of, number = self._block(block)
            sources.append(of[here])
            numbers.append(number[here])
            done += len(sources[-1])
            block += 1
        return np.concatenate(sources), np.concatenate(numbers)

    def _before(self, block: int) -> list[int]:
        """Samples of each source in the blocks before this one; Python's integers do not wrap."""
        return [amount * block // self._blocks for amount in self._amounts]

    def _block_of(self, sample: int) -> int:
        """The last block that begins at or before this sample, by halving."""
        low, high = 0, self._blocks
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self._before(middle)) <= sample else (low, middle)
        return low

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        before = np.array(self._before(block))
        sizes = np.array(self._before(block + 1)) - before
        of = np.repeat(np.arange(len(sizes)), sizes)[_order(fold(self._key, block), sizes.sum())]
        numbers = np.empty(len(of), np.int64)
        for source, start in enumerate(before):
            places = of == source
            numbers[places] = start + np.arange(sizes[source])
        return of, numbers


def _order(key: int, n: int) -> np.ndarray:
    """0 ... n - 1 in an order drawn from the key, from the raw words of Philox, which NumPy keeps
    stable across versions."""
    return np.argsort(generator(key).bit_generator.random_raw(int(n)), kind="stable")


# ---- reading


class MixedDocuments:
    """A mixture of folders of JSON lines, as the pipeline writes them; document k from k alone.

    folders: source -> folder, of which all *.jsonl files count, in the order of their names; each
    line has a text in `field`. total: documents of the mixture (None: as many as the sources have).
    rates, epochs: see `mixture_amounts`. by: what rates refer to, "documents" or "bytes" (of the
    lines: a source of long documents is drawn less often). seed: of the order between sources, and
    within each, where every epoch has its own.
    Keeps eight bytes a document, and reads one line at a time.
    ValueError naming a folder that is missing or has no document, or a line that is not an object
    with this field.
    """

    def __init__(
        self,
        folders: Mapping[str, str | os.PathLike],
        *,
        total: int | None = None,
        rates: Mapping[str, float] | None = None,
        epochs: float | None = None,
        by: str = "documents",
        field: str = "text",
        seed: int = 0,
    ) -> None:
        check_choice("by", by, MEASURES)
        check_whole("total", total, 1, MOST, or_none=True)
        if not isinstance(folders, Mapping) or not folders:
            raise wrong("folders", "a dict from sources to folders", folders)
        self._lines = {name: _Lines(folder) for name, folder in folders.items()}
        self.sizes = {name: len(lines) for name, lines in self._lines.items()}
        if rates is not None and by == "bytes":
            means = {name: lines.bytes / len(lines) for name, lines in self._lines.items()}
            rates = {name: r / means[name] for name, r in _check_rates(rates, folders).items()}
        total = sum(self.sizes.values()) if total is None else total
        self.amounts = mixture_amounts(self.sizes, total, rates=rates, epochs=epochs)
        self._turns = Interleaving(self.amounts, seed=seed)
        self._field, self._key = field, key(seed)
        self._epochs: dict[int, tuple[int, np.ndarray]] = {}  # of each source: the latest

    def __len__(self) -> int:
        return self._turns.length

    def __iter__(self) -> Iterator[Document]:
        return self.documents(0, len(self))

    def documents(self, first: int, count: int) -> Iterator[Document]:
        """Documents first ... first + count - 1; fields["source"] names the source of each."""
        for start in range(first, first + count, BLOCK):
            drawn = self._turns.drawn(start, min(BLOCK, first + count - start))
            for source, number in zip(*drawn):
                yield self._document(int(source), int(number))

    def _document(self, source: int, number: int) -> Document:
        name = self._turns.names[source]
        epoch, place = divmod(number, self.sizes[name])
        if self._epochs.get(source, (-1,))[0] != epoch:
            # Sources are told from blocks by a number that no block has.
            order = _order(fold(self._key, 2**63 + source, epoch), self.sizes[name])
            self._epochs[source] = epoch, order
        where, fields = self._lines[name].read(int(self._epochs[source][1][place]))
        text = fields.pop(self._field, None)
        if not isinstance(text, str):
            raise mismatch(where, f"a text in the field {self._field!r:.60}", type(text).__name__)
        return Document(text, where, {**fields, "source": name})


class _Lines:
    """The lines of all *.jsonl files of a folder, by number."""

    def __init__(self, folder: str | os.PathLike) -> None:
        check_path("folders", folder)
        if not Path(folder).is_dir():
            raise mismatch(printable(folder), "a folder", "none")
        self.paths = sorted(Path(folder).glob("*.jsonl"))
        starts = [_line_starts(path) for path in self.paths]
        self.bytes = sum(path.stat().st_size for path in self.paths)
        self._first = np.cumsum([0, *map(len, starts)])
        self._starts = np.concatenate([np.empty(0, np.int64), *starts])
        if not len(self):
            raise mismatch(printable(folder), "*.jsonl files with documents", "none")

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, number: int) -> tuple[str, dict[str, Any]]:
        """("file:line", its object); the number of the line counts those that are not blank."""
        file = int(np.searchsorted(self._first, number, side="right")) - 1
        where = f"{printable(self.paths[file])}:{number - self._first[file] + 1}"
        with open_regular(self.paths[file]) as lines:
            lines.seek(int(self._starts[number]))
            line = lines.readline()
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise mismatch(where, "valid UTF-8", error) from None
        value = parse_json(text, where, constants=False)
        if not isinstance(value, dict):
            raise mismatch(where, "an object", json.dumps(value)[:60])
        return where, value


def _line_starts(path: Path) -> np.ndarray:
    """Where each line that is not blank starts: (lines,) int64."""
    starts, at = [], 0
    with open_regular(path) as lines:
        for line in lines:
            if line.strip():
                starts.append(at)
            at += len(line)
    return np.array(starts, np.int64)


def _check_sizes(sizes: Any) -> None:
    if not isinstance(sizes, Mapping) or not sizes:
        raise wrong("sizes", "a dict from sources to sizes", sizes)
    for name, size in sizes.items():
        if not is_whole(size) or size < 1:
            raise wrong(f"sizes: {name!r:.60}", "an integer >= 1", size)


def _check_rates(rates: Any, sources: Mapping[str, Any]) -> dict[str, float]:
    """The rates in the order of the sources."""
    if not isinstance(rates, Mapping) or rates.keys() != sources.keys():
        raise wrong("rates", f"a dict of rates of {', '.join(map(str, sources))}", rates)
    for name, rate in rates.items():
        if not is_number(rate) or rate <= 0:
            raise wrong(f"rates: {name!r:.60}", "a finite number > 0", rate)
    return {name: float(rates[name]) for name in sources}
