"""Folders without a tokenizer.json, SentencePiece .model files and arbitrary file contents: read, or refused by name."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyplm
from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tests.support.sentencepiece_files import (
    MODELS,
    PIECES,
    loads_or_is_refused,
    message,
    piece,
    unigram,
)
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.files.tokenizer_json import to_json
from tinyplm.tokenizers.text.encoding import Padding, Truncation

# tokenizer.json with any part replaced

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.sampled_from(["", "x", "Sequence", "NFC", "BPE", "<s>"]),
    lambda parts: (
        st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(["type", "id", "content", "a"]), parts, max_size=3)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def contents():
    result = {}
    for kind in ("byte-level BPE", "BPE", "SentencePiece BPE", "WordPiece", "Unigram"):
        tokenizer = Tokenizer.train(TEXTS * 3, 480, kind=kind)
        parts = tokenizer.parts | {"truncation": Truncation(10), "padding": Padding()}
        result[kind] = json.loads(json.dumps(to_json(Tokenizer(**parts))))
    return result


def places(content, path=()):
    """The path to every node; in long lists and objects, only to the first and last members."""
    yield path
    members = [*(content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ())]
    for key, value in members if len(members) < 16 else members[:2] + members[-2:]:
        yield from places(value, (*path, key))


@pytest.mark.parametrize("kind", ["byte-level BPE", "BPE", "SentencePiece BPE", "WordPiece", "Unigram"])
@given(data=st.data())
def test_any_node_may_be_wrong(scratch, contents, kind, data):
    content = copy.deepcopy(contents[kind])
    *way, last = data.draw(st.sampled_from([path for path in places(content) if path]))
    node = content
    for key in way:
        node = node[key]
    if data.draw(st.booleans()):
        node[last] = data.draw(JSON)
    else:
        del node[last]
    (scratch / "changed.json").write_text(json.dumps(content))
    loads_or_is_refused(scratch / "changed.json")


# Vocabularies and settings


def folder(path, config=None, **files):
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("_", ".")).write_bytes(content if isinstance(content, bytes) else content.encode())
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


VOCAB = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\na\n"
WRONG = {
    r"vocab\.txt, line 9: expected a token that is not in the file yet, got 'a', as in line 8": (
        {},
        {"vocab_txt": VOCAB + "a\n"},
    ),
    "vocab.txt: expected UTF-8 text": ({}, {"vocab_txt": b"\xff"}),
    r"vocab\.txt: unk_token: expected a token of the vocabulary, got '\[UNK\]'": (
        {},
        {"vocab_txt": ""},
    ),
    r"vocab\.txt: unk_token: expected a token of the vocabulary, got '\?'": (
        {"unk_token": "?"},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.txt: cls_token: expected a token of the vocabulary, got 3": (
        {"cls_token": 3},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.txt: tokenizer_class: expected one of BertTokenizer, DistilBertTokenizer": (
        {"tokenizer_class": "DebertaTokenizer"},
        {"vocab_txt": VOCAB},
    ),
    r"tokenizer\.model: tokenizer_class: expected one of LlamaTokenizer, T5Tokenizer,": (
        {"tokenizer_class": "XLMRobertaTokenizer"},
        {"tokenizer_model": unigram()},
    ),
    r"spm\.model: tokenizer_class: expected one of LlamaTokenizer, T5Tokenizer,": (
        {"tokenizer_class": "DebertaV2TokenizerFast"},
        {"spm_model": unigram()},
    ),
    r"vocab\.txt: tokenizer_class: expected one of BertTokenizer, DistilBertTokenizer, got '7'": (
        {"tokenizer_class": 7},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.txt: do_lower_case: expected true or false, got 'yes'": (
        {"do_lower_case": "yes"},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.json: tokenizer_class: expected the class of a vocabulary with </w>, such as OpenAIGPTTokenizer, got None": (
        {},
        {"vocab_json": json.dumps({"a": 0, "a</w>": 1}), "merges_txt": "#version: 0.2\n"},
    ),
    r"tokenizer\.model: tokenizer_class: expected one of LlamaTokenizer, T5Tokenizer, .*, got 'BigBirdTokenizer'": (
        {"tokenizer_class": "BigBirdTokenizer"},
        {"tokenizer_model": unigram()},
    ),
    r"vocab\.txt: strip_accents: expected true or false, got 1": (
        {"strip_accents": 1},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.txt: additional_special_tokens: expected a list of tokens, got 'x'": (
        {"additional_special_tokens": "x"},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.txt: extra_special_tokens: expected a list of tokens, got \[4\]": (
        {"extra_special_tokens": [4]},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.txt: added_tokens_decoder: expected an object, got \[\]": (
        {"added_tokens_decoder": []},
        {"vocab_txt": VOCAB},
    ),
    r"vocab\.txt: added_tokens_decoder: expected a token for each id, got \{'x': \{\}\}": (
        {"added_tokens_decoder": {"x": {}}},
        {"vocab_txt": VOCAB},
    ),
    "AddedToken: content: expected a value, got none": (
        {"added_tokens_decoder": {"8": {}}},
        {"vocab_txt": VOCAB},
    ),
    "vocab: expected the ids 0 to 8, got none with id 8": (
        {"added_tokens_decoder": {"9": {"content": "x"}}},
        {"vocab_txt": VOCAB},
    ),
    "vocab: expected one token per id": (
        {"added_tokens_decoder": {"5": {"content": "x"}}},
        {"vocab_txt": VOCAB},
    ),
    "tokenizer_config.json: expected an object, got \\[\\]": ([], {"vocab_txt": VOCAB}),
    "vocab.json: expected valid JSON, got the key 'a' 2 times": (
        {},
        {"vocab_json": '{"a":0,"a":1}', "merges_txt": ""},
    ),
    "vocab.json: expected valid JSON, got nesting": (
        {},
        {"vocab_json": "[" * 100_000, "merges_txt": ""},
    ),
    r"vocab\.json: expected an object of tokens and ids, got \[\]": (
        {},
        {"vocab_json": "[]", "merges_txt": ""},
    ),
    r"vocab\.json: vocab: token 'a': expected an id from 0 to 1114111, got '0'": (
        {},
        {"vocab_json": '{"a": "0"}', "merges_txt": ""},
    ),
    "vocab: expected the ids 0 to 1, got none with id 1": (
        {},
        {"vocab_json": '{"a": 0, "b": 2}', "merges_txt": ""},
    ),
    r"merges\.txt, line 2: expected a pair of tokens, got 'a b c'": (
        {},
        {"vocab_json": '{"a": 0}', "merges_txt": "#version\na b c"},
    ),
    r"vocab\.json: merge 0: expected two tokens that form a third": (
        {},
        {"vocab_json": '{"a": 0}', "merges_txt": "a b"},
    ),
    r"spiece\.model: extra_ids: expected an integer from 0 to 1114112, got -1": (
        {"tokenizer_class": "T5Tokenizer", "extra_ids": -1},
        {"spiece_model": unigram()},
    ),
    r"source\.spm: expected one tokenizer for both languages, got Marian's two SentencePiece models": (
        {"source_lang": "en", "target_lang": "de"},
        {"source_spm": unigram(), "target_spm": unigram(), "vocab_json": "{}"},
    ),
    r"sentencepiece\.bpe\.model: tokenizer_class: expected one of LlamaTokenizer, .*, got 'MBartTokenizer'": (
        None,
        {"sentencepiece_bpe_model": unigram(), "config_json": json.dumps({"model_type": "mbart"})},
    ),
    r"spiece\.model: model: expected a Unigram model for this class, got BPE": (
        {"tokenizer_class": "AlbertTokenizer", "cls_token": "<s>", "sep_token": "</s>"},
        {"spiece_model": MODELS["BPE"]},
    ),
    r"tokenizer\.model: add_prefix_space: expected true, got false, which is not supported": (
        {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
        {"tokenizer_model": MODELS["BPE"]},
    ),
}


@pytest.mark.parametrize("reason", WRONG)
def test_folders_are_refused_by_name(tmp_path, reason):
    config, files = WRONG[reason]
    with pytest.raises(ValueError, match=reason) as caught:
        Tokenizer.load(folder(tmp_path, config, **files))
    assert str(tmp_path) in str(caught.value)


def test_beside_a_tokenizer_json_the_class_does_not_matter(trained, tmp_path):
    trained.save(folder(tmp_path, {"tokenizer_class": "SomeTokenizer", "num_image_token": 256}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SomeTokenizer", "pad_token": "low"}))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode(TEXTS[0]) == trained.encode(TEXTS[0]) and loaded.named == {"pad_token": "low"}


def test_tokens_of_the_settings(tmp_path):
    """A token in no vocabulary gets the next id; added_tokens.json and flags are respected."""
    config = {
        "additional_special_tokens": ["[A]", {"content": "[B]"}],
        "pad_token": {"content": "<p>", "lstrip": True, "__type": "AddedToken"},
        "extra_special_tokens": {"image_token": "<image>"},
        "mask_token": None,
        "num_image_token": 256,
    }
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "[CLS]"}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[B]": 9, "plain": 8}))
    tokenizer = Tokenizer.load(folder(tmp_path, config, vocab_txt=VOCAB))
    assert [tokenizer.id_to_token(id) for id in range(8, tokenizer.vocab_size)] == [
        "plain",
        "[B]",
        "<p>",
        "<image>",
        "[A]",
    ]
    assert [tokenizer.is_special(id) for id in (8, 9, 10, 11, 12)] == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert tokenizer.named_id("pad_token") == 10 and tokenizer.named_id("bos_token") == 2
    assert tokenizer.named_id("image_token") == 11
    assert tokenizer.encode("hello <p>hellos", allow_special=True) == [5, 10, 5, 6]


def test_t5_sentinels(tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path, {"tokenizer_class": "T5Tokenizer", "extra_ids": 3}, spiece_model=unigram()))
    size = tokenizer.vocab_size
    assert [tokenizer.id_to_token(id) for id in range(size - 3, size)] == [
        "<extra_id_2>",
        "<extra_id_1>",
        "<extra_id_0>",
    ]
    tokens = tokenizer.encoding("hello <extra_id_0> hello", allow_special=True).tokens
    assert tokens == ["▁hello", "<extra_id_0>", "▁hello", "</s>"]


def test_the_class_of_a_folder_that_names_none_is_that_of_its_model(tmp_path):
    """config.json implies it, or names it; what the tokenizer's own settings say goes first."""

    def tokens(settings, text="hello <extra_id_0> hello", **config):
        files = {"spiece_model": unigram(), "config_json": json.dumps(config)}
        return Tokenizer.load(folder(tmp_path, settings, **files)).encoding(text, allow_special=True).tokens

    sentinels = ["▁hello", "<extra_id_0>", "▁hello", "</s>"]
    for name in ("t5", "mt5"):
        assert tokens({"extra_ids": 3}, model_type=name) == tokens({}, model_type=name) == sentinels
    assert tokens({}, "hello", model_type="t5", tokenizer_class="LlamaTokenizer") == ["<s>", "▁hello"]
    assert tokens({"tokenizer_class": "LlamaTokenizer"}, "hello", model_type="t5") == ["<s>", "▁hello"]
    for config in ({"model_type": "llama"}, {"model_type": 7}, {}):
        assert tokens({}, "hello", **config) == ["▁hello"]
    vocab = json.dumps({token: id for id, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"])})
    files = {"vocab_json": vocab, "merges_txt": "", "config_json": json.dumps({"model_type": "bart"})}
    loaded = Tokenizer.load(folder(tmp_path / "bart", **files))
    assert loaded.encoding("a").ids == [0, 5, 2] and loaded.encoding("a", "a").ids == [0, 5, 2, 2, 5, 2]


def test_albert_does_not_take_a_number_with_its_comma(tmp_path):
    special = [piece(token, kind=3) for token in ("<cls>", "<sep>")]
    pieces = [
        *PIECES,
        *special,
        piece("9", -5.0),
        piece(",", -5.0),
        piece("▁9", -6.0),
        piece("▁9,", -2.0),
        piece("s,", -2.0),
    ]
    config = {"tokenizer_class": "XLNetTokenizer"}
    tokenizer = Tokenizer.load(folder(tmp_path, config, spiece_model=message(*pieces)))
    tokens = [tokenizer.id_to_token(id) for id in tokenizer.encode("9, s,")]
    assert tokens == ["▁9", ",", "▁", "s,"]
    assert tokenizer.model.single and "<s>" in tokenizer.model.hidden  # everything else matches the .model
    fullwidth = "\uff1cs\uff1e"  # NFKD turns it into "<s>", which is still text
    assert tokenizer.token_to_id("<s>") not in tokenizer.encode(fullwidth, allow_special=True)


def test_the_mask_of_roberta_takes_the_space_before_it_along(tmp_path):
    vocab = json.dumps({token: id for id, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "Ġ"])})
    files = {"vocab_json": vocab, "merges_txt": ""}
    tokenizer = Tokenizer.load(folder(tmp_path, {"tokenizer_class": "RobertaTokenizer"}, **files))
    assert tokenizer.encoding("a <mask> a", allow_special=True).ids == [0, 5, 4, 6, 5, 2]


# Saving


def test_saved_over_a_folder_the_rest_of_its_settings_stays(trained, tmp_path):
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "add_bos_token": True,
        "added_tokens_decoder": {"0": {"content": "<unk>"}},
        "additional_special_tokens": ["<x>"],
        "chat_template": "{{ messages }}",
        "model_max_length": 77,
        "num_image_token": 256,
    }
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": "<s>"}')
    trained.save(folder(tmp_path, config))
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    kept = {key: config[key] for key in ("chat_template", "model_max_length", "num_image_token")}
    assert saved == {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"} | kept
    assert Tokenizer.load(tmp_path).parts == trained.parts


def test_a_folder_with_broken_settings_is_left_alone(trained, tmp_path):
    folder(tmp_path, []), (tmp_path / "tokenizer.json").write_text("old")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: expected an object"):
        trained.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == "old"


# With a model in the same folder


def test_a_llama_folder_with_a_sentencepiece_tokenizer(tmp_path, run):
    """<s> precedes the prompt, the text keeps its spaces, and the folder saved again behaves the same."""
    vocabulary = folder(tmp_path / "v", {"tokenizer_class": "LlamaTokenizer"}, tokenizer_model=MODELS["BPE"])
    size = Tokenizer.load(vocabulary).vocab_size
    config = {
        "vocab_size": size,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    }
    tinyplm.save(tinyplm.create("llama", key=1, **config), vocabulary)
    model = tinyplm.load(vocabulary)
    tokenizer = model.text_tokenizer()
    assert tokenizer.encode("The dog", add_special_tokens=True)[0] == tokenizer.named_id("bos_token") == 1
    tinyplm.save(model, tmp_path / "again")
    assert not (tmp_path / "again" / "tokenizer.model").exists()  # tokenizer.json has its contents
    assert tinyplm.load(tmp_path / "again").tokenizer.parts == tokenizer.parts
    shown = []
    for path in (vocabulary, tmp_path / "again"):
        done = run("generate", "--model", path, "--prompt", "The dog", "--tokens", 12, "--show-log-probabilities")
        assert done.code == 0, done.err
        shown.append(done.out)
    assert shown[0] == shown[1] and shown[0].startswith("The dog")
    # token by token after the prompt, the text has the same spaces as when decoded whole
    text = " dog  lazy fox; übergrößen 春天"
    prompt = tokenizer.encode("The", add_special_tokens=True)
    new = tokenizer.encode("The" + text, add_special_tokens=True)[len(prompt) :]
    stream = tokenizer.stream(skip_special=True, after=prompt)
    assert "".join(map(stream.push, new)) + stream.finish() == text
