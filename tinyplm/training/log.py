"""What a run reports: progress, a log in JSON lines, a plot of the loss."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..arguments import check_path, is_number, is_whole, mismatch, shown
from ..files import naming, open_regular, parse_json, printable, replaced

# in the records of training
NUMBERS = ("loss", "gradient_norm", "learning_rate", "validation_loss")


class Log:
    """Appends one JSON object per line to `path`.

    On resume, records after `last_step` are removed first.
    """

    def __init__(self, path: Path, *, last_step: int = 0) -> None:
        self.path = path
        lines = [line for line, _ in _lines(path, last_step)] if last_step else []
        with replaced(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
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

    def sync(self) -> None:
        """Flush to disk, before a checkpoint declares these steps done."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


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
    """A tqdm bar on a terminal; a plain line every tenth without a terminal or tqdm.

    If the terminal or pipe disappears, output stops and the run continues.
    """

    def __init__(self, total: int, done: int, *, show: bool = True, unit: str = "step") -> None:
        self.total, self.done, self.show, self.unit = total, done, show, unit
        self.bar: Any = None
        # None if the process started without one
        if show and sys.stderr is not None and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            with self._showing():
                form = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining}{postfix}"
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
        before, self.done = self.done, self.done + steps
        with self._showing():
            if self.bar is not None:
                self.bar.set_postfix_str(self._fitting(values), refresh=False)
                self.bar.update(steps)
            elif not self.show or sys.stderr is None:
                return
            elif self.done * 10 // self.total > before * 10 // self.total:
                shown = "".join(f"  {name} {value}" for name, value in values.items())
                print(f"{self.unit} {self.done}/{self.total}{shown}", file=sys.stderr, flush=True)

    def _fitting(self, values: dict[str, str]) -> str:
        """As many values as fit while leaving a fifth of the terminal's width for the bar."""
        frame = len(f"100%|| {self.total}/{self.total} 00:00, ")
        room, shown = 0.8 * (self.bar.format_dict["ncols"] or 80) - frame, ""
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
        with self._showing():
            if self.bar is not None:
                self.bar.close()


def plot(log: Path, png: Path, *, baselines: dict[str, float] | None = None) -> bool:
    """Draw training and validation loss by step, and baselines (nats per token) as lines.

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
    validation: dict[str, Any] = {"label": "validation", "marker": "o"}
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
