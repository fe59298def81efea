"""Normalizers against the library `tokenizers`, text and offsets, and Precompiled also against SentencePiece.

The libraries' Unicode tables differ in age (marks of BertNormalizer: Unicode 8); Python's and ours are newer.  So the characters
here are those assigned in Unicode 3.2, for which Python keeps a table, except the three whose category has changed since: U+1734,
a nonspacing mark until Unicode 14, and U+1885 and U+1886, nonspacing marks since Unicode 9.
"""

import base64
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.text.alignment import Aligned
from tinyplm.tokenizers.text.normalization import NORMALIZERS, Precompiled

hf = pytest.importorskip("tokenizers")
spm = pytest.importorskip("sentencepiece")
N, Regex = hf.normalizers, hf.Regex


def field(message: bytes, number: int) -> bytes:
    """The first length-delimited field of that number in a protocol buffers message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            at, byte = at + 1, message[at]
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while True:
        key = varint()
        if key & 7 == 2:
            size = varint()
            if key >> 3 == number:
                return message[at : at + size]
            at += size
        elif key & 7 == 5:
            at += 4
        else:
            varint()


NORMALIZER_OF = {rule: spm.SentencePieceNormalizer(rule_name=rule) for rule in ("nmt_nfkc", "nfkc", "nmt_nfkc_cf")}
MAPS = {rule: field(field(sp.serialized_model_proto(), 3), 2) for rule, sp in NORMALIZER_OF.items()}

THEIRS = [
    *(N.NFC(), N.NFD(), N.NFKC(), N.NFKD(), N.Lowercase(), N.StripAccents(), N.Nmt(), N.ByteLevel(), N.Prepend("▁x")),
    *(N.Strip(left, right) for left in (True, False) for right in (True, False)),
    *(
        N.BertNormalizer(True, cjk, accents, low)
        for cjk in (True, False)
        for accents in (None, True, False)
        for low in (True, False)
    ),
    *(N.BertNormalizer(False, True, None, True), N.BertNormalizer(False, False, True, False)),
    *(N.Replace(old, new) for old, new in (("e", "xyz"), ("a", ""), ("\n", "▁"), ("e\u0301", "12"), ("", "-"), ("é", "e"))),
    *(N.Replace(Regex(old), new) for old, new in (("e*", r"\1$1"), (r"\s+", " "), (r"(?=e)|\p{M}+", "-"), ("[aeiou]+|$", "v"))),
    *(N.Precompiled(charsmap) for charsmap in MAPS.values()),
    N.Sequence([N.NFD(), N.StripAccents(), N.Lowercase(), N.Prepend("▁")]),
    N.Sequence([N.Precompiled(MAPS["nmt_nfkc"]), N.Strip(False, True), N.Replace(Regex(" {2,}"), "▁"), N.NFC()]),
]


def ours(theirs):
    """Ours, read from what the library writes."""
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.normalizer = theirs
    return read_component(json.loads(tokenizer.to_str())["normalizer"], NORMALIZERS, "normalizer")


PAIRS = [(ours(theirs), theirs) for theirs in THEIRS]
both = pytest.mark.parametrize("normalizer, theirs", PAIRS, ids=[f"{k}-{str(theirs)[:40]}" for k, theirs in enumerate(THEIRS)])


def offsets(theirs, text):
    """The normalized text, and each character's span: the token offsets under a vocabulary of single characters."""
    normalized = theirs.normalize_str(text)
    tokenizer = hf.Tokenizer(hf.models.BPE({char: k for k, char in enumerate(sorted(set(normalized)))}, []))
    tokenizer.normalizer = theirs
    encoding = tokenizer.encode(text)
    assert "".join(encoding.tokens) == normalized
    return normalized, encoding.offsets


def same(normalizer, theirs, text):
    normalized, spans = offsets(theirs, text)
    assert normalizer(text) == normalized
    aligned = normalizer.aligned(Aligned.of(text))
    assert aligned.text == normalized
    assert aligned.spans == spans


ASSIGNED = [
    chr(code)
    for code in range(0xF0000)
    if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")
    and not 0xE000 <= code < 0xF8FF
    and code not in (0x1734, 0x1885, 0x1886)
]


@both
def test_every_character(normalizer, theirs):
    for start in range(0, len(ASSIGNED), 1000):
        same(normalizer, theirs, "|".join(ASSIGNED[start : start + 1000]))


MARKS = [char for char in ASSIGNED if unicodedata.combining(char)]
JAMO = [chr(code) for code in (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3))] + list("가각힣")
HARD = list(
    "ﬁﬃ½ÉéİıiIΣσςǅ\u0344\u0f73\u0f75\u0f81\u0f71\u0f72\x00\x01\t\n\x07\x1c\x85\xa0\u200d\ufe0f👩👧🇩🇪一丁㐀𠀀豈ﾊﾞか\u3099\u309a"
)
HARD += [
    *" \u2581\u200b\ufeff\ufffdaeiouAExn1\u0301\u0327\u0323\u0302\u0304\u093c\u0915\u094d\u0937\u0338=<",
    "\r\n",
    "e\u0301",
    " ",
]
characters = st.one_of(*map(st.sampled_from, (HARD, HARD, MARKS, MARKS, JAMO, ASSIGNED)))


@both
@given(text=st.lists(characters, max_size=16).map("".join))
def test_fuzzed(normalizer, theirs, text):
    same(normalizer, theirs, text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "\n",
            "ΑΣ ΣΑΣ. Σ",
            "İstanbul DİYARBAKIR ı",
            "a\u0301\u0302\u0323\u0316b",
            "각\u11a8ᄀ\u1161\u11a8",
            "ﬁ\u0301ﬃ\u0323x",
        ),
        *(
            "👩\u200d👩\u200d👧\u200d👦🇩🇪 ok",
            "क्षत्रिय ½\u094d\u0915",
            "\x00\x00a",
            "\u200b\u0abcab",
            "ｶﾞﾊﾟ ㍿ ① Ⅳ",
            "  \u3000a\r\n b\x85",
        ),
    ],
)
@both
def test_hard_texts(normalizer, theirs, text):
    same(normalizer, theirs, text)


@pytest.mark.parametrize("rule", MAPS)
def test_every_character_of_sentencepiece(rule):
    """One character at a time, so the shortest and the longest matching string are the same.

    SentencePiece also strips spaces at both ends, collapses runs of spaces, writes ▁ for each space and adds one in front.
    """
    normalizer = Precompiled(base64.b64encode(MAPS[rule]).decode())
    for char in ASSIGNED:
        text = f"q{char}q"
        expected = normalizer(text).replace(" ", "▁")
        while "▁▁" in expected:
            expected = expected.replace("▁▁", "▁")
        assert NORMALIZER_OF[rule].normalize(text).removeprefix("▁") == expected
