r"""Split patterns of well-known models, and compiling the patterns of a tokenizer.json.

GPT-2 (Radford et al. 2019) cuts text with one regular expression before byte-pair encoding
(bytelevel.py); its successors kept the idea and changed the alternatives.  At each position the
first alternative that matches is taken, so their order matters.

A file writes a pattern as {"String": text} or {"Regex": expression}.  The library `tokenizers` runs
expressions on Oniguruma with Ruby syntax; we run them on `regex`.  The two mostly agree.  Where
they do not, `compile_pattern` translates:

    ^ $         Oniguruma matches them at every line, but ^ not after a newline that ends the text
    \w \b       there, U+200C and U+200D are not in words; outside of sets, ² ³ ¹ ¼ ½ ¾ are

or refuses, because the meaning would silently change:

    {1,3}+      there, one or more times {1,3}; here, possessive
    (?m)        there, the dot matches newlines
    \h \Z       there, a hexadecimal digit, and also before a final newline
    [a--b]      there, ordinary characters; set difference in later versions of `regex`

Both let (?i:s) match the long s, U+017F.  One difference remains where case folding changes the
length: (?i:ss) matches "ß" there but not here, and likewise ligatures.

Expressions are untrusted, so their length and depth are limited, and where necessary their time
(backtracking.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from ...arguments import mismatch, shown, wrong
from .alignment import Span
from .backtracking import MOST_PARTS, Limited, count_parts, is_fast

LONGEST_EXPRESSION = 20_000  # characters; the longest known, GPT-4o's, has about 500
DEEPEST_BRACKETS = 50
# A text of n characters may grow to GROWTH * n + ROOM (NFKC: up to 18 n).
GROWTH, ROOM = 64, 4096
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# White space: up to the last newline; otherwise all but the last space before a word; otherwise
# all.
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"

# In order: an English contraction in any case; letters, after at most one character that is not a
# letter, digit or newline; one to three digits; symbols, after at most one space and followed by
# any newlines; white space.
#
# tiktoken 0.14 has another form of cl100k.  It cuts differently only where a text ends in a newline
# and then spaces: there all trailing white space is one word.  Files of `tokenizers` and LLaMA-3
# use the form below.
CL100K_PATTERN = (  # GPT-4
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _REST
)
LLAMA3_PATTERN = CL100K_PATTERN

# The same, except that each digit stands alone.
QWEN2_PATTERN = CL100K_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

# Letters are cut where an upper-case letter follows a lower-case one ("camel", "Case"), marks count
# as letters, and a contraction belongs to its word: upper* lower+, or else upper+ lower* (letters
# without case are both).  Slashes may follow symbols, too.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_PATTERN = (  # GPT-4o
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _REST
)

# DeepSeek-V3 cuts three times: groups of three digits; Chinese characters and kana; then an ASCII
# symbol followed by ASCII letters, letters and marks after at most one other character, symbols as
# above, white space.
DEEPSEEK3_PATTERNS = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|""" + _REST,
)

# The smallest parts that both engines read alike: escapes, sets, brackets, quantifiers, other
# characters.
_ESCAPE = r"\\(?: [dDsSwWbBAnrtfva] | [pP]\{\^?\w+\} | x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | [^\w] )"
# Only the classes that have the same meaning in both.
_CLASS = r"\[:\^? (?: alpha | blank | cntrl | graph | lower | print | space | upper | xdigit ) :\]"
# Nested sets occur in BLOOM.
_NESTED = rf"(?<!-) \[ (?! [\^:] ) (?: {_ESCAPE} | (?! && | ~~ | \|\| ) [^\[\]\\-] )++ \] (?!-)"
_IN_BRACKETS = regex.compile(rf"(?x) {_ESCAPE} | {_CLASS} | {_NESTED}")
_PART = regex.compile(
    rf"""(?x)
        {_ESCAPE}
      | \[ \^? \]? (?: {_ESCAPE} | {_CLASS} | {_NESTED} | (?! -- | && | ~~ | \|\| ) [^\[\]\\] )*+ \]
      | \( (?: (?!\?) | \? (?: i?: | = | ! | > | <= | <! | <\w+> ) )
      | \A \(\?i\)
      | [*+?] [+?]?
      | \{{ (?: \d+ \}} (?! [+?] ) | (?: \d+,\d* | ,\d+ ) \}} (?! \+ ) )
      | [^\\\[(*+?{{]"""
)
_IN_WORDS = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
_WORD, _NO_WORD = rf"[{_IN_WORDS}²³¹¼½¾]", rf"[^{_IN_WORDS}²³¹¼½¾]"
_OUTSIDE = {
    "^": r"(?:^(?!\Z))",
    r"\w": _WORD,
    r"\W": _NO_WORD,
    r"\b": f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))",
    r"\B": f"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))",
}
_IN_SET = {r"\w": _IN_WORDS, r"\W": r"\W\u200C\u200D"}


def _translated_in_set(part: str) -> str:
    if part[0] == "[" and part[1] != ":":
        return _IN_BRACKETS.sub(lambda found: _translated_in_set(found[0]), part[1:-1])
    return _IN_SET.get(part, part)


def _translated(part: str) -> str:
    """One part of an Oniguruma expression, written for `regex`."""
    if part.startswith("["):
        return part[0] + _IN_BRACKETS.sub(lambda found: _translated_in_set(found[0]), part[1:])
    return _OUTSIDE.get(part, part)


def compile_pattern(pattern: Any) -> regex.Pattern | Limited:
    """Compile {"String": text} or {"Regex": expression}.  ValueError for anything else, and where
    the engines disagree."""
    ((kind, expression),) = pattern.items() if _is_pattern(pattern) else ((None, ""),)
    if kind == "String":
        return regex.compile(regex.escape(expression))
    if kind != "Regex":
        raise wrong("pattern", '{"String": text} or {"Regex": expression}', pattern)
    name = f"regular expression {shown(expression)}"
    if len(expression) > LONGEST_EXPRESSION:
        raise mismatch(name, f"at most {LONGEST_EXPRESSION} characters", len(expression))
    parts: list[str] = []
    place = depth = 0
    while place < len(expression):
        part = _PART.match(expression, place)
        if part is None:
            raise wrong(name, "supported syntax", expression[place : place + 20])
        parts.append(part[0])
        place = part.end()
        depth += (part[0][0] == "(" and part[0] != "(?i)") - (part[0] == ")")
        if depth > DEEPEST_BRACKETS:
            raise ValueError(f"{name}: expected at most {DEEPEST_BRACKETS} open brackets, got more")
    if (count := count_parts(parts)) > MOST_PARTS:
        raise ValueError(f"{name}: expected at most {MOST_PARTS} parts when expanded, got {count}")
    try:
        compiled = regex.compile("".join(map(_translated, parts)), regex.MULTILINE)
    except Exception as error:  # regex.error, and whatever else its parser raises
        raise mismatch(name, "a valid expression", f"the error {shown(str(error))}") from None
    return compiled if is_fast(parts) else Limited(compiled, expression)


def _is_pattern(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) == 1
        and all(isinstance(part, str) for part in value.values())
    )


def check_growth(before: int, after: int) -> None:
    """ValueError if a file's components lengthen a text too much: forty times a -> aa would fill
    any memory."""
    if after > GROWTH * before + ROOM:
        raise mismatch("text", f"at most {GROWTH} times its {before} characters", after)


def substitute(pattern: regex.Pattern | Limited, content: str, text: str) -> str:
    r"""Replaces each match, from left to right, by a text in which \1 has no special meaning.  An
    empty text has no matches."""
    parts: list[str] = []
    place = 0
    spans = find_matches(pattern, text) if text else ()
    if len(content) > GROWTH:
        check_growth(len(text), len(text) + len(spans) * len(content))
    for start, end in spans:
        parts += [text[place:start], content]
        place = end
    return "".join(parts) + text[place:]


def find_matches(pattern: regex.Pattern | Limited, text: str) -> list[Span]:
    """The spans of the matches, from left to right.

    Oniguruma treats empty matches differently from `regex`: none comes directly after another
    match, and after an empty match the search continues one character further (`regex` first tries
    for a longer match at the same position).
    """
    spans = [match.span() for match in pattern.finditer(text)]
    if all(start < end for start, end in spans):
        return spans
    spans, place = [], 0
    while match := pattern.search(text, place):
        start, end = match.span()
        if start < end or not spans or spans[-1][1] < end:
            spans.append((start, end))
        place = end if start < end else end + 1
        if place > len(text):
            break
    return spans
