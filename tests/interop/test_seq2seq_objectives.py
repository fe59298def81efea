# ruff: noqa: E402 - imports follow importorskip
"""Objectives of encoder-decoders against transformers: the shift of the labels, a step of T5 and of BART on our batches."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.objectives.test_noising import DOCUMENTS
from tinyplm.core import shift_right
from tinyplm.objectives import (
    NoisedDocuments,
    Noising,
    Seq2SeqLayout,
    SpanCorruptedWindows,
    corrupt_spans,
    sentinel_ids,
)

SIZES = {"d_model": 16, "num_heads": 2, "d_kv": 8, "d_ff": 24, "num_layers": 1, "vocab_size": 300, "dropout_rate": 0.0}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
BART_SIZES = {**HEADS, "d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": 300, "dropout": 0.0}


def t5():
    torch.manual_seed(0)
    config = transformers.T5Config(**SIZES, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    return transformers.T5ForConditionalGeneration(config).eval()


def bart():
    torch.manual_seed(0)
    config = transformers.BartConfig(**BART_SIZES, bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2)
    return transformers.BartForConditionalGeneration(config).eval()


@pytest.mark.parametrize(("make", "start", "pad"), [(t5, 0, 0), (bart, 2, 1)])
def test_labels_are_shifted_alike(make, start, pad):
    labels = np.random.default_rng(0).integers(0, 300, (6, 9))
    labels[np.random.default_rng(1).random(labels.shape) < 0.2] = -100
    labels[:, -1] = -100
    theirs = make().prepare_decoder_input_ids_from_labels(torch.tensor(labels))
    assert np.array_equal(shift_right(labels, start, pad), theirs.numpy())


def batch_of(name):
    if name == "t5":
        layout = Seq2SeqLayout.t5(eos_id=1, pad_id=0)
        tokens = np.random.default_rng(0).integers(2, 200, 400)
        return SpanCorruptedWindows(tokens, 32, layout=layout, sentinels=sentinel_ids(300, 100), seed=0).batch(0, 8)
    layout = Seq2SeqLayout.bart(bos_id=0, eos_id=2, pad_id=1)
    return NoisedDocuments(DOCUMENTS, 24, layout=layout, noising=Noising(3), seed=0).batch(0, 8)


@pytest.mark.parametrize("make", [t5, bart])
def test_batches_are_what_the_models_want(make):
    """The loss of our arrays is the loss that the model computes from the labels alone."""
    inputs, targets = ({name: torch.tensor(a) for name, a in part.items()} for part in batch_of(make.__name__))
    assert (inputs["attention_mask"] == 0).any() == (make is bart)  # spans fill their rows
    model, labels = make(), targets["logits"]
    with torch.no_grad():
        loss = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss
        logits = model(**inputs).logits
    ours = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
    assert float(ours) == pytest.approx(float(loss), rel=1e-6)  # float32


def test_sentinels_are_the_tokenizers():
    """<extra_id_0> is the highest id of a published vocabulary, and our inputs and targets read as in T5's documentation."""
    words = [f"▁{word}" for word in "The cute dog walks in the park".split()]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -1.0) for word in words), ("▁", -9.0)]
    vocabulary += [(f"<extra_id_{n}>", 0.0) for n in reversed(range(5))]  # as in the published files
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=5)
    sentinels = sentinel_ids(len(tokenizer), 5)
    assert sentinels == tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(5)])

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    noise = np.array([0, 1, 1, 0, 0, 1, 0], bool)
    inputs, targets = corrupt_spans(encode("The cute dog walks in the park"), noise, sentinels=sentinels)
    assert inputs.tolist() == encode("The <extra_id_0> walks in <extra_id_1> park")
    assert targets.tolist() == encode("<extra_id_0> cute dog <extra_id_1> the <extra_id_2>")
