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
import json

from ..arguments import check_whole, mismatch
from ..models.causal_model import CausalModel
from ..tokenizers.chat.formats import Template
from ..tuning import SFTSettings, TokenSequence, conversations, plain, prompt_ids, sft
from ..tuning.data.conversations import Encoded, shortened
from ..tuning.data.packing import packing
from .folders import check_ready, recorded, run_folder, stopped
from .parser import Parser, whole
from .reports import (
    NATS,
    answers,
    count_parts,
    curves,
    show_result,
    show_samples,
    tuned_model,
    validation_table,
)
from .tuning import (
    Data,
    Record,
    adapter,
    answer_options,
    as_talks,
    data_options,
    in_passes,
    last_user,
    open_chat,
    read_data,
    set_tokens,
    settings_of,
    some_of,
    training_options,
)

COMMAND, PASSES = "sft", 3


def add(parser: Parser) -> None:
    data_options(parser, "instructions or conversations")
    training_options(parser, SFTSettings, "out-sft", passes=PASSES)
    parser.section("samples")
    text = "Pack several conversations into rows of N tokens; --batch counts rows then."
    parser.option("--packed", None, text, whole(1), shown="one row each")
    answer_options(parser)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(SFTSettings, options)
    data = read_data(options, ("instruction", "conversation"))
    if options.template == "none" and data.kind != "instruction":
        raise mismatch("--template", "a chat format, since --data holds conversations", "none")
    check_ready(options)
    set_tokens(options)
    model, template = open_chat(options)
    check_whole("--packed", options.packed, 1, model.config.context, or_none=True)
    training, held_out = encoded(model, template, data, options)
    lengths = [len(sequence) for sequence in training]
    rows = len(lengths) if options.packed is None else len(packing(lengths, options.packed))
    settings = in_passes(settings, options, rows, PASSES)

    def ids_of(record: Record) -> list[int]:
        asked, tools = record["messages"][: first_answer(record)], record.get("tools")
        if template is None:
            return prompt_ids(model.text_tokenizer(), None, f"{last_user(asked)}\n")
        return prompt_ids(model.text_tokenizer(), template, asked, tools=tools)

    talks = as_talks(data).held_out
    shown, prompts = some_of(talks, ids_of, options.samples, model.config.context - 1)
    before = answers(model, prompts, options.tokens)
    with run_folder(COMMAND, options) as out:
        places = {"validation": held_out, **recorded(options, out)}
        result = sft(model, training, settings, **places, **adapter(model, options))
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        after = answers(tuned_model(out, options), prompts, options.tokens)
        print(f"\n{validation_table(result.validation, NATS)}")
        asked = [last_user(record["messages"][: first_answer(record)]) for record in shown]
        right = [said(record["messages"][first_answer(record)]) for record in shown]
        show_samples(asked, ("wanted", right), ("before", before), ("after", after))
        curves(out, ("loss on answers (nats per token)", ("loss", "validation_loss")))
        show_result(out, talk=template is not None)
    return 0


def encoded(
    model: CausalModel, template: Template | None, data: Data, options: argparse.Namespace
) -> tuple[list[TokenSequence], list[TokenSequence]]:
    """The sequences of training and of validation, none longer than the context."""
    tokenizer, context = model.text_tokenizer(), model.config.context

    def talks(part: list[Record]) -> Encoded:
        if template is not None:
            return conversations(tokenizer, template, part, max_length=context)
        rows = [(last_user(r["messages"]), r["messages"][-1]["content"]) for r in part]
        return shortened([plain(tokenizer, f"{text}\n", answer) for text, answer in rows], context)

    made = as_talks(data).each(talks)
    for what, part in zip(("for training", "held out"), made):
        if not part.sequences:
            given = f"none: {part.dropped} prompts fill it"
            raise mismatch("--data", f"answers {what} within the context of {context}", given)
    cut, dropped = (sum(getattr(part, n) for part in made) for n in ("cut", "dropped"))
    note = f"; {cut} truncated to the context" if cut else ""
    note += f"; {dropped} dropped, whose answers begin after it" if dropped else ""
    training, held_out = (part.sequences for part in made)
    count_parts("conversations", training, held_out, note)
    return training, held_out


def first_answer(talk: Record) -> int:
    """The place of the first message of the assistant."""
    return [message["role"] for message in talk["messages"]].index("assistant")


def said(message: Record) -> str:
    """What a message says; of one without words, what it calls."""
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    return message.get("content") or json.dumps(calls, ensure_ascii=False)
