"""What the commands of tuning share: options, settings, data, the chat format, adapters."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast

from ..arguments import mismatch
from ..core import flatten
from ..files import printable
from ..models.causal_model import CausalModel
from ..models.model import Model, check_decoder
from ..optim.schedule import SCHEDULES
from ..tokenizers.chat.formats import TEMPLATES, Template, folder_template
from ..tuning import instruction_messages, kind_of, lora_of, read_records, set_chat_format, split
from .folders import FREE, device_options, run_options
from .models import check_tokenizer_fits, folder_of, model_option, open_model, read_config
from .parser import POSITIVE, SHARE, Parser, number, one_of, whole

S = TypeVar("S")
Record = dict[str, Any]
# {option: the field of the settings}
FIELDS = {"batch": "batch_size", "micro_batch": "micro_batch_size", "lr": "learning_rate"}
FIELDS |= {"decay": "weight_decay", "tokens": "max_new_tokens"}
TOKENS = 64  # of an answer
NUMBER = "number of the record"  # while the records are split
LEAST_STEPS = 100  # of a default in passes


class Data(NamedTuple):
    """Records, checked: those for training, and those held out.

    places: for each part its file, and the numbers of the records there.
    """

    kind: str
    training: list[Record]
    held_out: list[Record]
    places: tuple[tuple[str, Sequence[int]], ...]

    @property
    def parts(self) -> tuple[list[Record], list[Record]]:
        return self.training, self.held_out

    def each(self, make: Callable[[list[Record]], S]) -> tuple[S, S]:
        """make(records) of both parts; its error "record 3: ..." names the file's record."""
        made = []
        for part, (file, numbers) in zip(self.parts, self.places):
            with naming_records(file, numbers):
                made.append(make(part))
        return made[0], made[1]


@contextmanager
def naming_records(file: str, numbers: Sequence[int]) -> Iterator[None]:
    """An error "record 3: ..." names the file's record; numbers: those in the file, from 0."""
    try:
        yield
    except ValueError as error:
        found = re.match(r"record (\d+)", str(error))
        if found is None:
            raise
        number = numbers[int(found[1])] + 1
        rest = str(error)[found.end() :]
        raise ValueError(f"{printable(file)}, record {number}{rest}") from error.__cause__


# ----------------------------------------------------------------------------------------- options


def data_options(
    parser: Parser, kinds: str, *, template: bool = True, needed: bool = True, model: str = ""
) -> None:
    """--model, --data, --validation, --validation-data, --template.

    kinds: what --data holds; model: the help of --model, if it is not the usual one.
    """
    file_options(parser, kinds, needed=needed, model=model)
    text = "Share of --data held out for validation."
    parser.option("--validation", 0.1, text, SHARE)
    text = "File of records for validation, instead of a share of --data."
    parser.option("--validation-data", None, text, metavar="FILE", shown="none")
    if template:
        text = f"Chat format: {', '.join(TEMPLATES)}; or none for plain text.  Its tokens that the "
        text += "vocabulary lacks are added."
        own = "that of the folder, otherwise chatml"
        parser.option("--template", None, text, one_of(*TEMPLATES, "none"), shown=own)
    device_options(parser)


def file_options(parser: Parser, kinds: str, *, needed: bool = True, model: str = "") -> None:
    """--model and --data."""
    parser.section("model and data")
    model_option(parser, help=model)
    text = f"File of {kinds}, with the fields that are shown above: JSON lines (.jsonl), a JSON "
    text += "list (.json), or a table with a header row (.csv, .tsv)."
    parser.option("--data", None, text, needed=needed, metavar="FILE", shown="none")


def training_options(
    parser: Parser, settings: Any, out: str, *, passes: int | None = None, **own: Any
) -> None:
    """The options of a recipe's settings, with its defaults or `own` ones, and those of runs.

    passes: over the data, the default of --steps (see in_passes); None: the recipe draws answers.
    """
    parser.section("training")
    option, default = parser.option, {**_defaults(settings), **own}
    if passes is None:
        text = "Rounds, each of answers to a batch of prompts, and of updates."
        option("--steps", default["steps"], text, whole(1))
        option("--batch", default["batch_size"], "Prompts per round.", whole(1))
    else:
        data = f"{passes} pass{'es' * (passes > 1)} over the data, at least {LEAST_STEPS}"
        option("--steps", None, "Updates.", whole(1), shown=data)
        option("--batch", default["batch_size"], "Samples per update.", whole(1))
    text = "Samples in memory at a time."
    option("--micro-batch", None, text, whole(1), shown="the whole step")
    option("--lr", default["learning_rate"], "Peak learning rate.", POSITIVE)
    text = f"Learning-rate schedule: {', '.join(SCHEDULES)}."
    option("--schedule", default["schedule"], text, one_of(*SCHEDULES))
    option("--warmup", default["warmup"], "Warm-up steps.", whole())
    option("--decay", default["weight_decay"], "Weight decay.", number(least=0.0))
    text = "Save memory by keeping only every N-th layer's input; 0 keeps all."
    option("--checkpointing", 0, text, whole(), free=FREE)
    text = "Train an adapter of this rank on the attention matrices (LoRA) instead of all "
    text += "parameters."
    option("--lora", None, text, whole(1), shown="all parameters")
    if "evaluate_every" in default:
        text = "Evaluate every N steps."
        fifth = "a fifth of all steps"
        option("--evaluate-every", None, text, whole(1), shown=fifth, free=FREE)
        text = "Stop after N consecutive evaluations without improvement."
        option("--patience", None, text, whole(1), shown="never", free=FREE)
    run_options(parser, out)


def tokens_option(parser: Parser, text: str = "Maximum number of tokens in an answer.") -> None:
    room = f"{TOKENS}, at most half of the context"
    parser.option("--tokens", None, text, whole(1), shown=room)


def answer_options(parser: Parser) -> None:
    """--tokens and --samples: answers that are shown."""
    tokens_option(parser)
    text = "Number of held-out prompts whose answers are shown, before and after."
    parser.option("--samples", 3, text, whole(), free=FREE)


def _defaults(settings: Any) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(settings)}


def settings_of(cls: type[S], options: argparse.Namespace, **more: Any) -> S:
    """The settings of a recipe from the options that have the names of its fields."""
    names = _defaults(cls)
    values = {FIELDS.get(name, name): value for name, value in vars(options).items()}
    if values.get("steps", 0) is None:
        del values["steps"]  # see in_passes
    try:
        return cls(**{**{n: v for n, v in values.items() if n in names}, **more})
    except ValueError as error:
        field, colon, rest = str(error).partition(":")
        if field not in names:
            raise
        option = next((o for o, name in FIELDS.items() if name == field), field)
        raise ValueError(f"--{option.replace('_', '-')}{colon}{rest}") from None


def in_passes(settings: S, options: argparse.Namespace, count: int, passes: int) -> S:
    """The settings with --steps and --evaluate-every, where not given, for `count` samples."""
    changes: dict[str, Any] = {}
    least = -(-passes * count // options.batch)
    steps = max(LEAST_STEPS, least) if options.steps is None else options.steps
    changes["steps"] = steps
    if options.evaluate_every is None:
        changes["evaluate_every"] = max(1, steps // 5)
    over = f"{steps * options.batch / count:.1f} passes over the data"
    print(f"training   {steps} steps of {options.batch} samples, {over}")
    return dataclasses.replace(cast(Any, settings), **changes)


# -------------------------------------------------------------------------------------------- data


def read_data(options: argparse.Namespace, kinds: Sequence[str]) -> Data:
    """All records of the run, checked before anything else is done."""
    if options.validation_data is not None and "validation" in options.given:
        raise mismatch("--validation", "no share, since there is --validation-data", "one")
    records = read_records(options.data, kinds)
    kind = str(kind_of(records[0]))
    if options.validation_data is not None:
        held_out = read_records(options.validation_data, kind)
        files = ((options.data, records), (options.validation_data, held_out))
        places = tuple((file, range(len(rows))) for file, rows in files)
        return Data(kind, records, held_out, places)
    numbered = [{**record, NUMBER: n} for n, record in enumerate(records)]
    try:
        parts = split(numbered, options.validation, options.seed)
    except ValueError as error:
        several = "two or more different prompts, to hold one out (or --validation-data)"
        given = str(error).rpartition("got ")[2]
        raise mismatch(printable(options.data), several, given) from None
    numbers = [[record.pop(NUMBER) for record in part] for part in parts]
    return Data(kind, *parts, tuple((options.data, n) for n in numbers))


def as_talks(data: Data) -> Data:
    """Instructions as conversations."""
    if data.kind == "conversation":
        return data
    training, held_out = (
        [{"messages": instruction_messages(r)} for r in part] for part in data.parts
    )
    return data._replace(kind="conversation", training=training, held_out=held_out)


def some_of(
    records: Sequence[Record], ids_of: Callable[[Record], Sequence[int]], count: int, longest: int
) -> tuple[list[Record], list[list[int]]]:
    """(records, prompts): the first of different prompts, of at most `longest` tokens."""
    found: dict[tuple[int, ...], Record] = {}
    for record in records:
        ids = tuple(ids_of(record))
        if len(found) < count and len(ids) <= longest:
            found.setdefault(ids, record)
    return list(found.values()), [list(ids) for ids in found]


def last_user(messages: Any) -> str:
    """The text of a prompt that is shown: the last message of the user."""
    if isinstance(messages, str):
        return messages
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def open_chat(options: argparse.Namespace) -> tuple[CausalModel, Template | None]:
    """The decoder that is tuned, and its chat format, which is then saved with it.

    None: plain text, with --template none.
    """
    model = open_model(options.model, options)
    check_decoder("--model", model)
    check_tokenizer_fits("--model", model)
    named = model.text_tokenizer().named
    if options.template == "none":
        return cast(CausalModel, model), None
    own = folder_template(model.files, named) if options.template is None else None
    template = own or TEMPLATES[options.template or "chatml"]
    before = model.config.vocab_size
    set_chat_format(model, template, add_tokens=True)
    added = model.config.vocab_size - before
    name = next((n for n, known in TEMPLATES.items() if known == template), "the folder's own")
    more = f", {added} tokens added to the vocabulary" if added else ""
    print(f"model      {model}")
    print(f"format     {name}{more}")
    return cast(CausalModel, model), template


def adapter(model: Model, options: argparse.Namespace) -> dict[str, Any]:
    """The transform of --lora, for a recipe.

    Of a model whose vocabulary has grown it also adapts the tables of the tokens: the rows of new
    tokens, all alike, must be learned.
    """
    if options.lora is None:
        return {}
    size = model.config.vocab_size
    grown = size != read_config(folder_of(options.model)).vocab_size

    def adapted(path: str, a: Any) -> bool:
        return path.rsplit(".", 1)[-1] in ("Wq", "Wv") or (
            grown and a.ndim == 2 and size in a.shape
        )

    made = lora_of(model, rank=options.lora, key=options.seed, targets=adapted)
    count = sum(a.size for a in flatten(made["theta"]).values())
    tables = ", also of the tokens' table" if grown else ""
    print(f"adapter    LoRA of rank {options.lora}{tables}, {count:,} parameters")
    return made


def set_tokens(options: argparse.Namespace, name: str = "model") -> None:
    """The default of --tokens: what the model of --NAME has room for beside a prompt."""
    if options.tokens is None:
        context = read_config(folder_of(getattr(options, name), f"--{name}")).context
        options.tokens = TOKENS if context is None else max(1, min(TOKENS, context // 2))


def count_parts(
    what: str, training: Sequence[Any], held_out: Sequence[Any], note: str = ""
) -> None:
    print(f"data       {len(training)} {what} for training, {len(held_out)} held out{note}")
