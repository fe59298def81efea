"""Decoders: expected behaviour, in examples and as general laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.text import pretokenization
from tinyplm.tokenizers.text.decoding import (
    DECODERS,
    BPEDecoder,
    ByteFallback,
    ByteLevel,
    Fuse,
    Metaspace,
    Replace,
    Sequence,
    Strip,
    WordPiece,
    byte_of,
)

LLAMA = Sequence((Replace({"String": "▁"}, " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)))
ALL = [
    *(
        ByteLevel(),
        Metaspace(),
        Metaspace("_", "never", False),
        WordPiece(),
        WordPiece("@@", cleanup=False),
        BPEDecoder(),
        BPEDecoder(""),
    ),
    *(
        ByteFallback(),
        Fuse(),
        Strip(),
        Strip("_", 1, 2),
        Replace({"Regex": "a+"}, "b"),
        Sequence(()),
        LLAMA,
    ),
]
texts = st.text(st.sampled_from("ab -.▁<0x1>éß春😀\n") | st.characters(exclude_categories=["Cs"]))
U = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("decoder", ALL, ids=repr)
def test_json(decoder):
    content = decoder.to_json()
    assert content["type"] == type(decoder).__name__
    assert read_component(content, DECODERS, "file") == decoder


@given(texts)
def test_byte_level_undoes_the_pre_tokenizer(text):
    assert ByteLevel().chain(pretokenization.ByteLevel(add_prefix_space=False).cut(text)) == [text]


@given(texts)
def test_metaspace_undoes_the_pre_tokenizer(text):
    text = text.replace("▁", "").lstrip(" ")
    for scheme in ("always", "first", "never"):
        words = pretokenization.Metaspace(prepend_scheme=scheme).cut(text)
        assert "".join(Metaspace(prepend_scheme=scheme).chain(words)) == text


@given(st.binary())
def test_byte_fallback(data):
    for spelled in ("<0x{:02X}>", "<0x{:02x}>"):
        tokens = [spelled.format(byte) for byte in data]
        assert [byte_of(token) for token in tokens] == list(data)
        try:
            assert "".join(ByteFallback().chain(tokens)) == data.decode()
        except UnicodeDecodeError:
            assert ByteFallback().chain(tokens) == [U] * len(data)
    assert ByteFallback().chain(["a", *tokens, "", "b"]) == [
        "a",
        *ByteFallback().chain(tokens),
        "",
        "b",
    ]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "<0x6>",
        "<0x061>",
        "<0XC3>",
        "<0xZZ>",
        "<0x6G>",
        "<0x-1>",
        "<0x٣٣>",
        "<0x61>a",
        "a<0x61>",
        "<0x61>\n",
    ],
)
def test_no_byte(token):
    assert byte_of(token) is None
    assert ByteFallback().chain([token]) == [token]


@pytest.mark.parametrize(
    "decoder, tokens, expected",
    [
        (LLAMA, ["▁Gr", "<0xC3>", "<0xBC>", "ße", "▁▁<"], ["Grüße  <"]),
        (LLAMA, ["a", "<0xC3>", "▁"], [f"a{U} "]),
        (ByteLevel(), ["Ġd", "Ã", "©", "Ã", "春"], [f" dé{U}春"]),
        (ByteLevel(), [], [""]),
        (Metaspace(), ["▁▁a▁", "▁b▁c"], ["a", " b c"]),
        (Metaspace(prepend_scheme="never"), ["▁▁a▁", "▁b▁c"], ["  a ", " b c"]),
        (
            WordPiece(),
            ["##a", "##b", "do", "n't", "do not", "x", "'s", ".", " ' ", "##"],
            ["##a", "b", " do", "n't", " don't", " x", "'s", ".", " '", ""],
        ),
        (WordPiece(cleanup=False), ["a", ".", "##'", "####b"], ["a", " .", "'", "##b"]),
        (BPEDecoder(), ["a", "b</w>", "c</w>d", "e</w>"], ["a", "b ", "c d", "e"]),
        (Fuse(), ["a", "", "b"], ["ab"]),
        (
            Strip("_", 1, 2),
            ["_a__", "__a___", "a", "_a_b", "", "_", "__", "____"],
            ["a", "_a_", "a", "a_b", "", "", "", "_"],
        ),
        (Replace({"String": "."}, r"\1"), ["a.b", "c"], [r"a\1b", "c"]),
        (Replace({"Regex": "a*"}, "-"), ["baab", ""], ["-b-b-", ""]),
        (Replace({"Regex": "^"}, "-"), ["a\nb\n"], ["-a\n-b\n"]),
        (Sequence(()), ["a", "b"], ["a", "b"]),
    ],
)
def test_chains(decoder, tokens, expected):
    before = list(tokens)
    assert decoder.chain(tokens) == expected
    assert tokens == before


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {"type": "CTC", "pad_token": "<pad>"},
            "file: type: expected one of ByteLevel, WordPiece, Metaspace, BPEDecoder,",
        ),
        (
            {"type": "Sequence", "decoders": [{"type": "Lisp"}]},
            "Sequence: type: expected one of ByteLevel, WordPiece, Metaspace, BPEDecoder,",
        ),
        ({"type": "Sequence"}, "Sequence: decoders: expected a list of objects, got None"),
        ({"type": "WordPiece", "prefix": None}, "WordPiece: prefix: expected str, got None"),
        ({"type": "Strip", "content": "ab"}, "Strip: content: expected one character, got 'ab'"),
        (
            {"type": "Strip", "content": "a", "start": -1},
            "Strip: start: expected an integer >= 0, got -1",
        ),
        (
            {"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
            r"Replace: regular expression '\(': expected a valid expression",
        ),
        (
            {"type": "Replace", "pattern": {"String": "a"}},
            "Replace: content: expected a value, got none",
        ),
        (
            {"type": "Metaspace", "add_prefix_space": False, "prepend_scheme": "always"},
            "prepend_scheme: expected 'never', as add_prefix_space is false, got 'always'",
        ),
    ],
)
def test_refused_by_name(content, message):
    with pytest.raises(ValueError, match=message):
        read_component(content, DECODERS, "file")
