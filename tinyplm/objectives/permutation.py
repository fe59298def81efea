"""Permutation language modelling: tokens are predicted in a random order (XLNet: Yang et al. 2019,
sec. 2).

The text stays in place; only the attention mask follows the order. A token's rank is its position
in the order:

    place           0    1    2    3         order z = 2 0 3 1: place 2 comes first
    rank            1    3    0    2         place i may attend to j where rank[j] < rank[i]

Only some tokens, the targets, are predicted (partial prediction). They come last in the order; the
others are context, visible to all: their rank is -1, as in the released code (where special tokens
keep their rank). If all ranks are kept, the context also sees itself only in the order, which is
eq. 3 exactly.

    perm_mask       (B, T, T)   1 where i may NOT attend to j, as in transformers (in the content
                                stream i always sees itself)
    target_mapping  (B, M, T)   1 at the place of the m-th prediction; an unused row is zero
    targets         (B, M)      the token there, or -100; they line up with logits (B, M, V)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arguments import MOST, as_array, as_ids, check_key, check_number, check_whole, wrong
from ..core import IGNORED
from ..random import fold
from ..shapes import check_array
from .draws import Draws


def ranks_of(order: Sequence[int] | np.ndarray, predicted: np.ndarray | None = None) -> np.ndarray:
    """The rank of each place (T,), for order (T,), a permutation; -1 where `predicted` is False.

    predicted (T,) booleans; None: every place keeps its rank. ValueError unless order is a
    permutation.
    """
    order = as_array("order", order, "a permutation of 0 to T - 1", "iu")
    if predicted is not None:
        if as_array("predicted", predicted, "booleans (T,)", "b").shape != order.shape:
            raise wrong("predicted", f"booleans ({len(order)},)", predicted)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise wrong("order", f"a permutation of 0 to {order.size - 1}", order.tolist())
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank if predicted is None else np.where(predicted, rank, -1)


def permutation_mask(rank: np.ndarray) -> np.ndarray:
    """(T, T) int64: 1 where i may not attend to j: rank[j] >= rank[i] and j is not context."""
    rank = as_array("rank", rank, "ranks (T,)", "iu")
    return ((rank[None, :] >= rank[:, None]) & (rank[None, :] >= 0)).astype(np.int64)


def join_masks(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The mask of two segments in one row, (R, R) and (T - R, T - R) -> (T, T).

    The first never sees the second; the second sees all of the first. Hidden states of the first
    can thus serve as memory, like those of an earlier row: they depend on nothing later (sec. 2.4).
    """
    for name, mask in (("first", first), ("second", second)):
        check_array(name, mask, "(T, T) integers")
    R, rest = len(first), len(second)
    above, below = np.ones((R, rest), np.int64), np.zeros((rest, R), np.int64)
    return np.block([[first, above], [below, second]])


def last_in_order(order: Sequence[int] | np.ndarray, K: float) -> np.ndarray:
    """(T,) booleans: predict the last T / K places of the order (sec. 2.3, K = |z| / (|z| - c))."""
    order = as_ids("order", order)
    _check_k(K)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise wrong("order", "a permutation of 0 to T - 1", order)
    predicted = np.zeros(len(order), bool)
    predicted[order[len(order) - int(len(order) / K) :]] = True
    return predicted


def predicted_spans(length: int, *, K: float, longest: int, key: int) -> np.ndarray:
    """(T,) booleans, True in spans of L tokens, L uniform in 1 ... `longest`.

    Each span lies at a random place in a context of K L tokens, followed by the next context. About
    one token in K is predicted, and phrases are predicted together.
    """
    _check_k(K)
    check_whole("length", length, 0, MOST)
    check_whole("longest", longest, 1, MOST)
    predicted = np.zeros(length, bool)
    draws = Draws(key)
    begin = 0
    while begin < length:
        span = 1 + draws.integer(longest)
        context = int(K * span)
        start = begin + draws.integer(context - span + 1)
        predicted[start : start + span] = True
        begin += context
    return predicted


def permutation_sample(
    ids: np.ndarray,
    special_tokens_mask: np.ndarray,
    *,
    predictions: int,
    key: int,
    K: float = 6,
    longest: int = 5,
    reuse: int = 0,
) -> dict[str, np.ndarray]:
    """One sequence: ids (T,) -> perm_mask (T, T), target_mapping (M, T), targets (M,).

    special_tokens_mask (T,): 1 = never predicted. M = `predictions`: the spans of `predicted_spans`
    are predicted, up to M tokens; further ones, last in the order, become context.
    reuse: the first `reuse` tokens become memory of the next row, so the order does not mix them
    with the rest (join_masks). The ids do not change: only the masks hide tokens.
    ValueError if no token may be predicted, or for settings out of range.
    """
    ids = as_ids("ids", ids)
    allowed = as_array("special_tokens_mask", special_tokens_mask, "numbers (T,)", "fiub") == 0
    T = len(ids)
    check_whole("predictions", predictions, 1, MOST)
    check_whole("reuse", reuse, 0, max(T - 1, 0))
    check_key("key", key)
    if allowed.shape != ids.shape:
        raise wrong("special_tokens_mask", f"shape {ids.shape}, as ids", allowed)
    if not allowed.any():
        expected = "expected at least one token that may be predicted"
        raise ValueError(f"special_tokens_mask: {expected}, got {T} special tokens")
    predicted = predicted_spans(T, K=K, longest=longest, key=fold(key, 0)) & allowed
    if not predicted.any():  # all spans cover special tokens only
        predicted[np.flatnonzero(allowed)[Draws(fold(key, 1)).integer(int(allowed.sum()))]] = True
    order = Draws(fold(key, 2)).order(T)
    predicted[[t for t in order.tolist() if predicted[t]][predictions:]] = False
    parts = [part for part in (slice(0, reuse), slice(reuse, T)) if part.stop > part.start]
    masks = [permutation_mask(_ranks_within(order, predicted, part)) for part in parts]
    places = np.flatnonzero(predicted)
    target_mapping, targets = target_arrays(ids, places, predictions)
    return {
        "perm_mask": masks[0] if len(masks) == 1 else join_masks(*masks),
        "target_mapping": target_mapping,
        "targets": targets,
    }


def target_arrays(
    ids: np.ndarray, places: Sequence[int] | np.ndarray, predictions: int
) -> tuple[np.ndarray, np.ndarray]:
    """target_mapping (M, T) and targets (M,) of at most M = `predictions` places, in this order."""
    ids = as_ids("ids", ids)
    check_whole("predictions", predictions, 0, MOST)
    places = as_ids("places", places, len(ids))
    if len(places) > predictions:
        raise wrong("places", f"at most {predictions}", places)
    target_mapping = np.zeros((predictions, len(ids)), np.int64)
    target_mapping[np.arange(len(places)), places] = 1
    targets = np.full(predictions, IGNORED, np.int64)
    targets[: len(places)] = np.asarray(ids)[places]
    return target_mapping, targets


def _ranks_within(order: np.ndarray, predicted: np.ndarray, part: slice) -> np.ndarray:
    """Ranks within one part of the row, from the order restricted to its places."""
    own = order[(order >= part.start) & (order < part.stop)] - part.start
    return ranks_of(own, predicted[part])


def _check_k(K: float) -> None:
    check_number("K", K, least=1, most=MOST)
