"""Cross-entropy over a vocabulary in chunks of tokens."""

from ..losses.cross_entropy import vocabulary_cross_entropy

__all__ = ["vocabulary_cross_entropy"]
