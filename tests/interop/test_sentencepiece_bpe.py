"""SentencePiece's BPE against the library `sentencepiece`: pieces, scores and the segmentation of text must be equal.

Scripts are compared for characters in Unicode 3.2: their table (Unicode 9) is older than that of `regex`.
"""

import io
import random
import struct
import unicodedata
from collections import Counter

import pytest

from reference.tokenizers import sentencepiece as naive
from tests.interop.test_tokenizers import CORPUS
from tests.support.hard_strings import HARD
from tests.tokenizers.models.test_sentencepiece_bpe import apply
from tinyplm.tokenizers.models.sentencepiece_bpe import merges_from_scores
from tinyplm.tokenizers.training.sentencepiece_bpe import train_sentencepiece_bpe

spm = pytest.importorskip("sentencepiece")

# One thread: with their default of sixteen, a small training run takes fifty times as long.
QUIET = {"model_type": "bpe", "normalization_rule_name": "identity", "minloglevel": 2, "num_threads": 1}


def clean(texts):
    """Lines with one space between words, as they normalise them."""
    lines = (" ".join(filter(None, line.replace("▁", " ").split(" "))) for text in texts for line in text.split("\n"))
    return [line for line in lines if line]


def theirs(lines, vocab_size, **options):
    model = io.BytesIO()
    options = {"sentence_iterator": lines and iter(lines), "model_writer": model, "vocab_size": vocab_size} | QUIET | options
    spm.SentencePieceTrainer.train(**options)
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


def processor(pieces):
    """A hand-written .model with these pieces (sentencepiece_model.proto), each of kind normal, user_defined or unused."""

    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    kinds = {"normal": 1, "user_defined": 4, "unused": 5}
    numbered = [("<unk>", 0.0, 2), *((text, score, kinds[kind]) for text, score, kind in pieces)]
    model = b"".join(
        field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([3 << 3, kind]))
        for text, score, kind in numbered
    )
    bpe, identity = bytes([3 << 3, 2]), field(1, b"identity")
    return spm.SentencePieceProcessor(model_proto=model + field(2, bpe) + field(3, identity))


def kind(sp, i):
    kinds = {"unknown": sp.is_unknown, "control": sp.is_control, "byte": sp.is_byte, "unused": sp.is_unused}
    return next((name for name, test in kinds.items() if test(i)), "normal")


def pieces_of(sp):
    return [(sp.id_to_piece(i), sp.get_score(i), kind(sp, i)) for i in range(sp.get_piece_size())]


def ours(lines, vocab_size=10**5, max_sentencepiece_length=16, **options):
    counts = Counter("▁" + line.replace(" ", "▁") for line in lines)
    return train_sentencepiece_bpe(counts, vocab_size, max_piece_length=max_sentencepiece_length, **options)


def same_training(lines, vocab_size, **options):
    sp = theirs(lines, vocab_size, **options)
    pieces = ours(lines, vocab_size, **options)
    # the library does not distinguish user-defined pieces from normal ones
    assert [(text, score, "normal" if kind == "user_defined" else kind) for text, score, kind in pieces] == pieces_of(sp)
    return sp, pieces


OPTIONS = [
    {},
    {"character_coverage": 1.0},
    {"character_coverage": 0.98},
    {"max_sentencepiece_length": 3},
    {"split_by_number": False},
    {"split_by_unicode_script": False},
    {"split_digits": True},
    {"split_by_number": False, "split_digits": True, "split_by_unicode_script": False},
    {"control_symbols": ["<sep>"], "user_defined_symbols": ["the", "▁it", "s▁"]},
]


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_training(options, byte_fallback):
    lines = clean(CORPUS + ["<s> the <unk>ferry<0x41>man</s> <sep> １２ab34 ab\x1fab 12ab"])
    options = options | {"byte_fallback": byte_fallback}
    full = len(ours(lines, **options))
    fewest = full - sum(kind == "normal" and len(text) > 1 for text, _, kind in ours(lines, **options))
    for vocab_size in (fewest, fewest + 1, (fewest + full) // 2, full):
        same_training(lines, vocab_size, **options)


@pytest.mark.parametrize(("counts", "coverage"), [((9995 * 10**9 - 1, 5 * 10**9 + 1), 0.9995), ((9990, 10), 0.9995)])
def test_coverage_is_compared_in_single_precision(tmp_path, counts, coverage):
    words = dict(zip("ab", counts))
    (tmp_path / "words.tsv").write_text("".join(f"{word}\t{count}\n" for word, count in words.items()))
    options = {"input": str(tmp_path / "words.tsv"), "input_format": "tsv", "add_dummy_prefix": False}
    sp = theirs(None, 10, character_coverage=coverage, hard_vocab_limit=False, **options)
    assert pieces_of(sp) == train_sentencepiece_bpe(words, 10, character_coverage=coverage, byte_fallback=False)


def test_where_they_go_on_with_pairs_that_no_longer_occur():
    lines = ["aaaa aaa ab abc"]
    pieces = ours(lines, character_coverage=1.0, byte_fallback=False)
    sp = theirs(lines, 100, character_coverage=1.0, hard_vocab_limit=False)
    learnt = [text for text, _, _ in pieces_of(sp) if text not in {text for text, _, _ in pieces}]
    assert learnt == ["bc", "▁a", "aaa", "abc", "aaaa"]
    assert not any(learnt_piece in sp.encode("aaaa aaa ab abc", out_type=str) for learnt_piece in learnt)


def test_whitespace_only_pieces():
    lines = ["a  b   c", "    if x:", "        y", "  z"]
    options = {"allow_whitespace_only_pieces": True, "character_coverage": 1.0, "byte_fallback": False}
    full = len(ours(lines, **options))
    for vocab_size in range(full - 8, full + 1):
        sp = theirs(lines, vocab_size, remove_extra_whitespaces=False, **options)
        assert ours(lines, vocab_size, **options) == pieces_of(sp)


def test_random_corpora_with_many_ties():
    chance = random.Random(0)
    for _ in range(150):
        letters = chance.choice(["ab", "abc", "ab1２", "aбé\u0301漢かー1", "\u0301\u0302ab"])
        lines = clean("".join(chance.choices(letters + "  ", k=chance.randint(1, 25))) for _ in range(chance.randint(1, 6)))
        if not lines:
            continue
        options = {
            "byte_fallback": False,
            "character_coverage": chance.choice([1.0, 0.9995, 0.98]),
            "split_by_number": chance.random() < 0.5,
            "max_sentencepiece_length": chance.choice([16, 2, 3, 4]),
        }
        pieces = ours(lines, **options)
        merges = sum(kind == "normal" and len(text) > 1 for text, _, kind in pieces)
        same_training(lines, len(pieces) - chance.randint(0, merges), **options)


def test_scripts():
    """Words of two consecutive characters: which of them become a piece shows where scripts change.

    Left out: ▁, their mark ▅ for unknown letters, and the Armenian full stop, which was Common in Unicode 9.
    """
    old = unicodedata.ucd_3_2_0
    chars = [chr(c) for c in range(0x21, 0x20010) if old.category(chr(c)) not in ("Cn", "Cs", "Co", "Zs", "Zl", "Zp", "Cc")]
    chars = [c for c in chars if not ("\u3500" < c < "\u9f00" or "\uac10" < c < "\ud700") and c not in "▁▅\u0589"]
    lines = clean(a + b for a, b in zip(chars, chars[1:]))
    options = {"byte_fallback": False, "character_coverage": 1.0}
    same_training(lines, len(ours(lines, **options)), **options)


# Applying


def fused(parts, scores):
    """They merge adjacent unknown pieces into one."""
    result = []
    for part in parts:
        unknown = part not in scores
        if unknown and result and result[-1][1]:
            result[-1] = (result[-1][0] + part, True)
        else:
            result.append((part, unknown))
    return [part for part, _ in result]


def same_pieces(sp, pieces, texts, user_defined=()):
    scores = {text: score for text, score, kind in pieces if kind == "normal"}
    for text in clean(texts):
        spaced = "▁" + text.replace(" ", "▁")
        by_score = naive.encode(spaced, scores, user_defined)
        assert fused(by_score, {**scores, **dict.fromkeys(user_defined)}) == sp.encode(text, out_type=str)
        if not user_defined and len(text) < 400:
            assert apply(spaced, pieces) == by_score


def test_merges_divide_text_as_they_do():
    lines = clean(CORPUS)
    for vocab_size in (280, 450, 700):
        sp, pieces = same_training(lines, vocab_size, byte_fallback=False)
        merges = merges_from_scores(pieces)
        assert len(merges) == sum(kind == "normal" and len(text) > 1 for text, _, kind in pieces)
        same_pieces(sp, pieces, CORPUS + HARD)


def test_user_defined_pieces_are_matched_first_and_nothing_is_joined_to_them():
    user_defined = ("the", "th", "▁it", "s▁", "ha ha".replace(" ", "▁"))
    sp, pieces = same_training(clean(CORPUS), 500, byte_fallback=False, user_defined_symbols=list(user_defined))
    texts = ["the then bathe ththe", "it its it is", "ha ha ha hahas sit", "as the sea"]
    same_pieces(sp, pieces, [*texts, *CORPUS], user_defined)


def test_random_vocabularies():
    """Including unreachable pieces and overlapping user-defined ones."""
    chance = random.Random(0)
    for _ in range(300):
        texts = {"".join(chance.choices("abc", k=chance.randint(2, 5))) for _ in range(chance.randint(0, 10))}
        user_defined = tuple(
            sorted({"".join(chance.choices("abc", k=chance.randint(1, 3))) for _ in range(chance.randint(0, 2))})
        )
        texts = sorted(texts.union("abc▁").difference(user_defined))
        chance.shuffle(texts)
        pieces = [(text, -float(i), "normal") for i, text in enumerate(texts)]
        sp = processor(pieces + [(text, 0.0, "user_defined") for text in user_defined])
        same_pieces(sp, pieces, ["".join(chance.choices("abcx ", k=chance.randint(1, 20))) for _ in range(5)], user_defined)


LETTERS = [(letter, -9.0, "normal") for letter in "abi▁"]


def test_a_letter_that_is_no_piece():
    """They merge it anyway; to a BPE model it is unknown from the start."""
    pieces = [("▁a", 0.0, "normal"), ("▁ax", -1.0, "normal"), *LETTERS]
    assert processor(pieces).encode("ax", out_type=str) == ["▁ax"]
    with pytest.raises(ValueError, match="expected a piece for each letter .*, got none for 'x'"):
        merges_from_scores(pieces)


def test_unused_pieces():
    """They are used in merges and then split again."""
    pieces = [("ab", 0.0, "unused"), ("abi", -1.0, "normal"), *LETTERS]
    assert processor(pieces).encode("ab abi aba", out_type=str) == ["▁", "a", "b", "▁", "abi", "▁", "a", "b", "a"]
    with pytest.raises(ValueError, match="expected no unused piece that others can form, got 'ab'"):
        merges_from_scores(pieces)


def test_pieces_of_equal_score():
    """They merge the leftmost: ab before ba in aba, ba before ab in bab.  No order of merges does that."""
    pieces = [("ab", 0.0, "normal"), ("ba", 0.0, "normal"), *LETTERS]
    assert processor(pieces).encode("aba bab", out_type=str) == ["▁", "ab", "a", "▁", "ba", "b"]
    same_pieces_by_score = [naive.encode(text, {text: score for text, score, _ in pieces}) for text in ("aba", "bab")]
    assert same_pieces_by_score == [["ab", "a"], ["ba", "b"]]
    with pytest.raises(ValueError, match="expected different scores"):
        merges_from_scores(pieces)
