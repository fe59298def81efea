"""Generation: cached and uncached, batched and alone, samples, invalid arguments."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, leaves
from tests.support.families import tiny
from tests.support.generation import EVERYTHING, MODELS, PROMPTS, assert_same, bytes_model, full_pass, ids_of
from tinyplm.families import gpt2, llama
from tinyplm.generation import Memory, generate, stream
from tinyplm.models import causal_lm

# -------------------------------------------------------------------------------------------------------- correct numbers


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("family", MODELS)
def test_greedy_is_the_argmax_of_the_full_pass_and_slides_over_the_context(family, cached):
    model = MODELS[family]()
    ids = [1, 2, 3]
    for _ in range(15):  # the context is 12
        ids.append(int(full_pass(model, ids).argmax()))
    [text] = generate(model, [1, 2, 3], max_new_tokens=15, temperature=0, cached=cached)
    assert text.ids == ids[3:] and text.finished == "length" and text.text is None and text.prompt == 0


@pytest.mark.parametrize("family", MODELS)
def test_log_probabilities_are_those_of_the_full_pass_whatever_the_sampling(family):
    model = MODELS[family]()
    for options in ({"temperature": 0}, {}, EVERYTHING):
        for text in generate(model, [1, 2, 3], max_new_tokens=15, samples=2, **options):
            for n, (token, log_p) in enumerate(zip(text.ids, text.log_probabilities)):
                assert abs(full_pass(model, [1, 2, 3, *text.ids[:n]])[token] - log_p) < MODEL


@pytest.mark.parametrize("options", [{"temperature": 0}, {"samples": 3}, {"samples": 3, **EVERYTHING}])
@pytest.mark.parametrize("tokens", [6, 20])  # within the context, and sliding over it
@pytest.mark.parametrize("family", MODELS)
def test_with_the_cache_it_is_the_same(family, tokens, options):
    model = MODELS[family]()
    for prompts in ([1, 2, 3], PROMPTS):
        cached = generate(model, prompts, max_new_tokens=tokens, **options)
        assert_same(cached, generate(model, prompts, max_new_tokens=tokens, cached=False, **options))


@pytest.mark.parametrize("options", [{"temperature": 0}, {"samples": 3}, {"samples": 3, "stop_ids": [3, 8], **EVERYTHING}])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("tokens", [3, 6, 20])
@pytest.mark.parametrize("family", MODELS)
def test_prompts_of_different_lengths_are_as_each_alone(family, tokens, cached, options):
    """Alone or, for samples, which depend on the prompt's index, in a batch of copies of the prompt: neither needs padding."""
    model, samples = MODELS[family](), options.get("samples", 1)
    together = generate(model, PROMPTS, max_new_tokens=tokens, cached=cached, **options)
    assert [text.prompt for text in together] == [n for n in range(3) for _ in range(samples)]
    for n, prompt in enumerate(PROMPTS):
        same = [prompt] * (n + 1) if "samples" in options else prompt
        alone = generate(model, same, max_new_tokens=tokens, cached=cached, **options)
        assert_same(together[n * samples : (n + 1) * samples], alone[-samples:])


@pytest.mark.parametrize(
    "family", ["bloom", "openai-gpt", "gemma", "gemma2", "gemma3_text", "glm", "gpt3", "palm", "olmo2", "phi3", "qwen3"]
)
def test_other_decoders_cached_uncached_in_a_batch_and_alone(family):
    """ALiBi, norms elsewhere, windows and bands: prompts of several lengths, left-padded; 20 tokens are more than a window."""
    longest = {"bloom": None, "openai-gpt": "n_positions", "gpt3": "n_positions"}.get(family, "max_position_embeddings")
    model = tiny(family, **({longest: 40} if longest else {}))
    options = {"max_new_tokens": 20, "seed": 3, "temperature": 1.5}
    together = generate(model, PROMPTS, **options)
    assert_same(generate(model, PROMPTS, cached=False, **options), together)
    assert_same(generate(model.for_decoding(), PROMPTS, **options), together)
    greedy = {"max_new_tokens": 20, "temperature": 0}
    alone = [generate(model, prompt, **greedy)[0] for prompt in PROMPTS]
    assert_same(generate(model, PROMPTS, **greedy), alone)
    for prompt, text in zip(PROMPTS, alone):
        expected = full_pass(model, prompt + text.ids[:-1])[text.ids[-1]]
        assert abs(text.log_probabilities[-1] - expected) < MODEL * max(1, -expected)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", MODELS)
def test_weights_in_another_layout_give_the_same(family, tied, tmp_path):
    changes = {} if family == "gpt2" else {"attention_bias": True}
    model = MODELS[family](tie_word_embeddings=tied, **changes)
    quick = model.for_decoding()
    options = {"max_new_tokens": 14, "samples": 2, "seed": 3, **EVERYTHING}
    assert_same(generate(quick, PROMPTS, **options), generate(model, PROMPTS, **options))
    layers = [m.params["body"]["layers"][0] for m in (model, quick)]
    assert "Wqkv" in layers[1]["attention"] and quick.params["head"]["W"].flags.c_contiguous
    assert layers[0]["mlp"] is layers[1]["mlp"] and quick.params["body"]["tokens"] is model.params["body"]["tokens"]
    with pytest.raises(ValueError, match="save: params: expected those of the config .*for_decoding.*Wqkv"):
        tinyplm.save(quick, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_token_costs_one_tokens_work(monkeypatch):
    shapes = []

    def body(*args, input_ids, body=gpt2.body, **kwargs):
        shapes.append(input_ids.shape)
        return body(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(gpt2, "body", body)
    generate(MODELS["gpt2"](), PROMPTS, max_new_tokens=4, samples=2)
    assert shapes == [(3, 5), (6, 1), (6, 1), (6, 1)]  # the prompts run once, not once per sample
    shapes.clear()
    generate(MODELS["gpt2"](), PROMPTS, max_new_tokens=4, samples=2, cached=False)
    lengths = [len(prompt) for prompt in PROMPTS]  # texts of equal length run together
    assert shapes == [(1, n) for n in lengths] + [(2, n + more) for more in (1, 2, 3) for n in lengths]


def test_the_head_runs_on_the_last_position_only(monkeypatch):
    widths = []

    def linear(x, W, b=None, *, linear=causal_lm.linear):
        widths.append(x.shape[:-1])
        return linear(x, W, b)

    monkeypatch.setattr(causal_lm, "linear", linear)
    generate(tiny("gpt2"), [1, 2, 3], max_new_tokens=2, samples=2)
    assert widths == [(1,), (2,)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_half_precision(family):
    model = MODELS[family]().astype("float16")
    for text in generate(model, PROMPTS, max_new_tokens=15, samples=2):
        for n, (token, log_p) in enumerate(zip(text.ids, text.log_probabilities)):
            # float16 has a relative step of 1/1000, and logits are about 1; the cache adds one more rounding
            assert abs(full_pass(model, [*PROMPTS[text.prompt], *text.ids[:n]])[token] - log_p) < 0.02


def test_what_a_chat_said_before_is_not_computed_again(monkeypatch):
    model, memory, widths = MODELS["llama"](), Memory(), []

    def body(*args, input_ids, body=llama.body, **kwargs):
        widths.append(input_ids.shape[1])
        return body(*args, input_ids=input_ids, **kwargs)

    prompt = [1, 2, 3]
    for turn, tokens in enumerate([3, 3, 3, 6]):
        expected = generate(model, prompt, max_new_tokens=tokens, seed=turn)
        with monkeypatch.context() as patch:
            patch.setattr(llama, "body", body)
            text = generate(model, prompt, max_new_tokens=tokens, seed=turn, memory=memory)
        assert_same(text, expected)
        if turn == 0:
            prompt = [*prompt, *text[0].ids, 5, 6]  # the answer and the next question; then the same question again
        elif turn == 2:
            prompt = [*prompt[:-2], 7, 7, 7]  # another question, whose answer exceeds the context
    assert widths == [3, 1, 1, 3, 1, 1, 1, 1, 1, 3, 1, 1, 1, 12, 12]
    for prompts, samples in ((PROMPTS, 1), ([1], 2)):
        with pytest.raises(ValueError, match=f"^memory: expected one prompt and one sample, got {len(prompts)} and {samples}$"):
            generate(model, prompts, max_new_tokens=3, samples=samples, memory=Memory())


# ---------------------------------------------------------------------------------------------------------------- samples


def test_a_seed_gives_the_same_samples_and_samples_differ():
    model = tiny("gpt2")
    a = generate(model, [1], max_new_tokens=20, samples=3, seed=5)
    assert a == generate(model, [1], max_new_tokens=20, samples=3, seed=5)
    assert ids_of(a) != ids_of(generate(model, [1], max_new_tokens=20, samples=3, seed=6))
    assert a[0].ids != a[1].ids and [len(text.ids) for text in a] == [20, 20, 20]
    same = ids_of(generate(model, [[1], [1]], max_new_tokens=20, samples=3, seed=5))
    assert len({tuple(ids) for ids in same}) == 6  # even for the same prompt twice
    assert json.loads(json.dumps(dataclasses.asdict(a[0]))) == dataclasses.asdict(a[0])  # plain numbers


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_sample_does_not_depend_on_how_many_there_are(temperature):
    many = generate(tiny("gpt2"), [1], max_new_tokens=12, samples=4, seed=5, temperature=temperature)
    for n in (1, 2, 3):
        assert_same(generate(tiny("gpt2"), [1], max_new_tokens=12, samples=n, seed=5, temperature=temperature), many[:n])
    both = [generate(tiny("gpt2"), [[1], [2, 3]], max_new_tokens=12, samples=n, seed=5, temperature=temperature) for n in (4, 2)]
    assert_same(both[0][:4], many)
    assert_same([*both[0][:2], *both[0][4:6]], both[1])


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_stop_it(temperature, bad):
    model = tiny("gpt2")
    model.params["body"]["norm"]["beta"][0] = bad
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=r"logits: expected a finite .*, got (nan|inf)"):
        generate(model, [1], max_new_tokens=3, temperature=temperature)


def test_only_ids_of_the_vocabulary_are_drawn():
    texts = generate(tiny("gpt2"), [1], max_new_tokens=40, samples=3, temperature=5.0, vocabulary=4)
    assert {token for text in texts for token in text.ids} == {0, 1, 2, 3}
    assert_same(generate(tiny("gpt2"), [1], max_new_tokens=9, vocabulary=99), generate(tiny("gpt2"), [1], max_new_tokens=9))


def test_a_prompt_may_have_ids_beyond_the_vocabulary_that_is_drawn_from():
    """They have no logits, so there is nothing to penalise or ban."""
    for options in ({"repetition_penalty": 1.5}, {"no_repeat_ngram": 1}, {"no_repeat_ngram": 2}):
        [text] = generate(tiny("gpt2"), [9, 1, 9], max_new_tokens=3, vocabulary=4, **options)
        assert set(text.ids) <= {0, 1, 2, 3}


def test_the_log_probabilities_are_the_models_also_for_a_part_of_the_vocabulary():
    [text] = generate(tiny("gpt2"), [1], max_new_tokens=4, vocabulary=4)
    for n, (token, log_p) in enumerate(zip(text.ids, text.log_probabilities)):
        assert abs(full_pass(tiny("gpt2"), [1, *text.ids[:n]])[token] - log_p) < MODEL


def test_only_ids_of_the_tokenizer_are_drawn():
    model = bytes_model(padding=3000)
    texts = generate(model, [1], max_new_tokens=60, samples=3, temperature=9.0)
    assert max(token for text in texts for token in text.ids) < 256
    assert [text.text for text in texts] == [model.tokenizer.decode(text.ids) for text in texts]


def test_penalties_count_the_prompt_and_the_row_itself():
    """No trigram repeats, even after finished rows have left the batch."""
    prompts = [[1, 2, 3, 1, 2], [4, 4], [9, 8, 7, 9, 8]]
    texts = generate(tiny("gpt2", n_positions=60), prompts, max_new_tokens=30, samples=3, no_repeat_ngram=3, stop_ids=[6])
    assert len({len(text.ids) for text in texts}) > 3
    for text in texts:
        ids = [*prompts[text.prompt], *text.ids]
        grams = list(zip(ids, ids[1:], ids[2:]))
        assert len(set(grams)) == len(grams)
    [without] = generate(tiny("gpt2"), [1, 2, 3], max_new_tokens=5, no_repeat_ngram=1)
    assert len({1, 2, 3, *without.ids}) == 8


# -------------------------------------------------------------------------------------------------------- devices, errors


@pytest.mark.parametrize("family", MODELS)
def test_it_runs_on_devices(device, family):
    model = MODELS[family]()
    for options in ({"temperature": 0}, {"samples": 2, "stop_ids": [3]}, {"cached": False}):
        there = generate(model.to(device), PROMPTS, max_new_tokens=15, seed=2, **options)
        assert_same(there, generate(model, PROMPTS, max_new_tokens=15, seed=2, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "prompts: expected 1 to 6 tokens, got 0 in one prompt"),
        ({"prompts": [[1], []]}, "prompts: expected 1 to 6 tokens, got 0 in one prompt"),
        ({"prompts": [1] * 7}, "prompts: expected 1 to 6 tokens, got 7 in one prompt"),
        ({"prompts": [[1], [1] * 7]}, "prompts: expected 1 to 6 tokens, got 7 in one prompt"),
        ({"prompts": [11]}, "prompts: expected integers from 0 to 10, got 11"),
        ({"prompts": [[1], [3, -1]]}, "prompts: expected integers from 0 to 10, got -1"),
        (
            {"prompts": [1.0, 2.0]},
            r"prompts: expected token ids .*, got \[1.0, 2.0\]",
        ),
        (
            {"prompts": "a few"},
            r"prompts: expected token ids .*, got 'a few'",
        ),
        (
            {"prompts": ["a few"]},
            r"prompts: expected token ids .*, got \['a few'\]",
        ),
        (
            {"prompts": [[1], ["a"]]},
            r"prompts: expected token ids .*, got \[\[1\], \['a'\]\]",
        ),
        (
            {"prompts": [[1], 2]},
            r"prompts: expected token ids .*, got \[\[1\], 2\]",
        ),
        (
            {"prompts": [[[1, 2]]]},
            r"prompts: expected token ids .*, got \[\[\[1, 2\]\]\]",
        ),
        ({"temperature": -1}, "temperature: expected a finite number >= 0, got -1"),
        ({"temperature": float("nan")}, "temperature: expected a finite number >= 0, got nan"),
        ({"top_p": 0}, "top_p: expected None or a finite number > 0 and <= 1, got 0"),
        ({"top_p": 1.5}, "top_p: expected None or a finite number > 0 and <= 1, got 1.5"),
        ({"top_k": 0}, "top_k: expected None or an integer >= 1, got 0"),
        ({"min_p": 2}, "min_p: expected None or a finite number >= 0 and <= 1, got 2"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected a finite number > 0, got 0"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram: expected None or an integer from 1 to 2147483647, got 0"),
        ({"samples": 0}, "samples: expected an integer from 1 to 2147483647, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected an integer from 1 to 2147483647, got 0"),
        ({"vocabulary": 0}, "vocabulary: expected None or an integer >= 1, got 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens: expected an integer from 1 to 2147483647, got 2.5"),
        ({"temperature": None}, "temperature: expected a finite number >= 0, got None"),
        ({"top_p": "0.9"}, "top_p: expected None or a finite number > 0 and <= 1, got '0.9'"),
        ({"stop_strings": ["x"]}, "tokenizer: expected a model with one, for text, got one without: none was given"),
        ({"stop_strings": "x"}, "stop_strings: expected a list of non-empty strings, got 'x'"),
        ({"stop_strings": [""]}, r"stop_strings: expected a list of non-empty strings, got \[''\]"),
    ],
)
def test_bad_requests_are_refused(options, message):
    options = {"prompts": [1], "max_new_tokens": 3, **options}
    for run in (generate, stream):  # at the call, not at the first step
        with pytest.raises(ValueError, match=f"^{message}$"):
            run(tiny("gpt2"), **options)


def test_the_model_and_the_prompts_are_left_as_they_are():
    model = MODELS["llama"]()
    before, prompts = [a.copy() for a in leaves(model.params)], np.array([[1, 2], [3, 4]])
    prompts.flags.writeable = False
    texts = generate(model, prompts, max_new_tokens=20, repetition_penalty=2.0, no_repeat_ngram=2)
    assert ids_of(texts) == ids_of(
        generate(model, prompts.tolist(), max_new_tokens=20, repetition_penalty=2.0, no_repeat_ngram=2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(model.params)))
