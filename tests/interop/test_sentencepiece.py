"""SentencePiece's own models, read by Tokenizer.load, against `sentencepiece`: ids, and decoded text.

Characters are those of Unicode 3.2, since the library's character maps use an older Unicode than Python's tables.
"""

from __future__ import annotations

import io
import random
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.test_tokenizers import CORPUS
from tests.support.hard_strings import HARD
from tests.support.sentencepiece_files import message, piece
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.normalization import Replace

spm = pytest.importorskip("sentencepiece")

LINES = [line for text in CORPUS for line in text.split("\n") if line.strip()]
MODELS = {
    f"{kind}, {name}": {"model_type": kind} | options
    for kind in ("unigram", "bpe")
    for name, options in {
        "nmt_nfkc": {},
        "nfkc_cf": {"normalization_rule_name": "nfkc_cf"},
        "nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf", "byte_fallback": True},
        "identity": {"normalization_rule_name": "identity"},
        "LLaMA": {"normalization_rule_name": "identity", "byte_fallback": True, "remove_extra_whitespaces": False},
        "no prefix": {"add_dummy_prefix": False},
        "no prefix, all spaces": {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "byte_fallback": True},
        "control symbols": {"control_symbols": ["<sep>", "<cls>"], "pad_id": 3},
        "pieces over words": {"split_by_whitespace": False, "normalization_rule_name": "nfkc"},
    }.items()
}
MODELS["unigram, user-defined"] = {"model_type": "unigram", "user_defined_symbols": ["<user>", "ferryman", "0x"]}

RUNS = [*("\n" * n for n in range(1, 6)), *("▁" * n for n in range(2, 9))]
GEMMA = {
    **{"byte_fallback": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False, "split_digits": True},
    **{"normalization_rule_name": "identity", "allow_whitespace_only_pieces": True},
    **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "bos_piece": "<bos>", "eos_piece": "<eos>"},
    "user_defined_symbols": ["<mask>", "<start_of_turn>", "<end_of_turn>", "<unused0>", "\t", "<table>", "</table>", *RUNS],
}
MODELS["bpe, Gemma"] = {"model_type": "bpe", **GEMMA}
MODELS["bpe, user-defined"] = {
    "model_type": "bpe",
    "add_dummy_prefix": False,
    "user_defined_symbols": ["<user>", "ferryman", "0x"],
}


def trained(path, **options):
    model = io.BytesIO()
    settings = {"vocab_size": 700, "minloglevel": 2, "num_threads": 1, "hard_vocab_limit": False, "character_coverage": 0.99}
    spm.SentencePieceTrainer.train(sentence_iterator=iter(LINES * 3), model_writer=model, **settings | options)
    path.write_bytes(model.getvalue())
    return Tokenizer.load(path), spm.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("sp") / "tokenizer.model", **MODELS[request.param])


def old_unicode(char):
    return unicodedata.ucd_3_2_0.category(char) != "Cn"


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cn"]).filter(old_unicode), max_size=20),
    st.lists(st.sampled_from([*HARD, *"abc 's'\n\t1春é▁#", " ", "  ", "\n\n", "<table>", "<user>"]), max_size=4).map("".join),
)


def same(ours, theirs, text):
    expected, ids = theirs.encode(text), ours.encode(text)
    assert ours.encoding(text).ids == ids
    assert ids == expected, text
    same_text(ours, theirs, ids)


def same_text(ours, theirs, ids):
    """Except for the unknown token (" ⁇ " there), control symbols (no text there) and leading spaces: the library drops all of
    them if the model removes extra white space, we drop one if the model adds one."""
    ids = [id for id in ids if not (theirs.is_unknown(id) or theirs.is_control(id))]
    here, there = ours.decode(ids), theirs.decode(ids)
    if Replace({"Regex": " {2,}"}, " ") in ours.normalizer.normalizers:
        here, there = here.lstrip(" "), there.lstrip(" ")
    assert here == there, ids


def test_hard_strings(both):
    for text in HARD:
        same(*both, text)


@settings(max_examples=40)
@given(TEXTS)
def test_fuzzed(both, text):
    same(*both, text)


@settings(max_examples=40)
@given(st.data())
def test_any_ids_decode_alike(both, data):
    """Except bytes: of an invalid run the library keeps the valid parts; we keep nothing, as in `tokenizers`."""
    ours, theirs = both
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1).filter(lambda id: not theirs.is_byte(id)), max_size=12))
    same_text(ours, theirs, ids)


@pytest.fixture(scope="module")
def with_bytes(tmp_path_factory):
    options = {"model_type": "unigram", "byte_fallback": True}
    return trained(tmp_path_factory.mktemp("sp") / "tokenizer.model", **options)


@pytest.mark.parametrize("text", ["<s>", "a</s>b", "<unk>", "<0x41>"])
def test_control_and_byte_pieces_are_never_text(with_bytes, text):
    ours, theirs = with_bytes
    assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("text", ["e\u0301\u0323", "\u1100\u1161\u11a8\u11a8", "\uff76\uff9e\u0301"])
def test_the_character_map_drops_no_marks(with_bytes, text):
    ours, theirs = with_bytes
    assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("text", ["▁", " ▁", "▁ a▁ ▁", "▁▁a b▁▁", " \n▁ ", "a ▁ b"])
@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
def test_signs_for_spaces_that_stand_in_the_text(tmp_path, rule, text):
    same(*trained(tmp_path / "tokenizer.model", model_type="bpe", normalization_rule_name=rule), text)


def test_spaces_inside_a_text_take_linear_time(tmp_path):
    ours, theirs = trained(tmp_path / "tokenizer.model", model_type="unigram", normalization_rule_name="identity")
    for char in " ▁":
        text = "x" + char * 200_000 + "y"
        start = time.process_time()
        ids = ours.encode(text)
        assert time.process_time() - start < 5
        assert ids == theirs.encode(text)


def test_saved_and_read_by_tokenizers(both, tmp_path):
    hf = pytest.importorskip("tokenizers")
    ours, _ = both
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).parts == ours.parts  # we lose nothing
    theirs = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.save(str(tmp_path / "tokenizer.json"))  # loses the two keys that only we read
    ours = Tokenizer.load(tmp_path / "tokenizer.json")
    for text in [*HARD, "▁ a▁ ▁", "▁▁a b▁▁", "x    y  ", "  x\n \n"]:
        here, there = ours.encoding(text, allow_special=True), theirs.encode(text)
        assert (here.ids, here.offsets) == (there.ids, there.offsets), text
        assert ours.decode(here.ids) == theirs.decode(there.ids, skip_special_tokens=False)


def test_random_vocabularies_with_user_defined_pieces(tmp_path):
    """Overlapping ones, single letters, and normal pieces that contain one, as a whole tokenizer."""
    chance = random.Random(0)
    path = tmp_path / "m.model"
    for _ in range(150):
        texts = {"".join(chance.choices("abc▁", k=chance.randint(2, 5))) for _ in range(chance.randint(0, 12))}
        chosen = {"".join(chance.choices("abc▁", k=chance.randint(1, 3))) for _ in range(chance.randint(1, 4))}
        texts = sorted(texts.union("abc▁").difference(chosen))
        chance.shuffle(texts)
        pieces = [piece(text, -float(i)) for i, text in enumerate(texts)] + [piece(text, 0.0, 4) for text in sorted(chosen)]
        path.write_bytes(message(piece("<unk>", 0.0, 2), *pieces, (2, [(3, 2)]), (3, [(1, "identity"), (3, 0), (4, 0)])))
        ours, theirs = Tokenizer.load(path), spm.SentencePieceProcessor(model_file=str(path))
        for _ in range(10):
            same(ours, theirs, "".join(chance.choices("abcx ", k=chance.randint(0, 20))))
