"""Batches for masked language models, as data.batches.Windows has them for causal ones: by the number of the sample.

Sample n is known from (data, settings, seed, n) alone: a run that resumes needs no saved state, and ranks or micro-batches that
share a batch ask for their numbers.  `batch(first, count)` gives (inputs, targets): what the model is called with, and for each
of its outputs the array that the loss compares it with.

    inputs    input_ids, attention_mask, token_type_ids (B, T)
    targets   logits (B, T): the token where it was masked, else -100;   pair_logits (B,): the label of the pair

The samples also have `length`, their T.
An epoch is a plan, a list of samples; each epoch has a plan of its own (other pairs, other rows, other masks), in random order.
copies = k: only k plans, which take turns: static masking (BERT's data stand there 10 times, Liu et al. 2019, sec. 4.1).
Not for use by several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arguments import as_ids, check_choice, check_flag, check_names, check_several, check_whole
from ..core import IGNORED
from ..data import Windows
from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .inputs import (
    Documents,
    Layout,
    Row,
    check_pairs,
    check_samples,
    check_setup,
    doc_sentences,
    full_sentences,
    pad,
    truncate_pair,
)
from .masked import Masking, check_masking, mask_tokens, masking_epoch
from .permutation import permutation_sample
from .sentence_pairs import next_sentence_pairs, sentence_order_pairs
from .translation import translation_pair

Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
PAIRS = {"next_sentence": next_sentence_pairs, "sentence_order": sentence_order_pairs}


class MaskedPairs:
    """Pairs of segments with a label, words masked in both: BERT's pretraining, or ALBERT's.

    documents: lists of sentences, each a list of ids (data.sentence_documents).
    objective: "next_sentence" or "sentence_order".  sentences = True: pairs of single sentences, as RoBERTa's SENTENCE-PAIR.
    skip_short: documents with fewer than two sentences are left out, and counted in `documents.skipped`; else they are an error.
    """

    def __init__(
        self,
        documents: Sequence,
        length: int,
        *,
        layout: Layout,
        masking: Masking,
        seed: int,
        objective: str = "next_sentence",
        sentences: bool = False,
        copies: int | None = None,
        skip_short: bool = False,
    ) -> None:
        check_setup(layout, seed)
        check_masking(masking, copies)
        check_choice("objective", objective, sorted(PAIRS))
        check_flag("sentences", sentences)
        self.documents = Documents(documents, shortest=2, skip_short=skip_short)
        if objective == "next_sentence" and len(self.documents) < 2:
            raise ValueError("one document, expected two or more: a random next sentence comes from another document")
        self.length, self.layout, self.masking = length, layout, masking
        self._room = layout.room(length, pair=True)
        self._pairs = PAIRS[objective]
        self._size = {"tokens": 2, "short_rate": 0.0} if sentences else {"tokens": self._room}
        self._samples = _Samples(self._plan, seed, copies)

    def _plan(self, key: int) -> list:
        numbers = range(len(self.documents))
        return [pair for d in numbers for pair in self._pairs(self.documents, d, key=key, **self._size)]

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays with `count` rows."""
        rows, labels = [], []
        for pair, key in self._samples.get(first, count):
            texts = truncate_pair(self.documents.text(*pair.a), self.documents.text(*pair.b), self._room, fold(key, 0))
            rows.append(_masked(self.layout.pair(*texts), self.masking, fold(key, 1)))
            labels.append(pair.label)
        inputs, targets = _arrays(rows, self.length, self.layout.pad_id)
        return inputs, {**targets, "pair_logits": np.array(labels)}


class MaskedSentences:
    """Rows of whole sentences, masked: RoBERTa's FULL-SENTENCES, which go over the ends of documents (a separator stands there),
    or with across = False its DOC-SENTENCES, which do not."""

    def __init__(
        self,
        documents: Sequence,
        length: int,
        *,
        layout: Layout,
        masking: Masking,
        seed: int,
        across: bool = True,
        copies: int | None = None,
    ) -> None:
        check_setup(layout, seed)
        check_masking(masking, copies)
        check_flag("across", across)
        self.documents = Documents(documents)
        self.length, self.layout, self.masking = length, layout, masking
        self._room = layout.room(length, pair=False)
        self._samples = _Samples(self._full if across else self._apart, seed, copies)

    def _full(self, key: int) -> list:
        order = Draws(key).order(len(self.documents))
        return list(full_sentences(self.documents, order, self._room, self.layout.last[-1:]))

    def _apart(self, key: int) -> list:
        numbers = range(len(self.documents))
        return [(ids, None) for d in numbers for ids in doc_sentences(self.documents, d, self._room)]

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays (count, T)."""
        rows = [
            _masked(self.layout.single(ids, special), self.masking, key)
            for (ids, special), key in self._samples.get(first, count)
        ]
        return _arrays(rows, self.length, self.layout.pad_id)


class MaskedWindows:
    """Windows of a packed token array (data.pack), masked: for corpora that are too large for lists of sentences.

    tokens (N,), may be memory-mapped.  separators: ids in it that are not text (the eos between documents), never masked.
    The windows are those of data.batches.Windows, of as many tokens as fit beside the special ones.
    With copies = k the windows of an epoch take turns, too.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        *,
        layout: Layout,
        masking: Masking,
        seed: int,
        separators: Sequence[int] = (),
        copies: int | None = None,
    ) -> None:
        check_setup(layout, seed)
        check_masking(masking, copies)
        separators = as_ids("separators", separators)
        self.windows = Windows(tokens, layout.room(length, pair=False), seed)
        self.length, self.layout, self.masking, self.copies = length, layout, masking, copies
        self._separators = np.array(separators, np.int64)
        self._key = run_key(seed)

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays (count, T)."""
        check_samples(first, count)
        rows = []
        for n in range(first, first + count):
            epoch, place = divmod(n, self.windows.windows_per_epoch)
            number = masking_epoch(epoch, self.copies) * self.windows.windows_per_epoch + place
            row = _window(self.windows, number, self.layout, self._separators)
            rows.append(_masked(row, self.masking, fold(self._key, number)))
        return _arrays(rows, self.length, self.layout.pad_id)


class MaskedTranslations:
    """Sentences and their translations, words masked in both: XLM's TLM.  Inputs: input_ids, attention_mask, position_ids, langs.

    pairs: (source, target), lists of ids.  languages: for each pair the numbers of its two languages.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        languages: Sequence[tuple[int, int]],
        length: int,
        *,
        eos_id: int,
        pad_id: int,
        masking: Masking,
        seed: int,
        copies: int | None = None,
    ) -> None:
        pairs = check_pairs(pairs)
        check_several("languages", languages, "pairs of numbers of languages")
        languages = [tuple(as_ids("languages", pair).tolist()) for pair in languages]
        check_setup(Layout((), (), (), pad_id), seed)
        check_masking(masking, copies)
        check_whole("eos_id", eos_id)
        check_whole("length", length)
        if len(languages) != len(pairs) or not len(pairs):
            raise ValueError(f"{len(languages)} pairs of languages for {len(pairs)} pairs of sentences, expected one for each")
        self.pairs, self.languages, self.length, self.masking = pairs, languages, length, masking
        self.eos_id, self.pad_id = eos_id, pad_id
        self._samples = _Samples(lambda key: list(range(len(pairs))), seed, copies)

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays (count, T)."""
        rows = []
        for n, key in self._samples.get(first, count):
            row = translation_pair(*self.pairs[n], languages=self.languages[n], eos_id=self.eos_id, length=self.length)
            rows.append(_masked(row, self.masking, key))
        return _arrays(rows, self.length, self.pad_id)


class PermutedWindows:
    """Windows of a packed token array, predicted in a random order: XLNet's pretraining.

    tokens and separators as in MaskedWindows; predictions (M), K, longest and reuse as in permutation_sample.
    Inputs: input_ids (B, T), perm_mask (B, T, T), target_mapping (B, M, T); targets: logits (B, M).
    """

    def __init__(
        self, tokens: np.ndarray, length: int, *, layout: Layout, seed: int, separators: Sequence[int] = (), **settings: Any
    ) -> None:
        check_setup(layout, seed)
        separators = as_ids("separators", separators)
        check_names("PermutedWindows", settings, ("predictions", "K", "longest", "reuse"))
        self.windows = Windows(tokens, layout.room(length, pair=False), seed)
        self.length, self.layout, self.settings = length, layout, settings
        self._separators = np.array(separators, np.int64)
        self._key = run_key(seed)

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets)."""
        check_samples(first, count)
        samples = []
        for n in range(first, first + count):
            row = _window(self.windows, n, self.layout, self._separators)
            masks = permutation_sample(row["input_ids"], row["special_tokens_mask"], key=fold(self._key, n), **self.settings)
            samples.append({"input_ids": row["input_ids"], **masks})
        inputs = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        return inputs, {"logits": inputs.pop("targets")}


class _Samples:
    """The samples of all epochs by number.  plan: key -> the samples of an epoch.

    Epochs differ in length, so to find sample n the plans of all epochs before it are made once (and their lengths kept).
    """

    def __init__(self, plan: Callable[[int], list], seed: int, copies: int | None) -> None:
        self._plan, self._key, self._copies = plan, run_key(seed), copies
        self._ends = [0]  # samples before epoch 0, 1, ...
        self._epoch, self._kept, self._order = -1, [], np.empty(0, np.int64)

    def get(self, first: int, count: int) -> list[tuple[Any, int]]:
        """Samples first ... first + count - 1, each with its key."""
        check_samples(first, count)
        return [self._sample(n) for n in range(first, first + count)]

    def _sample(self, n: int) -> tuple[Any, int]:
        while n >= self._ends[-1]:
            self._open(len(self._ends) - 1)
            self._ends.append(self._ends[-1] + len(self._kept))
        epoch = int(np.searchsorted(self._ends, n, side="right")) - 1
        self._open(epoch)
        number = int(self._order[n - self._ends[epoch]])
        return self._kept[number], fold(self._key, masking_epoch(epoch, self._copies), 1, number)

    def _open(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._kept = self._plan(fold(self._key, masking_epoch(epoch, self._copies), 0))
            self._order = Draws(fold(self._key, epoch, 2)).order(len(self._kept))
            self._epoch = epoch


def _window(windows: Windows, number: int, layout: Layout, separators: np.ndarray) -> Row:
    ids = windows.batch(number, 1)[0][0]
    return layout.single(ids, np.isin(ids, separators).astype(np.int64))


def _masked(row: Row, masking: Masking, key: int) -> Row:
    inputs, targets = mask_tokens(row["input_ids"], row["special_tokens_mask"], masking=masking, key=key)
    return {**row, "input_ids": inputs, "targets": targets}


def _arrays(rows: list[Row], length: int, pad_id: int) -> Batch:
    arrays = pad(rows, length, {"input_ids": pad_id, "targets": IGNORED})
    del arrays["special_tokens_mask"]
    targets = arrays.pop("targets")
    return arrays, {"logits": targets}
