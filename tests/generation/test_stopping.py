"""Where generation stops, at tokens and at strings, and the stream of what it has so far."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.laws import MODEL
from tests.support.families import tiny
from tests.support.generation import EVERYTHING, MODELS, PROMPTS, assert_same, bytes_model
from tinyplm.generation import Continuation, generate, stream


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("options", [{"samples": 4}, {"samples": 2, **EVERYTHING}])
def test_it_stops_before_the_stop_tokens_and_the_other_rows_go_on_unchanged(family, options):
    model = MODELS[family]()
    full = generate(model, PROMPTS, max_new_tokens=30, seed=1, **options)
    stops = {full[0].ids[5], full[-1].ids[9]}
    stopped = generate(model, PROMPTS, max_new_tokens=30, seed=1, stop_ids=stops, **options)
    ends = [next((n for n, token in enumerate(text.ids) if token in stops), None) for text in full]
    assert len(set(ends)) > 2
    for text, whole, end in zip(stopped, full, ends):
        finished = "length" if end is None else "stop"
        cut = dataclasses.replace(whole, ids=whole.ids[:end], log_probabilities=whole.log_probabilities[:end], finished=finished)
        assert_same([text], [cut])


def test_stop_ids_may_be_any_iterable():
    expected = generate(tiny("gpt2"), [1], max_new_tokens=30, samples=4, stop_ids=[3, 5])
    assert any(text.finished == "stop" for text in expected)
    for stops in ({3, 5}, (5, 3), np.array([3, 5]), {3: 0, 5: 0}.keys(), iter([3, 5])):
        assert generate(tiny("gpt2"), [1], max_new_tokens=30, samples=4, stop_ids=stops) == expected


def test_a_stop_token_has_no_text():
    model = bytes_model(special_tokens=["<end>"])
    texts = generate(model, [1], max_new_tokens=50, samples=8, temperature=3.0, stop_ids=range(0, 257, 16))
    assert any(text.finished == "stop" and len(text.text) > 3 for text in texts)
    assert all(text.text == model.tokenizer.decode(text.ids) for text in texts)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_text_ends_before_a_stop_string(family):
    """Each token is one character, so a stop string spans several tokens.  The other rows are unaffected."""
    model = bytes_model(family=family)
    options = {"max_new_tokens": 30, "samples": 2, "vocabulary": 94, "temperature": 2.0}
    full = generate(model, PROMPTS, **options)
    assert all(text.text.isascii() and len(text.text) == 30 for text in full)
    stops = [full[0].text[5:8], full[3].text[11:13], full[3].text[14], "not in any of them"]
    for text, whole in zip(generate(model, PROMPTS, stop_strings=stops, **options), full):
        places = [(whole.text.find(s), s) for s in stops if s in whole.text]
        place, stop = min(places, default=(30, ""))
        assert text.text == whole.text[:place] and text.finished == ("stop" if places else "length")
        assert text.ids == whole.ids[: place + len(stop)]  # the ids include the stop string's tokens
        assert np.allclose(text.log_probabilities, whole.log_probabilities[: len(text.ids)], rtol=0, atol=MODEL)
    for end in range(1, 4):  # a partial stop string at the end of the text is text
        stop = full[0].text[-end:] + "xyz"
        assert_same(generate(model, PROMPTS, stop_strings=[stop], **options), full)


def test_the_stream_gives_one_token_of_each_continuation_at_a_time():
    model = bytes_model()
    options = {"max_new_tokens": 20, "samples": 2, "seed": 5, "stop_ids": range(0, 256, 16), "stop_strings": ["a", "Q", "\n"]}
    expected = generate(model, PROMPTS, **options)
    texts = [Continuation(n // 2, [], [], "") for n in range(6)]
    going = list(range(6))
    for pieces in stream(model, PROMPTS, **options):
        assert [piece.row for piece in pieces] == going
        for piece in pieces:
            texts[piece.row].add(piece, options["stop_ids"])
        going = [piece.row for piece in pieces if piece.finished is None]
    assert not going and texts == expected
    assert all(piece.text is None for pieces in stream(tiny("gpt2"), [1], max_new_tokens=3) for piece in pieces)


def test_a_character_is_streamed_whole():
    """Random bytes: a character is emitted once complete, and invalid bytes become U+FFFD, as in decode."""
    model = bytes_model()
    pieces = [p for [p] in stream(model, model.tokenizer.encode("春天"), max_new_tokens=300, temperature=4.0)]
    ids, text = [p.id for p in pieces], "".join(p.text for p in pieces)
    assert text == model.tokenizer.decode(ids) and any(piece.text == "" for piece in pieces)
    assert any(len(char.encode()) > 1 and char != "\ufffd" for char in text), "no character of several bytes came"
