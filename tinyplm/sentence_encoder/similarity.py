"""Cosine similarity, and nearest neighbours by it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import check_whole, wrong
from ..layers.pooling import l2_normalise


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (N, D), b (M, D) -> (N, M): a_n . b_m / (|a_n| |b_m|), 0 if either is zero."""
    _check_vectors("cosine_similarity: a", a)
    _check_vectors("cosine_similarity: b", b)
    if a.shape[1] != b.shape[1]:
        raise wrong("cosine_similarity: b", f"vectors of width {a.shape[1]}, as in a", b)
    return l2_normalise(a)[0] @ l2_normalise(b)[0].T


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors (M, D) with the highest cosine to each query (N, D); all of them if M < k.

    -> places (N, k) among the vectors and scores (N, k), best first; ties in order of the vectors.
    """
    check_whole("k", k, 1)
    _check_vectors("queries", queries)
    _check_vectors("vectors", vectors)
    if queries.shape[1] != vectors.shape[1]:
        raise wrong("vectors", f"vectors of width {queries.shape[1]}, as the queries'", vectors)
    places, scores = [], []
    for block in np.array_split(queries, max(1, len(queries) // 256)):  # (N, M) may be large
        similarity = cosine_similarity(block, vectors)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        places.append(best)
        scores.append(np.take_along_axis(similarity, best, axis=1))
    return np.concatenate(places), np.concatenate(scores)


def _check_vectors(name: str, a: Any) -> None:
    if not isinstance(a, np.ndarray) or a.ndim != 2 or a.dtype.kind != "f":
        raise wrong(name, "an array of floats with 2 dimensions", a)
