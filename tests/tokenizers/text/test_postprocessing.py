"""Post-processors: what each one adds and where; ids alone match those of the encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.text.encoding import Encoding
from tinyplm.tokenizers.text.postprocessing import (
    POST_PROCESSORS,
    BertProcessing,
    ByteLevel,
    Piece,
    RobertaProcessing,
    Sequence,
    Special,
    TemplateProcessing,
)

CLS, SEP = ("[CLS]", 101), ("[SEP]", 102)
SPECIAL = dict((SEP, CLS))
BERT_LIKE = TemplateProcessing.of("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", SPECIAL)
ALL = {
    "template": BERT_LIKE,
    "other order": TemplateProcessing.of("$A $A", "$B [SEP] $A [CLS] $B", SPECIAL),
    "several ids": TemplateProcessing(
        (Piece("SpecialToken", "x"), Piece("Sequence", "A")),
        special_tokens={"x": Special("x", (7, 8), ("a", "b"))},
    ),
    "default": TemplateProcessing(),
    "bert": BertProcessing(SEP, CLS),
    "roberta": RobertaProcessing(SEP, CLS),
    "bytes": ByteLevel(),
    "nothing": Sequence(),
    "bytes, template": Sequence((ByteLevel(), BERT_LIKE)),
    "nested": Sequence((Sequence((ByteLevel(), BertProcessing(SEP, CLS))), ByteLevel())),
}


def text(*tokens):
    """Tokens separated by one character; ids are 1, 2, ..."""
    ends = [sum(map(len, tokens[: k + 1])) + k for k in range(len(tokens))]
    offsets = [(end - len(token), end) for token, end in zip(tokens, ends)]
    return Encoding.of(list(range(1, len(tokens) + 1)), list(tokens), offsets, list(range(len(tokens))))


ONE, TWO = text("the", "dog"), text("ran")


def test_bert_by_template_and_by_its_own():
    for processor in (BERT_LIKE, BertProcessing(SEP, CLS)):
        pair = processor(ONE, TWO)
        assert pair.tokens == ["[CLS]", "the", "dog", "[SEP]", "ran", "[SEP]"] and pair.ids == [
            101,
            1,
            2,
            102,
            1,
            102,
        ]
        assert pair.type_ids == ([0, 0, 0, 0, 1, 1] if processor is BERT_LIKE else [0, 0, 0, 0, 0, 1])
        assert pair.special_tokens_mask == [1, 0, 0, 1, 0, 1] and pair.attention_mask == [1] * 6
        assert pair.offsets == [(0, 0), (0, 3), (4, 7), (0, 0), (0, 3), (0, 0)]
        assert pair.word_ids == [None, 0, 1, None, 0, None] and pair.sequence_ids == [
            None,
            0,
            0,
            None,
            1,
            None,
        ]
        assert processor(ONE).ids == [101, 1, 2, 102] and processor(ONE).sequence_ids == [
            None,
            0,
            0,
            None,
        ]
        assert processor(ONE, TWO, False).ids == [1, 2, 1] and processor(ONE, TWO, False).sequence_ids == [0, 0, 1]


def test_roberta():
    processor = RobertaProcessing(SEP, CLS)
    pair = processor(ONE, Encoding.of([1], ["ran"], [(0, 3)], [0], type_id=1).cut(0, 0, "Right"))
    assert [whole.type_ids for whole in (pair, *pair.overflowing)] == [[0] * 6, [0] * 7]
    assert processor(ONE, Encoding.of([1], ["ran"], [(0, 3)], [0], type_id=1), add_special_tokens=False).type_ids == [0] * 3
    pair = processor(ONE, text("Ġran"))
    assert pair.ids == [101, 1, 2, 102, 102, 1, 102]
    assert pair.sequence_ids == [None, 0, 0, None, None, 1, None]
    assert processor(ONE).tokens == ["[CLS]", "the", "dog", "[SEP]"]


def test_other_templates():
    pair = ALL["other order"](ONE, TWO)
    assert pair.tokens == ["ran", "[SEP]", "the", "dog", "[CLS]", "ran"]
    assert ALL["several ids"](ONE).ids == [7, 8, 1, 2] and ALL["several ids"](ONE).tokens[:2] == [
        "a",
        "b",
    ]
    assert ALL["default"](ONE, TWO).type_ids == [0, 0, 1]
    only = TemplateProcessing.of("[CLS]", "$A $B", SPECIAL)(ONE)
    assert only.ids == [101] and only.special_tokens_mask == [1]
    short = TemplateProcessing.of("$ $2 $a:3 $4:5 [CLS]:6", "$b $", SPECIAL)
    assert short(text("x")).type_ids == [0, 2, 3, 5, 6] and short(ONE, TWO).tokens == [
        "ran",
        "the",
        "dog",
    ]


@pytest.mark.parametrize(
    ("single", "message"),
    [
        (
            "[CLS] $A [MASK]",
            "single: expected tokens of special_tokens, ['[SEP]', '[CLS]'], got '[MASK]'",
        ),
        ("$C", "template: expected $A, $B, or $ with a number, got '$C'"),
        ("$²", "template: expected $A, $B, or $ with a number, got '$²'"),
        ("$A:x", "template: expected a type id >= 0 after the colon, got '$A:x'"),
        ("$A:٣", "template: expected a type id >= 0 after the colon, got '$A:٣'"),
        ("[CLS]:", "template: expected a type id >= 0 after the colon, got '[CLS]:'"),
        ("$B", "single: expected only the texts A, got 'B'"),
    ],
)
def test_patterns_that_are_refused(single, message):
    with pytest.raises(ValueError) as error:
        TemplateProcessing.of(single, "$A $B", SPECIAL)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("token", "span", "prefix", "expected"),
    [
        ("Ġa", (0, 1), True, (0, 1)),  # the added space: it belongs to no character of the text
        ("Ġa", (0, 2), False, (1, 2)),
        ("Ġa", (4, 6), True, (4, 6)),  # the first token
        ("ĠĠa", (0, 3), True, (2, 3)),
        ("aĠĠ", (3, 6), True, (3, 4)),
        ("Ġ", (3, 4), False, (4, 4)),
        ("ĠĠ", (0, 2), True, (2, 2)),
        ("\u3000x\t", (2, 5), False, (3, 4)),
        ("\x1cx", (2, 4), False, (2, 4)),
        ("Ċx", (2, 4), False, (2, 4)),
        ("Ġ", (0, 0), True, (0, 0)),
        ("Ġ", (2, 2), False, (2, 2)),
        ("aĠĠ", (0, 1), True, (0, 1)),  # more spaces than characters before the end
    ],
)
def test_offsets_without_the_spaces(token, span, prefix, expected):
    one = Encoding.of([1], [token], [span], [0])
    assert ByteLevel(prefix)(one).offsets == RobertaProcessing(SEP, CLS, True, prefix)(one).offsets[1:-1] == [expected]
    assert ByteLevel(prefix, trim_offsets=False)(one).offsets == [span]


def test_only_the_first_token_may_carry_the_added_space():
    assert ByteLevel()(text("Ġa", "Ġa")).offsets == [(0, 2), (4, 5)]
    words = Encoding.of([1, 1], ["Ġa", "Ġa"], [(0, 1), (0, 1)], [0, 1])  # pre-split words: each is a text with its own space
    assert ByteLevel()(words).offsets == [(0, 1), (0, 1)] and ByteLevel(False)(words).offsets == [
        (1, 1),
        (1, 1),
    ]
    cut = text("a", "Ġb", "Ġc").cut(2, 1, "Right")  # the next piece starts with one too
    assert [piece.offsets for piece in ByteLevel()(cut).overflowing] == [[(2, 4), (6, 7)]]


def test_overflow_is_processed_like_the_rest():
    cut = text("a", "b", "c").cut(2, 0, "Right")
    for processor in (BERT_LIKE, BertProcessing(SEP, CLS), RobertaProcessing(SEP, CLS)):
        [piece] = processor(cut).overflowing
        assert piece.tokens == ["[CLS]", "c", "[SEP]"] and piece.sequence_ids == [None, 0, None]
        [piece] = processor(ONE, cut).overflowing
        assert piece.tokens[-2:] == ["c", "[SEP]"] and piece.sequence_ids.count(0) == 2 and piece.sequence_ids.count(1) == 1


@pytest.mark.parametrize("name", list(ALL))
@given(first=st.integers(0, 3), second=st.none() | st.integers(0, 3), special=st.booleans())
def test_ids_alone(name, first, second, special):
    processor = ALL[name]
    texts = [None if count is None else text(*"abc"[:count]) for count in (first, second)]
    whole = processor(*texts, special)
    ids = processor.ids(*(None if one is None else one.ids for one in texts), add_special_tokens=special)
    assert ids == whole.ids and len(whole) == len(whole.tokens) == len(whole.type_ids) == len(whole.offsets)
    assert processor.added(second is not None) == sum(processor(*texts).special_tokens_mask)


def test_ids_do_not_write_into_what_they_are_given():
    for processor in ALL.values():
        first, second = [1, 2], [3]
        processor.ids(first, second).append(0)
        processor.ids(first).append(0)
        assert first == [1, 2] and second == [3]


@pytest.mark.parametrize("name", list(ALL))
def test_written_and_read(name):
    content = ALL[name].to_json()
    assert read_component(content, POST_PROCESSORS, "file") == ALL[name]
    assert read_component(content, POST_PROCESSORS, "file").to_json() == content


def test_as_it_stands_in_the_file():
    assert list(BERT_LIKE.to_json()["special_tokens"]) == [
        "[CLS]",
        "[SEP]",
    ]  # in alphabetical order
    assert ALL["several ids"].to_json() == {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "x", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"x": {"id": "x", "ids": [7, 8], "tokens": ["a", "b"]}},
    }
    assert BertProcessing(SEP, CLS).to_json() == {
        "type": "BertProcessing",
        "sep": ["[SEP]", 102],
        "cls": ["[CLS]", 101],
    }


A = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE = {"type": "TemplateProcessing", "single": [A], "pair": [A], "special_tokens": {}}
X = {"SpecialToken": {"id": "x", "type_id": 0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"type": "Other"},
            "file: type: expected one of TemplateProcessing, BertProcessing",
        ),
        (TEMPLATE | {"single": [A, X]}, "single: expected tokens of special_tokens, [], got 'x'"),
        (
            TEMPLATE | {"single": [{"Sequence": {"id": "B", "type_id": 0}}]},
            "single: expected only the texts A, got 'B'",
        ),
        (
            TEMPLATE | {"pair": [{"Sequence": {"id": "C", "type_id": 0}}]},
            "pair: expected only the texts A and B, got 'C'",
        ),
        (TEMPLATE | {"single": "$A"}, "expected single and pair, lists"),
        (
            TEMPLATE | {"single": [{"Text": {"id": "A", "type_id": 0}}]},
            "piece: expected a Sequence or a SpecialToken",
        ),
        (
            TEMPLATE | {"single": [{"Sequence": {"id": "A", "type_id": "0"}}]},
            "piece: expected a Sequence or a SpecialToken",
        ),
        (TEMPLATE | {"single": [A | X]}, "piece: expected a Sequence or a SpecialToken"),
        (
            TEMPLATE | {"special_tokens": {"x": {"id": "x", "ids": [1, 2], "tokens": ["x"]}}},
            "as many ids",
        ),
        (
            TEMPLATE | {"special_tokens": {"x": {"id": "x", "ids": ["1"], "tokens": ["x"]}}},
            "expected as many ids >= 0 as tokens",
        ),
        (TEMPLATE | {"special_tokens": {"x": {"id": "x"}}}, "with id, ids and tokens"),
        (TEMPLATE | {"special_tokens": ["x"]}, "an object of objects"),
        ({k: v for k, v in TEMPLATE.items() if k != "pair"}, "expected single and pair, lists"),
        (TEMPLATE | {"more": 1}, "more: expected none, it is not supported, got 1"),
        ({"type": "BertProcessing", "sep": ["a", 1]}, "cls: expected a value, got none"),
        (
            {"type": "BertProcessing", "sep": ["a", 1], "cls": "b"},
            "cls: expected a token and its id, got 'b'",
        ),
        (
            {"type": "RobertaProcessing", "sep": ["a", True], "cls": ["b", 1]},
            "sep: expected a token and its id, got ('a', True)",
        ),
        ({"type": "ByteLevel", "trim_offsets": 1}, "trim_offsets: expected bool, got 1"),
        ({"type": "Sequence"}, "processors: expected a list of objects, got None"),
        ({"type": "Sequence", "processors": [None]}, "expected a list of objects, got [None]"),
        (
            {"type": "Sequence", "processors": [{"type": "Other"}]},
            "file Sequence: type: expected one of TemplateProcessing",
        ),
        (
            {"type": "Sequence", "processors": [TEMPLATE, TEMPLATE]},
            "got TemplateProcessing, TemplateProcessing",
        ),
        (
            {"type": "Sequence", "processors": [ALL["nested"].to_json(), TEMPLATE]},
            "got Sequence, TemplateProcessing",
        ),
    ],
)
def test_files_that_are_refused(content, message):
    with pytest.raises(ValueError) as error:
        read_component(content, POST_PROCESSORS, "file")
    assert message in str(error.value) and str(error.value).startswith("file")


def test_a_template_that_loses_the_second_text_is_refused_when_two_are_given():
    processor = read_component(TEMPLATE, POST_PROCESSORS, "")
    assert processor(ONE).ids == [1, 2]
    for use in (
        lambda: processor(ONE, TWO),
        lambda: processor.ids([1], [2]),
        lambda: processor.added(True),
    ):
        with pytest.raises(ValueError, match="pair: expected a template with both texts, got one without"):
            use()
