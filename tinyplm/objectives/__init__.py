"""From token ids to training batches: inputs, and targets that line up with the model's outputs.

    inputs.py             special tokens, padding, truncation; RoBERTa's rows of whole sentences
    sentence_pairs.py     next sentence, sentence order
    units.py, masked.py   masked language modelling
    translation.py        a sentence and its translation, both masked
    permutation.py        prediction in a random order
    pairs.py              positive pairs for contrastive losses
    batches.py            batches of these, by sample number

    seq2seq.py            source and target texts for an encoder-decoder
    spans.py              span corruption (T5)
    denoisers.py          windows with corrupted spans, prefix language modelling, UL2's mixture
    noising.py            BART's five noises
    infilling.py          blanks, filled in one after the other (GLM)
    mixture.py            several tasks, each sample from one of them

    epochs.py             samples by number, over epochs
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
from .denoisers import (
    UL2_DENOISERS,
    Denoiser,
    PrefixWindows,
    SpanCorruptedWindows,
    UL2Windows,
    split_prefix,
)
from .infilling import (
    BlankTokens,
    InfilledDocuments,
    Infilling,
    blank_infilling,
    document_span,
    restore_blanks,
    sentence_spans,
    short_spans,
)
from .inputs import Documents, Layout, batches_of_tokens, pad, truncate_pair
from .masked import ALBERT_NGRAMS, MACBERT_NGRAMS, Masking, corrupt, mask_tokens, similar_words
from .mixture import Mixture, mixture_rates
from .noising import (
    NoisedDocuments,
    Noising,
    delete_tokens,
    infill,
    mask_each,
    noised,
    permute_sentences,
    rotate,
)
from .pairs import PositivePairs
from .permutation import permutation_sample
from .sentence_pairs import next_sentence_pairs, sentence_order_pairs
from .seq2seq import Seq2SeqLayout, Seq2SeqPairs, seq2seq_batch
from .spans import (
    corrupt_spans,
    named_sentinels,
    noise_counts,
    noise_mask,
    restore_spans,
    sentinel_ids,
    span_lengths,
)
from .translation import translation_pair
from .units import continuations, span_units, token_units, whole_words, word_units

__all__ = [
    "ALBERT_NGRAMS",
    "MACBERT_NGRAMS",
    "UL2_DENOISERS",
    "BlankTokens",
    "Denoiser",
    "Documents",
    "InfilledDocuments",
    "Infilling",
    "Layout",
    "MaskedPairs",
    "MaskedSentences",
    "MaskedTranslations",
    "MaskedWindows",
    "Masking",
    "Mixture",
    "NoisedDocuments",
    "Noising",
    "PermutedWindows",
    "PositivePairs",
    "PrefixWindows",
    "Seq2SeqLayout",
    "Seq2SeqPairs",
    "SpanCorruptedWindows",
    "UL2Windows",
    "batches_of_tokens",
    "blank_infilling",
    "continuations",
    "corrupt",
    "corrupt_spans",
    "delete_tokens",
    "document_span",
    "infill",
    "mask_each",
    "mask_tokens",
    "mixture_rates",
    "named_sentinels",
    "next_sentence_pairs",
    "noise_counts",
    "noise_mask",
    "noised",
    "pad",
    "permutation_sample",
    "permute_sentences",
    "restore_blanks",
    "restore_spans",
    "rotate",
    "sentence_order_pairs",
    "sentence_spans",
    "sentinel_ids",
    "seq2seq_batch",
    "short_spans",
    "similar_words",
    "span_lengths",
    "span_units",
    "split_prefix",
    "token_units",
    "translation_pair",
    "truncate_pair",
    "whole_words",
    "word_units",
]
