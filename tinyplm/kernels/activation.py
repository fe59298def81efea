"""Activations in pieces that stay in the cache."""

from ..layers.activation import ACTIVATIONS, gelu, gelu_tanh, silu

__all__ = ["ACTIVATIONS", "gelu", "gelu_tanh", "silu"]
