"""Denoising of windows of text by encoder-decoders: T5's span corruption, prefix language
modelling, and UL2's mixture of both (Tay et al. 2022, sec. 3.1).

Sample n depends on (tokens, settings, seed, n) alone, as in batches.py. Its text is a window of a
packed token array (data.pack), which may be memory-mapped; the windows are those of data.Windows.
Inputs and targets are those of seq2seq_batch, always (count, length) and (count, target_length).

A denoiser is (mu, r): spans of mean length mu, a share r of the text. Table 1 of the UL2 paper:

    R   regular      (3, 0.15)  (8, 0.15)
    S   sequential   (L / 4, 0.25), one span that reaches the end: prefix language modelling
    X   extreme      (3, 0.5)  (8, 0.5)  (64, 0.15)  (64, 0.5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import (
    MOST,
    as_ids,
    check_flag,
    check_key,
    check_number,
    check_text,
    is_number,
    mismatch,
    wrong,
)
from ..data import Windows
from ..random import fold
from ..random import key as run_key
from .draws import Draws
from .inputs import Batch, check_samples
from .seq2seq import Seq2SeqLayout, check_layout, seq2seq_batch
from .spans import (
    DENSITY,
    MEAN_SPAN,
    check_enough,
    check_noise,
    check_sentinels,
    corrupt_spans,
    noise_counts,
    noise_mask,
    span_lengths,
)

Sides = tuple[np.ndarray, np.ndarray]  # source, target


def split_prefix(
    ids: Sequence[int] | np.ndarray, *, key: int, share: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A text split at a random place: the prefix is the source, the rest the target.

    share None: all splits into two non-empty parts are equally likely (Raffel et al. 2020, sec.
    3.2.3). Else the target's length is uniform in 1 ... 2 round(share n) - 1, with mean round(share
    n), and the prefix has at least one token: UL2's S-denoiser, n = 1 and mu = share L. (The paper
    names mean and share, not the distribution.)
    ValueError for a text of fewer than two tokens.
    """
    ids = as_ids("ids", ids)
    check_key("key", key)
    check_number("share", share, above=0, most=0.5, or_none=True)
    if len(ids) < 2:
        raise wrong("ids", "two or more tokens: a prefix and a target", ids.tolist())
    target = 1 + Draws(key).integer(_longest_target(len(ids), share))
    return ids[: len(ids) - target], ids[len(ids) - target :]


def _longest_target(length: int, share: float | None) -> int:
    longest = length - 1
    return longest if share is None else min(longest, 2 * max(1, round(share * length)) - 1)


class _DenoisedWindows:
    """Windows of `raw` tokens, each turned into source and target by _sides(ids, key)."""

    def __init__(
        self,
        tokens: np.ndarray,
        raw: int,
        layout: Seq2SeqLayout,
        length: int,
        target: int,
        seed: int,
    ) -> None:
        self.windows = Windows(tokens, raw, seed)
        self.layout, self.length, self.target_length = layout, length, target
        self._key = run_key(seed)

    def _sides(self, ids: np.ndarray, key: int) -> Sides:
        raise NotImplementedError

    def batch(self, first: int, count: int) -> Batch:
        """Samples first ... first + count - 1: (inputs, targets)."""
        check_samples(first, count)
        texts = [
            self._sides(self.windows.batch(n, 1)[0][0], fold(self._key, n))
            for n in range(first, first + count)
        ]
        return seq2seq_batch(
            texts, layout=self.layout, length=self.length, target_length=self.target_length
        )


class SpanCorruptedWindows(_DenoisedWindows):
    """T5's pretraining: windows with corrupted spans.

    length: of the inputs, with special tokens. span_lengths says how many tokens of text fill them
    and how long the targets are (target_length), so nothing is padded. sentinels: ids, in order
    (sentinel_ids).
    ValueError for too few sentinels or tokens.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        *,
        layout: Seq2SeqLayout,
        sentinels: Sequence[int],
        seed: int,
        density: float = DENSITY,
        mean_span: float = MEAN_SPAN,
        closing: bool = True,
    ) -> None:
        check_layout(layout)
        check_key("seed", seed)
        noise = {"density": density, "mean_span": mean_span}
        raw, target = span_lengths(length, special=layout.special, closing=closing, **noise)
        self.sentinels, self.closing, self._noise = check_sentinels(sentinels), closing, noise
        check_enough(self.sentinels, noise_counts(raw, **noise)[1], raw, closing)
        super().__init__(tokens, raw, layout, length, target, seed)

    def _sides(self, ids: np.ndarray, key: int) -> Sides:
        noise = noise_mask(len(ids), key=key, **self._noise)
        return corrupt_spans(ids, noise, sentinels=self.sentinels, closing=self.closing)


class PrefixWindows(_DenoisedWindows):
    """Prefix language modelling: each window is split at a random place (split_prefix).

    length: of inputs and of targets, with special tokens.
    """

    def __init__(
        self, tokens: np.ndarray, length: int, *, layout: Seq2SeqLayout, seed: int
    ) -> None:
        check_layout(layout)
        check_key("seed", seed)
        raw = layout.room(length) + 1
        super().__init__(tokens, raw, layout, length, length, seed)

    def _sides(self, ids: np.ndarray, key: int) -> Sides:
        return split_prefix(ids, key=key)


@dataclass(frozen=True)
class Denoiser:
    """One denoiser of a mixture. mean_span None: one span that reaches the end (S)."""

    mode: str
    density: float
    mean_span: float | None

    def __post_init__(self) -> None:
        check_text("mode", self.mode, empty=False)
        check_number("mean_span", self.mean_span, least=1, most=MOST, or_none=True)
        if self.mean_span is None:
            check_number("density", self.density, above=0, most=0.5)
        else:
            check_noise(self.density, self.mean_span)


UL2_DENOISERS = (
    Denoiser("R", 0.15, 3.0),
    Denoiser("R", 0.15, 8.0),
    Denoiser("S", 0.25, None),
    Denoiser("X", 0.5, 3.0),
    Denoiser("X", 0.5, 8.0),
    Denoiser("X", 0.15, 64.0),
    Denoiser("X", 0.5, 64.0),
)


class UL2Windows(_DenoisedWindows):
    """UL2's mixture of denoisers: each window goes through one denoiser, drawn by `shares`.

    modes: the ids of each mode's token or tokens, which begin the source (the released model writes
    [NLU], [S2S] and [NLG] for R, S and X). shares: one weight for each denoiser; None: all equal,
    as in the paper. length: of the inputs, with mode and special tokens.
    ValueError for a mode without ids, or too few sentinels.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        *,
        layout: Seq2SeqLayout,
        sentinels: Sequence[int],
        modes: Mapping[str, Sequence[int]],
        seed: int,
        denoisers: Sequence[Denoiser] = UL2_DENOISERS,
        shares: Sequence[float] | None = None,
        closing: bool = True,
    ) -> None:
        check_layout(layout)
        check_key("seed", seed)
        check_flag("closing", closing)
        self.denoisers = _denoisers(denoisers)
        self.modes = _modes(modes, self.denoisers)
        self.shares = _shares(shares, len(self.denoisers))
        self.sentinels, self.closing = check_sentinels(sentinels), closing
        mode = max(map(len, self.modes.values()))
        raw = layout.room(length, 2 + mode) - mode
        longest = max(self._target(denoiser, raw) for denoiser in self.denoisers)
        super().__init__(tokens, raw, layout, length, longest + layout.special, seed)

    def _target(self, denoiser: Denoiser, raw: int) -> int:
        if denoiser.mean_span is None:
            return _longest_target(raw, denoiser.density)
        noise, spans = noise_counts(raw, density=denoiser.density, mean_span=denoiser.mean_span)
        check_enough(self.sentinels, spans, raw, self.closing)
        return noise + spans + self.closing

    def denoiser(self, key: int) -> Denoiser:
        """The denoiser of the sample with this key."""
        return self.denoisers[Draws(fold(key, 0)).choice(self.shares)]

    def _sides(self, ids: np.ndarray, key: int) -> Sides:
        denoiser, key = self.denoiser(key), fold(key, 1)
        if denoiser.mean_span is None:
            source, target = split_prefix(ids, key=key, share=denoiser.density)
        else:
            noise = noise_mask(
                len(ids), key=key, density=denoiser.density, mean_span=denoiser.mean_span
            )
            source, target = corrupt_spans(
                ids, noise, sentinels=self.sentinels, closing=self.closing
            )
        return np.concatenate([self.modes[denoiser.mode], source]), target


def _denoisers(denoisers: Any) -> tuple[Denoiser, ...]:
    right = isinstance(denoisers, (list, tuple)) and len(denoisers)
    if not right or not all(isinstance(denoiser, Denoiser) for denoiser in denoisers):
        raise wrong("denoisers", "Denoisers, one or more", denoisers)
    return tuple(denoisers)


def _modes(modes: Any, denoisers: Sequence[Denoiser]) -> dict[str, np.ndarray]:
    if not isinstance(modes, Mapping):
        raise wrong("modes", "a dict from modes to their ids", modes)
    names = {denoiser.mode: None for denoiser in denoisers}
    if missing := [name for name in names if name not in modes]:
        raise mismatch("modes", f"ids of {', '.join(names)}", f"none of {missing[0]}")
    return {name: as_ids(f"modes: {name}", modes[name]) for name in names}


def _shares(shares: Any, count: int) -> list[float]:
    if shares is None:
        return [1.0] * count
    right = isinstance(shares, (list, tuple)) and len(shares) == count
    if not right or not all(is_number(s) and s >= 0 for s in shares) or not sum(shares) > 0:
        raise wrong("shares", f"{count} weights, none negative, with a sum above 0", shares)
    return [float(share) for share in shares]
