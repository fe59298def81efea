"""Files of samples for tuning: JSON lines, one object a line, checked line by line.

    instruction   {"instruction": "Add.", "input": "2 and 3", "output": "5"}       input may be missing; Taori et al. 2023
    conversation  {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}, ...]}
    preference    {"prompt": ..., "chosen": ..., "rejected": ...}     texts; or prompt as messages, answers as texts or messages;
                  or without a prompt, chosen and rejected being whole conversations that differ in the last answer alone
    prompt        {"prompt": text or messages, and whatever a rule for rewards needs}

The checks give each record one form: the prompt of a preference is messages or a text, its answers are texts.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...arguments import check_path, listed, shown, wrong
from ...files import named, parse_json, read_bytes, replaced
from ...tokenizers.chat.formats import check_messages

Record = dict[str, Any]
LARGEST = 1 << 34  # bytes of a file of records, which is read whole


def read_records(path: str | os.PathLike, kind: str) -> list[Record]:
    """The records of a file, of one of the kinds above.

    ValueError that names the file and the line for what is not UTF-8, not JSON, no object, has a key twice or NaN, or is no
    record of its kind.  Blank lines are allowed, and a byte-order mark at the beginning.
    """
    check = _check_of(kind)
    lines = read_bytes(path, largest=LARGEST).removeprefix(codecs.BOM_UTF8).split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{named(path)}, line {number}"
            records.append(check(_object(line, where), where))
    if not records:
        raise ValueError(f"{named(path)}: no records, expected one {kind} a line")
    return records


def check_records(records: Iterable[Mapping[str, Any]], kind: str) -> list[Record]:
    """The same checks for records that are not in a file; they are named by their number, from 0."""
    check = _check_of(kind)
    rows = listed("records", records, "a list of records, each a dict")
    return [check(record, f"{kind} {number}") for number, record in enumerate(rows)]


def write_records(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines; the file is the old one or the whole new one.

    ValueError for what JSON and UTF-8 cannot hold.
    """
    check_path("path", path)
    lines = []
    for number, record in enumerate(listed("records", records, "a list of records, each a dict")):
        if not isinstance(record, Mapping):
            raise wrong(f"record {number}", "a dict", record)
        try:
            lines.append(json.dumps(dict(record), ensure_ascii=False, allow_nan=False) + "\n")
            lines[-1].encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"record {number}: expected what JSON can hold: {error}") from None
    with replaced(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _object(line: bytes, where: str) -> Record:
    try:
        value = parse_json(line.decode("utf-8"), where, constants=False)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error}): {shown(line[:60].decode('utf-8', 'replace'))}") from None
    except ValueError as error:
        raise ValueError(f"{error}: {shown(line[:200].decode('utf-8', 'replace'), 60)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, got {shown(value, 60)}")
    return value


def _text(record: Mapping[str, Any], name: str, where: str, *, default: str | None = None) -> str:
    """A text that is not empty, or `default` where the name is missing."""
    value = record.get(name, default)
    if not isinstance(value, str):
        given = shown(value, 60) if name in record else f"only {', '.join(map(repr, record)) or 'an empty object'}"
        raise ValueError(f"{where}: expected a text {name!r}, got {given}")
    if default is None and not value.strip():
        raise ValueError(f"{where}: {name!r} is empty")
    return value


def _instruction(record: Mapping[str, Any], where: str) -> Record:
    return {**record, "instruction": _text(record, "instruction", where), "input": _text(record, "input", where, default=""),
            "output": _text(record, "output", where)}  # fmt: skip


def _messages(value: Any, where: str, *, answered: bool) -> list[dict[str, str]]:
    """Messages in order; `answered`: some are the assistant's, and none of these is empty.  Else the user has the last word."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list of messages, got {shown(value, 60)}")
    try:
        check_messages(value, add_generation_prompt=not answered)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if answered:
        answers = [message["content"] for message in value if message["role"] == "assistant"]
        if not answers:
            raise ValueError(f"{where}: the conversation has no turn of the assistant, so that nothing could be learned")
        if not all(answer.strip() for answer in answers):
            raise ValueError(f"{where}: an answer of the assistant is empty")
    return [dict(message) for message in value]


def _conversation(record: Mapping[str, Any], where: str) -> Record:
    if "messages" not in record:
        raise ValueError(f'{where}: expected "messages", got only {", ".join(map(repr, record)) or "an empty object"}')
    return {**record, "messages": _messages(record["messages"], where, answered=True)}


def _prompt(record: Mapping[str, Any], where: str) -> Record:
    if isinstance(record.get("prompt"), list):
        return {**record, "prompt": _messages(record["prompt"], where, answered=False)}
    return {**record, "prompt": _text(record, "prompt", where)}


def _preference(record: Mapping[str, Any], where: str) -> Record:
    sides, prompts = {}, []
    for name in ("chosen", "rejected"):
        value = record.get(name)
        if isinstance(value, list):
            said = _messages(value, f"{where}, {name}", answered=True) if len(value) > 1 else _answer(value, f"{where}, {name}")
            sides[name] = said[-1]["content"]
            if said[-1]["role"] != "assistant":
                raise ValueError(f"{where}: {name!r} must end with the assistant's answer")
            if len(said) > 1:
                prompts.append(said[:-1])
        else:
            sides[name] = _text(record, name, where)
    if "prompt" in record:
        prompts.insert(0, _prompt(record, where)["prompt"])
    if not prompts:
        raise ValueError(f'{where}: no prompt: expected "prompt", or whole conversations as chosen and rejected')
    if any(prompt != prompts[0] for prompt in prompts[1:]):
        raise ValueError(f"{where}: the prompts of the two answers differ: {prompts[0]!r:.80} and {prompts[-1]!r:.80}")
    if "prompt" not in record and len(prompts) < 2:
        raise ValueError(f"{where}: only one of the two answers has a prompt")
    if sides["chosen"] == sides["rejected"]:
        raise ValueError(f"{where}: the chosen and the rejected answer are the same")
    return {**record, "prompt": prompts[0], **sides}


def _answer(value: list, where: str) -> list[dict[str, str]]:
    """A single message of the assistant."""
    message = value[0] if value else None
    content = message.get("content") if isinstance(message, dict) and message.get("role") == "assistant" else None
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{where}: expected an answer of the assistant, got {shown(value, 60)}")
    return [message]


CHECKS: dict[str, Callable[[Mapping[str, Any], str], Record]] = {
    "instruction": _instruction, "conversation": _conversation, "preference": _preference, "prompt": _prompt}  # fmt: skip


def _check_of(kind: str) -> Callable[[Mapping[str, Any], str], Record]:
    if kind not in CHECKS:
        raise ValueError(f"unknown kind of record {kind!r}; expected one of {', '.join(CHECKS)}")
    check = CHECKS[kind]

    def checked(record: Mapping[str, Any], where: str) -> Record:
        if not isinstance(record, Mapping):
            raise ValueError(f"{where}: expected an object, got {shown(record, 60)}")
        return check(record, where)

    return checked
