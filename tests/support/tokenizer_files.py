"""A small tokenizer.json of each kind, as dicts."""

from __future__ import annotations

import base64

from reference.tokenizers import charsmap


def byte_level() -> dict:
    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ã", "¯", "æ", "ľ", "Ģ"]
    vocab = {token: id for id, token in enumerate(["<|end|>", *letters, "Ġt", "te", "ex"])}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": r"\p{L}+|\s+|[^\s\p{L}]+"},
        "behavior": "Isolated",
        "invert": False,
    }
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|end|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}},
    }
    return {
        "version": "1.0",
        "truncation": {
            "direction": "Right",
            "max_length": 60,
            "strategy": "LongestFirst",
            "stride": 2,
        },
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Left",
            "pad_to_multiple_of": 8,
            "pad_id": 1,
            "pad_type_id": 0,
            "pad_token": "!",
        },
        "added_tokens": [
            {
                "id": 0,
                "content": "<|end|>",
                "single_word": False,
                "lstrip": True,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {"type": "Sequence", "processors": [byte_level, template]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "!",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": ["Ġ t", ["t", "e"], "e x"],
        },
    }


def wordpiece() -> dict:
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "some",
        "text",
        ",",
        "12",
        "34",
        "na",
        "##ive",
        "##a",
        "a",
    ]
    return {
        "added_tokens": [{"id": id, "content": tokens[id], "special": True} for id in range(4)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: id for id, token in enumerate(tokens)},
        },
    }


def unigram_json() -> dict:
    pieces = [
        ["<unk>", 0.0],
        ["▁", -2.0],
        ["▁some", -3.0],
        *([letter, -5.5] for letter in "abcdefghijklmnopqrstuvwxyz,1234"),
    ]
    chars = base64.b64encode(charsmap.build({"ï": "i", "ﬁ": "fi"})).decode()
    steps = [
        {"type": "Precompiled", "precompiled_charsmap": chars},
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Lowercase"},
    ]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "added_tokens": [{"id": 0, "content": "<unk>", "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["▁", 1],
            "cls": ["<unk>", 0],
            "trim_offsets": True,
            "add_prefix_space": True,
        },
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": pieces},
    }


def llama() -> dict:
    tokens = [
        "<unk>",
        "<s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefghijklmnopqrstuvwxyz",
        "▁t",
        "aa",
    ]
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    steps = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    return {
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": True},
            {"id": 1, "content": "<s>", "normalized": True},
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "merges": ["▁ t", "a a"],
            "vocab": {token: id for id, token in enumerate(tokens)},
        },
    }


def others() -> dict:
    """The components that the other files lack."""
    cuts = [
        *(
            {"type": "WhitespaceSplit"},
            {"type": "Whitespace"},
            {"type": "CharDelimiterSplit", "delimiter": "-"},
        ),
        *(
            {"type": "Punctuation", "behavior": "Contiguous"},
            {"type": "Digits", "individual_digits": True},
        ),
    ]
    steps = [{"type": kind} for kind in ("Nmt", "NFKD", "NFD", "NFKC", "StripAccents", "ByteLevel")]
    return wordpiece() | {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
        "decoder": {
            "type": "Sequence",
            "decoders": [{"type": "BPEDecoder", "suffix": "</w>"}, {"type": "WordPiece"}],
        },
        "post_processor": None,
    }


KINDS = {
    "byte-level": byte_level,
    "WordPiece": wordpiece,
    "Unigram": unigram_json,
    "LLaMA": llama,
    "others": others,
}
