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
intervals.py    intervals of shares and statistics, the test of two models on the same samples
agreement.py    Cohen's and Fleiss' kappa
preferences.py  win rates and strengths from pairwise judgements
judgement/      blind sheets for judges, and what they said
"""

from .agreement import cohen_kappa, fleiss_kappa
from .bleu import Bleu, corpus_bleu, sentence_bleu, tokens_13a
from .intervals import Interval, PairedTest, bootstrap, paired_test, wilson
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
from .preferences import Judgement, WinRate, elo, strengths, win_rates
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
    "Interval",
    "Judgement",
    "PairedTest",
    "Row",
    "Scores",
    "Uniform",
    "Unigram",
    "WinRate",
    "accuracy",
    "answer_f1",
    "answer_scores",
    "baseline_rows",
    "bits_per_byte",
    "bootstrap",
    "chunk_f1",
    "chunk_f1_by_kind",
    "cohen_kappa",
    "confusion",
    "corpus_bleu",
    "elo",
    "exact_match",
    "fleiss_kappa",
    "format_rows",
    "matthews_correlation",
    "normalise_answer",
    "paired_test",
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
    "strengths",
    "text_measures",
    "tokens_13a",
    "wilson",
    "win_rates",
]
