"""Chat formats: a list of messages as the one text that a chat model was trained on.

A message is {"role": "system" | "user" | "assistant", "content": text}; a system message comes first, then user and assistant
take turns.  To be answered, the user has the last word, and the text ends where the assistant's answer begins.  To be trained on
(add_generation_prompt=False), the text ends with the last message, mostly an answer and the token that ends it.

The known formats are rendered here.  A template that comes with a model is a program in Jinja: jinja2 renders it, in its sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

Messages = Sequence[Mapping[str, str]]


class Render(Protocol):
    def __call__(self, messages: Messages, add_generation_prompt: bool = True) -> str: ...


class Template(NamedTuple):
    """render: messages to text.  ends: the texts, tokens of their own in most vocabularies, that end an answer."""

    render: Render
    ends: tuple[str, ...]


def check_messages(messages: Messages, add_generation_prompt: bool = True) -> None:
    """ValueError unless messages hold texts only (no pictures, no calls of tools), and roles come in the order above."""
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise ValueError(f"message {number} must be an object with role and content, got {message!r:.80}")
        for name, value in message.items():
            if not isinstance(value, str):
                raise ValueError(f"message {number}: {name} must be a text, got {value!r:.80}")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(turns)):
        raise ValueError(f"messages must be user, assistant, user, ..., with a system message before them at most; got {roles}")
    if add_generation_prompt and turns[-1] != "user":
        raise ValueError(f"to be answered, messages must end with the user's; got {roles}")


def _chatml(messages: Messages, add_generation_prompt: bool = True) -> str:
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return said + "<|im_start|>assistant\n" * add_generation_prompt


def _llama2(messages: Messages, add_generation_prompt: bool = True) -> str:
    """Touvron et al. 2023b, app. A.3.3: the system message stands inside the first instruction.  Nothing opens an answer."""
    system, turns = _split_system(messages)
    text = ""
    for i, m in enumerate(turns):
        if m["role"] == "assistant":
            text += f" {m['content'].strip()} </s>"
        else:
            before = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if i == 0 and system is not None else ""
            text += f"<s>[INST] {before}{m['content'].strip()} [/INST]"
    return text


def _llama3(messages: Messages, add_generation_prompt: bool = True) -> str:
    def head(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    said = "".join(f"{head(m['role'])}{m['content'].strip()}<|eot_id|>" for m in messages)
    return "<|begin_of_text|>" + said + head("assistant") * add_generation_prompt


def _alpaca(messages: Messages, add_generation_prompt: bool = True) -> str:
    """Taori et al. 2023; the format has one instruction, later turns follow in the same way."""
    system, turns = _split_system(messages)
    task = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    names = {"user": "Instruction", "assistant": "Response"}
    said = "".join(f"### {names[m['role']]}:\n{m['content']}\n\n" for m in turns)
    return f"{task if system is None else system}\n\n{said}" + "### Response:\n" * add_generation_prompt


def _split_system(messages: Messages) -> tuple[str | None, Messages]:
    return (messages[0]["content"], messages[1:]) if messages[0]["role"] == "system" else (None, messages)


TEMPLATES: dict[str, Template] = {
    "chatml": Template(_chatml, ("<|im_end|>",)),
    "llama2": Template(_llama2, ("</s>",)),
    "llama3": Template(_llama3, ("<|eot_id|>",)),
    "alpaca": Template(_alpaca, ("### Instruction:",)),
}


def folder_template(files: Mapping[str, bytes]) -> Template | None:
    """The Jinja template in a model folder's files (chat_template.jinja, or in tokenizer_config.json); None if there is none.

    It is somebody's program, so it runs in jinja2's sandbox.  ValueError when jinja2 is not installed.
    """
    try:
        settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    except ValueError as error:
        raise ValueError(f"tokenizer_config.json: not valid JSON ({error})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"tokenizer_config.json: expected an object, got {settings!r:.80}")
    source = settings.get("chat_template")
    if "chat_template.jinja" in files:
        try:
            source = files["chat_template.jinja"].decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"chat_template.jinja: not UTF-8 ({error})") from None
    if isinstance(source, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        if named and "default" not in named:
            raise ValueError(f"tokenizer_config.json: no chat_template is named default, only {', '.join(map(repr, named))}")
        source = named.get("default", source)
    if source is None:
        return None
    if not isinstance(source, str):
        raise ValueError(f"tokenizer_config.json: chat_template must be a text, or a list of them with names, got {source!r:.80}")
    tokens = {name: value.get("content", "") if isinstance(value, dict) else value
              for name, value in settings.items() if name.endswith("_token") and isinstance(value, (str, dict))}  # fmt: skip
    return Template(_jinja(source, tokens), tuple(tokens[name] for name in ("eos_token",) if name in tokens))


def _jinja(source: str, tokens: dict[str, str]) -> Render:
    try:
        from jinja2 import TemplateError
        from jinja2.ext import Extension
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ValueError(
            "the folder's chat template needs jinja2: pip install 'tinyplm[chat]', or name another template"
        ) from None

    def refuse(message: str) -> None:
        raise TemplateError(message)

    class Generation(Extension):
        """{% generation %} ... {% endgeneration %} marks the assistant's words for training; here it changes nothing."""

        tags = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=["jinja2.ext.loopcontrols", Generation])  # fmt: skip
    # what templates of the hub call
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.filters["tojson"] = _to_json
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise ValueError(f"the folder's chat template is not valid: {error}") from None

    def render(messages: Messages, add_generation_prompt: bool = True) -> str:
        known = {"messages": [dict(m) for m in messages], "add_generation_prompt": add_generation_prompt}
        absent = {"tools": None, "documents": None}  # templates ask "is not none", which holds for what is not defined
        try:
            return template.render(tokens | known | absent)
        except Exception as error:  # it is somebody's program, and whatever goes wrong in it is not ours
            raise ValueError(f"the folder's chat template refuses these messages: {error}") from None

    return render


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """As transformers renders it; jinja2's own filter is made for HTML and writes < as \\u003c."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def encode(tokenizer: Any, template: Template, messages: Messages, add_generation_prompt: bool = True) -> list[int]:
    """The ids of the rendered messages.  ValueError when a message holds a special token's text, which would forge a turn."""
    check_messages(messages, add_generation_prompt)
    for message in messages:
        for text in message.values():
            if tokenizer.encode(text, allow_special=True) != tokenizer.encode(text):
                raise ValueError(f"the {message['role']}'s message holds the text of a special token: {text!r:.80}")
    return tokenizer.encode(template.render(messages, add_generation_prompt), allow_special=True)
