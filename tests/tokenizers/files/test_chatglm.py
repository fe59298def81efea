"""Tokenizers in the folders of ChatGLM, ChatGLM2 and 3 and GLM-4: special tokens, their place around a text, what is refused."""

from __future__ import annotations

import base64
import json

import pytest

from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tests.support.hard_strings import HARD
from tests.support.sentencepiece_files import bpe_model, message, piece, unigram
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat import TEMPLATES, encode
from tinyplm.tokenizers.text.patterns import CL100K_PATTERN

BLANKS = [piece(f"<|blank_{n}|>", kind=4) for n in range(2, 81)]
FIRST = [piece("<n>", kind=4), piece("<|tab|>", kind=4), *BLANKS, piece("[MASK]", kind=3), piece("[gMASK]", kind=3),
         piece("<sop>", kind=3), piece("<eop>", kind=3), piece("<pad>", kind=3)]  # fmt: skip
GLM4 = ("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>")


def folder_of(folder, file, content, **settings):
    (folder / file).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def later(folder):
    return Tokenizer.load(folder_of(folder, "tokenizer.model", bpe_model(), tokenizer_class="ChatGLMTokenizer"))


def first(folder, **settings):
    settings = {"tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": 0, **settings}
    return Tokenizer.load(folder_of(folder, "ice_text.model", unigram(*FIRST), **settings))


def glm4(folder, **settings):
    trained = Tokenizer.train(TEXTS * 2, 500, [], pattern=CL100K_PATTERN)
    tokens = [trained.decode_bytes([id]) for id in range(trained.vocab_size)]
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    decoder = {str(len(tokens) + n): {"content": token, "special": True} for n, token in enumerate(GLM4)}
    settings = {"tokenizer_class": "ChatGLM4Tokenizer", "added_tokens_decoder": decoder, **settings}
    return trained, Tokenizer.load(folder_of(folder, "tokenizer.model", lines.encode(), **settings))


def test_chatglm2_and_3_put_gmask_and_sop_before_the_ids_of_the_model(tmp_path):
    (tmp_path / "alone.model").write_bytes(bpe_model())
    model, read = Tokenizer.load(tmp_path / "alone.model"), later(tmp_path)
    n = model.vocab_size
    for text in [*TEXTS, *HARD]:
        assert read.encode(text) == model.encode(text)
        assert read.encode(text, add_special_tokens=True) == [n + 1, n + 3, *model.encode(text)]
    assert (read.eos_id, read.named["pad_token"], read.vocab_size) == (2, "<unk>", n + 9)
    assert [read.token_to_id(t) for t in ("[MASK]", "eop", "<|system|>", "<|observation|>")] == [n, n + 4, n + 5, n + 8]


def test_sop_and_eop_are_tokens_only_as_words(tmp_path):
    read = later(tmp_path)
    assert read.encode("philosophy of people", allow_special=True) == read.encode("philosophy of people")
    gmask, sop = read.encode("[gMASK]sop[Round 1]", allow_special=True)[:2]
    assert read.decode([gmask, sop]) == "[gMASK]sop"


def test_chatglm3_encodes_each_message_apart(tmp_path):
    """The space after the newline of a role is the one that the model puts before each text."""
    read = later(tmp_path)
    talk = [{"role": "user", "content": "Hello people"}]
    role, answer = (read.token_to_id(f"<|{name}|>") for name in ("user", "assistant"))
    gmask, sop = (read.token_to_id(token) for token in ("[gMASK]", "sop"))
    expected = [gmask, sop, role, *read.encode("\n"), *read.encode("Hello people"), answer]
    assert encode(read, TEMPLATES["chatglm3"], talk) == expected


def test_chatglm_writes_lines_tabs_and_runs_of_spaces_as_tokens(tmp_path):
    read = first(tmp_path)
    ids = read.encode("hello\n\thello" + " " * 85 + "a")
    assert [read.id_to_token(id) for id in ids if read.id_to_token(id).startswith("<")] == [
        *("<n>", "<|tab|>", "<|blank_80|>", "<|blank_5|>"),
    ]
    for text in ("hello\n\thello   a", "no  hello\n\n   to", "hello" + " " * 79 + "a"):
        assert read.decode(read.encode(text)) == text
    gmask, sop, eop = (read.token_to_id(token) for token in ("[gMASK]", "<sop>", "<eop>"))
    assert read.encode("a", add_special_tokens=True) == [*read.encode("a"), gmask, sop]
    assert read.eos_id == eop and read.named["mask_token"] == "[MASK]"


def test_glm_4_has_ranks_in_tokenizer_model_and_special_tokens_in_the_settings(tmp_path):
    trained, read = glm4(tmp_path)
    n = trained.vocab_size
    for text in [*TEXTS, *HARD]:
        assert read.encode(text) == trained.encode(text)
        assert read.decode(read.encode(text)) == text
    assert read.encode("a", add_special_tokens=True) == [n + 2, n + 4, *trained.encode("a")]
    assert read.eos_id == n and read.vocab_size == n + len(GLM4)
    talk = [{"role": "user", "content": "a"}]
    assert encode(read, TEMPLATES["glm4"], talk) == [n + 2, n + 4, n + 7, *trained.encode("\na"), n + 8]


@pytest.mark.parametrize("make", [later, first, lambda folder: glm4(folder)[1]], ids=["later", "first", "glm4"])
def test_they_are_written_as_a_tokenizer_json(tmp_path, make):
    read = make(tmp_path)
    read.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path)
    for text in HARD:
        assert again.encode(text, add_special_tokens=True) == read.encode(text, add_special_tokens=True)
        assert again.decode(again.encode(text)) == read.decode(read.encode(text))


@pytest.mark.parametrize(
    ("make", "settings", "error"),
    [
        (
            first,
            {"num_image_tokens": 20000},
            "ice_text.model: num_image_tokens: expected 0, as in the files with 130528 tokens, got",
        ),
        (first, {"do_lower_case": True}, "ice_text.model: do_lower_case: expected false, got True"),
        (first, {"tokenizer_class": "Other"}, "ice_text.model: tokenizer_class: expected one of .*, got 'Other'"),
        (glm4, {"added_tokens_decoder": {}}, r"added_tokens_decoder: expected GLM-4's special tokens, \[gMASK\] among them, got"),
        (glm4, {"added_tokens_decoder": 5}, "added_tokens_decoder: expected GLM-4's special tokens"),
        (glm4, {"tokenizer_class": "ChatGLMTokenizer"}, "tokenizer.model: expected a SentencePiece model"),
    ],
    ids=range(6),
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, make, settings, error):
    with pytest.raises(ValueError, match=error) as found:
        make(tmp_path, **settings)
    assert "\n" not in str(found.value)


def test_a_vocabulary_with_gmask_but_not_chatglms_is_refused(tmp_path):
    content = message(*[piece("<unk>", kind=2), piece("a"), piece("[gMASK]", kind=3)])
    settings = {"tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": 0}
    with pytest.raises(ValueError, match="vocabulary: expected ChatGLM's, with <n>, got None"):
        Tokenizer.load(folder_of(tmp_path, "ice_text.model", content, **settings))
