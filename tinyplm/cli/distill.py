"""Distil a teacher into a smaller model with the same vocabulary.

    tinyplm distill --teacher out-sft --model small --data my.jsonl --out out-small
    tinyplm distill --teacher out --model small --text book.txt --out out-small
    tinyplm distill --teacher out-grpo --model small --data prompts.jsonl --out out-small

The student learns from the teacher's distributions, on instructions or conversations, on the
teacher's own answers to prompts, or on plain text.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..arguments import mismatch
from ..data.corpus import read_texts, split_documents
from ..losses.distillation import DIVERGENCES
from ..models.causal_model import CausalModel
from ..models.model import check_decoder
from ..tokenizers.chat.formats import Template, folder_template
from ..tuning import (
    DistillSettings,
    TokenSequence,
    conversations,
    distill,
    prompt_ids,
    sampled_answers,
    set_chat_format,
    text_sequences,
)
from .folders import run_folder, stopped
from .models import open_model
from .parser import POSITIVE, Parser, number, one_of, whole
from .tuning import (
    adapter,
    as_talks,
    count_parts,
    curves,
    data_options,
    read_data,
    settings_of,
    show_result,
    training_options,
    validation_table,
)

COMMAND = "distill"


def add(parser: Parser) -> None:
    data_options(parser, "instructions, conversations or prompts", template=False, needed=False)
    text = "UTF-8 text files, instead of --data."
    parser.option("--text", [], text, nargs="+", metavar="FILE", shown="none")
    text = "Model that is imitated: a folder or the --out of a run."
    parser.option("--teacher", None, text, needed=True, metavar="MODEL")
    training_options(parser, DistillSettings, "out-distill", steps=300, learning_rate=5e-4)
    parser.section("distillation")
    text = f"Divergence: {', '.join(DIVERGENCES)}."
    parser.option("--divergence", "forward", text, one_of(*DIVERGENCES))
    text = "Temperature of both distributions."
    parser.option("--temperature", 2.0, text, POSITIVE)
    text = "Share of the cross-entropy on the text in the loss."
    parser.option("--hard", 0.5, text, number(least=0.0, most=1.0))
    text = "Answers that the teacher writes to each prompt."
    parser.option("--answers", 4, text, whole(1))
    text = "Maximum number of tokens in one."
    parser.option("--tokens", 64, text, whole(1))


def run(options: argparse.Namespace) -> int:
    settings = settings_of(DistillSettings, options)
    if (options.data is None) == (not options.text):
        got = "neither" if options.data is None else "both"
        raise mismatch("--data", "a file, or --text", got)
    data = None
    if options.data is not None:
        data = read_data(options, ("instruction", "conversation", "prompt"))
    documents = read_texts(options.text) if options.text else []
    teacher, student = (open_model(name, options) for name in (options.teacher, options.model))
    check_decoder("--teacher", teacher)
    check_decoder("--model", student)
    print(f"teacher    {teacher}\nmodel      {student}")
    template = folder_template(teacher.files, teacher.text_tokenizer().named)
    if template is not None:
        set_chat_format(student, template, add_tokens=True)
    models = (cast(CausalModel, teacher), cast(CausalModel, student))
    parts: Any
    if data is None:
        parts = split_documents(documents, options.validation, options.seed)
    else:
        parts = data.parts
    kind = "text" if data is None else data.kind
    if kind in ("instruction", "conversation"):
        if template is None:
            raise mismatch(
                "--teacher", "a model with a chat format, for this --data", "one without"
            )
        assert data is not None
        parts = as_talks(data).parts
    training, held_out = (
        sequences(kind, part, n, template, *models, options) for n, part in enumerate(parts)
    )
    count_parts("sequences", training, held_out)
    with run_folder(COMMAND, options) as out:
        result = distill(
            models[1],
            models[0],
            training,
            settings,
            validation=held_out,
            out=out,
            resume=options.resume,
            **adapter(student, options),
        )
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        print(f"\n{validation_table(result.validation)} (nats per token)\n")
        curves(out, ("nats per token", ("loss", "hard", "kl", "validation_loss")))
        show_result(out, talk=template is not None)
    return 0


def sequences(
    kind: str,
    part: Sequence[Any],
    number: int,
    template: Template | None,
    teacher: CausalModel,
    student: CausalModel,
    options: argparse.Namespace,
) -> list[TokenSequence]:
    """What is learned: the answers of conversations, the teacher's to prompts, or all of a text."""
    tokenizer = teacher.text_tokenizer()
    context = min(teacher.config.context, student.config.context)
    if kind == "text":
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        ids = [i for document in part for i in (*tokenizer.encode(document), *end)]
        return text_sequences(np.array(ids), context - 1)
    if kind == "prompt":
        prompts = [
            prompt_ids(tokenizer, template, record["prompt"], tools=record.get("tools"))
            for record in part
        ]
        return sampled_answers(
            teacher,
            [ids for ids in prompts if len(ids) + options.tokens <= context],
            samples=options.answers,
            max_new_tokens=options.tokens,
            seed=2 * options.seed + number,
            workers=options.workers,
        )
    assert template is not None
    return conversations(tokenizer, template, part, max_length=context).sequences
