"""Span corruption: spans of the text are replaced by sentinels, and predicted (T5: Raffel et al.
2020, sec. 3.1.4 and fig. 2).

    text       The bridge across the river was closed again
    noise                 ^^^^^^^^^^           ^^^^^^^^^^^^
    inputs     The bridge <X> river was <Y>
    targets    <X> across the <Y> closed again <Z>

Numbers of noise tokens and spans follow from the length alone, as in the released code, so all
texts of one length give inputs and targets of the same length, without padding. Spans alternate
with kept text, beginning with kept text, so the last token is always noise. Subject to that, all
masks are equally likely.

The final sentinel <Z> is the paper's. The released code has none: its targets end with the last
span (closing=False), and the end token follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..arguments import (
    MOST,
    as_array,
    as_ids,
    check_flag,
    check_key,
    check_number,
    check_whole,
    mismatch,
    wrong,
)
from ..random import fold
from .draws import Draws

DENSITY, MEAN_SPAN = 0.15, 3.0  # Raffel et al. 2020, sec. 3.1.4 and 3.3.4


def sentinel_ids(vocab_size: int, count: int = 100) -> list[int]:
    """V - 1, V - 2, ...: the vocabulary's last `count` ids; <extra_id_0> is the highest.

    vocab_size is the tokenizer's. T5's embedding tables are larger: 32,128 rows for 32,100 ids.
    """
    check_whole("vocab_size", vocab_size, 1, MOST)
    check_whole("count", count, 1)
    if count > vocab_size:
        raise wrong("count", f"at most vocab_size = {vocab_size}", count)
    return list(range(vocab_size - 1, vocab_size - 1 - count, -1))


def named_sentinels(vocabulary: Mapping[str, int], name: str = "<extra_id_{}>") -> list[int]:
    """The ids of <extra_id_0>, <extra_id_1>, ..., as far as the vocabulary has them.

    vocabulary: tokens and their ids. name: {} stands for the number.
    """
    if not isinstance(vocabulary, Mapping):
        raise wrong("vocabulary", "a dict from tokens to ids", vocabulary)
    if not isinstance(name, str) or name.count("{}") != 1:
        raise wrong("name", "a text with one {} for the number", name)
    ids: list[int] = []
    while (token := name.replace("{}", str(len(ids)))) in vocabulary:
        check_whole(f"vocabulary: {token!r:.60}", vocabulary[token], 0, MOST)
        ids.append(int(vocabulary[token]))
    return ids


def noise_counts(
    length: int, *, density: float = DENSITY, mean_span: float = MEAN_SPAN
) -> tuple[int, int]:
    """(noise tokens, spans) of a text: round(length density) and round(noise / mean_span).

    At least one of each. One token at least is kept, and one per span, since kept text separates
    the spans (the released code does not check the latter).
    ValueError for a text of fewer than two tokens, or settings out of range.
    """
    check_noise(density, mean_span)
    check_whole("length", length, 2, MOST)
    return _counts(length, density, mean_span)


def _counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    noise = min(max(round(length * density), 1), length - 1)
    return noise, min(max(round(noise / mean_span), 1), length - noise)


def check_noise(density: float, mean_span: float) -> None:
    """ValueError unless these are a share between 0 and 1 and a length of at least 1."""
    check_number("density", density, above=0, below=1)
    check_number("mean_span", mean_span, least=1, most=MOST)


def noise_mask(
    length: int, *, key: int, density: float = DENSITY, mean_span: float = MEAN_SPAN
) -> np.ndarray:
    """(length,) booleans, True in the spans to be replaced."""
    noise, spans = noise_counts(length, density=density, mean_span=mean_span)
    check_key("key", key)
    kept = _segments(length - noise, spans, fold(key, 0))
    replaced = _segments(noise, spans, fold(key, 1))
    sizes = np.stack([kept, replaced], axis=1).reshape(-1)
    return np.repeat(np.arange(2 * spans) % 2 == 1, sizes)


def _segments(items: int, segments: int, key: int) -> np.ndarray:
    """Sizes of `segments` non-empty runs of `items`: all divisions are equally likely."""
    starts = 1 + np.sort(Draws(key).order(items - 1)[: segments - 1])
    return np.diff(starts, prepend=0, append=items)


def corrupt_spans(
    ids: Sequence[int] | np.ndarray,
    noise: np.ndarray,
    *,
    sentinels: Sequence[int] | np.ndarray,
    closing: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """ids (n,), noise (n,) booleans -> inputs, targets, int64, without end tokens.

    sentinels: for the first span, the second, ..., and the closing one.
    ValueError if there are too few, or if the text contains one.
    """
    ids, sentinels = as_ids("ids", ids), check_sentinels(sentinels)
    check_flag("closing", closing)
    if as_array("noise", noise, "booleans (n,)", "b").shape != ids.shape:
        raise wrong("noise", f"booleans ({len(ids)},), one per id", noise)
    noise = np.asarray(noise)
    starts = noise & ~np.concatenate([[False], noise[:-1]])
    spans = int(starts.sum())
    check_enough(sentinels, spans, len(ids), closing)
    if (present := np.isin(ids, sentinels)).any():
        raise mismatch("ids", "a text without sentinels", int(ids[present][0]))
    inputs = ids.copy()
    inputs[starts] = sentinels[:spans]
    targets = np.insert(ids[noise], np.flatnonzero(starts[noise]), sentinels[:spans])
    end = sentinels[spans : spans + 1] if closing else sentinels[:0]
    return inputs[~noise | starts], np.concatenate([targets, end])


def restore_spans(
    inputs: Sequence[int] | np.ndarray,
    targets: Sequence[int] | np.ndarray,
    *,
    sentinels: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """The text: each sentinel in `inputs` replaced by what follows it in `targets`.

    Both without end tokens and padding. ValueError unless the sentinels of both are the first ones
    in order, each once; `targets` may have one more, the closing one.
    """
    inputs, targets = as_ids("inputs", inputs), as_ids("targets", targets)
    sentinels = check_sentinels(sentinels)
    places = np.flatnonzero(np.isin(inputs, sentinels))
    starts = np.flatnonzero(np.isin(targets, sentinels))
    spans = len(places)
    for name, ids, at in (("inputs", inputs, places), ("targets", targets, starts)):
        if not np.array_equal(ids[at], sentinels[: len(at)]):
            raise mismatch(name, "the sentinels in order", ids[at].tolist()[:9])
    if len(starts) not in (spans, spans + 1):
        expected = f"{spans} spans, as many as inputs has sentinels"
        raise mismatch("targets", expected, len(starts))
    if len(targets) and (not len(starts) or starts[0] > 0):
        raise mismatch("targets", "one of the sentinels first", int(targets[0]))
    if len(starts) > spans and starts[-1] != len(targets) - 1:
        raise mismatch("targets", "nothing after the closing sentinel", targets.tolist()[-9:])
    pieces = np.split(targets, starts[1:]) if spans else []
    parts = np.split(inputs, places)
    texts = [parts[0]]
    for span, kept in zip(pieces, parts[1:]):
        texts += [span[1:], kept[1:]]
    return np.concatenate(texts)


def span_lengths(
    length: int,
    *,
    density: float = DENSITY,
    mean_span: float = MEAN_SPAN,
    special: int = 1,
    closing: bool = True,
) -> tuple[int, int]:
    """(tokens of raw text, length of the targets) for inputs of at most `length` tokens.

    special: special tokens of each side (T5: the end token). 512 inputs come from 568 tokens and
    have 115 targets; 114 without the closing sentinel, as in the released code
    (compute_input_and_target_lengths). With density 0.5 one token less is used where the targets
    would be longer than the inputs, as there.
    ValueError for a length with room for fewer than two tokens.
    """
    check_noise(density, mean_span)
    check_whole("special", special, 0, MOST)
    check_flag("closing", closing)
    check_whole("length", length, special + 2, MOST)

    def sizes(tokens: int) -> tuple[int, int]:
        noise, spans = _counts(tokens, density, mean_span)
        return tokens - noise + spans + special, noise + spans + closing + special

    # The inputs grow with the text, by at most 1 a token: the largest text that fits.
    least, beyond = length - special, 2 * length
    while sizes(beyond)[0] <= length:
        least, beyond = beyond, 2 * beyond
        if beyond > MOST:
            raise wrong("density", f"a smaller one for inputs of {length} tokens", density)
    while beyond - least > 1:
        middle = (least + beyond) // 2
        least, beyond = (middle, beyond) if sizes(middle)[0] <= length else (least, middle)
    if density == 0.5 and sizes(least)[1] - closing > sizes(least)[0] and least > 2:
        least -= 1
    return least, sizes(least)[1]


def check_sentinels(sentinels: Sequence[int] | np.ndarray) -> np.ndarray:
    """The sentinels (N,); ValueError unless they are ids, no two equal."""
    sentinels = as_ids("sentinels", sentinels)
    if len(np.unique(sentinels)) < len(sentinels):
        raise wrong("sentinels", "ids, no two equal", sentinels.tolist())
    return sentinels


def check_enough(sentinels: np.ndarray, spans: int, length: int, closing: bool) -> None:
    """ValueError if there are fewer sentinels than a text of this length takes."""
    if len(sentinels) < spans + closing:
        expected = f"{spans + closing} or more for texts of {length} tokens"
        raise mismatch("sentinels", expected, f"{len(sentinels)} (does the vocabulary have them?)")
