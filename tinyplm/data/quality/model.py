"""A quality score: hashed n-gram logistic regression, trained by our AdamW on two sets of texts."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from ...arguments import (
    as_texts,
    check_key,
    check_number,
    check_whole,
    known_arguments,
    mismatch,
)
from ...core import Backward, Tree
from ...files import printable
from ...layers.embedding import embedding_bag
from ...losses.regression import binary_cross_entropy
from ...optim import AdamW, warmup_linear
from ...random import fold, generator, key
from ..model_files import read_model, stored_array, write_model
from .features import padded, text_features

KIND = "quality"


def quality_logits(
    params: Tree, *, ids: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, Backward]:
    """z_i = b + sum_n x_in w[k_in];   p(good) = sigmoid(z_i).

    params: {"w": (2^bits, 1), "b": (1,)};   buckets k = ids and their values x = weights, both
    (B, N), as `padded` returns them -> z (B,).
    dw[k] = sum of x_in dz_i over all places where k_in = k,   db = sum_i dz_i.
    """
    bags, bags_back = embedding_bag(params["w"], ids=ids, weights=weights)

    def backward(dz: np.ndarray) -> Tree:
        return {"w": bags_back(dz[:, None]), "b": dz.sum(keepdims=True)}

    return bags[:, 0] + params["b"], backward


class QualityModel:
    """p(good | text) = sigmoid(z) of quality_logits.   w (2^bits,) float32, b a number."""

    def __init__(self, w: np.ndarray, b: float) -> None:
        self.w, self.b = w, np.float32(b)

    @property
    def bits(self) -> int:
        """There are 2^bits buckets."""
        return len(self.w).bit_length() - 1

    def score(self, text: str) -> float:
        """How much a text is like the good examples, from 0 to 1."""
        buckets, values = text_features(text, bits=self.bits)
        z = float(self.b) + float((self.w[buckets].astype(np.float64) * values).sum())
        return float(0.5 * (1 + np.tanh(z / 2)))

    def save(self, path: str | os.PathLike) -> None:
        """Write it as one safetensors file."""
        write_model(path, KIND, {"w": self.w, "b": self.b.reshape(1)}, {})


@known_arguments
def train_quality(
    good: Iterable[str],
    bad: Iterable[str],
    *,
    bits: int = 18,
    epochs: int = 10,
    batch: int = 64,
    rate: float = 0.02,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> QualityModel:
    """A model that tells good texts from bad ones; Brown et al. 2020 (GPT-3), app. A.

    good, bad: texts, at least one each; together, either kind weighs as much as the other.   rate:
    AdamW's peak, from which it falls linearly to 0.   The same arguments give the same model.
    """
    texts = [as_texts("good", good), as_texts("bad", bad)]
    for name, some in zip(("good", "bad"), texts, strict=True):
        if not some:
            raise mismatch(name, "at least one text", "none")
    check_whole("bits", bits, 1, 24)
    check_whole("epochs", epochs, 1, 10_000)
    check_whole("batch", batch, 1)
    check_number("rate", rate, above=0)
    check_number("weight_decay", weight_decay, least=0)
    check_key("seed", seed)
    rows = [text_features(text, bits=bits) for some in texts for text in some]
    counts = [len(some) for some in texts]
    targets = np.repeat(np.array([1, 0], np.float32), counts)
    balance = np.repeat(np.array([len(rows) / (2 * n) for n in counts], np.float32), counts)

    start = {"w": np.zeros((1 << bits, 1), np.float32), "b": np.zeros(1, np.float32)}
    optimizer = AdamW(start, weight_decay=weight_decay)
    steps = -(-len(rows) // batch)
    for epoch in range(epochs):
        order = generator(fold(key(seed), epoch)).permutation(len(rows))
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            ids, weights = padded([rows[i] for i in chosen])
            z, z_back = quality_logits(optimizer.params, ids=ids, weights=weights)
            _, loss_back = binary_cross_entropy(
                z, targets=targets[chosen], weights=balance[chosen], total=float(len(chosen))
            )
            optimizer.gradient.add(z_back(loss_back(np.float32(1))))
            done = epoch * steps + step
            optimizer.step(warmup_linear(done, peak=rate, warmup=0, total=epochs * steps))
    return QualityModel(optimizer.params["w"][:, 0].copy(), float(optimizer.params["b"][0]))


@known_arguments
def load_quality(path: str | os.PathLike) -> QualityModel:
    """The model in a file that `save` wrote; ValueError naming the file for another."""
    arrays, _ = read_model(path, KIND)
    where = printable(path)
    rows = len(arrays.get("w", ()))
    if rows.bit_count() != 1 or not 2 <= rows <= 1 << 24:
        raise mismatch(f"{where}: w", "2^1 to 2^24 numbers", str(rows))
    w = stored_array(where, arrays, "w", (rows,))
    return QualityModel(w, float(stored_array(where, arrays, "b", (1,))[0]))
