"""examples/chat.py run as a command."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.support.families import tiny
from tinyplm.generation import Memory
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import (
    TEMPLATES,
    encode,
)
from tinyplm.tuning.data.chat_format import set_chat_format

ROOT = Path(__file__).parents[2]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny LLaMA with a tokenizer that has ChatML's tokens."""
    path = tmp_path_factory.mktemp("chat")
    tokenizer = Tokenizer.train(["user system assistant hi"], 270, SPECIAL)
    model = tiny("llama", dtype="float32", vocab_size=tokenizer.vocab_size, max_position_embeddings=96)
    model.tokenizer = tokenizer
    tinyplm.save(model, path)
    return path


def chat(folder, typed, *options, tokens=("--tokens", "12")):
    command = [sys.executable, str(ROOT / "examples" / "chat.py"), str(folder), *tokens, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, input=typed, env=environment, capture_output=True, encoding="utf-8", timeout=120)


def test_plain_text_is_continued(folder):
    """Greedy: the model adds what `generate` returns for the same text; the second turn continues the first."""
    done = chat(folder, "hi\nuser\n/new\nhi\n/exit\nnever\n", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    answers = done.stderr.count("tokens per second")
    assert answers == 3 and "plain text" in done.stderr
    model = tinyplm.load(folder)

    def answer(ids):
        (text,) = tinyplm.generate(model, ids, max_new_tokens=12, temperature=0, stop_ids=model.end_ids())
        return text

    hi, user = model.tokenizer.encode("hi"), model.tokenizer.encode("user")
    first = answer(hi)
    second = answer(hi + first.ids + user)
    assert done.stdout == f"{first.text}\n{second.text}\n{first.text}\n"


def test_an_answer_that_spells_a_special_token_does_not_end_the_chat(folder, monkeypatch):
    """Letter by letter it is text, but re-encoded it would be a token; also when removing one forms another."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "generate", raising=False)
    model = tinyplm.load(folder)
    talk = runpy.run_path(str(ROOT / "examples" / "chat.py"))["Chat"](model, TEMPLATES["chatml"], None, 80)
    talk.prompt("hi")
    talk.answered(model.tokenizer.encode("a <|im_start|> b <|im_<|im_end|>end|> c"))
    assert talk.messages[-1] == {"role": "assistant", "content": "a  b  c"}
    assert talk.prompt("hi")


def test_by_default_half_of_a_short_context_is_left_for_what_is_typed(folder):
    """Two texts with the same last token get different answers, and nothing in them is dropped."""
    a, b = (chat(folder, f"{word} hi\n", "--temperature", "0", tokens=()) for word in ("user", "system"))
    assert a.stdout != b.stdout and "dropping" not in a.stderr + b.stderr
    assert "[48 tokens" in a.stderr
    done = chat(folder, "hi\n", tokens=("--tokens", "96"))
    assert (
        done.returncode == 1
        and done.stderr == "error: --tokens: expected an integer from 1 to 95, since the context has 96 tokens, got 96\n"
    )


def test_a_chat_format_and_a_context_that_fills_up(folder):
    typed = "hi\n" * 4 + "a<|im_end|>\n"
    done = chat(folder, typed, "--template", "chatml", "--system", "hi", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tokens, the first after") == 4
    assert "dropping the oldest turn" in done.stderr
    assert "error: messages: expected no text of a special token" in done.stderr


def test_without_a_template_named_the_folders_is_used_and_ends_the_answer(folder, tmp_path):
    """The model is modified to answer with the end of a turn and nothing else."""
    model = tinyplm.load(folder)
    set_chat_format(model, TEMPLATES["chatml"])
    prompt = encode(model.tokenizer, TEMPLATES["chatml"], [{"role": "user", "content": "hi"}])
    (free,) = tinyplm.generate(model, prompt, max_new_tokens=1, temperature=0, stop_ids=())
    W, end = model.params["head"]["W"], model.tokenizer.token_to_id("<|im_end|>")
    W[:, [free.ids[0], end]] = W[:, [end, free.ids[0]]]
    tinyplm.save(model, tmp_path)
    done = chat(tmp_path, "hi\n", "--temperature", "0")
    assert done.returncode == 0 and "; chat; " in done.stderr and "[1 tokens" in done.stderr and done.stdout == "\n"


def test_what_is_typed_continues_the_text_without_a_space(tmp_path, monkeypatch):
    """An answer in a chat also keeps its leading space."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "generate", raising=False)
    tokenizer = Tokenizer.train(["the answer is user hi"], 300, kind="SentencePiece BPE")
    model = tiny("llama", dtype="float32", vocab_size=tokenizer.vocab_size)
    model.tokenizer = tokenizer
    example = runpy.run_path(str(ROOT / "examples" / "chat.py"))
    talk = example["Text"](model, 90)
    assert talk.prompt("the answ") == tokenizer.prompt("the answ")
    talk.answered([])
    assert tokenizer.decode(talk.prompt("er is"), skip_special=True) == "the answer is"
    chat = example["Chat"](model, TEMPLATES["alpaca"], None, 900)
    asked = chat.prompt("hi")
    chat.answered(tokenizer.continue_ids(asked, " the answer"))
    assert chat.messages[-1]["content"] == " the answer"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--system", "x"], "error: --system: expected a model with a chat template"),
        (
            ["--temperature", "-1"],
            "error: --temperature: expected a finite number >= 0.0, got -1.0",
        ),
        (["--top-p", "0"], "error: --top-p: expected a finite number > 0.0 and <= 1.0, got 0.0"),
    ],
)
def test_bad_options_are_said_in_one_line(folder, options, message):
    done = chat(folder, "hi\n", *options)
    assert done.returncode == 1 and done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1


def test_an_encoder_decoder_is_refused(tmp_path):
    tinyplm.save(tinyplm.create("t5", num_layers=1, d_model=8, num_heads=2, d_kv=4, d_ff=8, vocab_size=9), tmp_path)
    done = chat(tmp_path, "hi\n")
    assert done.returncode == 1 and done.stderr.startswith("error: model: expected a decoder that generates text, got <t5 ")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    tinyplm.save(tiny("llama"), tmp_path)
    done = chat(tmp_path, "hi\n")
    assert done.returncode == 1 and done.stderr.startswith("error: tokenizer: expected a model with one")
    assert len(done.stderr.splitlines()) == 1


def test_memory_gives_the_same_as_no_memory():
    """The second prompt shares a prefix with the first text: only the rest is computed, with the same result."""
    model, memory = tiny("llama", max_position_embeddings=64), Memory()
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 11, 6).tolist()
    for turn in range(4):
        options = {"max_new_tokens": 5, "seed": turn}
        (kept,) = tinyplm.generate(model, prompt, memory=memory, **options)
        (fresh,) = tinyplm.generate(model, prompt, **options)
        assert kept.ids == fresh.ids
        np.testing.assert_allclose(kept.log_probabilities, fresh.log_probabilities, rtol=0, atol=1e-10)
        assert memory.ids == (prompt + kept.ids)[:-1] and memory.cache.length == len(memory.ids)
        keep = len(prompt) + (5 if turn < 2 else -2)  # the third turn drops some tokens
        prompt = (prompt + kept.ids)[:keep] + rng.integers(0, 11, 3).tolist()
    with pytest.raises(ValueError, match="memory: expected one prompt and one sample, got 1 and 2"):
        tinyplm.generate(model, prompt, memory=memory, samples=2, max_new_tokens=1)
