"""The check of records of feedback, of which records.py reads files.

feedback      {"prompt": text or messages, "answer": ..., "label": true or false}, the answer a
              text or a message of the assistant in a list; or "completion" for "answer"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...arguments import mismatch, shown
from ...tokenizers.chat.formats import check_messages


def checked_feedback(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record with "prompt" and "answer" (a text), in place of "completion", and "label"."""
    names = [name for name in ("answer", "completion") if name in record]
    if len(names) != 1:
        given = "both" if names else f"only {', '.join(map(repr, record)) or 'an empty object'}"
        raise mismatch(where, "'answer' or 'completion'", given)
    prompt = record.get("prompt")
    if isinstance(prompt, list):
        try:
            check_messages(prompt, add_generation_prompt=True)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        prompt = [dict(message) for message in prompt]
    elif not isinstance(prompt, str) or not prompt.strip():
        raise mismatch(where, "a text or messages as 'prompt'", shown(prompt, 60))
    answer = record[names[0]]
    if isinstance(answer, list):
        message = answer[0] if len(answer) == 1 and isinstance(answer[0], dict) else {}
        answer = message.get("content") if message.get("role") == "assistant" else None
    if not isinstance(answer, str) or not answer.strip():
        raise mismatch(where, f"an answer as {names[0]!r}", shown(record[names[0]], 60))
    if not isinstance(record.get("label"), bool):
        given = shown(record["label"], 60) if "label" in record else "no 'label'"
        raise mismatch(where, "true or false as 'label'", given)
    others = {name: value for name, value in record.items() if name != "completion"}
    return {**others, "prompt": prompt, "answer": answer}
