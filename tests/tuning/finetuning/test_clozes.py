"""Fine-tuning by cloze: the paper's loss and its gradient, a task that is learned, the folder it leaves, what is refused."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

import tinyplm
from reference.losses.answers import cloze_loss
from tests.laws import MODEL, leaves, relative_error
from tests.support import tuning
from tests.support.families import tiny
from tinyplm.core import tree_map
from tinyplm.layers.softmax import log_softmax
from tinyplm.objectives import BlankTokens, blank_infilling
from tinyplm.optim.adamw import AdamW
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.settings import Settings
from tinyplm.training.step import accumulate
from tinyplm.tuning import (
    Cloze,
    Prefix,
    TuningSettings,
    Verbaliser,
    classification,
    cloze_classification,
    finetune,
    label_probabilities,
    predict,
)

SPECIAL = ["[CLS]", "[MASK]", "[gMASK]", "<|startofpiece|>", "<|endofpiece|>", "<|endoftext|>"]
WORDS = Verbaliser({"animal": ["beast", "it lives"], "money": "cash"})  # of several tokens
CLOZE = Cloze("{text}, [MASK]!", WORDS)
PREFIX = Prefix("{text}:", WORDS)
SAMPLES = [{"text": text} for text in tuning.TEXTS]


@functools.cache
def tokenizer():
    return Tokenizer.train(tuning.TEXTS, 256 + len(SPECIAL) + 10, SPECIAL)


def model(family="glm_2021", **changes):
    context = {"glm_2021": "max_sequence_length", "gpt2": "n_positions"}[family]
    made = tiny(family, vocab_size=tokenizer().vocab_size, **{context: 64, **changes})
    made.tokenizer = tokenizer()
    return made


def separate_log_probs(made, pattern):
    """(samples, words, tokens): from a pass for each word without padding, by the objective's own layout for a GLM."""
    vocab, encode = tokenizer().vocab, tokenizer().encode
    rows = []
    for sample in SAMPLES:
        for word in (word for some in WORDS.lists for word in some):
            if isinstance(pattern, Cloze):
                names = (vocab[token] for token in ("[MASK]", "<|startofpiece|>", "<|endofpiece|>"))
                before, after = encode(f"{sample['text']}, "), encode("!")
                inside = encode(f" {word}")  # as after a space, which the text has, too
                span = np.array([[len(before), len(before) + len(inside)]])
                tokens = BlankTokens(*names, 0, first=(vocab["[CLS]"],))
                whole = blank_infilling([*before, *inside, *after], span, [0], tokens=tokens)
                ids, targets = whole.input_ids, whole.targets
                inputs = {"position_ids": whole.position_ids[None], "prefix_lengths": [whole.prefix]}
            else:
                whole = np.array(encode(f"{sample['text']}:{word}"))
                n = len(encode(f"{sample['text']}:"))
                ids, targets, inputs = whole[:-1], np.where(np.arange(1, len(whole)) < n, -100, whole[1:]), {}
            log_p = log_softmax(made(ids[None], **inputs, grad=False)[0]["logits"][0])[0]
            rows.append([log_p[t, target] for t, target in enumerate(targets) if target != -100])
    T = max(map(len, rows))
    return np.array([row + [0.0] * (T - len(row)) for row in rows]).reshape(len(SAMPLES), 3, T)


@pytest.mark.parametrize(("family", "pattern"), [("glm_2021", CLOZE), ("gpt2", PREFIX)])
def test_the_loss_is_the_papers_formula_with_words_of_several_tokens(family, pattern):
    made = model(family)
    data = cloze_classification(made, pattern, SAMPLES, tuning.KINDS)
    trained = data.model_for(made)
    inputs, targets = data.batch(range(len(data)))
    x = separate_log_probs(made, pattern)
    assert (x != 0).sum(axis=2).min() > 1
    expected = cloze_loss(x, words=(2, 1), targets=[0, 1] * 5)
    loss, backward = trained.loss(**inputs, targets=targets)
    assert abs(loss - expected) < MODEL * expected
    # the gradient along a random direction, and in parts
    rng, gradient = np.random.default_rng(0), backward(0.7)
    direction = tree_map(lambda a: rng.normal(size=a.shape), made.params)
    h, values = 1e-5, []
    for sign in (1, -1):
        moved = tree_map(lambda a, d, sign=sign: a + sign * h * d, made.params, direction)
        values.append(float(trained.with_params(moved).loss(**inputs, targets=targets, grad=False)[0]))
    terms = [(g * d).sum() for g, d in zip(leaves(gradient), leaves(direction), strict=True)]
    sizes = sum(np.abs(g * d).sum() for g, d in zip(leaves(gradient), leaves(direction)))
    assert abs(sum(terms) - 0.7 * (values[0] - values[1]) / (2 * h)) < 1e-7 * sizes
    optimizer = AdamW(made.params)
    settings = Settings(batch_size=10, sequence_length=64, micro_batch_size=3, workers=2)
    assert abs(accumulate(trained, optimizer, inputs, targets, settings=settings) - expected) < MODEL * expected
    assert relative_error(tree_map(lambda a: 0.7 * a, optimizer.gradient.tree), gradient) < MODEL


def test_predictions_are_the_label_probabilities():
    for family, pattern in (("glm_2021", CLOZE), ("gpt2", PREFIX)):
        made = model(family)
        data = cloze_classification(made, pattern, SAMPLES)
        found = np.exp(log_softmax(predict(made, data, batch_size=3)["logits"])[0])
        assert np.allclose(found, label_probabilities(pattern, made, SAMPLES, batch_size=4), rtol=0, atol=MODEL)


def test_a_task_is_learned_and_its_folder_is_a_language_model(tmp_path):
    """Which of two letters a text has more of: held-out texts have other numbers of them."""
    rng = np.random.default_rng(0)
    texts, labels = [], []
    for label, letters in enumerate(("ab", "ba")):
        for _ in range(40):
            counts = rng.integers(4, 7), rng.integers(0, 3)
            texts.append({"text": "".join(rng.permutation(list(letters[0] * counts[0] + letters[1] * counts[1])))})
            labels.append(label)
    made = tinyplm.create("glm_2021", vocab_size=tokenizer().vocab_size, hidden_size=16, num_layers=1, num_attention_heads=2,
                          max_sequence_length=32, initializer_range=0.14)  # fmt: skip
    made.tokenizer = tokenizer()
    pattern = Cloze("{text} [MASK]", Verbaliser({"first": "xy", "second": ["zw", "wz"]}))
    parts = [cloze_classification(made, pattern, texts[n::2], labels[n::2]) for n in range(2)]
    settings = TuningSettings(epochs=6, batch_size=10, learning_rate=1e-2, warmup=0.1)
    result = finetune(made, *parts, settings, out=tmp_path / "out", progress=False)
    assert result.scores["accuracy"] > 0.9  # chance: 0.5
    again = tinyplm.load(tmp_path / "out" / "best")
    assert again.task == "causal_lm" and type(again) is type(made)
    found = label_probabilities(pattern, again, texts[1::2]).argmax(axis=1)
    assert (found == np.array(labels[1::2])).mean() == result.scores["accuracy"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cloze_classification(model("gpt2"), CLOZE, SAMPLES), "pattern: expected a Prefix for a decoder that fills no"),
        (lambda: cloze_classification(tuning.model(), CLOZE, SAMPLES), "model: expected a decoder that generates text"),
        (lambda: cloze_classification(model(), Prefix("{text}", WORDS, mean=True), SAMPLES), "pattern: expected a Prefix whose"),
        (lambda: cloze_classification(model(), CLOZE, SAMPLES, ["animal"]), "labels: expected one for each of 10 samples, got 1"),
        (lambda: cloze_classification(model(), CLOZE, SAMPLES[:1], ["pet"]), "sample 0: expected a label out of animal, money"),
        (lambda: cloze_classification(model(), CLOZE, [{"text": "a" * 99}]), "sample 0: expected at most 64 tokens, got"),
        (lambda: cloze_classification(model(), CLOZE, [{"text": "[CLS]"}]), "sample 0: expected text without special tokens"),
        (lambda: cloze_classification(model(), CLOZE, [{"words": "a"}]), "sample 0: expected a sample with 'text'"),
        (lambda: CLOZE.word_scores(model("gpt2"), SAMPLES), "model: expected one with task masked_lm, or one that fills blanks"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)


def test_what_training_refuses():
    made = model()
    data = cloze_classification(made, CLOZE, SAMPLES, tuning.KINDS)
    with pytest.raises(ValueError, match="auxiliary: expected 0, since .* has no score head, got 0.5"):
        finetune(made, data, data, TuningSettings(auxiliary=0.5))
    with pytest.raises(TypeError, match="model: expected an encoder, a decoder with task"):
        predict(made, classification(tuning.model(), tuning.TEXTS, tuning.KINDS))
    inputs, targets = data.batch([0, 1])
    trained = data.model_for(made)
    for changes, message in (
        ({"answers": None}, "answers: expected"),
        ({"input_ids": inputs["input_ids"][:, :2]}, "input_ids: expected shape (2, 3, "),
        ({"prefix_lengths": [1, 2]}, "prefix_lengths: expected shape (2, 3) of answers, got (2,)"),
        (
            {name: a[:, :2] for name, a in inputs.items()},
            "label_scores: words: expected whole numbers >= 1 with sum 2, got (2, 1)",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            trained.loss(**{**inputs, **changes}, targets=targets)
