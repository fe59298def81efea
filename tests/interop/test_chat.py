# ruff: noqa: E402 - imports follow importorskip
"""Chat templates: the same text and ids as transformers' apply_chat_template, from the folder that it writes."""

from __future__ import annotations

import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("jinja2")

from tests.test_chat import JINJA, SPECIAL, TALK
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat import TEMPLATES, encode, folder_template

# The known formats once more, in Jinja.
KNOWN = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama2": "{% set system = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
              "{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% endif %}"
              "{% for m in rest %}{% if m.role == 'user' %}<s>[INST] {% if loop.first %}{{ system }}{% endif %}"
              "{{ m.content | trim }} [/INST]{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}",
    "llama3": "<|begin_of_text|>{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
              "{{ m.content | trim }}<|eot_id|>{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
}  # fmt: skip
# What templates of the hub use: loops with conditions on the role, control of white space, filters, a namespace.
HARD = """
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = none %}
    {%- set rest = messages %}
{%- endif %}
{%- set seen = namespace(turns=0) %}
{{ bos_token }}
{% for m in rest %}
    {% if m.role == 'user' %}
Q: {{ m.content }}{% if loop.first and system is not none %} ({{ system | tojson }}){% endif %}

    {% else %}
        {% set seen.turns = seen.turns + 1 %}
A{{ seen.turns }}: {{ m.content | upper }}{{ eos_token }}
    {% endif %}
{% endfor %}
{%- if add_generation_prompt %}A{{ seen.turns + 1 }}:{% endif %}
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(["user system assistant hi"], 270, SPECIAL).save(folder)
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token=SPECIAL[0],
                                                eos_token=SPECIAL[2])  # fmt: skip


@pytest.mark.parametrize("source", [JINJA, HARD, *KNOWN.values()], ids=["simple", "hard", *KNOWN])
@pytest.mark.parametrize("talk", [TALK, TALK[1:], TALK[1:2]], ids=["system", "no system", "one turn"])
@pytest.mark.parametrize("prompt", [True, False])
def test_a_template_gives_the_text_and_ids_of_transformers(peer, tmp_path, source, talk, prompt):
    peer.chat_template = source
    peer.save_pretrained(tmp_path)
    template = folder_template({f.name: f.read_bytes() for f in tmp_path.iterdir()})
    talk = talk if prompt or len(talk) == 1 else talk[:-1]  # to be trained on: the assistant has the last word
    options = {"conversation": talk, "add_generation_prompt": prompt}
    assert template.render(talk, prompt) == peer.apply_chat_template(**options, tokenize=False)
    ours = Tokenizer.load(tmp_path)
    expected = peer(peer.apply_chat_template(**options, tokenize=False), add_special_tokens=False)["input_ids"]
    assert encode(ours, template, talk, prompt) == expected
    assert template.ends == (SPECIAL[2],)


def test_what_templates_of_the_hub_ask_for(peer, tmp_path):
    """Names that transformers defines although nobody gave a value, and its filter for JSON."""
    peer.chat_template = (
        "{% if tools is not none or documents is not none %}never{% endif %}{{ messages | tojson }}"
        "{{ messages | tojson(ensure_ascii=True, indent=2) }}{{ messages[0] | tojson(true, none, (',', ':'), true) }}"
        "{{ pad_token is defined }}{{ pad_token }}{{ eos_token is defined }}{{ unknown }}"
    )
    peer.save_pretrained(tmp_path)
    template = folder_template({f.name: f.read_bytes() for f in tmp_path.iterdir()})
    talk = [{"role": "user", "content": "<é & 你>"}]
    assert template.render(talk) == peer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("name", list(KNOWN))
def test_the_known_formats_equal_their_jinja(peer, name):
    peer.chat_template = KNOWN[name]
    for talk in (TALK, TALK[1:], TALK[:-1]):
        for prompt in (True, False):
            text = peer.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt)
            assert TEMPLATES[name].render(talk, prompt) == text
