"""Rule-based sentence splitting, for objectives that ask whether one sentence follows another.

    1. Blank lines separate paragraphs; a sentence never crosses them.
    2. Lines of code (indented by four spaces or a tab, or after >>> or $) and list items (-, *, 1.)
       start a new block; each line of code is a sentence of its own. The other lines of a paragraph
       are one text, regardless of line breaks.
    3. A sentence ends at . ! ? or … (with any closing quotes and brackets) before white space,
       unless
         the next word starts with a lower-case letter ("What?" he said),
         the word before the full stop is an abbreviation (Dr. Smith, e.g. this; No. and the like
         only before a number), or
         it is an initial or a run of initials (J. Smith, the U.S. Army): a sentence that does end
         there is joined to the next one.
       A full stop inside a number or name (3.14, example.org) has no space after it.
    4. After 。！？ (and closing quotes) a sentence ends without a space, too.

The rules are heuristics for English, languages punctuated like it, Chinese and Japanese. Only white
space is lost: concatenating the sentences gives back the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..arguments import check_several, check_text, wrong

# Abbreviations that never end a sentence.
ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof rev hon gen col capt lt sgt st mt vs e.g i.e cf viz approx al ca resp "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun".split()
)
BEFORE_NUMBERS = frozenset(
    "no nos fig figs eq eqs sec secs ch chap vol vols p pp art par ver".split()
)
_CLOSING = "\"'”’»)\\]"
_END = re.compile(rf"[.!?…]+[{_CLOSING}]*(?=\s)|[。！？]+[{_CLOSING}」』）】》]*")
_OPENING = "\"'“‘«([¿¡「『（【《"
_FOLLOWING = re.compile(r"\s*[" + re.escape(_OPENING) + r"]*(.?)", re.DOTALL)
_CODE = re.compile(r" {4}|\t|>>> |\.\.\. |\$ ")
_ITEM = re.compile(r"\s*(?:[-*•]|\d{1,3}[.)])\s")
_LAST_WORD = re.compile(r"[^\s" + re.escape(_OPENING) + r"]*\Z")
_INITIALS = re.compile(r"(?:[A-Z]\.)*[A-Z]\Z")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order and stripped; an empty list for blank text."""
    check_text("text", text)
    return [
        sentence
        for block, code in _blocks(text)
        for sentence in ([block] if code else _sentences(block))
    ]


def sentence_documents(
    texts: Iterable[str], encode: Callable[[str], list[int]]
) -> list[list[list[int]]]:
    """Each text as a document for the sentence objectives: a list of sentences, each a list of ids.

    encode: sentence -> ids as inside a running text, without special tokens, since sentences are
    joined later. Byte-level tokenizers need a leading space:
    lambda sentence: tokenizer.encode(" " + sentence).
    Sentences without ids and documents without sentences are dropped.
    """
    if not callable(encode):
        raise wrong("encode", "a function of a sentence", encode)
    check_several("texts", texts)
    documents = (
        [ids for sentence in split_sentences(text) if (ids := encode(sentence))] for text in texts
    )
    return [document for document in documents if document]


def _blocks(text: str) -> list[tuple[str, bool]]:
    """(text, is it code?) for paragraphs, list items and lines of code (rules 1 and 2)."""
    blocks: list[tuple[str, bool]] = []
    lines: list[str] = []  # of the open paragraph or item

    def complete() -> None:
        if lines:
            blocks.append((" ".join(lines), False))
            lines.clear()

    for line in text.splitlines():
        code = _CODE.match(line) and not _ITEM.match(line)
        if not line.strip() or code or _ITEM.match(line):
            complete()
        if line.strip() and code:
            blocks.append((line.strip(), True))
        elif line.strip():
            lines.append(line.strip())
    complete()
    return blocks


def _sentences(block: str) -> list[str]:
    """The sentences of one block (rules 3 and 4)."""
    item = _ITEM.match(block)  # the number of a list item ends no sentence
    sentences, begin = [], 0
    for end in _END.finditer(block, item.end() if item else 0):
        if end[0][0] in "。！？" or _ends(block, end):
            sentences.append(block[begin : end.end()].strip())
            begin = end.end()
    sentences.append(block[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(block: str, end: re.Match) -> bool:
    following = _FOLLOWING.match(block, end.end())
    if not following or not following[1] or following[1].islower():
        return False
    if end[0] != ".":  # more than a full stop: no abbreviation
        return True
    last = _LAST_WORD.search(block[max(0, end.start() - 20) : end.start()])  # 20 letters suffice
    word = last[0] if last else ""
    if _INITIALS.match(word) and word != "I":
        return False
    before_number = word.lower() in BEFORE_NUMBERS and following[1].isdigit()
    return word.lower() not in ABBREVIATIONS and not before_number
