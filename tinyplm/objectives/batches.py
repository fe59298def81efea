"""Batches for masked and permuted language models, addressed by sample number as in data.Windows.

Sample n depends on (data, settings, seed, n) alone: a run that resumes needs no saved state, and
ranks or micro-batches that share a batch ask for their sample numbers. `batch(first, count)` gives
(inputs, targets): the arguments of the model, and the targets of each of its outputs.

    inputs    input_ids, attention_mask, token_type_ids (B, T)
    targets   logits (B, T): the original token where masked, else -100
              pair_logits (B,): the label of the pair

Each class also has `length`, its T. An epoch is a plan, a list of samples; each epoch has its own
plan (other pairs, rows and masks), in random order. copies = k: only k plans, which take turns.
This is static masking (k = 10 in BERT, Liu et al. 2019, sec. 4.1). Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ..arguments import (
    MOST,
    as_ids,
    check_choice,
    check_flag,
    check_number,
    check_several,
    check_whole,
    mismatch,
)
from ..core import IGNORED
from ..data import Windows
from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .epochs import Samples
from .inputs import (
    Batch,
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
from .sentence_pairs import SHORT_RATE, Pair, next_sentence_pairs, sentence_order_pairs
from .translation import translation_pair

PAIRS = {"next_sentence": next_sentence_pairs, "sentence_order": sentence_order_pairs}


class MaskedPairs:
    """Labelled pairs of segments with masked tokens: the pretraining of BERT or ALBERT.

    documents: lists of sentences, each a list of ids (data.sentence_documents).
    objective: "next_sentence" or "sentence_order". sentences: pairs of single sentences, RoBERTa's
    SENTENCE-PAIR. skip_short: documents with fewer than two sentences are dropped and counted in
    `documents.skipped` rather than refused.
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
            expected = "two or more (a random next sentence comes from another one)"
            raise mismatch("documents", expected, "1")
        self.length, self.layout, self.masking = length, layout, masking
        self._room = layout.room(length, pair=True)
        tokens, short_rate = (2, 0.0) if sentences else (self._room, SHORT_RATE)
        self._pairs = partial(PAIRS[objective], tokens=tokens, short_rate=short_rate)
        self._samples = Samples(self._plan, seed, copies)

    def _plan(self, key: int) -> list[Pair]:
        numbers = range(len(self.documents))
        return [pair for d in numbers for pair in self._pairs(self.documents, d, key=key)]

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays with `count` rows."""
        rows, labels = [], []
        for pair, key in self._samples.get(first, count):
            a, b = self.documents.text(*pair.a), self.documents.text(*pair.b)
            texts = truncate_pair(a, b, self._room, fold(key, 0))
            rows.append(_masked(self.layout.pair(*texts), self.masking, fold(key, 1)))
            labels.append(pair.label)
        inputs, targets = _arrays(rows, self.length, self.layout.pad_id)
        return inputs, {**targets, "pair_logits": np.array(labels)}


class MaskedSentences:
    """Rows of whole sentences with masked tokens, as in RoBERTa.

    FULL-SENTENCES, across document ends, which a separator marks, or with across = False
    DOC-SENTENCES, each row within one document.
    """

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
        self._samples = Samples(self._full if across else self._apart, seed, copies)

    def _full(self, key: int) -> list:
        order = Draws(key).order(len(self.documents))
        return list(full_sentences(self.documents, order, self._room, self.layout.last[-1:]))

    def _apart(self, key: int) -> list:
        numbers = range(len(self.documents))
        rows = (doc_sentences(self.documents, d, self._room) for d in numbers)
        return [(ids, None) for document in rows for ids in document]

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays (count, T)."""
        rows = [
            _masked(self.layout.single(ids, special), self.masking, key)
            for (ids, special), key in self._samples.get(first, count)
        ]
        return _arrays(rows, self.length, self.layout.pad_id)


class MaskedWindows:
    """Masked windows of a packed token array (data.pack), for corpora too large for sentence lists.

    tokens (N,) may be memory-mapped. separators: ids that are not text (the eos between documents),
    never masked. The windows are those of data.Windows, with the length that the special tokens
    leave. With copies = k the windows of an epoch repeat as well.
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
        self._separators = as_ids("separators", separators)
        self.windows = Windows(tokens, layout.room(length, pair=False), seed)
        self.length, self.layout, self.masking, self.copies = length, layout, masking, copies
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
    """Sentences with their translations, both masked: XLM's TLM.

    pairs: (source, target), lists of ids. languages: the two language numbers of each pair.
    Inputs: input_ids, attention_mask, position_ids, langs.
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
        check_several("languages", languages, "pairs of language numbers")
        languages = [tuple(as_ids("languages", pair).tolist()) for pair in languages]
        check_setup(Layout((), (), (), pad_id), seed)
        check_masking(masking, copies)
        check_whole("eos_id", eos_id)
        check_whole("length", length)
        if not pairs:
            raise ValueError("pairs: expected one or more, got none")
        if len(languages) != len(pairs):
            raise ValueError(f"languages: expected {len(pairs)} pairs, got {len(languages)}")
        self.pairs, self.languages, self.length, self.masking = pairs, languages, length, masking
        self.eos_id, self.pad_id = eos_id, pad_id
        self._samples = Samples(lambda key: list(range(len(pairs))), seed, copies)

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays (count, T)."""
        rows = []
        for n, key in self._samples.get(first, count):
            row = translation_pair(
                *self.pairs[n], languages=self.languages[n], eos_id=self.eos_id, length=self.length
            )
            rows.append(_masked(row, self.masking, key))
        return _arrays(rows, self.length, self.pad_id)


class PermutedWindows:
    """Windows of a packed token array, predicted in a random order: XLNet's pretraining.

    tokens and separators as in MaskedWindows; predictions (M), K, longest and reuse as in
    permutation_sample.
    Inputs: input_ids (B, T), perm_mask (B, T, T), target_mapping (B, M, T); targets: logits (B, M).
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        *,
        layout: Layout,
        seed: int,
        predictions: int,
        K: float = 6,
        longest: int = 5,
        reuse: int = 0,
        separators: Sequence[int] = (),
    ) -> None:
        check_setup(layout, seed)
        self._separators = as_ids("separators", separators)
        self.windows = Windows(tokens, layout.room(length, pair=False), seed)
        self.length, self.layout = length, layout
        check_whole("predictions", predictions, 1, MOST)
        check_number("K", K, least=1, most=MOST)
        check_whole("longest", longest, 1, MOST)
        check_whole("reuse", reuse, 0, length - 1)
        self._sample = partial(
            permutation_sample, predictions=predictions, K=K, longest=longest, reuse=reuse
        )
        self._key = run_key(seed)

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets)."""
        check_samples(first, count)
        samples = []
        for n in range(first, first + count):
            row = _window(self.windows, n, self.layout, self._separators)
            ids, special = row["input_ids"], row["special_tokens_mask"]
            samples.append({"input_ids": ids, **self._sample(ids, special, key=fold(self._key, n))})
        inputs = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        return inputs, {"logits": inputs.pop("targets")}


def _window(windows: Windows, number: int, layout: Layout, separators: np.ndarray) -> Row:
    ids = windows.batch(number, 1)[0][0]
    return layout.single(ids, np.isin(ids, separators).astype(np.int64))


def _masked(row: Row, masking: Masking, key: int) -> Row:
    ids, special = row["input_ids"], row["special_tokens_mask"]
    inputs, targets = mask_tokens(ids, special, masking=masking, key=key)
    return {**row, "input_ids": inputs, "targets": targets}


def _arrays(rows: list[Row], length: int, pad_id: int) -> Batch:
    arrays = pad(rows, length, {"input_ids": pad_id, "targets": IGNORED})
    del arrays["special_tokens_mask"]
    targets = arrays.pop("targets")
    return arrays, {"logits": targets}
