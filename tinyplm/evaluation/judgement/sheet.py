"""Blind sheets: pairs of answers to the same prompt, without a hint at whose they are.

    answers = {name: read_answers(path) for name, path in files.items()}
    sheet = make_sheet(answers, key=7)
    write_sheet(sheet, "judgement")     # page.html and sheet.csv for the judges, key.json for you

Each pair of systems is compared on each prompt.  The order of the items is random, and of each
pair of systems every other item, in random order, has the first one on the left: a preference for a
side favours no system.  Pairs of equal answers are not shown; they count as draws.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import random
from ...arguments import (
    as_texts,
    check_choice,
    check_key,
    check_names,
    check_path,
    is_whole,
    mismatch,
    shown,
)
from ...files import json_lines, printable, read_json, replaced, write_json

CRITERIA = ("fluency", "coherence", "facts", "usefulness")
PAGE, TABLE, KEY = "page.html", "sheet.csv", "key.json"
PARTS = ("items", "equal")
CHOICES = ("left", "same", "right")
ALL = "all"  # in the verdict: the criteria together
ANSWERS = ("answer", "response", "completion", "output")  # the first that a line has


class Item(NamedTuple):
    """One comparison; number from 1, in the order of the sheet."""

    number: int
    prompt: str
    left: str
    right: str
    left_system: str
    right_system: str


class Sheet(NamedTuple):
    """items: to be judged; equal: (prompt, first system, second system) with equal answers."""

    name: str
    criteria: tuple[str, ...]
    items: list[Item]
    equal: list[tuple[str, str, str]]


def read_answers(path: str | os.PathLike) -> dict[str, str]:
    """{prompt: answer} from JSON lines {"prompt": ..., "answer": ...}.

    The answer may also be called response, completion or output.
    ValueError naming file and line for a line without either, and for a prompt that occurs twice.
    """
    check_path("path", path)
    found: dict[str, str] = {}
    for where, line in json_lines(path):
        name = next((name for name in ANSWERS if name in line), "answer")
        for field in ("prompt", name):
            if not isinstance(line.get(field), str):
                raise mismatch(f"{where}: {field}", "a text", shown(line.get(field)))
        if line["prompt"] in found:
            raise mismatch(f"{where}: prompt", "another one", f"{shown(line['prompt'])} again")
        found[line["prompt"]] = line[name]
    if not found:
        raise mismatch(printable(path), "one or more answers", "none")
    return found


def make_sheet(
    answers: Mapping[str, Mapping[str, str]],
    *,
    criteria: Sequence[str] = CRITERIA,
    key: int = 0,
) -> Sheet:
    """A sheet of {system: {prompt: answer}}; see the top of this module.

    ValueError unless there are two or more systems with answers to the same prompts.
    """
    check_key("key", key)
    names = as_texts("criteria", criteria)
    if not names or len(set(names)) < len(names) or not all(map(str.strip, names)):
        raise mismatch("criteria", "different names", shown(names))
    if taken := sorted({"item", "judge", "prompt", "left", "right", ALL} & {*names}):
        expected = f"names other than the sheet's columns and {ALL!r}"
        raise mismatch("criteria", expected, shown(taken[0]))
    if not isinstance(answers, Mapping) or len(answers) < 2:
        raise mismatch("answers", "two or more systems", shown(answers))
    systems = list(answers)
    prompts = list(answers[systems[0]])
    for system in systems[1:]:
        for one, other in ((systems[0], system), (system, systems[0])):
            if missing := [p for p in answers[one] if p not in answers[other]]:
                said = f"none to {shown(missing[0])}, which {one} answers"
                raise mismatch(f"answers of {other}", "one to each prompt", said)
    draw = random.generator(key)
    rows, equal = [], []
    for first, second in itertools.combinations(systems, 2):
        differ = [p for p in prompts if answers[first][p] != answers[second][p]]
        equal += [(p, first, second) for p in prompts if answers[first][p] == answers[second][p]]
        swapped = draw.permutation(np.arange(len(differ)) % 2).tolist()
        for prompt, swap in zip(differ, swapped):
            one, other = (second, first) if swap else (first, second)
            rows.append((prompt, answers[one][prompt], answers[other][prompt], one, other))
    order = draw.permutation(len(rows)).tolist()
    items = [Item(number, *rows[i]) for number, i in enumerate(order, 1)]
    name = f"{random.fold(key, *json.dumps([answers, names]).encode()):016x}"
    return Sheet(name, tuple(names), items, equal)


def write_sheet(sheet: Sheet, folder: str | os.PathLike, *, language: str = "en") -> None:
    """Write page.html and sheet.csv, which do not say whose an answer is, and key.json."""
    check_path("folder", folder)
    check_choice("language", language, ("en", "zh"))
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    shared = {
        "sheet": sheet.name,
        "language": language,
        "criteria": sheet.criteria,
        "items": [dict(zip(("item", "prompt", "left", "right"), item[:4])) for item in sheet.items],
    }
    page = Path(__file__).with_name(PAGE).read_text(encoding="utf-8")
    # "<" would end the script element that holds the data
    data = json.dumps(shared, ensure_ascii=False).replace("<", "\\u003c")
    with replaced(out / PAGE) as temporary:
        temporary.write_text(page.replace("/*DATA*/null", data), encoding="utf-8")
    with (
        replaced(out / TABLE) as temporary,
        open(temporary, "w", encoding="utf-8-sig", newline="") as file,
    ):  # with the mark by which spreadsheets know UTF-8
        lines = csv.writer(file)
        lines.writerow(["judge", "item", "prompt", "left", "right", *sheet.criteria])
        lines.writerows(["", *item[:4], *("" for _ in sheet.criteria)] for item in sheet.items)
    secret: dict[str, Any] = {
        "sheet": sheet.name,
        "criteria": sheet.criteria,
        "items": [[i.number, i.prompt, i.left_system, i.right_system] for i in sheet.items],
        "equal": sheet.equal,
    }
    write_json(out / KEY, secret)


def read_key(folder: str | os.PathLike) -> Sheet:
    """The key of a sheet; its items have no answers.  ValueError for anything else."""
    check_path("folder", folder)
    path = Path(folder) / KEY
    key, name = read_json(path), printable(path)
    if not isinstance(key, dict):
        raise mismatch(name, "the key of a sheet", shown(key))
    check_names(name, key, {"sheet", "criteria", "items", "equal"})
    lists: list[list[Any]] = [
        rows if isinstance(rows, list) else [0] for rows in map(key.get, PARTS)
    ]
    items, equal = lists
    right = isinstance(key.get("sheet"), str) and _texts(key.get("criteria"))
    right = right and all(_texts(row, 4) and is_whole(row[0]) for row in items)
    if not right or not all(_texts(row, 3) for row in equal):
        raise mismatch(name, "the key of a sheet", "something else")
    found = [Item(row[0], row[1], "", "", row[2], row[3]) for row in items]
    return Sheet(key["sheet"], tuple(key["criteria"]), found, [tuple(row) for row in equal])


def _texts(row: Any, count: int | None = None) -> bool:
    """Whether these are (so many) entries, texts but for the first of four."""
    right = isinstance(row, list) and (count is None or len(row) == count)
    return right and all(isinstance(text, str) for text in row[1 if count == 4 else 0 :])
