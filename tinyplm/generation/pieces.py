"""What decoding returns: pieces as they arrive, and whole continuations."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import NamedTuple

from .. import random
from ..models.model import Model
from .settings import GenerationSettings, stops_of
from .state import DecodingState, text_before
from .text import TextStream


class Piece(NamedTuple):
    """One token of one continuation."""

    row: int  # the continuation: samples * (prompt number) + sample number
    id: int
    log_probability: float  # nats, under the model itself, regardless of sampling settings
    text: str | None  # the next text that is certain, possibly ""; None without a tokenizer
    finished: str | None  # "stop" or "length" with the last token


@dataclasses.dataclass
class Continuation:
    """What follows a prompt, without the stop token or stop string that ended it."""

    prompt: int  # number of the prompt
    ids: list[int]
    log_probabilities: list[float]
    text: str | None
    finished: str = ""

    def add(self, piece: Piece, stop_ids: Container[int] = ()) -> None:
        """Append the next piece."""
        if piece.id not in stop_ids:
            self.ids.append(piece.id)
            self.log_probabilities.append(piece.log_probability)
        self.text = None if piece.text is None else (self.text or "") + piece.text
        self.finished = piece.finished or ""


class Writer:
    """Turns the tokens of continuations into pieces, with their text and when they end.

    generators: of each continuation, all that is random in it; remaining: the most tokens that each
    may still have.
    """

    def __init__(self, model: Model, state: DecodingState, settings: GenerationSettings) -> None:
        self.stops = stops_of(model, settings.stop_ids)
        samples, first = settings.samples, settings.first_prompt
        several = range(len(state.texts) * samples)
        run = random.key(settings.seed)
        keys = [random.fold(run, first + n // samples, n % samples) for n in several]
        self.generators = [random.generator(key) for key in keys]
        self.remaining = [settings.max_new_tokens for _ in several]
        self._streams: list[TextStream | None] = [None for _ in several]
        if model.tokenizer is not None:
            before = [text_before(state, n // samples) for n in several]
            self._streams = [
                TextStream(model.tokenizer, settings.stop_strings, ids) for ids in before
            ]

    def piece(self, n: int, token: int, log_probability: float) -> Piece:
        """The next token of continuation n."""
        self.remaining[n] -= 1
        last, stopped, new = self.remaining[n] == 0, token in self.stops, None
        text = self._streams[n]
        if text is not None:
            new = text.finish() if stopped else text.push(token, last=last)
            stopped |= text.stopped
        finished = "stop" if stopped else "length" if last else None
        return Piece(n, token, log_probability, new, finished)
