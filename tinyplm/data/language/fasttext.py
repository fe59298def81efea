"""The language models of fastText, such as lid.176.bin, read by its own library if installed."""

from __future__ import annotations

import os
from typing import Any

from ...arguments import check_path, check_text
from ...files import open_regular, printable
from .model import LONGEST_TEXT, Guess

LABEL = "__label__"


class FastTextModel:
    """The guesses of a fastText model (Joulin et al. 2016) whose labels are __label__CODE.

    ValueError naming the file if it is none, or the library if it is missing.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        check_path("path", path)
        open_regular(path).close()
        self.path = os.fspath(path)
        self._model = _loaded(self.path)

    def guess(self, text: str) -> Guess:
        """The most likely language of a text, and its probability."""
        check_text("text", text)
        # it predicts one line, and refuses others
        line = " ".join(text[:LONGEST_TEXT].split())
        labels, probabilities = self._model.predict(line, k=1)
        if not labels:
            return Guess(None, 0.0)
        return Guess(labels[0].removeprefix(LABEL), min(1.0, float(probabilities[0])))

    def __reduce__(self) -> tuple:
        """Another process loads the file again: the library's object cannot be sent."""
        return FastTextModel, (self.path,)


def _loaded(path: str) -> Any:
    try:
        import fasttext
    except ImportError as error:
        raise ValueError(
            f"{printable(path)}: expected the library fasttext, got none installed ({error}); "
            "pip install fasttext-wheel, or train a model with train_language"
        ) from None
    try:
        return fasttext.load_model(path)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{printable(path)}: expected a fastText model, got {error}") from None
