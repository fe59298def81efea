"""Attention masks: boolean, True = may attend, broadcastable to (B, H, T, S).

If T < S, the queries are the last T of the S positions: query t is at position S - T + t.
"""

import numpy as np


def padding_mask(attention_mask: np.ndarray) -> np.ndarray:
    """M[b, 0, 0, s] = (attention_mask[b, s] = 1).  attention_mask (B, S) of 0/1 -> (B, 1, 1, S)."""
    attention_mask = np.asarray(attention_mask)
    batch, keys = attention_mask.shape
    mask = np.zeros((batch, 1, 1, keys), dtype=bool)
    for b in range(batch):
        for s in range(keys):
            mask[b, 0, 0, s] = attention_mask[b, s] != 0
    return mask


def causal_mask(T: int, S: int | None = None) -> np.ndarray:
    """M[t, s] = (s <= S - T + t): no token attends to a later one.

    -> (T, S), S = T if None.    Vaswani et al. 2017, sec. 3.2.3
    """
    S = T if S is None else S
    mask = np.zeros((T, S), dtype=bool)
    for t in range(T):
        for s in range(S):
            mask[t, s] = s <= S - T + t
    return mask


def sliding_mask(T: int, S: int | None = None, *, window: int) -> np.ndarray:
    """M[t, s] = (S - T + t - window < s <= S - T + t): the last `window` tokens, itself included.

    -> (T, S), S = T if None.    Jiang et al. 2023 (Mistral 7B), sec. 2
    """
    S = T if S is None else S
    mask = np.zeros((T, S), dtype=bool)
    for t in range(T):
        for s in range(S):
            mask[t, s] = S - T + t - window < s <= S - T + t
    return mask


def banded_mask(T: int, S: int | None = None, *, left: int, right: int) -> np.ndarray:
    """M[t, s] = (-left <= s - (S - T + t) <= right): a band around the diagonal.

    -> (T, S), S = T if None.    Beltagy et al. 2020 (Longformer), sec. 3.1, with left = right = w/2
    """
    S = T if S is None else S
    mask = np.zeros((T, S), dtype=bool)
    for t in range(T):
        for s in range(S):
            mask[t, s] = -left <= s - (S - T + t) <= right
    return mask


def prefix_mask(lengths: np.ndarray, T: int) -> np.ndarray:
    """M[b, 0, t, s] = (s <= t or s < lengths[b]): causal, but every token attends to the prefix.

    lengths (B,) -> (B, 1, T, T).    Raffel et al. 2020, sec. 3.2.1, fig. 3
    """
    lengths = np.asarray(lengths)
    mask = np.zeros((len(lengths), 1, T, T), dtype=bool)
    for b in range(len(lengths)):
        for t in range(T):
            for s in range(T):
                mask[b, 0, t, s] = s <= t or s < lengths[b]
    return mask


def packed_mask(documents: np.ndarray) -> np.ndarray:
    """M[b, 0, t, s] = (documents[b, t] = documents[b, s]): attention within a document, both ways.

    documents (B, T) integers -> (B, 1, T, T).
    Krell et al. 2021 (packing without cross-contamination).
    """
    documents = np.asarray(documents)
    batch, length = documents.shape
    mask = np.zeros((batch, 1, length, length), dtype=bool)
    for b in range(batch):
        for t in range(length):
            for s in range(length):
                mask[b, 0, t, s] = documents[b, t] == documents[b, s]
    return mask


def combine_masks(*masks: np.ndarray | None) -> np.ndarray | None:
    """M[i] = masks[0][i] and masks[1][i] and ..., the masks broadcast against each other.

    None masks are skipped; if all are None, so is the result.
    """
    masks = [np.asarray(mask, dtype=bool) for mask in masks if mask is not None]
    if not masks:
        return None
    shape = np.broadcast_shapes(*(mask.shape for mask in masks))
    masks = [np.broadcast_to(mask, shape) for mask in masks]
    combined = np.zeros(shape, dtype=bool)
    for i in np.ndindex(shape):
        combined[i] = all(mask[i] for mask in masks)
    return combined
