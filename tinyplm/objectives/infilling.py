"""Autoregressive blank infilling: spans of a text are blanked, and predicted one after the other in
random order (GLM: Du et al. 2022, sec. 2.1, 2.2).

    text              x1 x2 x3 x4 x5 x6,   spans x3 and x5 x6, which come in the order 2, 1
                      part A                  part B
    input_ids         x1  x2  [M] x4  [M]     [S] x5  x6  [S] x3
    targets           -   -   -   -   -       x5  x6  [E] x3  [E]
    position_ids      0   1   2   3   4       4   4   4   2   2       of the span's mask in part A
                      0   0   0   0   0       1   2   3   1   2       within the span

[M] is a mask token, [S] <|startofpiece|>, [E] <|endofpiece|>.  Part A sees all of itself; a token
of part B sees part A and what precedes it in part B: causal attention with part A as the prefix
(layers.mask.prefix_mask).

    spans [MASK]        short ones, lengths from a Poisson distribution, 15% of the tokens
    sentences [sMASK]   whole ones, 15% of the tokens
    document [gMASK]    one span, 50% to 100% of the tokens
The paper counts positions from 1, the released code from 0, as here.  As in that code, short spans
have at least one token and one between them, the document's span is at the end in half of the
samples (gpt_infill_prob 0.5).  The paper mixes short spans with one of the other two; `shares` are
those of GLM-10B and GLM-10B-Chinese.  In the scripts of THUDM/GLM, config/ (4f61ed7), short spans
have bert-prob, sentences gap-sentence-prob, and the document's span the rest:

                                        spans   sentences   document     of the document at least
    ds_block_base, _large                1         0           0
    ds_block_10B, _10B_chinese           0.5       0.3         0.2            25%
    ds_block_large_chinese               0.4       0.3         0.3            25%
    ds_block_10B_longer                  0.4       0.3         0.3            25%

The last has one short span in 5% of the batches instead (single-span-prob).  At least 50% of a
document is the paper's (sec. 2.1), the code's default, and ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from ..arguments import (
    MOST,
    as_array,
    as_ids,
    check_choice,
    check_key,
    check_number,
    check_whole,
    is_number,
    is_whole,
    mismatch,
    wrong,
)
from ..core import IGNORED
from ..data import Windows
from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .epochs import Samples
from .inputs import Batch, Documents, check_samples, check_special, sentence_rows

RATE, MEAN_SPAN = 0.15, 3.0  # Du et al. 2022, sec. 2.1
SHARES = {"spans": 0.5, "sentences": 0.3, "document": 0.2}


@dataclass(frozen=True)
class BlankTokens:
    """The special tokens of blank infilling.

    mask_id, sentence_mask_id, document_mask_id: [MASK], [sMASK], [gMASK]; models with [MASK] alone
    have it in place of the others (None).   start_id, end_id: of a piece of part B.
    first: tokens before each text, such as [CLS], which are never blanked.
    """

    mask_id: int
    start_id: int
    end_id: int
    pad_id: int
    sentence_mask_id: int | None = None
    document_mask_id: int | None = None
    first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_special("BlankTokens", {"first": self.first}, ())
        others = ("sentence_mask_id", "document_mask_id")
        named = {n: getattr(self, n) for n in ("mask_id", "start_id", "end_id", "pad_id", *others)}
        for name, i in named.items():
            if not (i is None and name in others) and not (is_whole(i) and 0 <= i <= MOST):
                expected = "an id (does the vocabulary have all special tokens?)"
                raise wrong(f"BlankTokens: {name}", expected, i)
        ids = [i for name, i in named.items() if name != "pad_id" and i is not None]
        if len({*ids, *self.first}) < len(ids) + len(set(self.first)):
            expected = f"different ids for first and {', '.join(named)}"
            raise wrong("BlankTokens", expected, [*self.first, *named.values()])

    def mask(self, kind: str) -> int:
        """The mask token of a kind of blanks, a name in SHARES."""
        check_choice("kind", kind, SHARES)
        named = {"sentences": self.sentence_mask_id, "document": self.document_mask_id}.get(kind)
        return self.mask_id if named is None else named

    @property
    def masks(self) -> list[int]:
        """All mask tokens."""
        return sorted({self.mask(kind) for kind in SHARES})


class Infilling(NamedTuple):
    """One sample: n tokens, of which the first `prefix` are part A."""

    input_ids: np.ndarray  # (n,)
    position_ids: np.ndarray  # (2, n)
    targets: np.ndarray  # (n,)
    prefix: int


# ------------------------------------------------------------------------------ which spans


def short_spans(
    length: int, *, key: int, rate: float = RATE, mean_span: float = MEAN_SPAN
) -> np.ndarray:
    """spans (k, 2): [start, end) of each, in order, of ceil(rate length) tokens or more.

    Lengths come from a Poisson distribution with parameter mean_span, without 0, until the spans
    have that many tokens; the last one is shortened if the text is too short for it.  All
    placements with a token between any two spans are equally likely.
    """
    check_whole("length", length, 1, MOST)
    _check_rate(rate)
    check_number("mean_span", mean_span, least=0.1, most=500)
    check_key("key", key)
    sizes = _sizes(math.ceil(rate * length), mean_span, fold(key, 0))
    before = int(sizes[:-1].sum())
    sizes[-1] = min(int(sizes[-1]), length - before - (len(sizes) - 1))
    sizes = sizes[Draws(fold(key, 1)).order(len(sizes))]
    gaps = length - int(sizes.sum()) + 1  # one span at most before each kept token, and at the end
    starts = np.sort(Draws(fold(key, 2)).order(gaps)[: len(sizes)]) + np.cumsum(sizes) - sizes
    return np.stack([starts, starts + sizes], axis=1)


def _sizes(least: int, mean: float, key: int) -> np.ndarray:
    """Poisson numbers other than 0, until their sum is `least` or more."""
    counts = range(1, int(mean + 12 * math.sqrt(mean) + 30))
    chances = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in counts]
    limits = np.cumsum(chances) / sum(chances)
    drawn = 1 + np.searchsorted(limits[:-1], Draws(key).uniforms(least), side="right")
    return drawn[: int(np.searchsorted(np.cumsum(drawn), least)) + 1]


def sentence_spans(
    bounds: Sequence[int] | np.ndarray, *, key: int, rate: float = RATE
) -> np.ndarray:
    """spans (k, 2), in order: whole sentences, drawn until they have ceil(rate n) tokens.

    bounds: where the sentences start, from 0 on, and the length n of the text.
    """
    bounds = as_ids("bounds", bounds)
    _check_rate(rate)
    check_key("key", key)
    if len(bounds) < 2 or bounds[0] != 0 or (np.diff(bounds) < 1).any():
        raise wrong("bounds", "0 < ... < n: where sentences start, and the end", bounds.tolist())
    order = Draws(key).order(len(bounds) - 1)
    covered = np.cumsum(np.diff(bounds)[order])
    chosen = np.sort(order[: int(np.searchsorted(covered, math.ceil(rate * bounds[-1]))) + 1])
    return np.stack([bounds[chosen], bounds[chosen + 1]], axis=1)


def document_span(length: int, *, key: int) -> np.ndarray:
    """spans (1, 2): its size is uniform in ceil(length / 2) ... length.

    It ends with the text or, in half of the cases, is anywhere.
    """
    check_whole("length", length, 1, MOST)
    check_key("key", key)
    draws = Draws(key)
    least = -(-length // 2)
    size = least + draws.integer(length - least + 1)
    last = length - size
    start = draws.integer(last + 1) if draws.uniform() < 0.5 else last
    return np.array([[start, start + size]])


def _check_rate(rate: float) -> None:
    check_number("rate", rate, above=0, most=0.5)


# --------------------------------------------------------------------- the sample, and back


def blank_infilling(
    ids: Sequence[int] | np.ndarray,
    spans: np.ndarray,
    order: Sequence[int] | np.ndarray,
    *,
    tokens: BlankTokens,
    kind: str = "spans",
) -> Infilling:
    """The sample of a text: each of spans (k, 2), in order, is blanked; part B has spans[order].

    ValueError unless the spans have a token or more and do not overlap, or if the text contains a
    mask, start or end token.
    """
    ids, order = as_ids("ids", ids), as_ids("order", order)
    _check_tokens(tokens)
    spans = as_array("spans", spans, "integers (k, 2)", "iu", (2,))
    if spans.shape[1] != 2 or (spans[:, 0] >= spans[:, 1]).any():
        raise wrong("spans", "[start, end) of one token or more each, (k, 2)", spans)
    edges = np.concatenate([[0], spans.reshape(-1), [len(ids)]])
    if (np.diff(edges) < 0).any():
        raise wrong("spans", f"spans of {len(ids)} ids in order, without overlap", spans)
    if sorted(order.tolist()) != list(range(len(spans))):
        raise wrong("order", f"0 to {len(spans) - 1} in any order", order)
    if (present := np.isin(ids, [*tokens.masks, tokens.start_id, tokens.end_id])).any():
        raise mismatch("ids", "a text without mask, start and end tokens", int(ids[present][0]))
    sizes = spans[:, 1] - spans[:, 0]
    a, kept = ids.copy(), np.ones(len(ids), bool)
    a[spans[:, 0]] = tokens.mask(kind)
    for start, end in spans.tolist():
        kept[start + 1 : end] = False  # the mask has the place of the first token
    a = np.concatenate([np.asarray(tokens.first, np.int64), a[kept]])
    places = len(tokens.first) + np.cumsum(kept)[spans[:, 0]] - 1
    pieces = [ids[start:end] for start, end in spans[order].tolist()]
    inputs = [np.append(tokens.start_id, piece) for piece in pieces]
    outputs = [np.append(piece, tokens.end_id) for piece in pieces]
    within = [np.arange(1, len(piece) + 2) for piece in pieces]
    where = np.concatenate([np.arange(len(a)), np.repeat(places[order], sizes[order] + 1)])
    inside = np.concatenate([np.zeros(len(a), np.int64), *within])
    ignored = np.full(len(a), IGNORED)
    return Infilling(
        np.concatenate([a, *inputs]),
        np.stack([where, inside]),
        np.concatenate([ignored, *outputs]),
        len(a),
    )


def restore_blanks(
    input_ids: Sequence[int] | np.ndarray,
    position_ids: np.ndarray,
    *,
    prefix: int,
    tokens: BlankTokens,
) -> np.ndarray:
    """The text of a sample (n,) without padding: each piece in place of the mask at its position.

    ValueError unless each mask of part A has one piece, in any order, and the text begins with
    tokens.first.
    """
    ids = as_ids("input_ids", input_ids)
    _check_tokens(tokens)
    if not is_whole(prefix) or not 0 <= prefix <= len(ids):
        raise wrong("prefix", f"an integer from 0 to {len(ids)}, the number of input_ids", prefix)
    at = as_array("position_ids", position_ids, "integers (2, n)", "iu", (2,))
    if at.shape != (2, len(ids)):
        raise mismatch("position_ids", f"shape {(2, len(ids))}, as input_ids has", at.shape)
    a, n = ids[:prefix], len(tokens.first)
    if a[:n].tolist() != list(tokens.first):
        raise mismatch("input_ids", f"{list(tokens.first)} first", a[:n].tolist())
    starts = prefix + np.flatnonzero(ids[prefix:] == tokens.start_id)
    if len(starts) != len(np.flatnonzero(at[1, prefix:] == 1)) or (at[1, starts] != 1).any():
        raise wrong("position_ids", "1 within the span at each start token", at[1, starts])
    if len(ids) > prefix and (not len(starts) or starts[0] != prefix):
        expected = f"a start token at prefix = {prefix}, the first of part B"
        raise mismatch("input_ids", expected, int(ids[prefix]))
    masks = np.flatnonzero(np.isin(a, tokens.masks))
    if not np.array_equal(np.sort(at[0, starts]), masks):
        expected = f"one piece for each mask, at {masks.tolist()[:9]}"
        raise mismatch("position_ids", expected, np.sort(at[0, starts]).tolist()[:9])
    pieces = dict(zip(at[0, starts].tolist(), np.split(ids, starts)[1:]))
    kept = np.split(a, masks)
    texts = [kept[0][n:]]
    for mask, part in zip(masks.tolist(), kept[1:]):
        texts += [pieces[mask][1:], part[1:]]
    return np.concatenate(texts)


def _check_tokens(tokens: Any) -> None:
    if not isinstance(tokens, BlankTokens):
        raise wrong("tokens", "BlankTokens", tokens)


# ---------------------------------------------------------------------------------- batches


class InfilledDocuments:
    """Documents with blanks: GLM's pretraining, one of three objectives for each sample.

    documents: lists of sentences, each a list of ids (data.sentence_documents).  A sample is as
    many whole sentences of one document as have room; a sentence that is longer is cut.  Each epoch
    has all sentences once, in random order, with other blanks.  Or a packed token array (N,), which
    may be memory-mapped: samples are the data.Windows that have room, without sentences.
    length: of the samples, parts A and B together.  A text of n tokens has up to ceil(rate n)
    blanks, each with a mask and a start token, so that n + 2 ceil(rate n) must fit.
    shares: the weights of the objectives, those missing 0; default SHARES, as far as they apply.

    Inputs: input_ids (B, T), position_ids (B, 2, T), prefix_lengths (B,); targets: logits (B, T).
    Nothing sees the padding, which is at the end, but padding.
    """

    def __init__(
        self,
        documents: Sequence | np.ndarray,
        length: int,
        *,
        tokens: BlankTokens,
        seed: int,
        shares: Mapping[str, float] | None = None,
        rate: float = RATE,
        mean_span: float = MEAN_SPAN,
    ) -> None:
        _check_tokens(tokens)
        check_key("seed", seed)
        _check_rate(rate)
        check_number("mean_span", mean_span, least=0.1, most=500)
        packed = isinstance(documents, np.ndarray) and documents.dtype.kind in "iu"
        own = {n: share for n, share in SHARES.items() if not (packed and n == "sentences")}
        self.shares = _shares(own if shares is None else shares)
        if packed and "sentences" in self.shares:
            raise wrong(
                "shares", "none of sentences for a token array, which has no bounds", shares
            )
        self.tokens, self.rate, self.mean_span = tokens, rate, mean_span
        self.length, room = length, _room(length, len(tokens.first), rate)
        self._rows: Callable[[int, int], list[tuple[list[int], int]]]
        if isinstance(documents, np.ndarray) and packed:
            as_array("documents", documents, "token ids (N,) or lists of sentences", "iu", (1,))
            windows = Windows(documents, room, seed)
            self.ids, self._rows = documents, partial(_window_rows, windows, run_key(seed))
        else:
            self.documents = Documents(cast(Sequence, documents))
            numbers = range(len(self.documents))
            rows = [bounds for d in numbers for bounds in sentence_rows(self.documents, d, room)]
            self.ids, self._rows = self.documents.ids, Samples(lambda key: rows, seed, None).get

    def sample(self, bounds: Sequence[int], key: int) -> Infilling:
        """A sample without padding.   bounds: of its sentences in self.ids, and the end."""
        ids, kind = self.ids[bounds[0] : bounds[-1]].astype(np.int64), self.kind(key)
        if kind == "spans":
            options = {"rate": self.rate, "mean_span": self.mean_span}
            spans = short_spans(len(ids), key=fold(key, 1), **options)
        elif kind == "sentences":
            spans = sentence_spans(np.array(bounds) - bounds[0], key=fold(key, 1), rate=self.rate)
        else:
            spans = document_span(len(ids), key=fold(key, 1))
        order = Draws(fold(key, 2)).order(len(spans))
        return blank_infilling(ids, spans, order, tokens=self.tokens, kind=kind)

    def kind(self, key: int) -> str:
        """The objective of the sample with this key."""
        return list(self.shares)[Draws(fold(key, 0)).choice(list(self.shares.values()))]

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets), all arrays with `count` rows."""
        samples = [self.sample(bounds, key) for bounds, key in self._rows(first, count)]
        ids = np.full((count, self.length), self.tokens.pad_id, np.int64)
        positions = np.zeros((count, 2, self.length), np.int64)
        targets = np.full((count, self.length), IGNORED, np.int64)
        for b, sample in enumerate(samples):
            n = len(sample.input_ids)
            ids[b, :n], targets[b, :n] = sample.input_ids, sample.targets
            positions[b, :, :n] = sample.position_ids
        prefixes = np.array([sample.prefix for sample in samples])
        inputs = {"input_ids": ids, "position_ids": positions, "prefix_lengths": prefixes}
        return inputs, {"logits": targets}


def _window_rows(windows: Windows, key: int, first: int, count: int) -> list[tuple[list[int], int]]:
    """Samples first ... first + count - 1: [start, end) of the window, and its key."""
    check_samples(first, count)
    found = []
    for n in range(first, first + count):
        epoch, place = divmod(n, windows.windows_per_epoch)
        start = int(windows.starts(epoch)[place])
        found.append(([start, start + windows.length], fold(key, n)))
    return found


def _room(length: int, first: int, rate: float) -> int:
    """The longest text whose samples have at most `length` tokens, whatever its blanks are."""
    check_whole("length", length, first + 3, MOST)
    n = length - first
    while n + 2 * math.ceil(rate * n) > length - first:
        n -= 1
    return n


def _shares(shares: Any) -> dict[str, float]:
    """The shares that are not 0, in the order of SHARES."""
    if not isinstance(shares, Mapping) or not set(shares) <= set(SHARES):
        raise wrong("shares", f"a dict of weights of {', '.join(SHARES)}", shares)
    right = all(is_number(share) and share >= 0 for share in shares.values())
    if not right or not sum(shares.values()) > 0:
        raise wrong("shares", "weights, none negative, with a sum above 0", shares)
    return {kind: float(shares[kind]) for kind in SHARES if shares.get(kind)}
