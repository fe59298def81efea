"""Files of samples for tuning: JSON lines, one object per line, checked line by line.

    instruction   {"instruction": "Add.", "input": "2 and 3", "output": "5"}      Taori et al. 2023
                  input is optional
    conversation  {"messages": [{"role": "user", "content": ...}, ...]}, with the assistant's turns
    preference    {"prompt": ..., "chosen": ..., "rejected": ...}, texts; or a prompt of messages
                  with answers as texts or messages; or, without prompt, two whole conversations
                  that differ only in the last answer
    prompt        {"prompt": text or messages, and anything else a reward needs}
    feedback      {"prompt": text or messages, "answer" or "completion": text, "label": true or
                  false}, see feedback_records

The checks bring records into one form: the prompt of a preference is messages or a text, its
answers are texts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ...arguments import check_choice, check_path, listed, mismatch, shown, wrong
from ...files import json_lines, printable, replaced
from ...tokenizers.chat.formats import check_messages
from .feedback_records import checked_feedback

Record = dict[str, Any]


def read_records(path: str | os.PathLike, kind: str) -> list[Record]:
    """The records of a file, all of one of the kinds above.

    ValueError naming file and line for invalid UTF-8 or JSON, anything but an object, a repeated
    key, NaN, or an invalid record.  Blank lines and an initial byte-order mark are allowed.
    """
    check = _check_of(kind)
    check_path("path", path)
    records = [check(record, where) for where, record in json_lines(path)]
    if not records:
        raise ValueError(f"{printable(path)}: expected one {kind} per line, got no records")
    return records


def check_records(records: Iterable[Mapping[str, Any]], kind: str) -> list[Record]:
    """The same checks for records in memory; errors name their number, counted from 0."""
    check = _check_of(kind)
    rows = listed("records", records, "a list of records, each a dict")
    return [check(record, f"{kind} {number}") for number, record in enumerate(rows)]


def write_records(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines, atomically.

    ValueError for values that JSON or UTF-8 cannot represent.
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
            raise mismatch(
                f"record {number}", "values that JSON can represent", f"{shown(record)}: {error}"
            ) from None
    with replaced(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _text(record: Mapping[str, Any], name: str, where: str, *, default: str | None = None) -> str:
    """A non-empty text, or `default` if the name is missing."""
    value = record.get(name, default)
    if not isinstance(value, str):
        got = shown(value, 60) if name in record else _keys(record)
        raise ValueError(f"{where}: expected a text {name!r}, got {got}")
    if default is None and not value.strip():
        raise ValueError(f"{where}: {name}: expected a text, got an empty one")
    return value


def _keys(record: Mapping[str, Any]) -> str:
    return f"only {', '.join(map(repr, record)) or 'an empty object'}"


def _instruction(record: Mapping[str, Any], where: str) -> Record:
    return {
        **record,
        "instruction": _text(record, "instruction", where),
        "input": _text(record, "input", where, default=""),
        "output": _text(record, "output", where),
    }


def _messages(value: Any, where: str, *, answered: bool) -> list[dict[str, str]]:
    """Messages in a valid order.

    answered: some are the assistant's, none of these empty; otherwise the user has the last word.
    """
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list of messages, got {shown(value, 60)}")
    try:
        check_messages(value, add_generation_prompt=not answered)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if answered:
        answers = [message["content"] for message in value if message["role"] == "assistant"]
        if not answers:
            raise ValueError(f"{where}: expected a turn of the assistant to train on, got none")
        if not all(answer.strip() for answer in answers):
            raise ValueError(f"{where}: expected answers of the assistant, got an empty one")
    return [dict(message) for message in value]


def _conversation(record: Mapping[str, Any], where: str) -> Record:
    if "messages" not in record:
        raise ValueError(f'{where}: expected "messages", got {_keys(record)}')
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
            read = partial(_messages, answered=True) if len(value) > 1 else _answer
            said = read(value, f"{where}, {name}")
            sides[name] = said[-1]["content"]
            if said[-1]["role"] != "assistant":
                expected = "the assistant's answer at the end"
                raise mismatch(f"{where}: {name}", expected, "another role's message")
            if len(said) > 1:
                prompts.append(said[:-1])
        else:
            sides[name] = _text(record, name, where)
    if "prompt" in record:
        prompts.insert(0, _prompt(record, where)["prompt"])
    if not prompts:
        raise mismatch(where, '"prompt", or conversations as chosen and rejected', "neither")
    if any(prompt != prompts[0] for prompt in prompts[1:]):
        raise mismatch(where, "equal prompts", f"{prompts[0]!r:.80} and {prompts[-1]!r:.80}")
    if "prompt" not in record and len(prompts) < 2:
        raise mismatch(where, "a prompt in both conversations", "one in only one of them")
    if sides["chosen"] == sides["rejected"]:
        raise mismatch(where, "different answers", "the same as chosen and rejected")
    return {**record, "prompt": prompts[0], **sides}


def _answer(value: list, where: str) -> list[dict[str, str]]:
    """A single message of the assistant."""
    message = value[0] if value and isinstance(value[0], dict) else {}
    content = message.get("content") if message.get("role") == "assistant" else None
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{where}: expected an answer of the assistant, got {shown(value, 60)}")
    return [message]


CHECKS: dict[str, Callable[[Mapping[str, Any], str], Record]] = {
    "instruction": _instruction,
    "conversation": _conversation,
    "preference": _preference,
    "prompt": _prompt,
    "feedback": checked_feedback,
}


def _check_of(kind: str) -> Callable[[Mapping[str, Any], str], Record]:
    check_choice("kind", kind, CHECKS)
    check = CHECKS[kind]

    def checked(record: Mapping[str, Any], where: str) -> Record:
        if not isinstance(record, Mapping):
            raise ValueError(f"{where}: expected an object, got {shown(record, 60)}")
        return check(record, where)

    return checked
