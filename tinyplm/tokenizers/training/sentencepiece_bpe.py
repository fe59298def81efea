"""SentencePiece's BPE, learned over characters that include spaces.

Kudo & Richardson 2018; Sennrich et al. 2016 for BPE.  The details are those of the program
`spm_train --model_type=bpe`.

A space is written ▁ (U+2581) and is a character like any other.  Words are cut before it, so a
piece may start with ▁ but has none inside; the pieces of any text join to the text.  Rare letters
are omitted: they become the unknown piece or, with byte fallback, the pieces of their UTF-8 bytes.

models/sentencepiece_bpe.py applies the result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

import numpy as np
import regex

from ...arguments import as_texts, check_flag, check_number, check_whole, wrong
from ..models.sentencepiece_bpe import Piece
from ..vocabulary import check_training
from .pairs import PairCounts
from .scripts import script

SPACE = "▁"
_BOUNDARY = "\x1f"  # replaces a special piece in the corpus; never part of a piece
_DIGITS = frozenset("0123456789０１２３４５６７８９")


def train_sentencepiece_bpe(
    word_counts: Mapping[str, int],
    vocab_size: int,
    *,
    byte_fallback: bool = True,
    character_coverage: float = 0.9995,
    max_piece_length: int = 16,
    split_by_unicode_script: bool = True,
    split_by_number: bool = True,
    split_digits: bool = False,
    allow_whitespace_only_pieces: bool = False,
    control_symbols: Sequence[str] = (),
    user_defined_symbols: Sequence[str] = (),
) -> list[Piece]:
    """The pieces in the order of ids: special pieces, bytes, merges, letters by frequency.

    Special pieces are <unk> <s> </s>, then control and user-defined ones.

    word_counts: words or longer texts with their counts, normalized, with spaces written ▁; they
    are cut before each ▁ here.
    vocab_size: the number of all pieces; there are fewer if no pair remains before that.

    Letters: the most frequent ones, until they make up `character_coverage` of the text.  Text that
    is spelled like a special piece is not learned from.  A pair is only merged if `_rule` allows
    its text.  The most frequent pair wins; ties go to the shorter text, then to the one that sorts
    first.

    Counting, and the heap with one entry per pair, are those of bpe.py.  The results are those of
    sentencepiece 0.2.3, with two exceptions.  When no pair remains, it continues with pairs that no
    longer occur, where training ends here.  It skips whole sentences with U+2585, its mark for an
    unknown letter, which here is a letter like any other.  (Earlier versions search only some of
    the pairs, selected anew from time to time, and may find another order.)
    """
    check_training(word_counts, vocab_size, control_symbols, "control_symbols")
    if isinstance(user_defined_symbols, str):
        raise TypeError("user_defined_symbols: expected several strings, got a single string")
    as_texts("user_defined_symbols", user_defined_symbols)
    flags = {
        "byte_fallback": byte_fallback,
        "split_by_unicode_script": split_by_unicode_script,
        "split_by_number": split_by_number,
        "split_digits": split_digits,
        "allow_whitespace_only_pieces": allow_whitespace_only_pieces,
    }
    for name, flag in flags.items():
        check_flag(name, flag)
    check_number("character_coverage", character_coverage, above=0, most=1)
    check_whole("max_piece_length", max_piece_length, 1)
    special = _special_pieces(byte_fallback, control_symbols, user_defined_symbols)
    cut = regex.compile(
        f"{SPACE}*[^{SPACE}]*" if allow_whitespace_only_pieces else f"{SPACE}?[^{SPACE}]*"
    )
    spellings = sorted((piece for piece, _, _ in special), key=len, reverse=True)
    masked = regex.compile("|".join(map(regex.escape, spellings)))
    words: Counter[str] = Counter()
    for text, count in word_counts.items():
        if " " in text:
            raise wrong("word_counts", f"spaces written {SPACE}", text)
        for word in filter(None, cut.findall(masked.sub(_BOUNDARY, text))):
            words[word] += count

    letters = _letters(words, character_coverage)
    if vocab_size < len(special) + len(letters):
        raise ValueError(
            f"vocab_size: expected room for {len(special)} special pieces and {len(letters)} "
            f"letters (a smaller character_coverage omits rare ones), got {vocab_size}"
        )
    symbols: dict[int, str] = defaultdict(lambda: "\0")  # symbol 0: an omitted letter
    symbols |= {ord(letter): chr(i) for i, letter in enumerate(letters, 1)}
    spelled = ["", *letters]
    allowed = _rule(
        letters, max_piece_length, split_by_unicode_script, split_by_number, split_digits
    )
    coded: Counter[str] = Counter()  # words that differ only in omitted letters coincide
    for word, count in words.items():
        coded[word.translate(symbols)] += count
    pairs = PairCounts(coded)
    counts = pairs.counts

    def entry(pair: str) -> tuple[int, int, str, str] | None:
        a, b = map(ord, pair)
        text = spelled[a] + spelled[b]
        return (-counts[pair], len(text), text, pair) if a and b and allowed(text) else None

    heap = list(filter(None, map(entry, list(counts))))
    heapify(heap)
    merges: list[str] = []
    while heap and len(special) + len(merges) + len(letters) < vocab_size:
        count, length, text, pair = heappop(heap)
        if -count != counts[pair]:  # stale: counts only decrease
            if counts[pair] > 0:
                heappush(heap, (-counts[pair], length, text, pair))
            continue
        merges.append(text)
        spelled.append(text)
        _, fresh = pairs.replace(pair, chr(len(spelled) - 1))
        for new in filter(None, map(entry, fresh)):
            heappush(heap, new)
    return special + [(text, -float(i), "normal") for i, text in enumerate([*merges, *letters])]


def _special_pieces(
    byte_fallback: bool, control: Sequence[str], user_defined: Sequence[str]
) -> list[Piece]:
    kinds = {"<unk>": "unknown", "<s>": "control", "</s>": "control"}
    more = [*((text, "control") for text in control)]
    more += [(text, "user_defined") for text in user_defined]
    more += [(f"<0x{byte:02X}>", "byte") for byte in range(256 * byte_fallback)]
    for text, kind in more:
        if not text or text in kinds:
            raise wrong("special pieces", "different strings that are not empty", text)
        kinds[text] = kind
    return [(text, 0.0, kind) for text, kind in kinds.items()]


def _letters(words: Mapping[str, int], coverage: float) -> list[str]:
    """The most frequent letters, until their coverage reaches `coverage` in float32; ties by
    spelling."""
    occurs: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            occurs[letter] += count
    occurs.pop("\0", None)
    total, covered = sum(occurs.values()), 0
    letters: list[str] = []
    for letter in sorted(occurs, key=lambda letter: (-occurs[letter], letter)):
        if np.float32(covered / total) >= np.float32(coverage):
            break
        covered += occurs[letter]
        if letter != _BOUNDARY:
            letters.append(letter)
    return letters


def _rule(
    letters: Iterable[str],
    longest: int,
    split_by_script: bool,
    split_by_number: bool,
    split_digits: bool,
) -> Callable[[str], bool]:
    """Whether a piece may be spelled so.

    It has at most `longest` characters, and ▁ only at the start, or consists of ▁.  With
    `split_by_script`, all its letters have the same script: kana count as Han, combining marks as
    what they follow.  Digits are of the script "Common", like signs, or, without `split_by_number`,
    combine with any script.  With `split_digits`, a digit stands alone.
    """
    scripts = {letter: script(letter) for letter in letters} if split_by_script else {}
    for letter, name in scripts.items():
        if name in ("Hiragana", "Katakana") or letter == "ー":
            scripts[letter] = "Han"
    if split_by_script and not split_by_number:
        scripts |= dict.fromkeys(_DIGITS & scripts.keys(), "")
    scripts.pop(SPACE, None)

    def allowed(text: str) -> bool:
        if len(text) > longest or SPACE in text[1:] and text.strip(SPACE):
            return False
        if split_digits and not _DIGITS.isdisjoint(text):
            return False
        before = ""
        for name in map(scripts.get, text):
            if name is None or name == "Inherited":
                continue
            if before and name and name != before:
                return False
            before = name
        return True

    return allowed
