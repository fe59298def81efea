# ruff: noqa: E402 - imports follow importorskip
"""ROUGE against rouge-score, BLEU against sacrebleu, on random texts.

Their F1 is 2 P R / (P + R) and their BLEU adds logarithms of percentages: a few dozen roundings (CLOSE).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
sacrebleu = pytest.importorskip("sacrebleu")

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from tests.laws import rounding
from tinyplm import evaluation

CLOSE = rounding(100)
PIECES = ["the", "cat", "sat", "Mat", "it's", "3.5", "1,000", "7-", "é", "中", ",", ".", "..", "&quot;", "-\n", "\n", "x-y", "(",
          "%", "<skipped>", "\u00a0", "İ"]  # fmt: skip
SEPARATORS = st.sampled_from(["", " ", " ", "  "])
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), SEPARATORS).map("".join), max_size=12).map("".join)
MEASURES = {"rouge1": evaluation.rouge_n, "rouge2": lambda *a, **k: evaluation.rouge_n(*a, n=2, **k),
            "rougeL": evaluation.rouge_l, "rougeLsum": evaluation.rouge_lsum}  # fmt: skip


class _Characters:
    def tokenize(self, text):
        return list(text)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3), st.booleans())
def test_rouge_equals_rouge_score(text, references, characters):
    tokenizer, options = (_Characters(), {"tokenize": list}) if characters else (None, {})
    scorer = rouge_scorer.RougeScorer(list(MEASURES), use_stemmer=False, tokenizer=tokenizer)
    best, single = scorer.score_multi(references, text), scorer.score(references[0], text)
    for name, measure in MEASURES.items():
        assert measure(text, references[:1], **options) == pytest.approx(tuple(single[name]), abs=CLOSE), name
        # of references with equal F1, rounding decides which one it takes
        assert measure(text, references, **options).f1 == pytest.approx(best[name].fmeasure, abs=CLOSE), name


@given(st.one_of(TEXTS, st.text(max_size=20)))
def test_tokens_13a_equal_sacrebleu(text):
    assert evaluation.tokens_13a(text) == Tokenizer13a()(text.rstrip()).split()


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4), st.sampled_from(["exp", "floor", "none"]),
       st.sampled_from(["13a", "none", "char"]), st.integers(1, 5), st.booleans(), st.sampled_from([0.1, 0.5]))  # fmt: skip
def test_bleu_equals_sacrebleu(rows, smoothing, tokenize, order, effective, floor):
    predictions, *streams = map(list, zip(*rows))
    scorer = sacrebleu.metrics.BLEU(tokenize=tokenize, smooth_method=smoothing, smooth_value=floor, max_ngram_order=order,
                                    effective_order=effective, force=True)  # fmt: skip
    theirs = scorer.corpus_score(predictions, streams)
    options = {"tokenize": tokenize, "smoothing": smoothing, "floor": floor, "order": order, "effective": effective}
    ours = evaluation.corpus_bleu(predictions, list(zip(*streams)), **options)
    assert (ours.length, ours.reference_length) == (theirs.sys_len, theirs.ref_len)
    assert ours.brevity_penalty == pytest.approx(theirs.bp, rel=CLOSE)
    assert 100 * ours.score == pytest.approx(theirs.score, rel=CLOSE, abs=1e-300)
    assert [100 * p for p in ours.precisions] == pytest.approx(theirs.precisions, rel=CLOSE)


def test_defaults_are_those_of_sacrebleu():
    predictions = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    streams = [["The dog bit the man.", "It was not unexpected.", "The man bit him first."],
               ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]]  # fmt: skip
    references = list(zip(*streams))
    ours = evaluation.corpus_bleu(predictions, references).score
    assert 100 * ours == pytest.approx(sacrebleu.corpus_bleu(predictions, streams).score, rel=CLOSE)
    assert 0.4 < ours < 0.6
    for p, some in zip(predictions, references):
        theirs = sacrebleu.sentence_bleu(p, some).score
        assert 100 * evaluation.sentence_bleu(p, some).score == pytest.approx(theirs, rel=CLOSE)
