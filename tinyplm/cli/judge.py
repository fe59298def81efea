"""Human judgement: blind sheets of answers for judges, and the verdict from their choices.

    tinyplm judge --answers gpt.jsonl llama.jsonl --out judgement
    tinyplm judge --sheet judgement --ratings ratings-Ada.csv ratings-Alan.csv

Files of answers have lines {"prompt": ..., "answer": ...}; a system is called as its file.  Give
judgement/page.html, or sheet.csv, to the judges; the page works without a server and lets them
download their choices.  Keep key.json: it says whose each answer is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..arguments import mismatch
from ..evaluation.intervals import Interval
from ..evaluation.judgement import (
    CRITERIA,
    Results,
    judge_results,
    make_sheet,
    read_answers,
    read_key,
    read_ratings,
    write_sheet,
)
from ..evaluation.judgement.sheet import KEY, PAGE, TABLE
from ..evaluation.preferences import elo
from ..files import printable, write_json
from .folders import config_option, unused, usable
from .output import counted, table
from .parser import SHARE, Parser, one_of, whole

NEW, JUDGED = ("answers", "out", "criteria", "language"), ("sheet", "ratings", "confidence", "json")


def add(parser: Parser) -> None:
    option = parser.option
    parser.section("a new sheet")
    text = "Files of answers, one a system, to the same prompts."
    option("--answers", [], text, nargs="+", metavar="FILE", shown="none with --sheet")
    text = "New or empty folder for the sheet."
    option("--out", None, text, metavar="FOLDER", shown="none with --sheet")
    text = "What the answers are compared by."
    option("--criteria", list(CRITERIA), text, nargs="+", metavar="NAME")
    option("--language", "en", "Language of the page: en, zh.", one_of("en", "zh"))
    option("--seed", 0, "Random seed of the order, the sides, and the intervals.", whole())
    parser.section("the verdict")
    text = "Folder of a sheet that was judged."
    option("--sheet", None, text, metavar="FOLDER", shown="none with --answers")
    text = "Tables of choices, from the page or filled in."
    option("--ratings", [], text, nargs="+", metavar="FILE", shown="none with --answers")
    option("--confidence", 0.95, "Probability of the intervals.", SHARE)
    text = "File to write the verdict to, as JSON."
    option("--json", None, text, metavar="FILE", shown="only printed")
    config_option(parser)


def run(options: argparse.Namespace) -> None:
    new = bool(options.answers)
    if new == (options.sheet is not None):
        raise mismatch("--answers", "files of answers, or --sheet", "both" if new else "neither")
    for name in JUDGED if new else NEW:
        if name in options.given:
            other = "--answers" if new else "--sheet"
            raise mismatch(f"--{name}", f"none with {other}", "one")
    if new:
        write(options)
    else:
        judge(options)


def write(options: argparse.Namespace) -> None:
    """A new sheet."""
    if options.out is None:
        raise mismatch("--out", "a folder for the sheet", "none")
    if len(options.answers) < 2:
        raise mismatch("--answers", "two or more files", len(options.answers))
    out, answers = unused(options.out), {}
    for path in options.answers:
        name = Path(path).stem
        if name in answers:
            raise mismatch("--answers", "files of different names", printable(path))
        answers[name] = read_answers(path)
    sheet = make_sheet(answers, criteria=options.criteria, key=options.seed)
    if not sheet.items:
        raise mismatch("--answers", "answers that differ", "equal ones to every prompt")
    write_sheet(sheet, out, language=options.language)
    equal = f"; equal answers, which count as draws: {len(sheet.equal):,}"
    print(f"items      {counted(len(sheet.items), 'comparison')}{equal if sheet.equal else ''}")
    print(f"for judges {out / PAGE}, or {out / TABLE}")
    print(f"for you    {out / KEY}, which says whose each answer is")


def judge(options: argparse.Namespace) -> None:
    """The verdict."""
    if not options.ratings:
        raise mismatch("--ratings", "tables of choices", "none")
    if options.json is not None:
        file = Path(options.json)
        usable(file.parent, "--json")
        if file.is_dir():
            raise mismatch("--json", "the name of a file", f"{printable(file)}, a folder")
    sheet = read_key(options.sheet)
    ratings = read_ratings(sheet, options.ratings)
    found = judge_results(sheet, ratings, confidence=options.confidence, key=options.seed)
    print(f"judges     {', '.join(found.judges)}: {len(ratings)} choices\n")
    print(report(found))
    if options.json is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, as_json(found))


def report(found: Results) -> str:
    """Tables: win rates, agreement, strengths."""
    lines: list[tuple[str, ...]] = [
        ("criterion", "system", "against", "wins", "draws", "losses", "win rate", "", "p")
    ]
    for v in found.verdicts:
        counts = tuple(map(str, (v.wins, v.draws, v.losses)))
        rate = (f"{v.rate.estimate:.1%}", f"{v.rate.low:.1%} to {v.rate.high:.1%}")
        lines.append((v.criterion, v.system, v.other, *counts, *rate, f"{v.p:.3g}"))
    parts = [table(lines, left=(0, 1, 2))]
    agreed = [("agreement", "items of several judges", "kappa")]
    for a in found.agreement:
        kappa = "" if a.kappa is None else f"{a.kappa:.3f}"
        agreed.append((a.criterion, str(a.items), kappa))
        agreed += [(f"  {' and '.join(pair)}", "", f"{k:.3f}") for pair, k in a.pairs.items()]
    parts.append(table(agreed))
    scale = [("strength (Bradley-Terry)", "system", "points of Elo")]
    for criterion, some in found.strengths.items():
        ranked = sorted(some.items(), key=lambda pair: -pair[1])
        scale += [(criterion, name, f"{elo(s):+.0f}") for name, s in ranked]
    parts.append(table(scale, left=(0, 1)))
    left = found.left
    parts.append(
        f"The left answer was preferred in {left.estimate:.1%} ({left.low:.1%} to {left.high:.1%}) "
        "of the choices that were no draws."
    )
    return "\n\n".join(parts)


def as_json(found: Results) -> dict[str, Any]:
    """The verdict as plain dicts and lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, Interval) or hasattr(value, "_asdict"):
            return {name: plain(part) for name, part in value._asdict().items()}
        if isinstance(value, dict):
            keys = {k: " and ".join(k) if isinstance(k, tuple) else k for k in value}
            return {keys[k]: plain(part) for k, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list) else value

    return plain(found)
