# ruff: noqa: E402 - imports follow importorskip
"""Hub folders against transformers, class by class: vocabularies, folders saved by either side, and overwriting.

transformers reads .model files only with the package protobuf, so its classes are passed the pieces here, as it would read them.
In one place we deliberately differ: RoBERTa's <mask> absorbs the space before it, as in transformers 4 and in the files
published then; transformers 5 does that only if the settings say so, as they do here.
"""

from __future__ import annotations

import io
import json

import pytest

pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
sentencepiece = pytest.importorskip("sentencepiece")

import transformers
from transformers.convert_slow_tokenizer import generate_merges

from tests.conftest import TOKENIZER_TEXTS
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.files.sentencepiece import read_model
from tinyplm.tokenizers.text.encoding import Padding, Truncation

CORPUS = TOKENIZER_TEXTS * 3
END = "<|endoftext|>"
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
MASK = {
    "mask_token": {
        "__type": "AddedToken",
        "content": "<mask>",
        "lstrip": True,
        "rstrip": False,
        "normalized": False,
        "single_word": False,
    }
}
CHAT = {"490": {"content": "<|im_start|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False,
                "single_word": False}}  # fmt: skip

SINGLES = [
    "Hello world, the dog's  owner didn't see it.",
    "  two  spaces ",
    "The naïve café: ÜBERGRÖSSE",
    "春天来了，花 The 春天",
    "",
    "x\ny\tz 😀 '' ``quoted''",
    "a </s> b <s>c",
    "foo <mask> bar [MASK] baz[MASK]",
    "<|endoftext|> hi<|endoftext|> <|im_start|>user [PAD]",
    "<extra_id_0> and <extra_id_5> x",
    "9, 9,",
    "ﬁne ① Å",
]


def vocabulary(trainer, folder, **options):
    trainer.train_from_iterator(CORPUS, show_progress=False, **options)
    trainer.save_model(str(folder))


def merges(specials):
    return lambda folder: vocabulary(tokenizers.ByteLevelBPETokenizer(), folder, vocab_size=500, special_tokens=specials)


def gpt(folder):
    vocabulary(tokenizers.CharBPETokenizer(lowercase=True), folder, vocab_size=400, special_tokens=["<unk>"])


def wordpiece(lowercase):
    return lambda folder: vocabulary(tokenizers.BertWordPieceTokenizer(lowercase=lowercase), folder, vocab_size=400)


def model(name, **options):
    def write(folder):
        data = io.BytesIO()
        options.setdefault("vocab_size", 300)
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=data, minloglevel=2, **options)
        (folder / name).write_bytes(data.getvalue())

    return write


LLAMA = model("tokenizer.model", model_type="bpe", vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
              remove_extra_whitespaces=False)  # fmt: skip
GEMMA = model("tokenizer.model", model_type="bpe", vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
              add_dummy_prefix=False, remove_extra_whitespaces=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
              pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>")  # fmt: skip
GEMMA_NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": None}
T5 = model("spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False)
MT5 = model("spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
            user_defined_symbols=[f"▁<extra_id_{k}>" for k in reversed(range(9))])  # fmt: skip
ALBERT = model("spiece.model", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]"],
               user_defined_symbols=["[MASK]", "(", ")"], hard_vocab_limit=False)  # fmt: skip
XLNET = model("spiece.model", unk_id=0, bos_id=1, eos_id=2, pad_id=-1, hard_vocab_limit=False,
              control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"])  # fmt: skip

CASES = {
    "gpt2": ("GPT2Tokenizer", merges([END]), {}),
    "gpt2 with a space": ("GPT2Tokenizer", merges([END]), {"add_prefix_space": True}),
    "gpt2 with bos": ("GPT2Tokenizer", merges([END]), {"add_bos_token": True, "pad_token": "[PAD]"}),
    "opt": ("GPT2Tokenizer", merges(ROBERTA), {"add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>",
                                               "unk_token": "</s>", "pad_token": "<pad>"}),
    "gpt2 with more tokens": ("GPT2Tokenizer", merges([END]), {"additional_special_tokens": ["<|im_start|>", "[PAD]"]}),
    "roberta": ("RobertaTokenizer", merges(ROBERTA), MASK),
    "roberta with a space": ("RobertaTokenizer", merges(ROBERTA), MASK | {"add_prefix_space": True}),
    "bart": ("BartTokenizer", merges(ROBERTA), MASK),
    "qwen2": ("Qwen2Tokenizer", merges([END]), {"added_tokens_decoder": CHAT}),
    "gpt": ("OpenAIGPTTokenizer", gpt, {}),
    "bert": ("BertTokenizer", wordpiece(True), {}),
    "bert cased": ("BertTokenizer", wordpiece(False), {"do_lower_case": False}),
    "bert with accents": ("BertTokenizer", wordpiece(True), {"do_lower_case": True, "strip_accents": False}),
    "bert without accents": ("BertTokenizer", wordpiece(True), {"do_lower_case": False, "strip_accents": True}),
    "bert, Chinese words": ("BertTokenizer", wordpiece(True), {"tokenize_chinese_chars": False}),
    "distilbert": ("DistilBertTokenizer", wordpiece(True), {}),
    "llama": ("LlamaTokenizer", LLAMA, {}),
    "llama legacy": ("LlamaTokenizer", LLAMA, {"legacy": True}),
    "llama with eos": ("LlamaTokenizer", LLAMA, {"add_eos_token": True}),
    "llama without bos": ("LlamaTokenizer", LLAMA, {"add_bos_token": False}),
    "llama legacy with both": ("LlamaTokenizer", LLAMA, {"legacy": True, "add_bos_token": True, "add_eos_token": True}),
    "gemma": ("GemmaTokenizer", GEMMA, GEMMA_NAMES),
    "gemma with both": ("GemmaTokenizer", GEMMA, GEMMA_NAMES | {"add_bos_token": True, "add_eos_token": True}),
    "gemma without bos": ("GemmaTokenizer", GEMMA, GEMMA_NAMES | {"add_bos_token": False}),
    "t5": ("T5Tokenizer", T5, {}),
    "t5 with few sentinels": ("T5Tokenizer", T5, {"extra_ids": 7}),
    "mt5": ("T5Tokenizer", MT5, {"extra_ids": 0, "additional_special_tokens": None}),
    "albert": ("AlbertTokenizer", ALBERT, {}),
    "albert cased": ("AlbertTokenizer", ALBERT, {"do_lower_case": False}),
    "albert with accents": ("AlbertTokenizer", ALBERT, {"keep_accents": True}),
    "xlnet": ("XLNetTokenizer", XLNET, {}),
    "xlnet uncased": ("XLNetTokenizer", XLNET, {"do_lower_case": True}),
}  # fmt: skip


def of_transformers(name, folder, config):
    """The tokenizer that transformers' class makes from the folder."""
    kind = getattr(transformers, name)
    models = list(folder.glob("*.model"))
    if not models:
        return kind.from_pretrained(str(folder))
    data = models[0].read_bytes()
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    pieces = [(theirs.id_to_piece(id), theirs.get_score(id)) for id in range(len(theirs))]
    control = [tokenizers.AddedToken(piece, normalized=False) for id, (piece, _) in enumerate(pieces) if theirs.is_control(id)]
    if name in ("LlamaTokenizer", "GemmaTokenizer"):
        vocab = {piece: id for id, (piece, _) in enumerate(pieces)}
        settings = {"add_bos_token": True} | config
        return kind(vocab=vocab, merges=generate_merges(vocab), additional_special_tokens=control, **settings)
    charsmap = read_model(data, "").charsmap
    if name == "T5Tokenizer":
        pieces += [(f"<extra_id_{k}>", 0.0) for k in reversed(range(config.get("extra_ids", 100)))]
        return kind(vocab=pieces, _spm_precompiled_charsmap=charsmap, **config)
    options = {"unk_id": theirs.unk_id(), "additional_special_tokens": control, "_spm_precompiled_charsmap": charsmap}
    return kind(vocab=pieces, **options, **config)


def assert_equal(ours, theirs):
    assert ours.vocab_size == len(theirs)
    roles = {role: token for role, token in theirs.special_tokens_map.items() if role.endswith("_token")}
    assert ours.named == roles
    assert {role: ours.named_id(role) for role in roles} == {r: theirs.convert_tokens_to_ids(token) for r, token in roles.items()}
    for text in SINGLES:
        for pair in (None, "The second one"):
            encoding = ours.encoding(text, pair, allow_special=True)
            expected = theirs(text, pair, return_token_type_ids=True, return_special_tokens_mask=True)
            written = theirs.convert_ids_to_tokens(expected["input_ids"])
            assert [t.strip() if t.endswith(("<mask>", "[MASK]")) else t for t in encoding.tokens] == written  # these take spaces
            assert encoding.ids == expected["input_ids"]
            assert encoding.type_ids == expected["token_type_ids"]
            assert encoding.special_tokens_mask == expected["special_tokens_mask"]
        ids = theirs(text)["input_ids"]
        for skip in (False, True):
            decoded = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special=skip) == decoded


@pytest.mark.parametrize("case", CASES)
def test_vocabularies_and_saved_folders(case, tmp_path):
    name, write, config = CASES[case]
    vocabularies, saved, own = (tmp_path / folder for folder in ("vocabularies", "saved", "own"))
    for folder in (vocabularies, own):
        folder.mkdir()
    write(vocabularies)
    (vocabularies / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name} | config))
    ours, theirs = Tokenizer.load(vocabularies), of_transformers(name, vocabularies, config)
    assert_equal(ours, theirs)
    theirs.save_pretrained(saved)
    assert_equal(Tokenizer.load(saved), theirs)
    ours.save(own)
    assert_equal(ours, transformers.AutoTokenizer.from_pretrained(own))
    assert_equal(Tokenizer.load(own), theirs)
    # with the class's own settings, which tinyplm.save keeps; then overwritten
    (own / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "chat_template": "{{ 1 }}"} | config))
    assert_equal(ours, transformers.AutoTokenizer.from_pretrained(own))
    ours.save(own)
    again = transformers.AutoTokenizer.from_pretrained(own)
    assert_equal(ours, again)
    assert again.chat_template == "{{ 1 }}"


def test_padding_and_truncation_go_along(tmp_path):
    ours = Tokenizer.train(CORPUS, 300, kind="WordPiece")
    changes = {"padding": Padding(pad_id=ours.named_id("pad_token"), pad_token="[PAD]"), "truncation": Truncation(12)}
    ours = Tokenizer(**ours.parts | changes)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs(SINGLES, padding=True, truncation=True, max_length=12, return_overflowing_tokens=True)
    batch = ours.batch(SINGLES, allow_special=True)
    assert batch["input_ids"].tolist() == expected["input_ids"]
    assert batch["attention_mask"].tolist() == expected["attention_mask"]
    assert batch["overflow_to_sample"].tolist() == expected["overflow_to_sample_mapping"]


def test_user_defined_pieces(tmp_path):
    """Matched unless a longer piece covers them; sentencepiece exempts them from its character map, which is rejected here."""
    model("m.model", user_defined_symbols=["dog", "o j", "é", "wn fo"], hard_vocab_limit=False)(tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    ours = Tokenizer.load(tmp_path / "m.model")
    for text in [*SINGLES[:6], *TOKENIZER_TEXTS, "hotdogs dog  dog", "so jumps hello jello", "brown fox brown  fox", "éé"]:
        assert ours.encode(text) == theirs.encode(text)
    model("m.model", user_defined_symbols=["①"], hard_vocab_limit=False)(tmp_path)
    assert sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model")).encode("①", out_type=str)[-1] == "①"
    with pytest.raises(ValueError, match=r"m\.model: pieces: expected user-defined ones .*, got '①'"):
        Tokenizer.load(tmp_path / "m.model")
