"""Log-probabilities over a vocabulary in chunks of tokens."""

from ..losses.log_probs import vocabulary_log_probs

__all__ = ["vocabulary_log_probs"]
