"""Chat formats: a list of messages as the one text that a chat model was trained on.

A message is {"role": "system" | "user" | "assistant", "content": text}.  An optional system message
comes first, then user and assistant alternate.  For generation, the last message is the user's, and
the text ends where the assistant's answer starts.  For training (add_generation_prompt=False), the
text ends with the last message, usually an answer and the token that ends it.

The well-known formats are rendered here.  A template that comes with a model is a Jinja program
(sandbox.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ...arguments import check_list, mismatch, shown, wrong
from ..files.settings import CHAT_TEMPLATE, CONFIG, chat_template, named_tokens, read_settings

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

Messages = Sequence[Mapping[str, str]]


class Render(Protocol):
    """Messages to text."""

    def __call__(self, messages: Messages, add_generation_prompt: bool = True) -> str: ...


class Template(NamedTuple):
    """render: messages to text.  ends: texts that end an answer, in most vocabularies single tokens
    (see turn_ends).
    source: the same in Jinja, to be saved with a model (None: cannot be saved)."""

    render: Render
    ends: tuple[str, ...]
    source: str | None = None


def check_messages(messages: Messages, add_generation_prompt: bool = True) -> None:
    """ValueError unless messages contain only text (no images, no tool calls), with roles in the
    order above."""
    check_list("messages", messages, "a list of messages")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise wrong(f"message {number}", "an object with role and content", message)
        for name, value in message.items():
            if not isinstance(value, str):
                raise wrong(f"message {number}: {name}", "a string", value)
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(turns)):
        expected = "an optional system message, then user, assistant, user, ... in turn"
        raise wrong("messages", expected, roles)
    if add_generation_prompt and turns[-1] != "user":
        raise wrong("messages", "a last message of the user, to be answered", roles)


def _chatml(messages: Messages, add_generation_prompt: bool = True) -> str:
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return said + "<|im_start|>assistant\n" * add_generation_prompt


def _llama2(messages: Messages, add_generation_prompt: bool = True) -> str:
    """Touvron et al. 2023b, app. A.3.3: the system message is inside the first instruction.
    Nothing opens an answer."""
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


_ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def _alpaca(messages: Messages, add_generation_prompt: bool = True) -> str:
    """Taori et al. 2023; the format has a single instruction, and further turns repeat it."""
    system, turns = _split_system(messages)
    names = {"user": "Instruction", "assistant": "Response"}
    said = "".join(f"### {names[m['role']]}:\n{m['content']}\n\n" for m in turns)
    prompt = "### Response:\n" * add_generation_prompt
    return f"{_ALPACA if system is None else system}\n\n{said}{prompt}"


def _chatglm2(messages: Messages, add_generation_prompt: bool = True) -> str:
    """Numbered rounds of question and answer.  The format has no system message; one stands before
    the first round."""
    system, turns = _split_system(messages)
    text = "[gMASK]sop" + (system or "")
    for i, m in enumerate(turns):
        before = "\n\n" if i or system else ""
        asked = f"{before}[Round {i // 2 + 1}]\n\n问：{m['content']}\n\n答："
        text += m["content"] if i % 2 else asked
    return text


def _by_role(start: str, between: str) -> Render:
    """A role's token, what stands between it and its words, and the words.  The token of the next
    role ends an answer."""

    def render(messages: Messages, add_generation_prompt: bool = True) -> str:
        said = "".join(f"<|{m['role']}|>{between}{m['content']}" for m in messages)
        return start + said + "<|assistant|>" * add_generation_prompt

    return render


def _split_system(messages: Messages) -> tuple[str | None, Messages]:
    if messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


_SPLIT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = none %}{% set turns = messages %}{% endif %}"
)
_CHATML_SOURCE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA2_SOURCE = _SPLIT_SYSTEM + (
    "{% for m in turns %}{% if m['role'] == 'assistant' %} {{ m['content'] | trim }} </s>"
    "{% else %}<s>[INST] "
    "{% if loop.first and system is not none %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}"
    "{{ m['content'] | trim }} [/INST]{% endif %}{% endfor %}"
)
_LLAMA3_SOURCE = (
    "<|begin_of_text|>{% for m in messages %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_ALPACA_SOURCE = _SPLIT_SYSTEM + (
    "{% if system is none %}" + _ALPACA + "{% else %}{{ system }}{% endif %}{{ '\n\n' }}"
    "{% for m in turns %}"
    "### {{ 'Response' if m['role'] == 'assistant' else 'Instruction' }}:\n{{ m['content'] }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
_CHATGLM2_SOURCE = "[gMASK]sop" + (
    _SPLIT_SYSTEM
    + "{{ system or '' }}{% for m in turns %}{% if m['role'] == 'assistant' %}{{ m['content'] }}"
    "{% else %}{% if system or not loop.first %}{{ '\n\n' }}{% endif %}"
    "[Round {{ loop.index0 // 2 + 1 }}]\n\n问：{{ m['content'] }}\n\n答：{% endif %}{% endfor %}"
)


def _by_role_source(start: str, between: str) -> str:
    return (
        f"{start}{{% for m in messages %}}<|{{{{ m['role'] }}}}|>{between}{{{{ m['content'] }}}}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


# ChatGLM3's words begin with the space that SentencePiece puts before each text.
_CHATGLM3, _GLM4 = ("[gMASK]sop", "\n "), ("[gMASK]<sop>", "\n")
_TURNS = ("<|user|>", "<|observation|>")

TEMPLATES: dict[str, Template] = {
    "chatml": Template(_chatml, ("<|im_end|>",), _CHATML_SOURCE),
    "llama2": Template(_llama2, ("</s>",), _LLAMA2_SOURCE),
    "llama3": Template(_llama3, ("<|eot_id|>",), _LLAMA3_SOURCE),
    "alpaca": Template(_alpaca, ("### Instruction:",), _ALPACA_SOURCE),
    "chatglm2": Template(_chatglm2, ("</s>",), _CHATGLM2_SOURCE),
    "chatglm3": Template(_by_role(*_CHATGLM3), (*_TURNS, "</s>"), _by_role_source(*_CHATGLM3)),
    "glm4": Template(_by_role(*_GLM4), (*_TURNS, "<|endoftext|>"), _by_role_source(*_GLM4)),
}


def folder_template(
    files: Mapping[str, bytes], named: Mapping[str, str] | None = None
) -> Template | None:
    """The chat template among a model folder's files (see files/settings.py); None if there is
    none.

    named: the texts of bos_token, eos_token ... for the template, as in Tokenizer.named; by default
    those of the files.

    A known format is rendered here.  Any other template is an untrusted program, and runs in
    jinja2's sandbox within limits (sandbox.py); ValueError if jinja2 is not installed.
    """
    source = chat_template(files)
    tokens = dict(named_tokens(read_settings(files)) if named is None else named)
    if source is None:
        return None
    known = next((template for template in TEMPLATES.values() if template.source == source), None)
    where = CHAT_TEMPLATE if CHAT_TEMPLATE in files else CONFIG
    if known:
        return known
    ends = (tokens["eos_token"],) if "eos_token" in tokens else ()
    return Template(_jinja(source, tokens, where), ends, source)


def turn_ends(tokenizer: Tokenizer, template: Template) -> list[int]:
    """The ids of the tokens that end an answer: those of template.ends in the vocabulary; and, for
    a folder's own template, the special token that it emits after an answer, since many templates
    end turns with another token than texts."""
    found = map(tokenizer.token_to_id, template.ends)
    ids = {id for id in found if id is not None}
    if template.source is not None and template not in TEMPLATES.values():
        answer = "tinyplm"  # occurs nowhere else in the text
        try:
            text = template.render(
                [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}], False
            )
        except ValueError:  # the template refuses this conversation
            return sorted(ids)
        _, found_answer, rest = text.rpartition(answer)
        encoded = tokenizer.encode(rest, allow_special=True) if found_answer else []
        ids.update(itertools.islice(filter(tokenizer.is_special, encoded), 1))
    return sorted(ids)


def _jinja(source: str, tokens: dict[str, str], where: str) -> Render:
    try:
        import jinja2  # noqa: F401
    except ImportError:
        expected = "jinja2 to be installed (pip install jinja2), or another template by name"
        raise mismatch(f"{where}: chat_template", expected, "neither") from None
    from .sandbox import compile_template

    return compile_template(source, tokens, where)


def encode(
    tokenizer: Tokenizer, template: Template, messages: Messages, add_generation_prompt: bool = True
) -> list[int]:
    """The ids of the rendered messages.  ValueError if a message contains a special token's text,
    which could forge a turn."""
    check_messages(messages, add_generation_prompt)
    for message in messages:
        for text in message.values():
            if tokenizer.encode(text, allow_special=True) != tokenizer.encode(text):
                expected = "no text of a special token"
                raise mismatch("messages", expected, f"{shown(text)} from the {message['role']}")
    return tokenizer.encode(template.render(messages, add_generation_prompt), allow_special=True)
