"""Tokenizers, trainable and exact. Read bytelevel.py, bpe.py, files.py, tokenizer.py in this order."""

from .tokenizer import Tokenizer

__all__ = ["Tokenizer"]
