"""Chat in the terminal with any chat model, or let a plain language model continue your text.

    tinyplm chat --model path/to/a/chat/model                 # the folder's own chat template
    tinyplm chat --model out-sft --template chatml --system "Answer in one sentence."
    tinyplm chat --model out                                  # plain text continuation

Answers are streamed token by token, followed by the tokens per second; Ctrl-C interrupts one.
Earlier turns stay in the key/value cache as long as they fit the context.  In the chat:

    /help           this list
    /reset, /new    start over
    /system TEXT    change the system message from the next answer on; without a text, show it
    /save FILE      add the conversation to a file of JSON lines, as {"messages": ...}, which tuning
                    reads; a plain text as {"text": ...}
    /exit, Ctrl-D   leave
    //text          send "/text" to the model
"""

from __future__ import annotations

import argparse
import sys
import time

from ..arguments import mismatch, shown
from ..generation import Memory, stream
from ..memory import keep_freed_memory
from ..models.language_model import LanguageModel
from ..models.model import check_decoder
from ..tokenizers.chat.formats import TEMPLATES, Template, folder_template
from .conversation import Chat, Text
from .parser import Parser, one_of, whole
from .sampling import open_writer, sampling, sampling_options

LIST = __doc__[__doc__.index("    /help") :].rstrip()
KEYS = "/help lists the commands, /exit or Ctrl-D quits, Ctrl-C interrupts an answer"
NAMES = ("/help", "/reset", "/new", "/system", "/save", "/exit")


class Session:
    """A conversation with its cache, and the commands."""

    def __init__(
        self, model: LanguageModel, template: Template | None, options: argparse.Namespace
    ) -> None:
        self.model, self.template, self.options = model, template, options
        self.system, self.turn, self.memory = options.system, 0, Memory()
        self.reset()

    def reset(self) -> None:
        room = self.model.config.context - self.options.tokens
        self.talk: Chat | Text = (
            Text(self.model, room)
            if self.template is None
            else Chat(self.model, self.template, self.system, room)
        )

    def handle(self, said: str) -> bool:
        """Answer a line that was typed, or do as it commands; returns whether to go on."""
        if not said.startswith("/") or said.startswith("//"):
            if said:
                self.turn += 1
                self.answer(said.removeprefix("/"))
            return True
        name, _, text = said.partition(" ")
        text = text.strip()
        if name not in NAMES:
            hint = f"to send it as text, type /{said}" if len(said) < 60 else "// sends a / as text"
            raise mismatch(shown(name), f"one of {', '.join(NAMES)}", f"another command ({hint})")
        if text and name not in ("/save", "/system"):
            raise mismatch(name, "nothing after it", shown(text))
        if name == "/help":
            print(LIST, file=sys.stderr)
        elif name in ("/reset", "/new"):
            self.reset()
        elif name == "/save":
            print(f"[{self.talk.save(text)}]", file=sys.stderr)
        elif name == "/system" and text:
            self.talk.set_system(text)
            self.system = text
        elif name == "/system":
            print(
                f"[system message: {shown(self.system) if self.system else 'none'}]",
                file=sys.stderr,
            )
        return name != "/exit"

    def answer(self, said: str) -> None:
        """Stream the answer and report its speed."""
        talk, options = self.talk, self.options
        prompt = talk.prompt(said)
        ids: list[int] = []
        begin = time.perf_counter()
        first = begin
        try:
            for (piece,) in stream(
                self.model,
                prompt,
                max_new_tokens=options.tokens,
                seed=options.seed + self.turn - 1,
                stop_ids=talk.stop_ids,
                stop_strings=talk.stop_strings,
                memory=self.memory,
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
    session = Session(model, template, options)
    print(f"{model}; {'plain text' if template is None else 'chat'}; {KEYS}", file=sys.stderr)
    more = True
    while more:
        try:
            said = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        try:
            more = session.handle(said)
        except (ValueError, OSError) as error:  # in this line; the conversation continues
            print(f"error: {error}", file=sys.stderr)
