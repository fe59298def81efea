"""Conversations, instructions and preferences as token sequences; the assistant's turns count.

The mask comes from the chat template: the text added by a message of the assistant is the answer,
with its end token.  The tokens are those seen in a chat: a prompt is encoded as
tokenizers.chat.encode does, and the answer's tokens follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...arguments import MOST, check_text, check_whole, listed, mismatch, shown, wrong
from ...tokenizers import Tokenizer
from ...tokenizers.chat.formats import (
    Template,
    check_texts,
    checked_text,
    encode,
    render,
    turn_ends,
)
from ...tokenizers.chat.messages import Messages, Tools
from .pairs import Pair
from .sequences import TokenSequence, answered


@dataclasses.dataclass(frozen=True)
class Encoded:
    """sequences  the token sequences
    cut        how many were truncated to max_length
    dropped    how many were left out, since nothing that counts fitted in max_length
    """

    sequences: list[TokenSequence]
    cut: int = 0
    dropped: int = 0


def conversation(
    tokenizer: Any, template: Template, messages: Messages, *, tools: Tools | None = None
) -> TokenSequence:
    """The ids of a conversation; the assistant's turns count, each with its end token.

    What the assistant says and what it calls counts; results of tools do not.  tools: the schemas
    of the tools that may be called, for a template that renders them.
    With a template that has no end token (alpaca), the tokenizer's end of text follows the last
    answer.
    ValueError for a conversation without an assistant's turn, an empty answer, or a template that
    renders earlier turns differently once later ones exist (training would not match inference).
    """
    check_tokenizer(tokenizer)
    check_template(template)
    text = checked_text(template, messages, False, tools)
    check_texts(tokenizer, messages, tools)  # refuses text that would forge a turn
    spans = _assistant_spans(template, messages, tools, text)
    ends = set(turn_ends(tokenizer, template))
    if not ends:  # then the last answer ends with its text
        spans[-1] = (spans[-1][0], spans[-1][0] + len(text[slice(*spans[-1])].rstrip()))
    ids, places = _encoded(tokenizer, text, spans)
    counts = [False] * len(ids)
    stopped = False
    for first, last in places:
        stop = next((place + 1 for place in range(first, last) if ids[place] in ends), None)
        stopped = stop is not None
        for place in range(first, last if stop is None else stop):
            counts[place] = True
    last = max(place for place, counted in enumerate(counts) if counted)
    ids, counts = ids[: last + 1], counts[: last + 1]
    if not stopped and tokenizer.eos_id is not None:
        ids, counts = [*ids, tokenizer.eos_id], [*counts, True]
    return TokenSequence(ids, counts)


def _assistant_spans(
    template: Template, messages: Messages, tools: Tools | None, text: str
) -> list[tuple[int, int]]:
    """Where the assistant's turns are in the text: what each adds to the prompt that it answers."""
    turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise ValueError("messages: expected a turn of the assistant to train on, got none")
    spans = []
    for n in turns:
        if "tool_calls" not in messages[n] and not messages[n]["content"].strip():
            raise ValueError(f"message {n}: expected an answer of the assistant, got an empty one")
        before = render(template, messages[:n], True, tools)
        after = render(template, messages[: n + 1], False, tools)
        if not (after.startswith(before) and text.startswith(after)):
            expected = "one that renders a turn the same whatever follows"
            raise mismatch("template", expected, f"one that changes turns before or at message {n}")
        if not text[len(before) : len(after)].strip():
            expected = "one that shows the assistant's turns"
            raise mismatch("template", expected, f"one that leaves out message {n}")
        spans.append((len(before), len(after)))
    return spans


def check_marks(template: Any) -> None:
    """ValueError unless the template marks where an answer begins, in training as in generation.

    The text of a question with its answer must begin with the prompt of the question, and go on
    with the answer.
    """
    check_template(template)
    question = {"role": "user", "content": "Hi"}
    answer = {"role": "assistant", "content": "tinyplm"}
    try:
        prompt = render(template, [question], True)
        whole = render(template, [question, answer], False)
    except ValueError:  # a template that asks for more, such as a system message
        return
    if not whole.startswith(prompt):
        expected = "one whose prompt is how the text of an answered question begins"
        raise mismatch("template", expected, f"{shown(prompt, 60)} and {shown(whole, 60)}")
    if answer["content"] not in whole[len(prompt) :]:
        expected = "one that shows the assistant's answer after the prompt"
        raise mismatch("template", expected, shown(whole[len(prompt) :], 60))


def _encoded(
    tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text, and for each span of characters its tokens [first, last).

    If a token crosses the edge of a span, the pieces are encoded separately: in a chat the model
    continues from exactly the prompt's tokens.
    """
    whole = tokenizer.encode(text, allow_special=True)
    edges = [edge for span in spans for edge in span]
    places = []
    for edge in edges:
        start = tokenizer.encode(text[:edge], allow_special=True)
        if whole[: len(start)] != start:
            break
        places.append(len(start))
    else:
        return whole, list(zip(places[::2], places[1::2]))
    ids: list[int] = []
    places, begin = [], 0
    for edge in (*edges, len(text)):
        ids += tokenizer.continue_ids(ids, text[begin:edge], allow_special=True)
        places.append(len(ids))
        begin = edge
    if tokenizer.decode(ids) != tokenizer.decode(whole):
        raise mismatch(
            "tokenizer", "one that can encode prompt and answer separately", "one that cannot"
        )
    return ids, list(zip(places[::2], places[1::2]))


def conversations(
    tokenizer: Any,
    template: Template,
    records: Sequence[Mapping[str, Any]],
    *,
    max_length: int | None = None,
) -> Encoded:
    """Records of kind "conversation" (see data.records), of at most max_length tokens each.

    A record's "tools" are the schemas of the tools that may be called in it.
    ValueError as for `conversation`, naming the record, and, before any, for a template that does
    not mark the assistant's turns.
    """
    check_tokenizer(tokenizer)
    check_marks(template)
    check_whole("max_length", max_length, 1, or_none=True)
    rows = enumerate(_with_fields(records, "messages"))

    def make(record: Mapping[str, Any]) -> TokenSequence:
        tools = record.get("tools")
        return conversation(tokenizer, template, record["messages"], tools=tools)

    return shortened([_named(n, make, record) for n, record in rows], max_length)


def shortened(sequences: Sequence[TokenSequence], max_length: int | None) -> Encoded:
    """Sequences truncated to max_length tokens; those without a token that counts are dropped."""
    if max_length is None:
        return Encoded(list(sequences))
    kept, cut, dropped = [], 0, 0
    for sequence in sequences:
        if len(sequence.ids) <= max_length:
            kept.append(sequence)
        elif any(sequence.counts[:max_length]):
            kept.append(TokenSequence(sequence.ids[:max_length], sequence.counts[:max_length]))
            cut += 1
        else:
            dropped += 1
    if sequences and not kept:
        given = f"{max_length}, too little for all {len(sequences)} sequences"
        raise mismatch("max_length", "room for the start of an answer", given)
    return Encoded(kept, cut, dropped)


def plain(tokenizer: Any, prompt: str, answer: str, *, end_id: int | None = None) -> TokenSequence:
    """A prompt and its answer as one text, without chat format, then end_id.

    end_id: by default the end of text.  The ids are those of Tokenizer.continuations, with the
    tokenizer's initial token (<s>) as in generation.
    """
    check_tokenizer(tokenizer)
    for name, text in (("prompt", prompt), ("answer", answer)):
        check_text(name, text)
    check_whole("end_id", end_id, 0, MOST, or_none=True)
    (sequence,) = _plain(tokenizer, prompt, [answer], end_id)
    return sequence


def _plain(
    tokenizer: Any, prompt: str, answers: Sequence[str], end_id: int | None = None
) -> list[TokenSequence]:
    """Several answers to the same prompt."""
    end_id = tokenizer.eos_id if end_id is None else end_id
    end = [] if end_id is None else [end_id]
    start, found = tokenizer.continuations(prompt, answers)
    for answer, ids in zip(answers, found):
        if not prompt or not answer or not ids:
            given = f"{prompt!r:.40} and {answer!r:.40}"
            raise mismatch("prompt and answer", "texts that are not empty", given)
    return [answered(start, [*ids, *end]) for ids in found]


def prompt_ids(
    tokenizer: Any,
    template: Template | None,
    prompt: str | Messages,
    *,
    tools: Tools | None = None,
) -> list[int]:
    """The ids to answer.

    Without a template: those of a text to continue (Tokenizer.prompt, with <s> as in generation).
    With one: those of a chat, with the schemas of its tools; a text is the user's message.
    """
    check_tokenizer(tokenizer)
    if template is None:
        if not isinstance(prompt, str):
            raise wrong("template", "a Template, since the prompt is a list of messages", template)
        if tools is not None:
            raise mismatch("template", "one that renders schemas of tools", "None")
        return tokenizer.prompt(prompt)
    check_template(template)
    return encode(tokenizer, template, _asked(prompt), tools=tools)


def _asked(prompt: str | Messages) -> Messages:
    """The messages of a prompt; a text is the user's."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def preference(tokenizer: Any, template: Template | None, record: Mapping[str, Any]) -> Pair:
    """(chosen, rejected) of a record of kind "preference" (see data.records).

    Only the last answer of each counts.
    """
    check_tokenizer(tokenizer)
    names = ("prompt", "chosen", "rejected")
    if not isinstance(record, Mapping) or any(name not in record for name in names):
        raise wrong("record", f"a dict with {', '.join(map(repr, names))}", record)
    prompt = record["prompt"]
    if template is None:
        if not isinstance(prompt, str):
            raise wrong("template", "a Template, since the prompt is a list of messages", template)
        chosen, rejected = _plain(tokenizer, prompt, [record["chosen"], record["rejected"]])
        return chosen, rejected
    messages, tools = list(_asked(prompt)), record.get("tools")
    answers = [{"role": "assistant", "content": record[name]} for name in ("chosen", "rejected")]
    sides = [
        conversation(tokenizer, template, [*messages, answer], tools=tools) for answer in answers
    ]
    # earlier answers belong to the prompt
    last = len(encode(tokenizer, template, messages, tools=tools))
    chosen, rejected = (TokenSequence(s.ids, [False] * last + s.counts[last:]) for s in sides)
    return chosen, rejected


def preferences(
    tokenizer: Any, template: Template | None, records: Sequence[Mapping[str, Any]]
) -> list[Pair]:
    """`preference` for many records; an error names the record."""
    check_tokenizer(tokenizer)
    if template is not None:
        check_marks(template)
    rows = enumerate(_with_fields(records, "prompt", "chosen", "rejected"))
    make = partial(preference, tokenizer, template)
    return [_named(n, make, record) for n, record in rows]


def check_tokenizer(value: Any) -> None:
    """ValueError unless it is a Tokenizer."""
    if not isinstance(value, Tokenizer):
        raise wrong("tokenizer", "a Tokenizer, such as model.tokenizer", value)


def check_template(value: Any) -> None:
    """ValueError unless it is a chat Template."""
    if not isinstance(value, Template):
        raise wrong("template", "a Template, such as tokenizers.chat.TEMPLATES['chatml']", value)


def _with_fields(records: Any, *names: str) -> list[Mapping[str, Any]]:
    """The records; ValueError for the first that is not a dict with these fields."""
    expected = f"a dict with {', '.join(map(repr, names))}"
    rows = listed("records", records, f"a list of records, each {expected}")
    for n, record in enumerate(rows):
        if not isinstance(record, Mapping) or any(name not in record for name in names):
            raise wrong(f"record {n}", expected, record)
    return rows


def _named(number: int, make: Callable, part: Any) -> Any:
    try:
        return make(part)
    except ValueError as error:
        raise ValueError(f"record {number}: {error}") from None
