"""What a user and a model have said: in a chat format, or as one plain text."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ..arguments import check_path, mismatch
from ..files import flush, json_lines, printable
from ..models.language_model import LanguageModel
from ..tokenizers.chat.formats import Template, encode, turn_ends
from ..tuning.data.records import check_records, read_records

Messages = list[dict[str, str]]


class Chat:
    """A conversation in a chat format.

    messages  those that still fit the context, with the answers;  said: all of them
    ValueError for a system message that the format has no place for.
    """

    def __init__(
        self, model: LanguageModel, template: Template, system: str | None, room: int
    ) -> None:
        self.tokenizer, self.template, self.room = model.text_tokenizer(), template, room
        self.system: Messages = []
        self.messages: Messages = []
        self.said: Messages = []
        self.asked: Messages = []  # messages, and the one to answer
        self.ids: list[int] = []  # of the prompt
        self.stop_ids = model.end_ids().union(turn_ends(self.tokenizer, template))
        self.stop_strings = [
            end for end in template.ends if self.tokenizer.token_to_id(end) is None
        ]
        if system is not None:
            self.set_system(system)

    def set_system(self, text: str) -> None:
        """From the next answer on."""
        system = [{"role": "system", "content": text}]
        encode(self.tokenizer, self.template, [*system, {"role": "user", "content": "a"}])
        self.system = system

    def prompt(self, said: str) -> list[int]:
        """The ids to answer; the oldest turns are dropped when the context is full."""
        messages = [*self.messages, {"role": "user", "content": said}]
        ids = encode(self.tokenizer, self.template, [*self.system, *messages])
        while len(ids) > self.room and len(messages) > 2:
            messages = messages[2:]
            ids = encode(self.tokenizer, self.template, [*self.system, *messages])
            print("(context full: dropping the oldest turn)", file=sys.stderr)
        self.asked, self.ids = messages, ids
        return ids

    def answered(self, ids: list[int]) -> None:
        answer = self.tokenizer.decode(
            [i for i in ids if i not in self.stop_ids], skip_special=True, after=self.ids
        )
        for end in self.stop_strings:
            answer = answer.split(end)[0]
        # text that spells a special token must not become one when it is encoded again
        while True:
            ids = self.tokenizer.encode(answer, allow_special=True)
            plain = self.tokenizer.decode(ids, skip_special=True)
            if plain == answer:
                break
            answer = plain
        self.messages = [*self.asked, {"role": "assistant", "content": answer}]
        self.said += self.messages[-2:]

    def save(self, file: str) -> str:
        """Append the turns that have an answer as a record "conversation"; returns what it did."""
        answered = [
            turn for turn in zip(self.said[::2], self.said[1::2]) if turn[1]["content"].strip()
        ]
        turns = [message for turn in answered for message in turn]
        if not turns:
            raise mismatch("/save", "a conversation with an answer", "none yet")
        check_records([record := {"messages": [*self.system, *turns]}], "conversation")
        if _has_lines(file):
            read_records(file, "conversation")
        _append(file, record)
        left_out = len(self.said) // 2 - len(answered)
        without = f", without {left_out} that got no answer" if left_out else ""
        return f"{len(answered)} turns{without}, added to {printable(file)}"


class Text:
    """A plain text that user and model write in turn."""

    def __init__(self, model: LanguageModel, room: int) -> None:
        self.tokenizer, self.room = model.text_tokenizer(), room
        self.stop_ids = model.end_ids()
        self.stop_strings: list[str] = []
        self.ids: list[int] = []
        self.asked: list[int] = []
        self.new: list[int] = []  # the end of asked
        self.whole: list[int] = []  # with what was dropped

    def set_system(self, text: str) -> None:
        raise mismatch("/system", "a chat, started with --template", "a plain text")

    def prompt(self, said: str) -> list[int]:
        first = not self.ids
        self.new = (
            self.tokenizer.prompt(said) if first else self.tokenizer.continue_ids(self.ids, said)
        )
        self.asked = self.ids + self.new
        if len(self.asked) > self.room:
            self.asked = self.asked[-(self.room // 2 + 1) :]
            print("(context full: dropping the beginning)", file=sys.stderr)
        return self.asked

    def answered(self, ids: list[int]) -> None:
        ids = [i for i in ids if i not in self.stop_ids]
        self.ids = self.asked + ids
        self.whole += self.new + ids

    def save(self, file: str) -> str:
        """Append the whole text as {"text": ...}; returns what it did."""
        text = self.tokenizer.decode(self.whole, skip_special=True)
        if not text.strip():
            raise mismatch("/save", "a text", "none yet")
        if _has_lines(file):
            for where, record in json_lines(file):
                if not isinstance(record.get("text"), str):
                    raise mismatch(where, 'an object with a "text"', "another line")
        _append(file, {"text": text})
        return f"{len(text)} characters, added to {printable(file)}"


def _has_lines(file: str) -> bool:
    """Whether the file exists and is not empty."""
    check_path("/save", file)
    return os.path.exists(file) and os.path.getsize(file) > 0


def _append(file: str, record: dict[str, Any]) -> None:
    """Add one JSON line, at once, after a line break if the last line has none."""
    path = Path(file)
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    if _has_lines(file) and not path.read_bytes().endswith(b"\n"):
        line = b"\n" + line
    with open(path, "ab") as lines:
        lines.write(line)
    flush(path)
