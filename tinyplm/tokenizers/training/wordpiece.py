"""Learning WordPiece: merges are chosen by how much they increase the likelihood.

Schuster & Nakajima 2012.

As in BPE, write every word as a sequence of symbols (its letters), choose a pair of adjacent
symbols, replace it everywhere by a new symbol, repeat.  BPE takes the most frequent pair.
WordPiece takes the pair whose merge increases the likelihood of the corpus most under a unigram
model.  The paper gives no formula; the common reading is

    score(a, b) = count(a b) / (count(a) count(b))

which is high if a and b occur together more often than they would by chance.  BERT's published code
has no trainer, so there is nothing to compare with but the definition
(reference/tokenizers/wordpiece.py).

A rare pair can still score high: two letters that occur once, side by side, have the maximum score
of 1.  `min_frequency` excludes such accidents.  What is usually trained today, as by the
WordPieceTrainer of the library `tokenizers`, is BPE with WordPiece's tokens:
`criterion="frequency"`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from ...arguments import check_choice, check_text, check_whole, wrong
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
    """The vocabulary in the order of ids: `tokens` (special ones), the alphabet, the merges as
    learned.

    criterion: score pairs as above ("likelihood") or by their count ("frequency").  The result has
    fewer than `vocab_size` tokens if no pair remains that occurs `min_frequency` times (and at
    least once).

    The alphabet is sorted: the letters as they start a word, then as they occur inside one ("##x").
    Each letter has both forms, so any word over the alphabet can be written.  A letter that is
    among `tokens` keeps its id there.  `limit_alphabet` keeps only the most frequent letters, ties
    by spelling; words with another letter are ignored, since they are unknown as a whole.

    Counting is that of PairCounts: x x x contains the pair x x twice and becomes xx x.  Ties go to
    the smaller ids (left, right).  A pair that would be spelled like an existing token (letters
    "##" and "##a" in a word, or a special token) is skipped.

    Scores are compared exactly.  With N symbols in the corpus, both denominators of a difference
    p/q - r/s are at most N^2, so different scores differ by at least N^-4.  Multiplied by 2^K > N^4
    and rounded down, they are different integers in the same order, and equal scores stay equal.

    The heap: in BPE the count of a pair only decreases, but here its score also increases when one
    of its symbols becomes rarer.  So each change of a score pushes a new entry, and a popped entry
    that does not have the pair's current score is discarded.  Every pair always has its current
    score in the heap, so the first entry that is not discarded is the maximum.  This requires that
    no change is missed: merging a and b only changes the counts of a, b, the new symbol, and pairs
    with one of the three, and exactly their scores are recomputed.
    """
    check_training(word_counts, vocab_size, tokens, min_frequency=min_frequency)
    check_text("continuing_subword_prefix", continuing_subword_prefix)
    _check(tokens, criterion, limit_alphabet)
    letters: Counter[str] = Counter()
    for word, count in word_counts.items():
        for letter in word:
            letters[letter] += count
    frequent = sorted(letters, key=lambda letter: (-letters[letter], letter))
    alphabet = sorted(frequent[:limit_alphabet])

    inner = [continuing_subword_prefix + letter for letter in alphabet]
    ids = {token: i for i, token in enumerate(dict.fromkeys([*tokens, *alphabet, *inner]))}
    if vocab_size < len(ids):
        raise ValueError(
            f"vocab_size: expected room for {len(tokens)} special tokens and two forms of "
            f"{len(alphabet)} letters (limit_alphabet omits rare ones), got {vocab_size}"
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

    scores: dict[str, int] = {}  # of the pairs that are frequent enough
    pairs_of: dict[str, set[str]] = defaultdict(set)  # symbol -> these pairs
    heap: list[tuple[int, str]] = []  # heapq is a min-heap, so scores are negated

    def update(pair: str) -> None:
        a, b = pair[0], pair[1]
        if counts[pair] < least:  # permanently
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
        a, b = pair[0], pair[1]
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
        repeated = next(token for token in tokens if list(tokens).count(token) > 1)
        raise wrong("tokens", "different ones", repeated)
