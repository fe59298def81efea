"""The pre-tokenizers split as those of `tokenizers` do, with the same offsets.

Characters added to Unicode after version 14 (or, as punctuation, after version 3.2) are left out: our tables and theirs differ in
age.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

hf = pytest.importorskip("tokenizers")

from tests.support.hard_strings import HARD  # noqa: E402
from tinyplm.tokenizers.component import read_component  # noqa: E402
from tinyplm.tokenizers.text import patterns  # noqa: E402
from tinyplm.tokenizers.text.alignment import Aligned  # noqa: E402
from tinyplm.tokenizers.text.pretokenization import BEHAVIORS, PRE_TOKENIZERS  # noqa: E402


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(add_prefix_space=False, use_regex=True):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def metaspace(prepend_scheme="always", split=True, replacement="▁"):
    return {"type": "Metaspace", "replacement": replacement, "prepend_scheme": prepend_scheme, "split": split}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


WHITESPACE = {"type": "WhitespaceSplit"}
BERT = {"type": "BertPreTokenizer"}
DIGITS = {"type": "Digits", "individual_digits": True}
PUBLISHED = [patterns.CL100K_PATTERN, patterns.QWEN2_PATTERN, patterns.O200K_PATTERN, *patterns.DEEPSEEK3_PATTERNS]
COMPONENTS = [
    {"type": "Whitespace"},
    WHITESPACE,
    BERT,
    DIGITS,
    {"type": "Digits", "individual_digits": False},
    *({"type": "CharDelimiterSplit", "delimiter": char} for char in "- ]^▁"),
    *({"type": "Punctuation", "behavior": behavior} for behavior in BEHAVIORS),
    *(byte_level(prefix, use) for prefix in (True, False) for use in (True, False)),
    *(metaspace(scheme, split) for scheme in ("always", "first", "never") for split in (True, False)),
    *(metaspace(replacement=char) for char in " ^a-"),
    *map(split, PUBLISHED),
    sequence(),
    sequence(WHITESPACE, metaspace()),
    sequence(WHITESPACE, metaspace("first")),
    sequence({"type": "Punctuation", "behavior": "Removed"}, metaspace("first")),
    sequence(byte_level(True), metaspace("first", split=False)),
    sequence(metaspace("first"), DIGITS),
    sequence(metaspace("first"), metaspace("first", replacement="_")),
    sequence(split(patterns.LLAMA3_PATTERN), byte_level(use_regex=False)),
    sequence(split(patterns.LLAMA3_PATTERN, "Removed", True), byte_level(use_regex=False)),
    sequence(*map(split, patterns.DEEPSEEK3_PATTERNS), byte_level(use_regex=False)),
    sequence(DIGITS, byte_level(True)),
    sequence({"type": "Punctuation", "behavior": "Contiguous"}, byte_level(), DIGITS),
    sequence(sequence(WHITESPACE, metaspace("first")), sequence(metaspace("first", replacement="_"), byte_level(True))),
    *(
        split(pattern, behavior, invert, kind)
        for (pattern, kind) in [("-", "String"), ("s-", "String"), ("", "String"), ("[-s]+", "Regex"), ("(?=-)|a*", "Regex")]
        for behavior in BEHAVIORS
        for invert in (False, True)
    ),
]
EXPRESSIONS = [  # both engines read these alike
    *(r"^", r"$", r"^\w", r"\w$", r".", r".+", r"a|", r"|a", r"a??", r"a*?", r"\b", r"\B", r"\A\w", r"a?+a", r"a*+a", r"a++b?"),
    *(
        r"(?i:'s|K)",
        r"(?i)k|S",
        r"(?i:é)",
        r"[^\W\d]",
        r"[\W]",
        r"[\\w]+",
        r"\W+",
        r"a\b|\B-",
        r"[[:alpha:]]+",
        r"[^[:space:]]",
        r"[]a]",
        r"[^]a]+",
        r"[\w-]",
        r"[a-s\-]+",
    ),
    *(
        r"a{2}",
        r"a{,2}",
        r"a{1,}?",
        r"a{1,2}?",
        r"(a)(s)?",
        r"(?<x>a)s",
        r"(?<=a)s",
        r"(?<!a)s",
        r"(?>a+)s",
        r"(?:as)+",
        r"s(?!\S)",
    ),
    *(r"\p{^L}", r"\P{L}+", r"\p{Han}+", r"\u0061\x73", r"\.|\-|\ ", r"\t|\n|\r", r"[\n\r]+", r"\s+", r"\d", r"}|a}"),
]


def assigned(char: str) -> bool:
    """In Unicode 14, and not U+0295, which became a caseless letter in Unicode 17."""
    return unicodedata.category(char) not in ("Cn", "Cs") and char != "\u0295"


def old_punctuation(char: str) -> bool:
    """Its punctuation status has not changed since Unicode 3.2 (theirs is Unicode 8, where U+111C9 was punctuation)."""
    now, before = unicodedata.category(char), unicodedata.ucd_3_2_0.category(char)
    return (now[0] == "P") == (before[0] == "P") and char != "\U000111c9"


def name(component):
    return json.dumps(component, ensure_ascii=False)


def both(component):
    """Ours and theirs, from the same JSON object."""
    content = json.loads(hf.Tokenizer(hf.models.BPE()).to_str())
    content["pre_tokenizer"] = component
    theirs = hf.Tokenizer.from_str(json.dumps(content))
    ours = read_component(component, PRE_TOKENIZERS, "test")
    assert ours.to_json() == json.loads(theirs.to_str())["pre_tokenizer"]
    return ours, theirs.pre_tokenizer


def words(pieces):
    return [(piece.text, piece.original(0, len(piece.text))) for piece in pieces]


def same(ours, theirs, text):
    expected = theirs.pre_tokenize_str(text) if text else []  # their empty Sequence leaves an empty word
    assert words(ours.cut_aligned(Aligned.of(text))) == expected
    assert ours.cut(text) == [word for word, _ in expected]


common = st.sampled_from(
    list("aaass's'SK19 -- --\n\r\t._▁▁,!w\\春éß\u017f\u212a\u0301\u200d\x1c\x85\xa0\u3000²Ⅳ😀") + ["  ", "'ll", "\r\n"]
)
assigned_chars = st.characters(exclude_categories=["Cs", "Cn"]).filter(assigned)
texts = st.lists(common | assigned_chars, max_size=30).map("".join)
by_component = pytest.mark.parametrize("component", COMPONENTS, ids=name)


@by_component
def test_hard_strings(component):
    ours, theirs = both(component)
    for text in HARD:
        same(ours, theirs, text)


@by_component
def test_fuzzed_unicode(component):
    ours, theirs = both(component)

    @settings(max_examples=60)
    @given(texts)
    def check(text):
        same(
            ours, theirs, "".join(filter(old_punctuation, text)) if "unctuation" in name(component) or component == BERT else text
        )

    check()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions(expression):
    pairs = [both(split(expression, behavior)) for behavior in BEHAVIORS]

    @settings(max_examples=60)
    @given(st.sampled_from(pairs), st.lists(common, max_size=20).map("".join))
    def check(pair, text):
        same(*pair, text)

    check()


@functools.cache
def every_character() -> list[str]:
    """All assigned characters, but only every hundredth in groups of thousands."""
    chars = [char for char in map(chr, range(sys.maxunicode + 1)) if assigned(char)]
    many = ("CJK UNIFIED", "HANGUL SYLLABLE", "TANGUT", "<PRIVATE USE")
    return [char for char in chars if ord(char) % 100 == 0 or not unicodedata.name(char, "<PRIVATE USE").startswith(many)]


@pytest.mark.parametrize(
    "component",
    [
        *(BERT, DIGITS, WHITESPACE, {"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Isolated"}, byte_level()),
        *map(split, PUBLISHED),
        *(split(rf"\p{{{kind}}}") for kind in ("L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "P", "S", "Han")),
        *(split(kind) for kind in (r"\s", r"\w", r"\W", r"\d", r"[\w]", r"[\W]", r"[^\w]", r"\b", r"(?i:s)", r"(?i:[k-m])")),
    ],
    ids=name,
)
def test_every_character(component):
    ours, theirs = both(component)
    wanted = old_punctuation if component == BERT or component["type"] == "Punctuation" else bool
    chars = list(filter(wanted, every_character()))
    assert len(chars) > 30_000
    for start in range(0, len(chars), 300):
        text = "".join(f"a{char}a{char}1{char}." for char in chars[start : start + 300])
        assert ours.cut(text) == [word for word, _ in theirs.pre_tokenize_str(text)]


def pieces_of_theirs(pre_tokenizer, text, change=None, cut_at=None):
    """Their words after the text was changed or split in two."""
    pieces = hf.PreTokenizedString(text)
    if change is not None:
        pieces.normalize(lambda piece: change.normalize(piece))
    if cut_at is not None:
        pieces.split(lambda _, piece: [piece[:cut_at], piece[cut_at:]])
    pre_tokenizer.pre_tokenize(pieces)
    return [(word, span) for word, span, _ in pieces.get_splits("original", "char")]


@by_component
def test_pieces_that_are_not_first(component):
    ours, theirs = both(component)
    for text, at in itertools.product(["a b", " a  -b", "as-s1 .\n b", "éß 春 -'s"], (1, 2)):
        first, second = Aligned.of(text[:at]), Aligned.of(text[at:], at)
        expected = pieces_of_theirs(theirs, text, cut_at=at)
        assert words(ours.cut_aligned(first, True)) + words(ours.cut_aligned(second, False)) == expected
        assert ours.cut(first.text, True) + ours.cut(second.text, False) == [word for word, _ in expected]


@by_component
def test_text_that_was_changed_before(component):
    """Decomposed: accents become characters that are not in the original."""
    ours, theirs = both(component)
    for text in ("é", "héß-ṩ 1", "-é ṩé--ñ", " ä's ö1ü", "ñ\nã\r\n한국"):
        edits = [(part, int(k > 0)) for char in text for k, part in enumerate(unicodedata.normalize("NFD", char))]
        expected = pieces_of_theirs(theirs, text, change=hf.normalizers.NFD())
        assert words(ours.cut_aligned(Aligned.of(text).changed(edits))) == expected


@pytest.mark.parametrize("scheme", [None, "always", "first", "never"])
@pytest.mark.parametrize("prefix", [None, True])
def test_metaspace_of_old_files(scheme, prefix):
    old = {"type": "Metaspace", "replacement": "_", "str_rep": "_"}
    old |= {"add_prefix_space": prefix} if prefix else {}
    old |= {"prepend_scheme": scheme} if scheme else {}
    same(*both(old), " a b_c")


def test_patterns_are_the_published_ones():
    qwen = pytest.importorskip("transformers.models.qwen2.tokenization_qwen2")
    tiktoken = inspect.signature(pytest.importorskip("transformers.convert_slow_tokenizer").TikTokenConverter)
    assert qwen.PRETOKENIZE_REGEX == patterns.QWEN2_PATTERN
    assert tiktoken.parameters["pattern"].default == patterns.LLAMA3_PATTERN
