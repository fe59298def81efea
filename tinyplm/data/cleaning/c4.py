"""The rules of C4: Raffel et al. 2020, "Exploring the limits of transfer learning", sec. 2.2, with
the constants of its code (tensorflow_datasets, text/c4_utils.py)."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...arguments import check_path, check_text, check_whole, known_arguments
from ...files import printable, text_lines
from ..deduplication.hashing import hashes, repeats
from ..pipeline.step import CorpusStep, Counts, Document, Ragged, Result, Step
from ..sentences import split_sentences
from .words import words_of

ENDS = '.?!"。？！”'  # the first four are C4's
ELLIPSIS = "..."
POLICIES = re.compile(
    "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
)
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
SPAN = 3  # sentences
MOST = 1 << 40  # of a limit

# ---- lines and pages


@known_arguments
def c4(
    *,
    least_words: int = 5,
    least_sentences: int = 3,
    longest_word: int = 1000,
    ends: str = ENDS,
    bad_words: str | os.PathLike | None = None,
) -> Step:
    """Keeps lines of running text, and drops pages that are none.

    A line goes if it has a word of more than `longest_word` characters, does not end in one of
    `ends`, or ends in "...", has fewer than `least_words` words, mentions JavaScript, or speaks of
    cookies or terms of use.   Marks of citations, such as [3], are taken out first.
    A page goes if one of the lines that stay says "lorem ipsum" or has a brace, if it has a word of
    `bad_words`, a file with one word or phrase a line, in small letters, or if fewer than
    `least_sentences` sentences are left.

    In Chinese and Japanese an ideograph or kana is a word (words.py); a bad word in these scripts
    is looked for without borders, as in the code.
    """
    check_whole("least_words", least_words, 0, MOST)
    check_whole("least_sentences", least_sentences, 0, MOST)
    check_whole("longest_word", longest_word, 1, MOST)
    check_text("ends", ends, empty=False)
    bad = None if bad_words is None else _bad_words(bad_words)
    marks = tuple(ends)

    def why_not(line: str) -> str | None:
        """Why a line is no running text; the cheap questions first."""
        if not line.endswith(marks) or line.endswith(ELLIPSIS):
            return "lines without punctuation at the end"
        if len(line) > longest_word and max(map(len, line.split())) > longest_word:
            return f"lines with a word of more than {longest_word:,} characters"
        if len(words_of(line).words) < least_words:
            return f"lines of fewer than {least_words} words"
        return None

    def step(document: Document) -> Result:
        counts: Counts = {}
        kept = []
        for line in document.text.splitlines():
            line = line.strip()
            if not line:
                continue
            if "[" in line:
                line = CITATION.sub("", line)
            small = line.lower()
            reason = why_not(line)
            if reason is None and "lorem ipsum" in small:
                return None, {"lorem ipsum": 1}
            if reason is None and "javascript" in small:
                reason = "lines with JavaScript"
            if reason is None and "{" in line:
                return None, {"braces": 1}
            if reason is None and POLICIES.search(small):
                reason = "lines about cookies or terms"
            if reason is None:
                kept.append(line)
            else:
                counts[reason] = counts.get(reason, 0) + 1
        sentences = (1 for line in kept for _ in split_sentences(line))
        if len(list(itertools.islice(sentences, least_sentences))) < least_sentences:
            return None, {f"fewer than {least_sentences} sentences": 1}
        if bad is not None and bad(document.text.lower()):
            return None, {"bad words": 1}
        text = "\n".join(kept)
        return (document if text == document.text else document._replace(text=text)), counts

    return step


def _bad_words(path: str | os.PathLike) -> Callable[[str], bool]:
    """Whether a text, in small letters, has one of the words of a file."""
    check_path("bad_words", path)
    words = {line.strip().lower() for _, line in text_lines(path)} - {""}
    if not words:
        raise ValueError(f"bad_words: expected a word a line in {printable(path)}, got none")
    single = {word for word in words if re.fullmatch(r"\w+", word)}
    unspaced = [word for word in words if words_of(word).unspaced]
    phrases = words - single
    borders = {word: re.compile(rf"(?<!\w){re.escape(word)}(?!\w)") for word in phrases}

    def found(text: str) -> bool:
        return (
            not single.isdisjoint(re.findall(r"\w+", text))
            or any(word in text for word in unspaced)
            or any(word in text and borders[word].search(text) for word in phrases)
        )

    return found


# ---- repeated spans of sentences

_BORDER = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）】》]*|\n")


@known_arguments
def c4_spans(*, sentences: int = SPAN) -> CorpusStep:
    """Takes out spans of `sentences` sentences that occurred before in the corpus (sec. 2.2).

    A sentence ends after . ! ? or … before white space, after 。！？, and at the end of a line;
    abbreviations are not looked at, since the same text is cut in the same way wherever it stands.
    Sentences are compared in small letters.   A document without text left is dropped.   A decision
    has a flag for each span.
    """
    check_whole("sentences", sentences, 1, 100)
    return _Spans(sentences)


def sentence_places(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, without the white space around it."""

    def raw() -> Iterator[tuple[int, int]]:
        start = 0
        for match in _BORDER.finditer(text):
            yield start, match.end()
            start = match.end()
        yield start, len(text)

    found = []
    for start, end in raw():
        sentence = text[start:end]
        left = len(sentence) - len(sentence.lstrip())
        if left < len(sentence):
            found.append((start + left, start + len(sentence.rstrip())))
    return found


@dataclasses.dataclass(frozen=True)
class _Spans:
    sentences: int
    dtype = np.dtype(np.uint64)

    def read(self, document: Document) -> np.ndarray:
        text, n = document.text, self.sentences
        parts = [text[start:end].lower() for start, end in sentence_places(text)]
        return hashes(("\n".join(parts[i : i + n]) for i in range(len(parts) - n + 1)), 64)

    def decide(self, signatures: Ragged) -> Any:
        repeated = np.zeros(len(signatures.values), bool)
        for later, _ in repeats(signatures.values.reshape(-1, 1)):
            repeated[later] = True
        return Ragged(repeated, signatures.offsets)

    def apply(self, document: Document, decision: Any) -> Result:
        if not np.any(decision):
            return document, {}
        places = sentence_places(document.text)
        gone = np.zeros(len(places), bool)
        for shift in range(self.sentences):
            gone[shift : shift + len(decision)] |= decision
        kept, end = [], 0
        for (start, after), out in zip(places, gone):
            if out:
                kept.append(document.text[end:start].rstrip(" "))
                end = after
        text = "".join([*kept, document.text[end:]]).strip()
        if not text:
            return None, {"only spans that occurred before": 1}
        counts = {"sentences in spans that occurred before": int(gone.sum())}
        return document._replace(text=text), counts
