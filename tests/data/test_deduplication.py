"""Duplicates: hashes, shingles, MinHash, bands, clusters, repeated substrings, against definitions."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data import deduplication as formulas
from tinyplm.data import MixedDocuments, deduplication
from tinyplm.data.deduplication import clusters, hashing, lsh, shingling, signatures, suffixes
from tinyplm.data.pipeline import Document, Ragged, run_pipeline
from tinyplm.random import generator, key

FEW = settings(max_examples=20)


def outcomes(step, texts):
    """(text or None, counts, decision) of each document."""
    documents = [Document(text, f"{i}") for i, text in enumerate(texts)]
    decisions = step.decide(Ragged.of(map(step.read, documents), step.dtype))
    assert len(decisions) == len(documents)
    results = [step.apply(document, decisions[i]) for i, document in enumerate(documents)]
    return [(kept and kept.text, counts, decisions[i]) for i, (kept, counts) in enumerate(results)]


def texts_of(step, texts):
    return [text for text, _, _ in outcomes(step, texts)]


# ---- hashes


def test_hashes_are_the_same_in_every_process():
    """Also pins them: a corpus that is half read must not meet other hashes after an upgrade."""
    code = (
        "from tinyplm.data.deduplication import hashing, shingles, minhash\n"
        "from tinyplm.data.pipeline import Document\n"
        "print(hashing.hashes(['one', 'zw\\u00f6lf'], 128), shingles('a b c d e f g', width=3)[:2],"
        "shingles('a\\u4e2d\\u6587', unit='characters', width=2, normalize='none'),"
        "minhash(permutations=2, seed=3).read(Document('to be or not to be', '')))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == PRINTED.split()


PRINTED = """[ 4185077993490451912 17395080870826731784  5702990342811832069
 13469152972220626083] [1427426824 2542408151] [2653647081 3796205953] [ 68840648 502383875]
"""


@FEW
@given(st.lists(st.integers(0, 5), max_size=30), st.sampled_from([64, 128]), st.integers(1, 8))
def test_repeats_by_parts(units, bits, part):
    texts = [str(unit) for unit in units]
    whole = hashing.LARGEST_PART
    hashing.LARGEST_PART = part
    try:
        found = list(hashing.repeats(hashing.hashes(texts, bits).reshape(-1, bits // 64)))
    finally:
        hashing.LARGEST_PART = whole
    pairs = {(int(a), int(b)) for later, first in found for a, b in zip(later, first)}
    assert pairs == {(i, units.index(u)) for i, u in enumerate(units) if units.index(u) < i}


def test_rows_of_128_bits_must_agree_in_both_numbers():
    rows = np.array([[1, 2], [1, 3], [2, 2], [1, 2]], np.uint64)
    ((later, first),) = hashing.repeats(rows)
    assert (later.tolist(), first.tolist()) == ([3], [0])


def test_forms():
    text = " The  Café\u2028cost\t12.50 €, «naïve»! "
    assert hashing.FORMS["none"](text) == text
    assert hashing.FORMS["spaces"](text) == "The Café cost 12.50 €, «naïve»!"
    assert hashing.FORMS["ccnet"](text) == "the cafe cost 0000 € naive"


# ---- exact duplicates


def test_exact_documents():
    texts = ["a b", "c", "a  b\n", "A b", "c", ""]
    found = outcomes(deduplication.exact_documents(), texts)
    assert [text for text, _, _ in found] == ["a b", "c", None, "A b", None, ""]
    assert [decision for _, _, decision in found] == [-1, -1, 0, -1, 1, -1]
    assert found[2][1] == {"copies of an earlier document": 1} and found[0][1] == {}
    assert texts_of(deduplication.exact_documents(normalize="ccnet", bits=64), texts)[3] is None
    assert texts_of(deduplication.exact_documents(normalize="none"), texts)[2] == "a  b\n"


def test_exact_lines_and_paragraphs():
    step = deduplication.exact_lines(shortest=3, bits=128)
    texts = ["one line\n}\n}\n  two", "  one line \n}\nnew\nnew\n", "two\none line"]
    found = outcomes(step, texts)
    assert [text for text, _, _ in found] == [texts[0], "}\nnew\n", None]
    assert found[1][1] == {"lines that occurred before": 2}
    assert found[2][1] == {"only lines that occurred before": 1}
    texts = ["p\nq\n\n  r\n \n\t\nS", "s\n\n  r\n\n\nlast\n", "untouched\n\n\n\nafter"]
    assert texts_of(deduplication.exact_paragraphs(normalize="ccnet"), texts) == [texts[0], "last\n", texts[2]]


# ---- shingles and signatures


@FEW
@given(st.lists(st.sampled_from(["a", "b", "中文", "ß"]), max_size=12), st.integers(1, 4))
def test_shingles_are_the_runs(words, width):
    text = " ".join(words)
    h = shingling.word_hashes(words).tolist()
    expected = {formulas.run_hash(run, int(shingling._BASE)) >> 32 for run in formulas.runs(h, width)}
    assert shingling.shingles(text, width=width, normalize="none").tolist() == sorted(expected)
    found = shingling.shingles(text, unit="characters", width=width, normalize="none")
    assert len(found) == len(formulas.runs(text, width))  # different runs have different hashes
    assert found.dtype == np.uint32


@FEW
@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard(a, b):
    found = shingling.jaccard(*(np.array(sorted(s), np.uint32) for s in (a, b)))
    assert found == formulas.jaccard(a, b)


def test_signatures_are_minima_and_estimate_the_similarity():
    functions = signatures.hash_functions(24, 5)
    numbers = generator(1).integers(0, 2**32, 40, dtype=np.uint32)
    numbers[:2] = 0, 2**32 - 1
    found = signatures.signature(numbers, functions)
    assert found.dtype == np.uint32
    assert found.tolist() == [formulas.minimum(numbers.tolist(), int(a), int(b)) for a, b in functions.T]
    with pytest.raises(ValueError, match="shingles: expected at least one"):
        signatures.signature(numbers[:0], functions)
    long = generator(2).integers(0, 2**32, 2500, dtype=np.uint32)  # in pieces
    joined = np.minimum(signatures.signature(long[:1100], functions), signatures.signature(long[1100:], functions))
    assert (signatures.signature(long, functions) == joined).all()


def planted(similarity, union, pairs, seed):
    """Pairs of sets of shingles with exactly this Jaccard similarity: `union` different numbers."""
    shared = round(similarity * union)
    assert shared == similarity * union
    draws = generator(key(seed))
    for _ in range(pairs):
        numbers = draws.choice(2**32, union, replace=False).astype(np.uint32)
        alone = (union - shared) // 2
        yield numbers[: shared + alone], np.delete(numbers, np.s_[shared : shared + alone])


def within_binomial(hits, count, p, error=1e-6):
    """Whether P(X >= hits) and P(X <= hits) both exceed `error`: Clopper & Pearson's interval has p."""
    above = formulas.binomial_tail(count, hits, p)
    below = formulas.binomial_tail(count, count - hits, 1 - p)
    return above > error and below > error


@pytest.mark.parametrize("similarity, bands, rows", [(0.5, 12, 3), (0.8, 6, 6), (0.8, 18, 2), (0.3, 18, 2)])
def test_recall_is_the_candidate_probability(similarity, bands, rows):
    """The share of planted pairs that become candidates lies in the interval of P at 1e-6."""
    pairs = list(planted(similarity, 40, 600, seed=1))
    hits, equal = 0, 0
    for number, (a, b) in enumerate(pairs):
        assert formulas.jaccard({*a.tolist()}, {*b.tolist()}) == similarity
        functions = signatures.hash_functions(bands * rows, number)  # each pair a trial of its own
        both = [signatures.signature(s, functions) for s in (a, b)]
        equal += signatures.estimate(*both) * bands * rows
        read = Ragged.of(both, np.uint32)
        hits += any(
            len(list(lsh.candidate_pairs(lsh.band_keys(read, np.arange(2), band, rows, 0), np.arange(2), 1)))
            for band in range(bands)
        )
    p = deduplication.candidate_probability(similarity, bands=bands, rows=rows)
    assert within_binomial(hits, len(pairs), p), (hits, p * len(pairs))
    assert not within_binomial(hits, len(pairs), p * 0.8)  # the bound can fail
    assert within_binomial(round(equal), len(pairs) * bands * rows, similarity)


# ---- bands


def test_probability_and_best_bands():
    for s in (0.0, 0.3, 0.9, 1.0):
        expected = formulas.probability(s, 7, 3)
        assert deduplication.candidate_probability(s, bands=7, rows=3) == pytest.approx(expected, rel=1e-14)
    assert deduplication.standard_error(0.8, 100) == pytest.approx(0.04)
    choices = [(b, r) for r in range(1, 13) for b in range(1, 12 // r + 1)]
    for threshold, w_p, w_n in ((0.7, 0.5, 0.5), (0.4, 0.2, 0.8)):
        costs = {c: np.dot((w_p, w_n), formulas.areas(threshold, *c, 200)) for c in choices}
        found = deduplication.best_bands(threshold, 12, false_positives=w_p, false_negatives=w_n)
        assert found == min(costs, key=costs.get)
    # datasketch 2.0.0: MinHashLSH(threshold, num_perm, weights)
    assert deduplication.best_bands(0.9, 128) == (5, 25)
    assert deduplication.best_bands(0.8, 128) == (9, 13)
    assert deduplication.best_bands(0.75, 100, false_positives=0.3, false_negatives=0.7) == (11, 9)


@FEW
@given(st.lists(st.integers(0, 3), max_size=14), st.integers(1, 4), st.randoms())
def test_candidate_pairs(keys, most, rng):
    groups = [rng.randrange(3) for _ in keys]
    found = lsh.candidate_pairs(np.array(keys, np.uint64), np.array(groups, np.int64), most)
    pairs = [(int(a), int(b)) for left, right in found for a, b in zip(left, right)]
    expected = set()
    for bucket in ([i for i, k in enumerate(keys) if k == value] for value in range(4)):
        if len({groups[i] for i in bucket}) > 1:
            expected |= {(a, b) for n, a in enumerate(bucket) for b in bucket[n + 1 : n + 1 + most]}
    assert sorted(pairs) == sorted(expected)


@FEW
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25), st.integers(0, 25))
def test_clusters(pairs, split):
    found = clusters.singletons(20)
    for part in (pairs[:split], pairs[split:]):
        left, right = np.array(part, np.int64).reshape(-1, 2).T
        clusters.join(found, left, right)
    assert found.tolist() == formulas.clusters(20, pairs)


def test_long_chains_join():
    found, n = clusters.singletons(3000), np.arange(2999)
    clusters.join(found, n[::-1] + 1, n[::-1])
    assert not found.any()


# ---- near duplicates


def corpus_with_copies(count, seed):
    """Documents of 60 words, every third one an earlier one with up to 12 words replaced."""
    rng = random.Random(seed)
    texts = []
    for number in range(count):
        if number % 3 == 2:
            words = rng.choice(texts).split()
            for _ in range(rng.choice((0, 1, 2, 3, 6, 12))):
                words[rng.randrange(60)] = f"w{rng.randrange(2000)}"
        else:
            words = [f"w{rng.randrange(2000)}" for _ in range(60)]
        texts.append(" ".join(words))
    return texts


def test_near_duplicates_against_all_pairs():
    """300 documents against all pairs by definition: precision 1, recall by P of the similarities."""
    texts, threshold = corpus_with_copies(300, 4), 0.6
    common = {"width": 3, "threshold": threshold, "normalize": "none", "seed": 2}
    sets = [formulas.runs(text.split(), 3) for text in texts]
    similar = {(i, j): formulas.jaccard(sets[i], sets[j]) for j in range(300) for i in range(j)}
    true = {pair: s for pair, s in similar.items() if s >= threshold}
    expected = formulas.clusters(300, list(true))
    assert len(true) > 60 and len({s for s in true.values()}) > 10

    step = deduplication.minhash(**common, verify="shingles")
    found = outcomes(step, texts)
    kept = [i if decision < 0 else decision for i, (_, _, decision) in enumerate(found)]
    assert all(expected[first] == expected[i] for i, first in enumerate(kept))  # precision
    assert all((text is None) == (kept[i] < i) for i, (text, _, _) in enumerate(found))
    missed = sum(kept[i] != kept[j] for i, j in true)
    mean = sum(1 - deduplication.candidate_probability(s, bands=step.bands, rows=step.rows) for s in true.values())
    assert missed <= mean + 5 * mean**0.5 + 1 < len(true) / 4

    # The estimate judges a pair otherwise with probability exp(-2 k (s - t)^2) at most (Hoeffding 1963).
    estimated = texts_of(deduplication.minhash(**common), texts)
    differ = sum((a is None) != (b is None) for a, (b, _, _) in zip(estimated, found))
    mean = sum(np.exp(-2 * 128 * (s - threshold) ** 2) for s in similar.values())
    assert differ <= mean + 5 * mean**0.5 < len(true)
    every = texts_of(deduplication.minhash(**common, verify="none"), texts)
    assert all(b is None for (a, _, _), b in zip(found, every) if a is None)


def test_blank_and_short_documents_and_the_first_is_kept():
    texts = ["", "one two", "three", " ", "One, two!", "three"]
    found = outcomes(deduplication.minhash(), texts)
    assert [text for text, _, _ in found] == ["", "one two", "three", " ", None, None]
    assert [decision for _, _, decision in found] == [-1, -1, -1, -1, 1, 2]
    assert found[4][1] == {"near duplicates of an earlier document": 1}
    assert outcomes(deduplication.minhash(), []) == [] and texts_of(deduplication.minhash(), ["", " "]) == ["", " "]
    step = deduplication.minhash(unit="characters", width=2, verify="none", threshold=0.5)
    assert texts_of(step, ["今天天气很好", "今天天气很好。", "别的话"]) == ["今天天气很好", None, "别的话"]


def test_a_bucket_of_many_copies(tmp_path):
    """More copies than LARGEST_BUCKET, read from a mapped file; one cluster, in little work."""
    step = deduplication.minhash()
    a, b = (step.read(Document(text, "")) for text in ("a b c d e f g", "h i j k l m n"))
    many = Ragged.of([b, *[a] * 700, b], step.dtype)
    np.save(tmp_path / "values.npy", many.values)
    mapped = Ragged(np.load(tmp_path / "values.npy", mmap_mode="r"), many.offsets)
    assert step.decide(mapped).tolist() == [-1, -1, *[1] * 699, 0]


# ---- repeated substrings


@FEW
@given(st.lists(st.text("ab", max_size=14), max_size=5), st.integers(1, 7))
def test_repeated_substrings(texts, length):
    step = deduplication.substrings(shortest=length)
    corpus = Ragged.of(map(suffixes.code_points, texts), np.uint32)
    removed = suffixes.repeated_characters(corpus, length)
    assert removed.tolist() == sum(formulas.repeated(texts, length), [])
    kept = [text or "" for text in texts_of(step, texts)]
    found = [text[i : i + length] for text in texts for i in range(len(text) - length + 1)]
    for run in found:  # nothing is lost
        assert found.count(run) == 1 or any(run in text for text in kept)


def test_ranks_are_the_order_of_the_substrings():
    text = "abracadabra\ud800\U0001f600abra"
    for length in (1, 2, 3, 5, 8, len(text)):
        parts = [suffixes.code_points(text[i : i + length]).tolist() for i in range(len(text) - length + 1)]
        order = sorted({*map(tuple, parts)})
        assert suffixes.ranks(suffixes.code_points(text), length).tolist() == [order.index(tuple(p)) for p in parts]


def test_substrings_of_unicode_and_too_large_a_corpus(monkeypatch):
    texts = ["x 😀 the same sentence. y", "Also the same sentence. End", "😀 the same sentence."]
    found = outcomes(deduplication.substrings(shortest=10), texts)
    assert [text for text, _, _ in found] == [texts[0], "AlsoEnd", None]
    assert found[1][1] == {"characters that occurred before": 20}
    assert found[2][1] == {"only text that occurred before": 1}
    monkeypatch.setattr(suffixes, "LARGEST_CORPUS", 20)
    with pytest.raises(ValueError, match="substrings: expected at most 20 characters at once .*, got 71"):
        outcomes(deduplication.substrings(shortest=10), texts)


# ---- what is refused


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: deduplication.exact_documents(normalize="nfc"), "normalize: expected one of none, spaces, ccnet, got 'nfc'"),
        (lambda: deduplication.exact_lines(bits=32), "bits: expected one of 64, 128, got 32"),
        (lambda: deduplication.exact_paragraphs(shortest=0), "shortest: expected an integer from 1"),
        (lambda: deduplication.minhash(threshold=1.0), "threshold: expected a finite number > 0 and < 1, got 1.0"),
        (lambda: deduplication.minhash(unit="tokens"), "unit: expected one of words, characters, got 'tokens'"),
        (lambda: deduplication.minhash(bands=3), "bands, rows: expected both or neither, got 3, None"),
        (lambda: deduplication.minhash(bands=9, rows=15), "bands * rows: expected at most 128 permutations, got 135"),
        (lambda: deduplication.minhash(verify="yes"), "verify: expected one of signatures, shingles, none, got 'yes'"),
        (lambda: deduplication.minhash(seed=-1), "seed: expected an integer from 0"),
        (lambda: deduplication.substrings(shortest=0.5), "shortest: expected an integer from 1"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(message)


def test_in_the_pipeline(tmp_path):
    """Through shards and files, the same as in memory; and a mixture reads what the pipeline writes."""
    texts = corpus_with_copies(40, 7)
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "test.txt").write_text(texts[0][:200])
    steps = [{"name": name} for name in ("exact_documents", "exact_paragraphs", "exact_lines")]
    steps += [{"name": "minhash", "normalize": "none", "width": 3, "threshold": 0.6}, {"name": "substrings"}]
    steps += [{"name": "decontaminate", "files": [f"{tmp_path}/test.txt"], "action": "drop"}]
    run_pipeline(tmp_path / "in.jsonl", steps, tmp_path / "out", shard=2000)
    for step in steps:
        settings_ = {name: value for name, value in step.items() if name != "name"}
        texts = [text for text in texts_of(getattr(deduplication, step["name"])(**settings_), texts) if text]
    mixed = MixedDocuments({"all": tmp_path / "out"}, seed=1)
    assert 10 < len(mixed) == len(texts) < 40
    assert sorted(document.text for document in mixed) == sorted(texts)
