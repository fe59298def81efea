"""Whole tokenizers as the library `tokenizers` builds them, one chain of components a row; as in released models, and others."""

from __future__ import annotations

import pytest

from tinyplm.tokenizers.text.patterns import CL100K_PATTERN, O200K_PATTERN, QWEN2_PATTERN

hf = pytest.importorskip("tokenizers")
norm, pre, dec = hf.normalizers, hf.pre_tokenizers, hf.decoders
post, models, trainers = hf.processors, hf.models, hf.trainers

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def bpe(size=700, special=("<unk>", "<s>", "</s>"), model=None, **options):
    """(model, trainer)"""
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False, **options)
    return models.BPE(**(model or {})), trainer


def byte_level_bpe(**model):
    return bpe(600, ["<|endoftext|>"], model, initial_alphabet=pre.ByteLevel.alphabet())


def unigram(size=500, special=("<unk>", "<s>", "</s>")):
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=list(special), unk_token="<unk>", show_progress=False)
    return models.Unigram(), trainer


def wordpiece(size=500, **model):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    return models.WordPiece(unk_token="[UNK]", **model), trainer


def split(pattern, behavior="isolated"):
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre.Sequence([pre.Split(hf.Regex(pattern), behavior), byte_level])


def template(begin, end, first, last):
    single, pair = f"{begin} $A {end}".strip(), f"{begin} $A {end} $B:1 {end}:1".strip()
    return post.TemplateProcessing(single, pair, [(begin, first), (end, last)])


def metaspace(scheme, split=True):
    return {
        "pre_tokenizer": pre.Metaspace(prepend_scheme=scheme, split=split),
        "decoder": dec.Metaspace(prepend_scheme=scheme, split=split),
    }


def bert(lowercase, **model):
    return wordpiece(**model), {
        "normalizer": norm.BertNormalizer(lowercase=lowercase),
        "pre_tokenizer": pre.BertPreTokenizer(),
        "post_processor": post.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
        "decoder": dec.WordPiece(),
    }


LLAMA_NORMALIZER = norm.Sequence([norm.Prepend("▁"), norm.Replace(" ", "▁")])
LLAMA_DECODER = dec.Sequence([dec.Replace("▁", " "), dec.ByteFallback(), dec.Fuse(), dec.Strip(" ", 1, 0)])
BYTE_DECODER = {"decoder": dec.ByteLevel()}
TIDY = norm.Sequence([norm.Nmt(), norm.NFKC(), norm.Replace(hf.Regex(" {2,}"), " "), norm.Strip()])

# name -> ((model, trainer), components)
CHAINS = {
    "GPT-2": (
        byte_level_bpe(),
        {"pre_tokenizer": pre.ByteLevel(add_prefix_space=False), "post_processor": post.ByteLevel(trim_offsets=False)}
        | BYTE_DECODER,
    ),
    "RoBERTa": (
        bpe(600, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], initial_alphabet=pre.ByteLevel.alphabet()),
        {
            "pre_tokenizer": pre.ByteLevel(add_prefix_space=True),
            "post_processor": post.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=True),
        }
        | BYTE_DECODER,
    ),
    "LLaMA-3": (
        byte_level_bpe(ignore_merges=True),
        {
            "pre_tokenizer": split(CL100K_PATTERN),
            "post_processor": post.Sequence(
                [post.ByteLevel(trim_offsets=False), template("<|endoftext|>", "<|endoftext|>", 0, 0)]
            ),
        }
        | BYTE_DECODER,
    ),
    "Qwen2": (
        byte_level_bpe(),
        {
            "normalizer": norm.NFC(),
            "pre_tokenizer": split(QWEN2_PATTERN),
            "post_processor": post.ByteLevel(trim_offsets=False),
        }
        | BYTE_DECODER,
    ),
    "BLOOM": (
        byte_level_bpe(),
        {
            "pre_tokenizer": split(r" ?[^(\s|[.,!?…。，、।۔،])]+"),
            "post_processor": post.ByteLevel(add_prefix_space=True, trim_offsets=False),
        }
        | BYTE_DECODER,
    ),
    "gpt-oss": (
        bpe(
            600,
            ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>"],
            {},
            initial_alphabet=pre.ByteLevel.alphabet(),
        ),
        {"pre_tokenizer": split(O200K_PATTERN), "post_processor": post.ByteLevel(trim_offsets=True)} | BYTE_DECODER,
    ),
    "GLM-4": (
        bpe(600, ["[gMASK]", "<sop>", "<|user|>"], {"ignore_merges": True}, initial_alphabet=pre.ByteLevel.alphabet()),
        {
            "pre_tokenizer": split(CL100K_PATTERN),
            "post_processor": post.TemplateProcessing(
                "[gMASK] <sop> $A", "[gMASK] <sop> $A $B:1", [("[gMASK]", 0), ("<sop>", 1)]
            ),
        }
        | BYTE_DECODER,
    ),
    "OLMo 2": (
        byte_level_bpe(),
        {
            "pre_tokenizer": pre.Sequence(
                [pre.Split(hf.Regex(CL100K_PATTERN), "removed", invert=True), pre.ByteLevel(False, use_regex=False)]
            ),
            "post_processor": post.ByteLevel(trim_offsets=False),
        }
        | BYTE_DECODER,
    ),
    "o200k": (byte_level_bpe(), {"pre_tokenizer": split(O200K_PATTERN, "removed"), **BYTE_DECODER}),
    "o200k isolated": (byte_level_bpe(), {"pre_tokenizer": split(O200K_PATTERN), **BYTE_DECODER}),
    "byte-level normalizer": (
        byte_level_bpe(),
        {"normalizer": norm.Sequence([norm.NFC(), norm.ByteLevel()]), "pre_tokenizer": None, **BYTE_DECODER},
    ),
    "digits and byte-level": (
        byte_level_bpe(),
        {
            "pre_tokenizer": pre.Sequence([pre.Digits(True), pre.Punctuation(), pre.ByteLevel(True, use_regex=True)]),
            "post_processor": post.ByteLevel(trim_offsets=True),
        }
        | BYTE_DECODER,
    ),
    "GPT": (
        bpe(model={"unk_token": "<unk>", "end_of_word_suffix": "</w>"}, end_of_word_suffix="</w>"),
        {
            "normalizer": norm.BertNormalizer(),
            "pre_tokenizer": pre.BertPreTokenizer(),
            "decoder": dec.BPEDecoder(),
        },
    ),
    "CLIP": (
        bpe(
            600,
            ["<|startoftext|>", "<|endoftext|>"],
            {"unk_token": "<|endoftext|>", "end_of_word_suffix": "</w>"},
            end_of_word_suffix="</w>",
            initial_alphabet=pre.ByteLevel.alphabet(),
        ),
        {
            "normalizer": norm.Sequence([norm.NFC(), norm.Replace(hf.Regex(r"\s+"), " "), norm.Lowercase()]),
            "pre_tokenizer": pre.Sequence(
                [
                    pre.Split(hf.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
                    pre.ByteLevel(add_prefix_space=False),
                ]
            ),
            "post_processor": template("<|startoftext|>", "<|endoftext|>", 0, 1),
        }
        | BYTE_DECODER,
    ),
    "BPE with unk": (
        bpe(model={"unk_token": "<unk>"}),
        {"pre_tokenizer": pre.Whitespace(), "post_processor": template("<s>", "</s>", 1, 2)},
    ),
    "BPE with fuse_unk": (
        bpe(model={"unk_token": "<unk>", "fuse_unk": True}),
        {"normalizer": norm.Sequence([norm.NFD(), norm.StripAccents()]), "pre_tokenizer": pre.WhitespaceSplit()},
    ),
    "BPE with ##": (
        bpe(model={"unk_token": "<unk>", "continuing_subword_prefix": "##"}, continuing_subword_prefix="##"),
        {"normalizer": norm.NFKD(), "pre_tokenizer": pre.Whitespace(), "decoder": dec.WordPiece(cleanup=False)},
    ),
    "LLaMA-2": (
        bpe(800, ["<unk>", "<s>", "</s>", *BYTES], {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}),
        {
            "normalizer": LLAMA_NORMALIZER,
            "pre_tokenizer": None,
            "decoder": LLAMA_DECODER,
            "post_processor": template("<s>", "</s>", 1, 2),
        },
    ),
    "Mistral": (
        bpe(800, ["<unk>", "<s>", "</s>", *BYTES], {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}),
        {"decoder": LLAMA_DECODER, "pre_tokenizer": pre.Metaspace(prepend_scheme="first", split=False)},
    ),
    "Gemma": (
        bpe(800, ["<unk>", "<s>", "</s>", *BYTES], {"unk_token": "<unk>", "byte_fallback": True}),
        {
            "normalizer": norm.Replace(" ", "▁"),
            "pre_tokenizer": pre.Split(" ", "merged_with_previous"),
            "decoder": dec.Sequence([dec.Replace("▁", " "), dec.ByteFallback(), dec.Fuse()]),
        },
    ),
    "BERT uncased": bert(True),
    "BERT cased": bert(False, max_input_chars_per_word=20),
    "WordPiece with punctuation": (
        wordpiece(),
        {
            "normalizer": norm.Sequence([norm.NFKC(), norm.Lowercase()]),
            "pre_tokenizer": pre.Sequence([pre.WhitespaceSplit(), pre.Punctuation("contiguous"), pre.Digits()]),
            "post_processor": template("[CLS]", "[SEP]", 2, 3),
            "decoder": dec.WordPiece(),
        },
    ),
    "T5": (unigram(), {"normalizer": TIDY, "post_processor": template("<s>", "</s>", 1, 2), **metaspace("always")}),
    "ALBERT": (
        unigram(),
        {
            "normalizer": norm.Sequence(
                [norm.Replace("``", '"'), norm.Replace("''", '"'), norm.NFKD(), norm.StripAccents(), norm.Lowercase()]
            ),
            "pre_tokenizer": pre.Sequence([pre.WhitespaceSplit(), pre.Metaspace()]),
            "decoder": dec.Metaspace(),
        },
    ),
    "Unigram first": (unigram(), metaspace("first")),
    "Unigram never": (unigram(), {"normalizer": norm.Strip(left=False), **metaspace("never")}),
    "Unigram unsplit": (unigram(), metaspace("always", split=False)),
    "Unigram with bytes": (
        unigram(700, ["<unk>", "<s>", "</s>", *BYTES]),
        {
            "pre_tokenizer": pre.Metaspace(),
            "decoder": dec.Sequence([dec.ByteFallback(), dec.Metaspace()]),
        },
    ),
}
