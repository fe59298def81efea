"""Normalizers: the fast form and the form with spans agree; hand-computed cases; files; refused input."""

import base64
import json
import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.tokenizers import charsmap
from tests.strategies import examples
from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.text.alignment import Aligned
from tinyplm.tokenizers.text.normalization import (
    NFC,
    NFD,
    NFKC,
    NFKD,
    NORMALIZERS,
    BertNormalizer,
    ByteLevel,
    Lowercase,
    Nmt,
    Precompiled,
    Prepend,
    Replace,
    Sequence,
    Strip,
    StripAccents,
)
from tinyplm.tokenizers.text.precompiled import LongestMatch, _clusters

RULES = {
    **{
        "ﬁ": "fi",
        "é": "e\u0301",
        "½": "1/2",
        "\n": " ",
        "\x07": "",
        "Ａ": "a",
        "a": "A",
        "\r": " ",
        "ab": "no",
        "\u0323": "",
    },
    **{
        "e\u0301": "é",
        "o\u0308": "ö",
        "o\u0308\u0304": "ȫ",
        "ka\u0323": "?",
        "漢": "汉",
        "😀": ":)",
        "ｶ": "カ",
        "ｶﾞ": "ガ",
        "u\u0308": "uex",
        "\u0600": "#",
    },
}
MAP = base64.b64encode(charsmap.build(RULES)).decode()

FLAGS = [(True, True), (True, False), (False, True), (False, False)]
ALL = [
    *(
        NFC(),
        NFD(),
        NFKC(),
        NFKD(),
        Lowercase(),
        StripAccents(),
        Nmt(),
        ByteLevel(),
        Prepend("▁x"),
        Precompiled(MAP),
    ),
    *(Strip(left, right) for left, right in FLAGS),
    *(BertNormalizer(*flags, accents, low) for flags in FLAGS[:3] for accents in (None, True, False) for low in (True, False)),
    *(Replace({"String": old}, new) for old, new in (("e", "xyz"), ("ab", ""), ("\n", "▁"), ("e\u0301", "é"), ("", "-"))),
    *(Replace({"Regex": old}, new) for old, new in (("e*", r"\1$1"), (r"\s+", " "), (r"(?=e)|\p{M}+", "-"), ("^", "^"))),
    Sequence((NFD(), StripAccents(), Lowercase(), Prepend("▁"))),
    Sequence(()),
]

HARD = list("ﬁ½ÉéİıΣσςǅ\u0344\u0f73\u0f71\x00\t\n\x07\x1c\x85\xa0\u200d\ufe0f")
HARD += list("👩🇩🇪一㐀𠀀豈か\u3099ｶﾞ각ᄀ\u1161\u11a8 \u2581\u200b\ufeff\ufffdaeokAe")
MARKS = list("\u0301\u0308\u0304\u0323\u0327\u0338\u093c\u094dक\u0600")
texts = st.lists(
    st.one_of(st.sampled_from(HARD), st.sampled_from(MARKS), st.characters(exclude_categories=["Cs"])),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("normalizer", ALL, ids=str)
@examples(40)
@given(text=texts)
def test_both_forms_say_the_same(normalizer, text):
    result = normalizer.aligned(Aligned.of(text, 5))
    assert result.text == normalizer(text)
    assert len(result.spans) == len(result.text) and result.start == 5
    at = 5
    for start, end in result.spans:
        assert at <= start <= end <= 5 + len(text)  # left to right, inside the text
        at = start


@pytest.mark.parametrize("normalizer", ALL, ids=str)
def test_nothing_stays_nothing(normalizer):
    assert normalizer("") == ""
    assert normalizer.aligned(Aligned.of("")) == Aligned.of("")


def spelled(normalizer, text):
    """text and spans as one string: "a01 b12"."""
    result = normalizer.aligned(Aligned.of(text))
    return " ".join(f"{char}{start}{end}" for char, (start, end) in zip(result.text, result.spans))


@pytest.mark.parametrize(
    "normalizer, text, expected",
    [
        (NFD(), "éa", "e01 \u030101 a12"),
        (NFC(), "e\u0301a", "é01 a23"),
        (NFC(), "o\u0308\u0304x", "ȫ01 x34"),
        (NFC(), "e\u0327\u0301x", "ȩ01 \u030123 x34"),
        (
            NFC(),
            "a\u0301\u0302",
            "á01 \u030223",
        ),  # the first blocks the second: same combining class
        (
            NFC(),
            "a\u0338\u0301b",
            "á01 \u033823 b34",
        ),  # composed across a mark of another class, which then takes its span
        (NFC(), "각\u11a8", "각01 \u11a812"),
        (NFC(), "\u1100\u1161\u11a8x", "각01 x34"),
        (NFKC(), "ﬁx", "f01 i01 x12"),
        (NFD(), "a\u0301\u0323", "a01 \u032312 \u030123"),  # reordered; the spans follow the positions
        (NFD(), "é\u0323", "e01 \u032312 \u030112"),  # the inserted mark comes after
        (Lowercase(), "İA", "i01 \u030701 a12"),
        (StripAccents(), "a\u0301\u093fb", "a01 b34"),
        (Strip(), "  a b  ", "a23  34 b45"),
        (Prepend("ab"), "xy", "a01 b01 x01 y12"),
        (Replace({"String": "bc"}, "12"), "abcd", "a01 123 223 d34"),
        (Replace({"Regex": "x*"}, "-"), "axb", "-00 a01 -12 b23 -23"),  # no empty match after the x
        (ByteLevel(), "é x", "Ã01 ©01 Ġ12 x23"),
        (BertNormalizer(), "一É\x00\nx", " 01 一01  01 e12  34 x45"),
        (Nmt(), "a\x01\tb\u200b", "a01  23 b34  45"),
        (Precompiled(MAP), "½x", "101 /01 201 x12"),
        (NFC(), "e\u0301a\u033d\u0301", "é01 a23 \u033d34 \u030145"),  # blocked, though á exists
        (Precompiled(MAP), "u\u0308x", "u01 e12 x12 x23"),
        (Precompiled(MAP), "xe\u0301y", "x01 é12 y34"),
        (
            Precompiled(MAP),
            "\x07xyz",
            "x01 y12 z23",
        ),  # a dropped first character is not counted: spans are one too far left, as in the library
        (Precompiled(MAP), "x\x07yz", "x01 y23 z34"),
    ],
)
def test_by_hand(normalizer, text, expected):
    assert spelled(normalizer, text) == expected


@pytest.mark.parametrize(
    "normalizer, text, expected",
    [
        (Lowercase(), "ΑΣ ΣΑΣ", "ασ σασ"),
        (StripAccents(), "é e\u0301", "é e"),
        (BertNormalizer(), "Ünï\tİ\u200d漢字\ufffd", "uni i 漢  字 "),
        (BertNormalizer(lowercase=False), "Üa", "Üa"),
        (BertNormalizer(strip_accents=False), "Ü", "ü"),
        (BertNormalizer(lowercase=False, strip_accents=True), "Ü", "U"),
        (BertNormalizer(clean_text=False, handle_chinese_chars=False), "\t漢", "\t漢"),
        (BertNormalizer(), "\U0002b81f\U0002b820\U0002b920", " \U0002b81f \U0002b820 \U0002b920 "),
        (Sequence((NFD(), StripAccents(), Lowercase(), Prepend("▁"))), "ÉA", "▁ea"),
        (Strip(), "\x1c\u3000a\x85", "\x1c\u3000a"),
        (Strip(True, False), " a ", "a "),
        (Strip(False, True), " a ", " a"),
        (Replace({"String": "."}, r"\g<0>"), "a.b", r"a\g<0>b"),
        (Replace({"Regex": "^a"}, "-"), "aa\na", "-a\n-"),
        (Nmt(), "\ufeffa\x0bb\x00\x85", " ab\x00\x85"),
        (Precompiled(MAP), "ﬁ\u0301 ﬁ", "fi fi"),  # the whole cluster is replaced, using its shortest match
        (
            Precompiled(MAP),
            "ab o\u0308\u0304",
            "Ab ö",
        ),  # "ab" is not a cluster; the mark after ö is lost
        (Precompiled(MAP), "ｶﾞ\r\n", "カﾞ "),  # 6 bytes: character by character
        (Precompiled(MAP), "x\r\nx", "x x"),
        (Precompiled(MAP), "x\u0600ax", "x#x"),
        (Precompiled(MAP), "é漢😀", "e\u0301汉:)"),
    ],
)
def test_text_by_hand(normalizer, text, expected):
    assert normalizer(text) == expected


@given(texts)
def test_precompiled_against_the_naive_form(text):
    assert "".join(_clusters(text)) == text
    assert Precompiled(MAP)(text) == charsmap.normalize(RULES, _clusters(text))


@pytest.mark.parametrize("far", [False, True])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=2),
        st.text(st.characters(exclude_characters="\0"), max_size=3),
        min_size=1,
        max_size=30,
    ),
    texts,
)
def test_precompiled_with_any_rules(far, rules, text):
    normalizer = Precompiled(base64.b64encode(charsmap.build(rules, far)).decode())
    for part in (text, "".join(rules)):
        assert normalizer(part) == charsmap.normalize(rules, _clusters(part))


@pytest.mark.parametrize("far", [False, True])
@given(
    st.dictionaries(st.text("ab\u0301가é", min_size=1, max_size=4), st.text("xyé한ﬁ", max_size=3), max_size=20),
    st.text("abc\u0301가é", max_size=30),
)
def test_the_longest_match(far, rules, text):
    """SentencePiece's own rule; most texts have several rules that start at the same position."""
    normalizer = LongestMatch(base64.b64encode(charsmap.build(rules, far)).decode())
    assert normalizer(text) == charsmap.normalize_longest(rules, text)
    piece = normalizer.aligned(Aligned.of(text))
    assert piece.text == normalizer(text) and len(piece.spans) == len(piece.text)
    again = NORMALIZERS["Precompiled"].from_json(normalizer.to_json(), "")
    assert type(again) is LongestMatch and again == normalizer


@pytest.mark.parametrize(
    "clusters",
    [
        "\r\n|\n|\r|a\u0301\u0302|b",
        "🇩🇪|🇫🇷|🇩",
        "👩\u200d👩\u200d👧|👩🏽|x",
        "각\u11a8|\u1100\u1100\u1161\u11a8|\u1161|a",
        "\u0915\u094d\u0915|a\u094d|\u0915|\u0915\u093f",
        "\u0600\u0600a\u0301|\u0600|\n|\u0301|\x00|\u0301",
        "\u0915\u094d\u200d\u0937\u094d\u0937",
    ],
)
def test_clusters(clusters):
    """Unicode Standard Annex #29, rules GB3 to GB13."""
    assert _clusters(clusters.replace("|", "")) == clusters.split("|")


@pytest.mark.parametrize("normalizer", ALL, ids=str)
def test_files(normalizer):
    content = json.loads(json.dumps(normalizer.to_json()))
    again = read_component(content, NORMALIZERS, "normalizer")
    assert again == normalizer and again.to_json() == content


def test_defaults_and_names():
    assert read_component({"type": "BertNormalizer"}, NORMALIZERS, "n") == BertNormalizer(True, True, None, True)
    assert read_component({"type": "Strip", "strip_left": False}, NORMALIZERS, "n") == Strip(False, True)
    assert all(kind.__name__ == name for name, kind in NORMALIZERS.items()) and len(NORMALIZERS) == 14


@pytest.mark.parametrize("normalizer", ALL, ids=str)
def test_pickled(normalizer):
    """Including after use, with a filled cache."""
    text = "e\u0301 ½ Ａ"
    expected = normalizer(text)
    assert pickle.loads(pickle.dumps(normalizer))(text) == expected


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {"type": "Lower"},
            "n: type: expected one of NFC, NFD, NFKC, NFKD, Lowercase, StripAccents,",
        ),
        ({"type": "NFC", "version": 3}, "NFC: version: expected none, it is not supported, got 3"),
        ({"type": "Prepend"}, "Prepend: prepend: expected a value, got none"),
        ({"type": "Prepend", "prepend": 1}, "Prepend: prepend: expected str, got 1"),
        ({"type": "Strip", "strip_left": 1}, "Strip: strip_left: expected bool, got 1"),
        (
            {"type": "BertNormalizer", "strip_accents": "yes"},
            "BertNormalizer: strip_accents: expected true, false or null, got 'yes'",
        ),
        (
            {"type": "BertNormalizer", "strip_accents": 1},
            "BertNormalizer: strip_accents: expected true, false or null, got 1",
        ),
        (
            {"type": "Replace", "pattern": "a", "content": "b"},
            "Replace: pattern: expected .*String.* or .*Regex.*, got",
        ),
        (
            {"type": "Replace", "pattern": {"Glob": "a"}, "content": "b"},
            "Replace: pattern: expected .*String.* or .*Regex.*, got",
        ),
        (
            {"type": "Replace", "pattern": {"String": 1}, "content": "b"},
            "Replace: pattern: expected .*String.* or .*Regex.*, got",
        ),
        (
            {"type": "Replace", "pattern": {"String": "a", "Regex": "a"}, "content": "b"},
            r'Replace: pattern: expected \{"String": text\} or \{"Regex": expression\}',
        ),
        (
            {"type": "Replace", "pattern": {"Regex": "("}, "content": "b"},
            r"Replace: regular expression '\(': expected a valid expression",
        ),
        (
            {"type": "Replace", "pattern": {"Regex": "a"}},
            "Replace: content: expected a value, got none",
        ),
        (
            {"type": "Precompiled", "precompiled_charsmap": "?"},
            "Precompiled: precompiled_charsmap: expected SentencePiece's format in base64,",
        ),
        (
            {"type": "Precompiled", "precompiled_charsmap": ""},
            "Precompiled: precompiled_charsmap: expected SentencePiece's format in base64,",
        ),
        (
            {"type": "Precompiled", "precompiled_charsmap": "AAQAAAAA"},
            "Precompiled: precompiled_charsmap: expected SentencePiece's format in base64,",
        ),
        (
            {"type": "Precompiled", "precompiled_charsmap": None},
            "Precompiled: precompiled_charsmap: expected str, got None",
        ),
        ({"type": "Sequence"}, "Sequence: normalizers: expected a list of objects, got None"),
        (
            {"type": "Sequence", "normalizers": [], "more": 1},
            "Sequence: more: expected none, it is not supported, got 1",
        ),
        (
            {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "x"}]},
            "Sequence: type: expected one of NFC, NFD, NFKC, NFKD, Lowercase, StripAccents,",
        ),
        (
            {"type": "Sequence", "normalizers": [None]},
            r"Sequence: normalizers: expected a list of objects, got \[None\]",
        ),
    ],
)
def test_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_component(content, NORMALIZERS, "n")


@pytest.mark.parametrize(
    "expression",
    [r"(?m).", r"(?im:a)", r"\h", r"a\Z", r"\G", "[a&&b]", "[[^a]b]", "[a-[b]]", r"\\\h"],
)
def test_what_oniguruma_reads_otherwise_is_refused(expression):
    with pytest.raises(ValueError, match="expected supported syntax, got"):
        Replace({"Regex": expression}, "")


@pytest.mark.parametrize("expression", [r"\\h", "[[:alpha:]]", r"\[\[", "(?i:m)", "&", "(?i)m", r"\\Z"])
def test_what_only_looks_like_it_is_not(expression):
    Replace({"Regex": expression}, "")


@pytest.mark.parametrize(
    "damaged",
    [
        charsmap.build({"a": "b"})[:-1],  # the replacement is unterminated
        charsmap.build({"a": "b"})[:-2],
        charsmap.build({"a": "é"})[:-2] + b"\0",
        charsmap.build({"a": "b" * 257}),
    ],
)
def test_a_damaged_map_is_refused_when_it_is_read(damaged):
    with pytest.raises(ValueError, match="precompiled_charsmap: expected SentencePiece's format in base64"):
        Precompiled(base64.b64encode(damaged).decode())


def test_a_trie_that_leads_outside_itself_finds_nothing():
    trie = (1000 << 10).to_bytes(4, "little")
    assert Precompiled(base64.b64encode(b"\x04\0\0\0" + trie + b"a\0").decode())("abc\u0301") == "abc\u0301"


def test_nfc_of_every_pair_of_a_starter_and_what_joins_it():
    """The composites of unicodedata match its decompositions."""
    for code in range(0x110000):
        char = chr(code)
        if 0xD800 <= code < 0xE000 or not unicodedata.decomposition(char) and not 0xAC00 <= code < 0xD7A4:
            continue
        for form in (NFC(), NFKC(), NFD(), NFKD()):
            parts = unicodedata.normalize("NFD", char)
            assert form.aligned(Aligned.of(parts)).text == form(parts)
