"""From token ids to training batches: inputs, and targets that line up with the model's outputs.

    inputs.py             special tokens, padding, truncation; RoBERTa's rows of whole sentences
    sentence_pairs.py     next sentence, sentence order
    units.py, masked.py   masked language modelling
    translation.py        a sentence and its translation, both masked
    permutation.py        prediction in a random order
    pairs.py              positive pairs for contrastive losses
    batches.py            batches of these, by sample number
    draws.py              random numbers from a key

A target of -100 is ignored. All randomness comes from a key: the same key gives the same batch, and
a sample does not depend on the batch around it.
"""

from .batches import (
    MaskedPairs,
    MaskedSentences,
    MaskedTranslations,
    MaskedWindows,
    PermutedWindows,
)
from .inputs import Documents, Layout, batches_of_tokens, pad, truncate_pair
from .masked import ALBERT_NGRAMS, MACBERT_NGRAMS, Masking, corrupt, mask_tokens, similar_words
from .pairs import PositivePairs
from .permutation import permutation_sample
from .sentence_pairs import next_sentence_pairs, sentence_order_pairs
from .translation import translation_pair
from .units import continuations, span_units, token_units, whole_words, word_units

__all__ = [
    "ALBERT_NGRAMS",
    "MACBERT_NGRAMS",
    "Documents",
    "Layout",
    "MaskedPairs",
    "MaskedSentences",
    "MaskedTranslations",
    "MaskedWindows",
    "Masking",
    "PermutedWindows",
    "PositivePairs",
    "batches_of_tokens",
    "continuations",
    "corrupt",
    "mask_tokens",
    "next_sentence_pairs",
    "pad",
    "permutation_sample",
    "sentence_order_pairs",
    "similar_words",
    "span_units",
    "token_units",
    "translation_pair",
    "truncate_pair",
    "whole_words",
    "word_units",
]
