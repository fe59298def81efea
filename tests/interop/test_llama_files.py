# ruff: noqa: E402 - imports follow importorskip
"""LLaMA's folders against transformers: the spellings of the rotary settings, and the files next to the model.

The tensors are in test_causal_files.py.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tokenizers as hf

import tinyplm
from tests.interop.families import ROPES
from tests.interop.pair import assert_same, float64, pair, their_logits
from tests.interop.test_causal_files import random_model, read, settings_in
from tinyplm.families import llama
from tinyplm.models.config import to_dict

LONG = np.random.default_rng(0).integers(0, 41, (2, 40))  # beyond the trained context if there is scaling


def read_exactly(folder):
    """The model that transformers loads from a folder, in float64 throughout."""
    with float64():
        theirs = read("llama", folder)
    assert theirs.dtype == theirs.model.rotary_emb.inv_freq.dtype == torch.float64
    return theirs


def assert_same_logits(folder, ours):
    theirs = read_exactly(folder)
    with float64():
        assert_same("logits", ours(LONG)[0]["logits"], their_logits(theirs, LONG))


# ------------------------------------------------------------------------------------------------------ rotary settings

LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
OLD = {
    "nothing": {"max_position_embeddings": 48},
    "null": {"max_position_embeddings": 48, "rope_scaling": None},
    "theta": {"max_position_embeddings": 48, "rope_theta": 50.0},
    "theta and null": {"max_position_embeddings": 48, "rope_theta": 50.0, "rope_scaling": None},
    "theta, an integer": {"max_position_embeddings": 48, "rope_theta": 50, "rope_scaling": {"rope_type": "default"}},
    "type": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "rope_type": {"rope_theta": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 4}},
    "both types": {"rope_theta": 50.0, "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4.0}},
    "dynamic": {"rope_theta": 50.0, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "yarn": {"max_position_embeddings": 64, "rope_theta": 50.0,
             "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "yarn, nulls": {"max_position_embeddings": 64, "rope_theta": 50.0,
                    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                     "attention_factor": None, "beta_fast": None, "mscale": None}},
    "yarn, factor from the contexts": {"max_position_embeddings": 64, "rope_theta": 50.0,
                                       "rope_scaling": {"rope_type": "yarn", "factor": None,
                                                        "original_max_position_embeddings": 16}},
    "yarn, original context beside it": {"max_position_embeddings": 64, "original_max_position_embeddings": 16,
                                         "rope_theta": 50.0, "rope_scaling": {"type": "yarn", "factor": 4.0}},
    "yarn, truncate null": {"max_position_embeddings": 64, "rope_theta": 50.0,
                            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                             "beta_fast": 1.5, "beta_slow": 0.3, "truncate": None}},  # read as false
    "yarn, no original context": {"rope_theta": 50.0, "rope_scaling": {"type": "yarn", "factor": 4.0}},
    "llama3": {"max_position_embeddings": 128, "rope_theta": 50.0, "rope_scaling": {**LLAMA3, "rope_type": "llama3"}},
    "heads of their own width": {"rope_scaling": {"type": "linear", "factor": 4.0}, "head_dim": 12, "num_key_value_heads": 1},
    "settings of both kinds": {"rope_theta": 50.0, "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 4.0}},
    "rope_parameters without theta": {"rope_theta": 50.0, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    "rope_parameters without type": {"max_position_embeddings": 48, "rope_parameters": {"rope_theta": 50.0}},
}  # fmt: skip


@pytest.mark.parametrize("name", list(OLD))
def test_config_files_in_older_spellings(tmp_path, name):
    """A config.json as found in practice, written by hand: both read it alike, and ours writes back what it read."""
    settings = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 41, "hidden_size": 32,
                "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 12,
                "hidden_act": "silu", "rms_norm_eps": 1e-6, "initializer_range": 0.02, "use_cache": True, "pad_token_id": 0,
                "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "torch_dtype": "float64",
                "transformers_version": "4.31.0", **OLD[name]}  # fmt: skip
    shape = {key: settings.get(key) for key in ("head_dim", "num_key_value_heads")}
    tinyplm.save(random_model("llama", **shape), tmp_path)  # for the tensors
    (tmp_path / "config.json").write_text(json.dumps(settings))
    ours = tinyplm.load(tmp_path)
    assert_same_logits(tmp_path, ours)
    tinyplm.save(ours, tmp_path / "ours")
    assert settings_in(tmp_path / "ours") == settings
    assert_same_logits(tmp_path / "ours", ours)


@pytest.mark.parametrize("name", list(ROPES))
def test_a_config_of_our_own_is_read_by_transformers(tmp_path, name):
    """We also read what transformers then writes, and get the same numbers."""
    ours = random_model("llama", **ROPES[name])
    tinyplm.save(ours, tmp_path / "ours")
    assert_same_logits(tmp_path / "ours", ours)
    read_exactly(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert "rope_scaling" not in settings_in(tmp_path / "ours")
    again = tinyplm.load(tmp_path / "theirs")
    assert again.config.context == ours.config.context
    assert_same("logits", again(LONG)[0]["logits"], ours(LONG)[0]["logits"])


def test_what_is_null_in_our_config_is_filled_in_alike(tmp_path):
    ours = random_model("llama", num_key_value_heads=None, max_position_embeddings=40)
    tinyplm.save(ours, tmp_path)
    written = settings_in(tmp_path)
    assert written["num_key_value_heads"] is written["head_dim"] is written["rope_parameters"] is None
    assert_same_logits(tmp_path, ours)


def test_the_defaults_are_those_of_transformers():
    """Including what transformers fills in for null."""
    config, theirs = llama.Config(), transformers.LlamaConfig().to_dict()
    rope = {"rope_type": config.rope.type, "rope_theta": config.rope.base, **config.rope.settings}
    ours = {**to_dict(config), "num_key_value_heads": config.kv_heads, "head_dim": config.head_width, "rope_parameters": rope}
    assert {name: theirs[name] for name in ours} == ours


@pytest.mark.parametrize("size", list(llama.SIZES))
def test_a_published_config_is_read_by_transformers(tmp_path, size):
    """Reading fills in missing values but changes none, and the config comes back the same."""
    config = llama.SIZES[size]
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path).to_dict()
    assert {name: theirs[name] for name, value in to_dict(config).items() if value is not None} == {
        name: value for name, value in to_dict(config).items() if value is not None}  # fmt: skip
    assert theirs["head_dim"] == config.head_width and theirs["num_key_value_heads"] == config.kv_heads


# -------------------------------------------------------------------------------------------------- next to the model


def test_generation_config_survives(tmp_path):
    theirs, _ = pair("llama", tmp_path)
    theirs.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=[3, 5], max_length=77)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = tinyplm.load(tmp_path / "theirs")
    assert ours.end_ids() == {3, 5}
    tinyplm.save(ours, tmp_path / "ours")
    written = [json.loads((tmp_path / name / "generation_config.json").read_text()) for name in ("theirs", "ours")]
    assert written[0] == written[1] and written[0]["temperature"] == 0.6
    read_back = [transformers.GenerationConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "ours")]
    assert read_back[0] == read_back[1] and read_back[0]["eos_token_id"] == [3, 5]


TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
TEXT = "The quick brown fox, 1234 foxes, naïve café 春天"
CHAT = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "a dog"}]


def save_tokenizer(tokenizer, folder, **options):
    """With everything that transformers writes next to it."""
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
                                                **options)  # fmt: skip
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return fast


def byte_level(corpus):
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, hf.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False))  # fmt: skip
    return tokenizer


def byte_fallback(corpus):
    """As in LLaMA 1 and 2, from SentencePiece: pieces with "▁" for a space, and bytes where there is no piece."""
    tokenizer = hf.Tokenizer(hf.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = hf.normalizers.Sequence([hf.normalizers.Prepend("▁"), hf.normalizers.Replace(" ", "▁")])
    tokenizer.decoder = hf.decoders.Sequence([hf.decoders.Replace("▁", " "), hf.decoders.ByteFallback(), hf.decoders.Fuse(),
                                              hf.decoders.Strip(" ", 1, 0)])  # fmt: skip
    tokenizer.train_from_iterator(corpus, hf.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))],
        show_progress=False))  # fmt: skip
    return tokenizer


def assert_same_tokenizer(folder, theirs):
    again = transformers.AutoTokenizer.from_pretrained(folder)
    assert again(TEXT)["input_ids"] == theirs(TEXT)["input_ids"]
    assert again.special_tokens_map == theirs.special_tokens_map
    assert again.apply_chat_template(CHAT)["input_ids"] == theirs.apply_chat_template(CHAT)["input_ids"]


def test_a_tokenizer_and_its_companions_survive(tmp_path):
    theirs = save_tokenizer(byte_level([TEXT] * 3), tmp_path / "theirs")
    pair("llama", tmp_path / "theirs", vocab_size=300)
    ours = tinyplm.load(tmp_path / "theirs")
    assert ours.tokenizer.encode(TEXT) == theirs(TEXT)["input_ids"]
    tinyplm.save(ours, tmp_path / "ours")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text()
    assert_same_tokenizer(tmp_path / "ours", theirs)


def test_texts_of_a_sentencepiece_tokenizer(tmp_path):
    theirs = save_tokenizer(byte_fallback([TEXT] * 3), tmp_path / "theirs")
    tinyplm.save(random_model("llama", vocab_size=400), tmp_path / "theirs")
    ours = tinyplm.load(tmp_path / "theirs").text_tokenizer()
    for text in (TEXT, "", " a  b", "春天 é\n\t😀"):
        assert ours.encode(text, add_special_tokens=True) == theirs(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs(text)["input_ids"])


def test_a_tokenizer_that_we_cannot_read_survives_bit_by_bit(tmp_path):
    tokenizer = byte_fallback([TEXT] * 3)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.UnicodeScripts()
    theirs = save_tokenizer(tokenizer, tmp_path / "theirs")
    tinyplm.save(random_model("llama", vocab_size=400), tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.model").write_bytes(bytes(range(256)))  # SentencePiece's own file
    warning = "loaded without its tokenizer: .*tokenizer.json: pre_tokenizer: type: .*, got 'UnicodeScripts'"
    with pytest.warns(UserWarning, match=warning):
        ours = tinyplm.load(tmp_path / "theirs")
    tinyplm.save(ours, tmp_path / "ours")
    before, after = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("theirs", "ours"))
    assert set(after) == set(before) and len(after) >= 6
    assert not [name for name in before if after[name] != before[name]]
    assert_same_tokenizer(tmp_path / "ours", theirs)
