"""A command's options: from the command line, a file of settings, or the run that is resumed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..arguments import listed, mismatch, shown
from ..files import parse_json, printable, read_json, read_text, write_json
from .parser import Parser

RUN = "run.json"
ABOUT = {"config", "resume"}  # say where options come from


def resolve(parser: Parser, command: str, given: dict[str, Any]) -> argparse.Namespace:
    """The options of a command.  Those of the command line win over those of a file, and these over
    the defaults.

    With --resume they are those of the run in --out, and only the `free` ones may be given.  The
    namespace has three more names: `given`, the options that were given; `facts`, what the
    run that is resumed noted of its data (None: a new run); `changes`, the options that differ from
    those in its run.json, as on a command line.
    """
    given = dict(given)
    file = given.pop("config", None)
    read = read_settings(file, parser, command) if file else {}
    own = {**read, **given}
    if own.pop("resume", False):
        options, facts, changed = resumed(parser, command, own)
        about = {"resume": True, "facts": facts, "changes": as_arguments(changed)}
    else:
        options, about = {**parser.defaults, **own}, {"facts": None, "changes": []}
    for name in sorted(parser.needed):
        if options[name] is None:
            raise mismatch(f"--{name.replace('_', '-')}", "a value", "none")
    return argparse.Namespace(
        **{**options, **about, "given": {*given, *not_defaults(parser, read)}}
    )


def not_defaults(parser: Parser, read: dict[str, Any]) -> set[str]:
    """The options of a file that are not defaults: a run.json also has those that are."""
    return {name for name, value in read.items() if value != parser.defaults[name]}


def as_arguments(options: dict[str, Any]) -> list[str]:
    """Options as they are given on a command line."""
    found = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            found += [option] if value else []
        elif isinstance(value, list):
            found += [option, *map(str, value)]
        else:
            found.append(f"{option}={value}")
    return found


def read_settings(file: str, parser: Parser, command: str) -> dict[str, Any]:
    """The options in a TOML or JSON file; a run's run.json is one, too.

    Names are those of the options, with - or _.  A table with the name of a command has options for
    it alone.
    """
    contents = _contents(Path(file))
    if isinstance(contents.get("options"), dict) and "command" in contents:
        if contents["command"] != command:
            raise mismatch(f"{file}: command", repr(command), shown(contents["command"]))
        contents = contents["options"]
    common = {
        name: value
        for name, value in contents.items()
        if not isinstance(value, dict) or name in parser.tables  # [step] for [[step]] is an error
    }
    own = contents.get(command)
    found = {}
    for name, value in {**common, **(own if isinstance(own, dict) else {})}.items():
        key = name.replace("-", "_")
        if key not in parser.defaults or key in ABOUT:
            expected = f"options of tinyplm {command}"
            raise mismatch(printable(file), expected, f"{shown(name)}{_near(key, parser)}")
        found[key] = checked(parser, key, value, where=f"{printable(file)}: {name}")
    return found


def _contents(file: Path) -> dict[str, Any]:
    if file.suffix not in (".toml", ".json"):
        raise mismatch("--config", "a .toml or .json file", file)
    if file.suffix == ".json":
        contents = parse_json(read_text(file), printable(file))
    else:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            contents = tomllib.loads(read_text(file))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{printable(file)}: expected TOML, got {error}") from None
    if not isinstance(contents, dict):
        raise mismatch(printable(file), "an object of options", shown(contents))
    return contents


def _near(key: str, parser: Parser) -> str:
    import difflib

    found = difflib.get_close_matches(key, parser.defaults, 1)
    return f" (did you mean {found[0].replace('_', '-')}?)" if found else ""


def checked(parser: Parser, name: str, value: Any, *, where: str) -> Any:
    """The value of an option, as if it had been given on the command line."""
    if value is None and parser.defaults[name] is None:
        return None
    if name in parser.tables:
        return listed(where, value, "a list of tables")
    if name not in parser.parsers:
        if not isinstance(value, bool):
            raise mismatch(where, "true or false", shown(value))
        return value
    if name in parser.several:
        return [_part(parser, name, part, where) for part in listed(where, value, "a list")]
    return _part(parser, name, value, where)


def _part(parser: Parser, name: str, value: Any, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise mismatch(where, "a number or a text", shown(value))
    try:
        return parser.parsers[name](str(value))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{where}: {error}") from None


# ---------------------------------------------------------------------------------------- run.json


def write_run(
    out: Path, command: str, options: argparse.Namespace, facts: dict[str, Any] | None = None
) -> None:
    """out/run.json: how to resume this run, or with --config how to repeat it."""
    about = (*ABOUT, "given", "facts", "changes")
    values = {n: v for n, v in vars(options).items() if n not in about}
    write_json(out / RUN, {"command": command, "options": values, "facts": facts or {}})


def resumed(
    parser: Parser, command: str, given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(options, facts, changes) of the run in --out; only the parser's free options may change."""
    out = given.get("out", parser.defaults["out"])
    if out is None:
        raise mismatch("--out", "the folder of the run to resume", "none")
    file = Path(out) / RUN
    if not file.exists():
        raise mismatch(printable(file.parent), "a run to resume", f"no {RUN}")
    run = read_json(file)
    run = run if isinstance(run, dict) else {}
    if run.get("command") != command:
        got = shown(run.get("command"))
        raise mismatch(f"{printable(file)}: command", f"{command!r}, to be resumed by it", got)
    saved, facts = run.get("options"), run.get("facts")
    expected = parser.defaults.keys() - ABOUT
    if not isinstance(saved, dict) or saved.keys() != expected or not isinstance(facts, dict):
        expected_text = "the options and facts of a run of this version"
        raise mismatch(printable(file), expected_text, "others")
    options = {n: checked(parser, n, v, where=f"{printable(file)}: {n}") for n, v in saved.items()}
    now = {n: v for n, v in given.items() if v != options[n]}
    if refused := [name for name in now if name not in parser.free]:
        listing = "; ".join(
            f"--{n.replace('_', '-')} was {shown(options[n])}, now {shown(now[n])}" for n in refused
        )
        raise mismatch(printable(file.parent), "the options of this run", f"others: {listing}")
    return {**options, **now}, facts, {n: v for n, v in now.items() if n != "out"}
