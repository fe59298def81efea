"""Our tokenizer against the library `tokenizers`: vocabulary, merges, ids and decoded text are to be equal.

There, an added token is always matched; so `allow_special=True` is what is compared.
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

from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.bytelevel import bytes_to_chars, split_words

hf = pytest.importorskip("tokenizers")

END = "<|endoftext|>"

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

HARD = [
    "",
    " ",
    "  ",
    "       ",
    "\n",
    "\n\n\n",
    "\t\t\tx",
    " \n \n ",
    "\r\n\r\n",
    "a\rb\r\nc\n\rd",
    "x \u00a0 y\u00a0z",
    "\u2003em\u2003space\u2009thin\u200a hair",
    "\u3000全角　空格　",
    "\u1680ogham\u1680 \u202f\u205f",
    "line\u2028separator\u2029paragraph\x85next",
    "\x0b\x0c vertical and form feed \x1c\x1d\x1e\x1f",
    "\x00",
    "nul\x00in\x00side",
    "\x01\x02\x03\x1b[31mred\x1b[0m\x7f",
    "\x80\x81\x9f\xa0\xad soft\u00adhyphen",
    "\ufeffbyte order mark\ufeff",
    "zero\u200bwidth\u200cnon\u200djoiner\u2060word",
    "left\u200eright\u200f \u202aembed\u202c \u2066isolate\u2069",
    "\ufffd replacement \uffff \ufffe noncharacters \U0010ffff",
    "private \ue000\uf8ff \U000f0000 use",
    "Hello, world!",
    " leading",
    "trailing ",
    "  two leading",
    "many     inner      spaces",
    "tabs\tand\t\ttabs \t mixed \t\t",
    "I'm you're he's we've they'll she'd can't",
    "I'M YOU'RE HE'S WE'VE THEY'LL SHE'D CAN'T",
    "I’m you’re typographic ‘quotes’ “double”",
    "'s't're've'm'll'd",
    "''''s 's' s's ' s",
    "rock'n'roll o'clock 'tis '90s",
    "don''t 'llama 'remote 'tutor 'made",
    "1234567890",
    "3.14159 1,000,000 1e-10 0xDEADBEEF 0b1010",
    "２０２４年１２月 ①②③ Ⅳ ½ ¾ x² y₃",
    "٠١٢٣٤٥٦٧٨٩ ०१२३४५ ๐๑๒๓",
    "1st 2nd 3rd 4x4 a1b2c3 v2.0.1-rc3",
    "+1 (555) 010-9999 2024-02-30T25:61:61Z",
    "$100 €50 ¥1000 £20 ₿0.5 100% 5‰ 20°C",
    "a+b=c; a-b!=c; a*b<=c; a/b>=c; a^b; a|b; ~a",
    "!!!???...,,,;;;:::",
    "--- *** ___ ### ``` ~~~",
    "((([[[{{{<<<>>>}}}]]])))",
    "→←↑↓ ∀x∈ℝ: ∃y ∑∏∫√∞ ≠≤≥ ⊂⊆",
    "╔══╗║  ║╚══╝ ░▒▓█",
    "def f(x):\n    return x ** 2  # comment\n",
    "if (a && b || !c) { x->y = *p++; }",
    "#include <stdio.h>\nint main(void){return 0;}",
    "SELECT * FROM t WHERE a = 'it''s' AND b LIKE '%x%';",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "<div class='a b' id=\"c\">&nbsp;&lt;</div>",
    "https://user:pw@example.org:8080/a/b?c=d&e=%20f#g",
    "C:\\Users\\name\\file.txt /usr/local/bin ~/.config",
    "snake_case camelCase PascalCase kebab-case SCREAMING_SNAKE",
    "\\alpha \\frac{a}{b} $x^2_{i,j}$ \\\\",
    'fn main() { let v: Vec<&\'static str> = vec!["a"]; }',
    "        deep\n                deeper\n    back",
    "\tif\n\t\tthen\n\t\t\telse",
    "春天来了，花开了。",
    "我爱北京天安门，天安门上太阳升。",
    "中文English混合text排版，没有spaces也行123个。",
    "GPT-2模型有1.5B参数（parameters）。",
    "繁體中文與简体中文並存",
    "𠀀𠀁𪛖 扩展区汉字 㐀㐁",
    "日本語のテキスト、カタカナとひらがな。",
    "ﾊﾝｶｸｶﾀｶﾅ 々〆ヶ",
    "한국어 텍스트 띄어쓰기 있음",
    "한글 자모 분해",
    "Привет, мир! Ёлка ещё зелёная.",
    "Γειά σου Κόσμε, ἀρχὴ ἐν τῷ λόγῳ",
    "שלום עולם, מה שלומך?",
    "שָׁלוֹם עִם נִקּוּד",
    "مرحبا بالعالم، كيف حالك؟",
    "بِسْمِ ٱللَّهِ ٱلرَّحْمَٰنِ",
    "English עברית العربية mixed 123 ١٢٣",
    "नमस्ते दुनिया क्षत्रिय ज्ञान",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "வணக்கம் உலகம் తెలుగు ಕನ್ನಡ മലയാളം",
    "বাংলা ਪੰਜਾਬੀ ગુજરાતી ଓଡ଼ିଆ සිංහල",
    "မြန်မာ ភាសាខ្មែរ ລາວ བོད་སྐད",
    "ქართული Հայերեն አማርኛ ᏣᎳᎩ ᠮᠣᠩᠭᠣᠯ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝓂𝒶𝓉𝒽 𝟏𝟐𝟑 𐍈𐌰 𓀀𓁐 𒀀",
    "Zażółć gęślą jaźń, příliš žluťoučký kůň",
    "Straße GROẞ ﬁ ﬂ ﬃ œuvre Æsir",
    "İstanbul ıspanak Iğdır",
    "Việt Nam: tiếng Việt có dấu",
    "cafe\u0301 versus café, n\u0303 ñ, A\u030a Å",
    "Z\u0351\u036b\u0343\u036a\u0302a\u0334\u0321l\u0315\u031bg\u0322o\u0321\u0338",
    "\u0301\u0302 combining first \u20dd",
    "e\u0301\u0323e\u0323\u0301",
    "😀 😃😄 🙂🙃",
    "👩‍👩‍👧‍👦 family 👨🏽‍🚀 astronaut 🏳️‍🌈",
    "🇩🇪🇫🇷🇯🇵 🇺 🇸",
    "☺ ☺️ ❤️‍🔥 ✂️ 1️⃣ #️⃣",
    "👍🏻👍🏼👍🏽👍🏾👍🏿",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f flag of tags",
    "emoji😀inside👍words",
    "㍿ ㎏ ™ © ® ℡ № ª º",
    "a" * 300,
    "ab" * 150,
    "ha" * 77 + "!",
    " " * 257,
    "\n" * 100 + "x" + "\n" * 101,
    "-" * 80 + "\n" + "=" * 79,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    "ACGTACGTTAGCCGATTTAGGCAACGT" * 5,
    "dGhpcyBpcyBiYXNlNjQgdGV4dA==",
    "天" * 200,
    "😀" * 60,
    "\u0301" * 50,
    "é" * 99 + "e\u0301" * 50,
    END,
    f"a{END}b {END} c\n{END}\n",
    f"{END}{END}",
    "<|endoftext| >|endoftext|> <|ENDOFTEXT|> <|endoftext",
    "Ġ Ċ Ā ġdog ĠĠ",
    "Â§ Ã© â‚¬ mojibake",
    "The quick brown fox jumps over the lazy dog.  The dog sleeps.   End.",
    "x" + "\u200d" * 20 + "y",
    "a.b.c.d,e;f:g!h?i",
    "¿Qué? ¡Hola! «guillemets» „tief“ ‚x‘",
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
    assert len(set(HARD)) >= 120


@pytest.mark.parametrize("text", HARD)
def test_hard_strings(both, ours_by_them, theirs_by_us, text):
    ours, theirs = both
    ids = ours.encode(text, allow_special=True)
    assert ids == theirs.encode(text).ids == ours_by_them.encode(text).ids
    assert ids == theirs_by_us.encode(text, allow_special=True)
    assert ours.decode(ids) == text == theirs.decode(ids, skip_special_tokens=False)
    assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)


def cut_alike(run: str) -> bool:
    """Is a run of characters of one kind of the same kind to both?"""
    text = f"a{run}1{run}!{run}"
    theirs = hf.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    return [word for word, _ in theirs] == [bytes_to_chars(word.encode()) for word in split_words(text)]


def test_all_characters_are_cut_alike_but_newer_ones():
    """`regex` may know letters and digits of a newer Unicode; unassigned characters are symbols to them."""
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
    """Also when the bytes are not UTF-8: the same number of U+FFFD."""
    ours, theirs = both
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)


def test_batches(both):
    ours, theirs = both
    assert ours.encode_batch(HARD, allow_special=True) == [e.ids for e in theirs.encode_batch(HARD)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_merges_in_any_order(data):
    """A file may list a merge before the one that makes its parts: what comes first is the same here."""
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
