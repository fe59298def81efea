"""Entries of the kernels: each obeys the laws of its plain form, in the same cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...kernels import activation, cross_entropy, disentangled, distillation, log_probs, mlp, norm
from ..case import Case, Entry, Sizes
from .alignment import summed

_KERNELS: dict[str, tuple[Callable[..., Any], str]] = {
    "gelu": (activation.gelu, "exact GELU in pieces that stay in the cache"),
    "gelu_tanh": (activation.gelu_tanh, "tanh GELU in pieces that stay in the cache"),
    "unit_rmsnorm": (norm.unit_rmsnorm, "RMSNorm with the gain 1 + w in its fast form"),
    "mlp": (mlp.mlp, "feed-forward layer in its fast form"),
    "gated_mlp": (mlp.gated_mlp, "gated feed-forward layer in its fast form"),
    "clamped_gated_mlp": (mlp.clamped_gated_mlp, "gpt-oss's clamped layer in its fast form"),
    "relative_scores": (disentangled.relative_scores, "scores by distance in their fast form"),
    "vocabulary_cross_entropy": (
        cross_entropy.vocabulary_cross_entropy,
        "cross-entropy from hidden states, in chunks of tokens",
    ),
    "vocabulary_log_probs": (
        summed(log_probs.vocabulary_log_probs),
        "log-probabilities from hidden states, in chunks of tokens",
    ),
    "vocabulary_distillation": (
        distillation.vocabulary_distillation,
        "distillation from hidden states, in chunks of tokens",
    ),
}


def _in_chunks(make: Callable[[Sizes], Case]) -> Callable[[Sizes], Case]:
    def chunked(s: Sizes) -> Case:
        case = make(s)
        case.kwargs |= {"chunk": 1 + s.seed % 4}
        return case

    return chunked


def kernels(table: dict[str, Entry]) -> dict[str, Entry]:
    """{name: entry} of the kernels, from the entries of their plain forms."""
    found = {}
    for name, (f, text) in _KERNELS.items():
        make = table[name].make
        make = _in_chunks(make) if name.startswith("vocabulary") else make
        found[f"{name}_kernel"] = Entry(f, make, text, plain=name)
    return found
