"""A draft in `generate` and `stream`: greedy texts, batches, samples, ends, contexts, windows, devices, invalid drafts."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tinyplm
from tests.support.families import FAMILIES, tiny
from tests.support.generation import EVERYTHING, PROMPTS, assert_same, bytes_model, full_pass, ids_of
from tests.support.generation import MODELS as SHORT
from tinyplm.families import gpt2
from tinyplm.generation import DraftStatistics, Memory, generate, stream
from tinyplm.tokenizers import Tokenizer


def model_of(family, context=40, **changes):
    name = FAMILIES[family].context
    return tiny(family, **({name: context} if name else {}), **changes)


def longest(family, tokens, **changes):
    """A model whose greedy texts of the three prompts have the most different tokens, of a few seeds."""
    models = [model_of(family, context=tokens + 5, seed=seed, **changes) for seed in range(4)]
    return max(models, key=lambda m: sum(len({*ids}) for ids in ids_of(generate(m, PROMPTS, max_new_tokens=9, temperature=0))))


MODELS = {
    "gpt2": functools.partial(longest, "gpt2"),
    "bloom": functools.partial(longest, "bloom"),  # ALiBi
    "mistral": functools.partial(longest, "mistral"),  # a window of 3, which rolls after some 20 tokens
    "mistral, window of 9": functools.partial(longest, "mistral", sliding_window=9),
    "gemma2": functools.partial(longest, "gemma2"),  # windows in some layers
    "gpt3": functools.partial(longest, "gpt3"),
    "qwen3": functools.partial(longest, "qwen3"),
    "palm": functools.partial(longest, "palm"),
}
DRAFTS = {"itself": lambda model: model, "another": lambda model: tiny("gpt2", seed=8, n_positions=80),
          "short context": lambda model: tiny("llama", seed=2)}  # fmt: skip


@functools.cache
def greedy(name, tokens, cached=True):
    model = MODELS[name](tokens)
    return model, generate(model, PROMPTS, max_new_tokens=tokens, temperature=0, cached=cached)


# ---------------------------------------------------------------------------------------------------------------- greedy


@pytest.mark.parametrize("draft_length", [1, 3, 20])
@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("name", MODELS)
def test_greedy_texts_are_those_without_a_draft(name, draft, draft_length):
    """In a left-padded batch and alone; each text has its own accepted tokens."""
    # windows keep draft_length places more: with 20 of them they roll after 40 tokens
    windows = 60 if draft_length == 20 else 40
    tokens = 24 if name in ("gpt2", "bloom", "palm") else windows
    model, expected = greedy(name, tokens)
    options = {"max_new_tokens": tokens, "temperature": 0, "draft": DRAFTS[draft](model), "draft_length": draft_length}
    counts = DraftStatistics()
    assert_same(generate(model, PROMPTS, statistics=counts, **options), expected)
    assert (counts.acceptance_rate == 1) == (draft == "itself") and 0 < counts.checked <= counts.proposed
    assert counts.tokens == 3 * (tokens - 1) == counts.passes + counts.accepted
    assert_same(generate(model, PROMPTS[2], **options), expected[2:])


@pytest.mark.parametrize("window", [1, 3, 9])
def test_windows_roll_on_both_sides(window):
    """Both models' caches drop places, and both go back: the draft is often refused."""
    model, draft = (model_of("mistral", context=70, sliding_window=window, seed=seed) for seed in (1, 2))
    options = {"max_new_tokens": 60, "temperature": 1.5, "samples": 2}
    expected = generate(model, PROMPTS, cached=False, draft=draft, draft_length=3, **options)
    counts = DraftStatistics()
    assert_same(generate(model, PROMPTS, draft=draft, draft_length=3, statistics=counts, **options), expected)
    assert counts.acceptance_rate < 0.9
    options["temperature"] = 0
    assert_same(generate(model, PROMPTS, draft=draft, **options), generate(model, PROMPTS, **options))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 3, 6, 20])
@pytest.mark.parametrize("name", ["gpt2", "llama", "dynamic"])
def test_up_to_the_context_and_beyond(name, tokens, cached):
    """A context of 12; with dynamic scaling, of which 6 can be cached.  Beyond it nothing is proposed."""
    model, counts = SHORT[name](), DraftStatistics()
    options = {"max_new_tokens": tokens, "temperature": 0, "cached": cached}
    assert_same(generate(model, PROMPTS, draft=model, statistics=counts, **options), generate(model, PROMPTS, **options))
    context = model.config.cache_context
    most = sum(max(0, min(tokens - 2, context - len(prompt) - 1)) for prompt in PROMPTS)
    assert counts.proposed == counts.accepted <= most and (counts.proposed > 0) == (most > 0)


def test_a_prompt_may_be_longer_than_the_drafts_context():
    model, prompt = tiny("gpt2", n_positions=40), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    options = {"max_new_tokens": 12, "temperature": 0}
    found = generate(model, prompt, draft=tiny("gpt2", seed=8), **options)  # its context is 6
    assert_same(found, generate(model, prompt, **options))


def test_the_target_reads_a_rounds_tokens_at_once(monkeypatch):
    model, draft, shapes = tiny("gpt2", n_positions=40), tiny("llama", max_position_embeddings=40), []

    def body(*args, input_ids, body=gpt2.body, **kwargs):
        shapes.append(input_ids.shape)
        return body(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(gpt2, "body", body)
    generate(model, PROMPTS, max_new_tokens=10, samples=2, draft=model, draft_length=2, seed=1)
    # the prompts by both; then the draft 2 tokens and the target 3; the draft has the last of 2 accepted ones to read, too
    drafted = [(6, 1), (6, 1), (6, 3), (6, 2), (6, 1), (6, 3), (6, 2), (6, 1), (6, 3)]
    assert shapes == [(3, 5), (3, 5), *drafted]
    shapes.clear()
    generate(model, PROMPTS, max_new_tokens=10, draft=draft, draft_length=4)
    assert shapes[:2] == [(3, 5), (3, 5)] and max(T for _, T in shapes[2:]) == 5 and shapes[-1][0] < 3


# --------------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"stop_ids": [3, 8]}, {"no_repeat_ngram": 1, "stop_ids": [0]}])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "llama, short"])
def test_a_sample_depends_on_its_prompt_and_number_alone(name, options):
    """Not on the other texts of its batch, whatever their lengths, ends and accepted tokens."""
    model = model_of("llama", context=12) if name == "llama, short" else model_of(name)
    tokens = 6 if options.get("no_repeat_ngram") == 1 else 20
    options = {"max_new_tokens": tokens, "draft": tiny("gpt2", seed=8, n_positions=40), "draft_length": 3, "seed": 4, **options}
    together = generate(model, PROMPTS, samples=3, **options)
    for n, prompt in enumerate(PROMPTS):
        assert_same(together[3 * n : 3 * n + 3], generate(model, prompt, samples=3, first_prompt=n, **options))
        assert_same(together[3 * n : 3 * n + 1], generate(model, prompt, first_prompt=n, **options))
    assert_same(together, generate(model, PROMPTS, samples=3, cached=False, **options))
    assert_same(together, generate(model.for_decoding(), PROMPTS, samples=3, **options))
    assert ids_of(together) != ids_of(generate(model, PROMPTS, samples=3, **{**options, "seed": 5}))
    assert len({len(text.ids) for text in together}) > 1 or "stop_ids" not in options


def test_log_probabilities_are_the_targets():
    model = tiny("gpt2", n_positions=40)
    for options in ({}, {"temperature": 0}, EVERYTHING):
        [text] = generate(model, [1, 2, 3], max_new_tokens=15, draft=tiny("gpt2", seed=8, n_positions=40), **options)
        for n, (token, log_p) in enumerate(zip(text.ids, text.log_probabilities)):
            assert abs(full_pass(model, [1, 2, 3, *text.ids[:n]])[token] - log_p) < 1e-10


# ------------------------------------------------------------------------------------------------------- ends and pieces


def test_a_step_has_at_most_one_piece_of_each_text_and_all_are_in_order():
    model = tiny("gpt2", n_positions=40)
    options = {"max_new_tokens": 12, "samples": 2, "draft": tiny("gpt2", seed=8, n_positions=40), "stop_ids": [3]}
    steps = list(stream(model, PROMPTS, **options))
    texts = generate(model, PROMPTS, **options)
    assert all(0 < len({piece.row for piece in pieces}) == len(pieces) for pieces in steps)
    assert len({len(pieces) for pieces in steps}) > 2, "texts that accept more have more steps"
    for n, text in enumerate(texts):
        pieces = [piece for pieces in steps for piece in pieces if piece.row == n]
        assert [piece.id for piece in pieces if piece.id != 3] == text.ids
        assert [piece.finished for piece in pieces] == [None] * (len(pieces) - 1) + [text.finished]


@pytest.mark.parametrize("place", range(1, 9))
def test_a_stop_token_within_an_accepted_run_ends_the_text(place):
    """And so does one that the target writes itself; the draft proposes nothing after it."""
    model = longest("gpt2", 40)
    [free] = generate(model, [4], max_new_tokens=12, temperature=0)
    stop = free.ids[place]
    first, counts = free.ids.index(stop), DraftStatistics()
    options = {"max_new_tokens": 12, "temperature": 0, "stop_ids": [stop]}
    [text] = generate(model, [4], draft=model, draft_length=5, statistics=counts, **options)
    assert text.ids == free.ids[:first] and text.finished == "stop"
    assert counts.tokens == first and counts.accepted == counts.checked == counts.proposed == first - (first >= 6)


@pytest.mark.parametrize("stops", [{}, {"stop_strings": ["\n"]}])
def test_stop_strings_and_texts(stops):
    model = bytes_model(seed=2, n_positions=40)
    options = {"max_new_tokens": 20, "temperature": 0, **stops}
    expected = generate(model, [[65, 66], [70]], **options)
    if stops:
        ends = [text.text[4:6] for text in generate(model, [[65, 66], [70]], max_new_tokens=20, temperature=0)]
        options["stop_strings"] = ends
        expected = generate(model, [[65, 66], [70]], **options)
        assert any(text.finished == "stop" for text in expected)
    counts = DraftStatistics()
    assert_same(generate(model, [[65, 66], [70]], draft=model, draft_length=7, statistics=counts, **options), expected)
    assert counts.tokens <= sum(len(text.ids) for text in expected) and counts.acceptance_rate == 1


def test_proposals_end_where_every_token_is_banned():
    """A text of all four tokens, none twice, ends with the stop token, as without a draft; without one both refuse."""
    model = tiny("gpt2", n_positions=40)
    options = {"max_new_tokens": 9, "vocabulary": 4, "no_repeat_ngram": 1, "samples": 5}
    for draft in (None, tiny("gpt2", seed=8, n_positions=40)):
        texts = generate(model, [7], stop_ids=[0, 1, 2, 3], draft=draft, draft_length=6, **options)
        assert all(len(text.ids) == 0 for text in texts)
        with pytest.raises(ValueError, match="^no_repeat_ngram: expected one that allows any token, got 1$"):
            generate(model, [7], stop_ids=(), draft=draft, draft_length=6, **options)


# -------------------------------------------------------------------------------------------------------- devices, errors


@pytest.mark.parametrize("family", ["gpt2", "mistral", "bloom"])
def test_it_runs_on_devices(device, family):
    model, draft = model_of(family, context=60), tiny("gpt2", seed=8, n_positions=60)
    for options in ({"temperature": 0}, {"samples": 2, "stop_ids": [3]}, {"cached": False, "max_new_tokens": 9}):
        options = {"max_new_tokens": 50 if family == "mistral" else 20, "seed": 2, **options}
        there = generate(model.to(device), PROMPTS, draft=draft.to(device), **options)
        assert_same(there, generate(model, PROMPTS, draft=draft, **options))
        assert_same(generate(model.to(device), PROMPTS, draft=draft, **options), there)


def test_half_precision():
    model, draft = (tiny("gpt2", n_positions=40, seed=seed).astype("float16") for seed in (0, 8))
    for text in generate(model, PROMPTS, max_new_tokens=15, draft=draft):
        for n, (token, log_p) in enumerate(zip(text.ids, text.log_probabilities)):
            assert abs(full_pass(model, [*PROMPTS[text.prompt], *text.ids[:n]])[token] - log_p) < 0.02  # as in test_generate.py


def with_tokenizer(model, *special):
    model.tokenizer = Tokenizer.train(["a"], 256 + len(special), special)
    return model


BYTES = {"vocab_size": 300}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({}, {"draft": "x"}, "draft: expected a model, .*, got 'x'"),
        ({}, {"draft": tiny("gpt2", vocab_size=12)}, "draft: expected a model of the target's 11 tokens, got one of 12"),
        ({}, {"draft": tiny("gpt2"), "draft_length": 0}, "draft_length: expected an integer from 1 to 2147483647, got 0"),
        ({}, {"draft": tiny("gpt2"), "memory": Memory()}, r"memory: expected None with a draft, got Memory\(.*\)"),
        ({}, {"statistics": {}}, "statistics: expected None or a DraftStatistics, got {}"),
        ({}, {"draft": tiny("gpt2"), "prompts": [1] * 7}, "prompts: expected 1 to 6 tokens, got 7 in one prompt"),
        (BYTES, {"draft": with_tokenizer(tiny("gpt2", **BYTES))}, "draft: expected a tokenizer of 257 tokens, got 256"),
        (
            BYTES,
            {"draft": with_tokenizer(tiny("gpt2", **BYTES), "<b>")},
            "draft: expected the target's token 0, '<a>', got '<b>'",
        ),
        (BYTES, {"draft": tiny("gpt2")}, "draft: expected a model of the target's 257 tokens, got one of 11"),
    ],
)
def test_bad_drafts_are_refused(model, options, message):
    model = with_tokenizer(tiny("gpt2", **model), "<a>") if model else tiny("gpt2")
    for run in (generate, stream):  # at the call, not at the first step
        with pytest.raises(ValueError, match=f"^{message}$"):
            run(model, **{"prompts": [1], "max_new_tokens": 3, **options})


def test_an_encoder_decoder_takes_no_draft():
    model = tinyplm.create("t5", "t5-small", num_layers=1, d_model=8, d_ff=8, num_heads=2, d_kv=4, vocab_size=11)
    with pytest.raises(ValueError, match="^draft: expected None for an encoder-decoder, got <gpt2 model.*>$"):
        generate(model, [[1, 2]], max_new_tokens=3, draft=tiny("gpt2"))
    with pytest.raises(ValueError, match="^draft: expected a decoder"):
        generate(tiny("gpt2"), [[1, 2]], max_new_tokens=3, draft=model)


def test_padded_tables_of_other_sizes_fit_where_the_tokenizer_bounds_them():
    model, draft = with_tokenizer(tiny("gpt2", vocab_size=300)), with_tokenizer(tiny("gpt2", vocab_size=280, seed=8))
    texts = generate(model, [65], max_new_tokens=20, samples=5, temperature=9.0, draft=draft)
    assert np.max(ids_of(texts)) < 256
