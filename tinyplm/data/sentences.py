"""Plain text cut into sentences by rules: for objectives that ask whether one sentence follows another.

    1. Blank lines separate paragraphs; no sentence goes over them.
    2. Lines of code (indented by four spaces or a tab, or after >>> or $) and items of lists (-, *, 1.) start anew; each line of
       code is a sentence of its own.  All other lines of a paragraph are one text, whatever their breaks.
    3. A sentence ends at . ! ? or … (and the quotes and brackets that close there) where white space follows, unless
         what follows begins with a small letter ("What?" he said),
         the word before a full stop is an abbreviation (Dr. Smith, e.g. this; No. and the like before a number only),
         it is an initial or a row of them (J. Smith, the U.S. Army): a sentence that ends so is joined to the next one.
       A full stop inside a number or a name (3.14, example.org) has no space behind it, so it ends nothing.
    4. After 。！？ (and closing quotes) it ends without a space, too.

Rules err; these are for English, languages written like it, Chinese and Japanese.  Nothing but white space is lost: the sentences
one after the other are the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..arguments import check_several, check_text, wrong

# Never the last word of a sentence.
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
    """The sentences of a text, in order, without white space at their ends; none where there is no text."""
    check_text("text", text)
    return [
        sentence
        for block, code in _blocks(text)
        for sentence in ([block] if code else _sentences(block))
    ]


def sentence_documents(
    texts: Iterable[str], encode: Callable[[str], list[int]]
) -> list[list[list[int]]]:
    """For the objectives that work with sentences: a text -> a document, a list of sentences, each a list of ids.

    encode: a sentence -> its ids, without special tokens, as they stand inside a text, since several are joined: byte-level
    tokenizers need the space in front, lambda sentence: tokenizer.encode(" " + sentence).
    Sentences without ids, and documents without sentences, are left out.
    """
    if not callable(encode):
        raise wrong("encode", "a function of a sentence", encode)
    check_several("texts", texts)
    documents = (
        [ids for sentence in split_sentences(text) if (ids := encode(sentence))] for text in texts
    )
    return [document for document in documents if document]


def _blocks(text: str) -> list[tuple[str, bool]]:
    """Paragraphs, items of lists and lines of code, which no sentence goes beyond (rules 1 and 2); and whether it is code."""
    blocks: list[tuple[str, bool]] = []
    lines: list[str] = []  # of the paragraph or item that is not complete

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
    """One block cut where a sentence ends (rules 3 and 4)."""
    item = _ITEM.match(block)  # the number of an item ends nothing
    sentences, begin = [], 0
    for end in _END.finditer(block, item.end() if item else 0):
        if end[0][0] in "。！？" or _ends(block, end):
            sentences.append(block[begin : end.end()].strip())
            begin = end.end()
    sentences.append(block[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(block: str, end: re.Match) -> bool:
    following = _FOLLOWING.match(block, end.end())[1]
    if not following or following.islower():
        return False
    if end[0] != ".":  # more than a full stop: no abbreviation
        return True
    word = _LAST_WORD.search(block[max(0, end.start() - 20) : end.start()])[
        0
    ]  # the last 20 letters decide
    if _INITIALS.match(word) and word != "I":
        return False
    return word.lower() not in ABBREVIATIONS and not (
        word.lower() in BEFORE_NUMBERS and following.isdigit()
    )
