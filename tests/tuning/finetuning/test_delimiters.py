"""GPT-1's input formats: the sequences of figure 1 by hand, truncation, the new rows of the table, fine-tuning and files."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyplm
from tests.laws import MODEL, relative_error
from tests.support.tuning import KINDS, TEXTS
from tests.support.tuning import model as encoder
from tinyplm.core import flatten
from tinyplm.models.config import labels
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.added_tokens import AddedToken
from tinyplm.tuning.finetuning.choices import multiple_choice
from tinyplm.tuning.finetuning.classes import classification
from tinyplm.tuning.finetuning.delimiters import DELIMITERS, has_delimiters, with_delimiters
from tinyplm.tuning.finetuning.finetune import finetune
from tinyplm.tuning.finetuning.predict import outputs_and_loss, predict
from tinyplm.tuning.settings import TuningSettings

TEXT = Tokenizer.train([*TEXTS, "abcdefghijklmnopqrstuvwxyz <>"], 300)
N = len(TEXT)
START, BETWEEN, EXTRACT = N, N + 1, N + 2
ids = TEXT.encode


def plain(task="sequence_classification", names=("animal", "money"), *, extra=0, **changes):
    sizes = {"vocab_size": N + extra, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}
    made = tinyplm.create("openai-gpt", task=task, key=1, **{**sizes, **labels(names), **changes})
    made.tokenizer = TEXT
    return made


def model(*args, **changes):
    return with_delimiters(plain(*args, **changes), key=3)


def sequences(samples):
    return [encoding.ids for encoding in samples.encodings]


# ------------------------------------------------------------------------------------------------------------- the formats


def test_the_sequences_of_figure_1():
    made = model()
    assert sequences(classification(made, ["a cat"])) == [[START, *ids("a cat"), EXTRACT]]
    pair = [START, *ids("a cat"), BETWEEN, *ids("the bank"), EXTRACT]
    assert sequences(classification(made, ["a cat"], pairs=["the bank"])) == [pair]
    both = classification(made, ["a cat"], pairs=["the bank"], both_orders=True)
    assert sequences(both) == [pair, [START, *ids("the bank"), BETWEEN, *ids("a cat"), EXTRACT]]
    chosen = multiple_choice(model("multiple_choice"), ["a cat"], [["sat", "fell", "ran"]], [1], questions=["the dog"])
    assert sequences(chosen) == [
        [START, *ids("a cat"), *ids(" the dog"), BETWEEN, *ids(answer), EXTRACT] for answer in ("sat", "fell", "ran")
    ]


def test_batches_by_number():
    made = model()
    texts, others = ["a cat sat", "a", "the bank"], ["a dog", "the old bird sat", "b"]
    samples = classification(made, texts, ["animal", "money", 1], pairs=others, both_orders=True)
    assert len(samples) == 3 and samples.lengths.tolist() == [len(e) for e in samples.encodings[::2]]
    inputs, targets = samples.batch([2, 0])
    assert inputs["input_ids"].shape[:2] == (2, 2) and targets["logits"].tolist() == [1, 0]
    for row, n in enumerate([2, 0]):
        for order in (0, 1):
            expected, mask = sequences(samples)[2 * n + order], inputs["attention_mask"][row, order] == 1
            assert inputs["input_ids"][row, order][mask].tolist() == expected
            assert inputs["input_ids"][row, order][mask][-1] == EXTRACT  # what the head reads
    alone = samples.batch([2])[0]["input_ids"]
    assert alone[0].tolist() == inputs["input_ids"][0, :, : alone.shape[2]].tolist()
    with pytest.raises(ValueError, match="numbers: expected integers from 0 to 2"):
        samples.batch([3])


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 8), st.integers(14, 40))
def test_truncation_keeps_the_delimiters_and_the_question(seed, a, b, q, length):
    """The longer of text and answer loses its last tokens, ties from the one that was shorter."""
    made, draw = CHOOSING, np.random.default_rng(seed)
    text, one, other, question = ("".join(draw.choice([*"bdgjqvwz"], n)) for n in (a, b, 1, q))
    samples = multiple_choice(made, [text], [[one, other]], questions=[question], max_length=length)
    kept = ids(f" {question}")
    for row, answer in zip(sequences(samples), (one, other)):
        x, y = ids(text), ids(answer)
        while len(x) + len(y) + len(kept) + 3 > length:
            shorter_first = len(ids(text)) <= len(ids(answer))
            x, y = (x[:-1], y) if len(x) > len(y) or (len(x) == len(y) and shorter_first) else (x, y[:-1])
        assert row == [START, *x, *kept, BETWEEN, *y, EXTRACT]
    assert samples.cut == sum(len(ids(text)) + len(ids(c)) + len(kept) + 3 > length for c in (one, other))
    single = classification(model_of_texts, [text], max_length=length)
    assert sequences(single) == [[START, *ids(text)[: length - 2], EXTRACT]]


def test_a_questions_sequence_is_that_of_the_joined_text_where_nothing_is_cut():
    """Also for encoders, with the token types of a pair."""
    made = encoder("multiple_choice")
    found = multiple_choice(made, ["a dog"], [["the bank", "sat"]], questions=["the cat"])
    expected = multiple_choice(made, ["a dog the cat"], [["the bank", "sat"]])
    assert [(e.ids, e.type_ids) for e in found.encodings] == [(e.ids, e.type_ids) for e in expected.encodings]


# ---------------------------------------------------------------------------------------------- tokens, rows, what is new


def test_three_rows_are_new_and_all_else_is_the_models():
    before = plain()
    made = with_delimiters(before, key=3)
    old, new = flatten(before.params), flatten(made.params)
    assert new.keys() == old.keys() and made.config == dataclasses.replace(before.config, vocab_size=N + 3)
    assert made.parameter_count() == before.parameter_count() + 3 * 16
    assert all(new[path] is old[path] for path in old if path != "body.tokens")
    assert (new["body.tokens"][:N] == old["body.tokens"]).all() and before.tokenizer is TEXT
    assert flatten(with_delimiters(before, key=4).params)["body.tokens"][N:].std() > 0
    wide = with_delimiters(plain(n_embd=600, n_layer=1), key=3).params["body"]["tokens"][N:]
    assert abs(wide.std() - 0.02) < 5 * 0.02 / (2 * 3 * 600) ** 0.5  # five standard errors
    assert (with_delimiters(before, key=3).params["body"]["tokens"] == new["body.tokens"]).all()
    assert with_delimiters(made) is made
    for half in ("float16", "float64"):
        assert with_delimiters(plain().astype(half)).dtype == half


def test_unused_rows_are_taken_before_the_table_grows():
    for extra, size in ((1, N + 3), (3, N + 3), (5, N + 5)):
        before, made = plain(extra=extra), model(extra=extra)
        tables = [m.params["body"]["tokens"] for m in (before, made)]
        assert made.config.vocab_size == len(tables[1]) == size
        assert (tables[0][:N] == tables[1][:N]).all() and (tables[0][N + 3 :] == tables[1][N + 3 :]).all()
        assert not (tables[0][N:][:3] == tables[1][N : N + extra][:3]).any()


def test_the_tokens_are_special_and_a_text_cannot_forge_them():
    tokenizer = model().tokenizer
    assert [tokenizer.id_to_token(N + i) for i in range(3)] == list(DELIMITERS.values())
    assert tokenizer.encode("a<extract>") == ids("a<extract>") and tokenizer.encode("a<extract>", True) == [*ids("a"), EXTRACT]
    assert tokenizer.decode([START, *ids("a cat"), EXTRACT], skip_special=True) == "a cat"
    assert tokenizer.named_id("cls_token") == EXTRACT and has_delimiters(tokenizer) and not has_delimiters(TEXT)
    assert tokenizer.eos_id == TEXT.eos_id


# --------------------------------------------------------------------------------------------------------------- training


def formats(made, task):
    if task == "multiple_choice":
        rows = [["cat dog bird", "bank stock market"][:: 1 if n % 2 else -1] for n in range(10)]
        return multiple_choice(made, TEXTS, rows, [row.index("cat dog bird" if k == "animal" else "bank stock market")
                                                   for row, k in zip(rows, KINDS)], questions=["which"] * 10)  # fmt: skip
    return classification(made, TEXTS, KINDS, pairs=TEXTS[2:] + TEXTS[:2], both_orders=True)


@pytest.mark.parametrize("task", ["sequence_classification", "multiple_choice"])
@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_fine_tuning_and_its_folder(task, auxiliary, tmp_path):
    made = model(task, initializer_range=0.2)
    samples = formats(made, task)
    before, rows = outputs_and_loss(made, samples)[1], made.params["body"]["tokens"].copy()
    settings = TuningSettings(epochs=15, batch_size=4, learning_rate=1e-2, auxiliary=auxiliary, metric="loss", workers=2)
    result = finetune(made, samples, samples, settings, out=tmp_path, progress=False)
    assert result.scores["loss"] < before / 2
    again = tinyplm.load(tmp_path / "best")
    assert again.task == task and has_delimiters(again.tokenizer) and with_delimiters(again) is again
    found = formats(again, task)
    assert sequences(found) == sequences(samples)
    assert relative_error(predict(again, found)["logits"], predict(made, samples)["logits"]) == 0
    assert json.loads((tmp_path / "best/tuning.json").read_text())["settings"]["auxiliary"] == auxiliary
    moved = (made.params["body"]["tokens"] != rows).any(axis=1)
    assert moved[[START, BETWEEN, EXTRACT]].all()
    few = dataclasses.replace(settings, epochs=2)
    one, other = (model(task, initializer_range=0.2) for _ in range(2))
    history = finetune(one, samples, samples, few, out=tmp_path / "again", progress=False).history
    assert finetune(other, samples, samples, few, progress=False).history == history
    assert relative_error(one.params, other.params) == 0


@pytest.mark.parametrize("task", ["sequence_classification", "multiple_choice"])
def test_every_device_computes_the_same(device, task):
    def run(name):
        made = with_delimiters(plain(task, initializer_range=0.2).astype("float64").to(name), key=3)
        samples = formats(made, task)
        settings = TuningSettings(epochs=1, batch_size=5, learning_rate=1e-2, auxiliary=0.5)
        return finetune(made, samples, samples, settings, progress=False)

    assert run(device).scores["loss"] == pytest.approx(run("cpu").scores["loss"], rel=MODEL)


def test_the_order_of_a_pair_makes_no_difference_with_both_orders():
    made = model(initializer_range=0.2).astype("float64")
    one, other = (classification(made, a, pairs=b, both_orders=True) for a, b in ((TEXTS, TEXTS[::-1]), (TEXTS[::-1], TEXTS)))
    assert relative_error(predict(made, one)["logits"], predict(made, other)["logits"]) < MODEL
    numbers = model(names=("x",))
    samples = classification(numbers, TEXTS, [0.5] * 10, pairs=TEXTS, both_orders=True)
    assert samples.batch([1, 4])[1]["logits"].shape == (2, 1) and type(samples).__name__ == "Numbers"


# ---------------------------------------------------------------------------------------------------------------- errors


CHOOSING, model_of_texts = model("multiple_choice"), model()


def with_token(content, **flags):
    made = plain(extra=1)
    made.tokenizer = Tokenizer(**TEXT.parts | {"added_tokens": [*TEXT.added_tokens, AddedToken(content, N, **flags)]})
    return made


ERRORS = [
    (lambda: classification(plain(), ["a"], pairs=["b"]), "delimiters, see with_delimiters, got one that adds 0 to a text and 0"),
    (lambda: multiple_choice(plain("multiple_choice"), ["a"], [["b", "c"]]), "such as delimiters, see with_delimiters, got one"),
    (lambda: multiple_choice(CHOOSING, ["a"], [["b"]]), "choices: expected two or more for each of 1 texts, as many for all"),
    (lambda: multiple_choice(CHOOSING, ["a"] * 2, [["b", "c"], ["b"]]), "choices: expected two or more for each of 2 texts, as"),
    (lambda: multiple_choice(CHOOSING, ["a"], [["b", "c"]], [2]), "text 0: expected a label from 0 to 1, got 2"),
    (lambda: multiple_choice(CHOOSING, ["a", "b"], [["b", "c"], ["d", ""]]), "text 1: expected texts with at least 1 token, got"),
    (lambda: multiple_choice(CHOOSING, ["a"], [["b", "c"]], questions=[]), "questions: expected one or more strings, got"),
    (lambda: multiple_choice(CHOOSING, ["a"], [["b", "c"]], questions=["x y"], max_length=5),
     "question 0: expected at most 0 tokens, at a length of 5, got "),
    (lambda: classification(model(), ["a", ""]), "text 1: expected texts with at least 1 token, got one without, at a length of"),
    (lambda: classification(model(), ["a"], pairs=["b"], max_length=4), "text 0: expected texts with at least 1 token, got one"),
    (lambda: classification(model(), ["a"], max_length=1), "max_length: expected room for 2 special tokens, got 1"),
    (lambda: classification(model(), ["a"], [2]), "text 0: expected a label from 0 to 1, got 2"),
    (lambda: classification(model(), ["a"], both_orders=True), "both_orders: expected False without pairs, or for an"),
    (lambda: classification(encoder(), ["a"], pairs=["b"], both_orders=True), "both_orders: expected False without pairs"),
    (lambda: with_delimiters(encoder()), "model: expected a decoder with task sequence_classification or multiple_choice, got"),
    (lambda: with_delimiters(tinyplm.load), "model: expected a model, as tinyplm.load or tinyplm.create gives it, got"),
    (lambda: with_delimiters(with_token("<start>")), "tokenizer: expected one without <start>, <delimiter>, <extract>, got"),
    (lambda: with_delimiters(plain(extra=-1)), f"tokenizer: expected at most {N - 1} tokens, as the model has, got {N}"),
    (lambda: with_delimiters(plain(), key=-1), "key: expected "),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:40] for _, message in ERRORS])
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)
