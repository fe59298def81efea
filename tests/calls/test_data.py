"""Invalid calls of data, objectives and evaluation: every argument, every wrong kind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.wrong_calls import wrong_calls
from tinyplm import data, evaluation, objectives
from tinyplm.data import corpus, deduplication, packing
from tinyplm.evaluation import judgement, metrics, spans
from tinyplm.evaluation import masked as guesses
from tinyplm.objectives import draws, inputs, masked, permutation, sentence_pairs, units

TOKENS = np.arange(60) % 20
LAYOUT = objectives.Layout.bert(cls_id=20, sep_id=21, pad_id=22)
MASKING = objectives.Masking(mask_id=23, vocab_size=24)
DOCUMENTS = [[[1, 2, 3], [4, 5]], [[6, 7], [8, 9, 10], [11]]]
COMMON = {"layout": LAYOUT, "masking": MASKING, "seed": 1, "copies": None}
SEQ2SEQ = objectives.Seq2SeqLayout.t5(eos_id=21, pad_id=22)
NOISE = {"density": 0.15, "mean_span": 3.0}
DENOISED = {"layout": SEQ2SEQ, "sentinels": [40, 41, 42], "seed": 1}
BLANKS = objectives.BlankTokens(20, 21, 22, 0)
NOISING = objectives.Noising(23)
TASK = objectives.Seq2SeqPairs([([1], [2])], 5, 5, layout=SEQ2SEQ, seed=1)
ANSWERS = {"a": {"p": "x"}, "b": {"p": "y"}}
ROW = LAYOUT.single(np.array([1, 2]))
DATA = [
    (data.Windows, {"tokens": TOKENS, "length": 5, "seed": 1}),
    (data.Windows(TOKENS, 5, 1).batch, {"first": 0, "count": 2}),
    (data.Windows(TOKENS, 5, 1).starts, {"epoch": 0}),
    (data.document_positions, {"inputs": TOKENS.reshape(3, 20), "eos_id": 1}),
    (data.evaluation_windows, {"tokens": TOKENS, "length": 5, "batch": 2, "stride": 3}),
    (corpus.cut, {"text": "some words " * 20, "limit": 20}),
    (data.deduplicate, {"documents": ["a", "b"]}),
    (data.split_documents, {"documents": ["a", "b"], "fraction": 0.5, "seed": 1}),
    (data.read_texts, {"paths": [__file__]}),
    (data.read_documents, {"paths": [__file__]}),
    (data.split_sentences, {"text": "One. Two."}),
    (data.sentence_documents, {"texts": ["One. Two."], "encode": lambda text: [1]}),
    (packing.token_dtype, {"vocab_size": 20}),
    (data.pack, {"id_lists": [[1, 2], [3]], "eos_id": 0, "vocab_size": 20}),
    (data.write_tokens, {"path": "/nowhere/at/all", "array": TOKENS.astype("uint16")}),
    (data.open_tokens, {"path": "/nowhere/at/all"}),
    (data.read_json_pairs, {"path": "/nowhere/at/all", "source": "a", "target": "b"}),
    (data.read_tsv_pairs, {"path": "/nowhere/at/all", "source": 0, "target": "b", "header": True}),
    (data.encode_pairs, {"pairs": [("a", "b")], "encode": lambda text: [1], "prefix": "say: "}),
    (data.mixture_amounts, {"sizes": {"a": 3, "b": 4}, "total": 5, "rates": {"a": 1, "b": 2}, "epochs": 2.0}),
    (data.Interleaving, {"amounts": {"a": 3, "b": 4}, "seed": 1}),
    (data.Interleaving({"a": 30, "b": 4}, seed=1).drawn, {"first": 3, "count": 9}),
    (deduplication.shingles, {"text": "a b c", "unit": "words", "width": 2, "normalize": "none"}),
    (deduplication.standard_error, {"similarity": 0.5, "count": 4}),
    (deduplication.candidate_probability, {"similarity": 0.5, "bands": 4, "rows": 3}),
    (deduplication.best_bands, {"threshold": 0.5, "count": 12, "false_positives": 0.4, "false_negatives": 0.6}),
    (deduplication.exact_documents, {"normalize": "none", "bits": 64}),
    (deduplication.exact_paragraphs, {"normalize": "none", "bits": 64, "shortest": 3}),
    (deduplication.exact_lines, {"normalize": "none", "bits": 64, "shortest": 3}),
    (deduplication.minhash, {"unit": "words", "width": 3, "normalize": "none", "permutations": 12, "threshold": 0.7,
                             "bands": 3, "rows": 4, "verify": "none", "seed": 1}),
    (deduplication.substrings, {"shortest": 20}),
    (deduplication.decontaminate, {"files": [__file__], "n": 13, "action": "cut", "window": 9,
                                   "shortest_piece": 9, "most_pieces": 9, "most_documents": 9, "share": 0.1}),
]  # fmt: skip
OBJECTIVES = [
    (objectives.Layout, {"first": (1,), "between": (2,), "last": (2,), "pad_id": 0, "second_type": 1}),
    (objectives.Layout.bert, {"cls_id": 20, "sep_id": 21, "pad_id": 22}),
    (LAYOUT.room, {"length": 9, "pair": True}),
    (LAYOUT.single, {"a": np.array([1, 2]), "special": np.array([0, 1])}),
    (LAYOUT.pair, {"a": np.array([1, 2]), "b": np.array([3])}),
    (objectives.pad, {"rows": [ROW], "length": 6, "fill": {"input_ids": 22}, "left": False}),
    (objectives.truncate_pair, {"a": np.arange(4), "b": np.arange(3), "room": 4, "key": 1}),
    (objectives.Documents, {"documents": DOCUMENTS, "shortest": 1, "skip_short": False}),
    (objectives.batches_of_tokens, {"sizes": [1, 2, 3], "tokens": 4}),
    (inputs.check_samples, {"first": 0, "count": 1}),
    (objectives.Masking, {"mask_id": 3, "vocab_size": 9, "rate": 0.15, "shares": (0.8, 0.1, 0.1), "selection": "exact",
         "limit": None,
                          "ngrams": (1.0,), "units": objectives.token_units, "random_ids": None, "similar": None}),
    (objectives.mask_tokens, {"ids": np.arange(5), "special_tokens_mask": np.zeros(5, int), "masking": MASKING, "key": 1,
                              "units": [[0], [1, 2]]}),
    (objectives.corrupt, {"ids": np.arange(3), "selected": np.ones(3, bool), "draws": np.ones(3), "replacement": 1,
                          "random_ids": np.arange(3), "shares": (0.8, 0.1, 0.1)}),
    (masked.select_exact, {"units": [[0], [1, 2]], "rate": 0.5, "key": 1, "limit": 2, "ngrams": (1.0, 0.5)}),
    (masked.select_bernoulli, {"units": [[0], [1, 2]], "rate": 0.5, "key": 1}),
    (masked.masking_epoch, {"epoch": 3, "copies": 2}),
    (objectives.similar_words, {"table": {(1, 2): [[3, 4]]}}),
    (objectives.permutation_sample, {"ids": np.arange(6), "special_tokens_mask": np.zeros(6, int), "predictions": 2,
         "key": 1, "K": 3,
                                     "longest": 2, "reuse": 2}),
    (permutation.ranks_of, {"order": [1, 0, 2], "predicted": np.ones(3, bool)}),
    (permutation.permutation_mask, {"rank": np.arange(3)}),
    (permutation.join_masks, {"first": np.eye(2, dtype=int), "second": np.eye(3, dtype=int)}),
    (permutation.last_in_order, {"order": [1, 0, 2], "K": 2}),
    (permutation.predicted_spans, {"length": 9, "K": 3, "longest": 2, "key": 1}),
    (permutation.target_arrays, {"ids": np.arange(4), "places": [1], "predictions": 2}),
    (sentence_pairs.next_sentence_pairs, {"documents": objectives.Documents(DOCUMENTS), "number": 0, "tokens": 5, "key": 1,
                                          "short_rate": 0.1}),
    (sentence_pairs.sentence_order_pairs, {"documents": objectives.Documents(DOCUMENTS), "number": 0, "tokens": 5, "key": 1,
                                           "short_rate": 0.1}),
    (objectives.translation_pair, {"source": [1, 2], "target": [3], "languages": (0, 1), "eos_id": 2, "length": 9}),
    (units.token_units, {"ids": np.arange(3), "maskable": np.ones(3, bool)}),
    (objectives.whole_words, {"continues": np.ones(3, bool)}),
    (objectives.word_units, {"word_ids": [0, 0, None], "maskable": np.ones(3, bool)}),
    (objectives.span_units, {"units": [[0], [1], [2]], "spans": [(0, 2)]}),
    (objectives.continuations, {"tokens": ["a", "##b"], "inside": "##", "start": None}),
    (objectives.MaskedPairs, {"documents": DOCUMENTS, "length": 12, **COMMON, "objective": "next_sentence", "sentences": False,
                              "skip_short": False}),
    (objectives.MaskedSentences, {"documents": DOCUMENTS, "length": 12, **COMMON, "across": True}),
    (objectives.MaskedWindows, {"tokens": TOKENS, "length": 12, **COMMON, "separators": (1,)}),
    (objectives.MaskedTranslations, {"pairs": [([1], [2])], "languages": [(0, 1)], "length": 9, "eos_id": 2, "pad_id": 0,
                                     "masking": MASKING, "seed": 1, "copies": None}),
    (objectives.PermutedWindows, {"tokens": TOKENS, "length": 12, "layout": LAYOUT, "seed": 1, "separators": (1,),
                                  "predictions": 2, "K": 3, "longest": 2, "reuse": 2}),
    (objectives.PositivePairs, {"pairs": [([1], [2]), ([3], [4])], "size": 2, "layout": LAYOUT, "length": 9, "seed": 1,
                                "groups": [1, 2]}),
    (objectives.Seq2SeqLayout, {"first": (1,), "last": (2,), "start_id": 2, "pad_id": 0}),
    (objectives.Seq2SeqLayout.t5, {"eos_id": 21, "pad_id": 22}),
    (objectives.Seq2SeqLayout.bart, {"bos_id": 20, "eos_id": 21, "pad_id": 22}),
    (SEQ2SEQ.room, {"length": 9, "least": 2, "name": "length"}),
    (SEQ2SEQ.framed, {"ids": [1, 2]}),
    (objectives.seq2seq_batch, {"texts": [([1, 2], [3])], "layout": SEQ2SEQ, "length": 5, "target_length": 4}),
    (objectives.Seq2SeqPairs, {"pairs": [([1], [2])], "length": 9, "target_length": 8, "layout": SEQ2SEQ, "seed": 1}),
    (objectives.sentinel_ids, {"vocab_size": 99, "count": 5}),
    (objectives.named_sentinels, {"vocabulary": {"a": 1, "<x0>": 2}, "name": "<x{}>"}),
    (objectives.noise_counts, {"length": 9, **NOISE}),
    (objectives.noise_mask, {"length": 9, "key": 1, **NOISE}),
    (objectives.corrupt_spans, {"ids": [1, 2], "noise": np.array([False, True]), "sentinels": [8, 9], "closing": True}),
    (objectives.restore_spans, {"inputs": [1, 9], "targets": [9, 2, 8], "sentinels": [9, 8]}),
    (objectives.span_lengths, {"length": 30, **NOISE, "special": 1, "closing": True}),
    (objectives.split_prefix, {"ids": [1, 2, 3], "key": 1, "share": 0.25}),
    (objectives.SpanCorruptedWindows, {"tokens": TOKENS, "length": 12, **DENOISED, **NOISE, "closing": True}),
    (objectives.PrefixWindows, {"tokens": TOKENS, "length": 12, "layout": SEQ2SEQ, "seed": 1}),
    (objectives.Denoiser, {"mode": "R", "density": 0.15, "mean_span": 3.0}),
    (objectives.UL2Windows, {"tokens": TOKENS, "length": 12, **DENOISED, "modes": {"R": [30]}, "closing": True,
                             "denoisers": [objectives.Denoiser("R", 0.15, 3.0)], "shares": [1.0]}),
    (objectives.mask_each, {"ids": [1, 2, 3], "rate": 0.5, "mask_id": 9, "key": 1}),
    (objectives.delete_tokens, {"ids": [1, 2, 3], "rate": 0.5, "key": 1}),
    (objectives.infill, {"ids": [1, 2, 3], "rate": 0.5, "mask_id": 9, "key": 1, "mean_span": 3.0}),
    (objectives.permute_sentences, {"sentences": [[1, 2], [3]], "key": 1}),
    (objectives.rotate, {"ids": [1, 2, 3], "key": 1}),
    (objectives.Noising, {"mask_id": 9, "permute": True, "masking": 0.1, "infilling": 0.3, "mean_span": 3.0, "deletion": 0.1,
                          "rotation": 0.5}),
    (objectives.noised, {"sentences": [[1, 2], [3]], "noising": NOISING, "key": 1}),
    (objectives.BlankTokens, {"mask_id": 20, "start_id": 21, "end_id": 22, "pad_id": 0, "sentence_mask_id": None,
                              "document_mask_id": 23, "first": (24,)}),
    (BLANKS.mask, {"kind": "spans"}),
    (objectives.short_spans, {"length": 9, "key": 1, "rate": 0.15, "mean_span": 3.0}),
    (objectives.sentence_spans, {"bounds": [0, 2, 5], "key": 1, "rate": 0.15}),
    (objectives.document_span, {"length": 9, "key": 1}),
    (objectives.blank_infilling, {"ids": [1, 2, 3], "spans": np.array([[0, 1], [2, 3]]), "order": [1, 0], "tokens": BLANKS,
                                  "kind": "spans"}),
    (objectives.restore_blanks, {"input_ids": [20, 2, 21, 1], "position_ids": np.array([[0, 1, 0, 0], [0, 0, 1, 2]]), "prefix": 2,
                                 "tokens": BLANKS}),
    (objectives.InfilledDocuments, {"documents": DOCUMENTS, "length": 12, "tokens": BLANKS, "seed": 1,
                                    "shares": {"spans": 1.0}, "rate": 0.15, "mean_span": 3.0}),
    (objectives.NoisedDocuments, {"documents": DOCUMENTS, "length": 12, "layout": SEQ2SEQ, "noising": NOISING, "seed": 1}),
    (objectives.mixture_rates, {"sizes": {"a": 3, "b": 4}, "limit": 3, "temperature": 2.0}),
    (objectives.Mixture, {"tasks": {"a": TASK, "b": TASK}, "rates": {"a": 1, "b": 2.0}, "pad_id": 0, "seed": 1}),
    (objectives.Mixture({"a": TASK}, {"a": 1}, pad_id=0, seed=1).batch, {"first": 0, "count": 2}),
    (draws.Draws, {"key": 1}),
    (draws.Draws(1).uniforms, {"count": 2}),
    (draws.Draws(1).integers, {"count": 2, "n": 3}),
    (draws.Draws(1).order, {"n": 3}),
    (draws.Draws(1).choice, {"weights": [1.0, 2.0]}),
]  # fmt: skip
GUESSES = guesses.Guesses([[1, 2, 3]], 9)
BLEU = {"smoothing": "floor", "floor": 0.1, "order": 4, "effective": True}
EVALUATION = [
    (evaluation.Uniform, {"vocab_size": 9}),
    (evaluation.Unigram, {"added": 1.0}),
    (evaluation.Unigram().fit, {"tokens": TOKENS, "vocab_size": 20}),
    (evaluation.InterpolatedKneserNey, {"order": 3, "modified": True}),
    (evaluation.InterpolatedKneserNey().fit, {"tokens": TOKENS, "vocab_size": 20}),
    (evaluation.InterpolatedKneserNey().fit(TOKENS, 20).log_prob, {"tokens": TOKENS}),
    (evaluation.perplexity, {"mean_nll": 1.0}),
    (evaluation.bits_per_byte, {"total_nll_nats": 1.0, "bytes": 3}),
    (evaluation.text_measures, {"total_nll_nats": 1.0, "tokens": 3, "texts": ["a b"]}),
    (evaluation.row, {"name": "a", "total_nll_nats": 1.0, "tokens": 2, "bytes": 3}),
    (evaluation.baseline_rows, {"train": TOKENS, "validation": TOKENS, "vocab_size": 20, "bytes": 9}),
    (evaluation.format_rows, {"rows": [evaluation.row("a", 1.0, 2, 3)]}),
    (guesses.Guesses, {"texts": [[1, 2]], "vocab_size": 9}),
    (GUESSES.unigram_loss, {"targets": np.array([1, -100])}),
    (GUESSES.unigram_accuracy, {"targets": np.array([1, -100])}),
    (GUESSES.neighbour_accuracy, {"input_ids": np.array([[1, 5, 3]]), "targets": np.array([[-100, 2, -100]])}),
    (guesses.joined, {"batches": [({"input_ids": np.zeros((1, 3), int)}, {"logits": np.zeros((1, 3), int)})]}),
    (metrics.scores, {"true_positives": 1, "predicted": 2, "labelled": 3}),
    (metrics.accuracy, {"predictions": [1, 0], "labels": [1, 1]}),
    (metrics.precision_recall_f1, {"predictions": [1, 0], "labels": [1, 1], "average": "binary", "classes": 2, "positive": 1}),
    (metrics.confusion, {"predictions": [1, 0], "labels": [1, 1], "classes": 2}),
    (metrics.matthews_correlation, {"predictions": [1, 0], "labels": [1, 1]}),
    (metrics.pearson_correlation, {"predictions": [1.0, 0], "labels": [1.0, 2]}),
    (metrics.spearman_correlation, {"predictions": [1.0, 0], "labels": [1.0, 2]}),
    (metrics.ranks, {"values": [1.0, 3.0]}),
    (spans.chunks, {"tags": ["O", "B-a"]}),
    (spans.chunk_f1, {"predictions": [["O"]], "labels": [["O"]]}),
    (spans.chunk_f1_by_kind, {"predictions": [["O"]], "labels": [["O"]]}),
    (spans.normalise_answer, {"text": "The end."}),
    (spans.exact_match, {"prediction": "end", "answers": ["end"]}),
    (spans.answer_f1, {"prediction": "end", "answers": ["end"]}),
    (spans.answer_scores, {"predictions": ["end"], "answers": [["end"]]}),
    (spans.share_equal, {"predictions": ["end"], "references": ["end"], "normalise": spans.single_spaces}),
    (spans.single_spaces, {"text": "The  end"}),
    (evaluation.rouge_l, {"prediction": "end", "references": ["end"], "tokenize": str.split}),
    (evaluation.rouge_lsum, {"prediction": "end", "references": ["end"], "tokenize": str.split}),
    (evaluation.rouge_n, {"prediction": "end", "references": ["end"], "n": 1, "tokenize": str.split}),
    (evaluation.rouge, {"predictions": ["end"], "references": [["end"]], "tokenize": str.split}),
    (evaluation.rouge_words, {"text": "The end."}),
    (evaluation.tokens_13a, {"text": "The end."}),
    (evaluation.corpus_bleu, {"predictions": ["end"], "references": [["end"]], "tokenize": "13a", **BLEU}),
    (evaluation.sentence_bleu, {"prediction": "end", "references": ["end"], "tokenize": str.split, **BLEU}),
    (evaluation.wilson, {"successes": 1, "trials": 2, "confidence": 0.9}),
    (evaluation.bootstrap, {"values": [1, 2], "groups": [0, 1], "draws": 9, "confidence": 0.9, "key": 0}),
    (evaluation.paired_test, {"first": [1, 2], "second": [0, 1], "groups": [0, 1], "draws": 9, "confidence": 0.9, "key": 0}),
    (evaluation.cohen_kappa, {"first": [1, 2], "second": [1, 1], "weights": "linear", "categories": [1, 2]}),
    (evaluation.fleiss_kappa, {"counts": [[1, 1], [2, 0]]}),
    (evaluation.win_rates, {"judgements": [("a", "b", 1)], "confidence": 0.9}),
    (evaluation.strengths, {"judgements": [("a", "b", 1)], "prior": 1.0, "steps": 9}),
    (evaluation.elo, {"strength": 1.0}),
    (judgement.make_sheet, {"answers": ANSWERS, "criteria": ["facts"], "key": 0}),
]  # fmt: skip
WORDS = {"documents": ["document", "tokens"], "paths": ["file", "path", "xxx"], "path": ["file", "/"],
     "tokens": ["corpus", "token", "windows"], "vocab_size": ["id", "token"],
         "length": ["room", "tokens", "corpus", "row"], "size": ["pairs"], "predictions": ["expected", "samples", "sentence",
              "binary", "no class"], "train": ["token"], "pair": ["length"],
         "labels": ["expected", "samples", "sentence", "predictions", "no class"], "id_lists": ["document"],
              "validation": ["token"], "array": ["array"],
         "first": ["special token"], "between": ["special token"], "last": ["special token"], "pad_id": ["special token"],
         "cls_id": ["special token"], "sep_id": ["special token"], "rows": ["row"], "rate": ["rate"], "ngrams": ["weights"],
              "tags": ["tag"],
         "selection": ["limit"], "special_tokens_mask": ["special"], "ids": ["id", "special", "mask", "selected", "reuse"],
              "maskable": ["word_ids", "unit"],
         "word_ids": ["word"], "units": ["unit", "span"], "spans": ["span"], "inside": ["start"], "start": ["inside"],
              "table": ["similar"],
         "order": ["order", "predicted"], "targets": ["target"], "objective": ["objective"], "pairs": ["pair", "sentence"],
              "languages": ["language"],
         "groups": ["group", "anchors"], "source": ["sentence", "file"], "target": ["sentence", "file"],
         "answers": ["expected", "answer"],
              "texts": ["token", "text"],
         "separators": ["separator"], "shares": ["shares"], "mask_id": ["mask_id"], "predicted": ["true_positives"],
              "labelled": ["true_positives"],
         "fill": ["fill"], "shortest": ["document"], "skip_short": ["document"], "average": ["average"],
              "positive": ["binary", "positive"],
         "classes": ["class"], "number": ["number"], "count": ["count"], "second": ["second"], "eos_id": ["eos_id",
              "special token"], "epoch": ["epoch"], "limit": ["limit"],
         "header": ["file"], "start_id": ["special token"], "bos_id": ["special token"],
         "density": ["sentinels"], "tasks": ["rates"],
         "sizes": ["rates"], "files": ["file"]}  # fmt: skip


@pytest.mark.parametrize(("f", "right"), [*DATA, *OBJECTIVES, *EVALUATION], ids=lambda v: getattr(v, "__qualname__", ""))
def test_wrong_kinds(f, right):
    if right.get("path") != "/nowhere/at/all":
        f(**right)
    only = ["array"] if f is data.write_tokens else ()  # any other path would be written to
    complaints = wrong_calls(f, right, only=only, aliases=WORDS)
    # the operating system's message for a valid path value; and a callable that does not accept a sentence
    complaints = [c for c in complaints if "No such file or directory" not in c and "File name too long" not in c]
    complaints = [c for c in complaints if not c.startswith(("encode = class", "normalise = class", "tokenize = class"))]
    assert not complaints, "\n".join(complaints)


def test_a_limit_of_nothing_is_refused():
    """cut("abc", 0) never terminated."""
    for limit in (0, -1, 1.5):
        with pytest.raises(ValueError, match="limit: expected an integer >= 1, got"):
            corpus.cut("abc", limit)
    assert "".join(corpus.cut("a b\nc" * 9, 1)) == "a b\nc" * 9


def test_documents_that_can_be_read_once_are_split_the_same():
    documents = [f"text number {n} " * 9 for n in range(9)]
    assert data.split_documents(iter(documents), 0.3, 1) == data.split_documents(documents, 0.3, 1)
