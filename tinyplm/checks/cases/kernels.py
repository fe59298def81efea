"""The table's kernels: each obeys the laws of its plain form, against the same reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.components_alignment import summed
from tests.laws import Case, Sizes
from tinyplm.kernels import activation, cross_entropy, disentangled, distillation, log_probs, mlp


def _in_chunks(make: Callable[[Sizes], Case]) -> Callable[[Sizes], Case]:
    def chunked(s: Sizes) -> Case:
        case = make(s)
        case.kwargs |= {"chunk": 1 + s.seed % 4}
        return case

    return chunked


def kernels(table: dict[str, Any]) -> dict[str, Any]:
    """{name: component} of the kernels, built from the components of their plain forms."""
    twins = {
        "gelu": activation.gelu,
        "gelu_tanh": activation.gelu_tanh,
        "mlp": mlp.mlp,
        "gated_mlp": mlp.gated_mlp,
        "relative_scores": disentangled.relative_scores,
        "vocabulary_cross_entropy": cross_entropy.vocabulary_cross_entropy,
        "vocabulary_log_probs": summed(log_probs.vocabulary_log_probs),
        "vocabulary_distillation": distillation.vocabulary_distillation,
    }
    found = {}
    for name, f in twins.items():
        make = table[name].make
        make = _in_chunks(make) if name.startswith("vocabulary") else make
        found[f"{name}_kernel"] = table[name]._replace(f=f, make=make)
    return found
