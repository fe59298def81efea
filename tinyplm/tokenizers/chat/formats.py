"""Chat formats: a list of messages (messages.py) as the one text that a chat model was trained on.

For generation, the last message is the user's or a tool's, and the text ends where the assistant's
answer starts.  For training (add_generation_prompt=False), the text ends with the last message,
usually an answer and the token that ends it.

The well-known formats are rendered here, without tools.  A template that comes with a model is a
Jinja program (sandbox.py), which gets tools and calls as in transformers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...arguments import mismatch, shown
from ..files.settings import CHAT_TEMPLATE, CONFIG, chat_template, named_tokens, read_settings
from .messages import RESULTS, Messages, Tools, check_messages, check_tools, texts_of

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer


class Render(Protocol):
    """Messages to text; one whose Template has tools=True also takes tools=."""

    def __call__(self, messages: Messages, add_generation_prompt: bool = True) -> str: ...


class Template(NamedTuple):
    """render: messages to text.  ends: texts that end an answer, in most vocabularies single tokens
    (see turn_ends).
    source: the same in Jinja, to be saved with a model (None: cannot be saved).
    results: the roles of results of tools that it renders.
    tools: whether it renders calls and the schemas of tools."""

    render: Render
    ends: tuple[str, ...]
    source: str | None = None
    results: tuple[str, ...] = ()
    tools: bool = False


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


def _chatglm(messages: Messages, add_generation_prompt: bool = True) -> str:
    """ChatGLM-6B's: numbered rounds, if there is more than one, then the blank for the answer.  The
    format has no system message; one stands before them.  Earlier answers are in no blank, so a
    conversation of several rounds cannot be trained on at once."""
    system, turns = _split_system(messages)
    text = f"{system}\n" if system else ""
    answer = turns[-1]["content"] if turns[-1]["role"] == "assistant" else None
    for i, m in enumerate(turns):
        if m["role"] == "user":
            asked = f"[Round {i // 2}]\n问：{m['content']}\n答："
            text += asked if len(turns) > 2 else m["content"]
        elif i < len(turns) - 1:
            text += f"{m['content']}\n"
    blank = "[gMASK]<sop>" if add_generation_prompt or answer is not None else ""
    return text + blank + (answer or "")


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


_CHATGLM_SOURCE = _SPLIT_SYSTEM + (
    "{{ system ~ '\n' if system else '' }}{% for m in turns %}{% if m['role'] == 'user' %}"
    "{% if turns | length > 2 %}[Round {{ loop.index0 // 2 }}]\n问：{{ m['content'] }}\n答："
    "{% else %}{{ m['content'] }}{% endif %}"
    "{% elif not loop.last %}{{ m['content'] ~ '\n' }}{% endif %}{% endfor %}"
    "{% if turns[-1]['role'] == 'assistant' %}[gMASK]<sop>{{ turns[-1]['content'] }}"
    "{% elif add_generation_prompt %}[gMASK]<sop>{% endif %}"
)
# ChatGLM3's words begin with the space that SentencePiece puts before each text.
_CHATGLM3, _GLM4 = ("[gMASK]sop", "\n "), ("[gMASK]<sop>", "\n")
_TURNS = ("<|user|>", "<|observation|>")

TEMPLATES: dict[str, Template] = {
    "chatml": Template(_chatml, ("<|im_end|>",), _CHATML_SOURCE),
    "llama2": Template(_llama2, ("</s>",), _LLAMA2_SOURCE),
    "llama3": Template(_llama3, ("<|eot_id|>",), _LLAMA3_SOURCE),
    "alpaca": Template(_alpaca, ("### Instruction:",), _ALPACA_SOURCE),
    "chatglm": Template(_chatglm, ("<eop>",), _CHATGLM_SOURCE),
    "chatglm2": Template(_chatglm2, ("</s>",), _CHATGLM2_SOURCE),
    "chatglm3": Template(
        _by_role(*_CHATGLM3), (*_TURNS, "</s>"), _by_role_source(*_CHATGLM3), ("observation",)
    ),
    "glm4": Template(
        _by_role(*_GLM4), (*_TURNS, "<|endoftext|>"), _by_role_source(*_GLM4), ("observation",)
    ),
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
    return Template(_jinja(source, tokens, where), ends, source, RESULTS, True)


def turn_ends(tokenizer: Tokenizer, template: Template) -> list[int]:
    """The ids of the tokens that end the assistant's turn: those of template.ends in the
    vocabulary; and, for a folder's own template, the special token that it emits after an answer,
    since many templates end turns with another token than texts, and the last one after a call."""
    found = map(tokenizer.token_to_id, template.ends)
    ids = {id for id in found if id is not None}
    if template.source is None or template in TEMPLATES.values():
        return sorted(ids)
    said = "tinyplm"  # occurs nowhere else in the text
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": said}}}
    answers: list[dict[str, Any]] = [{"content": said}, {"content": "", "tool_calls": [call]}]
    for answer in answers:
        turns: Messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", **answer}]
        try:
            text = template.render(turns, False)
        except ValueError:  # the template refuses this conversation
            continue
        _, found_answer, rest = text.rpartition(said)
        encoded = tokenizer.encode(rest, allow_special=True) if found_answer else []
        special = [id for id in encoded if tokenizer.is_special(id)]
        ids.update(special[-1:] if "tool_calls" in answer else special[:1])
    return sorted(ids)


def _jinja(source: str, tokens: dict[str, str], where: str) -> Render:
    try:
        import jinja2  # noqa: F401
    except ImportError:
        expected = "jinja2 to be installed (pip install jinja2), or another template by name"
        raise mismatch(f"{where}: chat_template", expected, "neither") from None
    from .sandbox import compile_template

    return compile_template(source, tokens, where)


def render(
    template: Template,
    messages: Messages,
    add_generation_prompt: bool = True,
    tools: Tools | None = None,
) -> str:
    """The text of messages, which the caller has checked, with the schemas of tools."""
    given: dict[str, Any] = {} if tools is None else {"tools": list(tools)}
    return template.render(messages, add_generation_prompt, **given)


def checked_text(
    template: Template,
    messages: Messages,
    add_generation_prompt: bool = True,
    tools: Tools | None = None,
) -> str:
    """The text of messages, which are checked.

    ValueError if the template knows nothing of the tools, calls or results among them, or leaves
    them out of the text.
    """
    check_messages(messages, add_generation_prompt)
    check_tools(tools)
    called = any("tool_calls" in message for message in messages)
    roles = [message["role"] for message in messages if message["role"] in RESULTS]
    if (called or tools is not None) and not template.tools:
        what = "calls of tools" if called else "schemas of tools"
        expected = f"one that renders {what}, such as one of a model's folder"
        raise mismatch("template", expected, _name(template))
    for role in roles:
        if role not in template.results:
            raise mismatch("template", f"one that renders the role {role!r}", _name(template))
    text = render(template, messages, add_generation_prompt, tools)
    for what, others, schemas in _without(messages, tools):
        try:
            same = render(template, others, add_generation_prompt, schemas) == text
        except ValueError:  # it looks at them, at least
            continue
        if same:
            expected = f"one that renders {what}"
            raise mismatch("template", expected, f"{_name(template)}, which leaves them out")
    return text


def _name(template: Template) -> str:
    names = (name for name, known in TEMPLATES.items() if known == template)
    return next(names, "one without" if not template.tools else "the folder's")


def _without(
    messages: Messages, tools: Tools | None
) -> Iterator[tuple[str, Messages, Tools | None]]:
    """(what, the messages with something else in its place, the tools) for each thing of tools."""
    if tools is not None:
        yield "schemas of tools", messages, None
    if any("tool_calls" in message for message in messages):
        yield "calls of tools", [_renamed(message) for message in messages], tools
    if any(message["role"] in RESULTS for message in messages):
        others = [
            {**m, "content": f"{m['content']}tinyplm"} if m["role"] in RESULTS else m
            for m in messages
        ]
        yield "results of tools", others, tools


def _renamed(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with other names of the functions it calls."""
    if "tool_calls" not in message:
        return message
    functions = (call["function"] for call in message["tool_calls"])
    calls = [
        {**call, "function": {**function, "name": f"{function['name']}tinyplm"}}
        for call, function in zip(message["tool_calls"], functions)
    ]
    return {**message, "tool_calls": calls}


def encode(
    tokenizer: Tokenizer,
    template: Template,
    messages: Messages,
    add_generation_prompt: bool = True,
    *,
    tools: Tools | None = None,
) -> list[int]:
    """The ids of the rendered messages; tools: the schemas of the tools that may be called.

    ValueError if a message or a schema contains a special token's text, which could forge a turn,
    and for tools where the template has none.
    """
    text = checked_text(template, messages, add_generation_prompt, tools)
    check_texts(tokenizer, messages, tools)
    return tokenizer.encode(text, allow_special=True)


def check_texts(tokenizer: Tokenizer, messages: Messages, tools: Tools | None = None) -> None:
    """ValueError if one of the texts contains a special token's text."""
    places = [(m, f"the {m['role']}") for m in messages]
    for value, place in itertools.chain(places, ((tool, "the tools") for tool in tools or ())):
        for text in texts_of(value):
            if tokenizer.encode(text, allow_special=True) != tokenizer.encode(text):
                expected = "no text of a special token"
                raise mismatch("messages", expected, f"{shown(text)} from {place}")
