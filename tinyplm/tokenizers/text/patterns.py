r"""Patterns: those by which well-known models cut text into words, and how a pattern of a tokenizer.json is read.

GPT-2 (Radford et al. 2019) cuts text by one regular expression before byte-pair encoding (bytelevel.py); its successors kept the
idea and changed the alternatives.  At each place the first alternative that matches is taken, so their order matters.

In a file a pattern is {"String": text} or {"Regex": expression}.  The library `tokenizers` runs expressions on Oniguruma with the
syntax of Ruby; we run them on `regex`.  The two are alike in most.  Where they are not, `compile_pattern` translates:

    ^ $         match at every line there, but ^ not after a newline that ends the text
    \w \b       the joiners U+200C and U+200D are no part of words there; outside of sets, ² ³ ¹ ¼ ½ ¾ are

or refuses, since the expression would be read differently without a word:

    {1,3}+      one or more times {1,3} there, possessive here
    (?m)        lets the dot match newlines there
    \h \Z       hexadecimal digit, end but for a newline there; white space, end here
    [a--b]      ordinary characters there; set difference in later versions of `regex`

In (?i:s) both match the long s, U+017F, too.  A difference is left where case has more than one character: (?i:ss) matches "ß"
there, not here, and so on for ligatures.

Expressions come from anybody, so their length and depth are limited, and their time where it has to be (backtracking.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from ...arguments import shown
from .alignment import Span
from .backtracking import MOST_PARTS, Limited, count_parts, is_fast

LONGEST_EXPRESSION = 20_000  # characters; GPT-4o's, the longest known, has some 500
DEEPEST_BRACKETS = 50
GROWTH, ROOM = (
    64,
    4096,
)  # a text may grow to so many times its length plus so many characters (NFKC: up to 18 times)

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"  # up to the last newline; all but one space before a word; other white space

# In this order: an English contraction in any case; letters with at most one character before them that is neither letter, digit
# nor newline; one to three digits; symbols with at most one space before and any newlines after them; white space.
#
# tiktoken 0.14 has cl100k in another form.  It cuts the same but for texts that end in a newline and then spaces: there all the
# white space at the end is one word.  Files of `tokenizers` and LLaMA-3 have the form below.
CL100K_PATTERN = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _REST
)  # GPT-4
LLAMA3_PATTERN = CL100K_PATTERN

# The same, but each digit alone.
QWEN2_PATTERN = CL100K_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

# Letters are cut where a capital follows a small one ("camel", "Case"), marks count as letters, and a contraction belongs to its
# word: capitals* small+, or else capitals+ small* (letters without case are both).  Symbols take slashes after them, too.
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_PATTERN = (  # GPT-4o
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _REST
)

# DeepSeek-V3 cuts three times: digits by three; Chinese characters and kana; then an ASCII symbol with ASCII letters after it,
# letters and marks with at most one other character before them, symbols as above, white space.
DEEPSEEK3_PATTERNS = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
    + _REST,
)

# The smallest parts of an expression that both engines read alike: escapes, sets, brackets, quantifiers, other characters.
_ESCAPE = r"\\(?: [dDsSwWbBAnrtfva] | [pP]\{\^?\w+\} | x[0-9A-Fa-f]{2} | u[0-9A-Fa-f]{4} | [^\w] )"
_CLASS = r"\[:\^? (?: alpha | blank | cntrl | graph | lower | print | space | upper | xdigit ) :\]"  # not those that differ
_NESTED = rf"(?<!-) \[ (?! [\^:] ) (?: {_ESCAPE} | (?! && | ~~ | \|\| ) [^\[\]\\-] )++ \] (?!-)"  # BLOOM has it
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
    """A part of an expression for Oniguruma, written for `regex`."""
    if part.startswith("["):
        return part[0] + _IN_BRACKETS.sub(lambda found: _translated_in_set(found[0]), part[1:])
    return _OUTSIDE.get(part, part)


def compile_pattern(pattern: Any) -> regex.Pattern | Limited:
    """From {"String": text} or {"Regex": expression}.  ValueError: anything else, or the engines would read it differently."""
    if (
        not isinstance(pattern, Mapping)
        or len(pattern) != 1
        or not all(isinstance(value, str) for value in pattern.values())
    ):
        raise ValueError(
            f'a pattern must be {{"String": text}} or {{"Regex": expression}}, got {shown(pattern)}'
        )
    ((kind, expression),) = pattern.items()
    if kind == "String":
        return regex.compile(regex.escape(expression))
    if kind != "Regex":
        raise ValueError(f"a pattern must be a 'String' or a 'Regex', got {shown(kind)}")
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(
            f"a regular expression must have at most {LONGEST_EXPRESSION} characters, got {len(expression)}: {shown(expression)}"
        )
    parts, place, depth = [], 0, 0
    while place < len(expression):
        part = _PART.match(expression, place)
        if part is None:
            raise ValueError(
                f"the regular expression {shown(expression)} is not supported from {shown(expression[place : place + 20])} on"
            )
        parts.append(part[0])
        place = part.end()
        depth += (part[0][0] == "(" and part[0] != "(?i)") - (part[0] == ")")
        if depth > DEEPEST_BRACKETS:
            raise ValueError(
                f"the regular expression {shown(expression)} is not supported: more than {DEEPEST_BRACKETS} brackets are open"
            )
    if count_parts(parts) > MOST_PARTS:
        raise ValueError(
            f"the regular expression {shown(expression)} is not supported: it repeats more than {MOST_PARTS} parts"
        )
    try:
        compiled = regex.compile("".join(map(_translated, parts)), regex.MULTILINE)
    except Exception as error:  # regex.error, and what else its parser raises
        raise ValueError(
            f"the regular expression {shown(expression)} is not supported: {shown(str(error))}"
        ) from None
    return compiled if is_fast(parts) else Limited(compiled, expression)


def check_growth(before: int, after: int) -> None:
    """ValueError if what a file says makes a text of `before` characters too much longer: forty times a -> aa fill any memory."""
    if after > GROWTH * before + ROOM:
        raise ValueError(
            f"a text of {before} characters would become one of {after}, more than {GROWTH} times as long"
        )


def substitute(pattern: regex.Pattern | Limited, content: str, text: str) -> str:
    r"""Each match, from left to right, replaced by a text in which \1 means nothing special; nothing matches an empty text."""
    parts, place = [], 0
    spans = find_matches(pattern, text) if text else ()
    if len(content) > GROWTH:
        check_growth(len(text), len(text) + len(spans) * len(content))
    for start, end in spans:
        parts += [text[place:start], content]
        place = end
    return "".join(parts) + text[place:]


def find_matches(pattern: regex.Pattern | Limited, text: str) -> list[Span]:
    """Where the pattern matches, from left to right.

    Oniguruma differs from `regex` where matches are empty: none comes right after another match, and after an empty one the
    search goes on a character further (`regex` tries for a longer match at the same place first).
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
