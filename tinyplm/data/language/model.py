"""Language identification: multinomial naive Bayes over hashed character n-grams."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ...arguments import (
    as_texts,
    check_choice,
    check_number,
    check_text,
    check_whole,
    known_arguments,
    mismatch,
    shown,
    wrong,
)
from ...files import printable
from ..model_files import read_model, stored_array, write_model
from .ngrams import character_ngrams
from .scripts import SCRIPTS, code_points, main_script

KIND = "language"
LONGEST_TEXT = 10_000  # characters of a text that are looked at, from its start


class Guess(NamedTuple):
    """The most likely language, and its probability; (None, 0.0) where no language fits."""

    language: str | None
    probability: float


class LanguageModel:
    """p(l | text) ~ exp(1/N sum_g log p(g | l)),   p(g | l) = (c_l(g) + a) / (sum_g c_l(g) + 2^b a)

    over the text's n-grams g of 1 to N characters, each hashed to one of 2^b buckets; c_l(g) counts
    those of the samples of language l.   Manning, Raghavan & Schuetze 2008, eq. 13.4 and 13.7 (with
    a in place of 1), for n-grams in place of words and equal priors.   Each character is part of N
    n-grams that begin with it; 1/N counts it once, so that probabilities are not all 0 or 1.

    Only languages whose samples are written in the text's script (most of its letters) compete: a
    text in another script has none of them.  A language that it was not trained on but that shares
    the script is taken for one that it was.

    languages: L codes;   scripts: of each, one of scripts.SCRIPTS;   log_p: (2^b, L) float32.
    """

    def __init__(
        self, languages: list[str], scripts: list[str], log_p: np.ndarray, *, longest: int
    ) -> None:
        self.languages, self.scripts, self.log_p, self.longest = languages, scripts, log_p, longest

    @property
    def bits(self) -> int:
        """b: there are 2^b buckets."""
        return len(self.log_p).bit_length() - 1

    def probabilities(self, text: str) -> dict[str, float]:
        """{language: probability} of those in the text's script, which add up to 1; or {}."""
        check_text("text", text)
        text = text[:LONGEST_TEXT]
        script = main_script(code_points(text))
        fitting = [i for i, s in enumerate(self.scripts) if s == script]
        if len(fitting) <= 1:
            return {self.languages[i]: 1.0 for i in fitting}
        buckets = character_ngrams(text, longest=self.longest, bits=self.bits)
        terms = np.take(self.log_p, buckets, axis=0).astype(np.float64)
        log_p = (np.ones(len(terms)) @ terms)[
            fitting
        ] / self.longest  # faster than terms.sum(axis=0)
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        return {self.languages[i]: float(value) for i, value in zip(fitting, p, strict=True)}

    def guess(self, text: str) -> Guess:
        """The most likely language of a text, the first of several equal ones."""
        found = self.probabilities(text)
        if not found:
            return Guess(None, 0.0)
        best = max(found, key=lambda language: found[language])
        return Guess(best, found[best])

    def save(self, path: str | os.PathLike) -> None:
        """Write it as one safetensors file with its settings in the header."""
        settings = {"languages": self.languages, "scripts": self.scripts, "longest": self.longest}
        write_model(path, KIND, {"log_p": self.log_p}, settings)


@known_arguments
def train_language(
    samples: Mapping[str, Iterable[str]],
    *,
    longest: int = 4,
    bits: int = 18,
    smoothing: float = 0.1,
) -> LanguageModel:
    """A model of the languages of these samples, {code: texts}.

    A few hundred sentences a language suffice for sentences, 20 for a rough guess.   longest: N,
    bits: b, smoothing: a of LanguageModel.   ValueError for a language without letters.
    """
    if not isinstance(samples, Mapping) or not samples:
        raise wrong("samples", "a table {language: texts} of at least one language", samples)
    check_whole("longest", longest, 1, 8)
    check_whole("bits", bits, 1, 24)
    check_number("smoothing", smoothing, above=0)
    languages, scripts, columns = [], [], []
    for language, given in samples.items():
        check_text("samples: a language", language, empty=False)
        texts = as_texts(f"samples: {shown(language)}", given)
        script = main_script(code_points(" ".join(texts)))
        if script is None:
            raise mismatch(f"samples: {shown(language)}", "texts with letters", "none")
        counts = np.zeros(1 << bits)
        for text in texts:
            buckets = character_ngrams(text, longest=longest, bits=bits)
            counts += np.bincount(buckets, minlength=1 << bits)
        languages.append(language)
        scripts.append(script)
        columns.append(np.log((counts + smoothing) / (counts.sum() + smoothing * len(counts))))
    log_p = np.stack(columns, axis=1).astype(np.float32)
    return LanguageModel(languages, scripts, log_p, longest=int(longest))


@known_arguments
def load_language(path: str | os.PathLike) -> LanguageModel:
    """The model in a file that `save` wrote; ValueError naming the file for another."""
    arrays, settings = read_model(path, KIND)
    where = printable(path)
    languages, scripts = settings.get("languages"), settings.get("scripts")
    if not (isinstance(languages, list) and isinstance(scripts, list)):
        raise mismatch(f"{where}: header", "lists of languages and scripts", shown(settings))
    if not languages or len(languages) != len(scripts):
        raise mismatch(f"{where}: header", "languages, and a script of each", shown(settings))
    for code, script in zip(languages, scripts, strict=True):
        check_text(f"{where}: a language", code, empty=False)
        check_choice(f"{where}: script of {shown(code)}", script, SCRIPTS)
    longest = settings.get("longest", 0)
    check_whole(f"{where}: longest", longest, 1, 8)
    rows = len(arrays.get("log_p", ()))
    if rows.bit_count() != 1 or not 2 <= rows <= 1 << 24:
        raise mismatch(f"{where}: log_p", "2^1 to 2^24 rows", str(rows))
    log_p = stored_array(where, arrays, "log_p", (rows, len(languages)))
    return LanguageModel(languages, scripts, log_p, longest=longest)
