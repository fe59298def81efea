"""Tokenizer files: saved and loaded, vocab.json with merges.txt, and what is refused."""

import json

import pytest

from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.files import TokenizerFile

END = "<|endoftext|>"


# Files


def test_saved_and_loaded_it_is_the_same(trained, tmp_path):
    trained.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        assert Tokenizer.load(path).file == trained.file
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
    (tmp_path / "vocab.json").write_text(json.dumps(dict(trained.file.vocab)))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in trained.file.merges), ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.file == trained.file
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
    "normalizer 'NFC'": put("normalizer", {"type": "NFC"}),
    "pre_tokenizer 'Whitespace'": put("pre_tokenizer", {"type": "Whitespace"}),
    "pre_tokenizer None": put("pre_tokenizer", None),
    "decoder 'Metaspace'": put("decoder", {"type": "Metaspace"}),
    "post_processor 'TemplateProcessing'": put("post_processor", {"type": "TemplateProcessing"}),
    "post_processor 'RobertaProcessing'": put("post_processor", {"type": "RobertaProcessing"}),
    "model 'WordPiece'": put("model", "type", "WordPiece"),
    "model.dropout = 0.1": put("model", "dropout", 0.1),
    "model.ignore_merges = true": put("model", "ignore_merges", True),
    'model.end_of_word_suffix = "</w>"': put("model", "end_of_word_suffix", "</w>"),
    "truncation = ": put("truncation", {"max_length": 5}),
    "padding = ": put("padding", {"pad_id": 0}),
    "added token '<|endoftext|>': lstrip = true": put("added_tokens", 0, "lstrip", True),
    "'id', got": put("added_tokens", 0, "id", "0"),
    "an added token must be an object": put("added_tokens", 0, "x"),
    "must say add_prefix_space": put("pre_tokenizer", {"type": "ByteLevel"}),
    "merge 2 must be a pair of tokens": put("model", "merges", 2, "a b c"),
    "merge 3 must be a pair of tokens": put("model", "merges", 3, ["a b", "c"]),
    r"merge 1 \('q', 'zzz'\) needs token 'zzz'": put("model", "merges", 1, ["q", "zzz"]),
    "an object 'vocab' and a list 'merges'": put("model", "vocab", ["a"]),
    "id 70 is given to both": put("model", "vocab", "low", 70),
    "must be a number from 0 on, got -1": put("model", "vocab", "low", -1),
    "must be a number from 0 on, got True": put("model", "vocab", "low", True),
    "hole: no token has id 450, but 451": put("model", "vocab", "new", 451),
    "added token '<|endoftext|>' has id 450, but id 0": put("added_tokens", 0, "id", 450),
    "'model' is expected": lambda content: content.pop("model"),
}


@pytest.mark.parametrize("message", WRONG_FILES)
def test_wrong_files_are_refused_by_name(trained, tmp_path, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        load_changed(trained, tmp_path, WRONG_FILES[message])


def test_what_changes_nothing_is_accepted(trained, tmp_path):
    def older(content):  # the file published with GPT-2
        del content["model"]["type"], content["model"]["ignore_merges"]
        content["model"]["continuing_subword_prefix"] = ""

    assert load_changed(trained, tmp_path, older).file == trained.file
    pairs = [list(merge) for merge in trained.file.merges]
    assert load_changed(trained, tmp_path, put("model", "merges", pairs)).file == trained.file
    template = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]}
    assert load_changed(trained, tmp_path, put("post_processor", template)).file.post_processor == template
    assert load_changed(trained, tmp_path, put("post_processor", None)).encode("a b") == trained.encode("a b")


def test_broken_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    for content, message in [
        ("{", "not a valid JSON"),
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ("[]", "'model'"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            Tokenizer.load(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.json"):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_without_all_bytes(trained):
    vocab = {"a": 0, "b": 1, "ab": 2}
    tokenizer = Tokenizer(TokenizerFile(vocab, [("a", "b")]))
    assert tokenizer.encode("abba") == [2, 1, 0]
    with pytest.raises(ValueError, match="no token for the byte 0x63"):
        tokenizer.encode("abc")
