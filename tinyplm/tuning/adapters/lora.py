"""LoRA: a trained low-rank update of frozen matrices, as a transform of parameters.

    W' = W + s A B,   s = alpha / r,   A (I, r), B (r, J)                    Hu et al. 2022, eq. 3
    dA = s dW' B^T,   dB = s A^T dW'

B starts at 0, so W' = W.  Any recipe with a transform can train it:

    sft(model, sequences, **lora_of(model, rank=8))

The matrices of a layer's experts (X, I, J) get a pair each: A (X, I, r), B (X, r, J).

It saves memory, not time: moments and gradients exist only for A and B, but the layers still form
the whole dW' from which the transform computes the two products.  (The tests prove it equal to the
unmerged form x W + s (x A) B, which avoids dW'.)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import (
    LARGEST_KEY,
    MOST,
    check_number,
    check_takes,
    check_whole,
    known_arguments,
    listed,
    mismatch,
    wrong,
)
from ...backend import array_module
from ...core import Tree, flatten, unflatten
from ...files import printable
from ...models.model import Model, check_model
from ...optim.flat import checked_leaves
from .files import FACTS, load_adapter, save_adapter

Targets = Sequence[str] | Callable[[str, Any], bool]


def lora(theta: Tree, *, base: Tree, alpha: float) -> tuple[Tree, Callable]:
    """`base` with W + alpha / r A B in place of each W named in theta.

    theta {path: {"A" (I, r), "B" (r, J)}}; experts have a pair each.  backward(dparams) returns
    theta's gradient; dparams is a tree like `base`, a part of one, or flat, {path: array}.  Missing
    matrices count as zero and are left out of dtheta; gradients of all other parameters are
    dropped.
    """
    leaves = flatten(base)
    merged = {}
    for path, factors in theta.items():
        A, B = factors["A"], factors["B"]
        update = A @ B
        update *= alpha / A.shape[-1]
        update += leaves[path]
        merged[path] = update

    def backward(dparams: Tree) -> Tree:
        flat = flatten(dparams)
        gradients = {}
        for path, factors in theta.items():
            if path in flat:
                A, B = factors["A"], factors["B"]
                dW = flat[path] * (alpha / A.shape[-1])
                gradients[path] = {"A": dW @ _transposed(B), "B": _transposed(A) @ dW}
        return gradients

    return unflatten(leaves | merged, base), backward


def lora_parameters(
    params: Tree, *, rank: int, targets: Targets = ("Wq", "Wv"), key: int = 0
) -> dict[str, dict[str, Any]]:
    """theta for matrices in the layers, by name, or for those where targets(path, array) is true.

    A ~ N(0, 1 / I), so x A is about as large as x, and B = 0.  The paper adapts Wq and Wv (sec.
    4.2); layers have Wq Wk Wv Wo, W1 W2, or Wgate Wup Wdown.
    ValueError if no matrix matches, or if the rank exceeds a side of one.
    """
    check_whole("rank", rank, 1, MOST)
    check_whole("key", key, 0, LARGEST_KEY)
    chosen: Any = targets
    if callable(targets):
        check_takes("targets", targets, "path", "array")
    else:
        expected = "a list of names such as Wq, or a function of (path, array)"
        targets = listed("targets", targets, expected)
        if not all(isinstance(name, str) for name in targets):
            raise wrong("targets", expected, targets)

        def chosen(path: str, W: Any) -> bool:
            return ".layers." in path and path.rsplit(".", 1)[-1] in targets

    theta, leaves = {}, checked_leaves("params", params)
    for n, (path, W) in enumerate(leaves.items()):
        if not _is_matrix(path, W) or not chosen(path, W):
            continue
        (*each, rows, columns), xp = W.shape, array_module(W)
        if rank > (most := min(rows, columns)):
            raise mismatch("rank", f"at most {most}, the rank of {path} {W.shape}", rank)
        draw = random.generator(random.fold(random.key(key), n))
        A = xp.asarray(draw.normal(0, rows**-0.5, (*each, rows, rank)).astype(W.dtype))
        theta[path] = {"A": A, "B": xp.zeros((*each, rank, columns), dtype=W.dtype)}
    if not theta:
        inside = [path for path, W in leaves.items() if _is_matrix(path, W) and ".layers." in path]
        names = sorted({path.rsplit(".", 1)[-1] for path in inside})
        raise mismatch("targets", f"some of {', '.join(names)}", targets)
    return theta


def _is_matrix(path: str, W: Any) -> bool:
    """Whether it is a matrix, or those of all experts of a layer."""
    return W.ndim == 2 or (W.ndim == 3 and ".experts." in path)


def _transposed(W: Any) -> Any:
    return W.swapaxes(-1, -2)


@dataclasses.dataclass(frozen=True)
class LoraTransform:
    """The transform for a recipe: theta -> base parameters with the update added."""

    base: Tree
    alpha: float

    def __call__(self, theta: Tree) -> tuple[Tree, Callable]:
        return lora(theta, base=self.base, alpha=self.alpha)

    @property
    def facts(self) -> dict[str, Any]:
        """Metadata saved with theta."""
        return {"kind": "lora", "alpha": self.alpha}


@known_arguments
def lora_of(
    model: Model,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    key: int = 0,
    theta: Tree = None,
    targets: Targets = ("Wq", "Wv"),
) -> dict[str, Any]:
    """{"transform", "theta"} for a recipe (sft, dpo, reward, ppo, grpo, distill) or a Learner.

    targets: see lora_parameters.
    """
    check_model("model", model)
    check_number("alpha", alpha, above=0)
    if theta is None:
        theta = lora_parameters(model.params, rank=rank, key=key, targets=targets)
    check_adapter(model, theta)
    return {"transform": LoraTransform(model.params, alpha), "theta": theta}


def merge_lora(model: Model, theta: Tree, *, alpha: float = 16.0) -> Model:
    """The model with the update merged into its matrices: an ordinary model of the same size."""
    check_number("alpha", alpha, above=0)
    check_adapter(model, theta)
    return model._with(params=lora(theta, base=model.params, alpha=alpha)[0])


def check_adapter(model: Model, theta: Tree) -> None:
    """ValueError naming the first matrix of theta that does not fit the model."""
    check_model("model", model)
    check_factors(theta)
    leaves = flatten(model.params)
    for path, factors in theta.items():
        A, B = factors["A"].shape, factors["B"].shape
        known, fit = path in leaves, A[-1] == B[-2] and A[:-2] == B[:-2]
        if not known or leaves[path].shape != (*A[:-1], B[-1]) or not fit:
            matrix = f"the matrix {leaves[path].shape}" if known else "a matrix of the model"
            raise mismatch(f"theta: {path}", f"factors of {matrix}", f"A {A} and B {B}")


def check_factors(theta: Tree) -> None:
    """ValueError unless theta is {path: {"A", "B"}} of matrices."""
    if not isinstance(theta, dict) or not theta or not all(map(_are_factors, theta.values())):
        raise wrong("theta", 'pairs of matrices {path: {"A": (I, r), "B": (r, J)}}', theta)


def _are_factors(value: Any) -> bool:
    named = isinstance(value, dict) and value.keys() == {"A", "B"}
    return named and {getattr(a, "ndim", 0) for a in value.values()} in ({2}, {3})


def save_lora(theta: Tree, folder: str | os.PathLike, *, alpha: float = 16.0) -> None:
    """Write theta and alpha to a folder, as a recipe does in out/final (see adapters.files)."""
    check_number("alpha", alpha, above=0)
    check_factors(theta)
    save_adapter(theta, folder, LoraTransform(None, alpha).facts)


def load_lora(folder: str | os.PathLike) -> tuple[dict[str, dict[str, np.ndarray]], float]:
    """(theta, alpha) of a folder; ValueError naming it if it holds no LoRA adapter."""
    tensors, facts = load_adapter(folder, "lora")
    theta: dict[str, dict[str, np.ndarray]] = {}
    for name, a in tensors.items():
        path, _, factor = name.rpartition(".")
        theta.setdefault(path, {})[factor] = a
    if not theta or not all(map(_are_factors, theta.values())):
        raise wrong(printable(folder), "pairs of matrices A and B", list(tensors))
    try:
        check_number("alpha", facts.get("alpha"), above=0)
    except ValueError as error:
        raise ValueError(f"{printable(Path(folder) / FACTS)}: {error}") from None
    return theta, float(facts["alpha"])
