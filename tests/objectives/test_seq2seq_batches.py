"""Batches of encoder-decoders by sample number: a sample depends on the data, settings, seed and its number alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.objectives.test_denoisers import MODES, SENTINELS, TOKENS
from tests.objectives.test_mixture import pairs, spans
from tests.objectives.test_noising import BART, DOCUMENTS, MASK
from tests.objectives.test_seq2seq import PAIRS, T5
from tinyplm.objectives import Mixture, NoisedDocuments, Noising, PrefixWindows, Seq2SeqPairs, SpanCorruptedWindows, UL2Windows

PIPELINES = {
    "spans": lambda seed: SpanCorruptedWindows(TOKENS, 40, layout=T5, sentinels=SENTINELS, seed=seed),
    "prefix": lambda seed: PrefixWindows(TOKENS, 40, layout=T5, seed=seed),
    "ul2": lambda seed: UL2Windows(TOKENS, 40, layout=T5, sentinels=SENTINELS, modes=MODES, seed=seed),
    "noised": lambda seed: NoisedDocuments(DOCUMENTS, 20, layout=BART, noising=Noising(MASK, rotation=0.5), seed=seed),
    "pairs": lambda seed: Seq2SeqPairs(PAIRS, 8, 8, layout=T5, seed=seed),
    "mixture": lambda seed: Mixture({"a": pairs(9, 100, seed=seed), "b": spans(seed)}, {"a": 2, "b": 3}, pad_id=0, seed=seed),
}  # fmt: skip


def rows(batch):
    """The rows of a batch without the padding at their end, which depends on the batch for some."""
    inputs, targets = batch
    found = []
    for n, kept in enumerate(inputs["attention_mask"].sum(axis=1)):
        labels = targets["logits"][n]
        T = int((labels != -100).sum())
        assert (labels[T:] == -100).all() and not inputs["attention_mask"][n, kept:].any()
        assert T and kept
        found.append((inputs["input_ids"][n, :kept].tolist(), labels[:T].tolist(), inputs["decoder_input_ids"][n, :T].tolist()))
    return found


@pytest.mark.parametrize("name", PIPELINES)
def test_a_sample_depends_on_its_number_alone(name):
    whole = rows(PIPELINES[name](5).batch(0, 60))
    data = PIPELINES[name](5)
    late = rows(data.batch(45, 15))  # a resumed run: its first request is in a later epoch
    assert whole == [row for first in (0, 15, 30) for row in rows(data.batch(first, 15))] + late
    assert whole != rows(PIPELINES[name](6).batch(0, 60))
    assert [rows(data.batch(n, 1))[0] for n in range(9)] == whole[:9]


@pytest.mark.parametrize("name", PIPELINES)
def test_arrays_are_what_a_model_takes(name):
    data = PIPELINES[name](5)
    inputs, targets = data.batch(0, 7)
    assert inputs.keys() == {"input_ids", "attention_mask", "decoder_input_ids"} and targets.keys() == {"logits"}
    assert all(a.dtype == np.int64 and a.ndim == 2 and len(a) == 7 for a in (*inputs.values(), *targets.values()))
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape and inputs["input_ids"].shape[1] <= data.length
    assert inputs["decoder_input_ids"].shape == targets["logits"].shape
    if name not in ("pairs", "mixture"):
        assert inputs["input_ids"].shape[1] == data.length and targets["logits"].shape[1] == data.target_length


@pytest.mark.parametrize("name", PIPELINES)
def test_bad_numbers_are_refused(name):
    for first, count, message in ((-1, 2, "first: expected an integer from 0"), (0, 0, "count: expected an integer from 1")):
        with pytest.raises(ValueError, match=message):
            PIPELINES[name](5).batch(first, count)
