"""What the commands of tuning print and draw: tables of values, answers, curves, files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import hub
from ..generation import generate
from ..hub.runs import model_folder
from ..models.model import Model
from ..training.checkpoint import find
from ..training.log import read
from .output import save_plot, show_files, tinyplm_command

WIDTH = 100  # of a sample that is shown
# what the values of validation are called in a table
NATS = {"loss": "loss, nats per token"}
PAIRS = {
    "accuracy": "chosen above rejected",
    "margin": "margin of the rewards",
    "chosen": "reward of chosen",
    "rejected": "reward of rejected",
}
SINGLES = {
    "accuracy": "share judged right",
    "desirable": "reward of good answers",
    "undesirable": "reward of bad answers",
    "margin": "margin of the rewards",
    "kl": "KL divergence, nats",
}
ROUNDS = {"length": "tokens in an answer"}


def count_parts(
    what: str, training: Sequence[Any], held_out: Sequence[Any], note: str = ""
) -> None:
    print(f"data       {len(training)} {what} for training, {len(held_out)} held out{note}")


def before_and_after(
    before: Mapping[str, float], after: Mapping[str, float], names: Mapping[str, str] | None = None
) -> str:
    """A table of values on the held-out samples, one row each.

    names: {value: what it is called}
    """
    rows = [("held out", "before", "after")]
    for name, value in after.items():
        if name in before:
            called = (names or {}).get(name, name.replace("_", " "))
            first, last = (f"{round(float(v), 4) + 0.0:.4f}" for v in (before[name], value))
            rows.append((called, first, last))
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:{width}}  {a:>10}{b:>10}" for name, a, b in rows)


def validation_table(validation: Mapping[int, Any], names: Mapping[str, str] | None = None) -> str:
    """The values of a recipe's validation before and after training; "" without any."""
    if not validation:
        return ""
    first, last = (validation[step] for step in (min(validation), max(validation)))
    before, after = (v if isinstance(v, Mapping) else {"loss": v} for v in (first, last))
    return before_and_after(before, after, names)


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
        print(f"\nprompt   {shorter(text)}")
        for name, column in columns:
            print(f"{name:9}{shorter(column[n]) or '(nothing)'}")
    print()


def shorter(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


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
    if (out / "best").is_file():
        best, last = (find(out, name) for name in ("best", "latest"))
        if best != last:
            print(f"best       {best} (the lowest held-out loss; the model above is the last step)")
    if talk:
        print(f"talk       {tinyplm_command('chat', '--model', out)}")
