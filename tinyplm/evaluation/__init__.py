"""Evaluation of models, and count-based baselines to compare them with.

likelihood.py   perplexity, bits per byte, the table of baselines
ngram.py        uniform, unigram and Kneser-Ney baselines of causal models
masked.py       baselines of masked models
metrics.py      accuracy, F1, correlations
spans.py        tagged chunks, answers to questions, equality of texts
rouge.py        ROUGE-1, -2, -L, -Lsum
bleu.py         BLEU of a corpus or a sentence
requests/       what benchmarks ask of a model: log-likelihoods, texts; answers on disk
benchmarks/     GLUE, MMLU, SQuAD and others, from their published files
"""

from .bleu import Bleu, corpus_bleu, sentence_bleu, tokens_13a
from .likelihood import (
    Row,
    baseline_rows,
    bits_per_byte,
    format_rows,
    perplexity,
    row,
    text_measures,
)
from .masked import Guesses
from .metrics import (
    Scores,
    accuracy,
    confusion,
    matthews_correlation,
    pearson_correlation,
    precision_recall_f1,
    spearman_correlation,
)
from .ngram import InterpolatedKneserNey, Uniform, Unigram
from .rouge import rouge, rouge_l, rouge_lsum, rouge_n, rouge_words
from .spans import (
    answer_f1,
    answer_scores,
    chunk_f1,
    chunk_f1_by_kind,
    exact_match,
    normalise_answer,
    share_equal,
    single_spaces,
)

__all__ = [
    "Bleu",
    "Guesses",
    "InterpolatedKneserNey",
    "Row",
    "Scores",
    "Uniform",
    "Unigram",
    "accuracy",
    "answer_f1",
    "answer_scores",
    "baseline_rows",
    "bits_per_byte",
    "chunk_f1",
    "chunk_f1_by_kind",
    "confusion",
    "corpus_bleu",
    "exact_match",
    "format_rows",
    "matthews_correlation",
    "normalise_answer",
    "pearson_correlation",
    "perplexity",
    "precision_recall_f1",
    "rouge",
    "rouge_l",
    "rouge_lsum",
    "rouge_n",
    "rouge_words",
    "row",
    "sentence_bleu",
    "share_equal",
    "single_spaces",
    "spearman_correlation",
    "text_measures",
    "tokens_13a",
]
