"""WordPiece, learnt: merges are chosen by how much they raise the likelihood.                     Schuster & Nakajima 2012

As BPE does, write every word as a sequence of symbols (its letters), choose a pair of neighbouring symbols, replace it
everywhere by a new symbol, repeat.  BPE takes the most frequent pair.  WordPiece takes the one whose merge raises the
likelihood of the corpus most under a unigram model; the paper does not write that out, and it is commonly read as

    score(a, b) = count(a b) / (count(a) count(b))

which is high if a and b occur together more often than they would by chance.  The published code of BERT has no trainer, so
there is nothing that this could be equal to but the definition (reference/tokenizers/wordpiece.py).

A pair may be rare and still score high: two letters that occur once, side by side, have score 1, which is the most there
can be.  `min_frequency` keeps such accidents out.  What is mostly trained today, also by the WordPieceTrainer of the library
`tokenizers`, is BPE with the tokens of WordPiece: `criterion="frequency"`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from ...arguments import check_choice, check_text, check_whole
from ..vocabulary import check_training
from .pairs import PairCounts


def train_wordpiece(
    word_counts: Mapping[str, int],
    tokens: Sequence[str],
    vocab_size: int,
    *,
    criterion: str = "likelihood",
    continuing_subword_prefix: str = "##",
    limit_alphabet: int | None = None,
    min_frequency: int = 0,
) -> list[str]:
    """The vocabulary in the order of ids: `tokens` (special ones), the alphabet, the merges in the order of learning.

    criterion: how pairs are scored, as above ("likelihood") or by their count ("frequency").  Fewer than `vocab_size` tokens
    come back if no pair is left that occurs `min_frequency` times (and once).

    The alphabet is sorted: the letters as they begin a word, then as they stand inside one ("##x"); each letter has both
    forms, so that any word over the alphabet can be written.  One that is among `tokens` keeps its place there.
    `limit_alphabet` keeps only the letters that are most frequent, of several the smaller; nothing is learnt from a word
    with another letter, since as a whole it is unknown.

    Counting is that of PairCounts: x x x holds the pair x x twice and becomes xx x.  Of pairs with equal score the one with
    the smaller ids (left, right) is taken.  A pair that would be spelled like a token that there is already (letters "##"
    and "##a" in a word, or a special token) is passed over.

    Scores are compared exactly.  With N symbols in the corpus both denominators of a difference p/q - r/s are at most N^2,
    so scores that differ do so by at least N^-4; multiplied by 2^K > N^4 and rounded down they are different integers in the
    same order, and equal ones stay equal.

    The heap.  In BPE a pair's count only falls, here its score also rises, when a symbol in it becomes rarer.  So each
    change of a score pushes a new entry, and an entry that comes up with a score which is not the pair's present one is
    dropped.  Every pair has its present score in the heap at any time, hence the first entry that is not dropped is the
    greatest present score.  That needs all changes to be seen: merging a and b changes the counts of a, b and the new symbol
    alone, and of pairs that hold one of the three; only their scores are computed again.
    """
    check_training(word_counts, vocab_size, tokens, min_frequency=min_frequency)
    check_text("continuing_subword_prefix", continuing_subword_prefix)
    _check(tokens, criterion, limit_alphabet)
    letters: Counter[str] = Counter()
    for word, count in word_counts.items():
        for letter in word:
            letters[letter] += count
    alphabet = sorted(
        sorted(letters, key=lambda letter: (-letters[letter], letter))[:limit_alphabet]
    )

    inner = [continuing_subword_prefix + letter for letter in alphabet]
    ids = {token: i for i, token in enumerate(dict.fromkeys([*tokens, *alphabet, *inner]))}
    if vocab_size < len(ids):
        raise ValueError(
            f"vocab_size {vocab_size} is too small for {len(tokens)} special tokens and two forms of {len(alphabet)} letters; "
            f"limit_alphabet can leave out rare ones"
        )
    first_symbol = {letter: chr(ids[letter]) for letter in alphabet}
    inner_symbol = {ord(letter): chr(ids[token]) for letter, token in zip(alphabet, inner)}
    words = {
        first_symbol[word[0]] + word[1:].translate(inner_symbol): count
        for word, count in word_counts.items()
        if word and first_symbol.keys() >= set(word)
    }

    occurs = [0] * len(ids)
    for word, count in words.items():
        for symbol in word:
            occurs[ord(symbol)] += count
    pairs = PairCounts(words)
    counts, least = pairs.counts, max(1, min_frequency)
    scale = 4 * sum(occurs).bit_length()

    scores: dict[str, int] = {}  # of the pairs that occur often enough
    pairs_of: dict[str, set[str]] = defaultdict(set)  # symbol -> these pairs
    heap: list[
        tuple[int, str]
    ] = []  # the score is negated since the smallest entry of a heap comes first

    def update(pair: str) -> None:
        a, b = pair
        if counts[pair] < least:  # for good
            scores.pop(pair, None)
            pairs_of[a].discard(pair)
            pairs_of[b].discard(pair)
            return
        score = counts[pair]
        if criterion == "likelihood":
            score = (score << scale) // (occurs[ord(a)] * occurs[ord(b)])
        if scores.get(pair) != score:
            scores[pair] = score
            pairs_of[a].add(pair)
            pairs_of[b].add(pair)
            heappush(heap, (-score, pair))

    for pair in list(counts):
        update(pair)
    spelled = list(ids)
    while len(spelled) < vocab_size and heap:
        score, pair = heappop(heap)
        if scores.get(pair) != -score:
            continue
        a, b = pair
        token = spelled[ord(a)] + spelled[ord(b)].removeprefix(continuing_subword_prefix)
        if token in ids:
            del scores[pair]
            continue
        new = chr(len(spelled))
        ids[token] = len(spelled)
        spelled.append(token)
        times, fresh = pairs.replace(pair, new)
        occurs[ord(a)] -= times
        occurs[ord(b)] -= times
        occurs.append(times)
        for changed in {*pairs_of[a], *pairs_of[b], *fresh}:
            update(changed)
    return spelled


def _check(tokens: Sequence[str], criterion: str, limit_alphabet: int | None) -> None:
    check_whole("limit_alphabet", limit_alphabet, 1, or_none=True)
    check_choice("criterion", criterion, ("likelihood", "frequency"))
    if len(set(tokens)) < len(tokens):
        raise ValueError(
            f"token {next(t for t in tokens if list(tokens).count(t) > 1)!r} is given twice"
        )
