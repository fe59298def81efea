"""What a run shows and writes down: progress, a JSON-lines log, a plot of the loss."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import replaced


class Log:
    """Appends one JSON object a line to `path`.  On resume, lines after the step resumed from are cut off first."""

    def __init__(self, path: Path, *, last_step: int = 0) -> None:
        self.path = path
        lines = [json.dumps(record) for record in read(path) if record["step"] <= last_step] if last_step else []
        with replaced(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self._file = open(path, "a", encoding="utf-8")  # open for the whole run; close() closes it

    def write(self, **record: Any) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Flush to disk, before a checkpoint says that these steps are done."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log; a last line that was cut off by a crash is left out."""
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                record = json.loads(line)
                record["step"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{path}: line {number} is not a record of a step: {line.strip()[:60]!r}") from None
            yield record


class Progress:
    """A tqdm bar with loss, learning rate, gradient norm and tokens per second; plain lines where tqdm is not installed."""

    def __init__(self, total: int, done: int, *, show: bool = True) -> None:
        self.total, self.show, self.bar = total, show, None
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True, smoothing=0.1)

    def update(self, steps: int, step: int, values: dict[str, str]) -> None:
        if self.bar is not None:
            self.bar.set_postfix(values, refresh=False)
            self.bar.update(steps)
        elif self.show and (step % max(1, self.total // 20) == 0 or step == self.total):
            print(f"step {step}/{self.total}  " + "  ".join(f"{name} {value}" for name, value in values.items()), flush=True)

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text)
        elif self.show:
            print(text, flush=True)

    def close(self) -> None:
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
    axes.legend()
    with replaced(png) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return True
