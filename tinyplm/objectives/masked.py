"""Masked language modelling: some tokens are hidden, and the model predicts them.

    tokens    [CLS]  the    dog   ran  home  [SEP]
    inputs    [CLS]  the  [MASK]  ran   cat  [SEP]   if selected: 80% [MASK], 10% random, 10% kept
    targets    -100  -100   dog   -100  home  -100   the original token, where selected

Two steps: select units (units.py) by one of two rules, then corrupt their tokens. All randomness
comes from the sample's key, so the corruption does not depend on the batch or on padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    wrong,
)
from ..core import IGNORED
from ..random import fold
from .draws import Draws
from .units import Units, check_units, token_units

ALBERT_NGRAMS = (1.0, 1 / 2, 1 / 3)  # p(n) proportional to 1/n up to 3: Lan et al. 2020, sec. 4.1
MACBERT_NGRAMS = (0.4, 0.3, 0.2, 0.1)  # Cui et al. 2020, for words


@dataclass(frozen=True)
class Masking:
    """How tokens are selected and replaced.

    mask_id      the id of [MASK]
    vocab_size   V; random tokens are drawn from all ids, or from random_ids if set
    rate         share of tokens to select, 0.15
    shares       of selected tokens: replaced by [MASK], by a random token, kept; they sum to 1
    selection    "exact": max(1, round(rate n)) of n tokens; "bernoulli": each unit with p = `rate`
    limit        with "exact": the most tokens (BERT's max_predictions_per_seq), or None
    ngrams       with "exact": weights for selecting 1, 2, ... consecutive units
    units        (ids, maskable) -> groups of places that are selected together
    similar      replaces [MASK]: (ids of a unit, key) -> as many other ids, or None (MacBERT)
    """

    mask_id: int
    vocab_size: int
    rate: float = 0.15
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    selection: str = "exact"
    limit: int | None = None
    ngrams: tuple[float, ...] = (1.0,)
    units: Callable[[np.ndarray, np.ndarray], Units] = token_units
    random_ids: Sequence[int] | None = None
    similar: Callable[[list[int], int], Sequence[int] | None] | None = None

    def __post_init__(self) -> None:
        check_whole("vocab_size", self.vocab_size, 1, MOST)
        if not is_whole(self.mask_id) or not 0 <= self.mask_id < self.vocab_size:
            raise wrong("mask_id", f"an id from 0 to {self.vocab_size - 1}", self.mask_id)
        check_number("rate", self.rate, above=0, most=1)
        check_shares(self.shares)
        if not isinstance(self.ngrams, (tuple, list)) or not all(map(is_number, self.ngrams)):
            raise wrong("ngrams", "weights of 1, 2, ... units", self.ngrams)
        for name, function in (("units", self.units), ("similar", self.similar)):
            if not callable(function) and not (name == "similar" and function is None):
                raise wrong(name, "a function", function)
        check_choice("selection", self.selection, ("exact", "bernoulli"))
        check_whole("limit", self.limit, 1, or_none=True)
        if not self.ngrams or min(self.ngrams) < 0 or sum(self.ngrams) <= 0 or self.ngrams[0] == 0:
            expected = "weights of 1, 2, ... units, none negative and the first above 0"
            raise wrong("ngrams", expected, self.ngrams)
        if self.selection == "bernoulli" and (self.limit is not None or len(self.ngrams) > 1):
            raise wrong("selection", '"exact" with limit or ngrams', self.selection)
        if self.random_ids is not None:
            if not len(as_ids("random_ids", self.random_ids, self.vocab_size)):
                raise wrong("random_ids", "at least one id", self.random_ids)


def check_masking(masking: Any, copies: Any) -> None:
    """ValueError unless these are a Masking and a number of copies or None."""
    if not isinstance(masking, Masking):
        raise wrong("masking", "a Masking", masking)
    check_whole("copies", copies, 1, or_none=True)


def mask_tokens(
    ids: np.ndarray,
    special_tokens_mask: np.ndarray,
    *,
    masking: Masking,
    key: int,
    units: Units | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One sequence: ids (T,), special_tokens_mask (T,) -> inputs (T,), targets (T,), int64.

    special_tokens_mask: 1 = never masked. units: those of this sequence, in place of masking.units
    (entities found in the text, word_ids of an Encoding).
    ValueError if no token may be masked, or for ids outside the vocabulary.
    """
    if not isinstance(masking, Masking):
        raise wrong("masking", "a Masking", masking)
    ids = as_ids("ids", ids)
    maskable = as_array("special_tokens_mask", special_tokens_mask, "numbers (T,)", "fiub") == 0
    if maskable.shape != ids.shape:
        raise wrong("special_tokens_mask", f"shape {ids.shape}, as ids", maskable)
    if not maskable.any():
        expected = "expected at least one token that may be masked"
        raise ValueError(f"special_tokens_mask: {expected}, got {len(ids)} special tokens")
    ids = as_ids("ids", ids, masking.vocab_size)
    check_key("key", key)
    units = masking.units(ids, maskable) if units is None else units
    check_units(units, len(ids))
    if masking.selection == "exact":
        chosen = select_exact(
            units, masking.rate, fold(key, 0), limit=masking.limit, ngrams=masking.ngrams
        )
    else:
        chosen = select_bernoulli(units, masking.rate, fold(key, 0))
    selected = np.zeros(len(ids), bool)
    selected[[t for unit in chosen for t in unit]] = True
    if (selected & ~maskable).any():
        place = np.flatnonzero(selected & ~maskable)[0]
        raise ValueError(f"units: expected maskable places, got the special token at {place}")
    draws = Draws(fold(key, 1)).uniforms(len(ids))
    if masking.random_ids is None:
        random_ids = Draws(fold(key, 2)).integers(len(ids), masking.vocab_size)
    else:
        places = Draws(fold(key, 2)).integers(len(ids), len(masking.random_ids))
        random_ids = np.asarray(masking.random_ids, np.int64)[places]
    replacement: np.ndarray | int = masking.mask_id
    if masking.similar is not None:
        draws, replacement = _similar(ids, chosen, draws, random_ids, masking.similar, key)
    return corrupt(
        ids, selected, draws, replacement=replacement, random_ids=random_ids, shares=masking.shares
    )


def corrupt(
    ids: np.ndarray,
    selected: np.ndarray,
    draws: np.ndarray,
    *,
    replacement: np.ndarray | int,
    random_ids: np.ndarray,
    shares: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """The masking rule without its randomness (Devlin et al. 2019, sec. 3.1). Any shape.

    A selected token becomes, depending on its draw in [0, 1): `replacement` ([MASK]) if below
    shares[0], the random id if below shares[0] + shares[1], else itself. targets: the original
    token if selected, else -100.
    """
    check_shares(shares)
    ids = as_array("ids", ids, "integers", "iu", range(64))
    kinds = {
        "selected": (selected, "b"),
        "draws": (draws, "f"),
        "replacement": (replacement, "iu"),
        "random_ids": (random_ids, "iu"),
    }
    arrays = {
        name: as_array(name, a, "an array with the shape of ids", kind, range(64))
        for name, (a, kind) in kinds.items()
    }
    for name, array in arrays.items():
        if array.shape != ids.shape and not (name == "replacement" and array.ndim == 0):
            raise wrong(name, f"an array of shape {ids.shape}, as ids", array)
    selected, draws, replacement, random_ids = arrays.values()
    replaced = selected & (draws < shares[0])
    random = selected & ~replaced & (draws < shares[0] + shares[1])
    inputs = np.where(replaced, replacement, np.where(random, random_ids, ids))
    return inputs, np.where(selected, ids, IGNORED)


def check_shares(shares: Sequence[float]) -> None:
    """ValueError unless these are three shares that sum to 1."""
    right = (
        isinstance(shares, (tuple, list))
        and len(shares) == 3
        and all(is_number(s) and 0 <= s <= 1 for s in shares)
    )
    if not right or abs(sum(shares) - 1) > 1e-6:
        raise wrong("shares", "three from 0 to 1 that sum to 1: [MASK], random, kept", shares)


def select_exact(
    units: Units,
    rate: float,
    key: int,
    *,
    limit: int | None = None,
    ngrams: Sequence[float] = (1.0,),
) -> Units:
    """Units with max(1, round(rate n)) of their n tokens, at most `limit`: BERT's released rule.

    Units are visited in random order. Each starts an n-gram, with n drawn by weight among the
    lengths whose units are adjacent; n is then reduced until the tokens do not exceed what is still
    wanted. A start is skipped if that leaves none, or if it overlaps a selection (Lan et al. 2020
    and ALBERT's released code). With whole words or spans the total may therefore fall short, but
    never exceeds the target. (The released code also counts [CLS] and [SEP] in n; here n counts
    maskable tokens.)
    """
    check_units(units)
    check_number("rate", rate, above=0, most=1)
    check_whole("limit", limit, 1, or_none=True)
    weights = as_array("ngrams", ngrams, "weights of 1, 2, ... units", "fiu").tolist()
    wanted = max(1, round(rate * sum(map(len, units))))
    wanted = wanted if limit is None else min(wanted, limit)
    draws = Draws(key)
    free = [True] * len(units)
    chosen: Units = []
    for start in draws.order(len(units)).tolist():
        if wanted == 0:
            break
        n = 1
        if len(weights) > 1:
            reach = min(len(weights), len(units) - start)
            while n < reach and units[start + n][0] == units[start + n - 1][-1] + 1:
                n += 1
            n = 1 + draws.choice(weights[:n])
        while n and sum(map(len, units[start : start + n])) > wanted:
            n -= 1
        if n and all(free[start : start + n]):
            free[start : start + n] = [False] * n
            chosen += units[start : start + n]
            wanted -= sum(map(len, units[start : start + n]))
    return chosen


def select_bernoulli(units: Units, rate: float, key: int) -> Units:
    """Each unit with probability `rate`, possibly none, as transformers' collator does."""
    check_units(units)
    check_number("rate", rate, above=0, most=1)
    return [unit for unit, u in zip(units, Draws(key).uniforms(len(units))) if u < rate]


def masking_epoch(epoch: int, copies: int | None) -> int:
    """The number to fold into a sample's key.

    Dynamic masking (None) differs in every epoch. With static masking the data exist in `copies`
    versions, each masked once, that take turns (10 in BERT: Liu et al. 2019, sec. 4.1).
    """
    check_whole("epoch", epoch)
    check_whole("copies", copies, 1, or_none=True)
    return epoch if copies is None else epoch % copies


def similar_words(
    table: Mapping[tuple[int, ...], Sequence[Sequence[int]]],
) -> Callable[[list[int], int], list[int] | None]:
    """A Masking.similar from a table: ids of a word -> words of as many ids; the key draws one."""
    if not isinstance(table, Mapping):
        raise wrong("table", "a mapping from words to similar words, tuples of ids", table)
    for word, others in table.items():
        for one in (word, *(others if isinstance(others, (list, tuple)) else [others])):
            as_ids("table", one)
        if not others or any(len(other) != len(word) for other in others):
            expected = f"at least one similar word of {len(word)} ids for {word}"
            raise wrong("table", expected, others)

    def similar(ids: list[int], key: int) -> list[int] | None:
        others = table.get(tuple(ids))
        return None if others is None else list(others[Draws(key).integer(len(others))])

    return similar


def _similar(
    ids: np.ndarray,
    chosen: Units,
    draws: np.ndarray,
    random_ids: np.ndarray,
    similar: Callable[[list[int], int], Sequence[int] | None],
    key: int,
) -> tuple[np.ndarray, np.ndarray]:
    """MacBERT (Cui et al. 2020): one draw per word; a similar word or random tokens for [MASK]."""
    draws, replacement = draws.copy(), random_ids.copy()
    for unit in chosen:
        draws[unit] = draws[unit[0]]
        word = similar(ids[unit].tolist(), fold(key, 3, unit[0]))
        if word is not None:
            if len(word) != len(unit):
                raise wrong("similar", f"a function that returns {len(unit)} ids", word)
            replacement[unit] = word
    return draws, replacement
