"""Make a corpus of raw text: clean, filter and deduplicate files; or compare two corpora.

    tinyplm data --input crawl/ more.jsonl.gz --out corpus      # the default steps
    tinyplm data --input crawl/ --out corpus --config steps.toml
    tinyplm data --out corpus --resume                          # a run that was interrupted
    tinyplm pretrain --text corpus
    tinyplm data compare corpus other-corpus
    tinyplm data train-language --samples en=english.txt de=german.txt --out languages.safetensors
    tinyplm data train-quality --good books/*.txt --bad crawl.jsonl --out quality.safetensors

Inputs are text, JSON lines, JSON arrays and HTML, also .gz and .zst; a folder stands for all such
files in it.  The steps, in order, are [[step]] tables of the file of settings:

    [[step]]
    name = "gopher_quality"
    least_words = 30

Documents are read one at a time, in shards over processes; the output is the same for any number of
them, and after an interruption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..arguments import mismatch
from ..data.pipeline import STEPS, run_pipeline
from ..data.pipeline.comparison import compare_corpora
from ..data.pipeline.compression import COMPRESSIONS
from ..data.pipeline.readers import LONGEST
from ..data.pipeline.registry import DEFAULT, specs
from ..data.pipeline.report import Report
from ..data.pipeline.runner import FORMATS
from ..data.pipeline.sources import SHARD
from ..files import write_json
from ..training.log import Progress
from .data_models import ACTIONS, train
from .folders import FREE, config_option, own_run, unused, usable
from .output import save_plot, table, tinyplm_command
from .parser import WORKERS, Parser, one_of, whole

COMMAND, MB, SHOWN = "data", 1 << 20, 5


def add(parser: Parser) -> None:
    option = parser.option
    text = "Instead of making one: compare A B compares two corpora, each a file or folder; "
    text += "train-language and train-quality train the models of these steps."
    actions: dict[str, Any] = {"nargs": "*", "metavar": "compare", "shown": "none"}
    option("action", [], text, **actions)
    text = "Files, folders or patterns to read."
    option("--input", [], text, nargs="+", metavar="PATH", shown="none")
    text = "Of JSON, the field with the text, nested as in a.b."
    option("--field", "text", text)
    text = "Longest document in MiB; longer lines are dropped, longer texts cut."
    option("--longest", LONGEST // MB, text, whole(1))
    parser.table("step", f"[[step]] tables, each with a name: {', '.join(STEPS)}.")
    text = "Of train-language: files of each language, of which every line is a sample."
    option("--samples", [], text, nargs="+", metavar="CODE=FILE", shown="none")
    text = "Of train-quality: files of texts to keep, such as books."
    option("--good", [], text, nargs="+", metavar="FILE", shown="none")
    text = "Of train-quality: files of ordinary texts."
    option("--bad", [], text, nargs="+", metavar="FILE", shown="none")
    parser.section("run")
    text = "Output folder, new or empty; of compare, for comparison.json; of training, a file."
    option("--out", None, text, metavar="FOLDER", shown="none", free=FREE)
    text = f"Format: {', '.join(FORMATS)}; text is one file, with lines of <|endoftext|>."
    option("--format", "jsonl", text, one_of(*FORMATS))
    text = f"Compression: {', '.join(COMPRESSIONS)}; zst needs the extra data."
    option("--compress", "none", text, one_of(*COMPRESSIONS))
    option("--workers", WORKERS, "Number of processes.", whole(1), free=FREE)
    option("--shard", SHARD // MB, "MiB of input in a shard.", whole(1))
    config_option(parser)
    parser.flag("--resume", "Resume the run in --out bit-identically, however it ended.")


# options that only some of the actions have; "" makes a corpus
READING = ("input", "step", "format", "compress", "workers", "shard", "resume")
OF = {
    "": (*READING, "field", "longest"),
    "compare": ("field", "longest"),
    "train-language": ("field", "samples"),
    "train-quality": ("field", "good", "bad"),
}


def check_options(options: argparse.Namespace) -> None:
    """ValueError for an option that the action does not have."""
    action = options.action[0] if options.action else ""
    for name in sorted({name for names in OF.values() for name in names}):
        if action in OF and name not in OF[action] and name in options.given:
            where = f"with {action}" if action else "where a corpus is made"
            raise mismatch(f"--{name}", f"none {where}", "one")


def run(options: argparse.Namespace) -> int:
    check_options(options)
    if options.action:
        return train(options) if options.action[0] in ACTIONS else compare(options)
    if options.out is None:
        raise mismatch("--out", "a folder", "none")
    if not options.input:
        raise mismatch("--input", "files, folders or patterns", "none")
    steps = options.step or list(DEFAULT)
    specs(steps)
    out = usable(options.out)
    if options.facts is None:
        unused(out)
    with own_run(out, COMMAND, options):
        report = pipeline(options, steps, out)
    show(report, out)
    return 0


def pipeline(options: argparse.Namespace, steps: list[dict[str, Any]], out: Path) -> Report:
    bar: list[Progress] = []

    def progress(done: int, total: int, name: str) -> None:
        if not bar:
            bar.append(Progress(total, done, unit="shard"))
        bar[0].update(done - bar[0].done, {"step": name})

    names = ("input", "field", "workers", "format")
    settings = {name: getattr(options, name) for name in names}
    return run_pipeline(
        settings.pop("input"),
        steps,
        out,
        **settings,
        resume=True,
        compression=options.compress,
        shard=options.shard * MB,
        longest=options.longest * MB,
        progress=progress,
    )


def show(report: Report, out: Path) -> None:
    """Tables, a picture, and where the documents are; ValueError if none is left."""
    print(table(report.lines()))
    if reasons := report.reasons():
        print("\n" + table(reasons, left=(0, 1)))
    unread = report.tallies[0]
    for reason in unread.drops:
        for _, found in unread.examples.get(reason, [])[:SHOWN]:
            print(f"not read   {found['document']}: {reason}")
    print()
    save_plot(out / "report.png", *panels(report), size=(11, 4), label="report")
    if not report.documents:
        raise mismatch("--out", "documents left", f"none; {out / 'report.json'} says why")
    print(f"documents  {out} ({report.documents:,}; report.json has examples of each reason)")
    print(f"train      {tinyplm_command('pretrain', '--text', out)}")


def panels(report: Report) -> list[Any]:
    """What is left after each step, in documents and in bytes."""
    names = [tally.name for tally in report.tallies]

    def panel(what: str, values: list[float]) -> Any:
        def draw(axes: Any) -> None:
            axes.barh(range(len(names)), values)
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.set_xlabel(what)

        return draw

    return [
        panel("documents left", [tally.documents_out for tally in report.tallies]),
        panel("MB left", [tally.bytes_out / 1e6 for tally in report.tallies]),
    ]


def compare(options: argparse.Namespace) -> int:
    action, *corpora = options.action
    if action != "compare" or len(corpora) != 2:
        raise mismatch(
            "data",
            "compare A B, train-language, train-quality, or --input and --out",
            " ".join(options.action),
        )
    found = compare_corpora(*corpora, field=options.field, longest=options.longest * MB)
    print(table(found.lines()))
    if options.out is not None:
        file = usable(options.out) / "comparison.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, found.as_json())
        print(f"\ncomparison {file}")
    return 0
