"""Messages of records in one form: {"role", "content"}, with calls of tools and their results.

ShareGPT's form has "from" and "value".  There a call is the JSON of {"name", "arguments"}, or of a
list of such, from "function_call"; its result is from "observation" or "tool".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ....arguments import mismatch, shown
from ....tokenizers.chat.messages import check_messages, check_tools

# ShareGPT's names of roles
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
}


def messages_of(value: Any, where: str, *, answered: bool) -> list[dict[str, Any]]:
    """Messages in a valid order.

    answered: some are the assistant's, none of these empty; otherwise the assistant speaks next.
    """
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list of messages, got {shown(value, 60)}")
    value = [_without_nulls(message) for message in value]
    try:
        check_messages(value, add_generation_prompt=not answered)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if answered:
        answers = [message for message in value if message["role"] == "assistant"]
        if not answers:
            raise ValueError(f"{where}: expected a turn of the assistant to train on, got none")
        if not all("tool_calls" in m or m["content"].strip() for m in answers):
            raise ValueError(f"{where}: expected answers of the assistant, got an empty one")
    return [dict(message) for message in value]


def _without_nulls(message: Any) -> Any:
    """A message without the fields that a table of messages fills up with null."""
    if not isinstance(message, Mapping):
        return message
    return {name: v for name, v in message.items() if v is not None or name == "content"}


def answer_of(value: list, where: str) -> list[dict[str, Any]]:
    """A single message of the assistant."""
    message = value[0] if value and isinstance(value[0], dict) else {}
    content = message.get("content") if message.get("role") == "assistant" else None
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{where}: expected an answer of the assistant, got {shown(value, 60)}")
    return [message]


def with_tools(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """{"tools": the record's schemas, as a list}; {} if it has none.

    They may be a list, or the JSON text of one.
    """
    value = record.get("tools")
    if value is None or value == "" or value == []:
        return {}
    if isinstance(value, str):
        value = _parsed(value, f"{where}: tools", "the JSON of a list of schemas")
    try:
        check_tools(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return {"tools": value}


def conversation_of(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A record of kind conversation, of either form."""
    if "messages" in record:
        value = record["messages"]
    elif "conversations" in record:
        value = _from_sharegpt(record["conversations"], where)
        if isinstance(record.get("system"), str) and record["system"]:
            value = [{"role": "system", "content": record["system"]}, *value]
    else:
        got = f"only {', '.join(map(repr, record)) or 'an empty object'}"
        raise ValueError(f'{where}: expected "messages", got {got}')
    rest = {name: v for name, v in record.items() if name not in ("conversations", "tools")}
    messages = messages_of(value, where, answered=True)
    return {**rest, "messages": messages, **with_tools(record, where)}


def _from_sharegpt(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list of turns, got {shown(value, 60)}")
    messages: list[dict[str, Any]] = []
    for n, turn in enumerate(value):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            expected = 'an object with "from" and a text "value"'
            raise mismatch(f"{where}: turn {n}", expected, shown(turn, 60))
        speaker, said = turn.get("from"), turn["value"]
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            expected = f'"from" one of {", ".join(SPEAKERS)}'
            raise mismatch(f"{where}: turn {n}", expected, shown(speaker, 60))
        if speaker == "function_call":
            calls = _calls(said, f"{where}: turn {n}")
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        else:
            messages.append({"role": SPEAKERS[speaker], "content": said})
    return messages


def _calls(text: str, where: str) -> list[dict[str, Any]]:
    expected = 'the JSON of {"name": ..., "arguments": ...}, or of a list of such'
    value = _parsed(text, where, expected)
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in calls):
        raise mismatch(where, expected, shown(text, 60))
    functions = ({"name": c["name"], "arguments": c.get("arguments", {})} for c in calls)
    return [{"type": "function", "function": function} for function in functions]


def _parsed(text: str, where: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise mismatch(where, expected, shown(text, 60)) from None
