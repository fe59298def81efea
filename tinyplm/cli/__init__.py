"""The command `tinyplm`.  Each command is a module with `add(parser)` and `run(options)`.

settings.py  a command's options: the command line over a file over defaults; run.json, resume
folders.py   output folders and the options of runs     models.py  what --model names
output.py    command lines to copy, files, plots        decoders.py  a small config of any decoder
parser.py    options as sentences with defaults
tuning.py    what the commands of tuning share; reports.py: what they print; rounds.py: grpo, ppo
corpus.py    the text of a run     sizes.py  configs of new models     sampling.py  its options
conversation.py  what a user and a model have said     preset.py  settings of pretraining by rule
One file a command: pretrain.py; finetune.py, sft.py, reward.py, dpo.py, ppo.py, grpo.py,
sample.py, distill.py; generate.py, chat.py, embed.py, evaluate.py, judge.py; tokenizer.py,
convert.py, count.py; data.py, a corpus from raw text, with data_models.py; check.py, compare.py,
vectors.py.

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
from pathlib import Path
from typing import Any

from ..files import printable
from . import (
    chat,
    check,
    compare,
    convert,
    count,
    data,
    distill,
    dpo,
    embed,
    evaluate,
    finetune,
    generate,
    grpo,
    judge,
    ppo,
    pretrain,
    reward,
    sample,
    sft,
    tokenizer,
    vectors,
)
from .folders import resume_command
from .parser import Parser
from .settings import RUN, resolve

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
    "evaluate": evaluate,
    "judge": judge,
    "embed": embed,
    "tokenizer": tokenizer,
    "convert": convert,
    "count": count,
    "data": data,
    "check": check,
    "compare": compare,
    "vectors": vectors,
}


def parsers(only: str | None = None) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and that of each command.

    only: the command whose options are needed; all others then have none, which is quicker.
    """
    made = Parser(
        prog="tinyplm",
        description="The reference implementation of pre-trained language models in plain NumPy.",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        text = module.__doc__
        added = commands.add_parser(name, help=text.splitlines()[0], description=text)
        if only in (None, name):
            module.add(added)
    return made, commands.choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # keep lines in order in a file too
    name, options = "", argparse.Namespace()
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        if not words:
            print(parsers()[0].format_help(), end="", file=sys.stderr)
            return 2
        made, commands = parsers(words[0] if words and words[0] in COMMANDS else None)
        given = vars(made.parse_args(words))
        name = given.pop("command")
        options = resolve(commands[name], name, given)
        return int(COMMANDS[name].run(options) or 0)
    except SystemExit as stop:  # after the help
        return int(stop.code or 0)
    except BrokenPipeError:  # such as `tinyplm check --list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        begun = hasattr(options, "resume") and (Path(options.out) / RUN).exists()
        advice = f"; resume with: {resume_command(name, options)}" if begun else ""
        print(f"\ntinyplm: interrupted{advice}", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(f"tinyplm: {printable(' '.join(str(error).split()), 2000)}", file=sys.stderr)
        return 2
