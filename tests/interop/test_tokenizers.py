"""Our tokenizer against the library `tokenizers`: vocabulary, merges, ids and decoded text must be equal.

The library always matches added tokens, so `allow_special=True` is compared.
"""

import json
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tests.support.hard_strings import END, HARD
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.bytelevel import bytes_to_chars, split_words

hf = pytest.importorskip("tokenizers")

CORPUS = [
    "It was the season of rain, and the river had risen above its banks; nobody could say when it would fall "
    "again. They'd waited for three weeks, and it's likely they'll wait for three more. 'Patience,' said "
    "the ferryman, who'd seen 40 floods in his 72 years, 'is cheaper than a new boat.'\n\n"
    "The children counted the branches that drifted by: 1, 2, 3, 10, 100, 1000 and then 1,000,000.\n",
    "import sys\n\n\ndef main(argv):\n    for i, name in enumerate(argv[1:]):\n        if name[0] == '-':\n"
    "            continue\n        print(f'{i:03d} {name!r}', file=sys.stderr)\n    return 0\n\n\n"
    "if __name__ == '__main__':\n    sys.exit(main())\n\tfoo_bar = baz->qux(&x[0], y != z ? 0xFF : 1);\n",
    "河水已经涨了三个星期，谁也说不准什么时候会退。船夫说：“耐心比新船便宜。”孩子们数着漂过的树枝，一、二、三。"
    "我们用 Python 写代码，也用 NumPy 做计算。天气很好，天气很好，天气真的很好！",
    "Река поднялась выше берегов, и никто не знал, когда она опустится. Ο ποταμός φούσκωσε. Řeka stoupla "
    "nad břehy a nikdo nevěděl, kdy klesne. Dòng sông đã dâng cao. Nehir taştı, çocuklar dalları saydı.",
    "النهر ارتفع فوق ضفافه ولم يعرف أحد متى ينخفض. הנהר עלה על גדותיו. नदी का पानी किनारों से ऊपर चढ़ गया। "
    "แม่น้ำเอ่อล้นตลิ่ง 川の水が岸を越えた。강물이 둑을 넘었다。",
    "a b  c   d    e     f      g\t\th\n\n\n\ni -------- ======== ........ ha ha haha hahaha aaaa aaaaaaaa 😀😀😀",
]


def train_theirs(texts, vocab_size, special_tokens=(END,)):
    theirs = hf.Tokenizer(hf.models.BPE())
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = hf.decoders.ByteLevel()
    theirs.post_processor = hf.processors.ByteLevel(trim_offsets=False)
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special_tokens),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    return theirs


def same_training(texts, vocab_size, special_tokens=(END,)):
    ours, theirs = (
        Tokenizer.train(texts, vocab_size, special_tokens),
        train_theirs(texts, vocab_size, special_tokens),
    )
    model = json.loads(theirs.to_str())["model"]
    assert ours.model.vocab == model["vocab"]
    assert ours.model.merges == [tuple(merge) for merge in model["merges"]]
    return ours, theirs


@pytest.fixture(scope="module")
def both():
    return same_training(CORPUS * 2, 900)


@pytest.fixture(scope="module")
def ours_by_them(both, tmp_path_factory):
    path = tmp_path_factory.mktemp("ours") / "tokenizer.json"
    both[0].save(path)
    return hf.Tokenizer.from_file(str(path))


@pytest.fixture(scope="module")
def theirs_by_us(both, tmp_path_factory):
    path = tmp_path_factory.mktemp("theirs") / "tokenizer.json"
    both[1].save(str(path))
    return Tokenizer.load(path)


# Training


@pytest.mark.parametrize("vocab_size", [257, 258, 300, 600, 5000])
def test_training_gives_their_vocabulary_and_merges(vocab_size):
    same_training(CORPUS, vocab_size)


def test_training_with_several_special_tokens_in_the_text():
    same_training([f"text {END} and <pad> text<pad>", "more text"], 280, [END, "<pad>", "<mask>"])
    same_training(["no special tokens"], 280, [])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab-= \né天", max_size=60), min_size=1).filter(any), st.integers(0, 200))
def test_training_on_a_few_characters_with_many_ties(texts, merges):
    same_training(texts, 257 + merges)


# Ids and text


def test_there_are_enough_hard_strings():
    assert len(set(HARD)) == len(HARD) >= 320


@pytest.mark.parametrize("text", HARD)
def test_hard_strings(both, ours_by_them, theirs_by_us, text):
    ours, theirs = both
    ids = ours.encode(text, allow_special=True)
    assert ids == theirs.encode(text).ids == ours_by_them.encode(text).ids
    assert ids == theirs_by_us.encode(text, allow_special=True)
    assert ours.decode(ids) == text == theirs.decode(ids, skip_special_tokens=False)
    assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)


def cut_alike(run: str) -> bool:
    """Whether both assign a run of characters of one kind to the same kind."""
    text = f"a{run}1{run}!{run}"
    theirs = hf.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    return [word for word, _ in theirs] == [bytes_to_chars(word.encode()) for word in split_words(text)]


def test_all_characters_are_cut_alike_but_newer_ones():
    """`regex` may know letters and digits of a newer Unicode; the library treats unassigned characters as symbols."""
    everything = "".join(chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    runs = regex.findall(r"(?:\p{L}+|\p{N}+|\s+|[^\s\p{L}\p{N}]+)", everything)
    assert "".join(runs) == everything
    pieces = [run[i : i + 256] for run in runs for i in range(0, len(run), 256)]
    newer = [char for piece in pieces if not cut_alike(piece) for char in piece if not cut_alike(char)]
    for char in newer:
        assert regex.fullmatch(r"[\p{L}\p{N}]", char)
        assert len(hf.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(f"!{char}")) == 1
    old = [chr(c) for c in range(0x530) if unicodedata.category(chr(c)) != "Cn"]
    assert set(newer).isdisjoint(old + list("".join(CORPUS + HARD)))


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_fuzzed_unicode(both, text):
    ours, theirs = both
    text = "".join(filter(cut_alike, text))
    ids = ours.encode(text, allow_special=True)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False) == text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*HARD, *"abc 's'\n\t1春é", " ", "  ", END]), max_size=12))
def test_fuzzed_joins_of_hard_strings(both, parts):
    ours, theirs = both
    assert ours.encode("".join(parts), allow_special=True) == theirs.encode("".join(parts)).ids


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 899)))
def test_any_ids_decode_alike(both, ids):
    """Even when the bytes are not UTF-8: the same number of U+FFFD."""
    ours, theirs = both
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)


def test_batches(both):
    ours, theirs = both
    assert ours.encode_batch(HARD, allow_special=True) == [e.ids for e in theirs.encode_batch(HARD)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_merges_in_any_order(data):
    """A file may list a merge before the one that makes its parts: both apply them in the same order."""
    vocab = {char: i for i, char in enumerate("ab")}
    merges = []
    for _ in range(data.draw(st.integers(0, 12))):
        pair = tuple(data.draw(st.sampled_from(sorted(vocab))) for _ in range(2))
        if pair not in merges:
            merges.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
    merges = data.draw(st.permutations(merges))
    theirs = hf.Tokenizer(hf.models.BPE(vocab=vocab, merges=merges))
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = hf.decoders.ByteLevel()
    text = data.draw(st.text("ab", max_size=40))
    content = json.loads(theirs.to_str())
    assert load_json(content).encode(text) == theirs.encode(text).ids


# Files


def load_json(content):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(content))
        return Tokenizer.load(folder)


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("use_regex", [False, True])
def test_components_with_options(both, tmp_path, prefix, use_regex):
    theirs = hf.Tokenizer.from_str(both[1].to_str())
    theirs.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)
    theirs.post_processor = hf.processors.ByteLevel(trim_offsets=True)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    ours.save(tmp_path / "again.json")
    again = hf.Tokenizer.from_file(str(tmp_path / "again.json"))
    for text in HARD:
        ids = theirs.encode(text).ids
        assert ours.encode(text, allow_special=True) == ids == again.encode(text).ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    mine, original = json.loads(again.to_str()), json.loads(theirs.to_str())
    assert mine == original


def test_added_tokens(both, tmp_path):
    theirs = hf.Tokenizer.from_str(both[1].to_str())
    theirs.add_tokens(["ferry", hf.AddedToken("    ", normalized=True), hf.AddedToken("ha ha", normalized=False)])
    theirs.add_special_tokens(["<pad>", hf.AddedToken("<pad><pad>", special=True), "ferryman", "<｜用户｜>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    assert ours.vocab_size == theirs.get_vocab_size()
    extra = [
        "ferryman ferry ferries",
        "<pad><pad><pad>",
        "     x",
        "ha ha ha",
        f"<｜用户｜>{END}    <pad>ha hasty ferr<pad>y",
    ]
    for text in HARD + extra:
        ids = theirs.encode(text).ids
        assert ours.encode(text, allow_special=True) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False) == text
        assert ours.decode(ids, skip_special=True) == theirs.decode(ids)
    assert [ours.id_to_token(i) for i in range(ours.vocab_size)] == [theirs.id_to_token(i) for i in range(ours.vocab_size)]


def test_vocab_and_merges_as_they_save_them(both, tmp_path):
    both[1].model.save(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merges.txt", "vocab.json"]
    ours = Tokenizer.load(tmp_path)
    for text in HARD:
        assert ours.encode(text, allow_special=True) == both[1].encode(text).ids


# transformers


def test_transformers_loads_ours_and_we_load_what_it_saves(both, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours, _ = both
    ours.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token=END)
    assert len(theirs) == ours.vocab_size and theirs.eos_token_id == ours.eos_id
    theirs.save_pretrained(tmp_path / "saved")
    saved = Tokenizer.load(tmp_path / "saved")
    for text in HARD:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text, allow_special=True) == ids == saved.encode(text, allow_special=True)
        assert theirs.decode(ids) == text


@pytest.mark.parametrize("prefix", [False, True])
def test_a_gpt2_folder_of_transformers(both, tmp_path, prefix):
    transformers = pytest.importorskip("transformers")
    both[1].model.save(str(tmp_path))
    theirs = transformers.GPT2TokenizerFast.from_pretrained(tmp_path, add_prefix_space=prefix)
    theirs.save_pretrained(tmp_path / "saved")
    ours = Tokenizer.load(tmp_path / "saved")
    for text in HARD:
        assert ours.encode(text, allow_special=True) == theirs(text)["input_ids"]


PREFIXED = [
    "the cat",
    " the cat",
    "  the cat",
    " ",
    "  ",
    "\n",
    " \n the",
    "",
    "é a",
    "12 34  56",
    "cat the\tcat ",
    "！the",
    "\u3000a",
    *TEXTS,
]


@pytest.mark.parametrize("pattern", [None, r"\p{L}+|\s+|[^\s\p{L}]+"])
def test_offsets_of_a_trained_tokenizer_with_a_space_in_front(tmp_path, pattern):
    """The leading space belongs to no character, both as trained and as saved and read by the library."""
    options = {} if pattern is None else {"pattern": pattern}
    ours = Tokenizer.train(["the cat sat on the mat, 12 times "] * 9, 300, add_prefix_space=True, **options)
    if pattern is None:
        assert ours.encoding("the cat").offsets == [(0, 3), (4, 7)]
        assert Tokenizer(**ours.parts | {"post_processor": None}).encoding("the cat").offsets == [(0, 3), (3, 7)]
    ours.save(tmp_path / "tokenizer.json")
    theirs = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in PREFIXED:
        for tokenizer in (ours, Tokenizer.load(tmp_path / "tokenizer.json")):
            mine, other = tokenizer.encoding(text, allow_special=True), theirs.encode(text)
            assert (mine.ids, mine.offsets, mine.word_ids) == (other.ids, other.offsets, other.word_ids), text
    for text in PREFIXED[:5]:
        starts = [start for start, _ in ours.encoding(text).offsets]
        assert starts == sorted(starts), text
