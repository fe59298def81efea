"""What commands and examples print and draw: command lines to copy, files, plots."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import read_json, replaced

# never released as folders of the hub, or with code of their authors
UNKNOWN_TO_TRANSFORMERS = (
    "baichuan chatglm chatglm_6b glm_130b glm_2021 gpt3 internlm internlm2 palm qwen transformer"
    "".split()
)


def python(*arguments: Any) -> str:
    """A shell command line for this Python."""
    shorter = os.path.relpath(sys.executable)
    if shutil.which("python") == sys.executable:  # in an activated environment, for example
        shorter = "python"
    elif shorter.startswith(".."):
        shorter = sys.executable
    return shlex.join([shorter, *map(str, arguments)])


def tinyplm_command(*arguments: Any) -> str:
    """A shell command line for the command `tinyplm` of this Python."""
    script = Path(sys.executable).with_name("tinyplm")
    if shutil.which("tinyplm") == str(script):
        return shlex.join(["tinyplm", *map(str, arguments)])
    if not script.exists():
        return python("-m", "tinyplm", *arguments)
    shorter = os.path.relpath(script)
    return shlex.join([str(script) if shorter.startswith("..") else shorter, *map(str, arguments)])


def table(lines: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Lines of cells as columns: those in `left` to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    sides = [str.ljust if n in left else str.rjust for n in range(len(widths))]
    rows = [[side(*cell) for side, cell in zip(sides, zip(line, widths))] for line in lines]
    return "\n".join("  ".join(row).rstrip() for row in rows)


def counted(n: int, what: str) -> str:
    """ "1 document", "2 documents"."""
    return f"{n:,} {what}{'s' if n != 1 else ''}"


def not_drawn() -> str:
    return f"not plotted, needs matplotlib: {python('-m', 'pip', 'install', 'matplotlib')}"


def columns() -> int:
    """The width of the terminal, at most 120, and 120 without one."""
    return min(120, shutil.get_terminal_size((120, 24)).columns)


def spread(values: Sequence[float], form: str = "{:.1%}") -> str:
    """The mean, with the range of several values: "70.6% (68.0% to 72.1%)"."""
    mean, least, most = (form.format(f(values)) for f in (np.mean, min, max))
    return mean if len(values) < 2 else f"{mean} ({least} to {most})"


def over_seeds(seeds: Sequence[int]) -> str:
    """A heading for the output of `spread`."""
    several = f"mean of {len(seeds)} seeds (least to greatest)"
    return f"seed {seeds[0]}" if len(seeds) == 1 else several


def save_plot(
    png: Path,
    *panels: Callable,
    size: tuple[float, float] = (10, 4),
    rows: int = 1,
    label: str = "plot",
) -> None:
    """Save a figure with one panel per function of axes, and print its path."""
    try:
        from matplotlib.figure import Figure  # no pyplot: no display and no global state
    except ImportError:
        print(f"{label:<11}{not_drawn()}")
        return
    figure = Figure(figsize=size, layout="constrained")
    for axes, panel in zip(np.ravel(figure.subplots(rows, len(panels) // rows)), panels):
        panel(axes)
        axes.grid(alpha=0.3)
    png.parent.mkdir(parents=True, exist_ok=True)
    with replaced(png) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    print(f"{label:<11}{png}")


def show_files(folder: Path, out: Path, which: str = "") -> None:
    """Print where the model of a run is, and its log.  which: "the best step; "."""
    known = read_json(folder / "config.json")["model_type"] not in UNKNOWN_TO_TRANSFORMERS
    reader = "transformers" if known else "tinyplm.load"
    print(f"model      {folder} ({which}{reader} loads this folder)")
    print(f"log        {out / 'log.jsonl'}")


def show_run(folder: Path, out: Path, drawn: bool) -> None:
    """Print where the files of pretraining are; drawn: whether its loss was plotted."""
    show_files(folder, out, "the best step; ")
    print(f"loss plot  {out / 'loss.png' if drawn else not_drawn()}")
