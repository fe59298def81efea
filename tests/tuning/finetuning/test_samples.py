"""Labelled texts, tagged words and answers as samples, and the predictions and scores of model outputs on them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.evaluation.metrics import best_span as reference_best_span
from tests.support.tuning import KINDS, TEXTS, model, tokenizer
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.encoding import Encoding, Padding
from tinyplm.tuning.finetuning.answers import answering, best_span, token_span
from tinyplm.tuning.finetuning.choices import multiple_choice
from tinyplm.tuning.finetuning.classes import Classes, LabelSets, Numbers, classification
from tinyplm.tuning.finetuning.samples import evaluation_batches, label_names, training_batches
from tinyplm.tuning.finetuning.tags import first_tokens, tagging

BYTES = Tokenizer.train(TEXTS * 2, 300)  # tokens begin with the space before a word


def byte_level(task, names=("O", "B-x", "I-x"), **changes):
    """A model with a RoBERTa-style byte-level BPE tokenizer."""
    from tinyplm.tokenizers.text.added_tokens import AddedToken
    from tinyplm.tokenizers.text.postprocessing import RobertaProcessing

    size = BYTES.vocab_size
    added = [AddedToken(token, size + i) for i, token in enumerate(("<s>", "</s>", "<pad>"))]
    made = model(task, names, **changes, vocab_size=size + 3)
    parts = BYTES.parts | {"named": {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}}
    parts["added_tokens"] = [*BYTES.added_tokens, *added]
    parts["post_processor"] = RobertaProcessing(("</s>", size + 1), ("<s>", size), trim_offsets=False, add_prefix_space=False)
    made.tokenizer = Tokenizer(**parts)
    return made


# ---------------------------------------------------------------------------------------------------------- classification


def test_texts_become_batches_with_their_labels():
    m = model()
    samples = classification(m, TEXTS, KINDS)
    assert isinstance(samples, Classes) and samples.targets["logits"] == [0, 1] * 5 and samples.cut == 0
    assert classification(m, TEXTS, [np.int64(1)] * 10).targets["logits"] == [1] * 10
    inputs, targets = samples.batch([3, 0])
    assert inputs.keys() == {"input_ids", "attention_mask", "token_type_ids"} and targets["logits"].tolist() == [1, 0]
    expected = [tokenizer().encode(TEXTS[n], add_special_tokens=True) for n in (3, 0)]
    assert inputs["input_ids"].shape == (2, max(map(len, expected)))
    for row, mask, ids in zip(inputs["input_ids"], inputs["attention_mask"], expected):
        assert row[mask == 1].tolist() == ids and not row[mask == 0].any() and mask.tolist() == sorted(mask, reverse=True)


def test_pairs_have_token_types_and_long_texts_are_cut():
    m = model()
    samples = classification(m, TEXTS, KINDS, pairs=TEXTS[::-1], max_length=10)
    assert samples.cut > 0 and samples.lengths.max() == 10
    ids = [tokenizer().token_to_id(token) for token in ("[CLS]", "[SEP]")]
    for row, types, mask in zip(*(samples.batch(range(10))[0][n] for n in ("input_ids", "token_type_ids", "attention_mask"))):
        first_end = row.tolist().index(ids[1])
        assert row[0] == ids[0] and row[mask == 1][-1] == ids[1]
        assert types[: first_end + 1].tolist() == [0] * (first_end + 1) and types[first_end + 1 : mask.sum()].all()
    assert classification(m, TEXTS, KINDS, max_length=32).cut == 0


def test_padding_on_the_left_where_the_tokenizer_says_so():
    m = model()
    m.tokenizer = Tokenizer(**tokenizer().parts | {"padding": Padding(strategy={"Fixed": 30}, direction="Left", pad_type_id=1)})
    inputs, _ = classification(m, TEXTS, KINDS).batch(range(10))
    assert inputs["input_ids"].shape[1] < 30, "only as long as the longest"
    assert all(mask.tolist() == sorted(mask) for mask in inputs["attention_mask"])
    assert inputs["token_type_ids"][inputs["attention_mask"] == 0].all()


def test_several_labels_and_numbers():
    m = model(names=("a", "b", "c"), problem_type="multi_label_classification")
    samples = classification(m, TEXTS[:3], [["c", "a"], [], [1]])
    assert isinstance(samples, LabelSets) and samples.batch([0, 1, 2])[1]["logits"].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    outputs = {"logits": np.array([[1.0, -1, 2], [-1, -1, -1], [-1, -1, 3]])}
    assert samples.predictions(outputs).tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert samples.score(outputs) == {"micro f1": pytest.approx(2 * 2 / 6), "macro f1": pytest.approx((1 + 0 + 2 / 3) / 3),
                                      "accuracy": pytest.approx(2 / 3)}  # fmt: skip
    assert isinstance(classification(model(names=list("abc")), TEXTS[:1], [["a"]]), LabelSets)  # as transformers infers
    samples = classification(model(names=["score"]), TEXTS[:3], [0.5, 2, np.float32(1)])
    assert isinstance(samples, Numbers)
    targets = samples.batch([0, 1, 2])[1]["logits"]
    assert targets.tolist() == [[0.5], [2.0], [1.0]] and targets.dtype.kind == "f"
    assert samples.score({"logits": np.array([[1.0], [3.0], [1.5]])})["spearman"] == pytest.approx(1)
    for made in (samples, classification(m, TEXTS[:1], [[0]]), classification(model(), TEXTS[:2], [0, 1])):
        scores = made.score({"logits": np.array([[1.0] * len(label_names(m.config))] * len(made))})
        assert tuple(scores) == made.measures


def test_choices_stand_beside_one_another():
    samples = multiple_choice(
        model("multiple_choice"), TEXTS[:3], [["a dog", "sat"], ["the", "a"], ["bank", "mat"]], [0, 1, np.int64(1)]
    )
    inputs, targets = samples.batch([2, 0])
    assert len(samples) == 3 and targets["logits"].tolist() == [1, 0]
    for row, n in enumerate((2, 0)):
        for c in range(2):
            ids = inputs["input_ids"][row, c][inputs["attention_mask"][row, c] == 1].tolist()
            expected = tokenizer().encoding(TEXTS[n], [["a dog", "sat"], ["the", "a"], ["bank", "mat"]][n][c]).ids
            assert ids == expected and len(ids) <= samples.lengths[n] <= inputs["input_ids"].shape[2]
    assert samples.lengths.tolist() == [max(len(e) for e in samples.encodings[2 * n : 2 * n + 2]) for n in range(3)]
    assert samples.score({"logits": np.array([[2.0, 1], [0, 1], [1, 0]])}) == {"accuracy": pytest.approx(2 / 3)}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(1, 7), st.integers(1, 4), st.integers(0, 9))
def test_an_epoch_has_every_sample_once(lengths, size, pool, key):
    lengths = np.array(lengths)
    batches = list(training_batches(lengths, size, key=key, pool=pool))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches) and len(batches) == -(-len(lengths) // size)
    again = list(training_batches(lengths, size, key=key, pool=pool))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again))
    ordered = np.concatenate(list(evaluation_batches(lengths, size)))
    assert sorted(ordered.tolist()) == list(range(len(lengths))) and (np.diff(lengths[ordered]) >= 0).all()


def test_batches_are_of_similar_length_and_in_another_order_each_time():
    lengths = np.random.default_rng(0).integers(1, 100, 640)

    def padded(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum()

    pooled = list(training_batches(lengths, 8, key=1))
    assert padded(pooled) < 1.15 < 1.5 < padded(training_batches(lengths, 8, key=1, pool=1))
    other = list(training_batches(lengths, 8, key=2))
    assert {tuple(batch) for batch in pooled} != {tuple(batch) for batch in other}
    first = np.array([lengths[batch].mean() for batch in pooled[:16]])
    assert np.ptp(first) > 40 and (np.diff(first) < 0).sum() > 3, "short and long batches are mixed"


# ----------------------------------------------------------------------------------------------------------------- tagging


def test_the_first_token_of_a_word_has_its_tag():
    m = model("token_classification", ["O", "B-x", "I-x"])
    words = ["the", "cat's", "marketstock", "ran"]
    samples = tagging(m, [words, ["a", "dog"]], [["O", "B-x", "I-x", 0], ["B-x", "O"]])
    tokens = samples.encodings[0].tokens
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]" and len(tokens) > 8
    places = samples.places[0]
    assert "".join(t.removeprefix("##") for t in tokens[places[2] : places[3]]) == "marketstock"
    assert "".join(t.removeprefix("##") for t in tokens[places[1] : places[2]]).startswith("cat")
    inputs, targets = samples.batch([1, 0])
    assert targets["logits"].shape == inputs["input_ids"].shape
    row = targets["logits"][1]
    assert row[places].tolist() == [0, 1, 2, 0] and (np.delete(row, places) == -100).all()
    outputs = {"logits": [np.eye(3)[np.maximum(t, 0)] for t in samples.targets["logits"]]}
    assert samples.predictions(outputs) == [[0, 1, 2, 0], [1, 0]]
    assert samples.score(outputs) == {"chunk f1": 1, "accuracy": 1}
    outputs["logits"][0] = outputs["logits"][0][:, [0, 2, 1]]  # the chunk is now I-x, B-x: two chunks
    assert samples.score(outputs) == {"chunk f1": pytest.approx(2 / 5), "accuracy": pytest.approx(4 / 6)}


def test_words_that_are_cut_off_or_without_tokens_are_predicted_as_tag_0():
    m = model("token_classification", ["x", "y"])
    samples = tagging(m, [["the", "\u200b\u0007", "a", "old", "on"]], [["y"] * 5], max_length=6)
    assert samples.places == [[1, None, 4, None, None]] and samples.cut == 1 and samples.measures == ("accuracy",)
    outputs = {"logits": [np.array([[0.0, 1.0]] * 6)]}
    assert samples.predictions(outputs) == [[1, 0, 1, 0, 0]] and samples.score(outputs) == {"accuracy": pytest.approx(2 / 5)}


def test_a_token_of_the_space_alone_is_no_words():
    encoding = Encoding.of([1, 2, 3], ["▁", "c", "at"], [(1, 2), (2, 3), (3, 5)], [0, 0, 0])
    assert first_tokens(encoding, ["\u0007", "cat"]) == [None, 1]


@given(st.lists(st.sampled_from(["cat", "the", "marketstock", "é", "xyz.", "a b", "日本"]), min_size=1, max_size=8))
def test_every_word_begins_where_its_text_does(words):
    for make in (model, byte_level):
        m = make("token_classification", max_position_embeddings=200)
        samples = tagging(m, [words])
        encoding, start = samples.encodings[0], 0
        for word, place in zip(words, samples.places[0]):
            lo, hi = encoding.offsets[place]
            assert lo <= start < hi or word == "é" and lo <= start  # a byte of a character has the character's offsets
            assert hi <= start + len(word)
            start += len(word) + 1


# ----------------------------------------------------------------------------------------------------------------- answers

CONTEXT = "the old bird sat on the mat and the dog barked and a cat ran up the hill"


def spans_of(*texts):
    return [(CONTEXT.index(text), CONTEXT.index(text) + len(text)) for text in texts]


@pytest.mark.parametrize("make", [model, byte_level])
@pytest.mark.parametrize("options", [{}, {"max_length": 22, "stride": 8}])
def test_answers_are_found_again_from_their_targets(make, options):
    m = make("question_answering", max_position_embeddings=80)
    texts = ["old bird", "the", "dog barked", "hill", "cat"]
    samples = answering(m, ["a bird"] * 5 + ["a stock"], [CONTEXT] * 6, [*spans_of(*texts), None], **options)
    outputs = {name: [100.0 * (np.arange(len(e)) == t) for e, t in zip(samples.encodings, samples.targets[name])]
               for name in ("start_logits", "end_logits")}  # fmt: skip
    assert samples.lost == 0 and (samples.cut > 0) == bool(options)
    assert samples.predictions(outputs)[:5] == texts
    assert len(samples.predictions(outputs)[5]) > 0
    careful = dataclasses.replace(samples, threshold=0.0)
    if not options:  # the lowest "no answer" score of all windows counts, and every window without the answer says "no answer"
        assert careful.predictions(outputs) == [*texts, ""] and careful.score(outputs) == {"f1": 1, "exact match": 1}
    inputs, targets = samples.batch(range(len(samples)))
    assert inputs["token_type_ids"].shape == inputs["input_ids"].shape
    assert targets["start_logits"].tolist() == samples.targets["start_logits"]


def test_left_padding_moves_the_places():
    m = model("question_answering")
    right = answering(m, ["a bird", "a"], [CONTEXT, "the cat"], [*spans_of("mat"), None])
    m.tokenizer = Tokenizer(**tokenizer().parts | {"padding": Padding(direction="Left")})
    left = answering(m, ["a bird", "a"], [CONTEXT, "the cat"], [*spans_of("mat"), None])
    (a, at), (b, bt) = (samples.batch(range(len(samples))) for samples in (right, left))
    for name in at:
        assert at[name].tolist() != bt[name].tolist()
        for n in range(len(right)):
            assert a["input_ids"][n, at[name][n]] == b["input_ids"][n, bt[name][n]]


def test_an_answer_counts_in_the_windows_that_have_all_of_it():
    m = model("question_answering")
    samples = answering(m, ["a"], [CONTEXT], [spans_of("dog barked", "dog")], max_length=12)
    found = [token_span(encoding, spans_of("dog barked")[0]) for encoding in samples.encodings]
    cls = [s == e == 0 for s, e in zip(samples.targets["start_logits"], samples.targets["end_logits"])]
    assert [span is None for span in found] == cls and samples.answers == [["dog barked", "dog"]]
    lost = answering(m, ["a"], [CONTEXT], [(4, len(CONTEXT))], max_length=12)  # longer than any window
    assert lost.lost == 1 and not any(lost.targets["start_logits"])
    spaced = answering(m, ["a"], [CONTEXT], [(CONTEXT.index(" dog"), CONTEXT.index(" dog") + 5)])  # " dog "
    assert spaced.answers == [["dog"]] and spaced.lost == 0


def test_the_threshold_weighs_no_answer_against_the_best_one():
    samples = answering(model("question_answering"), ["a"], ["the cat sat"], [(4, 7)])
    size = len(samples.encodings[0])
    start, end = np.zeros(size), np.zeros(size)
    start[samples.targets["start_logits"][0]] = end[samples.targets["end_logits"][0]] = 1.0  # 2 in total
    start[0] = end[0] = 1.5  # 3 in total
    outputs = {"start_logits": [start], "end_logits": [end]}
    for threshold, text in ((None, "cat"), (0.9, ""), (1.1, "cat")):
        assert dataclasses.replace(samples, threshold=threshold).predictions(outputs) == [text]
    # across several windows, the lowest "no answer" score and the best span count
    windows = answering(model("question_answering"), ["a"], [CONTEXT], max_length=16, threshold=0.0)
    ends = [np.zeros(len(encoding)) for encoding in windows.encodings]
    for none, found in ((-1.0, True), (3.0, False)):
        starts = [row + 0 for row in ends]
        for n, row in enumerate(starts):
            row[0] = none if n == 1 else 5.0
        first = windows.encodings[1].sequence_ranges[1][0]
        starts[1][first] = 2.0
        (text,) = windows.predictions({"start_logits": starts, "end_logits": ends})
        assert bool(text) == found and (not found or CONTEXT[windows.encodings[1].offsets[first][0] :].startswith(text))


@given(st.lists(st.tuples(st.integers(-20, 3), st.integers(-20, 3)), min_size=1, max_size=12), st.integers(1, 14))
def test_the_best_span_is_its_reference(rows, longest):
    start, end = (np.array(column, float) for column in zip(*rows))
    i, j, score = best_span(start, end, longest)
    assert (i, j) == reference_best_span(start, end, longest) and score == start[i] + end[j]


# ------------------------------------------------------------------------------------------------------------------ errors


def _without(**parts):
    m = model()
    m.tokenizer = Tokenizer(**tokenizer().parts | parts)
    return m


ERRORS = [
    (lambda: classification(model(), TEXTS, KINDS[:-1]), "labels: expected one for each of 10 texts, got 9"),
    (lambda: classification(model(), TEXTS[:1], [2]), "text 0: expected a label from 0 to 1, got 2"),
    (lambda: classification(model(), TEXTS[:2], ["animal", "plant"]), "text 1: expected a label out of animal, "),
    (lambda: classification(model(), TEXTS[:2], [0, True]), "text 1: expected the number or the name of a label, got True"),
    (lambda: classification(model(), [], []), "texts: expected one or more strings"),
    (lambda: classification(model(), ["a", 1], [0, 0]), "expected one or more strings"),
    (lambda: classification(model(), ["a"], [0], pairs=["a", "b"]), "pairs: expected one for each of 1 texts, got 2"),
    (lambda: classification(model(), ["a"], [0], max_length=33), "max_length: expected None or an integer from 1 to 32, got 33"),
    (lambda: classification(model(), ["a"], [0], max_length=0), "integer from 1 to 32, got 0"),
    (lambda: classification(model(), ["a"], [0], max_length=1), "max_length: expected room for 2 special tokens, got 1"),
    (lambda: classification(model("token_classification"), ["a"], [0]), "expected task sequence_classification, got tok"),
    (lambda: classification(model(names=["x"]), ["a"], ["x"]), "text 0: expected a finite number as label, got 'x'"),
    (lambda: classification(model(names=["x"]), ["a"], [np.nan]), "text 0: expected a finite number"),
    (lambda: classification(model(problem_type="regression"), ["a"], [1.0]), "model: expected one label for regression"),
    (lambda: classification(model(problem_type="multi_label_classification"), ["a"], ["animal"]), "expected a list of labels"),
    (lambda: classification(_without(post_processor=None), ["a"], [0]), "adds 0 to a text"),
    (lambda: classification(_without(named={}), ["a"], [0]), "tokenizer: expected a padding token"),
    (lambda: classification(model(type_vocab_size=1), ["a"], [0], pairs=["b"]), "tokenizer: expected token types from 0 to 0"),
    (lambda: classification(model(vocab_size=20), TEXTS, KINDS), "token ids from 0 to 19"),
    (lambda: multiple_choice(model(), ["a"], [["b", "c"]]), "expected task multiple_choice"),
    (lambda: multiple_choice(model("multiple_choice"), ["a", "b"], [["b", "c"], ["b"]]), "got [1, 2] for 2"),
    (lambda: multiple_choice(model("multiple_choice"), ["a"], [["b"]]), "expected two or more for each"),
    (lambda: multiple_choice(model("multiple_choice"), ["a"], [["b", "c"]], [2]), "text 0: expected a label from 0 to 1, got 2"),
    (lambda: multiple_choice(model("multiple_choice"), ["a"], [["b", "c"]], [0, 1]), "one for each of 1 texts, got 2"),
    (lambda: tagging(model(), [["a"]]), "model: expected task token_classification, got sequence_classification"),
    (lambda: tagging(model("token_classification"), [["a", " "]]), "sentence 0: expected words that are not empty"),
    (lambda: tagging(model("token_classification"), [["a"]], [["animal", "money"]]), "expected a tag for each of 1 words"),
    (lambda: tagging(model("token_classification"), [["a"]], [["O"]]), "sentence 0: expected a label out of "),
    (lambda: tagging(model("token_classification"), [["a"]], []), "tags: expected a list for each of 1 sentences, got 0"),
    (lambda: tagging(model("token_classification"), []), "sentences: expected at least 1, got 0"),
    (lambda: answering(model(), ["a"], ["b"]), "question_answering"),
    (lambda: answering(model("question_answering"), ["a"], ["b", "c"]), "each of 1 questions, got 2 contexts"),
    (lambda: answering(model("question_answering"), ["a"], ["cat"], [(1, 4)]), "end <= 3 and text between, got (1, 4)"),
    (lambda: answering(model("question_answering"), ["a"], ["cat"], [(2, 2)]), "expected an answer with 0 <= start < end <= 3"),
    (lambda: answering(model("question_answering"), ["a"], ["a cat"], [(1, 2)]), "and text between, got (1, 2)"),
    (lambda: answering(model("question_answering"), ["a"], ["cat"], [(0, 1)], longest=0), "longest: expected an integer >= 1"),
    (lambda: answering(model("question_answering"), ["the cat sat"], [CONTEXT], max_length=6),
     "question 0: max_length: expected room for a token of the second text (OnlySecond)"),
    (lambda: answering(model("question_answering"), ["a"], [CONTEXT], max_length=12, stride=9),
     "question 0: stride: expected less than the 8 tokens"),
]  # fmt: skip


@pytest.mark.parametrize("call, message", ERRORS)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_single_string_is_no_list():
    for call in (lambda: classification(model(), "abc", [0]), lambda: tagging(model("token_classification"), ["abc"])):
        with pytest.raises(TypeError, match="got (the string |.)'abc'"):
            call()
    with pytest.raises(ValueError, match="tokenizer: expected a model with one"):
        m = model()
        m.tokenizer = None
        classification(m, ["a"], [0])
