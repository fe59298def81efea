"""Fine-tune a decoder on instructions or conversations: only the assistant's words are learned.

    tinyplm sft --model gpt2-folder --data my.jsonl --out out-sft
    tinyplm chat --model out-sft
    tinyplm sft --model out-sft --data more.csv --lora 8 --out out-more

A record is {"instruction": ..., "input": ..., "output": ...} or {"messages": [{"role": "user",
"content": ...}, {"role": "assistant", "content": ...}]}; also {"conversations": [{"from": "human",
"value": ...}, ...]}.  The folder gets the chat format with its end of turn, so that it stops in
tinyplm chat and in transformers.
"""

from __future__ import annotations

import argparse

from ..arguments import mismatch
from ..tuning import SFTSettings, conversations, plain, prompt_ids, sft
from ..tuning.data.conversations import Encoded, shortened
from .folders import run_folder, stopped
from .parser import Parser, whole
from .tuning import (
    adapter,
    answer_options,
    answers,
    as_talks,
    count_parts,
    curves,
    data_options,
    last_user,
    open_chat,
    read_data,
    settings_of,
    show_result,
    show_samples,
    training_options,
    tuned_model,
    validation_table,
)

COMMAND = "sft"


def add(parser: Parser) -> None:
    data_options(parser, "instructions or conversations")
    training_options(parser, SFTSettings, "out-sft", steps=300, learning_rate=1e-4)
    parser.section("samples")
    text = "Pack several conversations into rows of N tokens."
    parser.option("--packed", None, text, whole(1), shown="one row each")
    answer_options(parser)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(SFTSettings, options)
    data = read_data(options, ("instruction", "conversation"))
    if options.template == "none" and data.kind != "instruction":
        raise mismatch("--template", "a chat format, since --data holds conversations", "none")
    model, template = open_chat(options)
    tokenizer, context = model.text_tokenizer(), model.config.context
    talks = as_talks(data)

    def encoded(part: int) -> Encoded:
        own = talks.parts[part]
        if template is not None:
            return conversations(tokenizer, template, own, max_length=context)
        rows = [
            (last_user(talk["messages"]), r["output"]) for talk, r in zip(own, data.parts[part])
        ]
        return shortened([plain(tokenizer, f"{text}\n", answer) for text, answer in rows], context)

    training, held_out = encoded(0), encoded(1)
    cut, dropped = (getattr(training, n) + getattr(held_out, n) for n in ("cut", "dropped"))
    note = f"; {cut} truncated to the context, {dropped} dropped"
    count_parts("conversations", training.sequences, held_out.sequences, note)
    shown = talks.held_out[: options.samples]
    asked = [talk["messages"][: first_answer(talk)] for talk in shown]
    if template is None:
        prompts = [prompt_ids(tokenizer, None, f"{last_user(m)}\n") for m in asked]
    else:
        rows = zip(asked, shown)
        prompts = [prompt_ids(tokenizer, template, m, tools=t.get("tools")) for m, t in rows]
    prompts = [ids for ids in prompts if len(ids) < context]
    before = answers(model, prompts, options.tokens)
    with run_folder(COMMAND, options) as out:
        result = sft(
            model,
            training.sequences,
            settings,
            validation=held_out.sequences,
            out=out,
            resume=options.resume,
            **adapter(model, options),
        )
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        after = answers(tuned_model(out, options), prompts, options.tokens)
        print(f"\n{validation_table(result.validation)} (nats per token of the answers)")
        right = [said(talk["messages"][first_answer(talk)]) for talk in shown]
        texts = [last_user(messages) for messages in asked][: len(prompts)]
        show_samples(texts, ("wanted", right), ("before", before), ("after", after))
        print()
        curves(out, ("loss on answers (nats per token)", ("loss", "validation_loss")))
        show_result(out, talk=template is not None)
    return 0


def first_answer(talk: dict) -> int:
    """The place of the first message of the assistant."""
    return [message["role"] for message in talk["messages"]].index("assistant")


def said(message: dict) -> str:
    """What the assistant says in a message, or else what it calls."""
    return message.get("content") or str([call["function"] for call in message["tool_calls"]])
