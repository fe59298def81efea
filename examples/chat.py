"""Chat in the terminal with the model in any folder, by its chat template or a known one; or let it continue what you type.

    python examples/chat.py path/to/a/chat/model                 # the folder's own chat template
    python examples/chat.py path/to/a/chat/model --template chatml --system "You answer in one sentence."
    python examples/chat.py out                                  # a plain language model continues your text

/new begins anew, /exit or Ctrl-D ends, Ctrl-C breaks an answer off.  The answer is shown token by token; after it come the
tokens per second.  What was said before is kept in the key/value cache and not computed again, as long as it fits the context.
"""

from __future__ import annotations

import argparse
import sys
import time

from common import Parser, one_of, start, whole
from generate import load, sampling, sampling_options

import tinyplm
from tinyplm.generation import Memory, stream
from tinyplm.memory import keep_freed_memory
from tinyplm.tokenizers.chat.formats import TEMPLATES, Template, encode, folder_template, turn_ends

KEYS = "/new begins anew, /exit or Ctrl-D ends, Ctrl-C breaks an answer off"


class Chat:
    """A conversation in a chat format."""

    def __init__(self, model: tinyplm.Model, template: Template, system: str | None, room: int) -> None:
        self.tokenizer, self.template, self.room = model.text_tokenizer(), template, room
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict] = []  # with their answers
        self.asked: list[dict] = []  # the same with a message that has none yet
        self.ids: list[int] = []  # of what was asked
        self.stop_ids = model.end_ids().union(turn_ends(self.tokenizer, template))
        self.stop_strings = [end for end in template.ends if self.tokenizer.token_to_id(end) is None]

    def prompt(self, said: str) -> list[int]:
        """The ids to go on from.  Where they leave no room for an answer, the oldest turns are forgotten."""
        messages = [*self.messages, {"role": "user", "content": said}]
        ids = encode(self.tokenizer, self.template, [*self.system, *messages])
        while len(ids) > self.room and len(messages) > 2:
            messages = messages[2:]
            ids = encode(self.tokenizer, self.template, [*self.system, *messages])
            print("(the oldest turn is forgotten: the context is full)", file=sys.stderr)
        self.asked, self.ids = messages, ids
        return ids

    def answered(self, ids: list[int]) -> None:
        answer = self.tokenizer.decode([i for i in ids if i not in self.stop_ids], skip_special=True, after=self.ids)
        for end in self.stop_strings:
            answer = answer.split(end)[0]
        # what the model spelled out letter by letter must not become a special token when it is read again
        while (plain := self.tokenizer.decode(self.tokenizer.encode(answer, allow_special=True), skip_special=True)) != answer:
            answer = plain
        self.messages = [*self.asked, {"role": "assistant", "content": answer}]


class Text:
    """No chat format: one text, which you and the model write in turn."""

    def __init__(self, model: tinyplm.Model, room: int) -> None:
        self.tokenizer, self.room = model.text_tokenizer(), room
        self.stop_ids, self.stop_strings = model.end_ids(), []
        self.ids: list[int] = []
        self.asked: list[int] = []

    def prompt(self, said: str) -> list[int]:
        self.asked = self.ids + self.tokenizer.continue_ids(self.ids, said) if self.ids else self.tokenizer.prompt(said)
        if len(self.asked) > self.room:
            self.asked = self.asked[-(self.room // 2 + 1) :]
            print("(the beginning is forgotten: the context is full)", file=sys.stderr)
        return self.asked

    def answered(self, ids: list[int]) -> None:
        self.ids = self.asked + [i for i in ids if i not in self.stop_ids]


def answer(model: tinyplm.Model, talk: Chat | Text, said: str, memory: Memory, options: argparse.Namespace, turn: int) -> None:
    """Show the answer as it comes, and its speed."""
    prompt = talk.prompt(said)
    ids: list[int] = []
    begin = time.perf_counter()
    first = begin
    try:
        for (piece,) in stream(model, prompt, max_new_tokens=options.tokens, seed=options.seed + turn, stop_ids=talk.stop_ids,
                               stop_strings=talk.stop_strings, memory=memory, **sampling(options)):  # fmt: skip
            if not ids:
                first = time.perf_counter()
            ids.append(piece.id)
            print(piece.text, end="", flush=True)
    except KeyboardInterrupt:  # what was said so far stands
        print(" ...", end="")
    end = time.perf_counter()
    talk.answered(ids)
    speed = f", {(len(ids) - 1) / (end - first):.1f} tokens a second" if len(ids) > 1 else ""
    print(flush=True)
    print(f"[{len(ids)} tokens, the first after {first - begin:.2f} s{speed}]", file=sys.stderr)


def parser() -> Parser:
    parser = Parser(__doc__, epilog=f"Inside: {KEYS}.")
    parser.add_argument("folder", help="A folder with config.json, model.safetensors and tokenizer.json, or a run's --out.")
    parser.option("--template", None, f"A known chat format: {', '.join(TEMPLATES)}; or none, for plain text.",
                  one_of(*TEMPLATES, "none"), otherwise="the folder's, if it has one")  # fmt: skip
    parser.option("--system", None, "The system message.", otherwise="none")
    parser.option("--tokens", None, "The number of tokens of an answer at most.", whole(1),
                  otherwise="256, or half the context if that is less")  # fmt: skip
    sampling_options(parser)
    return parser


def main() -> None:
    options = parser().options()
    keep_freed_memory()
    model = load(options)
    model.text_tokenizer()
    context = model.config.context
    if options.tokens is None:
        options.tokens = max(1, min(256, context // 2))
    if not 1 <= options.tokens < context:
        raise ValueError(f"--tokens must be from 1 to {context - 1}, since the context has {context}, got {options.tokens}")
    template = TEMPLATES.get(options.template)
    if options.template is None:
        template = folder_template(model.files, model.tokenizer.named)
    if template is None and options.system is not None:
        raise ValueError("--system needs a chat template, and the folder has none: name one with --template")
    room = context - options.tokens

    def begin() -> Chat | Text:
        return Text(model, room) if template is None else Chat(model, template, options.system, room)

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
            except ValueError as error:  # of this message; the conversation goes on
                print(f"error: {error}", file=sys.stderr)
            turn += 1


if __name__ == "__main__":
    start(main)
