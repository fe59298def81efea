"""What a run reports: progress, a log in JSON lines, a plot of the loss."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from csv import DictWriter
from pathlib import Path
from typing import Any

from ..arguments import check_path, is_number, is_whole, mismatch, shown
from ..files import naming, open_regular, parse_json, printable, replaced
from .writers import WRITERS, check_writers

# in the records of training
NUMBERS = ("loss", "gradient_norm", "learning_rate", "validation_loss")


# of a step, in the records of training; a resumed run measures them anew
MEASURED = ("tokens_per_second", "memory", "memory_peak", "device_memory", "device_memory_reserved")
BAR = "{{percentage:3.0f}}%|{bar}| {{n_fmt}}/{{total_fmt}} {{remaining}}{postfix}"
SECONDS_PER_LINE = 60.0  # of progress that is redirected


class Log:
    """Appends one JSON object per line to `path`, and passes each record to the writers.

    On resume, records after `last_step` are removed first.
    writers: names of training.writers, such as "tensorboard".  They write beside `path` and get the
    remaining records again, so their curves are always those of the log.
    """

    def __init__(self, path: Path, *, last_step: int = 0, writers: Sequence[str] = ()) -> None:
        writers = check_writers(writers)
        self.path = path
        lines = [line for line, _ in _lines(path, last_step)] if last_step else []
        self._writers = [WRITERS[name].open(path.parent, not last_step) for name in writers]
        with replaced(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        for line in lines if self._writers else []:
            self._pass_on(json.loads(line.removeprefix("\ufeff")))
        # unbuffered: a line that did not fit on the disk must not be retried on closing
        self._file = open(path, "ab", buffering=0)  # closed by close()

    def write(self, **record: Any) -> None:
        """Append a record.

        OSError naming the file if the disk is full; this can leave a partial line, which `read`
        skips.
        """
        line = (json.dumps(record) + "\n").encode()
        with naming(self.path):
            while line:
                line = line[self._file.write(line) :]
        self._pass_on(record)

    def _pass_on(self, record: dict[str, Any]) -> None:
        values = scalars(record) if self._writers else {}
        for writer in self._writers if values else []:
            writer.write(record["step"], values)

    def sync(self) -> None:
        """Flush to disk, before a checkpoint declares these steps done."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        for writer in self._writers:
            writer.close()


def read(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The records of a log; an incomplete last line, left by a crash, is skipped."""
    for _, record in _lines(path):
        yield record


def missing_steps(path: Path, last_step: int) -> str | None:
    """One line if the log lacks or repeats a loss of some step up to `last_step`; else None."""
    found, exact = 0, True
    for _, record in _lines(path, last_step):
        if "loss" in record:
            found += 1
            exact = exact and record["step"] == found
    if exact and found == last_step:
        return None
    losses = f"has the losses of {found} of {last_step} steps"
    return f"{path}: {losses}; training resumes exactly, the log has gaps"


def _lines(
    path: str | os.PathLike, last_step: int | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, record) of a log, up to the last record of `last_step`.

    Later lines were not flushed if the machine lost power and may hold garbage.
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
                raise mismatch(
                    f"{printable(path)}, line {number}", "the record of a step", shown(line.strip())
                ) from None
            step = record["step"]
            if last_step is not None and step > last_step:
                return
            yield line, record


class Progress:
    """A tqdm bar on a terminal; lines without a terminal or tqdm: the first update, then one a
    minute, and the last.

    If the terminal or pipe disappears, output stops and the run continues.
    """

    def __init__(self, total: int, done: int, *, show: bool = True, unit: str = "step") -> None:
        self.total, self.done, self.show, self.unit = total, done, show, unit
        self.bar: Any = None
        self.first, self.begin = done, time.monotonic()
        self.next_line, self.line = self.begin, ""  # when one is due; one that is not yet printed
        # None if the process started without one
        if show and sys.stderr is not None and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            with self._showing():
                form = BAR.format(bar="{bar}", postfix="{postfix}")
                options = {"dynamic_ncols": True, "smoothing": 0.1, "bar_format": form}
                self.bar = tqdm(total=total, initial=done, **options)

    @contextmanager
    def _showing(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.bar, self.show = None, False

    def update(self, steps: int, values: dict[str, str]) -> None:
        """`steps` more are done; values are listed most important first."""
        self.done += steps
        with self._showing():
            if self.bar is not None:
                self.bar.set_postfix_str(self._fitting(values), refresh=False)
                self.bar.update(steps)
            elif self.show and sys.stderr is not None:
                now = time.monotonic()
                self.line = self._line(values, now - self.begin)
                if now >= self.next_line or self.done >= self.total:
                    self.next_line = now + SECONDS_PER_LINE
                    self._print()

    def _line(self, values: dict[str, str], seconds: float) -> str:
        shown = "".join(f"  {name} {value}" for name, value in values.items())
        remaining = seconds / max(1, self.done - self.first) * (self.total - self.done)
        times = f"{clock(seconds)} elapsed  {clock(remaining)} remaining"
        return f"{self.unit} {self.done}/{self.total}{shown}  {times}"

    def _print(self) -> None:
        print(self.line, file=sys.stderr, flush=True)
        self.line = ""

    def _fitting(self, values: dict[str, str]) -> str:
        """As many values as fit while leaving a fifth of the terminal's width for the bar."""
        form = BAR.format(bar="", postfix=", ")
        state = {**self.bar.format_dict, "n": self.done, "bar_format": form}
        frame = len(self.bar.format_meter(**state))
        room, shown = 0.8 * (state["ncols"] or 80) - frame, ""
        for name, value in values.items():
            longer = f"{shown}{', ' * bool(shown)}{name}={value}"
            if len(longer) > room:
                break
            shown = longer
        return shown

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        with self._showing():
            if self.bar is not None:
                self.bar.write(text)
            elif self.show:
                print(text, flush=True)

    def close(self) -> None:
        """End the bar; print the last line of a run that ended before its total."""
        with self._showing():
            if self.bar is not None:
                self.bar.close()
            elif self.line and self.show:
                self._print()


def clock(seconds: float) -> str:
    """Minutes and seconds as 12:34, with hours as 5:06:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record by name, for curves.

    A list of numbers, one per layer, becomes load_max/0, load_max/1 ...; an outlier's value becomes
    outlier_loss or outlier_gradient_norm.  Text, nested lists and `step` are left out.
    """
    if isinstance(record.get("outlier"), str):
        return {f"outlier_{record['outlier']}": record["value"]}
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, list):
            found |= {f"{name}/{i}": v for i, v in enumerate(value) if is_number(v)}
        elif name != "step" and is_number(value):
            found[name] = value
    return found


def export_csv(log: str | os.PathLike, csv: str | os.PathLike) -> None:
    """Write a log as a table: one row per step, a column for every number of any record.

    Columns are named by `scalars`, in the order of their first appearance, after `step`; a cell is
    empty where the step has no such number.
    ValueError if the log is missing, or not in the order of its steps.
    """
    check_path("csv", csv)
    names: dict[str, None] = {"step": None}
    last = None
    for record in read(log):
        if last is not None and record["step"] < last:
            expected = f"records in the order of their steps, none before step {last}"
            raise mismatch(printable(log), expected, f"step {record['step']}")
        last = record["step"]
        names |= dict.fromkeys(scalars(record))
    if last is None:
        raise mismatch(printable(log), "a log with at least one record", "none")
    rows = itertools.groupby(read(log), key=lambda record: record["step"])
    with replaced(csv) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = DictWriter(file, list(names), lineterminator="\n")
        writer.writeheader()
        for step, records in rows:
            values = [scalars(record) for record in records]
            writer.writerow({"step": step, **{n: v for part in values for n, v in part.items()}})


def plot(
    log: Path, png: Path, *, baselines: dict[str, float] | None = None, protocol: str = ""
) -> bool:
    """Draw training and validation loss by step, and baselines (nats per token) as lines.

    protocol: how validation is measured, for the legend, where a table beside it does otherwise.

    Returns False without matplotlib.
    """
    try:
        from matplotlib.figure import Figure  # no pyplot: no display and no global state
    except ImportError:
        return False
    records = list(read(log))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    training: dict[str, Any] = {"label": "training", "lw": 0.7, "alpha": 0.6}
    measured = f"validation, {protocol}" if protocol else "validation"
    validation: dict[str, Any] = {"label": measured, "marker": "o"}
    for field, style in (("loss", training), ("validation_loss", validation)):
        points = [(r["step"], r[field]) for r in records if field in r]
        if points:
            axes.plot(*zip(*points), **style)
    for i, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, color=f"C{i + 2}", ls="--", lw=1, label=name)
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    with replaced(png) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return True
