# ruff: noqa: E402 - imports follow importorskip
"""A chat model made from a folder of transformers stops in both libraries; tools are rendered as transformers renders them."""

from __future__ import annotations

import json

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import tinyplm
from tests.tokenizers.chat.test_tools import ADD, CALLS, MISTRAL_LIKE, SPECIAL, TALKS, TEMPLATES_WITH_TOOLS
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat import TEMPLATES, encode, folder_template
from tinyplm.tuning import SFTSettings, conversations, set_chat_format, sft, with_tokens

WORDS = ["red", "blue", "green", "pink"]
RECORDS = [{"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": f"What follows {word}?"},
                         {"role": "assistant", "content": WORDS[(n + 1) % len(WORDS)]},
                         {"role": "user", "content": f"And what is {word}?"}, {"role": "assistant", "content": "A colour."}]}
           for n, word in enumerate(WORDS)]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 with its tokenizer, as transformers saves them."""
    path = tmp_path_factory.mktemp("gpt2")
    made = tokenizers.ByteLevelBPETokenizer()
    texts = [message["content"] for record in RECORDS for message in record["messages"]]
    made.train_from_iterator([*texts, "user assistant system"] * 3, vocab_size=330, special_tokens=["<|endoftext|>"])
    transformers.GPT2TokenizerFast(tokenizer_object=made._tokenizer).save_pretrained(path)
    size = made.get_vocab_size() + 1  # a row that no token has
    end = made.token_to_id("<|endoftext|>")
    config = transformers.GPT2Config(vocab_size=size, n_positions=128, n_embd=32, n_layer=1, n_head=2, bos_token_id=end,
                                     eos_token_id=end)  # fmt: skip
    transformers.set_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


def test_a_gpt2_of_transformers_is_tuned_and_stops(folder, tmp_path):
    template, model = TEMPLATES["chatml"], tinyplm.load(folder)
    before, old = model.params["body"]["tokens"], len(model.tokenizer)
    with pytest.raises(ValueError, match=r"^tokenizer: expected a vocabulary with <\|im_start\|>, <\|im_end\|> \(add_tokens"):
        set_chat_format(model, template)
    set_chat_format(model, template, add_tokens=True)
    table, end = model.params["body"]["tokens"], model.tokenizer.token_to_id("<|im_end|>")
    assert end == old + 1 and len(table) == old + 2 == model.config.vocab_size == len(before) + 1
    assert (table[:old] == before[:old]).all() and np.allclose(table[old:], before[:old].mean(axis=0), atol=1e-7)
    data = conversations(model.tokenizer, template, RECORDS)
    settings = SFTSettings(steps=200, batch_size=4, learning_rate=2e-2, warmup=5)
    result = sft(model, data.sequences, settings, progress=False, out=tmp_path)
    assert result.history[-1]["loss"] < 0.1
    final = tmp_path / "final"
    assert json.loads((final / "generation_config.json").read_text())["eos_token_id"] == [model.tokenizer.eos_id, end]
    assert (final / "chat_template.jinja").read_text() == template.source

    ours, theirs = tinyplm.load(final), transformers.AutoModelForCausalLM.from_pretrained(final)
    peer = transformers.AutoTokenizer.from_pretrained(final)
    assert theirs.get_input_embeddings().weight.shape[0] == old + 2
    for record in RECORDS:
        for k in (2, 4):
            asked, answer = record["messages"][:k], record["messages"][k]["content"]
            prompt = encode(ours.tokenizer, folder_template(ours.files), asked)
            inputs = peer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            assert inputs["input_ids"][0].tolist() == prompt
            (found,) = tinyplm.generate(ours, prompt, max_new_tokens=20, temperature=0)
            written = theirs.generate(**inputs, max_new_tokens=20, do_sample=False)[0].tolist()
            assert found.finished == "stop" and found.text == answer
            assert written == [*prompt, *found.ids, end]
            assert peer.decode(written[len(prompt) :], skip_special_tokens=True) == answer
            *pieces, last = (piece for (piece,) in tinyplm.stream(ours, prompt, max_new_tokens=20, temperature=0))
            assert last.finished == "stop" and "".join(piece.text for piece in [*pieces, last]) == answer


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_tokens_are_added_to_older_folders(folder, tmp_path, tied, listed):
    """Of vocab.json and merges.txt, where tokenizer_config.json may list the added tokens: transformers then reads those."""
    old = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    old.model.save(str(tmp_path))
    end = {
        "content": "<|endoftext|>",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"added_tokens_decoder": {"0": end}} if listed else config)
    )
    sizes = {"n_positions": 64, "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": old.get_vocab_size()}
    made = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied)
    transformers.GPT2LMHeadModel(made).save_pretrained(tmp_path)
    model = tinyplm.load(tmp_path)
    with_more, talk = with_tokens(model, ["<|im_start|>", "<|im_end|>"]), RECORDS[0]["messages"][:2]
    assert len(model.params["body"]["tokens"]) == old.get_vocab_size() == len(model.tokenizer)  # unchanged
    set_chat_format(with_more, TEMPLATES["chatml"])
    tinyplm.save(with_more, tmp_path / "more")
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "more")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "more")
    inputs = peer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = encode(with_more.tokenizer, TEMPLATES["chatml"], talk)
    assert inputs["input_ids"][0].tolist() == ids and ids.count(len(model.tokenizer)) == 3
    logits = theirs(**inputs).logits.detach().numpy()
    assert np.allclose(with_more([ids])[0]["logits"], logits, atol=1e-5)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(["user system assistant hi"], 275, SPECIAL).save(path)
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), bos_token=SPECIAL[0],
                                                eos_token=SPECIAL[2])  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES_WITH_TOOLS)
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("tools", [None, [ADD]], ids=["no tools", "tools"])
def test_tools_are_rendered_as_by_transformers(peer, tmp_path, name, talk, tools):
    peer.chat_template = TEMPLATES_WITH_TOOLS[name]
    peer.save_pretrained(tmp_path)
    template, ours = folder_template({f.name: f.read_bytes() for f in tmp_path.iterdir()}), Tokenizer.load(tmp_path)
    messages = TALKS[talk]
    for stop in range(1, len(messages) + 1):
        part = messages[:stop]
        if part[-1]["role"] == "system":
            continue
        prompt = part[-1]["role"] != "assistant"
        text = peer.apply_chat_template(part, tools=tools, tokenize=False, add_generation_prompt=prompt)
        expected = peer(text, add_special_tokens=False)["input_ids"]
        assert encode(ours, template, part, prompt, tools=tools) == expected


def test_arguments_as_text(peer, tmp_path):
    """A template that prints arguments as they are gets the same text."""
    peer.chat_template = MISTRAL_LIKE.replace("arguments | tojson", "arguments")
    peer.save_pretrained(tmp_path)
    template = folder_template({f.name: f.read_bytes() for f in tmp_path.iterdir()})
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a":  2}'}}
    messages = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": None, "tool_calls": [call, CALLS[0]]}]
    text = peer.apply_chat_template(messages, tokenize=False)
    assert template.render(messages, False) == text and '{"a":  2}' in text
