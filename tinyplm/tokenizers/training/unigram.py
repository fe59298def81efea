"""Learning the vocabulary of a unigram model.       Kudo 2018, section 3.2

    seeds    all characters, and the best substrings by occurrences x length, many more than wanted
    EM       E: the expected count of each piece over all segmentations (forward-backward)
             M: its new log probability
    pruning  drop the quarter of the pieces that the likelihood of the corpus depends on the least
    ...      repeat until at most 1.1 times the requested size remains; keep the most probable

Where the paper leaves details open:

    Seeds are substrings that cannot be extended without losing occurrences, within words.
    M is not E[c] / sum E[c] but exp(digamma(E[c]) - digamma(sum E[c])): a sparse Dirichlet prior in
    variational Bayes, which makes rare pieces rarer.  Pieces with an expected count below 0.5 are
    dropped.  (As in SentencePiece.) Characters that EM dropped return with the lowest score plus
    0.0001 for each, the most frequent first, so that scores differ.  (As in SentencePiece.)

The trainer of the library `tokenizers` (0.23) differs in three respects; with these adopted,
vocabularies and scores are equal (tests/interop/test_unigram.py).  First, it takes substrings from
the list of distinct words, each counted once, and only where two different characters follow, with
all word ends being the same one: a frequent word like "which" is then no seed, unless "whichever"
is in the list.  Second, its loss (see `losses`) uses the number of all pieces instead of the
alternative's pieces, which keeps frequent short pieces.  Third, it cuts the surplus at the end by
the loss of the last pruning, where SentencePiece and we use the scores.  It also sums words and
restores characters in the random order of hash tables.  Here, words are sorted by length and
spelling, and pieces with equal scores by spelling, so that the result depends only on the words and
counts.

All words go through forward-backward and Viterbi at once, in NumPy, one column of their lattices
after the other (lattices.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ...arguments import check_flag, check_number, check_text, check_whole, mismatch, shown, wrong
from ..models.unigram import UNKNOWN_PENALTY
from ..vocabulary import check_training
from .lattices import Lattices
from .suffixes import substrings

MIN_EXPECTED = 0.5  # pieces expected less often are dropped
SURPLUS = (11, 10)  # EM and pruning end at 11/10 of the requested size
UNKNOWN = 0  # the piece for characters that have none


def train_unigram(
    word_counts: Mapping[str, int],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (),
    unk_token: str | None = "<unk>",
    byte_fallback: bool = False,
    shrinking_factor: float = 0.75,
    n_sub_iterations: int = 2,
    max_piece_length: int = 16,
    seed_size: int = 1_000_000,
) -> tuple[list[tuple[str, float]], int | None]:
    """Learn `vocab_size` pieces, or fewer if the words do not have as many.

    word_counts: words with their counts, normalized and cut as they will be for encoding.  Returns
    the pieces with their scores, and unk_id.  First come the special tokens, preceded by unk_token
    if it is not among them, and followed by <0x00> ... <0xFF> with byte_fallback, all with score 0;
    then the learned pieces, most probable first.
    """
    check_training(word_counts, vocab_size, special_tokens, "special_tokens")
    check_text("unk_token", unk_token, or_none=True)
    check_flag("byte_fallback", byte_fallback)
    check_number("shrinking_factor", shrinking_factor, above=0, below=1)
    for name, size in (
        ("n_sub_iterations", n_sub_iterations),
        ("max_piece_length", max_piece_length),
        ("seed_size", seed_size),
    ):
        check_whole(name, size, 1, 2**31)
    if (bad := next((item for item in word_counts.items() if item[1] < 1), None)) is not None:
        raise wrong(f"word_counts: {shown(bad[0])}", "a count >= 1", bad[1])

    given = [*special_tokens]
    if unk_token is not None and unk_token not in given:
        given.insert(0, unk_token)
    if byte_fallback:
        given += [f"<0x{byte:02X}>" for byte in range(256)]
    if len(set(given)) < len(given):
        raise wrong(
            "special_tokens", "different strings", given[: len(given) - 256 * byte_fallback]
        )

    words = sorted(filter(None, word_counts), key=lambda word: (-len(word), word))
    counts = [word_counts[word] for word in words]
    chars: Counter[str] = Counter()
    for word, count in zip(words, counts):
        for char in word:
            chars[char] += count
    alphabet = [
        char for char in sorted(chars, key=lambda char: (-chars[char], char)) if char not in given
    ]
    room = vocab_size - len(given)
    if room < len(alphabet):
        expected = f"room for {len(given)} given tokens and {len(alphabet)} characters of the words"
        raise mismatch("vocab_size", expected, vocab_size)

    learned: dict[str, float] = {}
    if words:
        corpus = Corpus(words, counts, chars, max_piece_length, seed_size)
        # Characters and the unknown piece stay.
        target = max(vocab_size * SURPLUS[0] // SURPLUS[1], 1 + len(chars))
        while True:
            for _ in range(n_sub_iterations):
                corpus.maximize(corpus.expected())
            if len(corpus.scores) <= target:
                break
            corpus.prune(max(target, int(len(corpus.scores) * shrinking_factor)))
        learned = corpus.pieces()

    final: dict[str, float] = {}
    lowest, returned = min(learned.values(), default=0.0), 0
    for char in alphabet:
        if char not in learned:
            final[char] = lowest + 0.0001 * returned
            returned += 1
        else:
            final[char] = learned[char]
    others = [item for item in by_score(learned) if item[0] not in final and item[0] not in given]
    final |= dict(others[: room - len(final)])
    pieces = [(token, 0.0) for token in given] + by_score(final)
    return pieces, None if unk_token is None else given.index(unk_token)


class Corpus:
    """The words, the remaining pieces, and where these occur in the words.

    Piece 0 is the unknown one.  A character whose piece is dropped keeps its edges in the lattices,
    as unknown.
    """

    def __init__(
        self,
        words: list[str],
        counts: list[int],
        chars: Mapping[str, int],
        max_piece_length: int,
        seed_size: int,
    ):
        self.counts = np.array(counts, dtype=np.float64)
        self.text = "\0".join(words) + "\0"
        lengths = np.array([len(word) for word in words])
        begins = np.cumsum(lengths + 1) - lengths - 1
        word = np.repeat(np.arange(len(words)), lengths)  # of each character
        offset = np.arange(len(word)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        place = begins[word] + offset  # in the text

        singles = sorted(
            ((count, char) for char, count in chars.items() if char != "\0"), reverse=True
        )
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        count_at = np.zeros(len(codes))
        count_at[place] = self.counts[word]
        suffixes, first, last, length, weight = seeds(codes, count_at, max_piece_length)
        # Of equal weight, the last in the alphabet comes first, as in the library.
        best = np.lexsort((-length, -first, -weight))[: max(seed_size - len(singles), 0)]
        first, last, length, weight = first[best], last[best], length[best], weight[best]

        piece_of_code = np.zeros(0x110000, dtype=np.int32)
        piece_of_code[[ord(char) for _, char in singles]] = np.arange(1, len(singles) + 1)
        occurrences = last - first
        shift = first - np.cumsum(occurrences) + occurrences
        index = np.repeat(shift, occurrences) + np.arange(occurrences.sum())
        where = suffixes[index]  # all occurrences of all seeds
        inside = np.searchsorted(place, where)  # their index among the characters of the words
        seed_pieces = np.arange(len(length)) + len(singles) + 1
        self.lattices = Lattices(
            lengths,
            np.concatenate([word, word[inside]]),
            np.concatenate([offset, offset[inside]]),
            np.concatenate([np.ones(len(word), dtype=np.int64), np.repeat(length, occurrences)]),
            np.concatenate([piece_of_code[codes[place]], np.repeat(seed_pieces, occurrences)]),
        )
        # The first occurrence of a piece and its length give its spelling.
        single_places = [self.text.index(char) for _, char in singles]
        self.places = np.concatenate([[0], single_places, suffixes[first]]).astype(np.int64)
        self.sizes = np.concatenate([[0], np.ones(len(singles), dtype=np.int64), length])
        self.word_at = np.zeros(len(codes), dtype=np.int64)
        self.word_at[place] = word
        self.offset_at = np.zeros(len(codes), dtype=np.int64)
        self.offset_at[place] = offset
        weights = np.array([0.0, *(count for count, _ in singles), *weight])
        self._use(np.log(weights[1:] / weights.sum()))

    def _use(self, scores: np.ndarray) -> None:
        """Set new log probabilities of the pieces from 1 on."""
        self.scores = np.concatenate([[scores.min(initial=0.0) - UNKNOWN_PENALTY], scores])

    def _keep(self, kept: np.ndarray, scores: np.ndarray) -> None:
        """Keep some pieces, in the given order, with new scores."""
        renumbered = np.full(len(self.scores), -1)
        renumbered[self.sizes <= 1] = UNKNOWN
        renumbered[kept] = np.arange(1, len(kept) + 1)
        self.lattices.renumber(renumbered)
        kept = np.concatenate([[UNKNOWN], kept])
        self.places, self.sizes = self.places[kept], self.sizes[kept]
        self._use(scores)

    def pieces(self) -> dict[str, float]:
        """Each piece with its log probability."""
        spans = zip(self.places[1:].tolist(), self.sizes[1:].tolist())
        spellings = [self.text[place : place + size] for place, size in spans]
        return dict(zip(spellings, self.scores[1:].tolist()))

    def expected(self) -> np.ndarray:
        """E step: the expected count of each piece in the corpus."""
        return self.lattices.expected(self.scores, self.counts)

    def maximize(self, expected: np.ndarray) -> None:
        """M step: new log probabilities from the expected counts."""
        kept = np.flatnonzero(expected >= MIN_EXPECTED)
        kept = kept[kept != UNKNOWN]
        counts = expected[kept]
        self._keep(kept, digamma(counts) - digamma(counts.sum(keepdims=True)))

    def prune(self, size: int) -> None:
        """Keep the characters and the other pieces with the greatest loss, `size` pieces including
        the unknown one.

        A piece that no best segmentation uses costs nothing and is dropped.
        """
        found, words = self.lattices.best(self.scores)
        frequency = np.bincount(found, weights=self.counts[words], minlength=len(self.scores))

        several = np.flatnonzero(self.sizes > 1)
        several = several[np.argsort(-self.sizes[several], kind="stable")]
        at = self.places[several]
        inner = self.lattices.stretches(self.word_at[at], self.offset_at[at], self.sizes[several])
        parts, owner = inner.best(self.scores)
        owner = several[owner]
        used = np.flatnonzero((self.sizes > 1) & (frequency > 0))

        loss = losses(frequency, parts, owner)[used]
        single = np.flatnonzero(self.sizes == 1)
        kept = used[np.argsort(-loss, kind="stable")][: max(size - 1 - len(single), 0)]
        kept = np.concatenate([single, kept])
        self._keep(kept, self.scores[kept])


def seeds(codes: np.ndarray, count_at: np.ndarray, longest: int) -> tuple[np.ndarray, ...]:
    """`substrings` that occur at least twice, and as weight how many characters of the corpus each
    one covers.

    count_at: for each character of the text, the count of its word.
    """
    suffixes, first, last, length = substrings(codes, longest)
    total = np.concatenate([[0], np.cumsum(count_at[suffixes])])
    occurrences = total[last] - total[first]
    kept = occurrences > 1
    return suffixes, first[kept], last[kept], length[kept], (occurrences * length)[kept]


def losses(frequency: np.ndarray, parts: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """The cost of dropping each piece: approximately the decrease of the corpus log likelihood.

    frequency: how often each piece occurs in the best segmentations of the words.  Without a piece
    x, it is replaced by the best segmentation of its spelling, y_1 ... y_m, listed in `parts` with
    x in `owner`.  The C = sum of frequency pieces then become C' = C + f(x) (m - 1), and f(y_i)
    becomes f(y_i) + f(x):

        loss(x) = f(x) (log f(x) / C  -  sum_i log (f(y_i) + f(x)) / C')

    The result is only meaningful for pieces that are in `owner` and have a frequency.
    """
    total, number = frequency.sum(), np.bincount(owner, minlength=len(frequency))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_total = np.log(total + frequency * (number - 1))
        logs = np.log(frequency[parts] + frequency[owner]) - log_total[owner]
        parts_logs = np.bincount(owner, weights=logs, minlength=len(frequency))
        return frequency * (np.log(frequency) - np.log(total) - parts_logs)


def by_score(pieces: Mapping[str, float]) -> list[tuple[str, float]]:
    """The most probable first; ties by spelling."""
    return sorted(pieces.items(), key=lambda item: (-item[1], item[0]))


def digamma(x: np.ndarray) -> np.ndarray:
    """The logarithmic derivative of the gamma function, for x > 0; accurate to about 1e-10.

    digamma(x) = digamma(x + 1) - 1 / x raises x to at least 7.  There, with y = x - 1/2, the
    asymptotic series (even powers only) is

        log y + 1 / (24 y^2) - 7 / (960 y^4) + 31 / (8064 y^6) - 127 / (30720 y^8)
    """
    x, result = np.array(x, dtype=np.float64), np.zeros_like(x, dtype=np.float64)
    while (small := x < 7).any():
        result[small] -= 1 / x[small]
        x[small] += 1
    y2 = 1 / (x - 0.5) ** 2
    series = y2 * (1 / 24 - y2 * (7 / 960 - y2 * (31 / 8064 - y2 * 127 / 30720)))
    return result + np.log(x - 0.5) + series
