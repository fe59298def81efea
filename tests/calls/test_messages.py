"""Invalid calls of models and generation that once passed silently or failed internally: now one line says what to do."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyplm
from tests.support.small_models import IDS, MASK, MODELS, each_model, inputs_of
from tinyplm.generation import Memory, beam_search, generate, stream
from tinyplm.generation.sampling import draw
from tinyplm.layers.cache import Cache
from tinyplm.models.config import labels


def one_token(model, prompts, **options):
    return generate(model, prompts, max_new_tokens=1, **options)


@each_model
def test_masks_of_anything_but_zeros_and_ones_are_refused(name):
    """An additive mask would be read with the opposite meaning, and strings, NaN and None as real tokens."""
    model, inputs = MODELS[name][0], inputs_of(name)
    masks = [mask for mask in ("attention_mask", "perm_mask", "input_mask", "target_mapping") if inputs.get(mask) is not None]
    for mask in masks:
        right = np.asarray(inputs[mask]).astype(int)
        same = [right, right.tolist(), right.astype(bool), right.astype("uint8"), right.astype("int8")]
        if mask != "attention_mask":
            same += [right.astype("float32"), right.astype(float).tolist()]
        expected = model(**{**inputs, mask: right}, grad=False)[0]["hidden"]
        for form in same:
            assert np.array_equal(model(**{**inputs, mask: form}, grad=False)[0]["hidden"], expected)
        wrong = [np.where(right, 0, -1e9), np.where(right, 0, -(10**9)), right - 1, right * 2, right + 0.5,
                 np.where(right, 1, np.nan), np.where(right, "1", "0"), np.where(right, 1, None), right * 1j]  # fmt: skip
        if mask == "attention_mask":
            wrong.append(right.astype(float))  # like additive masks
        for form in wrong:
            for mask_given in (form, form.tolist()):
                for call in (model, model.inputs):
                    with pytest.raises(ValueError, match=f"^{mask}: expected 0 and 1 as integers.*, got "):
                        call(**{**inputs, mask: mask_given})
                with pytest.raises(ValueError, match=f"^{mask}: expected 0 and 1 as integers.*, got "):
                    model.loss(targets=MODELS[name][2], **{**inputs, mask: mask_given})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(IDS, labels=IDS), "model: expected some of the arguments input_ids, .*, got 'labels'"),
        (lambda m: m(IDS, attention_masks=MASK), r"model: expected .*, got 'attention_masks' \(did you mean attention_mask\?\)"),
        (lambda m: MODELS["bert masked_lm"][0](IDS, labels=IDS), "^labels: expected None, since bert takes only attention_mask"),
        (lambda m: m("hello"), "^input_ids: expected integers, which model.tokenizer.encode makes of a text, got 'hello'$"),
        (lambda m: m(["hello"]), r"^input_ids: expected integers, .* makes of a text, got \['hello'\]$"),
        (lambda m: m([[1, 2], [3]]), "^input_ids: expected integers"),
        (lambda m: m(), "either input_ids or inputs_embeds"),
        (lambda m: m(IDS, IDS), "model: expected the arguments input_ids, .*, got a bad call .too many positional arguments"),
        (lambda m: m(IDS, key=1.5), "^key: expected None, an integer"),
        (lambda m: m(IDS, key=-1), "^key: expected None or an integer from 0 to "),
        (lambda m: m(IDS, key=True), "^key: expected None, an integer"),
        (lambda m: m(IDS, key=np.zeros(3, "uint64")), r"^key: expected .* uint64 array of shape \(2,\), got uint64 .* \(3,\)$"),
        (lambda m: m.loss(targets={"logits": IDS}, input_ids=IDS, total={"logits": 0}), "^total: expected None or a dict of num"),
        (lambda m: m(IDS)[1]({"logits": np.zeros((2, 3, 5))}),
         r"^backward: logits: expected an array of floating-point numbers of shape \(2, 3, 11\), got .* \(2, 3, 5\)$"),
        (lambda m: m(IDS)[1]({"logits": np.zeros((2, 3, 11), int)}), "^backward: logits: expected an array of floating-point"),
        (lambda m: m(IDS)[1]({"logit": np.zeros((2, 3, 11))}), r"^backward: expected some of hidden, logits, got \['logit'\]$"),
        (lambda m: m(IDS)[1](np.zeros((2, 3, 11))), "^backward: expected a dict of gradients of some of hidden, logits, "),
        (lambda m: m.loss(targets=IDS, input_ids=IDS), '^targets: expected a dict such as {"logits": array}, got int64 array'),
        (lambda m: m.loss(targets={"logit": IDS}, input_ids=IDS), r"^targets: expected a dict with logits alone, got "),
        (lambda m: m.loss(input_ids=IDS), "loss: expected the arguments targets, .* a bad call .missing a .*'targets'"),
        (lambda m: m.loss(targets={"logits": IDS}, input_ids=IDS, smothing=0.1), r"did you mean smoothing\?"),
        (lambda m: m.loss(targets={"logits": IDS}, input_ids=IDS, chunk=-1), "^chunk: expected an integer >= 1, got -1$"),
        (lambda m: generate(m, [[1]], max_tokens=3), r"^generate: .*, got 'max_tokens' \(did you mean max_new_"),
        (lambda m: generate(m, [[1]]), "^generate: expected the arguments .* a bad call .missing a .*'max_new_tokens'.$"),
        (lambda m: stream(m, [[1]], max_new_tokens=3, topk=3), r"^stream: expected .*, got 'topk' \(did you mean top_k\?\)"),
        (lambda m: beam_search(m, [1], max_new_tokens=3, beam=3), r"^beam_search: .*, got 'beam' \(did you mean beams\?\)"),
        (lambda m: beam_search(m, [1], max_new_tokens=3), "^beam_search: expected the arguments .*.missing a .*'beams'.$"),
        (lambda m: beam_search(5, [1], beams=2, max_new_tokens=3), "^model: expected a model, as .* gives it, got 5$"),
        (lambda m: one_token(m, {5: "x"}), "^prompts: expected token ids of one prompt or of several, .* got {5: 'x'}$"),
        (lambda m: one_token(m, "hi"), "^prompts: expected token ids .* as from model.tokenizer.encode, got 'hi'$"),
        (lambda m: one_token(m, [1], stop_ids=["7"]), r"^stop_ids: expected None or a list of token ids, got \['7'\]$"),
        (lambda m: one_token(m, [1], stop_ids=[1.5]), r"^stop_ids: expected None or a list of token ids, got \[1.5\]$"),
        (lambda m: one_token(m, [1], stop_ids="ab"), "^stop_ids: expected None or a list of token ids, got 'ab'$"),
        (lambda m: one_token(m, [1], seed=1.5), "^seed: expected an integer from 0 to .*, got 1.5$"),
        (lambda m: one_token(m, [1], seed=-1), "^seed: expected an integer from 0 to .*, got -1$"),
        (lambda m: one_token(m, [1], memory=5), "^memory: expected None or a Memory, got 5$"),
        (lambda m: one_token(5, [1]), "^model: expected a model, as .* gives it, got 5$"),
        (lambda m: m(IDS, cache="x"), "^cache: expected None or a cache of empty_cache or of an earlier call's .*, got 'x'$"),
        (lambda m: tinyplm.create("gpt2", key=1.5), "^key: expected an integer from 0 to .*, got 1.5$"),
        (lambda m: tinyplm.create("gpt2", key=-1), "^key: expected an integer from 0 to .*, got -1$"),
        (lambda m: tinyplm.create("gpt2", {"n_layers": 2}), "^config: expected some of the fields .*, got 'n_layers'$"),
        (lambda m: tinyplm.create("gpt2", {"model_type": "bert"}), "^config: model_type: expected gpt2, got 'bert'$"),
        (lambda m: tinyplm.create("gpt2", 5), "^config: expected a tinyplm.families.gpt2.Config, a dict of its fields or "),
        (lambda m: tinyplm.load("missing"), r"^missing: expected a model folder, .* got none \(no such folder\)$"),
        (lambda m: tinyplm.load(5), "^folder: expected a path, got 5$"),
        (lambda m: labels("abc"), "^labels: expected a list of strings, got 'abc'$"),
        (lambda m: labels([1, 2]), r"^labels: expected different strings, at least one, got \[1, 2\]$"),
        (lambda m: draw(np.array([[0.5, np.nan]]), np.array([0.1])), "^probabilities: expected rows >= 0 .* got nan in one$"),
        (lambda m: draw(np.array([[1.5, -0.5]]), np.array([0.1])), "^probabilities: expected rows >= 0 .* got -0.5 in one$"),
        (lambda m: draw(np.array([[0.5, 0.6]]), np.array([0.1])), "^probabilities: expected rows >= 0 .* got the sum 1.1$"),
        (lambda m: draw(np.array([[0.5, 0.5]]), np.array([1.0])), r"^u: expected 1 numbers in \[0, 1\), got float64 array"),
    ],
)  # fmt: skip
def test_what_was_silent_or_obscure_is_one_line(call, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        call(MODELS["gpt2"][0])
    assert len(str(error.value).splitlines()) == 1


def test_a_run_whose_checkpoint_is_gone_names_it(tmp_path):
    (tmp_path / "latest").write_text("step-20\n")
    with pytest.raises(ValueError, match=r"/latest: expected the name of a checkpoint folder, got step-20$"):
        tinyplm.load(tmp_path)


def test_a_config_from_a_dict(tmp_path):
    fields = {"n_embd": 6, "num_attention_heads": 2, "n_layer": 1, "vocab_size": 11, "n_positions": 6}  # one under a synonym
    model = tinyplm.create("gpt2", fields, n_layer=2)
    assert model.config == tinyplm.create("gpt2", vocab_size=11, n_positions=6, n_embd=6, n_head=2, n_layer=2).config
    assert model.config.source == {}  # the fields read from a file; there was no file
    tinyplm.save(model, tmp_path)
    again = json.loads((tmp_path / "config.json").read_text())  # the file's contents
    assert tinyplm.create("gpt2", {**again, "transformers_version": "5"}).config == model.config
    assert tinyplm.create("gpt2", {**again, "transformers_version": "5"}).config.source["transformers_version"] == "5"


def test_a_memory_that_does_not_fit_is_refused_before_the_first_token():
    """The generator does not check the inputs of its own calls, so it would write into a cache of the wrong size or dtype."""
    model = MODELS["gpt2"][0]
    own = {**model.config.cache_sizes, "batch": 1, "capacity": 4, "dtype": model.dtype}

    def refused(ids, message, **changes):
        memory = Memory(ids, Cache.empty(**{**own, **changes}))
        with pytest.raises(ValueError, match=message) as error:
            generate(model, [1, 2], max_new_tokens=2, memory=memory)
        assert "\n" not in str(error.value)

    for name, size in (("layers", 1), ("layers", 9), ("kv_heads", 1), ("width", 1), ("dtype", "float16")):
        refused([], "^memory: expected {'layers': .*, got {'layers': ", **{name: size})
    refused([], "^memory: cache: expected a cache of one sample, got 2$", batch=2)
    refused([], f"^memory: expected at most {model.config.context} tokens in all, got 99$", capacity=99)
    refused([1, 2, 3], "^memory: ids: expected one for each of the 0 places of the cache, got 3$")
    refused(None, "^memory: ids: expected token ids, got None$")
    with pytest.raises(ValueError, match="^memory: cache: expected None or a Cache, got 3$"):
        generate(model, [1, 2], max_new_tokens=2, memory=Memory([], 3))
    memory = Memory()
    generate(model, [1, 2], max_new_tokens=2, memory=memory)
    with pytest.raises(ValueError, match="^memory: expected {'layers': .* in float16, got"):
        generate(model.astype("float16"), [1, 2], max_new_tokens=2, memory=memory)


def test_a_memory_after_a_stream_that_never_started():
    model, memory = MODELS["gpt2"][0], Memory()
    generate(model, [1, 2], max_new_tokens=2, memory=memory)
    stream(model, [3, 4], max_new_tokens=2, memory=memory)  # truncates the cache to the common prefix of both prompts
    assert one_token(model, [1, 2, 5], memory=memory) == one_token(model, [1, 2, 5])


def test_a_memory_of_an_interrupted_stream_and_of_two_streams():
    model, memory = MODELS["gpt2"][0], Memory()
    expected = [piece.id for pieces in stream(model, [1, 2], max_new_tokens=4, memory=memory) for piece in pieces]
    model([[3]], cache=memory.cache.cut(2), grad=False)  # an interrupted step, whose cache nobody holds
    assert [p.id for pieces in stream(model, [1, 2], max_new_tokens=4, memory=memory) for p in pieces] == expected
    first = stream(model, [1, 2], max_new_tokens=4, memory=memory)
    next(first)
    next(stream(model, [1, 2], max_new_tokens=4, memory=memory))
    with pytest.raises(ValueError, match="^cache: expected the one that the last call returned, got one that"):
        list(first)
