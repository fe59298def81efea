"""Training batches: from token ids and a seed to inputs and targets, all of them integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ... import objectives
from ...data import Windows, batches
from ...objectives import Layout, Masking
from .subject import Made, Result, Subject, named

SPECIAL = {"cls": 1, "sep": 2, "pad": 0, "mask": 3}
VOCABULARY = 40


def _texts(*documents: list[int]) -> list[list[list[int]]]:
    """Documents with sentences of these lengths, their ids counted from 5 on."""
    found, token = [], 0
    for lengths in documents:
        sentences = []
        for n in lengths:
            sentences.append([5 + (token + i) % (VOCABULARY - 5) for i in range(n)])
            token += n
        found.append(sentences)
    return found


DOCUMENTS = _texts([4, 3, 5, 2], [6, 1, 2], [3, 3, 3, 3, 3], [9, 2])
TOKENS = np.array([i for d in DOCUMENTS for i in [*(i for s in d for i in s), SPECIAL["sep"]]])
PAIRS = [[[10 + n, 11], [20 + n, 21, 22][: 2 + n % 2]] for n in range(12)]


def _layout() -> Layout:
    return Layout.bert(cls_id=SPECIAL["cls"], sep_id=SPECIAL["sep"], pad_id=SPECIAL["pad"])


def _masking(settings: Mapping[str, Any]) -> Masking:
    return Masking(mask_id=SPECIAL["mask"], vocab_size=VOCABULARY, **settings)


def _run(
    make: Callable[[dict[str, Any]], Any], arguments: Mapping[str, Any], keywords: Mapping[str, Any]
) -> Result:
    """The batch of samples `first` to first + count - 1 of what `make` makes of the settings."""
    settings = {n: value for n, value in keywords.items() if n not in ("first", "count", "special")}
    inputs, targets = make(settings).batch(keywords["first"], keywords["count"])
    return Result(named("output.inputs", inputs) | named("output.targets", targets))


def _masked(kind: Any, settings: dict[str, Any]) -> Any:
    masking = _masking(settings.pop("masking"))
    return kind(**settings, layout=_layout(), masking=masking)


def _permuted(settings: dict[str, Any]) -> Any:
    return objectives.PermutedWindows(**settings, layout=_layout())


def _translations(settings: dict[str, Any]) -> Any:
    masking = _masking(settings.pop("masking"))
    settings |= {"eos_id": SPECIAL["sep"], "pad_id": SPECIAL["pad"]}
    return objectives.MaskedTranslations(**settings, masking=masking)


def _positive(settings: dict[str, Any]) -> Any:
    return objectives.PositivePairs(**settings, layout=_layout())


def _packed(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    documents, positions = batches.document_positions(keywords["inputs"], keywords["eos_id"])
    return Result({"output.documents": documents, "output.positions": positions})


# {name: (what it is, its class, how it is made, the keywords, variants)}
_Variants = list[tuple[str, str, dict[str, Any]]]
_MASKING: dict[str, Any] = {"masking": {"rate": 0.3}}
_WHOLE: _Variants = [
    ("batch", "", {}),
    ("later", "samples of a later epoch, with another order and other masks", {"first": 40}),
    ("bernoulli", "each token selected by itself",
     {"masking": {"rate": 0.3, "selection": "bernoulli"}}),
    ("ngrams", "one to three tokens in a row",
     {"masking": {"rate": 0.3, "ngrams": (1.0, 0.5, 0.25)}}),
    ("static", "two sets of masks, which take turns", {"copies": 2, "first": 40}),
]  # fmt: skip
_TABLE: dict[str, tuple[str, Any, Any, dict[str, Any], _Variants]] = {
    "causal_windows": (
        "windows of a packed array, and the token after each", Windows,
        lambda settings: Windows(**settings), {"tokens": TOKENS, "length": 8, "seed": 5},
        [("batch", "", {}), ("later", "samples of a later epoch, from another offset",
                             {"first": 40}), ("one-token", "windows of one token", {"length": 1})]),
    "masked_windows": (
        "masked windows of a packed array", objectives.MaskedWindows,
        partial(_masked, objectives.MaskedWindows),
        {"tokens": TOKENS, "length": 12, "seed": 5, "separators": [2], **_MASKING}, _WHOLE),
    "masked_sentences": (
        "masked rows of whole sentences", objectives.MaskedSentences,
        partial(_masked, objectives.MaskedSentences),
        {"documents": DOCUMENTS, "length": 12, "seed": 5, **_MASKING},
        [*_WHOLE, ("within", "rows end with their document", {"across": False})]),
    "masked_pairs": (
        "masked pairs of segments, with the label of the pair", objectives.MaskedPairs,
        partial(_masked, objectives.MaskedPairs),
        {"documents": DOCUMENTS, "length": 16, "seed": 5, **_MASKING},
        [*_WHOLE, ("sentence-order", "the second segment follows or precedes the first",
                   {"objective": "sentence_order"}),
         ("short", "segments that are truncated", {"length": 9}),
         ("single-sentences", "pairs of single sentences", {"sentences": True})]),
    "masked_translations": (
        "a sentence and its translation, both masked", objectives.MaskedTranslations, _translations,
        {"pairs": PAIRS, "languages": [[0, 1]] * len(PAIRS), "length": 9, "seed": 5, **_MASKING},
        _WHOLE[:3]),
    "permuted_windows": (
        "windows predicted in a random order", objectives.PermutedWindows, _permuted,
        {"tokens": TOKENS, "length": 12, "seed": 5, "predictions": 4, "K": 3, "separators": [2]},
        [("batch", "", {}),
         ("reuse", "the first five tokens become memory: not mixed with the rest", {"reuse": 5})]),
    "positive_pairs": (
        "anchors and positives for contrastive losses", objectives.PositivePairs, _positive,
        {"pairs": PAIRS, "size": 4, "length": 8, "seed": 5},
        [("batch", "", {}), ("groups", "never two anchors of one group in a step",
                             {"groups": [n // 2 for n in range(12)]}),
         ("truncated", "texts truncated at the end", {"length": 4})]),
}  # fmt: skip


def _cases(keywords: dict[str, Any], variants: _Variants) -> list[Made]:
    base = {"first": 0, "count": 4, "special": SPECIAL, **keywords}
    return [Made(name, note, {}, base | changes) for name, note, changes in variants]


def _packed_cases() -> list[Made]:
    rows = np.array([[5, 6, 2, 7, 8, 9], [2, 2, 5, 6, 7, 2], [5, 6, 7, 8, 9, 10]])
    note = "documents end anywhere, one is empty, one row has no end"
    return [Made("rows", note, {}, {"inputs": rows, "eos_id": SPECIAL["sep"]})]


SUBJECTS = {
    name: Subject(name, "objective", text, f, partial(_run, make),
                  partial(_cases, keywords, variants), ("float64",))
    for name, (text, f, make, keywords, variants) in _TABLE.items()
}  # fmt: skip
SUBJECTS["document_positions"] = Subject(
    "document_positions", "objective", "documents and positions within packed rows",
    batches.document_positions, _packed, _packed_cases, ("float64",),
)  # fmt: skip
