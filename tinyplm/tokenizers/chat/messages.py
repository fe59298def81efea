"""The messages of a chat: texts, calls of tools and their results, in an order that templates know.

    {"role": "system" | "user" | "assistant", "content": text}
    {"role": "assistant", "tool_calls": [{"type": "function",
                                          "function": {"name": "add", "arguments": {"a": 2}}}]}
    {"role": "tool", "content": text}

Calls stand with or without content; after them come their results, one message for each.

An optional system message comes first, then user and assistant alternate.  Between the assistant's
calls and its answer stand the results.  In formats that write calls as text (ChatGLM3, GLM-4) the
result has the role "observation".  arguments: an object, or its JSON as a text, as the template
expects.  The schemas of the tools that may be called are passed beside the messages, each an object
such as {"type": "function", "function": {"name", "description", "parameters"}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...arguments import check_list, listed, mismatch, shown, wrong

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]

RESULTS = ("tool", "observation")  # the roles of what a call returned
_ORDER = (
    "an optional system message, then user, assistant, user, ... in turn, and results of tools "
    "only after the assistant's calls"
)


def check_messages(messages: Messages, add_generation_prompt: bool = True) -> None:
    """ValueError unless these are messages as above (no images), in that order.

    add_generation_prompt: the assistant speaks next, so the last message is the user's or a result.
    """
    check_list("messages", messages, "a list of messages")
    for number, message in enumerate(messages):
        _check_message(message, f"message {number}")
    roles = [message["role"] for message in messages]
    turns = list(messages[1:] if roles[:1] == ["system"] else messages)
    if not turns or not all(map(_may_follow, [None, *turns], turns)):
        raise wrong("messages", _ORDER, roles)
    if add_generation_prompt and roles[-1] == "assistant":
        raise wrong("messages", "a last message of the user, to be answered", roles)


def _may_follow(before: Mapping[str, Any] | None, message: Mapping[str, Any]) -> bool:
    """Whether a message may stand here; before: the one before it, None at the beginning."""
    role = message["role"]
    if before is None:
        return role == "user"
    last, calls = before["role"], "tool_calls" in before
    follows = {
        "user": last == "assistant" and not calls,
        "assistant": last != "assistant",
        "tool": calls or last == "tool",
        "observation": last in ("assistant", "observation"),  # a call may be a text
    }
    return follows.get(role, False)


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, Mapping) or "role" not in message:
        raise wrong(where, "an object with role and content", message)
    calls = "tool_calls" in message
    if "content" not in message and not calls:
        raise wrong(where, "an object with role and content", message)
    for name, value in message.items():
        if name == "tool_calls":
            _check_calls(value, f"{where}: tool_calls", message["role"])
        elif not isinstance(value, str) and not (calls and name == "content" and value is None):
            raise wrong(f"{where}: {name}", "a string", value)


def _check_calls(calls: Any, where: str, role: Any) -> None:
    if role != "assistant":
        raise mismatch(where, "calls in a message of the assistant", f"some of role {shown(role)}")
    if not isinstance(calls, list) or not calls:
        raise wrong(where, "a list of one or more calls", calls)
    for call in calls:
        function: Any = call.get("function") if isinstance(call, Mapping) else None
        named = isinstance(function, Mapping) and isinstance(function.get("name"), str)
        if not named or not function["name"] or call.get("type", "function") != "function":
            expected = '{"type": "function", "function": {"name": ..., "arguments": ...}}'
            raise wrong(where, expected, call)
        arguments = function.get("arguments", {})
        if not isinstance(arguments, Mapping) and not _is_object(arguments):
            name = f"{where}: arguments of {shown(function['name'], 40)}"
            raise wrong(name, "an object, or its JSON text", arguments)
        _check_json(call, where)


def _is_object(text: Any) -> bool:
    """Whether it is the JSON text of an object."""
    try:
        return isinstance(text, str) and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def check_tools(tools: Tools | None) -> None:
    """ValueError unless these are schemas of tools, each an object of JSON values with a name."""
    if tools is None:
        return
    rows = listed("tools", tools, "a list of schemas of tools")
    if not rows:
        raise mismatch("tools", "one or more schemas of tools, or None", "an empty list")
    for number, tool in enumerate(rows):
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            expected = '{"type": "function", "function": {"name": ..., "parameters": ...}}'
            raise wrong(f"tools: number {number}", expected, tool)
        _check_json(tool, f"tools: number {number}")


def _check_json(value: Any, where: str) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise mismatch(where, "values of JSON", f"{shown(value)}: {error}") from None


def texts_of(value: Any) -> Iterator[str]:
    """All texts in a message or a schema, those of keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_of(key)
            yield from texts_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_of(item)
