"""Pre-tokenizers read from files, and which ones are refused."""

from __future__ import annotations

import pytest

from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.text.pretokenization import (
    PRE_TOKENIZERS,
    Metaspace,
    Split,
)

# Files


def split(pattern, behavior="Isolated", invert=False):
    return Split({"Regex": pattern}, behavior, invert)


def test_old_metaspace():
    def read(**keys):
        return read_component({"type": "Metaspace", "replacement": "_"} | keys, PRE_TOKENIZERS, "file")

    assert read(str_rep="_", add_prefix_space=True) == Metaspace("_", "always")
    assert (
        read(str_rep="_", add_prefix_space=False)
        == read(add_prefix_space=False, prepend_scheme="never")
        == Metaspace("_", "never")
    )
    assert read(add_prefix_space=True, prepend_scheme="first", split=False) == Metaspace("_", "first", False)
    with pytest.raises(
        ValueError,
        match="prepend_scheme: expected 'never', as add_prefix_space is false, got 'first'",
    ):
        read(add_prefix_space=False, prepend_scheme="first")


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {"type": "UnicodeScripts"},
            "file: type: expected one of Whitespace, WhitespaceSplit, BertPreTokenizer,",
        ),
        (
            {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 5}]},
            "Sequence: type: expected one of Whitespace, WhitespaceSplit, BertPreTokenizer,",
        ),
        ({"type": "Sequence"}, "Sequence: pretokenizers: expected a list of objects, got None"),
        (
            {"type": "Sequence", "pretokenizers": [None]},
            r"Sequence: pretokenizers: expected a list of objects, got \[None\]",
        ),
        (
            {"type": "Sequence", "pretokenizers": [], "parallel": True},
            "Sequence: parallel: expected none, it is not supported, got True",
        ),
        (
            {"type": "Digits", "individual_digits": 1},
            "Digits: individual_digits: expected bool, got 1",
        ),
        (
            {"type": "Punctuation", "behavior": "isolated"},
            "Punctuation: behavior: expected one of Removed, Isolated, MergedWithPrevious,",
        ),
        (
            {"type": "CharDelimiterSplit"},
            "CharDelimiterSplit: delimiter: expected a value, got none",
        ),
        (
            {"type": "CharDelimiterSplit", "delimiter": "ab"},
            "CharDelimiterSplit: delimiter: expected one character, got 'ab'",
        ),
        (
            {"type": "Metaspace", "replacement": ""},
            "Metaspace: replacement: expected one character, got ''",
        ),
        (
            {"type": "Metaspace", "prepend_scheme": "last"},
            "Metaspace: prepend_scheme: expected one of always, first, never, got 'last'",
        ),
        (
            {"type": "Split", "pattern": "a", "behavior": "Isolated"},
            'Split: pattern: expected \\{"String": text\\} or \\{"Regex": expression\\}, got \'a\'',
        ),
        (
            {"type": "Split", "pattern": {"Glob": "a"}, "behavior": "Isolated"},
            "Split: pattern: expected .*String.* or .*Regex.*, got .*Glob",
        ),
        (
            {"type": "Split", "pattern": {"Regex": "a"}, "behavior": None},
            "Split: behavior: expected str, got None",
        ),
        (
            {"type": "Split", "pattern": {"Regex": "a"}},
            "Split: behavior: expected a value, got none",
        ),
    ],
)
def test_refused_by_name(content, message):
    with pytest.raises(ValueError, match=message):
        read_component(content, PRE_TOKENIZERS, "file")


@pytest.mark.parametrize(
    "expression",
    [
        *(
            r"\p{N}{1,3}+",
            r"a{2}+",
            r"a{2}?",
            r"(?m).",
            r"(?s).",
            r"(?x) a",
            r"a(?i)b",
            r"(?i-m:a)",
            r"(?~a)",
            r"(?#a)",
            r"(?P<a>b)",
        ),
        *(
            r"\h",
            r"\Z",
            r"\z",
            r"\K",
            r"\G",
            r"\R",
            r"\X",
            r"\N",
            r"\1",
            r"\pL",
            r"\p{Script=Han}",
            r"\x{61}",
            r"\e",
            "\\",
        ),
        *(
            r"[a--b]",
            r"[a&&b]",
            r"[a||b]",
            r"[a~~b]",
            r"[[^a]b]",
            r"[a-[b]]",
            r"[[a]-c]",
            r"[\h]",
            r"[[:alnum:]]",
            r"[a",
            r"[]",
            r"(a",
            r"a)",
            r"*a",
            r"a{x",
        ),
    ],
)
def test_expressions_that_would_be_read_otherwise(expression):
    with pytest.raises(ValueError, match="regular expression .*: expected"):
        split(expression)
    with pytest.raises(ValueError, match="regular expression .*: expected"):
        split("a+" + expression)


def test_groups_play_no_part():
    assert split("(a)(b)").cut("abab") == ["ab", "ab"]


def test_a_string_is_no_expression():
    assert Split({"String": "a.\\w[{1,3}+"}, "Removed").cut("xa.\\w[{1,3}+y") == ["x", "y"]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (
            r" ?[^(\s|[.,!?…。，、।۔،])]+",
            ["a", ".", "b", ",", " c", "!) (", "d", "|", "e"],
        ),  # BLOOM's
        (r"[[ab][c\]]]+", ["a", ".", "b", ", ", "c", "!) (d|e"]),
        (r"[^[a]b]+", ["a", ".", "b", ", c!) (d|e"]),
    ],
)
def test_sets_in_sets_are_read_as_one(expression, words):
    """Splits as `tokenizers` does."""
    assert Split({"Regex": expression}, "Isolated").cut("a.b, c!) (d|e") == words
