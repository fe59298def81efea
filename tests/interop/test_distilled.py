# ruff: noqa: E402 - imports follow importorskip
"""DeepSeek-R1's distilled models, which are LLaMA and Qwen2 with DeepSeek's special tokens: whole folders as released, but tiny.

Their tokenizer_class is LlamaTokenizerFast, whatever the tokenizer.json: it is that of LLaMA-3 or of Qwen2, over bytes.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

import tinyplm
from tests.interop.pair import assert_bit_equal, assert_same, exact_logits
from tests.interop.test_whole_tokenizers import same, trained_there
from tests.interop.tokenizer_chains import hf
from tests.support.hard_strings import HARD
from tests.support.real_templates import DEEPSEEK
from tinyplm.tokenizers.chat.formats import encode, folder_template

BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
SPECIAL = [END, "<｜User｜>", "<｜Assistant｜>", BEGIN]
MORE = ["<think>", "</think>"]  # matched, but no special tokens

SIZES = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
COMMON = {"attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 131072,
          "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True}  # fmt: skip
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
          "rope_type": "llama3"}  # fmt: skip
MODELS = {
    "DeepSeek-R1-Distill-Llama-8B": ("LLaMA-3", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": LLAMA3, "rope_theta": 500000.0,
        "transformers_version": "4.43.0.dev0"}),
    "DeepSeek-R1-Distill-Qwen-1.5B": ("Qwen2", {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "max_window_layers": 21, "rms_norm_eps": 1e-06,
        "rope_theta": 10000, "sliding_window": 4096, "use_mrope": False, "use_sliding_window": False,
        "transformers_version": "4.44.0"}),
}  # fmt: skip


def added(token):
    return {"__type": "AddedToken", "content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


TOKENIZER = {
    "add_bos_token": True, "add_eos_token": False, "bos_token": added(BEGIN), "clean_up_tokenization_spaces": False,
    "eos_token": added(END), "legacy": True, "model_max_length": 16384, "pad_token": added(END), "sp_model_kwargs": {},
    "unk_token": None, "tokenizer_class": "LlamaTokenizerFast", "chat_template": DEEPSEEK,
}  # fmt: skip


@pytest.fixture(params=MODELS)
def released(request, tmp_path):
    """(folder, its settings, the library's tokenizer), with random weights of bfloat16."""
    chain, settings = MODELS[request.param]
    tokenizer = trained_there(chain)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([hf.AddedToken(token, normalized=False) for token in MORE])
    first = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = hf.processors.TemplateProcessing(f"{BEGIN} $A", f"{BEGIN} $A {BEGIN}:1 $B:1", [(BEGIN, first)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    ends = {"bos_token_id": first, "eos_token_id": tokenizer.token_to_id(END)}
    settings = {**COMMON, **settings, **SIZES, **ends, "vocab_size": tokenizer.get_vocab_size() + 3}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    generation = {"_from_model_config": True, **ends, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    tensors = {name: t.to(torch.bfloat16).contiguous() for name, t in theirs.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path, settings, tokenizer


def test_the_model(released, tmp_path):
    folder, settings, _ = released
    ours = tinyplm.load(folder)
    assert ours.config.MODEL_TYPE == settings["model_type"] and set(ours.file_dtypes.values()) == {"BF16"}
    ids = np.random.default_rng(0).integers(0, settings["vocab_size"], (2, 9))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    assert_same("logits", ours.astype("float64")(ids)[0]["logits"], exact_logits(theirs, ids))
    tinyplm.save(ours, tmp_path / "ours")
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "ours" / name).read_text()) == json.loads((folder / name).read_text())
    assert_bit_equal(load_file(tmp_path / "ours" / "model.safetensors"), load_file(folder / "model.safetensors"))


def test_the_tokenizer(released, tmp_path):
    """Its texts begin with the token that tokenizer.json says; it ends where generation_config.json says."""
    folder, settings, theirs = released
    ours = tinyplm.load(folder)
    assert ours.tokenizer.named == {"bos_token": BEGIN, "eos_token": END, "pad_token": END}
    assert ours.end_ids() == {settings["eos_token_id"]}
    for text in [*HARD, f"<think>\nno\n</think>{END}{BEGIN}<｜User｜>yes<｜Assistant｜>"]:
        same(ours.tokenizer, theirs, text)
    assert ours.tokenizer.encode("hi", add_special_tokens=True)[0] == settings["bos_token_id"]
    tinyplm.save(ours, tmp_path / "ours")
    same(tinyplm.load(tmp_path / "ours").tokenizer, theirs, "hi 春天")


def test_the_chat(released):
    """As transformers renders and cuts it, without the thoughts of earlier answers.

    It takes the class from the repository's name, too: LlamaTokenizer itself would cut as LLaMA-2 does.
    """
    folder, _, _ = released
    ours, theirs = tinyplm.load(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    chat = folder_template(ours.files)
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "<think>\n2 + 2\n</think>4"}, {"role": "user", "content": "Sure?"}]  # fmt: skip
    text = chat.render(talk, True)
    assert text == f"{BEGIN}Be brief.<｜User｜>2 + 2?<｜Assistant｜>4{END}<｜User｜>Sure?<｜Assistant｜><think>\n"
    assert theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == text
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    assert encode(ours.tokenizer, chat, talk) == ids == ours.tokenizer.encode(text, True, False)
