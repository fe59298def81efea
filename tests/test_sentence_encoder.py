"""Sentence embeddings with a tiny random BERT: texts to vectors, gradients, nearest neighbours, sentence-transformers files."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyplm
from tests.laws import MODEL, difference_rounding
from tests.support.families import tiny as tiny_decoder
from tinyplm.core import flatten, tree_map
from tinyplm.sentence_encoder import SentenceEncoder, cosine_similarity, nearest
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.encoding import Padding, Truncation
from tinyplm.tokenizers.text.postprocessing import TemplateProcessing

TEXTS = ["the dog ran", "", "a dog and a cat and a dog and a cat and a dog and a cat", "cat", "ran ran", "the", "Cat Dog", " "]
CLS, SEP = "[CLS]", "[SEP]"


def tokenizer(template=f"{CLS} $A {SEP}"):
    made = Tokenizer.train(["the dog ran and a cat ran and the cat ate"] * 3, 60, kind="WordPiece", lowercase=False)
    special = {token: made.token_to_id(token) for token in (CLS, SEP)}
    parts = made.parts | {
        "post_processor": TemplateProcessing.of(template, f"{CLS} $A {SEP} $B:1 {SEP}:1", special),
        "truncation": Truncation(4), "padding": Padding({"Fixed": 9}),  # files may have these; here they are ignored
    }  # fmt: skip
    return Tokenizer(**parts)


def encoder(pooling="mean", *, dtype="float64", task="body", template=f"{CLS} $A {SEP}", **options):
    """Every parameter is random, including biases and norms."""
    text_tokenizer = tokenizer(template)
    model = tinyplm.create("bert", task=task, vocab_size=text_tokenizer.vocab_size, hidden_size=8, num_hidden_layers=2,
                           num_attention_heads=2, intermediate_size=12, max_position_embeddings=16, key=1)  # fmt: skip
    rng = np.random.default_rng(0)
    model.params = tree_map(lambda a: (a + rng.normal(0, 0.3, a.shape)).astype(dtype), model.params)
    model.tokenizer = text_tokenizer
    return SentenceEncoder(model, pooling, **options)


def by_hand(made, ids, pooling, normalise=True):
    """One text alone, without padding or the pooling components."""
    outputs, _ = made.model(np.array([ids]), grad=False)
    hidden = outputs["hidden"][0]
    vector = {"mean": hidden.mean(0), "max": hidden.max(0), "cls": hidden[0]}[pooling]
    return vector / math.sqrt(sum(x * x for x in vector)) if normalise else vector


# ------------------------------------------------------------------------------------------------- texts to vectors


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 1), (3, 2), (100, 4)])
def test_batches_padding_and_threads_change_nothing(pooling, batch_size, workers):
    made, done = encoder(pooling), []
    expected = np.stack([by_hand(made, ids, pooling) for ids in made.tokens(TEXTS)])
    vectors = made.encode(TEXTS, batch_size=batch_size, workers=workers, progress=done.append)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=MODEL)
    size = min(batch_size, math.ceil(len(TEXTS) / (2 * workers)))
    assert sum(done) == len(TEXTS) and len(done) == math.ceil(len(TEXTS) / size)


@given(st.lists(st.sampled_from(TEXTS), max_size=9), st.integers(1, 4), st.integers(1, 3))
def test_the_order_of_texts_is_kept(texts, batch_size, workers):
    made = encoder("mean", normalise=False)
    one_by_one = {text: by_hand(made, made.tokens([text])[0], "mean", normalise=False) for text in TEXTS}
    vectors = made.encode(texts, batch_size=batch_size, workers=workers)
    expected = np.array([one_by_one[text] for text in texts]).reshape(len(texts), 8)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=MODEL)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_on_each_device(device, pooling):
    made = encoder(pooling)
    expected = made.encode(TEXTS)
    made.model = made.model.to(device)
    vectors = made.encode(TEXTS)
    assert type(vectors) is np.ndarray
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=MODEL)


@pytest.mark.parametrize("task", ["masked_lm", "pooled", "sequence_classification"])
def test_the_head_of_another_task_plays_no_part(task):
    one, other = encoder(task=task), encoder()
    other.model.params = {"body": one.model.params["body"], "head": {}}
    np.testing.assert_array_equal(one.encode(TEXTS), other.encode(TEXTS))


@pytest.mark.parametrize(("dtype", "expected"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_the_dtype_is_the_models_but_at_least_float32(dtype, expected):
    made = encoder(dtype=dtype)
    for texts in ([], TEXTS):
        vectors = made.encode(texts)
        assert vectors.dtype == expected and vectors.shape == (len(texts), 8)


def test_long_texts_are_cut_and_special_tokens_stay():
    made = encoder(max_length=5)
    full = encoder().tokens(TEXTS)
    assert max(map(len, full)) > 5
    for ids, whole in zip(made.tokens(TEXTS), full):
        assert ids == (whole if len(whole) <= 5 else [*whole[:4], whole[-1]])
    assert encoder().max_length == 16  # the model's number of positions


def test_white_space_and_case():
    assert encoder(lowercase=True).tokens(["  Cat Dog\n"]) == encoder().tokens(["cat dog"]) != encoder().tokens(["Cat Dog"])


def test_a_tokenizer_that_adds_nothing_and_sees_white_space():
    made = encoder()
    made.model.tokenizer = Tokenizer.train(["a dog"], 260, [])
    made.model.params["body"]["tokens"] = np.random.default_rng(0).normal(size=(260, 8))
    made.model.config = dataclasses.replace(made.model.config, vocab_size=260)
    plain = SentenceEncoder(made.model)
    assert plain.tokens([" \n dog\t", "dog"]) == [made.model.tokenizer.encode("dog")] * 2
    vectors = plain.encode(["", "dog"])
    assert vectors[1].any() and not vectors[0].any() and not plain.encode([""]).any()


def test_special_tokens_in_a_text_are_text_unless_they_are_wanted():
    made = encoder()
    sep = made.model.tokenizer.token_to_id(SEP)
    assert made.tokens([f"cat {SEP}"])[0].count(sep) == 1
    assert made.tokens([f"cat {SEP}"], allow_special=True)[0].count(sep) == 2


def test_token_types_are_those_of_the_template():
    """XLNet's template has the class token at the end, in its own segment; padding gets 0."""
    inputs = encoder(template=f"$A {SEP} {CLS}:1").inputs(["the dog", "cat"])
    vocab = tokenizer().vocab
    assert inputs["input_ids"][0, -2:].tolist() == [vocab[SEP], vocab[CLS]]
    n = inputs["attention_mask"].sum(1)
    assert n[0] == inputs["input_ids"].shape[1] > n[1]
    for row, types in enumerate(inputs["token_type_ids"]):
        assert types.tolist() == [0] * (n[row] - 1) + [1] + [0] * (n[0] - n[row])
    assert (inputs["input_ids"][1, n[1] :] == vocab["[PAD]"]).all()


# ------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_gradient_of_all_parameters(pooling, normalise):
    made = encoder(pooling, normalise=normalise, task="pooled")
    rng = np.random.default_rng(1)
    inputs = made.inputs(TEXTS[:4])
    y, backward = made(**inputs)
    np.testing.assert_allclose(y, made.encode(TEXTS[:4]), rtol=0, atol=MODEL)
    dy = rng.normal(size=y.shape)
    params, gradient = made.model.params, backward(dy)
    assert {path: g.shape for path, g in flatten(gradient).items()} == {path: p.shape for path, p in flatten(params).items()}
    assert not np.any(gradient["head"]["pooler"]["W"])  # not used
    direction = tree_map(lambda a: rng.normal(size=a.shape), params)
    h, values = 1e-5, []
    for sign in (1, -1):
        made.model.params = tree_map(lambda p, d, sign=sign: p + sign * h * d, params, direction)
        values.append((made(**inputs, grad=False)[0] * dy).sum())
    terms = [(g * d).ravel() for g, d in zip(flatten(gradient).values(), flatten(direction).values())]
    error = abs((values[0] - values[1]) / (2 * h) - sum(t.sum() for t in terms))
    assert error < 1e-7 * sum(np.abs(t).sum() for t in terms) + difference_rounding(y * dy)


def test_dropout_needs_a_key():
    made = encoder()
    inputs = made.inputs(TEXTS)
    plain, one, again, other = (made(**inputs, key=key)[0] for key in (None, 1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, plain) and not np.allclose(one, other)
    assert made(**inputs, grad=False)[1] is None


# ------------------------------------------------------------------------------------------------- the nearest


def test_nearest_by_hand():
    rng = np.random.default_rng(0)
    queries, vectors = rng.normal(size=(300, 5)), rng.normal(size=(40, 5))
    places, scores = nearest(queries, vectors, k=6)
    for n, query in enumerate(queries):
        cosines = [sum(query * v) / math.sqrt(sum(query**2) * sum(v**2)) for v in vectors]
        expected = sorted(range(40), key=lambda i: -cosines[i])[:6]
        assert places[n].tolist() == expected
        np.testing.assert_allclose(scores[n], [cosines[i] for i in expected], rtol=0, atol=MODEL)
    same = np.eye(3)[[1, 0, 2, 0, 1]] * np.arange(1, 6)[:, None]  # exactly equal cosines: the first index comes first
    assert nearest(np.eye(3), same, k=3)[0].tolist() == [[1, 3, 0], [0, 4, 1], [2, 0, 1]]


def test_nearest_of_few_and_of_none():
    vectors = np.eye(3)
    places, scores = nearest(np.ones((2, 3)), vectors, k=10)
    assert places.shape == scores.shape == (2, 3)
    places, scores = nearest(np.ones((0, 3)), vectors, k=2)
    assert places.shape == scores.shape == (0, 2)
    np.testing.assert_array_equal(cosine_similarity(np.zeros((1, 3)), vectors), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="k: expected an integer >= 1, got 0"):
        nearest(vectors, vectors, k=0)
    with pytest.raises(ValueError, match=r"cosine_similarity: b: expected .*, got float64 array of shape \(3,\)"):
        cosine_similarity(vectors, vectors[0])


# ------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("pooling", "normalise", "task"), [("mean", True, "body"), ("cls", False, "pooled"), ("max", True, "masked_lm")]
)
def test_saved_and_loaded(tmp_path, pooling, normalise, task):
    made = encoder(pooling, normalise=normalise, task=task, max_length=7, lowercase=True)
    made.save(tmp_path)
    again = SentenceEncoder.load(tmp_path)
    assert (again.pooling, again.normalise, again.max_length, again.lowercase, again.model.task) == (
        pooling, normalise, 7, True, task)  # fmt: skip
    np.testing.assert_array_equal(again.encode(TEXTS), made.encode(TEXTS))
    before, after = flatten(made.model.params), flatten(again.model.params)
    assert before.keys() == after.keys() and all(np.array_equal(a, after[path]) for path, a in before.items())
    types = [module["type"].rpartition(".")[2] for module in json.loads((tmp_path / "modules.json").read_text())]
    assert types == ["Transformer", "Pooling", "Normalize"][: 2 + normalise]


def test_the_layout_of_version_5(tmp_path):
    """Longer module names, pooling_mode, the limit in tokenizer_config.json, and the model output to use."""
    made = encoder("max")
    made.save(tmp_path)
    change(tmp_path, "modules.json", lambda modules: [
        m | {"type": f"sentence_transformers.base.modules.{m['type'].rpartition('.')[2].lower()}.{m['type'].rpartition('.')[2]}"}
        for m in modules])  # fmt: skip
    change(tmp_path, "1_Pooling/config.json",
           lambda _: {"embedding_dimension": 8, "pooling_mode": "max", "include_prompt": True})  # fmt: skip
    text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    change(tmp_path, "sentence_bert_config.json", lambda _: {
        "transformer_task": "feature-extraction", "modality_config": text, "module_output_name": "token_embeddings",
        "processing_kwargs": {}, "unpad_inputs": False})  # fmt: skip
    change(tmp_path, "tokenizer_config.json", lambda settings: settings | {"model_max_length": 9})
    again = SentenceEncoder.load(tmp_path)
    assert again.pooling == "max" and again.max_length == 9
    np.testing.assert_array_equal(again.encode(TEXTS), SentenceEncoder(made.model, "max", max_length=9).encode(TEXTS))


def test_a_transformer_in_a_folder_of_its_own(tmp_path):
    made = encoder(max_length=6)
    made.save(tmp_path)
    inner = tmp_path / "0_Transformer"
    inner.mkdir()
    for file in tmp_path.glob("*.*"):
        if file.name != "modules.json":
            file.rename(inner / file.name)
    (inner / "sentence_bert_config.json").rename(inner / "sentence_distilbert_config.json")  # its name in older versions
    change(tmp_path, "modules.json", lambda modules: [modules[0] | {"path": "0_Transformer"}, *modules[1:]])
    np.testing.assert_array_equal(SentenceEncoder.load(tmp_path).encode(TEXTS), made.encode(TEXTS))


def change(folder, name, f):
    path = folder / name
    path.write_text(json.dumps(f(json.loads(path.read_text()) if path.exists() else {})))


def flags(**settings):
    return lambda old: old | {"pooling_mode_mean_tokens": False} | settings


@pytest.mark.parametrize(
    ("name", "f", "message"),
    [
        ("modules.json", lambda m: [*m, {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}],
         "expected modules Transformer, Pooling and .* Normalize, got Transformer, Pooling, Normalize, Dense"),
        ("modules.json", lambda m: [m[0] | {"type": "my.Transformer"}, *m[1:]], "got my.Transformer, Pooling"),
        ("modules.json", lambda m: {}, "expected a list of objects with type and path"),
        ("1_Pooling/config.json", flags(pooling_mode_mean_sqrt_len_tokens=True),
         "pooling: expected one of .*, got mean_sqrt_len_tokens"),
        ("1_Pooling/config.json", flags(pooling_mode_lasttoken=True), "pooling: expected one of .*, got lasttoken"),
        ("1_Pooling/config.json", lambda c: c | {"pooling_mode_cls_token": True},
         "pooling: expected one of .*, got cls and mean"),
        ("1_Pooling/config.json", lambda c: {"pooling_mode": "median"}, "pooling: expected one of .*, got median"),
        ("1_Pooling/config.json", lambda c: c | {"include_prompt": False}, "include_prompt: expected True, got False"),
        ("1_Pooling/config.json", lambda c: [c], "expected an object"),
        ("sentence_bert_config.json", lambda c: c | {"transformer_task": "fill-mask"},
         "transformer_task: expected .*, got 'fill-mask'"),
        ("sentence_bert_config.json", lambda c: c | {"model_args": {"a": 1}}, "model_args: expected no value, got {'a': 1}"),
        ("sentence_bert_config.json", lambda c: c | {"modality_config": {"text": {"method": "x"}}},
         "modality_config.text: expected .*, got "),
        ("sentence_bert_config.json", lambda c: c | {"max_seq_length": 1}, "max_length: expected an integer from 3 .* to 16"),
        ("tokenizer_config.json", lambda c: c | {"truncation_side": "left"}, "truncation_side: expected 'right', got 'left'"),
        ("config_sentence_transformers.json", lambda c: {"default_prompt_name": "query"},
         "prompt_name: expected no value, got 'query'"),
        ("config_sentence_transformers.json", lambda c: {"model_type": "SparseEncoder"},
         "model_type: expected .*, got 'SparseEncoder'"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(tmp_path, name, f, message):
    encoder().save(tmp_path)
    SentenceEncoder.load(tmp_path)
    change(tmp_path, name, f)
    with pytest.raises(ValueError, match=message):
        SentenceEncoder.load(tmp_path)


def test_a_limit_beyond_the_positions_is_that_of_the_positions(tmp_path):
    encoder().save(tmp_path)
    change(tmp_path, "sentence_bert_config.json", lambda c: c | {"max_seq_length": 512})
    assert SentenceEncoder.load(tmp_path).max_length == 16


def test_notes_are_written_back_as_they_were(tmp_path):
    encoder().save(tmp_path / "first")
    notes = tmp_path / "first" / "config_sentence_transformers.json"
    notes.write_text('{"prompts": {"query": "q: "},  "default_prompt_name": null}')
    SentenceEncoder.load(notes.parent).save(tmp_path / "second")
    assert (tmp_path / "second" / notes.name).read_bytes() == notes.read_bytes()


def test_what_is_given_wrongly(tmp_path):
    made = encoder()
    with pytest.raises(TypeError, match="model: expected an encoder, got <gpt2 model"):
        SentenceEncoder(tiny_decoder("gpt2"))
    with pytest.raises(ValueError, match="pooling: expected one of .*, got 'sum'"):
        SentenceEncoder(made.model, "sum")
    for length in (2, 17, 4.0, True):
        with pytest.raises(ValueError, match=f"max_length: expected an integer from 3 .* got {length}"):
            SentenceEncoder(made.model, max_length=length)
    for call in (made.encode, made.tokens):
        with pytest.raises(TypeError, match="texts: expected a list of strings, got a single one"):
            call("the dog")
        with pytest.raises(TypeError, match="texts: number 1: expected a string, got b'cat'"):
            call(["the dog", b"cat"])
    for name in ("batch_size", "workers"):
        with pytest.raises(ValueError, match=f"{name}: expected an integer from 1 to 2147483647, got 0"):
            made.encode(TEXTS, **{name: 0})
    with pytest.raises(ValueError, match=r"modules.json: .*no such file; .*SentenceEncoder\(tinyplm.load"):
        SentenceEncoder.load(tmp_path)
    made.model.tokenizer = None
    with pytest.raises(ValueError, match="tokenizer: expected a model with one"):
        SentenceEncoder(made.model)
