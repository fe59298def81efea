"""LLaMA's changes for every RoPE type."""

from __future__ import annotations

from typing import Any


def _rope(kind: str, positions: int = 24, **settings: Any) -> dict[str, Any]:
    """Heads of width 8: four frequencies, so that a scaling can treat some differently."""
    parameters = {"rope_type": kind, "rope_theta": 10.0, **settings}
    return {"head_dim": 8, "max_position_embeddings": positions, "rope_parameters": parameters}


# LLaMA with every RoPE type, all for 24 positions; with dynamic and longrope 12 of them can be cached.  With base 10 the
# frequencies make 1.9, 1.1, 0.6 and 0.3 turns in 12 positions: some lie between the two bounds of yarn and llama3, some on
# either side.
ROPES = {
    "default": _rope("default"),
    "linear": _rope("linear", 12, factor=2.0),
    "dynamic": _rope("dynamic", 12, factor=2.0),
    "yarn": _rope("yarn", factor=2.0, original_max_position_embeddings=12, beta_fast=1.5, beta_slow=0.4, truncate=False),
    "yarn, attention_factor": _rope("yarn", 12, factor=2.0, beta_fast=1.5, beta_slow=0.4, attention_factor=0.6),
    "longrope": _rope("longrope", original_max_position_embeddings=12, short_factor=[1, 1, 1.2, 2], long_factor=[1, 2, 3, 4]),
    "llama3": _rope("llama3", factor=2.0, original_max_position_embeddings=12, low_freq_factor=0.4, high_freq_factor=1.5),
}
