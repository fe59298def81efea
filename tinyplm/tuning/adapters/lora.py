"""LoRA: a low-rank update beside frozen matrices, as a transform of parameters.                       Hu et al. 2022, eq. 3

    W' = W + s A B,   s = alpha / r,   A (I, r), B (r, J)           dA = s dW' B^T,   dB = s A^T dW'

B starts at 0, so that W' = W.  Every recipe that takes a transform trains it: sft(model, ..., **lora_of(model, rank=8)).
What is saved is memory: neither moments nor gradients of W are kept, only those of A and B.  Not time: the layers still form the
whole dW', of which the transform takes these two products.  (The unmerged form x W + s (x A) B, which spares dW', is proved equal
in the tests.)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import random
from ...arguments import LARGEST_KEY, MOST, check_number, check_takes, check_whole, listed, shown, wrong
from ...backend import array_module
from ...core import Tree, flatten, unflatten
from ...files import named
from ...models.model import Model, check_model
from .files import FACTS, load_adapter, save_adapter


def lora(theta: Tree, *, base: Tree, alpha: float) -> tuple[Tree, Callable]:
    """The tree `base` with W + alpha / r A B in place of each W that theta has.

    theta {path: {"A" (I, r), "B" (r, J)}}.  backward(dparams) gives theta's gradient; dparams may be a tree like `base`, or a
    part of it, or flat, {path: array}: what is missing counts as zero, so that a part of dtheta comes back.  All other parameters
    are frozen: their gradients are dropped.
    """
    leaves = flatten(base)
    merged = {}
    for path, factors in theta.items():
        A, B = factors["A"], factors["B"]
        update = A @ B
        update *= alpha / A.shape[1]
        update += leaves[path]
        merged[path] = update

    def backward(dparams):
        given = flatten(dparams)
        gradients = {}
        for path, factors in theta.items():
            if path in given:
                A, B = factors["A"], factors["B"]
                dW = given[path] * (alpha / A.shape[1])
                gradients[path] = {"A": dW @ B.T, "B": A.T @ dW}
        return gradients

    return unflatten(leaves | merged, base), backward


def lora_parameters(params: Tree, *, rank: int, targets: Sequence[str] | Callable[[str, Any], bool] = ("Wq", "Wv"), key: int = 0
                    ) -> dict[str, dict[str, Any]]:  # fmt: skip
    """theta for the matrices of the layers whose last name is among `targets`, or for which targets(path, array) is true.

    A ~ N(0, 1 / I), so that x A is about as large as x, and B = 0.  The paper's own choice is Wq and Wv (sec. 4.2); layers have
    Wq Wk Wv Wo, W1 W2, or Wgate Wup Wdown.  ValueError where none fits, or the rank is no smaller than both sides of a matrix.
    """
    check_whole("rank", rank, 1, MOST)
    check_whole("key", key, 0, LARGEST_KEY)
    if not callable(targets):
        expected = "a list of names such as Wq, or a function of (path, array)"
        targets = listed("targets", targets, expected)
        if not all(isinstance(name, str) for name in targets):
            raise wrong("targets", expected, targets)
    else:
        check_takes("targets", targets, "path", "array")
    chosen = targets if callable(targets) else lambda path, a: ".layers." in path and path.rsplit(".", 1)[-1] in targets
    theta = {}
    for n, (path, W) in enumerate(flatten(params).items()):
        if W.ndim != 2 or not chosen(path, W):
            continue
        if rank > min(W.shape):
            raise ValueError(f"lora: a rank of {rank} is more than {path} {W.shape} has")
        A = random.generator(random.fold(random.key(key), n)).normal(0, W.shape[0] ** -0.5, (W.shape[0], rank))
        xp = array_module(W)
        theta[path] = {"A": xp.asarray(A.astype(W.dtype)), "B": xp.zeros((rank, W.shape[1]), dtype=W.dtype)}
    if not theta:
        names = sorted({path.rsplit(".", 1)[-1] for path, W in flatten(params).items() if W.ndim == 2 and ".layers." in path})
        raise ValueError(f"lora: no matrix fits the targets {targets}; layers have {', '.join(names)}")
    return theta


@dataclasses.dataclass(frozen=True)
class Lora:
    """The transform of a recipe: theta -> the base's parameters with theta in its matrices."""

    base: Tree
    alpha: float

    def __call__(self, theta: Tree) -> tuple[Tree, Callable]:
        return lora(theta, base=self.base, alpha=self.alpha)

    @property
    def facts(self) -> dict[str, Any]:
        """What is saved beside theta."""
        return {"kind": "lora", "alpha": self.alpha}


def lora_of(model: Model, *, rank: int = 8, alpha: float = 16.0, key: int = 0, theta: Tree = None, **targets: Any
            ) -> dict[str, Any]:  # fmt: skip
    """{"transform", "theta"} for a recipe: sft, dpo, reward, ppo, grpo, distill, or a Learner.  targets: see lora_parameters."""
    check_model("model", model)
    check_number("alpha", alpha, above=0)
    theta = lora_parameters(model.params, rank=rank, key=key, **targets) if theta is None else theta
    check_adapter(model, theta)
    return {"transform": Lora(model.params, alpha), "theta": theta}


def merge(model: Model, theta: Tree, *, alpha: float = 16.0) -> Model:
    """The model with the update in its matrices: an ordinary one, which costs and is saved as before."""
    check_number("alpha", alpha, above=0)
    check_adapter(model, theta)
    return model._with(params=lora(theta, base=model.params, alpha=alpha)[0])


def check_adapter(model: Model, theta: Tree) -> None:
    """ValueError naming the first matrix of theta that the model has not, or of another shape."""
    check_model("model", model)
    check_factors(theta)
    leaves = flatten(model.params)
    for path, factors in theta.items():
        shape = (factors["A"].shape[0], factors["B"].shape[1])
        if path not in leaves or leaves[path].shape != shape or factors["A"].shape[1] != factors["B"].shape[0]:
            has = leaves[path].shape if path in leaves else "no such matrix"
            raise ValueError(
                f"lora: {path} with A {factors['A'].shape}, B {factors['B'].shape} does not fit: the model has {has}"
            )


def check_factors(theta: Tree) -> None:
    """ValueError unless theta is {path: {"A", "B"}} of matrices."""

    def right(f: Any) -> bool:
        return isinstance(f, dict) and f.keys() == {"A", "B"} and all(getattr(a, "ndim", 0) == 2 for a in f.values())

    if not isinstance(theta, dict) or not theta or not all(map(right, theta.values())):
        raise wrong("theta", 'pairs of matrices {path: {"A": (I, r), "B": (r, J)}}', theta)


def save_lora(theta: Tree, folder: str | os.PathLike, *, alpha: float = 16.0) -> None:
    """Write theta and alpha into a folder, as a recipe does; see tuning.adapters."""
    check_number("alpha", alpha, above=0)
    check_factors(theta)
    save_adapter(theta, folder, Lora(None, alpha).facts)


def load_lora(folder: str | os.PathLike) -> tuple[dict[str, dict[str, np.ndarray]], float]:
    """(theta, alpha) of a folder; ValueError that names it if there is no such adapter in it."""
    tensors, facts = load_adapter(folder, "lora")
    theta: dict[str, dict[str, np.ndarray]] = {}
    for name, a in tensors.items():
        path, _, factor = name.rpartition(".")
        theta.setdefault(path, {})[factor] = a
    if not theta or any(factors.keys() != {"A", "B"} or any(a.ndim != 2 for a in factors.values()) for factors in theta.values()):
        raise ValueError(f"{named(folder)}: expected pairs of matrices A and B, got {shown(list(tensors))}")
    try:
        check_number("alpha", facts.get("alpha"), above=0)
    except ValueError as error:
        raise ValueError(f"{named(Path(folder) / FACTS)}: {error}") from None
    return theta, float(facts["alpha"])
