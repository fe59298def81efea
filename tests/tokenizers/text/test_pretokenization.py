"""Pre-tokenizers: expected behaviour, in examples and as general laws."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples
from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.text import patterns
from tinyplm.tokenizers.text.alignment import Aligned
from tinyplm.tokenizers.text.bytelevel import chars_to_bytes
from tinyplm.tokenizers.text.pretokenization import (
    BEHAVIORS,
    PRE_TOKENIZERS,
    BertPreTokenizer,
    ByteLevel,
    CharDelimiterSplit,
    Digits,
    Metaspace,
    Punctuation,
    Sequence,
    Split,
    Whitespace,
    WhitespaceSplit,
)


def split(pattern, behavior="Isolated", invert=False):
    return Split({"Regex": pattern}, behavior, invert)


LLAMA3 = Sequence((split(patterns.LLAMA3_PATTERN), ByteLevel(add_prefix_space=False, use_regex=False)))
DEEPSEEK3 = Sequence((*map(split, patterns.DEEPSEEK3_PATTERNS), ByteLevel(add_prefix_space=False, use_regex=False)))
LOSSLESS = [
    *(Digits(), Digits(individual_digits=True), Sequence(())),
    *(Punctuation(behavior) for behavior in BEHAVIORS if behavior != "Removed"),
    *map(
        split,
        (
            patterns.CL100K_PATTERN,
            patterns.QWEN2_PATTERN,
            patterns.O200K_PATTERN,
            *patterns.DEEPSEEK3_PATTERNS,
        ),
    ),
    *(split("-|(?=a)", behavior, invert) for behavior in BEHAVIORS if behavior != "Removed" for invert in (False, True)),
    Sequence((Punctuation("Contiguous"), Sequence((Digits(), split("a+"))))),
]
SPELLERS = [
    *(ByteLevel(prefix, use_regex=use) for prefix in (True, False) for use in (True, False)),
    *(LLAMA3, DEEPSEEK3),
    *(
        Sequence((Digits(individual_digits=True), ByteLevel(prefix, use_regex=use)))
        for prefix in (True, False)
        for use in (True, False)
    ),
    Sequence((WhitespaceSplit(), Sequence((Metaspace(prepend_scheme="first"), ByteLevel())))),
]
SCHEMES = ("always", "first", "never")
OTHERS = [
    *(
        Whitespace(),
        WhitespaceSplit(),
        BertPreTokenizer(),
        CharDelimiterSplit("-"),
        CharDelimiterSplit("^"),
        Punctuation("Removed"),
    ),
    *(split("-+", "Removed", invert) for invert in (False, True)),
    *(Metaspace(prepend_scheme=scheme, split=split) for scheme in SCHEMES for split in (True, False)),
    *(Sequence((WhitespaceSplit(), Metaspace(prepend_scheme=scheme))) for scheme in SCHEMES),
    Sequence((Sequence((split("^a", "Removed"), Digits())), Metaspace(prepend_scheme="first"))),
]
ALL = LOSSLESS + SPELLERS + OTHERS
texts = st.lists(
    st.sampled_from("aas'S19 -  \n\t._▁!春éß😀") | st.characters(exclude_categories=["Cs"]),
    max_size=30,
).map("".join)
firsts = st.booleans()


def of_all(components):
    return pytest.mark.parametrize("component", components, ids=repr)


# By law


@of_all(ALL)
def test_aligned_words_are_the_words(component):
    @examples(40)
    @given(texts, firsts, st.integers(0, 5))
    def check(text, first, start):
        words = component.cut_aligned(Aligned.of(text, start), first)
        assert [word.text for word in words] == component.cut(text, first)
        assert all(word.text and len(word.text) == len(word.spans) for word in words)
        spans = [span for word in words for span in word.spans]
        assert spans == sorted(spans) and all(start <= a < b <= start + len(text) for a, b in spans)

    check()


@of_all(LOSSLESS)
def test_words_joined_are_the_text(component):
    @examples(40)
    @given(texts)
    def check(text):
        words = component.cut_aligned(Aligned.of(text))
        assert "".join(word.text for word in words) == text
        assert [span for word in words for span in word.spans] == [(k, k + 1) for k in range(len(text))]

    check()


@of_all(SPELLERS)
def test_words_spelled_are_the_words(component):
    @examples(40)
    @given(texts, firsts)
    def check(text, first):
        words = component.words(text, first)
        assert component.cut(text, first) == list(map(component.spell, words))
        assert [chars_to_bytes(component.spell(word)).decode() for word in words] == words

    check()


@of_all([Sequence(()), Sequence((ByteLevel(), Digits())), Sequence((Digits(),)), *OTHERS])
def test_others_do_not_spell(component):
    assert not hasattr(component, "spell")


@given(texts)
def test_what_is_removed(text):
    spaces = "".join(" " if char.isspace() and not "\x1c" <= char <= "\x1f" else char for char in text)
    assert WhitespaceSplit().cut(text) == [word for word in spaces.split(" ") if word]
    assert "".join(Whitespace().cut(text)) == "".join(BertPreTokenizer().cut(text)) == "".join(WhitespaceSplit().cut(text))
    assert CharDelimiterSplit("a").cut(text) == [word for word in text.split("a") if word]
    assert split("[-a]", "Removed").cut(text) == [word for word in text.replace("-", "a").split("a") if word]
    assert "".join(split("[-a]", "Removed", True).cut(text)) == "".join(char for char in text if char in "-a")


@given(texts)
def test_metaspace_is_text_with_other_spaces(text):
    shown = text.replace(" ", "▁")
    for scheme, prefix in [
        ("never", ""),
        ("always", "" if shown.startswith("▁") or not text else "▁"),
    ]:
        words = Metaspace(prepend_scheme=scheme).cut(text)
        assert "".join(words) == prefix + shown
        assert all("▁" not in word[1:] for word in words) and all(word[0] == "▁" for word in words[1:])
        assert Metaspace(prepend_scheme=scheme, split=False).cut(text) == ([prefix + shown] if text else [])
    assert Metaspace(prepend_scheme="first").cut(text, True) == Metaspace(prepend_scheme="always").cut(text)
    assert Metaspace(prepend_scheme="first").cut(text, False) == Metaspace(prepend_scheme="never").cut(text)


@of_all(ALL)
def test_json(component):
    content = component.to_json()
    assert content["type"] == type(component).__name__
    assert read_component(content, PRE_TOKENIZERS, "file") == component


# By example


@pytest.mark.parametrize(
    "behavior, words, inverted",
    [
        ("Removed", "a b c", "- - -"),
        ("Isolated", "a - - b - c", "a - - b - c"),
        ("MergedWithPrevious", "a- - b- c", "a - -b -c"),
        ("MergedWithNext", "a - -b -c", "a- - b- c"),
        ("Contiguous", "a -- b - c", "a -- b - c"),
    ],
)
def test_behaviors(behavior, words, inverted):
    assert Split({"String": "-"}, behavior).cut("a--b-c") == words.split()
    assert Split({"String": "-"}, behavior, invert=True).cut("a--b-c") == inverted.split()
    assert Punctuation(behavior).cut("a--b-c") == words.split()


def test_words():
    text = "It's 12½ $3, naïve_x\x1c!"
    assert Whitespace().cut(text) == ["It", "'", "s", "12", "½", "$", "3", ",", "naïve_x", "\x1c!"]
    assert WhitespaceSplit().cut(text) == ["It's", "12½", "$3,", "naïve_x\x1c!"]
    assert BertPreTokenizer().cut(text) == [
        "It",
        "'",
        "s",
        "12½",
        "$",
        "3",
        ",",
        "naïve",
        "_",
        "x\x1c",
        "!",
    ]
    assert Digits().cut(text) == ["It's ", "12½", " $", "3", ", naïve_x\x1c!"]
    assert Digits(individual_digits=True).cut("a12½") == ["a", "1", "2", "½"]
    assert CharDelimiterSplit(" ").cut(" a  b") == ["a", "b"]


def test_patterns():
    text = "I'M Don't1234  iPhoneX's\n\n 中文か. //\nx̃y"
    assert split(patterns.CL100K_PATTERN).cut(text) == [
        *(
            "I",
            "'M",
            " Don",
            "'t",
            "123",
            "4",
            " ",
            " iPhoneX",
            "'s",
            "\n\n",
            " 中文か",
            ".",
            " //\n",
            "x",
            "̃y",
        )
    ]
    assert split(patterns.QWEN2_PATTERN).cut("12a") == ["1", "2", "a"]
    assert split(patterns.O200K_PATTERN).cut(text) == [
        *(
            "I'M",
            " Don't",
            "123",
            "4",
            " ",
            " i",
            "Phone",
            "X's",
            "\n\n",
            " 中文か",
            ".",
            " //\n",
            "x̃y",
        )
    ]
    assert [chars_to_bytes(word).decode() for word in DEEPSEEK3.cut(text)] == [
        *(
            "I",
            "'M",
            " Don",
            "'t",
            "123",
            "4",
            " ",
            " iPhoneX",
            "'s",
            "\n\n",
            " ",
            "中文か",
            ".",
            " //\n",
            "x̃y",
        )
    ]


def test_byte_level():
    assert ByteLevel().cut("a é") == ["Ġa", "ĠÃ©"] == ByteLevel().cut(" a é")
    assert ByteLevel().cut("\ta") == ["Ġ", "ĉ", "a"]  # only a leading space prevents the added one
    assert ByteLevel(add_prefix_space=False).cut("a é") == ["a", "ĠÃ©"]
    assert ByteLevel(use_regex=False).cut("a é") == ["ĠaĠÃ©"]
    (word,) = ByteLevel(use_regex=False).cut_aligned(Aligned.of("a é"))
    assert word.spans == [(0, 1), (0, 1), (1, 2), (2, 3), (2, 3)]


def test_metaspace():
    assert Metaspace().cut("a  b") == ["▁a", "▁", "▁b"]
    assert [word.spans for word in Metaspace().cut_aligned(Aligned.of("a b", 5))] == [
        [(5, 6), (5, 6)],
        [(6, 7), (7, 8)],
    ]
    assert Metaspace("_").cut("_a b") == ["_a", "_b"]


def test_only_a_word_at_the_beginning_is_first():
    component = Sequence((WhitespaceSplit(), Metaspace(prepend_scheme="first")))
    assert component.cut("a a") == ["▁a", "a"]
    assert component.cut(" a a") == component.cut("a a", first=False) == ["a", "a"]
    assert [word.text for word in component.cut_aligned(Aligned.of("a a", 7))] == ["▁a", "a"]


def test_changed_text_keeps_its_places():
    text = "é1ñ"
    edits = [(part, int(k > 0)) for char in text for k, part in enumerate(unicodedata.normalize("NFD", char))]
    words = Sequence((Digits(), Metaspace())).cut_aligned(Aligned.of(text).changed(edits))
    assert [word.spans for word in words] == [[(0, 1)] * 3, [(1, 2)] * 2, [(2, 3)] * 3]
