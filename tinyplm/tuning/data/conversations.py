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

from ...arguments import MOST, check_text, check_whole, listed, mismatch, wrong
from ...models.model import check_decoder
from ...tokenizers import Tokenizer
from ...tokenizers.chat.formats import Messages, Template, check_messages, encode, turn_ends
from ...tokenizers.files.settings import CHAT_TEMPLATE
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


def conversation(tokenizer: Any, template: Template, messages: Messages) -> TokenSequence:
    """The ids of a conversation; the assistant's turns count, each with its end token.

    With a template that has no end token (alpaca), the tokenizer's end of text follows the last
    answer.
    ValueError for a conversation without an assistant's turn, an empty answer, or a template that
    renders earlier turns differently once later ones exist (training would not match inference).
    """
    check_tokenizer(tokenizer)
    check_template(template)
    check_messages(messages, add_generation_prompt=False)
    turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise ValueError("messages: expected a turn of the assistant to train on, got none")
    encode(tokenizer, template, messages, False)  # refuses text that would forge a turn
    text = template.render(messages, False)
    ends = set(turn_ends(tokenizer, template))
    spans = []
    for n in turns:
        if not messages[n]["content"].strip():
            raise ValueError(f"message {n}: expected an answer of the assistant, got an empty one")
        before = template.render(messages[:n], True)
        after = template.render(messages[: n + 1], False)
        if not (after.startswith(before) and text.startswith(after)):
            expected = "one that renders a turn the same whatever follows"
            raise mismatch("template", expected, f"one that changes turns before or at message {n}")
        spans.append((len(before), len(after)))
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
    """Records of kind "conversation" (see data.records), of at most max_length tokens each."""
    check_tokenizer(tokenizer)
    check_template(template)
    check_whole("max_length", max_length, 1, or_none=True)
    rows = enumerate(_with_fields(records, "messages"))
    make = partial(conversation, tokenizer, template)
    return shortened([_named(n, make, record["messages"]) for n, record in rows], max_length)


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


def prompt_ids(tokenizer: Any, template: Template | None, prompt: str | Messages) -> list[int]:
    """The ids to answer.

    Without a template: those of a text to continue (Tokenizer.prompt, with <s> as in generation).
    With one: those of a chat; a text is the user's message.
    """
    check_tokenizer(tokenizer)
    if template is None:
        if not isinstance(prompt, str):
            raise wrong("template", "a Template, since the prompt is a list of messages", template)
        return tokenizer.prompt(prompt)
    check_template(template)
    return encode(tokenizer, template, _asked(prompt))


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
    messages = list(_asked(prompt))
    answers = [{"role": "assistant", "content": record[name]} for name in ("chosen", "rejected")]
    sides = [conversation(tokenizer, template, [*messages, answer]) for answer in answers]
    last = len(encode(tokenizer, template, messages))  # earlier answers belong to the prompt
    chosen, rejected = (TokenSequence(s.ids, [False] * last + s.counts[last:]) for s in sides)
    return chosen, rejected


def preferences(
    tokenizer: Any, template: Template | None, records: Sequence[Mapping[str, Any]]
) -> list[Pair]:
    """`preference` for many records; an error names the record."""
    check_tokenizer(tokenizer)
    if template is not None:
        check_template(template)
    rows = enumerate(_with_fields(records, "prompt", "chosen", "rejected"))
    make = partial(preference, tokenizer, template)
    return [_named(n, make, record) for n, record in rows]


def set_chat_format(model: Any, template: Template) -> None:
    """Give the model a chat format, for its folder and for generation, which stops at turn ends.

    chat_template.jinja is the template's source.  The end ids in generation_config.json are the
    tokens that end a turn and those that end a text.  tinyplm.generate, `tinyplm chat` and
    transformers read both.  ValueError for a template without source, or a model without tokenizer.
    """
    check_decoder("model", model)
    check_template(template)
    if template.source is None:
        raise mismatch(
            "template", "one with a Jinja source, which is saved in the folder", "one without"
        )
    ends = sorted(model.end_ids().union(turn_ends(model.text_tokenizer(), template)))
    model.files = {**model.files, CHAT_TEMPLATE: template.source.encode()}
    if ends:
        model.generation = {**model.generation, "eos_token_id": ends if len(ends) > 1 else ends[0]}


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
