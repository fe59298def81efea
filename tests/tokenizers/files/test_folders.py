"""Folders without a tokenizer.json, SentencePiece's .model files and whatever may stand in a file: read, or refused by name."""

from __future__ import annotations

import copy
import json
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyplm
from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tests.examples.test_generate import example
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.files.sentencepiece import read_model
from tinyplm.tokenizers.files.tokenizer_json import to_json
from tinyplm.tokenizers.text.encoding import Padding, Truncation
from tinyplm.tokenizers.training.sentencepiece_bpe import train_sentencepiece_bpe

# A writer of the few fields of a .model: (number, value), with value an int, a float, a text, bytes, or a list of fields.


def varint(value):
    value %= 1 << 64
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def message(*fields):
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            data += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            content = (
                value.encode()
                if isinstance(value, str)
                else value
                if isinstance(value, bytes)
                else message(*value)
            )
            data += varint(number << 3 | 2) + varint(len(content)) + content
    return data


def piece(text, score=0.0, kind=1):
    return 1, [(1, text), (2, score), (3, kind)]


LETTERS = "abdehilnorstuw"
PIECES = [
    piece("<unk>", kind=2),
    piece("<s>", kind=3),
    piece("</s>", kind=3),
    piece("▁", -3.0),
    piece("▁hello", -4.0),
    *(piece(letter, -5.0 - k / 8) for k, letter in enumerate(LETTERS)),
]


def unigram(*more):
    return message(*PIECES, *more)


def bpe_model():
    words = {"▁" + word: 3 for text in TEXTS for word in text.split()}
    kinds = {"normal": 1, "unknown": 2, "control": 3, "byte": 6}
    pieces = train_sentencepiece_bpe(words, 450, byte_fallback=True)
    pieces = [piece(text, float(score), kinds[kind]) for text, score, kind in pieces]
    return message(*pieces, (2, [(3, 2), (35, 1)]), (3, [(4, 0)]))


# SentencePiece


def test_a_model_is_read_by_hand(tmp_path):
    (tmp_path / "m.model").write_bytes(unigram())
    tokenizer = Tokenizer.load(tmp_path / "m.model")
    tokens = [tokenizer.id_to_token(id) for id in tokenizer.encode("  hello  hellod x ")]
    assert tokens == ["▁hello", "▁hello", "d", "▁", "<unk>"]
    assert tokenizer.decode(tokenizer.encode("hello hellod")) == "hello hellod"
    assert tokenizer.named == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    assert Tokenizer.load(tmp_path / "m.model").parts == tokenizer.parts


def test_ids_of_a_model_may_be_absent_or_elsewhere():
    trainer = (2, [(41, -1), (42, 1), (43, 2)])
    assert read_model(unigram(trainer), "m").parts()["named"] == {
        "unk_token": "<unk>",
        "eos_token": "<s>",
        "pad_token": "</s>",
    }


def test_fields_that_are_written_in_two_parts_and_unknown_fields():
    split = read_model(unigram((2, [(35, 1)]), (2, [(41, -1)]), (99, "x"), (98, 7), (97, 1.5)), "m")
    assert split.byte_fallback and split.ids["bos_token"] == -1


def test_a_user_defined_piece_is_taken_unless_a_longer_one_covers_it(tmp_path):
    """As sentencepiece 0.2 does, with this very model."""
    (tmp_path / "m.model").write_bytes(unigram(piece("lo", 0.0, 4)))
    tokenizer = Tokenizer.load(tmp_path / "m.model")
    tokens = [tokenizer.id_to_token(id) for id in tokenizer.encode("hello ello lo")]
    assert tokens == ["▁hello", "▁", "e", "l", "lo", "▁", "lo"]
    assert (
        dict(tokenizer.model.pieces)["lo"] == 2 * -3.0 - 0.1
    )  # two bytes; the best score is that of ▁


REFUSED = {
    "it has no pieces": message((2, [(3, 1)])),
    "model_type word is not supported": unigram((2, [(3, 3)])),
    "model_type char is not supported": unigram((2, [(3, 4)])),
    "model_type 9 is not supported": unigram((2, [(3, 9)])),
    "treat_whitespace_as_suffix is not supported": unigram((2, [(24, 1)])),
    "escape_whitespaces = false is not supported": unigram((3, [(5, 0)])),
    "a denormalizer_spec is not supported": unigram((5, [(2, "x")])),
    "a piece marked as unused, 'q', is not supported": unigram(piece("q", 0.0, 5)),
    "one piece must be of kind unknown, got 2": unigram(piece("q", 0.0, 2)),
    "the piece 'a' occurs twice": unigram(piece("a")),
    "a piece of type 7": unigram(piece("q", 0.0, 7)),
    "a piece without a text": unigram((1, [(2, 1.0)])),
    "user-defined pieces in a BPE model are not supported: 'q'": unigram(
        piece("q", 0.0, 4), (2, [(3, 2)])
    ),
    "the score of 'q' must be finite, at most 1e\\+30, got nan": unigram(piece("q", float("nan"))),
    "not a SentencePiece model, or damaged: it ends within a field": unigram()[:-1],
    "not a SentencePiece model, or damaged: it ends within a number": b"\xff" * 40,
    "not a SentencePiece model, or damaged: a field of kind 3": b"\x0b",
    "not a SentencePiece model, or damaged: .*utf-8": unigram((1, [(1, b"\xff")])),
    "damaged: field 2 is of kind 0, expected 2": unigram(
        (3, [(2, 5)])
    ),  # a character map that is a number
    "damaged: field 1 is of kind 0, expected a message": unigram((1, 5)),
    "damaged: field 3 is of kind 2, expected 0": unigram((2, [(3, "x")])),
    "not a SentencePiece model: it has no": b"",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_models_are_refused_by_name(tmp_path, reason):
    path = tmp_path / "m.model"
    path.write_bytes(REFUSED[reason])
    with pytest.raises(ValueError, match=rf"m\.model: .*{reason}"):
        Tokenizer.load(path)


def loads_or_is_refused(path):
    """Whatever is wrong with a file is a ValueError that names it; what loads, works on text."""
    try:
        tokenizer = Tokenizer.load(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    try:
        tokenizer.encoding("Hello wörld <s>", "x", allow_special=True)
        tokenizer.decode([0, tokenizer.vocab_size - 1])
    except ValueError:  # a text that the vocabulary has no tokens for
        pass


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(data=st.binary(max_size=60))
def test_any_bytes_load_or_are_refused(scratch, data):
    (scratch / "any.model").write_bytes(data)
    loads_or_is_refused(scratch / "any.model")


MODELS = {"unigram": unigram((3, [(2, b"")])), "BPE": bpe_model()}


@pytest.mark.parametrize("kind", MODELS)
@given(seed=st.integers(0, 1 << 32))
def test_damaged_models_load_or_are_refused(scratch, kind, seed):
    draw = random.Random(seed)
    data = bytearray(MODELS[kind])
    if draw.random() < 0.3:
        del data[draw.randrange(len(data)) :]
    for _ in range(draw.choice((1, 1, 4))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    (scratch / "damaged.model").write_bytes(data)
    loads_or_is_refused(scratch / "damaged.model")


# tokenizer.json, any part of which is something else

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.floats()
    | st.sampled_from(["", "x", "Sequence", "NFC", "BPE", "<s>"]),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "id", "content", "a"]), parts, max_size=3)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def contents():
    result = {}
    for kind in ("byte-level BPE", "BPE", "SentencePiece BPE", "WordPiece", "Unigram"):
        tokenizer = Tokenizer.train(TEXTS * 3, 480, kind=kind)
        parts = tokenizer.parts | {"truncation": Truncation(10), "padding": Padding()}
        result[kind] = json.loads(json.dumps(to_json(Tokenizer(**parts))))
    return result


def places(content, path=()):
    """The way to every node; of long lists and objects only to the first and last members."""
    yield path
    members = [
        *(
            content.items()
            if isinstance(content, dict)
            else enumerate(content)
            if isinstance(content, list)
            else ()
        )
    ]
    for key, value in members if len(members) < 16 else members[:2] + members[-2:]:
        yield from places(value, (*path, key))


@pytest.mark.parametrize(
    "kind", ["byte-level BPE", "BPE", "SentencePiece BPE", "WordPiece", "Unigram"]
)
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
        (path / name.replace("_", ".")).write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


VOCAB = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\na\n"
WRONG = {
    "vocab.txt, line 9: the token 'a' occurs twice, first in line 8": (
        {},
        {"vocab_txt": VOCAB + "a\n"},
    ),
    "vocab.txt: expected UTF-8 text": ({}, {"vocab_txt": b"\xff"}),
    "the sep_token '\\[SEP\\]' is not in the vocabulary": ({}, {"vocab_txt": ""}),
    "the unk_token '\\?' is not in the vocabulary": ({"unk_token": "?"}, {"vocab_txt": VOCAB}),
    "the cls_token 3 is not in the vocabulary": ({"cls_token": 3}, {"vocab_txt": VOCAB}),
    "tokenizer_class 'DebertaTokenizer' is not supported here; supported are BertTokenizer": (
        {"tokenizer_class": "DebertaTokenizer"},
        {"vocab_txt": VOCAB},
    ),
    "tokenizer_class 'XLMRobertaTokenizer' is not supported here; supported are LlamaTokenizer": (
        {"tokenizer_class": "XLMRobertaTokenizer"},
        {"tokenizer_model": unigram()},
    ),
    "tokenizer_class 'DebertaV2Tokenizer' is not": (
        {"tokenizer_class": "DebertaV2TokenizerFast"},
        {"spm_model": unigram()},
    ),
    "tokenizer_class '7' is not supported": ({"tokenizer_class": 7}, {"vocab_txt": VOCAB}),
    "do_lower_case must be true or false, got 'yes'": (
        {"do_lower_case": "yes"},
        {"vocab_txt": VOCAB},
    ),
    "strip_accents must be true or false, got 1": ({"strip_accents": 1}, {"vocab_txt": VOCAB}),
    "additional_special_tokens must be a list of tokens, got 'x'": (
        {"additional_special_tokens": "x"},
        {"vocab_txt": VOCAB},
    ),
    "extra_special_tokens must be a list of tokens, got \\[4\\]": (
        {"extra_special_tokens": [4]},
        {"vocab_txt": VOCAB},
    ),
    "added_tokens_decoder must be an object, got \\[\\]": (
        {"added_tokens_decoder": []},
        {"vocab_txt": VOCAB},
    ),
    "must give a token for each id, got 'x': {}": (
        {"added_tokens_decoder": {"x": {}}},
        {"vocab_txt": VOCAB},
    ),
    "AddedToken must say 'content'": ({"added_tokens_decoder": {"8": {}}}, {"vocab_txt": VOCAB}),
    "hole: no token has id 8": (
        {"added_tokens_decoder": {"9": {"content": "x"}}},
        {"vocab_txt": VOCAB},
    ),
    "id 5 is given to both 'hello' and 'x'": (
        {"added_tokens_decoder": {"5": {"content": "x"}}},
        {"vocab_txt": VOCAB},
    ),
    "tokenizer_config.json: expected an object, got \\[\\]": ([], {"vocab_txt": VOCAB}),
    "vocab.json: not valid JSON: the key 'a' occurs twice": (
        {},
        {"vocab_json": '{"a":0,"a":1}', "merges_txt": ""},
    ),
    "vocab.json: not valid JSON: nested": ({}, {"vocab_json": "[" * 100_000, "merges_txt": ""}),
    "vocab.json: an object of tokens and ids is expected": (
        {},
        {"vocab_json": "[]", "merges_txt": ""},
    ),
    "vocab.json: the id of token 'a' must be a number": (
        {},
        {"vocab_json": '{"a": "0"}', "merges_txt": ""},
    ),
    "hole: no token has id 1": ({}, {"vocab_json": '{"a": 0, "b": 2}', "merges_txt": ""}),
    "merges.txt, line 2: a pair of tokens is expected, got 'a b c'": (
        {},
        {"vocab_json": '{"a": 0}', "merges_txt": "#version\na b c"},
    ),
    "needs token 'b', not in the vocabulary": ({}, {"vocab_json": '{"a": 0}', "merges_txt": "a b"}),
    "extra_ids must be a number from 0 to": (
        {"tokenizer_class": "T5Tokenizer", "extra_ids": -1},
        {"spiece_model": unigram()},
    ),
    "a BPE model is not supported for this class": (
        {"tokenizer_class": "AlbertTokenizer", "cls_token": "<s>", "sep_token": "</s>"},
        {"spiece_model": MODELS["BPE"]},
    ),
    "add_prefix_space = false is not supported": (
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
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "SomeTokenizer", "pad_token": "low"})
    )
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode(TEXTS[0]) == trained.encode(TEXTS[0]) and loaded.named == {
        "pad_token": "low"
    }


def test_tokens_of_the_settings(tmp_path):
    """A token that no vocabulary has gets the next id; added_tokens.json and flags are heard."""
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
    tokenizer = Tokenizer.load(
        folder(tmp_path, {"tokenizer_class": "T5Tokenizer", "extra_ids": 3}, spiece_model=unigram())
    )
    size = tokenizer.vocab_size
    assert [tokenizer.id_to_token(id) for id in range(size - 3, size)] == [
        "<extra_id_2>",
        "<extra_id_1>",
        "<extra_id_0>",
    ]
    tokens = tokenizer.encoding("hello <extra_id_0> hello", allow_special=True).tokens
    assert tokens == ["▁hello", "<extra_id_0>", "▁hello", "</s>"]


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
    assert (
        tokenizer.model.single and "<s>" in tokenizer.model.hidden
    )  # all else is as in the .model
    fullwidth = "\uff1cs\uff1e"  # NFKD makes "<s>" of it, which is text all the same
    assert tokenizer.token_to_id("<s>") not in tokenizer.encode(fullwidth, allow_special=True)


def test_the_mask_of_roberta_takes_the_space_before_it_along(tmp_path):
    vocab = json.dumps(
        {
            token: id
            for id, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "Ġ"])
        }
    )
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
    assert (
        saved == {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"} | kept
    )
    assert Tokenizer.load(tmp_path).parts == trained.parts


def test_a_folder_with_broken_settings_is_left_alone(trained, tmp_path):
    folder(tmp_path, []), (tmp_path / "tokenizer.json").write_text("old")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: expected an object"):
        trained.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == "old"


# A model beside it


def test_a_llama_folder_with_a_sentencepiece_tokenizer(tmp_path, monkeypatch, capsys):
    """<s> goes before the prompt, the text comes with its spaces, and the folder that is saved again says the same."""
    vocabulary = folder(
        tmp_path / "v", {"tokenizer_class": "LlamaTokenizer"}, tokenizer_model=MODELS["BPE"]
    )
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
    assert (
        tokenizer.encode("The dog", add_special_tokens=True)[0]
        == tokenizer.named_id("bos_token")
        == 1
    )
    tinyplm.save(model, tmp_path / "again")
    assert not (tmp_path / "again" / "tokenizer.model").exists()  # tokenizer.json says it
    assert tinyplm.load(tmp_path / "again").tokenizer.parts == tokenizer.parts
    shown = []
    for path in (vocabulary, tmp_path / "again"):
        assert (
            example(
                monkeypatch, path, "--prompt", "The dog", "--tokens", 12, "--show-log-probabilities"
            )
            is None
        )
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and shown[0].startswith("The dog")
    # token by token after the prompt, the text has the spaces that it has as a whole
    text = " dog  lazy fox; übergrößen 春天"
    prompt = tokenizer.encode("The", add_special_tokens=True)
    new = tokenizer.encode("The" + text, add_special_tokens=True)[len(prompt) :]
    stream = tokenizer.stream(skip_special=True, after=prompt)
    assert "".join(map(stream.push, new)) + stream.finish() == text
