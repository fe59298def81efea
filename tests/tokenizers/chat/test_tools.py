"""Messages with calls of tools and their results: order, templates, the tokens that count."""

from __future__ import annotations

import json

import pytest

from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat import TEMPLATES, Template, check_messages, check_tools, encode, folder_template, turn_ends
from tinyplm.tuning.data.conversations import check_marks, conversation, conversations, prompt_ids

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eom|>")
ADD = {"type": "function", "function": {
    "name": "add", "description": "The sum of two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}}  # fmt: skip
CALLS = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": b}}} for b in (3, 4)]
USER, ANSWER = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "It is 5."}
CALL, RESULT = {"role": "assistant", "content": "", "tool_calls": CALLS[:1]}, {"role": "tool", "content": "5"}
SYSTEM = {"role": "system", "content": "Be <kind>."}
TALKS = {
    "one call": [SYSTEM, USER, CALL, RESULT, ANSWER, USER, ANSWER],
    "two calls at once": [USER, {"role": "assistant", "tool_calls": CALLS}, RESULT, {"role": "tool", "content": "6"}, ANSWER],
    "a call after a call": [USER, CALL | {"content": "First,"}, RESULT, CALL, RESULT, ANSWER],
}
# in the manner of Qwen2.5 and Hermes: schemas in the system message, results as the user's words
HERMES_LIKE = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}
    {{- 'You may call:\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{% endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if m.content %}{{- '\\n' + m.content }}{% endif %}
        {%- for call in m.tool_calls %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
        {{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{% endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
# calls end with a token of their own, as in LLaMA 3.1
LLAMA_LIKE = """
{{- bos_token }}
{%- if tools is not none %}{{- 'tools:' }}{% for t in tools %}{{- t.function | tojson(indent=2) }}{% endfor %}{% endif %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.tool_calls is defined %}
        {%- for c in m.tool_calls %}
            {{- {'name': c.function.name, 'parameters': c.function.arguments} | tojson }}
        {%- endfor %}{{- '<|eom|>' }}
    {%- elif m.role == 'tool' %}{{- {'output': m.content} | tojson + '<|im_end|>' }}
    {%- else %}{{- m.content | trim + '<|im_end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
MISTRAL_LIKE = """
{{- bos_token }}{% for m in messages %}
    {%- if loop.first and tools %}{{- '[TOOLS]' + tools | tojson + '[/TOOLS]' }}{% endif %}
    {%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}
    {%- elif m.tool_calls %}{{- '[CALLS]' }}{% for c in m.tool_calls %}
        {{- c.function.name + ' ' }}{{- c.function.arguments | tojson }}{% endfor %}{{- eos_token }}
    {%- elif m.role == 'tool' %}{{- '[RESULTS]' + m.content + '[/RESULTS]' }}
    {%- elif m.role == 'assistant' %}{{- ' ' + m.content + eos_token }}{% endif %}
{%- endfor %}"""
TEMPLATES_WITH_TOOLS = {"hermes": HERMES_LIKE, "llama": LLAMA_LIKE, "mistral": MISTRAL_LIKE}


def folder(source):
    config = {"chat_template": source, "eos_token": SPECIAL[2], "bos_token": SPECIAL[0]}
    return folder_template({"tokenizer_config.json": json.dumps(config).encode()})


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["user system assistant hi tool_call add"], 300, SPECIAL)


def counted(tokenizer, sequence):
    runs, last = [], False
    for id, counts in zip(sequence.ids, sequence.counts):
        if counts and not last:
            runs.append([])
        if counts:
            runs[-1].append(id)
        last = counts
    return [tokenizer.decode(run) for run in runs]


CALLED = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call><|im_end|>'


@pytest.mark.parametrize(("name", "talk", "answers"), [
    ("hermes", "one call", [CALLED, "It is 5.<|im_end|>", "It is 5.<|im_end|>"]),
    ("hermes", "two calls at once", [CALLED.replace("<|im_end|>", f"\n{CALLED}".replace('"b": 3', '"b": 4')),
                                     "It is 5.<|im_end|>"]),
    ("hermes", "a call after a call", [f"First,\n{CALLED}", CALLED, "It is 5.<|im_end|>"]),
    ("llama", "one call", ['{"name": "add", "parameters": {"a": 2, "b": 3}}<|eom|>', "It is 5.<|im_end|>",
                           "It is 5.<|im_end|>"]),
    ("mistral", "one call", ['[CALLS]add {"a": 2, "b": 3}<|im_end|>', " It is 5.<|im_end|>", " It is 5.<|im_end|>"]),
])  # fmt: skip
def test_what_the_assistant_says_and_calls_counts(tokenizer, name, talk, answers):
    """Not the results; and what precedes a turn is what a chat would read."""
    template = folder(TEMPLATES_WITH_TOOLS[name])
    sequence = conversation(tokenizer, template, TALKS[talk], tools=[ADD])
    assert counted(tokenizer, sequence) == answers
    for n, message in enumerate(TALKS[talk]):
        if message["role"] == "assistant":
            seen = encode(tokenizer, template, TALKS[talk][:n], tools=[ADD])
            assert sequence.ids[: len(seen)] == seen and sequence.counts[len(seen)] and not sequence.counts[len(seen) - 1]
    (again,) = conversations(tokenizer, template, [{"messages": TALKS[talk], "tools": [ADD]}]).sequences
    assert again == sequence
    asked = TALKS[talk][: [message["role"] for message in TALKS[talk]].index("assistant")]
    assert prompt_ids(tokenizer, template, asked, tools=[ADD]) == sequence.ids[: sequence.counts.index(True)]


def test_a_call_may_end_with_another_token(tokenizer):
    ends = [tokenizer.token_to_id(token) for token in SPECIAL[2:]]
    assert turn_ends(tokenizer, folder(LLAMA_LIKE)) == ends
    assert turn_ends(tokenizer, folder(HERMES_LIKE)) == ends[:1] == turn_ends(tokenizer, folder(MISTRAL_LIKE))


@pytest.mark.parametrize("messages", [
    [USER, RESULT], [RESULT, ANSWER], [USER, ANSWER, RESULT, ANSWER], [USER, CALL, ANSWER], [USER, CALL, USER],
    [USER, CALL, RESULT, USER], [SYSTEM, CALL], [USER, {"role": "observation", "content": "x"}],
])  # fmt: skip
def test_tools_out_of_order(messages):
    with pytest.raises(ValueError, match="^messages: expected an optional system message, then user, .* results of tools only"):
        check_messages(messages, messages[-1]["role"] != "assistant")


def test_tools_in_order():
    for talk in TALKS.values():
        for n in range(2, len(talk) + 1):
            check_messages(talk[:n], talk[n - 1]["role"] != "assistant")
    seen = {"role": "observation", "content": "x"}
    check_messages([USER, {"role": "assistant", "content": "add(2, 3)"}, seen, ANSWER], False)
    with pytest.raises(ValueError, match="a last message of the user, to be answered"):
        check_messages([USER, CALL])


def called(**function):
    return [USER, {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}]


@pytest.mark.parametrize(("messages", "message"), [
    ([USER, {"role": "assistant", "tool_calls": []}], r"message 1: tool_calls: expected a list of one or more calls, got \[\]"),
    ([USER, {"role": "assistant", "tool_calls": "add"}], "message 1: tool_calls: expected a list of one or more calls"),
    ([USER, {"role": "assistant", "tool_calls": [{"name": "add"}]}], "message 1: tool_calls: expected {.type.: .function.,"),
    (called(name=""), "message 1: tool_calls: expected {.type.: .function.,"),
    (called(name="add", arguments=[2, 3]), "message 1: tool_calls: arguments of 'add': expected an object, or its JSON text"),
    (called(name="add", arguments="2, 3"), "message 1: tool_calls: arguments of 'add': expected an object, or its JSON text"),
    (called(name="add", arguments={"a": float("nan")}), "message 1: tool_calls: expected values of JSON, got "),
    (called(name="add", arguments={"a": {1}}), "message 1: tool_calls: expected values of JSON, got "),
    ([USER, {"role": "assistant"}], "message 1: expected an object with role and content"),
    ([USER, CALL | {"content": 5}], "message 1: content: expected a string, got 5"),
])  # fmt: skip
def test_bad_calls(messages, message):
    with pytest.raises(ValueError, match=message):
        check_messages(messages, False)


@pytest.mark.parametrize("tools", [[], "add", [5], [{"function": {}}], [{"name": "add", "x": object()}]])
def test_bad_schemas(tools):
    with pytest.raises(ValueError, match="^tools"):
        check_tools(tools)
    check_tools(None)


def test_formats_without_tools_refuse_them_by_name(tokenizer):
    for name, template in TEMPLATES.items():
        for messages, tools, what in (([USER], [ADD], "schemas of tools"), (TALKS["one call"][1:4], None, "calls of tools")):
            with pytest.raises(ValueError, match=f"^template: expected one that renders {what}, such as .*, got {name}$"):
                encode(tokenizer, template, messages, tools=tools)
    seen = [USER, {"role": "assistant", "content": "add(2, 3)"}, {"role": "observation", "content": "5"}]
    assert TEMPLATES["glm4"].render(seen).endswith("add(2, 3)<|observation|>\n5<|assistant|>")
    assert encode(tokenizer, TEMPLATES["chatglm3"], seen)
    with pytest.raises(ValueError, match="^template: expected one that renders the role 'observation', got chatml$"):
        encode(tokenizer, TEMPLATES["chatml"], seen)
    with pytest.raises(ValueError, match="^template: expected one that renders schemas of tools, got None$"):
        prompt_ids(tokenizer, None, "2 + 3?", tools=[ADD])
    own = Template(lambda messages, add_generation_prompt=True: "x", ())
    with pytest.raises(ValueError, match="got one without$"):
        encode(tokenizer, own, [USER], tools=[ADD])


def test_a_template_that_leaves_tools_out_is_refused(tokenizer):
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}[assistant]"
    for messages, tools, what in (([USER], [ADD], "schemas"), ([USER, CALL, RESULT], None, "calls")):
        with pytest.raises(
            ValueError, match=f"^template: expected one that renders {what} of tools, got the folder's, which leav"
        ):
            encode(tokenizer, folder(source), messages, tools=tools)
    source = source.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' }}{{ m.tool_calls }}")
    with pytest.raises(ValueError, match="^template: expected one that renders results of tools, got the folder's, which leaves"):
        encode(tokenizer, folder(source), [USER, CALL, RESULT])


def test_tools_cannot_forge_a_turn(tokenizer):
    template, forged = folder(HERMES_LIKE), "<|im_end|>"
    call = {"type": "function", "function": {"name": "add", "arguments": {forged: 1}}}
    for messages, tools, place in (
        ([USER, CALL, {"role": "tool", "content": forged}], None, "tool"),
        ([USER, {"role": "assistant", "tool_calls": [call]}, RESULT], None, "assistant"),
        ([USER], [{"type": "function", "function": {"name": "add", "description": forged}}], "tools"),
    ):
        with pytest.raises(ValueError, match=f"no text of a special token, got '<.im_end.>' from the {place}"):
            encode(tokenizer, template, messages, tools=tools)


def test_templates_that_do_not_mark_answers(tokenizer):
    """Refused before any record is looked at."""
    for source, message in (
        ("{% for m in messages %}{{ m.content }}.{% endfor %}{% if add_generation_prompt %}>{% endif %}",
         "template: expected one whose prompt is how the text of an answered question begins, got 'Hi.>' and 'Hi.tinyplm.'"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
         "template: expected one that shows the assistant's answer after the prompt, got ''"),
    ):  # fmt: skip
        with pytest.raises(ValueError) as error:
            conversations(tokenizer, folder(source), ["no record"])
        assert str(error.value) == message
    for template in TEMPLATES.values():
        check_marks(template)
