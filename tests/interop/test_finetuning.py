# ruff: noqa: E402 - imports follow importorskip
"""Fine-tuning against transformers: regression and multi-label losses, saved models, alignment of words and answers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.encoder_pair import compare_gradients, inputs_for, pair
from tests.interop.pair import as_torch, float64
from tests.support.tuning import KINDS, TEXTS, model, tokenizer
from tinyplm.tuning.finetuning.answers import answering
from tinyplm.tuning.finetuning.classes import classification
from tinyplm.tuning.finetuning.finetune import finetune
from tinyplm.tuning.finetuning.predict import predict
from tinyplm.tuning.finetuning.tags import tagging
from tinyplm.tuning.settings import TuningSettings


@pytest.mark.parametrize(
    ("problem", "count"), [("regression", 1), ("regression", 3), ("multi_label_classification", 3), (None, 1), (None, 3)]
)
def test_losses_and_gradients_of_numbers_and_of_several_labels(tmp_path, problem, count):
    """None: the problem type is inferred from the number of labels and from whether they are floats."""
    theirs, ours = pair("bert", "sequence_classification", tmp_path, problem_type=problem, num_labels=count)
    inputs = inputs_for("bert", "sequence_classification")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, count)) if count == 1 or problem == "regression" else rng.integers(0, 2, (3, count)).astype(float)
    with float64():
        theirs.zero_grad()
        expected = theirs(**as_torch(**inputs), labels=torch.from_numpy(rows)).loss
        expected.backward()
    loss, back = ours.loss(targets={"logits": rows}, **inputs)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-9)
    compare_gradients(ours, back(1.0), theirs, ())


def test_transformers_loads_what_was_fine_tuned(tmp_path):
    made = model(dtype="float32")
    samples = classification(made, TEXTS, KINDS)
    finetune(made, samples, samples, TuningSettings(epochs=2, batch_size=4, learning_rate=1e-2), out=tmp_path, progress=False)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "best").eval()
    cutter = transformers.AutoTokenizer.from_pretrained(tmp_path / "best")
    with torch.no_grad():
        logits = theirs(**cutter(TEXTS, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(predict(made, samples)["logits"], logits, rtol=1e-4, atol=1e-5)  # float32
    assert theirs.config.id2label == {0: "animal", 1: "money"}
    assert tinyplm.load(tmp_path / "best").task == "sequence_classification"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The small tokenizer, loaded by transformers."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save(folder)
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")


def test_the_first_tokens_of_words_are_those_of_words_cut_one_by_one(theirs):
    made = model("token_classification", max_position_embeddings=128)
    rng = np.random.default_rng(0)
    words = [*" ".join(TEXTS).split(), "cat's", "über", "春天", "x.y", "1,000", "the-end", "e\u0301"]
    sentences = [[words[i] for i in rng.integers(0, len(words), rng.integers(1, 12))] for _ in range(60)]
    samples = tagging(made, sentences)
    for sentence, encoding, places in zip(sentences, samples.encodings, samples.places):
        expected = theirs(sentence, is_split_into_words=True)
        numbers = expected.word_ids()
        assert encoding.ids == expected["input_ids"]
        assert places == [numbers.index(i) for i in range(len(sentence))]


@pytest.mark.parametrize("stride", [0, 4])
def test_windows_of_contexts_and_places_of_answers(theirs, stride):
    made = model("question_answering", max_position_embeddings=128)
    rng = np.random.default_rng(stride)
    for _ in range(30):
        context = " ".join(TEXTS[i] for i in rng.integers(0, 10, 3))
        start = int(rng.integers(0, len(context) - 1))
        span = start, int(rng.integers(start + 1, min(start + 12, len(context)) + 1))
        if not context[slice(*span)].strip():
            continue
        samples = answering(made, ["a cat"], [context], [span], max_length=26, stride=stride)
        expected = theirs("a cat", context, truncation="only_second", max_length=26, stride=stride,
                          return_overflowing_tokens=True, return_offsets_mapping=True)  # fmt: skip
        assert [encoding.ids for encoding in samples.encodings] == expected["input_ids"]
        span = context.index(samples.answers[0][0], span[0]), span[1] - (context[slice(*span)] != context[slice(*span)].rstrip())
        for n, offsets in enumerate(expected["offset_mapping"]):
            numbers = expected.sequence_ids(n)
            inside = [i for i, number in enumerate(numbers) if number == 1]
            places = _places(inside, offsets, span)
            assert (samples.targets["start_logits"][n], samples.targets["end_logits"][n]) == places


def _places(inside, offsets, span):
    """The rule of the SQuAD fine-tuning scripts, token by token: [CLS] where the window does not contain the whole answer."""
    if offsets[inside[0]][0] > span[0] or offsets[inside[-1]][1] < span[1]:
        return 0, 0
    first = max(i for i in inside if offsets[i][0] <= span[0])
    last = min(i for i in inside if offsets[i][1] >= span[1])
    return first, last
