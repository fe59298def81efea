"""Norms in pieces that stay in the cache."""

from ..layers.norm import layernorm, rmsnorm

__all__ = ["layernorm", "rmsnorm"]
