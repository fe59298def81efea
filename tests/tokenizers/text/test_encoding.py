"""Truncation, padding and arrays: hand-computed cases, the naive reference, and laws that hold for any lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.tokenizers.truncation import longest_first, windows, windows_from_the_end
from tinyplm.tokenizers.text.encoding import (
    PER_TOKEN,
    Encoding,
    Padding,
    Truncation,
    arrays,
    pad,
    truncate,
)


def text(count, type_id=0):
    """Tokens 0, 1, 2, ...; every two tokens form a word."""
    ids = list(range(count))
    return Encoding.of(
        ids,
        [f"t{i}" for i in ids],
        [(3 * i, 3 * i + 2) for i in ids],
        [i // 2 for i in ids],
        type_id,
    )


def flat(encoding):
    return encoding.ids, [piece.ids for piece in encoding.overflowing]


counts = st.integers(0, 12)


def test_an_encoding_of_one_text():
    one = text(3, type_id=1)
    assert (
        len(one) == 3 and one.type_ids == [1, 1, 1] and one.attention_mask == [1, 1, 1] and one.special_tokens_mask == [0, 0, 0]
    )
    assert one.sequence_ids == [0, 0, 0] and one.numbered(1).sequence_ids == [1, 1, 1] and one.overflowing == []
    whole = Encoding.merge(
        [
            Encoding.special([9], ["[CLS]"]),
            one.numbered(0),
            Encoding.special([8], ["x"]),
            one.numbered(1),
        ]
    )
    assert whole.ids == [9, 0, 1, 2, 8, 0, 1, 2] and whole.word_ids == [
        None,
        0,
        0,
        1,
        None,
        0,
        0,
        1,
    ]
    assert whole.sequence_ids == [None, 0, 0, 0, None, 1, 1, 1] and whole.special_tokens_mask == [
        1,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
    ]
    assert whole.offsets == [(0, 0), (0, 2), (3, 5), (6, 8)] * 2 and whole.type_ids == [
        0,
        1,
        1,
        1,
        0,
        1,
        1,
        1,
    ]


@given(counts, st.integers(1, 9), st.integers(0, 8), st.sampled_from(["Right", "Left"]))
def test_what_is_cut_off_follows_in_windows(count, length, stride, direction):
    stride = min(stride, length - 1)
    whole = text(count)
    result, none = truncate(whole, None, Truncation(length, stride=stride, direction=direction))
    assert none is None
    expected = (windows if direction == "Right" else windows_from_the_end)(whole.ids, length, stride)
    assert [result.ids, *(piece.ids for piece in result.overflowing)] == expected
    for piece in (result, *result.overflowing):  # all lists are truncated alike
        of_whole = [[getattr(whole, name)[i] for i in piece.ids] for name in PER_TOKEN]
        assert [getattr(piece, name) for name in PER_TOKEN] == of_whole


@given(
    counts,
    counts,
    st.integers(0, 4),
    st.integers(0, 20),
    st.sampled_from(["LongestFirst", "OnlyFirst", "OnlySecond"]),
)
def test_two_texts_are_cut_to_fit(first, second, added, length, strategy):
    truncation = Truncation(length, strategy)
    room = length - added
    if room < 0:
        with pytest.raises(ValueError, match=f"max_length: expected room for {added} special tokens, got {length}"):
            truncate(text(first), text(second), truncation, added)
        return
    excess = max(0, first + second - room)
    if strategy == "LongestFirst" or room == 0:
        expected = longest_first(first, second, room)
    else:
        expected = (first - excess, second) if strategy == "OnlyFirst" else (first, second - excess)
        if excess and min(expected) <= 0 and expected[strategy == "OnlySecond"] <= 0:
            with pytest.raises(
                ValueError,
                match=rf"expected room for a token .* \({strategy}\), got {excess} too many",
            ):
                truncate(text(first), text(second), truncation, added)
            return
    cut = truncate(text(first), text(second), truncation, added)
    assert tuple(map(len, cut)) == expected
    for piece, count in zip(cut, (first, second)):  # and nothing is lost
        assert piece.ids + [i for rest in piece.overflowing for i in rest.ids] == list(range(count))


@given(counts, counts, st.integers(1, 9), st.sampled_from(["Right", "Left"]))
def test_windows_know_which_text_they_are_of(first, second, length, direction):
    whole = Encoding.merge(
        [
            Encoding.special([9], ["x"]),
            text(first),
            Encoding.special([9], ["x"]),
            text(second).numbered(1),
        ]
    )
    cut = whole.cut(length, 0, direction)
    windows = [cut, *cut.overflowing] if direction == "Right" else [*cut.overflowing[::-1], cut]
    assert [number for window in windows for number in window.sequence_ids] == whole.sequence_ids
    assert all(0 <= start <= end <= len(window) for window in windows for start, end in window.sequence_ranges.values())


def test_only_second_needs_a_second_text():
    assert truncate(text(3), None, Truncation(3, "OnlySecond")) == (text(3), None)
    with pytest.raises(
        ValueError,
        match="strategy: expected a second text for OnlySecond, got none",
    ):
        truncate(text(5), None, Truncation(4, "OnlySecond"), added=1)


def test_a_stride_that_is_too_long_for_the_share_of_a_text():
    with pytest.raises(ValueError, match="stride: expected less than the 2 tokens this text is cut to, got 2"):
        truncate(text(9), text(9), Truncation(4, stride=2))
    assert len(truncate(text(1), text(3), Truncation(4, stride=2))[1]) == 3  # nothing is truncated


def test_overflow_of_two_texts_is_every_combination():
    first, second = truncate(text(4).numbered(0), text(6, 1).numbered(1), Truncation(4))
    assert flat(first) == ([0, 1], [[2, 3]]) and flat(second) == ([0, 1], [[2, 3], [4, 5]])
    whole = first.joined(second)
    assert whole.ids == [0, 1, 0, 1] and [piece.ids for piece in whole.overflowing] == [
        [2, 3, 0, 1],
        [2, 3, 2, 3],
        [2, 3, 4, 5],
        [0, 1, 2, 3],
        [0, 1, 4, 5],
    ]
    assert all(piece.type_ids == [0, 0, 1, 1] for piece in whole.overflowing)


@given(
    st.lists(counts, min_size=1, max_size=4),
    st.none() | counts,
    st.none() | st.integers(0, 5),
    st.booleans(),
)
def test_padding(lengths, fixed, multiple, left):
    batch = [truncate(text(count).numbered(0), None, Truncation(7))[0] for count in lengths]
    padding = Padding(
        "BatchLongest" if fixed is None else {"Fixed": fixed},
        "Left" if left else "Right",
        multiple,
        99,
        5,
        "<pad>",
    )
    target = max(map(len, batch)) if fixed is None else fixed
    while multiple and target % multiple:
        target += 1
    result = pad(batch, padding)
    assert len(result) == len(batch)
    for before, after in zip(batch, result):
        assert len(before.overflowing) == len(after.overflowing)
        for old, new in zip((before, *before.overflowing), (after, *after.overflowing)):
            added = max(0, target - len(old))
            filling = {
                "ids": 99,
                "type_ids": 5,
                "tokens": "<pad>",
                "offsets": (0, 0),
                "word_ids": None,
                "special_tokens_mask": 1,
                "attention_mask": 0,
                "sequence_ids": None,
            }
            for name, value in filling.items():
                kept = getattr(old, name)
                assert getattr(new, name) == ([value] * added + kept if left else kept + [value] * added)
            assert len(new) == len(old) + added


def test_arrays():
    result = arrays(pad([text(2), text(3, 1)], Padding(pad_id=9)))
    assert result["input_ids"].tolist() == [[0, 1, 9], [0, 1, 2]] and result["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert result["token_type_ids"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert result["special_tokens_mask"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert result["offsets"].tolist() == [[[0, 2], [3, 5], [0, 0]], [[0, 2], [3, 5], [6, 8]]]
    assert set(result) == {
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "special_tokens_mask",
        "offsets",
    }
    assert all(array.dtype == np.int64 for array in result.values())
    for encodings, shape in (([], (0, 0)), ([text(0)] * 2, (2, 0))):
        empty = arrays(encodings)
        assert empty["input_ids"].shape == shape and empty["offsets"].shape == (*shape, 2) and len(empty) == 5


def test_overflow_becomes_rows_that_say_whose_they_are():
    batch = pad([truncate(text(count), None, Truncation(2))[0] for count in (5, 1, 3)], Padding(pad_id=9))
    result = arrays(batch)
    assert result["input_ids"].tolist() == [[0, 1], [2, 3], [4, 9], [0, 9], [0, 1], [2, 9]]
    assert result["overflow_to_sample"].tolist() == [0, 0, 0, 1, 2, 2] and result["overflow_to_sample"].dtype == np.int64
    without = arrays(batch, overflowing=False)
    assert without["input_ids"].tolist() == [[0, 1], [0, 9], [0, 1]] and "overflow_to_sample" not in without


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"encodings: expected equal lengths \(pad first\), got 2 to 4"):
        arrays([text(2), text(4), text(3)])


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (Truncation, {}, "max_length: expected a value, got none"),
        (Truncation, {"max_length": "5"}, "max_length: expected int, got '5'"),
        (Truncation, {"max_length": True}, "max_length: expected int, got True"),
        (Truncation, {"max_length": -1}, "max_length: expected an integer >= 0, got -1"),
        (
            Truncation,
            {"max_length": 4, "stride": 4},
            "stride: expected less than max_length 4, got 4",
        ),
        (Truncation, {"max_length": 4, "stride": -1}, "stride: expected an integer >= 0, got -1"),
        (
            Truncation,
            {"max_length": 4, "strategy": "longest_first"},
            "one of LongestFirst, OnlyFirst, OnlySecond, got 'longest",
        ),
        (
            Truncation,
            {"max_length": 4, "direction": "right"},
            "direction: expected one of Right, Left, got 'right'",
        ),
        (
            Truncation,
            {"max_length": 4, "more": 1},
            "more: expected none, it is not supported, got 1",
        ),
        (
            Padding,
            {"strategy": "Longest"},
            'strategy: expected "BatchLongest" or {"Fixed": length}, got \'Longest\'',
        ),
        (
            Padding,
            {"strategy": {"Fixed": -1}},
            "strategy: Fixed: expected an integer from 0 to 1048576, got -1",
        ),
        (
            Padding,
            {"strategy": {"Longest": 1}},
            'strategy: expected "BatchLongest" or {"Fixed": length}',
        ),
        (Padding, {"direction": "Up"}, "direction: expected one of Right, Left, got 'Up'"),
        (
            Padding,
            {"pad_to_multiple_of": 1.5},
            "pad_to_multiple_of: expected int | None, got 1.5",
        ),
        (Padding, {"pad_id": -1}, "pad_id: expected an integer >= 0, got -1"),
        (Padding, {"pad_type_id": None}, "pad_type_id: expected int, got None"),
        (Padding, {"pad_token": 0}, "pad_token: expected str, got 0"),
    ],
)
def test_settings_that_are_refused(kind, content, message):
    with pytest.raises(ValueError) as error:
        kind.from_json(content, "tokenizer.json")
    assert message in str(error.value) and "tokenizer.json" in str(error.value)


def test_settings_as_they_stand_in_the_file():
    truncation = {"max_length": 8, "strategy": "OnlyFirst", "stride": 2, "direction": "Left"}
    padding = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": 4,
        "pad_id": 1,
        "pad_type_id": 2,
        "pad_token": "p",
    }
    assert Truncation.from_json(truncation, "") == Truncation(8, "OnlyFirst", 2, "Left")
    assert Truncation.from_json(truncation, "").to_json() == truncation and Padding.from_json(padding, "").to_json() == padding
