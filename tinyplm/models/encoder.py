"""The walk that all encoders share."""

from __future__ import annotations

from typing import Any

from ..random import generator


def init(path: str, shape: tuple[int, ...], *, config: Any, key: int) -> Any:
    """One parameter's initial value, float64 on the host, or one number for all.

    Norms 1 and 0, biases 0, all else N(0, initializer_range), as in transformers; BERT's released code cuts the normal off at two
    standard deviations.
    """
    name = path.rsplit(".", 1)[-1]
    if name == "gamma":
        return 1.0
    if name.startswith("b"):  # beta, and the biases
        return 0.0
    return generator(key).normal(0, config.initializer_range, shape)
