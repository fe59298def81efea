"""Chat in the terminal with any chat model, or let a plain language model continue your text.

    tinyplm chat --model path/to/a/chat/model                 # the folder's own chat template
    tinyplm chat --model out-sft --template chatml --system "Answer in one sentence."
    tinyplm chat --model out                                  # plain text continuation

/new starts over, /exit or Ctrl-D quits, Ctrl-C interrupts an answer.  Answers are streamed token by
token, followed by the tokens per second.  Earlier turns stay in the key/value cache as long as they
fit the context.
"""

from __future__ import annotations

import argparse
import sys
import time

from ..generation import Memory, stream
from ..memory import keep_freed_memory
from ..models.language_model import LanguageModel
from ..models.model import check_decoder
from ..tokenizers.chat.formats import TEMPLATES, Template, encode, folder_template, turn_ends
from .parser import Parser, one_of, whole
from .sampling import open_writer, sampling, sampling_options

KEYS = "/new starts over, /exit or Ctrl-D quits, Ctrl-C interrupts an answer"


class Chat:
    """A conversation in a chat format."""

    def __init__(
        self, model: LanguageModel, template: Template, system: str | None, room: int
    ) -> None:
        self.tokenizer, self.template, self.room = model.text_tokenizer(), template, room
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict] = []  # including the answers
        self.asked: list[dict] = []  # the same, plus the message to answer
        self.ids: list[int] = []  # of the prompt
        self.stop_ids = model.end_ids().union(turn_ends(self.tokenizer, template))
        self.stop_strings = [
            end for end in template.ends if self.tokenizer.token_to_id(end) is None
        ]

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


class Text:
    """A plain text that user and model write in turn."""

    def __init__(self, model: LanguageModel, room: int) -> None:
        self.tokenizer, self.room = model.text_tokenizer(), room
        self.stop_ids = model.end_ids()
        self.stop_strings: list[str] = []
        self.ids: list[int] = []
        self.asked: list[int] = []

    def prompt(self, said: str) -> list[int]:
        new = self.tokenizer.continue_ids(self.ids, said) if self.ids else []
        self.asked = self.ids + new if self.ids else self.tokenizer.prompt(said)
        if len(self.asked) > self.room:
            self.asked = self.asked[-(self.room // 2 + 1) :]
            print("(context full: dropping the beginning)", file=sys.stderr)
        return self.asked

    def answered(self, ids: list[int]) -> None:
        self.ids = self.asked + [i for i in ids if i not in self.stop_ids]


def answer(
    model: LanguageModel,
    talk: Chat | Text,
    said: str,
    memory: Memory,
    options: argparse.Namespace,
    turn: int,
) -> None:
    """Stream the answer and report its speed."""
    prompt = talk.prompt(said)
    ids: list[int] = []
    begin = time.perf_counter()
    first = begin
    try:
        for (piece,) in stream(
            model,
            prompt,
            max_new_tokens=options.tokens,
            seed=options.seed + turn,
            stop_ids=talk.stop_ids,
            stop_strings=talk.stop_strings,
            memory=memory,
            **sampling(options),
        ):
            if not ids:
                first = time.perf_counter()
            ids.append(piece.id)
            print(piece.text, end="", flush=True)
    except KeyboardInterrupt:  # the partial answer is kept
        print(" ...", end="")
    end = time.perf_counter()
    talk.answered(ids)
    speed = f", {(len(ids) - 1) / (end - first):.1f} tokens per second" if len(ids) > 1 else ""
    print(flush=True)
    print(f"[{len(ids)} tokens, the first after {first - begin:.2f} s{speed}]", file=sys.stderr)


def add(parser: Parser) -> None:
    parser.epilog = f"In the chat: {KEYS}."
    sampling_options(parser)
    parser.section("chat")
    parser.option(
        "--template",
        None,
        f"Chat format: {', '.join(TEMPLATES)}; or none for plain text.",
        one_of(*TEMPLATES, "none"),
        shown="the folder's, if any",
    )
    parser.option("--system", None, "System message.", shown="none")
    parser.option(
        "--tokens",
        None,
        "Maximum number of tokens in an answer.",
        whole(1),
        shown="256, at most half the context",
    )


def run(options: argparse.Namespace) -> None:
    keep_freed_memory()
    model = open_writer(options.model, options)
    check_decoder("--model", model)
    model.text_tokenizer()
    context = model.config.context
    if options.tokens is None:
        options.tokens = max(1, min(256, context // 2))
    if not 1 <= options.tokens < context:
        reason = f"since the context has {context} tokens"
        expected = f"an integer from 1 to {context - 1}, {reason}"
        raise ValueError(f"--tokens: expected {expected}, got {options.tokens}")
    template = TEMPLATES.get(options.template)
    if options.template is None:
        template = folder_template(model.files, model.tokenizer.named)
    if template is None and options.system is not None:
        expected = "a model with a chat template"
        raise ValueError(
            f"--system: expected {expected}, got one without: choose one with --template"
        )
    room = context - options.tokens

    def begin() -> Chat | Text:
        return (
            Text(model, room) if template is None else Chat(model, template, options.system, room)
        )

    talk, memory = begin(), Memory()
    print(f"{model}; {'plain text' if template is None else 'chat'}; {KEYS}", file=sys.stderr)
    turn = 0
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        if said == "/exit":
            return
        if said == "/new":
            talk = begin()
        elif said:
            try:
                answer(model, talk, said, memory, options, turn)
            except ValueError as error:  # in this message; the conversation continues
                print(f"error: {error}", file=sys.stderr)
            turn += 1
