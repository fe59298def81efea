"""BART's five noises: a document is corrupted, and the whole original is predicted (Lewis et al.
2020, sec. 2.2).

    text                   A B C . D E .
    token masking          A _ C . _ E .       random tokens become [MASK]
    token deletion         A C . E .           random tokens disappear
    text infilling         A _ . D _ E .       each span becomes one [MASK], even if empty
    sentence permutation   D E . A B C .
    document rotation      C . D E . A B       begins with a random token

Each function returns the noised text and a record of what it did, from which the text can be
restored, given the tokens that were removed. Shares of tokens are exact, ceil(rate n), as in the
released code. That code also lets spans overlap, which lowers the rate, and can replace masks by
random tokens; the paper mentions neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arguments import (
    MOST,
    as_ids,
    check_flag,
    check_key,
    check_number,
    check_several,
    check_whole,
    wrong,
)
from ..random import fold
from .draws import Draws
from .epochs import Samples
from .inputs import Batch, Documents, sentence_rows
from .seq2seq import Seq2SeqLayout, check_layout, seq2seq_batch

LONGEST_SPAN = 500.0  # mean
MEAN_SPAN = 3.0  # lambda of the Poisson distribution: Lewis et al. 2020, sec. 2.2
Noised = tuple[np.ndarray, np.ndarray]  # the noised text, the record


def _chosen(length: int, rate: float, key: int) -> np.ndarray:
    """ceil(rate length) places, in order."""
    check_number("rate", rate, above=0, most=1)
    check_key("key", key)
    return np.sort(Draws(key).order(length)[: math.ceil(rate * length)])


def mask_each(ids: Sequence[int] | np.ndarray, *, rate: float, mask_id: int, key: int) -> Noised:
    """Token masking: (inputs (n,), the places that were masked)."""
    ids = as_ids("ids", ids).copy()
    check_whole("mask_id", mask_id, 0, MOST)
    places = _chosen(len(ids), rate, key)
    ids[places] = mask_id
    return ids, places


def delete_tokens(ids: Sequence[int] | np.ndarray, *, rate: float, key: int) -> Noised:
    """Token deletion: (inputs, the places that were deleted)."""
    ids = as_ids("ids", ids)
    places = _chosen(len(ids), rate, key)
    return np.delete(ids, places), places


def infill(
    ids: Sequence[int] | np.ndarray,
    *,
    rate: float,
    mask_id: int,
    key: int,
    mean_span: float = MEAN_SPAN,
) -> Noised:
    """Text infilling: (inputs, spans (k, 2): [start, end) of each, in order).

    Lengths are drawn from a Poisson distribution with mean `mean_span` until the spans cover
    ceil(rate n) tokens; the last one is shortened to that. Then they are placed at random: all
    arrangements of spans and kept tokens are equally likely. The m-th mask of the inputs stands
    for spans[m]; start = end where it was inserted. Empty spans that would make the inputs longer
    than the text are dropped.
    """
    ids = as_ids("ids", ids)
    check_whole("mask_id", mask_id, 0, MOST)
    check_number("rate", rate, above=0, most=1)
    check_number("mean_span", mean_span, least=1, most=LONGEST_SPAN)
    check_key("key", key)
    covered = math.ceil(rate * len(ids))
    sizes = _span_sizes(covered, mean_span, fold(key, 0))
    kept = len(ids) - covered
    slots = Draws(fold(key, 1)).order(kept + len(sizes))[: len(sizes)]  # of masks in the inputs
    sizes, slots = sizes[np.argsort(slots)], np.sort(slots)
    starts = slots - np.arange(len(sizes)) + np.cumsum(sizes) - sizes
    removed = np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(covered)
    masked = np.zeros(kept + len(sizes), bool)
    masked[slots] = True
    inputs = np.full(len(masked), mask_id, np.int64)
    inputs[~masked] = np.delete(ids, removed)
    return inputs, np.stack([starts, starts + sizes], axis=1)


def _span_sizes(covered: int, mean: float, key: int) -> np.ndarray:
    """Poisson sizes with sum `covered`, at most that many."""
    counts = np.arange(int(mean + 12 * math.sqrt(mean) + 30))
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in counts.tolist()]
    below = np.cumsum(np.exp(logs))  # P(size <= k)
    draws = Draws(key)
    sizes = np.empty(0, np.int64)
    while sizes.sum() < covered:
        drawn = np.searchsorted(below, draws.uniforms(covered), side="right")
        sizes = np.concatenate([sizes, drawn])
    last = int(np.searchsorted(np.cumsum(sizes), covered))
    sizes = sizes[: last + 1] if covered else sizes
    sizes[last:] -= sizes.sum() - covered
    spare = len(sizes) - covered
    return np.delete(sizes, np.flatnonzero(sizes == 0)[: max(spare, 0)])


def permute_sentences(sentences: Sequence[Sequence[int] | np.ndarray], *, key: int) -> Noised:
    """Sentence permutation: (inputs, order (k,)): the inputs are sentences[order[0]], ...

    All orders are equally likely.
    """
    check_several("sentences", sentences, "lists of token ids")
    texts = [as_ids("sentences", ids) for ids in sentences]
    check_key("key", key)
    order = Draws(key).order(len(texts))
    return np.concatenate([np.empty(0, np.int64), *(texts[s] for s in order.tolist())]), order


def rotate(ids: Sequence[int] | np.ndarray, *, key: int) -> tuple[np.ndarray, int]:
    """Document rotation: (inputs, start): the inputs are ids[start:] and then ids[:start].

    Each token is equally likely to come first.
    """
    ids = as_ids("ids", ids)
    check_key("key", key)
    start = Draws(key).integer(len(ids)) if len(ids) else 0
    return np.concatenate([ids[start:], ids[:start]]), start


@dataclass(frozen=True)
class Noising:
    """How documents are noised, in this order. The defaults are those of BART's final model:
    infilling 30% and permuting all sentences.

    permute    permute the sentences
    masking    share of tokens masked
    infilling  share of tokens in spans that one mask replaces; mean_span: their mean length
    deletion   share of tokens deleted
    rotation   share of documents rotated
    """

    mask_id: int
    permute: bool = True
    masking: float = 0.0
    infilling: float = 0.3
    mean_span: float = MEAN_SPAN
    deletion: float = 0.0
    rotation: float = 0.0

    def __post_init__(self) -> None:
        check_whole("mask_id", self.mask_id, 0, MOST)
        check_flag("permute", self.permute)
        for name in ("masking", "infilling", "deletion", "rotation"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("mean_span", self.mean_span, least=1, most=LONGEST_SPAN)


def noised(
    sentences: Sequence[Sequence[int] | np.ndarray], *, noising: Noising, key: int
) -> np.ndarray:
    """A document, a list of sentences, with these noises: (n,) int64, never longer than it is."""
    if not isinstance(noising, Noising):
        raise wrong("noising", "a Noising", noising)
    check_several("sentences", sentences, "lists of token ids")
    check_key("key", key)
    texts = [as_ids("sentences", ids) for ids in sentences]
    ids = np.concatenate([np.empty(0, np.int64), *texts])
    mask_id = noising.mask_id
    if noising.permute:
        ids, _ = permute_sentences(texts, key=fold(key, 0))
    if noising.masking:
        ids, _ = mask_each(ids, rate=noising.masking, mask_id=mask_id, key=fold(key, 1))
    if noising.infilling:
        ids, _ = infill(
            ids,
            rate=noising.infilling,
            mask_id=mask_id,
            mean_span=noising.mean_span,
            key=fold(key, 2),
        )
    if noising.deletion:
        ids, _ = delete_tokens(ids, rate=noising.deletion, key=fold(key, 3))
    if Draws(fold(key, 4)).uniform() < noising.rotation:
        ids, _ = rotate(ids, key=fold(key, 5))
    return ids


class NoisedDocuments:
    """Documents with noise, and the originals as targets: BART's pretraining.

    documents: lists of sentences, each a list of ids (data.sentence_documents). A sample is as many
    whole sentences of one document as fit into `length` with the special tokens; a sentence that
    does not fit is cut. Each epoch has all sentences once, in random order, with other noise.
    Inputs and targets are those of seq2seq_batch, all (count, length).
    """

    def __init__(
        self,
        documents: Sequence,
        length: int,
        *,
        layout: Seq2SeqLayout,
        noising: Noising,
        seed: int,
    ) -> None:
        check_layout(layout)
        check_key("seed", seed)
        if not isinstance(noising, Noising):
            raise wrong("noising", "a Noising", noising)
        room = layout.room(length)
        self.documents = Documents(documents)
        self.layout, self.noising = layout, noising
        self.length = self.target_length = length
        numbers = range(len(self.documents))
        rows = [bounds for d in numbers for bounds in sentence_rows(self.documents, d, room)]
        self._samples = Samples(lambda key: rows, seed, None)

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets)."""
        texts = []
        for bounds, key in self._samples.get(first, count):
            text = self.documents.ids[bounds[0] : bounds[-1]]
            sentences = np.split(text, np.array(bounds[1:-1]) - bounds[0])
            texts.append((noised(sentences, noising=self.noising, key=key), text))
        return seq2seq_batch(
            texts, layout=self.layout, length=self.length, target_length=self.length
        )
