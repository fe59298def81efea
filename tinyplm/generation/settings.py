"""The options of decoding, checked, and the prompts as lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence, Set
from typing import Any, cast

import numpy as np

from ..arguments import (
    MOST,
    check_choice,
    check_flag,
    check_key,
    check_number,
    check_whole,
    is_whole,
    listed,
    mismatch,
    wrong,
)
from ..models.language_model import LanguageModel
from ..models.model import Model
from .sampling import check_repetition
from .text import check_stop

MOST_TEXTS = 2**20  # continuations in one call


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingSettings:
    """What all ways of decoding have in common."""

    max_new_tokens: int
    stop_ids: Iterable[int] | None
    vocabulary: int | None
    cached: bool

    def __post_init__(self) -> None:
        if self.stop_ids is not None:
            object.__setattr__(self, "stop_ids", checked_stops(self.stop_ids))
        check_whole("max_new_tokens", self.max_new_tokens, 1, MOST)
        check_whole("vocabulary", self.vocabulary, 1, or_none=True)
        check_flag("cached", self.cached)

    def ids_below(self, model: Model) -> int | None:
        """The bound of the ids that may be chosen; None where all that have a logit may."""
        if self.vocabulary is None and model.tokenizer is not None:
            return model.tokenizer.vocab_size
        return self.vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSettings(DecodingSettings):
    """The options of `stream`."""

    samples: int
    seed: int
    stop_strings: Sequence[str]
    draft_length: int
    first_prompt: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stop(self.stop_strings, "stop_strings")
        check_whole("samples", self.samples, 1, MOST)
        check_key("seed", self.seed)
        check_whole("draft_length", self.draft_length, 1, MOST)
        check_whole("first_prompt", self.first_prompt, 0, MOST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSettings(DecodingSettings):
    """The options of `beam_search`."""

    beams: int
    min_new_tokens: int
    results: int
    length_penalty: float
    early_stopping: bool | str
    no_repeat_ngram: int | None
    repetition_penalty: float
    forced_first: int | None
    forced_last: int | None
    groups: int
    diversity_penalty: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("beams", self.beams, 1, MOST_TEXTS)
        check_whole("min_new_tokens", self.min_new_tokens, 0, self.max_new_tokens)
        check_whole("results", self.results, 1, self.beams)
        check_number("length_penalty", self.length_penalty, least=-10, most=10)
        check_choice("early_stopping", self.early_stopping, (False, True, "never"))
        check_repetition(self.repetition_penalty, self.no_repeat_ngram)
        check_whole("forced_first", self.forced_first, or_none=True)
        check_whole("forced_last", self.forced_last, or_none=True)
        check_whole("groups", self.groups, 1, self.beams)
        if self.beams % self.groups:
            raise mismatch("beams", f"a multiple of the {self.groups} groups", self.beams)
        check_number("diversity_penalty", self.diversity_penalty, least=0)

    def size(self, model: Model, stops: set[int]) -> int:
        """V, the number of ids that may be chosen; ValueError where it is too small."""
        size = min(self.ids_below(model) or MOST, model.config.vocab_size)
        for name in ("forced_first", "forced_last"):
            check_whole(name, getattr(self, name), 0, size - 1, or_none=True)
        texts = size ** min(self.max_new_tokens, 32)  # at least MOST_TEXTS where it is less
        if self.beams > texts:
            raise mismatch("beams", f"at most the {texts} texts that there are", self.beams)
        if self.min_new_tokens and stops.issuperset(range(size)):
            raise mismatch("min_new_tokens", "0 where every token ends a text", self.min_new_tokens)
        return size


def several_prompts(prompts: Sequence[int] | Sequence[Sequence[int]]) -> list[list[int]]:
    """One prompt or several, as a list of prompts of plain ints."""
    expected = "token ids of one prompt or of several, as from model.tokenizer.encode"
    several = listed("prompts", prompts, expected)
    try:
        if not several or np.ndim(several[0]) == 0:
            several = [several]
        arrays = [np.asarray(prompt) for prompt in several]
    except Exception:  # NumPy raises several types for values that form no array
        raise wrong("prompts", expected, prompts) from None
    if any(a.ndim != 1 or (a.size and a.dtype.kind not in "iu") for a in arrays):
        raise wrong("prompts", expected, prompts)
    return [a.tolist() for a in arrays]


def stops_of(model: Model, stop_ids: Iterable[int] | None) -> set[int]:
    """The ids that end a continuation; by default those of the model."""
    if stop_ids is None:
        return cast(LanguageModel, model).end_ids()
    return checked_stops(stop_ids)


def checked_stops(stop_ids: Any) -> set[int]:
    """stop_ids as a set; ValueError for anything that is no token id."""
    expected = "None or a list of token ids"
    stops = list(stop_ids) if isinstance(stop_ids, Set) else listed("stop_ids", stop_ids, expected)
    if not all(is_whole(i) and i >= 0 for i in stops):
        raise wrong("stop_ids", expected, stop_ids)
    return {int(i) for i in stops}
