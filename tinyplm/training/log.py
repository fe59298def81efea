"""What a run shows and writes down: progress, a JSON-lines log, a plot of the loss."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..arguments import check_path, is_number, is_whole, shown
from ..files import named, naming, open_regular, parse_json, replaced

NUMBERS = ("loss", "gradient_norm", "learning_rate", "validation_loss")  # of the records of training


class Log:
    """Appends one JSON object a line to `path`.  On resume, lines after the step resumed from are cut off first."""

    def __init__(self, path: Path, *, last_step: int = 0) -> None:
        self.path = path
        lines = [line for line, _ in _lines(path, last_step)] if last_step else []
        with replaced(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        # without a buffer, so that a line which did not fit on the disk is not tried again when the file is closed
        self._file = open(path, "ab", buffering=0)  # open for the whole run; close() closes it

    def write(self, **record: Any) -> None:
        """OSError that names the file when the disk is full; half a line may be left then, which `read` leaves out."""
        line = (json.dumps(record) + "\n").encode()
        with naming(self.path):
            while line:
                line = line[self._file.write(line) :]

    def sync(self) -> None:
        """Flush to disk, before a checkpoint says that these steps are done."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log; a last line that was cut off by a crash is left out."""
    for _, record in _lines(path):
        yield record


def missing_steps(path: Path, last_step: int) -> str | None:
    """One line when a log has not exactly one loss for each step from 1 to `last_step`: somebody has changed it."""
    found, exact = 0, True
    for _, record in _lines(path, last_step):
        if "loss" in record:
            found += 1
            exact = exact and record["step"] == found
    if exact and found == last_step:
        return None
    return f"{path}: has the losses of {found} of the {last_step} steps done; training goes on exactly, the log has gaps"


def _lines(path: Path, last_step: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, record) of a log, up to the last record of `last_step`.

    What follows that step was not flushed when a machine lost power, and may be anything.
    """
    check_path("log", path)
    path = Path(path)
    if not path.exists():
        return
    step = 0
    with io.TextIOWrapper(open_regular(path), encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                record = parse_json(line.removeprefix("\ufeff"), "")
                if not isinstance(record, dict) or not is_whole(record.get("step")):
                    raise ValueError
                if not all(is_number(record[name]) for name in NUMBERS if name in record):
                    raise ValueError
            except ValueError:
                if step == last_step:
                    return
                raise ValueError(f"{named(path)}: line {number} is not a record of a step: {shown(line.strip())}") from None
            step = record["step"]
            if last_step is not None and step > last_step:
                return
            yield line, record


class Progress:
    """A tqdm bar on the terminal.  Where stderr is not a terminal or tqdm is not installed: a plain line at every tenth.

    When the terminal or pipe that it is shown on is gone, nothing is shown any more: that is no reason to lose a run.
    """

    def __init__(self, total: int, done: int, *, show: bool = True, unit: str = "step") -> None:
        self.total, self.done, self.show, self.unit, self.bar = total, done, show, unit, None
        if show and sys.stderr is not None and sys.stderr.isatty():  # None in a process that was started with it closed
            try:
                from tqdm import tqdm
            except ImportError:
                return
            with self._showing():
                self.bar = tqdm(total=total, initial=done, dynamic_ncols=True, smoothing=0.1,
                                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining}{postfix}")  # fmt: skip

    @contextmanager
    def _showing(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.bar, self.show = None, False

    def update(self, steps: int, values: dict[str, str]) -> None:
        """`steps` more are done; the most important of the values stands first."""
        before, self.done = self.done, self.done + steps
        with self._showing():
            if self.bar is not None:
                self.bar.set_postfix_str(self._fitting(values), refresh=False)
                self.bar.update(steps)
            elif self.show and sys.stderr is not None and self.done * 10 // self.total > before * 10 // self.total:
                shown = "".join(f"  {name} {value}" for name, value in values.items())
                print(f"{self.unit} {self.done}/{self.total}{shown}", file=sys.stderr, flush=True)

    def _fitting(self, values: dict[str, str]) -> str:
        """As many of the values as leave the bar a fifth of the terminal's width."""
        room = 0.8 * (self.bar.format_dict["ncols"] or 80) - len(f"100%|| {self.total}/{self.total} 00:00, ")
        shown = ""
        for name, value in values.items():
            longer = f"{shown}{', ' * bool(shown)}{name}={value}"
            if len(longer) > room:
                break
            shown = longer
        return shown

    def say(self, text: str) -> None:
        with self._showing():
            if self.bar is not None:
                self.bar.write(text)
            elif self.show:
                print(text, flush=True)

    def close(self) -> None:
        with self._showing():
            if self.bar is not None:
                self.bar.close()


def plot(log: Path, png: Path, *, baselines: dict[str, float] | None = None) -> bool:
    """Draw training and validation loss by step, and baselines (nats a token) as lines.  False without matplotlib."""
    try:
        from matplotlib.figure import Figure  # no pyplot: no display and no global state
    except ImportError:
        return False
    records = list(read(log))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for field, label, style in (
        ("loss", "training", {"lw": 0.7, "alpha": 0.6}),
        ("validation_loss", "validation", {"marker": "o"}),
    ):
        points = [(r["step"], r[field]) for r in records if field in r]
        if points:
            axes.plot(*zip(*points), label=label, **style)
    for i, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, color=f"C{i + 2}", ls="--", lw=1, label=name)
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    with replaced(png) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return True
