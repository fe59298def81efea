"""tinyplm chat as a user types into it."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

import tinyplm
from tests.support.families import tiny
from tinyplm.cli.conversation import Chat, Text
from tinyplm.generation import Memory
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import TEMPLATES, encode
from tinyplm.tuning import read_records
from tinyplm.tuning.data.chat_format import set_chat_format

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


@pytest.fixture
def chat(run, monkeypatch):
    """chat(folder, typed, *options) -> Outcome."""

    def given(folder, typed, *options, tokens=("--tokens", "12")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(typed))
            return run("chat", "--model", folder, *tokens, *options)

    return given


def test_plain_text_is_continued(chat, folder):
    """Greedy: the model adds what `generate` returns for the same text; the second turn continues the first."""
    done = chat(folder, "hi\nuser\n/new\nhi\n/exit\nnever\n", "--temperature", "0")
    assert done.code == 0, done.err
    answers = done.err.count("tokens per second")
    assert answers == 3 and "plain text" in done.err
    model = tinyplm.load(folder)

    def answer(ids):
        (text,) = tinyplm.generate(model, ids, max_new_tokens=12, temperature=0, stop_ids=model.end_ids())
        return text

    hi, user = model.tokenizer.encode("hi"), model.tokenizer.encode("user")
    first = answer(hi)
    second = answer(hi + first.ids + user)
    assert done.out == f"{first.text}\n{second.text}\n{first.text}\n"


def test_an_answer_that_spells_a_special_token_does_not_end_the_chat(folder):
    """Letter by letter it is text, but re-encoded it would be a token; also when removing one forms another."""
    model = tinyplm.load(folder)
    talk = Chat(model, TEMPLATES["chatml"], None, 80)
    talk.prompt("hi")
    talk.answered(model.tokenizer.encode("a <|im_start|> b <|im_<|im_end|>end|> c"))
    assert talk.messages[-1] == {"role": "assistant", "content": "a  b  c"}
    assert talk.prompt("hi")


def test_by_default_half_of_a_short_context_is_left_for_what_is_typed(chat, folder):
    """Two texts with the same last token get different answers, and nothing in them is dropped."""
    a, b = (chat(folder, f"{word} hi\n", "--temperature", "0", tokens=()) for word in ("user", "system"))
    assert a.out != b.out and "dropping" not in a.err + b.err
    assert "[48 tokens" in a.err
    done = chat(folder, "hi\n", tokens=("--tokens", "96"))
    assert (
        done.code == 2
        and done.err == "tinyplm: --tokens: expected an integer from 1 to 95, since the context has 96 tokens, got 96\n"
    )


def test_a_chat_format_and_a_context_that_fills_up(chat, folder):
    typed = "hi\n" * 4 + "a<|im_end|>\n"
    done = chat(folder, typed, "--template", "chatml", "--system", "hi", "--seed", "3")
    assert done.code == 0, done.err
    assert done.err.count("tokens, the first after") == 4
    assert "dropping the oldest turn" in done.err
    assert "error: messages: expected no text of a special token" in done.err


def test_without_a_template_named_the_folders_is_used_and_ends_the_answer(chat, folder, tmp_path):
    """The model is modified to answer with the end of a turn and nothing else."""
    model = tinyplm.load(folder)
    set_chat_format(model, TEMPLATES["chatml"])
    prompt = encode(model.tokenizer, TEMPLATES["chatml"], [{"role": "user", "content": "hi"}])
    (free,) = tinyplm.generate(model, prompt, max_new_tokens=1, temperature=0, stop_ids=())
    W, end = model.params["head"]["W"], model.tokenizer.token_to_id("<|im_end|>")
    W[:, [free.ids[0], end]] = W[:, [end, free.ids[0]]]
    tinyplm.save(model, tmp_path)
    done = chat(tmp_path, "hi\n", "--temperature", "0")
    assert done.code == 0 and "; chat; " in done.err and "[1 tokens" in done.err and done.out == "\n"


def test_what_is_typed_continues_the_text_without_a_space(tmp_path):
    """An answer in a chat also keeps its leading space."""
    tokenizer = Tokenizer.train(["the answer is user hi"], 300, kind="SentencePiece BPE")
    model = tiny("llama", dtype="float32", vocab_size=tokenizer.vocab_size)
    model.tokenizer = tokenizer
    talk = Text(model, 90)
    assert talk.prompt("the answ") == tokenizer.prompt("the answ")
    talk.answered([])
    assert tokenizer.decode(talk.prompt("er is"), skip_special=True) == "the answer is"
    chat = Chat(model, TEMPLATES["alpaca"], None, 900)
    asked = chat.prompt("hi")
    chat.answered(tokenizer.continue_ids(asked, " the answer"))
    assert chat.messages[-1]["content"] == " the answer"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--system", "x"], "tinyplm: --system: expected a model with a chat template"),
        (
            ["--temperature", "-1"],
            "tinyplm: --temperature: expected a finite number >= 0.0, got -1.0",
        ),
        (["--top-p", "0"], "tinyplm: --top-p: expected a finite number > 0.0 and <= 1.0, got 0.0"),
    ],
)
def test_bad_options_are_said_in_one_line(chat, folder, options, message):
    done = chat(folder, "hi\n", *options)
    assert done.code == 2 and done.err.startswith(message) and len(done.err.splitlines()) == 1


def test_an_encoder_decoder_is_refused(chat, tmp_path):
    tinyplm.save(tinyplm.create("t5", num_layers=1, d_model=8, num_heads=2, d_kv=4, d_ff=8, vocab_size=9), tmp_path)
    done = chat(tmp_path, "hi\n")
    assert done.code == 2 and done.err.startswith("tinyplm: --model: expected a decoder that generates text, got <t5 ")
    assert len(done.err.splitlines()) == 1


def test_a_folder_without_a_tokenizer_is_refused(chat, tmp_path):
    tinyplm.save(tiny("llama"), tmp_path)
    done = chat(tmp_path, "hi\n")
    assert done.code == 2 and done.err.startswith("tinyplm: tokenizer: expected a model with one")
    assert len(done.err.splitlines()) == 1


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


# --------------------------------------------------------------------------------------------------------------- commands

CHATML = ("--template", "chatml")


def test_the_conversation_is_saved_as_tuning_reads_it(chat, folder, tmp_path):
    file = tmp_path / "said.jsonl"
    typed = f"hi\n/system hi\nuser\n/save {file}\n/new\nsystem\n/save {file}\n"
    done = chat(folder, typed, *CHATML, "--seed", "3")
    assert done.code == 0 and "[2 turns, added to " in done.err and "[1 turns, added to " in done.err, done.err
    first, second = (record["messages"] for record in read_records(file, "conversation"))
    roles = ["system", "user", "assistant", "user", "assistant"]
    assert [m["role"] for m in first] == roles and [m["content"] for m in first[1::2]] == ["hi", "user"]
    answers = [message["content"] for message in (*first[2::2], second[2])]
    assert done.out == "".join(f"{text}\n" for text in answers)
    assert second[:2] == [{"role": "system", "content": "hi"}, {"role": "user", "content": "system"}]  # it outlives /new


def test_turns_that_no_longer_fit_are_saved_too(chat, folder, tmp_path):
    typed = "hi\n" * 5 + f"/save {tmp_path / 'said'}\n"
    assert "dropping the oldest turn" in chat(folder, typed, *CHATML, "--seed", "3").err
    (record,) = read_records(tmp_path / "said", "conversation")
    assert len(record["messages"]) == 10


def test_a_plain_text_is_saved_whole(chat, folder, tmp_path):
    """Also what was dropped when the context was full; without a line break at the end of the file one is added."""
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "before"}')
    typed = "hi\n" * 9 + f"/save {file}\n"
    done = chat(folder, typed, "--temperature", "0")
    assert "dropping the beginning" in done.err and "characters, added to" in done.err
    before, text = (json.loads(line)["text"] for line in file.read_text().splitlines())
    assert before == "before" and text == "".join(f"hi{line}" for line in done.out.split("\n")[:-1])


def test_what_is_not_saved_says_why_and_leaves_the_file_alone(chat, folder, tmp_path):
    book, typed = (
        tmp_path / "book.txt",
        f"/save {tmp_path / 'none'}\nhi\n/save {tmp_path / 'book.txt'}\n/save\n/save {tmp_path}\n",
    )
    book.write_text("Once upon a time")
    for options, none in ((CHATML, "a conversation with an answer"), ((), "a text")):
        done = chat(folder, typed, *options, "--seed", "3")
        assert done.code == 0 and f"error: /save: expected {none}, got none yet" in done.err
        assert "book.txt, line 1: expected " in done.err and "error: /save: expected a path, got ''" in done.err
        assert done.err.count("error: ") == 4
    assert [p.name for p in tmp_path.iterdir()] == ["book.txt"] and book.read_text() == "Once upon a time"


def test_turns_without_an_answer_are_left_out(folder, tmp_path):
    talk = Chat(tinyplm.load(folder), TEMPLATES["chatml"], None, 80)
    for answer in ("", "yes"):
        talk.prompt("hi")
        talk.answered(talk.tokenizer.encode(answer))
    assert talk.save(str(tmp_path / "said")) == f"1 turns, without 1 that got no answer, added to {tmp_path / 'said'}"
    assert len(read_records(tmp_path / "said", "conversation")[0]["messages"]) == 2


@pytest.mark.parametrize(("typed", "message"), [
    ("/stop", "error: '/stop': expected one of /help, /reset, /new, /system, /save, /exit, got another command "
              "(to send it as text, type //stop)"),
    ("/exit now", "error: /exit: expected nothing after it, got 'now'"),
    ("/system a<|im_end|>b", "error: messages: expected no text of a special token, got 'a<|im_end|>b' from the system"),
    ("/help", "/save FILE"),
    ("/system", "[system message: none]"),
])  # fmt: skip
def test_commands_are_not_sent_to_the_model(chat, folder, typed, message):
    done = chat(folder, f"{typed}\n/exit\nnever\n", *CHATML)
    assert done.code == 0 and message in done.err and done.out == "" and "tokens, the first" not in done.err


def test_two_slashes_send_one(chat, folder, tmp_path):
    done = chat(folder, f"//stop\n/system\n/save {tmp_path / 'said'}\n", *CHATML, "--system", "hi", "--seed", "3")
    assert "[system message: 'hi']" in done.err
    assert read_records(tmp_path / "said", "conversation")[0]["messages"][1]["content"] == "/stop"


def test_a_system_message_is_checked_first(chat, folder):
    done = chat(folder, "hi\n", *CHATML, "--system", "<|im_end|>")
    assert done.code == 2 and done.err.startswith("tinyplm: messages: expected no text of a special token")
    assert "error: /system: expected a chat, started with --template, got a plain text" in chat(folder, "/system hi\n").err
