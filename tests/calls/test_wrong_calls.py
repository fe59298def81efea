"""User-facing calls with each argument in turn of the wrong kind: they work, or one clear line says what was expected.

The tool is support/wrong_calls.py.  This file covers models, generation, sampling, sentence encoders, and saving and loading.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyplm
from tests.support import encoder_families, families, seq2seq_families
from tests.support.small_models import IDS, MASK, MODELS, each_model, inputs_of
from tests.support.wrong_calls import complaint, junk, wrong_argument, wrong_calls, wrong_values
from tests.test_sentence_encoder import encoder as sentence_encoder
from tinyplm import backend, random
from tinyplm.generation import DraftStatistics, Memory, beam_search, expected_tokens, fill, generate, sampling, stream
from tinyplm.generation.text import TextStream
from tinyplm.objectives import BlankTokens
from tinyplm.sentence_encoder import SentenceEncoder, cosine_similarity, nearest

STACK = {"checkpointing": 0, "frozen": 0, "once": False, "on_gradient": None}
# Words that a message may use instead of the argument's name.
ALIASES = {
    "input_ids": ["inputs_embeds", "_mask", "_ids", "targets"], "target_mapping": ["targets"],
    "inputs_embeds": ["input_ids"], "auxiliary": ["targets"], "logits": ["texts", "tokens"], "prompts": ["memory"],
    "memory": ["cache"], "targets": ["target"], "stop_strings": ["tokenizer"], "on_gradient": ["once"],
    "labels": ["classifier.weight", "decoder_attention_mask", "decoder_input_ids"], "encoder_hidden": ["attention_mask"],
    "decoder_input_ids": ["decoder_attention_mask"], "decoder_inputs_embeds": ["decoder_input_ids"],
    "beams": ["groups"], "probabilities": ["u: expected"], "tokenizer": ["tokenizer"],
    "tokens": ["sentinels"],
}  # fmt: skip


def no_complaints(function, right, **options):
    assert complaint(lambda: function(**right)) is None  # the valid call works
    found = wrong_calls(function, right, aliases=ALIASES, **options)
    none([problem for problem in found if not problem.startswith("on_gradient = class")])  # a class is callable: its own error


def none(complaints):
    assert not complaints, "\n".join(complaints)


def finished(function):
    """The call, then its backward with ones."""

    def call(**arguments):
        outputs, backward = function(**arguments)
        if backward is not None:
            backward({name: np.ones_like(a) for name, a in outputs.items()} if isinstance(outputs, dict) else 1.0)

    return call


@each_model
def test_a_call(name):
    model, inputs = MODELS[name][0], inputs_of(name)
    no_complaints(finished(model), {**inputs, "grad": True, "key": 3, **STACK})
    no_complaints(model.inputs, inputs)
    embeds = {**inputs, "input_ids": None, "inputs_embeds": np.zeros((2, 3, model.params["body"]["tokens"].shape[1]))}
    no_complaints(finished(model), embeds, only=["inputs_embeds"])


@each_model
def test_a_loss(name):
    model, _, targets = MODELS[name]
    total = {output: 6 for output in targets}
    right = {"targets": targets, "total": total, "smoothing": 0.0, "grad": True, "key": 3, **inputs_of(name), **STACK}
    if targets["logits" if "logits" in targets else "start_logits"].dtype == float:
        del right["smoothing"]
    if name in families.FAMILIES or name in seq2seq_families.FAMILIES:
        right |= {"weights": np.ones((2, 3)), "chunk": 4}
    if name == "score":
        right |= {"auxiliary": 0.0}
    no_complaints(finished(model.loss), right)
    for output in targets:
        call = finished(lambda value, output=output: model.loss(**{**right, "targets": {**targets, output: value}}))
        none(wrong_argument(lambda value, call=call: call(value=value), "target"))
        totals = finished(lambda value, output=output: model.loss(**{**right, "total": {**total, output: value}}))
        none(wrong_argument(lambda value, call=totals: call(value=value), "total"))


@each_model
def test_a_backward(name):
    model, _, targets = MODELS[name]
    outputs, backward = model(**inputs_of(name))
    for output in outputs:
        none(wrong_argument(lambda d, output=output: backward({output: d}), f"backward: {output}"))
    none(wrong_argument(backward, "backward"))
    none(wrong_argument(model.loss(targets=targets, **inputs_of(name))[1], "backward"))


@pytest.mark.parametrize("name", families.KINDS)
def test_token_outputs_and_caches(name):
    model = MODELS[name][0]
    prefix = {"prefix_lengths": [1, 2]} if name not in ("mistral", "gemma2", "gemma3_text") else {}
    right = {
        **inputs_of(name),
        **prefix,
        "targets": IDS,
        "temperature": 1.0,
        "chunk": 5,
        "entropy": True,
        "grad": True,
        "key": 1,
        **STACK,
    }
    no_complaints(finished(model.token_outputs), right)
    _, backward = model.token_outputs(IDS, targets=IDS, entropy=True)
    for output in ("log_probs", "entropy", "hidden"):
        none(wrong_argument(lambda d, output=output: backward({output: d}), f"backward: {output}"))
    none(wrong_argument(backward, "backward"))
    no_complaints(model.empty_cache, {"batch": 2, "capacity": 4})
    none(wrong_argument(lambda cache: model(IDS, cache=cache), "cache"))
    none(wrong_argument(lambda cache: model.inputs(IDS, cache=cache), "cache"))
    cache = model(IDS, cache=model.empty_cache(2))[0]["cache"]
    none(wrong_argument(cache.take, "cache: rows"))
    none(wrong_argument(cache.cut, "cache: length"))
    for words, reorder in (
        ("rows", lambda c, rows: c.reordered(rows)),
        ("shared", lambda c, shared: c.reordered([0, 0], shared)),
    ):
        none(wrong_argument(lambda value, reorder=reorder: reorder(cache.take(np.arange(2)), value), f"cache: {words}"))
    none(wrong_argument(cache.grown, "cache: capacity"))


@pytest.mark.parametrize("name", ["t5", "mbart"])
def test_the_decoders_side_of_a_call_and_decoding(name):
    model = seq2seq_families.tiny(name)
    right = {"input_ids": IDS, "attention_mask": MASK, "decoder_attention_mask": MASK}
    no_complaints(finished(model), {**right, "labels": IDS}, only=["labels"])
    embeds = np.zeros((2, 3, model.width))
    no_complaints(finished(model), {**right, "decoder_inputs_embeds": embeds}, only=["decoder_inputs_embeds"])
    none(wrong_argument(lambda targets: model.loss(**right, targets=targets), "targets"))
    none(wrong_argument(lambda ids: model.loss(**right, targets={"logits": ids}), "targets: ", "labels: ", "decoder_"))
    no_complaints(model.encode, {"input_ids": IDS, "attention_mask": MASK})
    no_complaints(model.encode, {"inputs_embeds": embeds}, only=["inputs_embeds"])
    E = model.encode(IDS, attention_mask=MASK)
    no_complaints(model.source_cache, {"encoder_hidden": E, "capacity": 4, "attention_mask": MASK, "samples": 2})
    cache = model.source_cache(E, capacity=8)
    none(wrong_argument(lambda ids: model.decode(ids, cache=cache.take(np.arange(2))), "decoder_input_ids"))
    none(wrong_argument(lambda cache: model.decode([[1], [2]], cache=cache), "cache"))
    none(wrong_argument(cache.take, "cache: rows"))


def test_models_elsewhere_and_in_other_dtypes():
    model = MODELS["gpt2"][0]
    none(wrong_argument(model.astype, "dtype"))
    none(wrong_argument(model.to, "device"))
    none(wrong_argument(random.key, "seed"))
    none(wrong_argument(random.generator, "key"))
    none(wrong_argument(backend.device, "device"))
    for value in ("int32", "x", "bfloat16", np.int64, float):
        if value is not float:
            with pytest.raises(ValueError, match="^dtype: expected one of float32, float64, float16, got "):
                model.astype(value)
    for value in ("moon", "GPU", ""):
        with pytest.raises(ValueError, match="^device: expected one of cpu, "):
            model.to(value)


# ------------------------------------------------------------------------------------------------- generation


GENERATION = {"max_new_tokens": 2, "samples": 2, "seed": 1, "stop_ids": [3], "stop_strings": (), "vocabulary": 9, "cached": True,
              "first_prompt": 0, "temperature": 0.9, "top_k": 4, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1,
              "no_repeat_ngram": 2}  # fmt: skip
DRAFTED = {"draft": MODELS["gpt2"][0], "draft_length": 2, "statistics": DraftStatistics()}


@pytest.mark.parametrize("run", [generate, stream])
def test_generation(run):
    model = MODELS["gpt2"][0]
    no_complaints(run, {"model": model, "prompts": [[1, 2], [3]], **GENERATION, **DRAFTED})
    no_complaints(run, {"model": model, "prompts": [1, 2], "max_new_tokens": 2, "memory": Memory()}, only=["memory", "prompts"])


def test_beam_search():
    shared = {name: GENERATION[name] for name in ("max_new_tokens", "stop_ids", "vocabulary", "cached", "repetition_penalty")}
    right = {"beams": 3, "results": 2, "min_new_tokens": 1, "length_penalty": 0.5, "early_stopping": "never",
             "no_repeat_ngram": 9, "forced_first": 1, "forced_last": 2, "groups": 3, "diversity_penalty": 0.5}  # fmt: skip
    no_complaints(beam_search, {"model": MODELS["gpt2"][0], "prompts": [[1, 2], [3]], **shared, **right})


def test_fill():
    names = ("max_new_tokens", "samples", "seed", "vocabulary", "cached", "temperature", "top_k", "top_p", "min_p")
    shared = {name: GENERATION[name] for name in names}
    tokens = BlankTokens(1, 2, 3, 0)
    right = {"model": MODELS["glm_2021"][0], "prompts": [[4, 1], [1]], "tokens": tokens}
    no_complaints(fill, {**right, **shared})
    no_complaints(fill, {**right, **shared, "model": MODELS["t5"][0], "tokens": [1, 4], "prompts": [[1, 6]]}, only=["tokens"])


def test_sampling():
    generators = [np.random.default_rng(0)]
    logits = np.array([[0.0, 1.0, 2.0]])
    fields = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram")
    no_complaints(sampling.Sampling, {name: GENERATION[name] for name in fields})
    right = {"logits": logits, "texts": [[1, 2]], "generators": generators, "vocabulary": 2}
    for settings_ in (sampling.Sampling(), sampling.Sampling(temperature=0), sampling.Sampling(repetition_penalty=2.0)):
        found = wrong_calls(settings_.choose, right, aliases={"texts": ["seen", "ids"], "logits": ["texts", "generators"]})
        none([problem for problem in found if "FloatingPointError" not in problem])  # NaN: the model's own, and reported as such
    right = {"logits": logits[0], "temperature": 1.0, "top_k": 1, "top_p": 0.5, "min_p": 0.5}
    none([found for found in wrong_calls(sampling.token_distribution, right) if "FloatingPointError" not in found])
    no_complaints(sampling.penalise_repetition, {"logits": logits[0].copy(), "seen": [1], "penalty": 2.0})
    no_complaints(sampling.ban_repeated_ngrams, {"logits": logits[0].copy(), "ids": [1, 2, 1], "n": 2})
    no_complaints(sampling.draw, {"probabilities": np.array([[0.5, 0.5]]), "u": np.array([0.3])})
    no_complaints(sampling.log_probabilities, {"logits": logits, "tokens": np.array([1])})


def test_expected_tokens():
    no_complaints(expected_tokens, {"acceptance_rate": 0.5, "draft_length": 2})


def test_streams_of_text(trained):
    no_complaints(TextStream, {"tokenizer": trained, "stop": ["x"], "after": [1]})


# ------------------------------------------------------------------------------------------------- files


def test_create():
    config = families.FAMILIES["gpt2"].config
    right = {"model_type": "gpt2", "config": config, "task": "causal_lm", "key": 0, "dtype": "float32", "device": "cpu"}
    no_complaints(tinyplm.create, right, only=[name for name in right if name != "config"])
    none(
        wrong_argument(lambda value: tinyplm.create("gpt2", value), "config", skip=["None", "empty dict"])
    )  # 124 million numbers
    for field in ("n_embd", "n_head", "activation_function", "resid_pdrop", "tie_word_embeddings", "eos_token_id", "id2label"):
        none(wrong_argument(lambda value, field=field: tinyplm.create(**right, **{field: value}), field))
    for family, field in (("mistral", "sliding_window"), ("qwen2", "layer_types"), ("qwen2", "use_sliding_window"),
                          ("qwen2", "max_window_layers"), ("qwen2", "rope_parameters"), ("llama", "rope_scaling")):  # fmt: skip
        config = families.FAMILIES[family].config
        none(wrong_argument(lambda value, f=family, c=config, n=field: tinyplm.create(f, c, **{n: value}), field, "rope"))
    none(wrong_argument(lambda value: tinyplm.create("gpt2", {"n_embd": 12, "vocab_size": 5, "bos": value}), "bos"))


def test_load_and_save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some invalid values are valid folder names
    model = tinyplm.create("bert", encoder_families.FAMILIES["bert"].config, task="sequence_classification")
    no_complaints(tinyplm.save, {"model": model, "folder": tmp_path / "a", "dtype": "F32", "max_shard_size": "5GB"})
    right = {"folder": tmp_path / "a", "task": "sequence_classification", "labels": ["a", "b", "c"], "key": 0, "dtype": "float32",
             "device": "cpu"}  # fmt: skip
    no_complaints(tinyplm.load, right)


def test_what_a_model_holds_is_checked_before_it_is_saved(tmp_path, monkeypatch):
    model = tinyplm.create("gpt2", families.FAMILIES["gpt2"].config)

    def save(**attributes):
        tinyplm.save(model._with(**attributes), tmp_path / "never")

    for name in ("params", "generation", "files", "tokenizer"):
        for value in wrong_values().values():
            try:
                save(**{name: value})
            except (ValueError, TypeError):
                assert not (tmp_path / "never").exists()
            else:
                tinyplm.load(tmp_path / "never")
                shutil.rmtree(tmp_path / "never")
    for name in ("../beside", "config.json", "/x", ""):  # `save` writes files of these names
        with pytest.raises(ValueError, match="^save: files: expected bytes of some of tokenizer.json, .* got "):
            save(files={name: b"x"})
    for leaf in (np.zeros((6,), int), np.zeros((5,), np.float32), np.zeros((6,)), np.full((6,), np.nan, np.float32), 5):
        with pytest.raises(ValueError, match=r"^save: params.body.norm.gamma: expected "):
            save(params={"body": {**model.params["body"], "norm": {**model.params["body"]["norm"], "gamma": leaf}}})


# ------------------------------------------------------------------------------------------------- sentences


def test_sentence_encoders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = sentence_encoder()
    right = {"model": made.model, "pooling": "mean", "normalise": True, "max_length": 9, "lowercase": False}
    no_complaints(SentenceEncoder, right)
    right = {"texts": ["the dog"], "batch_size": 2, "workers": 1, "allow_special": False, "progress": None}
    found = wrong_calls(made.encode, right)
    none([problem for problem in found if "progress = " not in problem or "NoneType" in problem])
    no_complaints(made.tokens, {"texts": ["the dog"], "allow_special": False})
    no_complaints(made.inputs, {"texts": ["the dog"], "allow_special": False})
    no_complaints(made, {**made.inputs(["the dog", "a cat"]), "grad": True, "key": 0})
    _, backward = made(**made.inputs(["the dog"]))
    none(wrong_argument(backward, "dembeddings"))
    no_complaints(made.save, {"folder": tmp_path / "a", "dtype": "F32"})
    no_complaints(SentenceEncoder.load, {"folder": tmp_path / "a", "dtype": "float32", "device": "cpu"})
    no_complaints(cosine_similarity, {"a": np.ones((2, 3)), "b": np.ones((4, 3))})
    no_complaints(nearest, {"queries": np.ones((2, 3)), "vectors": np.ones((4, 3)), "k": 2})


# ------------------------------------------------------------------------------------------------- anything


@settings(max_examples=60)
@given(value=junk(), name=st.sampled_from(list(MODELS)), data=st.data())
def test_anything_as_any_input_of_any_model(value, name, data):
    inputs = inputs_of(name)
    argument = data.draw(st.sampled_from([*inputs, "grad", "key", *STACK]))
    call = finished(MODELS[name][0])
    assert complaint(lambda: call(**{**inputs, argument: value}), [argument, *ALIASES.get(argument, [])]) is None


@settings(max_examples=60)
@given(value=junk(), argument=st.sampled_from(["prompts", "stop_ids", "beams", "results", "early_stopping", "forced_first"]))
def test_anything_as_any_argument_of_beam_search(value, argument):
    right = {"prompts": [1, 2], "beams": 3, "max_new_tokens": 2, argument: value}
    assert complaint(lambda: beam_search(MODELS["llama"][0], **right), [argument, *ALIASES.get(argument, [])]) is None


@settings(max_examples=60)
@given(value=junk(), argument=st.sampled_from(["prompts", "stop_ids", "seed", "samples", "top_p", "stop_strings", "vocabulary"]))
def test_anything_as_any_argument_of_generate(value, argument):
    right = {"prompts": [1, 2], **GENERATION, argument: value}
    assert complaint(lambda: generate(MODELS["llama"][0], **right), [argument, *ALIASES.get(argument, [])]) is None
