"""How good a language model is, beside baselines that are as good as counting gets."""

from .ngram import InterpolatedKneserNey, Uniform, Unigram
from .perplexity import Row, baseline_rows, bits_per_byte, format_rows, perplexity, row

__all__ = [
    "InterpolatedKneserNey",
    "Row",
    "Uniform",
    "Unigram",
    "baseline_rows",
    "bits_per_byte",
    "format_rows",
    "perplexity",
    "row",
]
