"""The command `tinyplm`.  Each command is a module with `add(parser)` and `run(options)`.

settings.py  a command's options: the command line over a file over defaults; run.json, resume
folders.py   output folders and the options of runs     models.py  what --model names
output.py    command lines to copy, files, plots        decoders.py  a small config of any decoder
parser.py    options as sentences with defaults
corpus.py    the text of a run     sizes.py  configs of new models     sampling.py  its options
tuning.py    what commands of tuning share       rounds.py  what grpo, ppo and sample share
preset.py    settings of pretraining by rule
pretrain.py, generate.py, chat.py, check.py, compare.py, vectors.py: one file a command

    tinyplm check FILE.py:NAME --like rmsnorm

run returns the exit status: 0 (or None) passed or equal, 1 failed or different, 128 + the signal
that stopped a run.  Bad input, a ValueError or an OSError, is one line on stderr and status 2.  A
new command is a module and a row in COMMANDS.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ..files import printable
from . import (
    chat,
    check,
    compare,
    distill,
    dpo,
    finetune,
    generate,
    grpo,
    ppo,
    pretrain,
    reward,
    sample,
    sft,
    vectors,
)
from .parser import Parser
from .settings import resolve

# {command: its module}; the first sentence of the module's docstring is the command's help
COMMANDS: dict[str, Any] = {
    "pretrain": pretrain,
    "finetune": finetune,
    "sft": sft,
    "reward": reward,
    "dpo": dpo,
    "ppo": ppo,
    "grpo": grpo,
    "sample": sample,
    "distill": distill,
    "generate": generate,
    "chat": chat,
    "check": check,
    "compare": compare,
    "vectors": vectors,
}


RESUMABLE = "add --resume to the same command line to continue from the last checkpoint"


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and that of each command."""
    made = Parser(
        prog="tinyplm",
        description="The reference implementation of pre-trained language models in plain NumPy.",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    form = argparse.RawDescriptionHelpFormatter
    for name, module in COMMANDS.items():
        text = module.__doc__
        added = commands.add_parser(
            name, help=text.splitlines()[0], description=text, formatter_class=form
        )
        module.add(added)
    return made, commands.choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # keep lines in order in a file too
    made, commands = parsers()
    name = ""
    try:
        given = vars(made.parse_args(arguments))
        name = given.pop("command")
        return int(COMMANDS[name].run(resolve(commands[name], name, given)) or 0)
    except SystemExit as stop:  # after the help
        return int(stop.code or 0)
    except BrokenPipeError:  # such as `tinyplm check --list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        advice = f": {RESUMABLE}" if name and "resume" in commands[name].defaults else ""
        print(f"\ntinyplm: interrupted{advice}", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(f"tinyplm: {printable(' '.join(str(error).split()), 2000)}", file=sys.stderr)
        return 2
