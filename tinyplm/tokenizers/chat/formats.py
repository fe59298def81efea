"""Chat formats: a list of messages as the one text that a chat model was trained on.

A message is {"role": "system" | "user" | "assistant", "content": text}; a system message comes first, then user and assistant
take turns.  To be answered, the user has the last word, and the text ends where the assistant's answer begins.  To be trained on
(add_generation_prompt=False), the text ends with the last message, mostly an answer and the token that ends it.

The known formats are rendered here.  A template that comes with a model is a program in Jinja (chat_templates.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..files.settings import CHAT_TEMPLATE, CONFIG, chat_template, named_tokens, read_settings

Messages = Sequence[Mapping[str, str]]


class Render(Protocol):
    def __call__(self, messages: Messages, add_generation_prompt: bool = True) -> str: ...


class Template(NamedTuple):
    """render: messages to text.  ends: the texts, tokens of their own in most vocabularies, that end an answer (see turn_ends).
    source: the same in Jinja, as saved in a folder (None: it cannot be saved)."""

    render: Render
    ends: tuple[str, ...]
    source: str | None = None


def check_messages(messages: Messages, add_generation_prompt: bool = True) -> None:
    """ValueError unless messages hold texts only (no pictures, no calls of tools), and roles come in the order above."""
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise ValueError(
                f"message {number} must be an object with role and content, got {message!r:.80}"
            )
        for name, value in message.items():
            if not isinstance(value, str):
                raise ValueError(f"message {number}: {name} must be a text, got {value!r:.80}")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(turns)):
        raise ValueError(
            f"messages must be user, assistant, user, ..., with a system message before them at most; got {roles}"
        )
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


_ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def _alpaca(messages: Messages, add_generation_prompt: bool = True) -> str:
    """Taori et al. 2023; the format has one instruction, later turns follow in the same way."""
    system, turns = _split_system(messages)
    names = {"user": "Instruction", "assistant": "Response"}
    said = "".join(f"### {names[m['role']]}:\n{m['content']}\n\n" for m in turns)
    return (
        f"{_ALPACA if system is None else system}\n\n{said}"
        + "### Response:\n" * add_generation_prompt
    )


def _split_system(messages: Messages) -> tuple[str | None, Messages]:
    return (
        (messages[0]["content"], messages[1:])
        if messages[0]["role"] == "system"
        else (None, messages)
    )


_SPLIT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = none %}{% set turns = messages %}{% endif %}"
)
TEMPLATES: dict[str, Template] = {
    "chatml": Template(
        _chatml,
        ("<|im_end|>",),
        (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
    ),
    "llama2": Template(
        _llama2,
        ("</s>",),
        _SPLIT_SYSTEM
        + (
            "{% for m in turns %}{% if m['role'] == 'assistant' %} {{ m['content'] | trim }} </s>{% else %}<s>[INST] "
            "{% if loop.first and system is not none %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}"
            "{{ m['content'] | trim }} [/INST]{% endif %}{% endfor %}"
        ),
    ),
    "llama3": Template(
        _llama3,
        ("<|eot_id|>",),
        (
            "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
            "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
            "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
        ),
    ),
    "alpaca": Template(
        _alpaca,
        ("### Instruction:",),
        _SPLIT_SYSTEM
        + (
            "{% if system is none %}"
            + _ALPACA
            + "{% else %}{{ system }}{% endif %}{{ '\n\n' }}{% for m in turns %}"
            "### {{ 'Response' if m['role'] == 'assistant' else 'Instruction' }}:\n{{ m['content'] }}\n\n{% endfor %}"
            "{% if add_generation_prompt %}### Response:\n{% endif %}"
        ),
    ),
}


def folder_template(
    files: Mapping[str, bytes], named: Mapping[str, str] | None = None
) -> Template | None:
    """The chat template in a model folder's files (settings.py says where); None if there is none.

    named: the texts of bos_token, eos_token ... for the template, as in Tokenizer.named; by default those of the files.
    A known format is rendered here.  Any other template is somebody's program, so it runs in jinja2's sandbox and within limits
    (chat_templates.py); ValueError when jinja2 is not installed.
    """
    source = chat_template(files)
    tokens = dict(named_tokens(read_settings(files)) if named is None else named)
    if source is None:
        return None
    known = next((template for template in TEMPLATES.values() if template.source == source), None)
    where = CHAT_TEMPLATE if CHAT_TEMPLATE in files else CONFIG
    return known or Template(
        _jinja(source, tokens, where),
        tuple(tokens[name] for name in ("eos_token",) if name in tokens),
        source,
    )


def turn_ends(tokenizer: Any, template: Template) -> list[int]:
    """The ids of the tokens that end an answer: those of template.ends in the vocabulary and, for a folder's own template, the
    special token that it writes after an answer, since many templates end a turn with another token than a text."""
    ids = {tokenizer.token_to_id(end) for end in template.ends} - {None}
    if template.source is not None and template not in TEMPLATES.values():
        answer = "tinyplm"  # occurs nowhere else in the text
        try:
            text = template.render(
                [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}], False
            )
        except ValueError:  # it refuses this conversation
            return sorted(ids)
        _, found, behind = text.rpartition(answer)
        special = (
            id
            for id in tokenizer.encode(behind, allow_special=True)
            if found and tokenizer.is_special(id)
        )
        ids.update(itertools.islice(special, 1))
    return sorted(ids)


def _jinja(source: str, tokens: dict[str, str], where: str) -> Render:
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise ValueError(
            "the folder's chat template needs jinja2: pip install jinja2, or name another template"
        ) from None
    from .sandbox import compile_template

    return compile_template(source, tokens, where)


def encode(
    tokenizer: Any, template: Template, messages: Messages, add_generation_prompt: bool = True
) -> list[int]:
    """The ids of the rendered messages.  ValueError when a message holds a special token's text, which would forge a turn."""
    check_messages(messages, add_generation_prompt)
    for message in messages:
        for text in message.values():
            if tokenizer.encode(text, allow_special=True) != tokenizer.encode(text):
                raise ValueError(
                    f"the {message['role']}'s message holds the text of a special token: {text!r:.80}"
                )
    return tokenizer.encode(template.render(messages, add_generation_prompt), allow_special=True)
