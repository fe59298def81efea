"""BPE as SentencePiece has it: learnt over characters with spaces among them, and applied by the scores of pieces.

Kudo & Richardson 2018; Sennrich et al. 2016 for BPE.  The details are those of the program `spm_train --model_type=bpe`.

A space is written ▁ (U+2581) and is a character as others.  Words are cut in front of it, so a piece may begin with ▁ and
has none inside; whatever text is, its pieces joined are the text again.  Letters that are rare are left out: they become
the unknown piece or, with byte fallback, the pieces of their UTF-8 bytes.

A trained model has pieces with scores, 0, -1, -2, ... in the order of learning, and no list of merges: of all neighbours
whose joined text is a piece, those with the best score are joined, the leftmost first.  `merges_from_scores` writes that
as the merges of an ordinary BPE model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

import numpy as np
import regex

from ...arguments import as_texts, check_flag, check_number, check_whole, shown
from ..training.scripts import script
from ..vocabulary import check_training
from .pairs import PairCounts

Piece = tuple[
    str, float, str
]  # spelling; score; kind: normal, unknown, control, user_defined, byte (unused: only when read)

SPACE = "▁"
_BOUNDARY = "\x1f"  # stands in the corpus for a special piece; never in a piece itself
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
    """The pieces in the order of ids: <unk> <s> </s>, control and user-defined ones, bytes, merges, letters by frequency.

    word_counts: words or longer texts, normalised, spaces written ▁, and how often each occurs; they are cut in front of
    each ▁ here.  vocab_size counts all pieces; there are fewer if no pair is left before that.

    Letters: the most frequent ones that together make up `character_coverage` of the text.  What is spelled like a special
    piece in the text is not learnt from.  A pair is merged only where `_rule` allows its text.  The most frequent pair wins,
    of several the one with the shorter text, then the one whose text comes first.

    Counting, and why a heap with one entry a pair is enough, as in bpe.py.  Results are those of sentencepiece 0.2.3, but:
    it goes on with pairs that no longer occur when no other is left, here training ends.  (Earlier versions look for the
    best among a part of the pairs only, chosen anew from time to time, and may find another order.)  It also leaves out
    whole sentences with U+2585, its mark for an unknown letter; here that is a letter as others.
    """
    check_training(word_counts, vocab_size, control_symbols, "control_symbols")
    if not isinstance(user_defined_symbols, str):  # which _special_pieces refuses
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
    masked = regex.compile(
        "|".join(
            map(regex.escape, sorted((piece for piece, _, _ in special), key=len, reverse=True))
        )
    )
    words: Counter[str] = Counter()
    for text, count in word_counts.items():
        if " " in text:
            raise ValueError(f"spaces must be written {SPACE}, got {shown(text)}")
        for word in filter(None, cut.findall(masked.sub(_BOUNDARY, text))):
            words[word] += count

    letters = _letters(words, character_coverage)
    if vocab_size < len(special) + len(letters):
        raise ValueError(
            f"vocab_size {vocab_size} is too small for {len(special)} special pieces and {len(letters)} letters; "
            f"a smaller character_coverage leaves out rare letters"
        )
    symbols: dict[int, str] = defaultdict(lambda: "\0")  # symbol 0: a letter that is left out
    symbols |= {ord(letter): chr(i) for i, letter in enumerate(letters, 1)}
    spelled = ["", *letters]
    allowed = _rule(
        letters, max_piece_length, split_by_unicode_script, split_by_number, split_digits
    )
    coded: Counter[str] = Counter()  # words that differ in letters left out become one
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
        if -count != counts[pair]:  # out of date: counts only fall
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
    if isinstance(control, str) or isinstance(user_defined, str):
        raise TypeError(
            "control_symbols and user_defined_symbols must be several strings, got a single str"
        )
    kinds = {"<unk>": "unknown", "<s>": "control", "</s>": "control"}
    more = [(text, "control") for text in control] + [
        (text, "user_defined") for text in user_defined
    ]
    more += [(f"<0x{byte:02X}>", "byte") for byte in range(256 * byte_fallback)]
    for text, kind in more:
        if not text or text in kinds:
            raise ValueError(f"special pieces must differ and not be empty: {shown(text)} is wrong")
        kinds[text] = kind
    return [(text, 0.0, kind) for text, kind in kinds.items()]


def _letters(words: Mapping[str, int], coverage: float) -> list[str]:
    """The most frequent letters, of several the smaller, until what is covered rounds (in float32) to `coverage` or more."""
    if not 0 < coverage <= 1:
        raise ValueError(f"character_coverage must be more than 0 and at most 1, got {coverage}")
    occurs: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            occurs[letter] += count
    occurs.pop("\0", None)
    total, covered, letters = sum(occurs.values()), 0, []
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
    """May a piece be spelled so?

    It has at most `longest` characters, and ▁ only in front or nothing else.  With `split_by_script` all its letters are of
    one script: kana count as Han, combining marks as what they follow.  Digits are of the script "Common" as signs are, or,
    without `split_by_number`, fit to anything on both sides.  With `split_digits` a digit is alone.
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


MOST_WORK = (
    5 * 10**9
)  # the cubes of the pieces' lengths, about two seconds; Gemma's 256,000 pieces have 3% of it


def merges_from_scores(pieces: Iterable[Piece]) -> list[tuple[str, str]]:
    """Merges (left, right) in the order of rank which give, for any text, what joining by score gives.

    Each piece gets one merge at most, though it can be divided in many ways.  While text is joined, a stretch of it that no
    piece crosses has gone through the same steps as if it stood alone: of the best pairs of the whole text, those inside
    the stretch are the best there, in the same order.  So if a piece comes about, then from the two pieces that it
    consists of one step before the end when it is joined alone.  If there it never gets down to two, it never comes about
    in any text, and it has no merge.

    That holds for normal pieces.  Others are no result of joining: control, unknown and byte pieces are not text, and
    user-defined ones are to be matched as a whole before, with nothing joined to them.

    ValueError for what merges cannot say: two pieces that can come about with the same score (the leftmost of both would be
    first, ranks cannot be equal); a letter in such a piece that is no piece itself (to a BPE model it is unknown from the
    start); an unused piece that can come about (it is used for joining, and taken apart at the end).
    """
    scores = {text: score for text, score, kind in pieces if kind in ("normal", "unused")}
    unused = {text for text, _, kind in pieces if kind == "unused"}
    if sum(len(text) ** 3 for text in scores) > MOST_WORK:
        raise ValueError(
            f"the pieces are too long to find their merges: the longest has {max(map(len, scores))} characters"
        )
    merges = []
    for piece, score in scores.items():
        parts = _last_two(piece, scores)
        if parts is None:
            continue
        if piece in unused:
            raise ValueError(
                f"the unused piece {shown(piece)} can come about by joining others, which merges cannot express"
            )
        if missing := [letter for letter in piece if letter not in scores]:
            raise ValueError(
                f"the piece {shown(piece)} has the letter {shown(missing[0])}, which is no piece, so merges cannot make it"
            )
        merges.append((-score, *parts))
    merges.sort(key=lambda merge: merge[0])
    for (score, *one), (other, *two) in zip(merges, merges[1:]):
        if score == other:
            raise ValueError(
                f"the pieces {shown(''.join(one))} and {shown(''.join(two))} have the same score, {-score}: no order of merges"
            )
    return [(left, right) for _, left, right in merges]


def _last_two(piece: str, scores: Mapping[str, float]) -> tuple[str, str] | None:
    """What `piece` consists of when joining has got down to two parts; None if it does not get there."""
    parts = list(piece)
    while len(parts) > 2:
        joined = [a + b for a, b in zip(parts, parts[1:])]
        known = [i for i, text in enumerate(joined) if text in scores]
        if not known:
            return None
        best = max(known, key=lambda i: scores[joined[i]])  # the first of several
        parts[best : best + 2] = [joined[best]]
    return (parts[0], parts[1]) if len(parts) == 2 else None
