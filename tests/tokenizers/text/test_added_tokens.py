"""Added tokens: which ones are found, where, and the spaces they absorb.
tests/interop/test_added_tokens.py compares them with `tokenizers`."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.tokenizers.text.added_tokens import AddedToken, AddedTokens, _Many


def found(text, *tokens, normalized=False, allow_special=True, normalize=None):
    """The split text: tokens as their ids, the rest unchanged."""
    pieces = AddedTokens(tokens, normalize).find(text, normalized, allow_special)
    return [text[start:end] if id is None else id for start, end, id in pieces]


def token(content, id=1, **flags):
    return AddedToken(content, id, **flags)


@pytest.mark.parametrize(
    ("text", "flags", "pieces"),
    [
        ("a<m>b", {}, ["a", 1, "b"]),
        ("<m><m>", {}, [1, 1]),
        ("", {}, []),
        ("a  <m>  b", {"lstrip": True}, ["a", 1, "  b"]),
        ("a  <m>  b", {"rstrip": True}, ["a  ", 1, "b"]),
        ("a \n<m>\u3000b", {"lstrip": True, "rstrip": True}, ["a", 1, "b"]),
        ("<m>  <m>", {"lstrip": True, "rstrip": True}, [1, 1]),
        ("a<m> <m>! <m>_", {"single_word": True}, ["a<m> ", 1, "! <m>_"]),
        ("é<m>", {"single_word": True}, ["é<m>"]),
    ],
)
def test_flags(text, flags, pieces):
    assert found(text, token("<m>", **flags)) == pieces


def test_white_space_that_went_along_is_gone():
    """After "a" absorbs all spaces, none is left for the second token."""
    assert found("a   b", token("a", 1, rstrip=True), token(" ", 2, lstrip=True)) == [1, "b"]


def test_the_longest_of_those_that_begin_at_a_place_and_the_leftmost_first():
    tokens = [token("ab", 1), token("abc", 2), token("bcd", 3)]
    assert found("abcd", *tokens) == [2, "d"]
    assert found("xbcdab", *tokens) == ["x", 3, 1]


def test_special_ones_only_if_allowed_and_normalized_ones_in_normalized_text():
    tokens = [
        token("<s>", 1),
        token("tag", 2, special=False),
        token("Word", 3, special=False, normalized=True),
    ]
    assert found("<s>tag word", *tokens, normalize=str.lower) == [1, 2, " word"]
    assert found("<s>tag word", *tokens, allow_special=False, normalize=str.lower) == [
        "<s>",
        2,
        " word",
    ]
    assert found("<s>tag word", *tokens, normalized=True, normalize=str.lower) == ["<s>tag ", 3]


@given(
    st.text("ab ", max_size=20),
    st.lists(st.text("ab ", min_size=1, max_size=3), unique=True, max_size=4),
)
def test_without_flags_the_pieces_joined_are_the_text(text, contents):
    pieces = AddedTokens([token(content, id) for id, content in enumerate(contents)], None).find(text, False, True)
    assert "".join(text[start:end] for start, end, _ in pieces) == text
    assert all(id is None or text[start:end] == contents[id] for start, end, id in pieces)
    assert not any(content in text[start:end] for start, end, id in pieces if id is None for content in contents)


@given(
    st.text("abc ", max_size=40),
    st.lists(
        st.builds(
            token,
            st.text("abc ", min_size=1, max_size=4),
            single_word=st.booleans(),
            lstrip=st.booleans(),
        ),
        max_size=8,
    ),
)
def test_many_are_found_as_few_are(text, tokens):
    """The search for thousands of tokens and the search with one pattern agree."""
    added = AddedTokens(tokens, None)
    few = added.find(text, False, True)
    contents = {token.content: token for token in tokens}
    if contents:
        added._matchers[False, True] = _Many(contents), contents
    assert added.find(text, False, True) == few


def test_many_tokens_are_read_fast_and_flat():
    begin = time.process_time()
    tokens = [AddedToken(f"<|extra {k}|>", k, special=k % 2 == 0) for k in range(100_000)]
    assert found("a<|extra 99999|>b<|extra 4|>", *tokens) == ["a", 99999, "b", 4]
    assert found("a<|extra 99999|>b<|extra 4|>", *tokens, allow_special=False) == [
        "a",
        99999,
        "b<|extra 4|>",
    ]
    assert time.process_time() - begin < 2
    for count in (39, 40, 41, 45, 3000):  # each is a prefix of the next
        prefixes = [AddedToken("q" * k, k) for k in range(1, count + 1)]
        assert found("q" * 3005, *prefixes)[0] == count and found("qqaq", *prefixes) == [2, "a", 1]
    assert time.process_time() - begin < 4
