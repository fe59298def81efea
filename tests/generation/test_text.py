"""TextStream: text from tokens as they arrive, against decode and str.find on the full text."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tinyplm.generation.text import TextStream
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.stream import ByteStream

BYTES = Tokenizer.train(["a"], 257)  # no merges: each byte is a token
BYTE_IDS = {BYTES.decode_bytes([id])[0]: id for id in range(1, 257)}
TEXTS = ["👩‍👩‍👧‍👦🇩🇪 ok", "春天来了，花开了。", "naïve café: Привет, мир!", "plain"]


class Pieces:
    """A tokenizer whose token i is the i-th of a list of byte strings, however they were split."""

    def __init__(self, pieces):
        self.pieces = pieces

    def decode_bytes(self, ids):
        return b"".join(self.pieces[i] for i in ids)

    def stream(self, after=()):
        return ByteStream(self)


def cut(data, places):
    """data split at these places, possibly inside characters; empty pieces are kept."""
    places = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in zip(places, places[1:])]


def run(pieces, stop=(), *, how="finish"):
    """(the text from each step, the stream): the rest comes from finish() or from the last push."""
    stream = TextStream(Pieces(pieces), stop)
    out = [stream.push(i, last=how == "last" and i == len(pieces) - 1) for i in range(len(pieces))]
    return ([*out, stream.finish()] if how == "finish" else out), stream


# ------------------------------------------------------------------------------------------------------------ characters


@pytest.mark.parametrize("text", TEXTS)
def test_a_character_comes_with_its_last_byte(text):
    stream, pieces = TextStream(BYTES), []
    for id in BYTES.encode(text):
        pieces.append(stream.push(id))
    # byte by byte, each piece is one complete character or empty
    assert [piece for piece in pieces if piece] == list(text) and stream.finish() == ""
    assert len(pieces) == len(text.encode())


def test_characters_split_by_merges(trained):
    """Tokens of several bytes that start or end inside a character."""
    for text in [*TEXTS, "日本語のテキスト、한국어 👩‍👩‍👧‍👦"]:
        ids = trained.encode(text)
        stream = TextStream(trained)
        pieces = [stream.push(id) for id in ids]
        assert "".join(pieces) == text and stream.finish() == "" and not any("\ufffd" in piece for piece in pieces)
    assert any(piece == "" for piece in pieces), "some token of the last text ends inside of a character"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.lists(st.integers(0, 48), max_size=8))
@example("\ufffdé", [1, 2])
def test_the_pieces_joined_are_the_text(text, places):
    for how in ("finish", "last"):
        out, stream = run(cut(text.encode(), places), how=how)
        assert "".join(out) == text and not stream.stopped
        assert all(piece.count("\ufffd") <= text.count("\ufffd") for piece in out)


@given(st.lists(st.integers(0, 255), max_size=12), st.booleans())
@example([0xF0, 0x9F, 0x92], False)  # an emoji missing its last byte
@example([0xE6, 0xE6, 0x98, 0xA5, 0xFF], True)
def test_what_is_not_utf8_is_as_in_decode(data, stopping):
    """Any bytes, since a model may emit any.  Invalid bytes become U+FFFD as soon as that is certain, or at the end."""
    ids = [BYTE_IDS[byte] for byte in data]
    stream = TextStream(BYTES, ["never there"] if stopping else ())
    assert "".join([*map(stream.push, ids), stream.finish()]) == BYTES.decode(ids)


# ---------------------------------------------------------------------------------------------------------- stop strings


def test_the_text_ends_before_a_stop_string():
    assert run([b"one", b" two", b" three"], [" two"])[0] == ["one", "", "", ""]
    out, stream = run([b"ab", b"c<", b"/", b"s", b">d"], ["</s>"])  # spans four tokens
    assert out == ["ab", "c", "", "", "", ""] and stream.stopped
    assert run([b"xx\n", b"\ny"], ["\n\n"])[0] == ["xx", "", ""]
    assert run([b"stop"], ["stop"])[0] == ["", ""]


def test_what_only_began_a_stop_string_is_released():
    assert run([b"ab<", b"/", b"p", b">"], ["</s>"])[0] == ["ab", "", "</p", ">", ""]
    assert run([b"ab<", b"/s"], ["</s>"])[0] == ["ab", "", "</s"]  # at the end
    assert run([b"ab<", b"/s"], ["</s>"], how="last")[0] == ["ab", "</s"]
    # aab: after "aa", another "a" releases only one
    assert run([b"a", b"a", b"a", b"c"], ["aab"])[0] == ["", "", "a", "aac", ""]
    out, stream = run([b"a", b"a", b"a", b"b"], ["aab"])
    assert out == ["", "", "a", "", ""] and stream.stopped


def test_the_first_of_several_stop_strings_counts():
    assert run([b"one two three"], ["three", "two"])[0] == ["one ", ""]
    assert run([b"one t", b"wo three"], ["three", "two"])[0] == ["one ", "", ""]
    # nested: in one token, the stop string that starts first wins; token by token, the one completed first
    assert run([b"xabcy"], ["b", "abc"])[0] == ["x", ""]
    assert run([b"x", b"a", b"b", b"c"], ["b", "abc"])[0] == ["x", "", "a", "", ""]


def test_a_stop_string_over_the_bytes_of_a_character():
    data = "花开了。".encode()
    out, stream = run([data[n : n + 2] for n in range(0, len(data), 2)], ["了"])
    assert "".join(out) == "花开" and stream.stopped


def longest_beginning(text, stops):
    """The number of final characters that may still become a stop string."""
    return max((n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0)


@given(
    text=st.text("abé春", max_size=16),
    stops=st.lists(st.text("abé春", min_size=1, max_size=4), min_size=1, max_size=3),
    places=st.lists(st.integers(0, 32), max_size=16),
    how=st.sampled_from(["finish", "last"]),
)
@example(text="aabaaab", stops=["aaab"], places=[1, 2, 3, 4, 5, 6], how="last")
@example(text="ab春春b", stops=["春b", "b春春é"], places=[1, 3, 4, 7], how="finish")
def test_it_is_find_on_the_whole_text(text, stops, places, how):
    """At every step, exactly the text that is certain has been emitted; it ends where the first stop string starts.

    For nested stop strings, the end depends on which is completed first: it is the end of the shortest prefix of the tokens that
    contains one.
    """
    pieces = cut(text.encode(), places)
    out, stream = run(pieces, stops, how=how)
    known, released = "", ""
    for n, piece in enumerate(out):
        final = how == "finish" and n == len(pieces) or how == "last" and n == len(pieces) - 1
        known = b"".join(pieces[: n + 1]).decode(errors="ignore")
        released += piece
        if found := [known.find(s) for s in stops if s in known]:
            assert released == known[: min(found)] and stream.stopped and not any(out[n + 1 :])
            break
        assert released == known[: len(known) - (0 if final else longest_beginning(known, stops))]
    else:
        assert released == text and not stream.stopped
    if not any(a != b and a in b for a in stops for b in stops):
        assert released == text[: min((text.find(s) for s in stops if s in text), default=None)]


@given(st.text("ab", max_size=10), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=2))
def test_after_the_end_nothing_comes(text, stops):
    assume(any(s in text for s in stops))
    stream = TextStream(BYTES, stops)
    for id in BYTES.encode(text):
        stream.push(id)
    assert stream.stopped
    assert stream.push(BYTES.encode("a")[0]) == stream.push(BYTES.encode("b")[0], last=True) == stream.finish() == ""


@pytest.mark.parametrize("stop", ["abc", [""], ["a", ""], [b"a"], [None]])
def test_bad_stop_strings_are_refused(stop):
    with pytest.raises(ValueError, match=r"^stop: expected a list of non-empty strings, got "):
        TextStream(BYTES, stop)


def test_a_prompt_has_no_end():
    unigram = Tokenizer.train(["low lower"], 20, kind="Unigram")
    assert unigram.encode("low", add_special_tokens=True)[-1] == unigram.eos_id
    assert unigram.prompt("low") == unigram.encode("low") and unigram.prompt("") == []
    pieces = Tokenizer.train(["low lower"], 280, kind="SentencePiece BPE")
    assert pieces.prompt("low") == [pieces.named_id("bos_token"), *pieces.encode("low")]
    assert BYTES.prompt("ab") == BYTES.encode("ab")
