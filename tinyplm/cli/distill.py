"""Distil a teacher into a smaller model with the same vocabulary.

    tinyplm distill --teacher out-sft --model gpt2 --size small --data my.jsonl --out out-small
    tinyplm distill --teacher out --model gpt2 --size small --text book.txt --out out-small
    tinyplm distill --teacher out-grpo --model smaller-folder --data prompts.jsonl --out out-small

The student learns from the teacher's distributions, on instructions or conversations, on the
teacher's own answers to prompts, or on plain text.  A record is {"instruction": ..., "output": ...}
or {"messages": [...]}, as for tinyplm sft, or {"prompt": ...}.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from .. import hub
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
    rollouts,
    set_chat_format,
    text_sequences,
)
from .decoders import decoders
from .folders import check_ready, recorded, run_folder, stopped
from .models import check_same_tokens, named, open_model
from .parser import POSITIVE, Parser, number, one_of, whole
from .reports import NATS, count_parts, curves, show_result, validation_table
from .rounds import prompts_of
from .sizes import SHAPE, SIZES, configure
from .tuning import (
    Data,
    Record,
    adapter,
    as_talks,
    data_options,
    in_passes,
    read_data,
    set_tokens,
    settings_of,
    tokens_option,
    training_options,
)

COMMAND, PASSES = "distill", 3
NAMES = {**NATS, "kl": "divergence from the teacher", "hard": "cross-entropy"}


def add(parser: Parser) -> None:
    student = "Student: a folder as on the hub, or the --out of a run; or a family (such as gpt2) "
    student += "or a published size, for a new model with the teacher's vocabulary."
    what = "instructions, conversations or prompts"
    data_options(parser, what, template=False, needed=False, model=student)
    text = f"Size of a new student of a family: {', '.join(SIZES)}."
    parser.option("--size", "small", text, one_of(*SIZES))
    text = "UTF-8 text files, instead of --data."
    parser.option("--text", [], text, nargs="+", metavar="FILE", shown="none")
    text = "Tokens in a sequence of --text; at most the context."
    parser.option("--length", 256, text, whole(1))
    text = "Model that is imitated: a folder or the --out of a run."
    parser.option("--teacher", None, text, needed=True, metavar="MODEL")
    training_options(parser, DistillSettings, "out-distill", passes=PASSES, learning_rate=5e-4)
    parser.section("distillation")
    text = f"Divergence: {', '.join(DIVERGENCES)}."
    parser.option("--divergence", "forward", text, one_of(*DIVERGENCES))
    text = "Temperature of both distributions."
    parser.option("--temperature", 2.0, text, POSITIVE)
    text = "Share of the cross-entropy on the text in the loss."
    parser.option("--hard", 0.5, text, number(least=0.0, most=1.0))
    text = "Answers that the teacher writes to each prompt."
    parser.option("--answers", 4, text, whole(1))
    tokens_option(parser, "Maximum number of tokens in one.")


def run(options: argparse.Namespace) -> int:
    settings = settings_of(DistillSettings, options)
    if (options.data is None) == (not options.text):
        got = "neither" if options.data is None else "both"
        raise mismatch("--data", "a file, or --text", got)
    if options.text and options.validation_data is not None:
        raise mismatch("--validation-data", "none, since there is --text", "one")
    data = text_data(options) if options.text else None
    data = data or read_data(options, ("instruction", "conversation", "prompt"))
    set_tokens(options, "teacher")
    check_ready(options)
    teacher = cast(CausalModel, open_model(options.teacher, options, option="--teacher"))
    check_decoder("--teacher", teacher)
    template = folder_template(teacher.files, teacher.text_tokenizer().named)
    talks = data.kind in ("instruction", "conversation")
    if talks and template is None:
        expected = f"a model with a chat format, since --data holds {data.kind}s"
        raise mismatch("--teacher", expected, "one without")
    student = student_of(teacher, options)
    if template is not None:
        set_chat_format(student, template, add_tokens=True)
    check_same_tokens("--model", student, teacher, "--teacher")
    print(f"teacher    {teacher}\nmodel      {student}")
    models = (teacher, student)
    if talks:
        data = as_talks(data)
    made = data.each(lambda part: sequences(data, part, template, *models, options))
    training, held_out = made
    count_parts("sequences", training, held_out)
    settings = in_passes(settings, options, len(training), PASSES)
    with run_folder(COMMAND, options) as out:
        places = {"validation": held_out, **recorded(options, out)}
        adapted = adapter(student, options)
        result = distill(student, teacher, training, settings, **places, **adapted)
        if result.signal is not None:
            return stopped(COMMAND, options, result.signal)
        print(f"\n{validation_table(result.validation, NAMES)}\n")
        curves(out, ("nats per token", ("loss", "hard", "kl", "validation_loss")))
        show_result(out, talk=template is not None)
    return 0


def text_data(options: argparse.Namespace) -> Data:
    """The documents of --text as records."""
    parts = split_documents(read_texts(options.text), options.validation, options.seed)
    training, held_out = ([{"text": text} for text in part] for part in parts)
    places = (("--text", range(len(training))), ("--text", range(len(held_out))))
    return Data("text", training, held_out, places)


def student_of(teacher: CausalModel, options: argparse.Namespace) -> CausalModel:
    """The model of --model: one that exists, or a new one that reads what the teacher reads."""
    if Path(options.model).is_dir() or (source := named(options.model)).family is None:
        if "size" in options.given:
            raise mismatch("--size", f"none, since {options.model} has its own", options.size)
        found = open_model(options.model, options)
        check_decoder("--model", found)
        return cast(CausalModel, found)
    if source.size is not None and "size" in options.given:
        raise mismatch("--size", f"none, since {options.model} is a size", options.size)
    model_type = source.family.Config.MODEL_TYPE
    if model_type not in decoders():
        raise mismatch("--model", f"a decoder: {', '.join(decoders())}", options.model)
    context = teacher.config.context
    new = argparse.Namespace(
        **dict.fromkeys(SHAPE), size=options.size, multi_token=0, context=context, dropout=0.0
    )
    config = configure(new, source, teacher.config.vocab_size)
    ends = ("bos_token_id", "eos_token_id")
    known = {n: getattr(teacher.config, n) for n in ends if hasattr(teacher.config, n)}
    config = dataclasses.replace(config, **{n: v for n, v in known.items() if hasattr(config, n)})
    places = {"key": options.seed, "device": options.device, "dtype": options.dtype}
    made = cast(CausalModel, hub.create(model_type, config, **places))
    made.tokenizer, made.files = teacher.text_tokenizer(), dict(teacher.files)
    made.generation = dict(teacher.generation)
    return made


def sequences(
    data: Data,
    part: Sequence[Record],
    template: Template | None,
    teacher: CausalModel,
    student: CausalModel,
    options: argparse.Namespace,
) -> list[TokenSequence]:
    """What is learned: the answers of conversations, the teacher's to prompts, or all of a text."""
    tokenizer = teacher.text_tokenizer()
    context = min(teacher.config.context, student.config.context)
    if data.kind == "text":
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        ids = [i for record in part for i in (*tokenizer.encode(record["text"]), *end)]
        return text_sequences(np.array(ids), min(options.length, context - 1))
    if data.kind == "prompt":
        number = int(part is data.held_out)
        return drawn_answers(teacher, template, part, context, options, 2 * options.seed + number)
    assert template is not None
    made = conversations(tokenizer, template, part, max_length=context).sequences
    if not made:
        raise mismatch("--data", f"answers within the context of {context} tokens", "none")
    return made


def drawn_answers(
    teacher: CausalModel,
    template: Template | None,
    records: Sequence[Record],
    context: int,
    options: argparse.Namespace,
    seed: int,
) -> list[TokenSequence]:
    """The teacher's answers to prompts, those that ended."""
    prompts, _ = prompts_of(teacher, template, records, options.tokens, context)
    drawn = rollouts(
        teacher,
        prompts,
        samples=options.answers,
        max_new_tokens=options.tokens,
        seed=seed,
        workers=options.workers,
    )
    kept = [s for s, finished in zip(drawn.sequences(), drawn.finished) if finished]
    counted = f"{len(kept)} of {len(drawn)} answers of the teacher to {len(prompts)} prompts ended"
    if not kept:
        expected = f"answers of the teacher that end within {options.tokens}"
        raise mismatch("--tokens", expected, f"none of {len(drawn)}")
    print(f"answers    {counted} within {options.tokens} tokens")
    return kept
