"""What the commands of tuning refuse: one line, before any work, with nothing written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import tinyplm
from tests.cli.own import INSTRUCTIONS, JUDGED, LABELLED, PAIRS, PROMPTS, WORDS, decoder, encoder, lines
from tests.support.scripts import assert_one_line
from tinyplm.tokenizers.chat import TEMPLATES
from tinyplm.tuning import set_chat_format

# a template that shows answers nowhere
UNMARKED = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
REWARDS = """
def nan(answer):
    return float("nan")

def broken(answer, record):
    return 1 / 0
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder with models and data of all kinds; only read."""
    folder = tmp_path_factory.mktemp("own")
    decoder(folder / "base")
    decoder(folder / "endless", end=None)
    encoder(folder / "encoder")
    chat = tinyplm.load(folder / "base")
    set_chat_format(chat, TEMPLATES["chatml"], add_tokens=True)
    tinyplm.save(chat, folder / "chat")
    unmarked = decoder(folder / "unmarked")
    (unmarked / "chat_template.jinja").write_text(UNMARKED)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/tokenizer.json").write_bytes((folder / "base/tokenizer.json").read_bytes())
    (folder / "adapter").mkdir()
    (folder / "adapter/adapter.json").write_text("{}")
    (folder / "several/a").mkdir(parents=True)
    (folder / "several/a/latest").write_text("step-1\n")
    (folder / "several/run.json").write_text("{}")
    (folder / "reward.py").write_text(REWARDS)
    (folder / "text.txt").write_text("\n\n".join(f"Some text about {word}." for word in WORDS * 9))
    (folder / "typo.toml").write_text("bach = 3\n")
    kinds = {
        "ins": INSTRUCTIONS,
        "pairs": PAIRS,
        "judged": JUDGED,
        "prompts": PROMPTS,
        "labelled": LABELLED,
        "one": INSTRUCTIONS[:1],
        "one-class": [{**record, "label": "a"} for record in LABELLED],
        "one-list": [{**record, "label": ["a"]} for record in LABELLED],
        "numbers-too": [{**record, "label": 0.5} if n else record for n, record in enumerate(LABELLED)],
        "lists-too": [{**record, "label": ["a"]} if n else record for n, record in enumerate(LABELLED)],
    }
    for name, records in kinds.items():
        lines(folder / f"{name}.jsonl", records)
    forged = [*INSTRUCTIONS[:2], {"instruction": "<|im_end|>", "output": "a"}]
    lines(folder / "forged.jsonl", forged)
    return folder


# {what is wrong: (the command line; words of the message)}
REFUSED = {
    "no data": ("sft --model base", "--data: expected a value"),
    "no model": ("sft --data ins.jsonl", "--model: expected a value"),
    "pairs for sft": ("sft --model base --data pairs.jsonl", "pairs.jsonl, line 1: expected a record of kind instruction"),
    "instructions for dpo": ("dpo --model chat --data ins.jsonl", "kind preference"),
    "pairs for kto": ("dpo --model chat --data pairs.jsonl --loss kto", "kind feedback"),
    "smoothing of kto": ("dpo --model chat --data judged.jsonl --loss kto --smoothing 0.1",
                         "--smoothing: expected none with --loss kto", "got one"),
    "margin of dpo": ("dpo --model chat --data pairs.jsonl --margin 0.5", "--margin: expected none with --loss dpo", "got one"),
    "prompts for reward": ("reward --model chat --data prompts.jsonl", "kind preference"),
    "labels for grpo": ("grpo --model chat --data labelled.jsonl --reward exact", "kind prompt"),
    "pairs for finetune": ("finetune --model encoder --data pairs.jsonl", "kind classification"),
    "one class": ("finetune --model encoder --data one-class.jsonl", "--data: expected two or more different labels, got ['a']"),
    "one class in lists": ("finetune --model encoder --data one-list.jsonl", "--data: expected two or more different labels"),
    "names and numbers": ("finetune --model encoder --data numbers-too.jsonl", "--data: expected names or numbers as label"),
    "lists and names": ("finetune --model encoder --data lists-too.jsonl", "--data: expected one label in each record, or a"),
    "one record": ("sft --model base --data one.jsonl", "one.jsonl: expected two or more different prompts", "--validation-data"),
    "one held out": ("dpo --model chat --data judged.jsonl --loss kto", "--validation: expected two or more held-out answers"),
    "forged turn": ("sft --model chat --data forged.jsonl", "forged.jsonl, record 3: messages: expected no text"),
    "an adapter": ("sft --model adapter --data ins.jsonl", "an adapter"),
    "a tokenizer": ("sft --model tokenizer --data ins.jsonl", "a tokenizer alone"),
    "several models": ("sft --model several --data ins.jsonl", "one of several models"),
    "no folder": ("sft --model nowhere --data ins.jsonl", "--model: expected", "nowhere"),
    "a family": ("sft --model llama --data ins.jsonl", "pretrain it first"),
    "an encoder": ("sft --model encoder --data ins.jsonl", "--model: expected a decoder"),
    "an encoder as policy": ("grpo --model encoder --data prompts.jsonl --reward exact", "--model: expected a decoder"),
    "an encoder's score": ("reward --model encoder --data pairs.jsonl", "--model: expected a decoder"),
    "no marks": ("sft --model unmarked --data ins.jsonl", "template: expected one"),
    "no marks, pairs": ("dpo --model unmarked --data pairs.jsonl", "template: expected one"),
    "no reward": ("grpo --model chat --data prompts.jsonl", "--reward: expected a rule, or --reward-model, got neither"),
    "unknown reward": ("grpo --model chat --data prompts.jsonl --reward exat", "--reward: expected one of exact"),
    "reward nan": ("grpo --model chat --data prompts.jsonl --tokens 4 --reward reward.py:nan", "got nan", "prompt"),
    "reward raises": ("ppo --model chat --data prompts.jsonl --tokens 4 --reward reward.py:broken", "ZeroDivisionError", "pro"),
    "no score": ("ppo --model chat --data prompts.jsonl --tokens 4 --reward-model chat", "expected a model made by"),
    "long answers": ("grpo --model chat --data prompts.jsonl --reward exact --tokens 60", "--tokens: expected at most", "got 60"),
    "another vocabulary": ("distill --teacher chat --model endless --data ins.jsonl", "--model: expected the vocabulary of"),
    "no format": ("distill --teacher base --model base --data ins.jsonl", "--teacher: expected a model with a chat format"),
    "data and text": ("distill --teacher chat --model base --data ins.jsonl --text text.txt", "--data: expected a file", "both"),
    "size of a folder": ("distill --teacher chat --model base --size tiny --data ins.jsonl", "--size: expected none"),
    "a new encoder": ("distill --teacher chat --model bert --data ins.jsonl", "--model: expected a decoder"),
    "no answer ends": ("distill --teacher chat --model gpt2 --data prompts.jsonl --tokens 1 --answers 1", "end within 1"),
    "two validations": ("sft --model base --data ins.jsonl --validation 0.2 --validation-data ins.jsonl", "no share"),
    "another kind to validate": ("sft --model base --data ins.jsonl --validation-data pairs.jsonl", "pairs.jsonl, line 1"),
    "micro-batch": ("sft --model base --data ins.jsonl --batch 2 --micro-batch 3", "--micro-batch: expected"),
    "packed": ("sft --model base --data ins.jsonl --packed 65", "--packed: expected"),
    "plain conversations": ("sft --model base --data forged.jsonl --template latin", "--template: expected one of"),
    "unknown key": ("sft --model base --data ins.jsonl --config typo.toml", "typo.toml: expected options of", "'bach'"),
    "endless": ("pretrain --model endless --text text.txt", "--model: expected a tokenizer with an end token"),
    "pretrain an encoder": ("pretrain --model encoder --text text.txt", "--model: expected a decoder"),
    "size of a given model": ("pretrain --model base --text text.txt --size tiny", "--size: expected none, since base has"),
    "missing text": ("pretrain --model base --text missing.txt", "missing.txt"),
    "extend a new run": ("pretrain --model base --text text.txt --extend stretch", "--extend: expected none without --resume"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_and_nothing_written(run, own, tmp_path, monkeypatch, name):
    monkeypatch.chdir(own)
    line, *words = REFUSED[name]
    assert_one_line(run(*line.split(), "--out", str(tmp_path / "out")), *words)
    assert not (tmp_path / "out").exists()


COMMANDS = ("sft --model base", "dpo --model chat", "reward --model chat", "finetune --model encoder",
            "grpo --reward exact --model chat", "distill --teacher chat --model base")  # fmt: skip


@pytest.mark.parametrize("start", COMMANDS)
def test_a_bad_line_of_ten_thousand_is_named_before_any_work(run, own, tmp_path, monkeypatch, start):
    """The time is the processor's, of this process: in a new one its start comes to it, about a second."""
    monkeypatch.chdir(own)
    name = start.split()[0]
    good = {"sft": INSTRUCTIONS, "dpo": PAIRS, "reward": PAIRS, "finetune": LABELLED, "grpo": PROMPTS, "distill": INSTRUCTIONS}[
        name
    ]
    rows = [dict(record) for record in (good * 1300)[:10_000]]
    rows[9876] = {"other": 1}
    file = lines(tmp_path / "long.jsonl", rows)
    begin = time.process_time()
    assert_one_line(run(*start.split(), "--data", str(file), "--out", str(tmp_path / "out")), "long.jsonl, line 9877: ")
    assert time.process_time() - begin < 2
    assert not (tmp_path / "out").exists()
