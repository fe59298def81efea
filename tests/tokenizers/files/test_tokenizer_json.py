"""Tokenizer files: saving and loading, vocab.json with merges.txt, and refused files."""

import json
import os

import pytest

from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.models.bpe import BPE
from tinyplm.tokenizers.models.unigram import Unigram
from tinyplm.tokenizers.text.encoding import Padding
from tinyplm.tokenizers.text.postprocessing import POST_PROCESSORS

END = "<|endoftext|>"


# Files


def test_saved_and_loaded_it_is_the_same(trained, tmp_path):
    trained.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        assert Tokenizer.load(path).model == trained.model
    Tokenizer.load(tmp_path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_failed_save_leaves_the_old_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_text("old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        trained.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_vocab_and_merges_files(trained, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(dict(trained.model.vocab)))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in trained.model.merges), ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)  # as in GPT-2
    assert loaded.parts == trained.parts | {"named": roles}
    assert loaded.encode(TEXTS[2] + END, allow_special=True) == trained.encode(TEXTS[2] + END, allow_special=True)
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert Tokenizer.load(tmp_path).encode("low") == trained.encode(" low")


def load_changed(trained, tmp_path, change):
    trained.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    return Tokenizer.load(tmp_path)


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


WRONG_FILES = {
    r"tokenizer\.json: normalizer: type: expected one of NFC, NFD, NFKC, NFKD,": put("normalizer", {"type": "NFX"}),
    r"tokenizer\.json: pre_tokenizer: type: expected one of Whitespace,": put("pre_tokenizer", {"type": "FixedLength"}),
    "pre_tokenizer: expected an object with a string 'type', got 'ByteLevel'": put("pre_tokenizer", "ByteLevel"),
    r"tokenizer\.json: decoder: type: expected one of ByteLevel, WordPiece, Metaspace,": put("decoder", {"type": "CTC"}),
    r"tokenizer\.json: post_processor TemplateProcessing: expected single and pair,": put(
        "post_processor", {"type": "TemplateProcessing"}
    ),
    r"tokenizer\.json: post_processor RobertaProcessing: sep: expected a value, got none": put(
        "post_processor", {"type": "RobertaProcessing"}
    ),
    r"tokenizer\.json: model: type: expected one of BPE, WordPiece, Unigram, got 'WordLevel'": put("model", "type", "WordLevel"),
    r"tokenizer\.json: model BPE: dropout: expected none, it is not supported, got 0\.1": put("model", "dropout", 0.1),
    r"tokenizer\.json: model BPE: ignore_merges: expected bool, got 'yes'": put("model", "ignore_merges", "yes"),
    r"tokenizer\.json: model BPE: merge 4: expected two tokens that form a third": put("model", "continuing_subword_prefix", "x"),
    r"tokenizer\.json: truncation Truncation: strategy: expected one of LongestFirst,": put(
        "truncation", {"max_length": 5, "strategy": "Middle"}
    ),
    r"tokenizer\.json: padding Padding: direction: expected one of Right, Left, got 'Up'": put("padding", {"direction": "Up"}),
    r"tokenizer\.json: added_tokens: number 0: AddedToken: lstrip: expected bool, got 'x'": put("added_tokens", 0, "lstrip", "x"),
    r"tokenizer\.json: added_tokens: number 0: AddedToken: id: expected int, got '0'": put("added_tokens", 0, "id", "0"),
    "AddedToken: content: expected a value, got none": lambda content: content["added_tokens"][0].pop("content"),
    r"tokenizer\.json: added_tokens: number 0: expected an object, got 'x'": put("added_tokens", 0, "x"),
    r"tokenizer\.json: pre_tokenizer ByteLevel: add_prefix_space: expected bool, got 1": put(
        "pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": 1}
    ),
    r"tokenizer\.json: model BPE: merge 2: expected a pair of tokens, got 'a b c'": put("model", "merges", 2, "a b c"),
    r"tokenizer\.json: model BPE: merge 3: expected a pair of tokens, got \['a', ''\]": put("model", "merges", 3, ["a", ""]),
    r"tokenizer\.json: model BPE: merge 1: expected two tokens that form a third": put("model", "merges", 1, ["q", "zzz"]),
    r"tokenizer\.json: model BPE: vocab: expected an object, got \['a'\]": put("model", "vocab", ["a"]),
    r"tokenizer\.json: model BPE: vocab: expected one token per id": put("model", "vocab", "low", 70),
    "model BPE: vocab: token 'low': expected an id from 0 to 1114111, got -1": put("model", "vocab", "low", -1),
    r"tokenizer\.json: model BPE: vocab: token 'low': expected an id from 0 to 1114111": put("model", "vocab", "low", True),
    r"tokenizer\.json: vocab: expected the ids 0 to 450, got none with id 450": put("model", "vocab", "new", 451),
    "tokenizer.json: vocab: expected one id per token, got 0 and 450 for '<|endoftext|>'": put("added_tokens", 0, "id", 450),
    r"expected a tokenizer\.json, an object with an object 'model'": lambda content: content.pop("model"),
    r"tokenizer\.json: special: expected none, it is not supported, got 'all'": put("special", "all"),
}


@pytest.mark.parametrize("message", WRONG_FILES)
def test_wrong_files_are_refused_by_name(trained, tmp_path, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        load_changed(trained, tmp_path, WRONG_FILES[message])


def test_what_changes_nothing_is_accepted(trained, tmp_path):
    def older(content):  # the file published with GPT-2
        del content["model"]["type"], content["model"]["ignore_merges"]
        content["model"]["continuing_subword_prefix"] = ""

    assert load_changed(trained, tmp_path, older).parts == trained.parts
    pairs = [list(merge) for merge in trained.model.merges]
    assert load_changed(trained, tmp_path, put("model", "merges", pairs)).parts == trained.parts
    alone = [{"Sequence": {"id": "A", "type_id": 0}}]
    template = {
        "type": "TemplateProcessing",
        "single": alone,
        "pair": [*alone, *alone],
        "special_tokens": {},
    }
    loaded = load_changed(trained, tmp_path, put("post_processor", template))
    assert loaded.post_processor.to_json() == template
    assert loaded.encode("a b", add_special_tokens=True) == trained.encode("a b")
    assert load_changed(trained, tmp_path, put("post_processor", None)).encode("a b") == trained.encode("a b")


def test_broken_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    for content, message in [
        ("{", "expected valid JSON"),
        ('{"a": 1, "a": 2}', "'a' 2 times"),
        ("[]", "'model'"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            Tokenizer.load(path)
    path.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"test_broken_files0: expected tokenizer\.json, tokenizer\.model, vocab\.txt, qwen\.tiktoken, or",
    ):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_without_all_bytes(trained):
    vocab = {"a": 0, "b": 1, "ab": 2}
    tokenizer = Tokenizer(BPE(vocab, [("a", "b")]))
    assert tokenizer.encode("abba") == [2, 1, 0]
    with pytest.raises(
        ValueError,
        match="since it has no unk_token, got 'c' in 'abc'",
    ):
        tokenizer.encode("abc")


def test_added_tokens_of_a_file_are_special_only_if_it_says_so(trained, tmp_path):
    loaded = load_changed(trained, tmp_path, lambda content: content["added_tokens"][0].pop("special"))
    assert not loaded.is_special(0) and loaded.encode(f"a{END}")[-1] == 0


def test_a_file_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="expected valid JSON, got nesting of more than 100 levels"):
        Tokenizer.load(tmp_path)


def test_pieces_without_bytes(tmp_path):
    texts = [" ".join(TEXTS)]
    without = Tokenizer.train(texts, 150, kind="SentencePiece BPE", byte_fallback=False, character_coverage=1.0)
    assert without.token_to_id("<0x41>") is None and without.model.byte_fallback is False
    assert without.encode("\u2603") == [without.token_to_id("▁"), without.token_to_id("<unk>")]


# Ids


def bert(sep, cls):
    return {"type": "BertProcessing", "sep": ["x", sep], "cls": ["y", cls]}


def template(*ids):
    tokens = {"t": {"id": "t", "ids": list(ids), "tokens": ["t"] * len(ids)}}
    single = [{"SpecialToken": {"id": "t", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


OUTSIDE = {
    "post_processor BertProcessing: sep: expected an id of the vocabulary, from 0 to 449, got 1000000000": bert(10**9, 0),
    "post_processor BertProcessing: cls: expected an id of the vocabulary, from 0 to 449, got -1": bert(0, -1),
    "post_processor BertProcessing: cls: expected an id of the vocabulary, from 0 to 449, got 450": bert(0, 450),
    "post_processor TemplateProcessing: special_tokens 't': expected an id of the vocabulary, from 0 to 449": template(7000),
    "post_processor Sequence: special_tokens 't': expected an id of the vocabulary, from 0 to 449, got an integer of 301 bits": {
        "type": "Sequence",
        "processors": [template(0, 1 << 300)],
    },
    "post_processor RobertaProcessing: sep: expected an id": bert(-5, 0) | {"type": "RobertaProcessing"},
}


@pytest.mark.parametrize("message", OUTSIDE)
def test_ids_that_are_added_must_be_in_the_vocabulary(trained, tmp_path, message):
    content = OUTSIDE[message]
    if "301 bits" not in message:  # a file may not contain such numbers at all
        with pytest.raises(ValueError, match=rf"tokenizer\.json: {message}"):
            load_changed(trained, tmp_path, put("post_processor", content))
    made = read_component(content, POST_PROCESSORS, "")
    with pytest.raises(ValueError, match=f"^{message}"):
        Tokenizer(**trained.parts | {"post_processor": made})
    tokenizer = Tokenizer(**trained.parts)
    with pytest.raises(ValueError, match=f"^{message}"):
        tokenizer.post_processor = made
    assert tokenizer.post_processor == trained.post_processor
    tokenizer.post_processor = read_component(bert(449, 0), POST_PROCESSORS, "")
    assert tokenizer.encode("", add_special_tokens=True) == [0, 449]


@pytest.mark.parametrize("id", [450, 10**6, 1 << 70])
def test_the_id_of_padding_must_be_in_the_vocabulary(trained, tmp_path, id):
    message = f"padding: pad_id: expected an id of the vocabulary, from 0 to 449, got {id}"
    with pytest.raises(ValueError, match=rf"tokenizer\.json: {message}"):
        load_changed(trained, tmp_path, put("padding", Padding(pad_id=id).to_json()))
    tokenizer = Tokenizer(**trained.parts)
    padding = Padding(pad_id=id)
    uses = (
        lambda: setattr(tokenizer, "padding", padding),
        lambda: tokenizer.batch(["a"], padding=padding),
        lambda: Tokenizer(**trained.parts | {"padding": padding}),
    )
    for use in uses:
        with pytest.raises(ValueError, match=f"^{message}"):
            use()
    assert tokenizer.padding is None
    tokenizer.padding = Padding(pad_id=449)
    assert tokenizer.batch(["a", "a b"])["input_ids"][0, -1] == 449


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        (
            {"a": 1 << 70},
            [],
            "vocab: token 'a': expected an id from 0 to 1114111, got 1180591620717411303424",
        ),
        ({"a": 0, "b": 1.5}, [], r"vocab: token 'b': expected an id from 0 to 1114111, got 1\.5"),
        ({"a": 0, "b": 0}, [], "vocab: expected one token per id, got 'a' and 'b' with id 0"),
        (["a"], [], "vocab: expected an object of tokens and ids, got list"),
        ({"a": 0}, 5, "merges: expected a list of pairs of tokens, got 5"),
        ({"a": 0}, [5], "merge 0: expected a pair of tokens, got 5"),
        ({"a": 0}, [("a", ["a"])], r"merge 0: expected a pair of tokens, got \('a', \['a'\]\)"),
    ],
)
def test_vocabularies_and_merges_by_hand(vocab, merges, message):
    with pytest.raises(ValueError, match=message):
        BPE(vocab, merges)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 10**400, "1", None, True + 1e31])
def test_scores_that_are_no_numbers_are_refused(score):
    with pytest.raises(ValueError, match=r"score of 'a': expected a number of at most 1e\+30, got"):
        Unigram(None, (("a", score),))


# Where files come from


def test_only_regular_files_are_read(trained, tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json: expected a regular file, got a pipe"):
        Tokenizer.load(tmp_path)
    for name in (
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "vocab.txt",
    ):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        if name.endswith("s.txt") or name == "vocab.json":
            (folder / "vocab.json").write_text("{}")
            (folder / "merges.txt").write_text("")
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(ValueError, match=rf"{name}: expected a regular file, got a pipe"):
            Tokenizer.load(folder)
    with pytest.raises(ValueError, match="/dev/zero: expected a regular file, got a device"):
        Tokenizer.load("/dev/zero")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "tokenizer_config.json",
            '{"eos_token": "a", "eos_token": "b"}',
            "the key 'eos_token' 2 times",
        ),
        ("tokenizer.json", '{"a": "x\\ud800y"}', r"a lone surrogate in .*\\ud800"),
        ("tokenizer.json", '{"a": "x\\ud83d\\ude00y", "a": 1}', "the key 'a' 2 times"),
    ],
)
def test_a_key_or_a_surrogate_is_refused_with_the_name(trained, tmp_path, name, text, message):
    trained.save(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}: expected valid JSON, got .*{message}"):
        Tokenizer.load(tmp_path)
