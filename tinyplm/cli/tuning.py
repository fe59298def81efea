"""What the commands of tuning share: options, data, the chat format, adapters, reports."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from .. import hub
from ..arguments import mismatch
from ..generation import generate
from ..hub.runs import model_folder
from ..models.causal_model import CausalModel
from ..models.model import Model, check_decoder
from ..optim.schedule import SCHEDULES
from ..tokenizers.chat.formats import TEMPLATES, Template, folder_template
from ..training.log import read
from ..tuning import instruction_messages, kind_of, lora_of, read_records, set_chat_format, split
from .folders import FREE, device_options, run_options
from .models import model_option, open_model
from .output import save_plot, show_files, tinyplm_command
from .parser import POSITIVE, SHARE, Parser, number, one_of, whole

S = TypeVar("S")
Record = dict[str, Any]
# {option: the field of the settings}
FIELDS = {"batch": "batch_size", "micro_batch": "micro_batch_size", "lr": "learning_rate"}
FIELDS |= {"decay": "weight_decay", "tokens": "max_new_tokens"}
WIDTH = 100  # of a sample that is shown


class Data(NamedTuple):
    """The records of a file, checked, and those held out."""

    kind: str
    training: list[Record]
    held_out: list[Record]

    @property
    def parts(self) -> tuple[list[Record], list[Record]]:
        return self.training, self.held_out


# ----------------------------------------------------------------------------------------- options


def data_options(parser: Parser, kinds: str, *, template: bool = True) -> None:
    """--model, --data, --validation, --validation-data, --template.  kinds: what --data holds."""
    file_options(parser, kinds)
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


def file_options(parser: Parser, kinds: str) -> None:
    """--model and --data."""
    parser.section("model and data")
    model_option(parser)
    text = f"File of {kinds}: JSON lines, CSV or TSV, each record with the fields that "
    text += "tinyplm.tuning.data.records names."
    parser.option("--data", None, text, needed=True, metavar="FILE")


def training_options(parser: Parser, settings: Any, out: str, **own: Any) -> None:
    """The options of a recipe's settings, with its defaults or `own` ones, and those of runs."""
    parser.section("training")
    option, default = parser.option, {**_defaults(settings), **own}
    option("--steps", default["steps"], "Updates, or rounds of answers and updates.", whole(1))
    option("--batch", default["batch_size"], "Samples per step.", whole(1))
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


def answer_options(parser: Parser, tokens: int = 64) -> None:
    """--tokens and --samples: answers that are shown."""
    text = "Maximum number of tokens in an answer."
    parser.option("--tokens", tokens, text, whole(1))
    text = "Number of held-out prompts whose answers are shown, before and after."
    parser.option("--samples", 3, text, whole(), free=FREE)


def _defaults(settings: Any) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(settings)}


def settings_of(cls: type[S], options: argparse.Namespace, **more: Any) -> S:
    """The settings of a recipe from the options that have the names of its fields."""
    names = _defaults(cls)
    values = {FIELDS.get(name, name): value for name, value in vars(options).items()}
    if values.get("evaluate_every", 0) is None:
        values["evaluate_every"] = max(1, options.steps // 5)
    return cls(**{**{n: v for n, v in values.items() if n in names}, **more})


# -------------------------------------------------------------------------------------------- data


def read_data(options: argparse.Namespace, kinds: Sequence[str]) -> Data:
    """All records of the run, checked before anything else is done."""
    records = read_records(options.data, kinds)
    kind = str(kind_of(records[0]))
    if options.validation_data is None:
        return Data(kind, *split(records, options.validation, options.seed))
    if "validation" in options.given:
        raise mismatch("--validation", "no share, since there is --validation-data", "one")
    return Data(kind, records, read_records(options.validation_data, kind))


def as_talks(data: Data) -> Data:
    """Instructions as conversations."""
    if data.kind == "conversation":
        return data
    parts = ([{"messages": instruction_messages(r)} for r in part] for part in data.parts)
    return Data("conversation", *parts)


def open_chat(options: argparse.Namespace) -> tuple[CausalModel, Template | None]:
    """The decoder that is tuned, and its chat format, which is then saved with it.

    None: plain text, with --template none.
    """
    model = open_model(options.model, options)
    check_decoder("--model", model)
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
    """The transform of --lora, for a recipe."""
    if options.lora is None:
        return {}
    made = lora_of(model, rank=options.lora, key=options.seed)
    count = sum(a.size for a in hub.folders.flatten(made["theta"]).values())
    print(f"adapter    LoRA of rank {options.lora}, {count:,} parameters")
    return made


def count_parts(
    what: str, training: Sequence[Any], held_out: Sequence[Any], note: str = ""
) -> None:
    print(f"data       {len(training)} {what} for training, {len(held_out)} held out{note}")


# ----------------------------------------------------------------------------------------- reports


def validation_table(validation: Mapping[int, Any]) -> str:
    """The values of the held-out samples before and after training, one row each."""
    first, last = (validation[step] for step in (min(validation), max(validation)))
    before, after = (v if isinstance(v, Mapping) else {"loss": v} for v in (first, last))
    rows = [f"{'held out':14}{'before':>10}{'after':>10}"]
    rows += [
        f"{name:14}{before[name]:10.4f}{after[name]:10.4f}" for name in after if name in before
    ]
    return "\n".join(rows)


def answers(model: Any, prompts: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """The most probable answers, as far as the context allows."""
    if not prompts:
        return []
    room = model.config.context - max(map(len, prompts))
    limit = max(1, min(tokens, room))
    texts = generate(model, list(prompts), max_new_tokens=limit, temperature=0)
    return [text.text or "" for text in texts]


def show_samples(asked: Sequence[str], *columns: tuple[str, Sequence[str]]) -> None:
    """Prompts with their answers, one block each."""
    for n, text in enumerate(asked):
        print(f"\nprompt   {_short(text)}")
        for name, column in columns:
            print(f"{name:9}{_short(column[n]) or '(nothing)'}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def last_user(messages: Any) -> str:
    """The text of a prompt that is shown: the last message of the user."""
    if isinstance(messages, str):
        return messages
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def curves(out: Path, *panels: tuple[str, Sequence[str]]) -> None:
    """out/loss.png: one panel for each (label, fields of the log)."""
    records = list(read(out / "log.jsonl"))

    def panel(label: str, fields: Sequence[str]) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            for field in fields:
                points = [(r["step"], r[field]) for r in records if field in r]
                style = {"marker": "o"} if field.startswith("validation") else {"lw": 0.8}
                if points:
                    axes.plot(*zip(*points), label=field.replace("_", " "), **style)
            axes.set(xlabel="step", ylabel=label)
            if axes.get_legend_handles_labels()[1]:
                axes.legend()

        return draw

    save_plot(out / "loss.png", *(panel(*one) for one in panels), size=(5 * len(panels), 4))


def tuned_model(out: Path, options: argparse.Namespace, **settings: Any) -> Model:
    """The model that a run ended with."""
    return hub.load(model_folder(out), dtype=options.dtype, device=options.device, **settings)


def show_result(out: Path, *, talk: bool = True) -> None:
    """Print where the model of a run is, and how to talk to it."""
    show_files(model_folder(out), out)
    if talk:
        print(f"talk       {tinyplm_command('chat', '--model', out)}")
