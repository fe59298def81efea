"""The step of the corpus pipeline that keeps documents in some languages."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from ...arguments import as_texts, check_number, check_path, known_arguments, wrong
from ..pipeline.step import Document, Result, Step
from .fasttext import FastTextModel
from .model import Guess, LanguageModel, load_language

FASTTEXT = (".bin", ".ftz")  # names of fastText's files


class _Guesser(Protocol):
    def guess(self, text: str) -> Guess: ...


@known_arguments
def language(
    *,
    model: str | os.PathLike | LanguageModel | FastTextModel,
    keep: Iterable[str] | None = None,
    threshold: float = 0.65,
) -> Step:
    """Guesses the language of each document, and drops those not to keep.

    model: what train_language returned, or its file, or a fastText model (.bin or .ftz).
    keep: codes of languages, as the model has them; None: all.
    threshold: drop documents whose language has a lower probability; from 0 to 1.

    A document that stays has the fields "language" and "language_probability".   The counts say
    "language fr" or "language unsure" for what was dropped; "language unknown" where none fits.
    """
    check_number("language: threshold", threshold, least=0, most=1)
    codes = None if keep is None else frozenset(as_texts("language: keep", keep))
    if codes is not None and not codes:
        raise wrong("language: keep", "None or at least one language", keep)
    guesser: _Guesser
    if isinstance(model, (LanguageModel, FastTextModel)):
        guesser = model
    else:
        check_path("language: model", model)
        fast = Path(os.fsdecode(model)).suffix in FASTTEXT
        guesser = FastTextModel(model) if fast else load_language(model)
    if codes is not None and isinstance(guesser, LanguageModel):
        for code in sorted(codes):
            if code not in guesser.languages:
                raise wrong("language: keep", f"some of {', '.join(guesser.languages)}", code)
    return _Language(guesser, codes, float(threshold))


@dataclasses.dataclass(frozen=True)
class _Language:
    """The step; it can be sent to other processes."""

    model: _Guesser
    keep: frozenset[str] | None
    threshold: float

    def __call__(self, document: Document) -> Result:
        code, probability = self.model.guess(document.text)
        if code is None:
            return None, {"language unknown": 1}
        if self.keep is not None and code not in self.keep:
            return None, {f"language {code}": 1}
        if probability < self.threshold:
            return None, {"language unsure": 1}
        fields = {**document.fields, "language": code, "language_probability": probability}
        return document._replace(fields=fields), {}
