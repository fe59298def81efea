"""The decoders give the same text as those of `tokenizers`, also for token lists that no encoder produces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

hf = pytest.importorskip("tokenizers")

from tinyplm.tokenizers.component import read_component  # noqa: E402
from tinyplm.tokenizers.text.decoding import DECODERS, byte_of  # noqa: E402


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def strip(content, start, stop):
    return {"type": "Strip", "content": content, "start": start, "stop": stop}


def metaspace(scheme, replacement="▁"):
    return {"type": "Metaspace", "replacement": replacement, "prepend_scheme": scheme, "split": True}


def sequence(*parts):
    return {"type": "Sequence", "decoders": list(parts)}


BYTES, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
COMPONENTS = [
    *(BYTES, FUSE, BYTE_LEVEL),
    *({"type": "WordPiece", "prefix": prefix, "cleanup": cleanup} for prefix in ("##", "", "a") for cleanup in (True, False)),
    *map(metaspace, ("always", "first", "never")),
    metaspace("always", "a"),
    *({"type": "BPEDecoder", "suffix": suffix} for suffix in ("</w>", "", "a")),
    *(strip("▁", 1, 0), strip("a", 0, 1), strip(" ", 2, 0)),
    *(replace("▁", " "), replace("a", "\\1b$1"), replace("", "x"), replace("</w>", "")),
    *(replace(pattern, "_", "Regex") for pattern in ("", "a*", "a|", "(a)b?", "^", "$", "[▁ ]+", r"\s\b")),
    sequence(),
    sequence(replace("▁", " "), BYTES, FUSE, strip(" ", 1, 0)),
    sequence(BYTES, metaspace("always")),
    sequence(FUSE, metaspace("always"), replace(" ", "_")),
    sequence(sequence({"type": "BPEDecoder", "suffix": "</w>"}), {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    sequence(BYTE_LEVEL, strip(" ", 1, 0)),
]

pieces = [
    "",
    "a",
    "b",
    "aa",
    "##",
    "##a",
    "▁",
    "▁▁a",
    "</w>",
    "a</w>b",
    " ",
    "  ",
    "\n",
    "é",
    "Ã",
    "©",
    "ðŁ",
    "ĺĢ",
    "Ġ",
    "Ċa",
    "春",
    "!",
]
pieces += [".", "?", ",", "'", " ' ", "n't", "'m", "'s", "'ve", "'re", "do not", "not", "a .", "'re 're ,!"]
pieces += ["<0x61>", "<0xC3>", "<0xa9>", "<0xE6>", "<0x98>", "<0xA5>", "<0xF0>", "<0xED>", "<0xA0>", "<0x80>", "<0xFF>", "<0x0A>"]
pieces += [
    "<0xZZ>",
    "<0x6>",
    "<0x061>",
    "<0X61>",
    "<0x+1>",
    "<0x1+>",
    "<0x-1>",
    "<0x 1>",
    "<0x_1>",
    "<0x>",
    "<0x٣٣>",
    "<0xé>",
    "<0x61>a",
]
token = st.sampled_from(pieces) | st.lists(st.sampled_from(pieces), max_size=3).map("".join)
tokens = st.lists(token | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=8)


def both(component):
    """Ours and theirs, from the same JSON object."""
    content = json.loads(hf.Tokenizer(hf.models.BPE()).to_str())
    content["decoder"] = component
    theirs = hf.Tokenizer.from_str(json.dumps(content))
    ours = read_component(component, DECODERS, "test")
    assert ours.to_json() == json.loads(theirs.to_str())["decoder"]
    return ours, theirs.decoder


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: json.dumps(component, ensure_ascii=False))
def test_fuzzed_tokens(component):
    ours, theirs = both(component)

    @settings(max_examples=200)
    @given(tokens)
    def check(tokens):
        if component["type"] == "Strip":  # they panic on an empty token if anything may be stripped at the end
            tokens = list(filter(None, tokens))
        assert "".join(ours.chain(tokens)) == theirs.decode(tokens)

    check()


@settings(max_examples=300)
@given(st.text("_a", min_size=1), st.integers(0, 4), st.integers(0, 4))
def test_strip_at_both_ends(token, start, stop):
    ours, theirs = both(strip("_", start, stop))
    if token.strip("_") or len(token) >= start + stop:  # otherwise they panic
        assert ours.chain([token]) == [theirs.decode([token])]


def test_bytes():
    _, theirs = both(BYTES)
    for token in [f"<0x{byte:02X}>" for byte in range(256)] + [f"<0x{byte:02x}>" for byte in range(256)] + pieces:
        assert (byte_of(token) is not None) == (theirs.decode([token]) != token)
        if byte_of(token) is not None:
            assert theirs.decode([token]) == bytes([byte_of(token)]).decode(errors="replace")
