"""Learning byte-pair encoding.       Sennrich et al. 2016, Algorithm 1

Write every word of the corpus as a sequence of symbols, find the most frequent pair of adjacent
symbols, replace it everywhere by a new symbol, repeat.

A symbol is an id, and a word is a Python string with one character, chr(id), per symbol.  "Replace
the pair by a new symbol" is then literally `word.replace(pair, new)`, and pairs of ids sort like
two-character strings.  `learn_merges` does not know what the symbols stand for: bytes
(text/bytelevel.py) are one choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

from ...arguments import as_texts, check_text, check_whole, wrong
from ..vocabulary import check_training
from .pairs import PairCounts


def train_bpe(
    word_counts: Mapping[str, int],
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    *,
    initial_alphabet: Sequence[str] = (),
    limit_alphabet: int | None = None,
    min_frequency: int = 0,
    end_of_word_suffix: str | None = None,
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges of a BPE model with at most `vocab_size` tokens.

    Ids are assigned in this order: special tokens, the alphabet, merges.  The alphabet is every
    character of the words and of initial_alphabet, sorted, then every word-final character with the
    end_of_word_suffix.  limit_alphabet: the maximum number of characters; those of initial_alphabet
    are kept first, then the most frequent ones, and the others are ignored.  min_frequency: rarer
    pairs are not merged.

    ValueError if the special tokens and the alphabet exceed vocab_size.
    """
    check_training(
        word_counts, vocab_size, special_tokens, "special_tokens", min_frequency=min_frequency
    )
    as_texts("initial_alphabet", initial_alphabet)
    check_whole("limit_alphabet", limit_alphabet, 1, or_none=True)
    check_text("end_of_word_suffix", end_of_word_suffix, or_none=True)
    frequency: Counter[str] = Counter()
    for word, count in word_counts.items():
        for char in word:
            frequency[char] += count
    initial = dict.fromkeys(initial_alphabet)
    chosen = sorted(
        {**frequency, **initial}, key=lambda char: (char not in initial, -frequency[char], char)
    )
    alphabet = {*chosen[:limit_alphabet]}
    tokens = [*special_tokens, *sorted(alphabet - {*special_tokens})]
    suffix = end_of_word_suffix or ""
    if suffix:
        final = {word[-1] + suffix for word in word_counts if word and word[-1] in alphabet}
        tokens += sorted(final - {*tokens})
    if len(tokens) > vocab_size:
        raise ValueError(
            f"vocab_size: expected room for {len(special_tokens)} special tokens and the alphabet, "
            f"{len(tokens) - len(special_tokens)} characters, got {vocab_size}"
        )
    symbols = {token: chr(id) for id, token in enumerate(tokens)}
    counts: Counter[str] = Counter()
    for word, count in word_counts.items():
        chars = [*word[:-1], word[-1:] + suffix] if word else []
        counts["".join([symbols[char] for char in chars if char in symbols])] += count
    tokens, merges = learn_merges(counts, tokens, vocab_size, min_frequency)
    vocab = {token: id for id, token in enumerate(tokens)}
    return vocab, [(tokens[a], tokens[b]) for a, b, _ in merges]


def learn_merges(
    word_counts: Mapping[str, int], tokens: Sequence[str], vocab_size: int, min_frequency: int = 0
) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Learn merges until there are `vocab_size` tokens, or no pair is left.

    word_counts: words over the initial symbols, with their counts.  tokens[i]: the spelling of
    symbol i; a merged symbol is spelled by concatenating its parts.  min_frequency: rarer pairs are
    not merged.  Returns the tokens, initial ones first, and the merges (left, right, merged) in the
    order in which they were learned.

    Algorithm 1 recounts all pairs in each round, which costs rounds x corpus length.  Here a round
    visits only the words that contain the pair, and updates the counts of the affected neighbours
    (pairs.py).  A pair first appears in the round that creates the newer of its symbols, and from
    then on its count can only decrease.  So a heap with one entry per pair yields the most frequent
    pair even though its counts may be stale: an entry whose count is too high is pushed back with
    the current count.

    Ties go to the pair with the smallest ids, as in the library `tokenizers`.  ValueError if a
    merge would be spelled like one of `tokens`.  Two merges are never spelled alike: all words
    undergo the same replacements, so equal spellings are divided equally at any time.
    """
    check_training(word_counts, vocab_size, tokens, min_frequency=min_frequency)
    if any(ord(symbol) >= len(tokens) for word in word_counts for symbol in word):
        raise ValueError(
            f"word_counts: expected words over {len(tokens)} symbols, one for each of the tokens"
        )
    given = frozenset(tokens)
    tokens = list(tokens)
    pairs = PairCounts(word_counts)
    counts = pairs.counts
    # heapq is a min-heap, so counts are negated.
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)

    merges: list[tuple[int, int, int]] = []
    while len(tokens) < vocab_size and heap:
        count, pair = heappop(heap)
        if -count != counts[pair]:
            if counts[pair] > 0:
                heappush(heap, (-counts[pair], pair))
            continue
        if -count < min_frequency:
            break

        a, b = map(ord, pair)
        spelled = tokens[a] + tokens[b]
        if spelled in given:
            raise wrong("tokens", "none that is spelled like a merge", spelled)
        merges.append((a, b, len(tokens)))
        tokens.append(spelled)
        _, fresh = pairs.replace(pair, chr(len(tokens) - 1))
        for new in fresh:
            heappush(heap, (-counts[new], new))

    return tokens, merges
