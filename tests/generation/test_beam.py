"""Beam search on models: cached and uncached, in a batch and alone, against the reference, and invalid arguments."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import reference.generation.beam as ref
import tinyplm
from tests.generation.test_beam_tables import DEFAULTS, expected_of
from tests.laws import MODEL
from tests.support.families import tiny
from tests.support.generation import MODELS, PROMPTS, bytes_model, full_pass
from tests.support.small_models import MODELS as ALL_MODELS
from tinyplm.families import gpt2
from tinyplm.generation import beam_search, generate
from tinyplm.generation.beam import checked_log_softmax
from tinyplm.generation.settings import BeamSettings
from tinyplm.generation.state import begin
from tinyplm.layers.cache import Cache
from tinyplm.tokenizers import Tokenizer


def assert_same(ours, theirs):
    """log-probabilities to MODEL for each of at most 20 tokens."""
    names = ("prompt", "ids", "text", "finished")
    assert [[getattr(h, name) for name in names] for h in ours] == [[getattr(h, name) for name in names] for h in theirs]
    for a, b in zip(ours, theirs):
        assert abs(a.log_probability - b.log_probability) < 20 * MODEL and abs(a.score - b.score) < 20 * MODEL


@pytest.mark.parametrize("tokens", [6, 16])  # within the context of 12, and sliding over it
@pytest.mark.parametrize("family", MODELS)
def test_a_batch_is_as_each_prompt_alone_cached_or_not_and_as_the_reference(family, tokens):
    model = MODELS[family]()
    options = {"beams": 4, "max_new_tokens": tokens, "no_repeat_ngram": 3}
    together = beam_search(model, PROMPTS, results=3, stop_ids=[3, 8], **options)
    assert [h.prompt for h in together] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert_same(beam_search(model, PROMPTS, results=3, stop_ids=[3, 8], cached=False, **options), together)
    for n, prompt in enumerate(PROMPTS):
        alone = beam_search(model, prompt, results=3, stop_ids=[3, 8], **options)
        assert_same([dataclasses.replace(h, prompt=n) for h in alone], together[3 * n : 3 * n + 3])
        expected = ref.beam_search(lambda ids: full_pass(model, ids), prompt, stops=[3, 8], **options)
        for one, (score, log_p, ids, finished) in zip(alone, expected_of(expected, [3, 8])):
            assert (one.ids, one.finished) == (ids, finished)
            assert abs(one.score - score) < 20 * MODEL and abs(one.log_probability - log_p) < 20 * MODEL


@pytest.mark.parametrize("family", ["bloom", "gemma2", "mistral", "palm", "qwen2"])
def test_windows_and_alibi_with_beams_that_move(family):
    longest = {} if family == "bloom" else {"max_position_embeddings": 60}
    model = tiny(family, **longest)
    options = {"beams": 5, "max_new_tokens": 30, "results": 5, "no_repeat_ngram": 3}  # more than a rolling buffer holds
    cached = beam_search(model, PROMPTS, **options)
    uncached = beam_search(model, PROMPTS, cached=False, **options)
    assert [h.ids for h in cached] == [h.ids for h in uncached] and len({tuple(h.ids) for h in cached}) >= 13
    assert max(abs(a.score - b.score) for a, b in zip(cached, uncached)) < MODEL  # a mean over the tokens


@pytest.mark.parametrize("options", [{}, {"stop_ids": [3, 8]}, {"no_repeat_ngram": 2}, {"vocabulary": 5}])
@pytest.mark.parametrize("family", MODELS)
def test_one_beam_is_greedy(family, options):
    model = MODELS[family]()
    greedy = generate(model, PROMPTS, temperature=0, max_new_tokens=15, **options)
    for early_stopping in (False, True):
        found = beam_search(model, PROMPTS, beams=1, max_new_tokens=15, early_stopping=early_stopping, **options)
        assert [(h.ids, h.finished) for h in found] == [(c.ids, c.finished) for c in greedy]
    if not options:
        assert np.allclose([h.log_probability for h in found], [sum(c.log_probabilities) for c in greedy], rtol=0, atol=MODEL)


def test_the_score_is_the_log_probability_by_the_length_with_the_stop_token():
    model, finished = MODELS["gpt2"](), set()
    for length_penalty in (-1.0, 0.0, 0.5, 4.0):
        options = {"length_penalty": length_penalty, "early_stopping": "never", "stop_ids": [3, 8]}
        found = beam_search(model, PROMPTS, beams=6, results=6, max_new_tokens=4, **options)
        finished |= {h.finished for h in found}
        for h in found:
            stops = full_pass(model, [*PROMPTS[h.prompt], *h.ids])[[3, 8]]
            sums = sum(full_pass(model, [*PROMPTS[h.prompt], *h.ids[:n]])[token] for n, token in enumerate(h.ids))
            sums = [sums + log_p for log_p in stops] if h.finished == "stop" else [sums]
            assert min(abs(h.log_probability - s) for s in sums) < 20 * MODEL
            length = len(h.ids) + (h.finished == "stop")
            assert abs(h.score - h.log_probability / length**length_penalty) < 1e-13 * abs(h.score)  # one division
    assert finished == {"stop", "length"}


def test_forced_tokens_and_least_lengths():
    model = MODELS["gpt2"]()
    for h in beam_search(model, PROMPTS, beams=4, results=4, max_new_tokens=5, forced_first=7, forced_last=2):
        assert h.ids[0] == 7 and h.ids[4] == 2 and len(h.ids) == 5
        ids = [*PROMPTS[h.prompt], *h.ids]
        log_ps = [full_pass(model, ids[:n])[ids[n]] for n in range(len(ids) - 5, len(ids))]
        assert abs(h.log_probability - sum(log_ps)) < MODEL and abs(h.score - sum(log_ps[1:4]) / 5) < MODEL
    [last] = beam_search(model, [1], beams=3, max_new_tokens=1, forced_first=7, forced_last=2)
    assert last.ids == [2] and last.score == 0
    free = beam_search(model, PROMPTS, beams=3, max_new_tokens=12, length_penalty=-1.0, stop_ids=[3, 8, 10])
    long = beam_search(model, PROMPTS, beams=3, max_new_tokens=12, length_penalty=-1.0, stop_ids=[3, 8, 10], min_new_tokens=7)
    assert min(len(h.ids) for h in free) < 7 <= min(len(h.ids) for h in long)
    assert any(h.finished == "stop" for h in long)


def test_the_text_of_a_hypothesis_is_that_of_its_ids():
    model = bytes_model(padding=3000, special_tokens=["<end>"])
    prompt = [model.tokenizer.encode("a few words"[:6])]
    found = beam_search(model, prompt, beams=6, results=6, max_new_tokens=9, stop_ids=range(0, 257, 2), early_stopping=True)
    assert [h.text for h in found] == [model.tokenizer.decode(h.ids, after=prompt[0]) for h in found]
    assert max(token for h in found for token in h.ids) < 257 and any(h.finished == "stop" for h in found)
    assert json.loads(json.dumps(dataclasses.asdict(found[0]))) == dataclasses.asdict(found[0])  # plain numbers
    assert all(h.text is None for h in beam_search(tiny("gpt2"), [1], beams=2, results=2, max_new_tokens=3))


def test_an_encoder_decoder_begins_a_text():
    """Not after its start token: a text has no space at its beginning, though its first token has one."""
    tokenizer = Tokenizer.train(["a few words, a few more words"], 60, ["<pad>", "</s>", "<unk>"], kind="Unigram")
    model = tinyplm.create("t5", num_layers=1, d_model=8, num_heads=2, d_kv=4, d_ff=8, vocab_size=tokenizer.vocab_size)
    model.tokenizer = tokenizer
    assert tokenizer.decode(tokenizer.encode("words"), after=[0]) == " words"
    sources = [[n, 1] for n in range(3, tokenizer.vocab_size)]
    found = [
        *beam_search(model, sources, beams=3, results=3, max_new_tokens=4),
        *generate(model, sources, max_new_tokens=4, samples=2),
    ]
    assert any(tokenizer.id_to_token(one.ids[0])[0] == "▁" for one in found if one.ids)
    assert [one.text for one in found] == [tokenizer.decode(one.ids) for one in found]


def test_only_ids_of_the_vocabulary_are_chosen_with_the_models_log_probabilities():
    model = tiny("gpt2")
    for h in beam_search(model, [9, 1, 9], beams=4, results=4, max_new_tokens=2, vocabulary=4, repetition_penalty=1.5):
        assert set(h.ids) <= {0, 1, 2, 3}
        log_p = sum(full_pass(model, [9, 1, 9, *h.ids[:n]])[token] for n, token in enumerate(h.ids))
        assert abs(h.log_probability - log_p) < MODEL


def test_a_step_costs_one_token_of_each_running_text(monkeypatch):
    shapes, moved = [], []

    def body(*args, input_ids, body=gpt2.body, **kwargs):
        shapes.append(input_ids.shape)
        return body(*args, input_ids=input_ids, **kwargs)

    def reordered(self, rows, shared, reordered=Cache.reordered):
        moved.extend(self.length - n for i, (row, n) in enumerate(zip(rows, shared)) if i != row)
        return reordered(self, rows, shared)

    monkeypatch.setattr(gpt2, "body", body)
    monkeypatch.setattr(Cache, "reordered", reordered)
    model = tiny("gpt2", n_positions=30)
    beam_search(model, PROMPTS, beams=4, max_new_tokens=12)
    assert shapes == [(3, 5), *[(12, 1)] * 11]  # the prompts run once
    assert moved and max(moved) <= 11 and np.mean(moved) < 5  # of up to 16 places: never the prompt, mostly the last few
    moved.clear()
    generate(model, PROMPTS, max_new_tokens=12, samples=2)
    beam_search(model, PROMPTS, beams=1, max_new_tokens=12)
    assert not moved  # rows in their order cost nothing


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("family", MODELS)
def test_a_state_goes_on_with_any_rows(device, family, cached):
    """Repeats, fewer, more, another order, and a text that differs from its padded neighbour only in what is padding."""
    model = MODELS[family]()
    settings = BeamSettings(**{**DEFAULTS, "beams": 1, "max_new_tokens": 9, "cached": cached})
    state, texts = begin(model.to(device), [[0, 5], [5], [7, 8, 9]], settings), [[0, 5], [5], [7, 8, 9]]
    for rows in ([1, 1, 2], [0, 1, 2], [2, 0, 0], [0, 1, 2, 2, 1], [4, 3, 2, 1, 0], [3, 1], [1, 0]):
        tokens = [(3 * i + len(texts)) % 11 for i in range(len(rows))]
        logits = state.next_logits()
        assert logits.shape == (len(texts), 11)
        for text, log_p in zip(texts, checked_log_softmax(logits)):
            assert np.abs(log_p - full_pass(model, text)).max() < MODEL
        state.select(np.array(rows), np.array(tokens))
        texts = [[*texts[row], token] for row, token in zip(rows, tokens)]
        assert state.texts == texts


def test_a_prompt_that_is_done_leaves_the_batch(monkeypatch):
    rows = []

    def body(*args, input_ids, body=gpt2.body, **kwargs):
        rows.append(len(input_ids))
        return body(*args, input_ids=input_ids, **kwargs)

    model = MODELS["gpt2"]()
    free = beam_search(model, PROMPTS, beams=3, results=3, max_new_tokens=12, early_stopping=True, stop_ids=[3, 8, 10])
    monkeypatch.setattr(gpt2, "body", body)
    assert_same(
        beam_search(model, PROMPTS, beams=3, results=3, max_new_tokens=12, early_stopping=True, stop_ids=[3, 8, 10]), free
    )
    assert rows[0] == 3 and rows[1] == 9 and rows[-1] < 9 and sorted(rows[1:], reverse=True) == rows[1:]


# --------------------------------------------------------------------------------------------------------- devices, errors


@pytest.mark.parametrize("family", MODELS)
def test_it_runs_on_devices(device, family):
    model = MODELS[family]()
    for options in ({}, {"stop_ids": [3], "repetition_penalty": 1.2}, {"cached": False}):
        there = beam_search(model.to(device), PROMPTS, beams=3, results=3, max_new_tokens=15, **options)
        assert_same(there, beam_search(model, PROMPTS, beams=3, results=3, max_new_tokens=15, **options))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_stop_it(bad):
    model = tiny("gpt2")
    model.params["body"]["norm"]["beta"][0] = bad
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=r"logits: expected a finite .*, got (nan|inf)"):
        beam_search(model, [1], beams=2, max_new_tokens=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "prompts: expected 1 to 6 tokens, got 0 in one prompt"),
        ({"prompts": [[1], [3, -1]]}, "prompts: expected integers from 0 to 10, got -1"),
        ({"beams": 0}, "beams: expected an integer from 1 to 1048576, got 0"),
        ({"beams": 1332}, "beams: expected at most the 1331 texts that there are, got 1332"),
        ({"beams": 9, "vocabulary": 2}, "beams: expected at most the 8 texts that there are, got 9"),
        (
            {"prompts": [[1]] * 3, "beams": 2**20, "max_new_tokens": 9},
            "prompts x beams: expected an integer from 1 to 1048576, got ",
        ),
        ({"beams": 4, "groups": 3}, "beams: expected a multiple of the 3 groups, got 4"),
        ({"groups": 3}, "groups: expected an integer from 1 to 2, got 3"),
        ({"diversity_penalty": -1}, "diversity_penalty: expected a finite number >= 0, got -1"),
        ({"results": 3}, "results: expected an integer from 1 to 2, got 3"),
        ({"min_new_tokens": 4}, "min_new_tokens: expected an integer from 0 to 3, got 4"),
        ({"min_new_tokens": 1, "stop_ids": range(11)}, "min_new_tokens: expected 0 where every token ends a text, got 1"),
        ({"early_stopping": "always"}, "early_stopping: expected one of False, True, never, got 'always'"),
        ({"early_stopping": 1}, "early_stopping: expected one of False, True, never, got 1"),
        ({"length_penalty": 11}, "length_penalty: expected a finite number >= -10 and <= 10, got 11"),
        ({"forced_first": 11}, "forced_first: expected None or an integer from 0 to 10, got 11"),
        ({"forced_first": 5, "vocabulary": 5}, "forced_first: expected None or an integer from 0 to 4, got 5"),
        ({"forced_last": -1}, "forced_last: expected None or an integer >= 0, got -1"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected a finite number > 0, got 0"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram: expected None or an integer from 1 to 2147483647, got 0"),
        ({"no_repeat_ngram": 1, "vocabulary": 2}, "no_repeat_ngram, vocabulary: expected some token that may follow, got none"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected an integer from 1 to 2147483647, got 0"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        beam_search(tiny("gpt2"), **{"prompts": [1], "beams": 2, "max_new_tokens": 3, **options})


@pytest.mark.parametrize("name", ["bert masked_lm", "score", "xlnet"])
def test_what_generates_no_text_is_refused(name):
    model = ALL_MODELS[name][0]
    for run in (lambda: beam_search(model, [1], beams=2, max_new_tokens=3), lambda: generate(model, [1], max_new_tokens=3)):
        with pytest.raises(ValueError, match="^model: expected a decoder that generates text, got ") as error:
            run()
        assert len(str(error.value).splitlines()) == 1


def test_it_is_exported():
    assert tinyplm.beam_search is beam_search
