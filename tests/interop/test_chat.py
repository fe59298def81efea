# ruff: noqa: E402 - imports follow importorskip
"""Chat templates: the same text and ids as transformers' apply_chat_template, from the folder it writes."""

from __future__ import annotations

import json

import pytest

transformers = pytest.importorskip("transformers")

import tinyplm
from tests.support.real_templates import REAL
from tests.tokenizers.chat.test_chat import JINJA, SPECIAL, TALK
from tests.tuning.align.test_learner import SIZES
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.chat.formats import TEMPLATES, encode, folder_template
from tinyplm.tokenizers.files.settings import read_settings
from tinyplm.tuning.data.chat_format import set_chat_format

# The known formats again, in Jinja.
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
# What hub templates use: loops with conditions on the role, whitespace control, filters, a namespace.
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


@pytest.mark.parametrize("source", [JINJA, HARD, *KNOWN.values(), *REAL.values()], ids=["simple", "hard", *KNOWN, *REAL])
@pytest.mark.parametrize("talk", [TALK, TALK[1:], TALK[1:2]], ids=["system", "no system", "one turn"])
@pytest.mark.parametrize("prompt", [True, False])
def test_a_template_gives_the_text_and_ids_of_transformers(peer, tmp_path, source, talk, prompt):
    peer.chat_template = source
    peer.save_pretrained(tmp_path)
    template = folder_template({f.name: f.read_bytes() for f in tmp_path.iterdir()})
    talk = talk if prompt or len(talk) == 1 else talk[:-1]  # for training: the assistant speaks last
    options = {"conversation": talk, "add_generation_prompt": prompt}
    assert template.render(talk, prompt) == peer.apply_chat_template(**options, tokenize=False)
    ours = Tokenizer.load(tmp_path)
    expected = peer(peer.apply_chat_template(**options, tokenize=False), add_special_tokens=False)["input_ids"]
    assert encode(ours, template, talk, prompt) == expected
    assert template.ends == (SPECIAL[2],)


def test_what_templates_of_the_hub_ask_for(peer, tmp_path):
    """Names that transformers defines even when no value is passed, and its JSON filter."""
    peer.chat_template = (
        "{% if tools is not none or documents is not none %}never{% endif %}{{ messages | tojson }}"
        "{{ messages | tojson(ensure_ascii=True, indent=2) }}{{ messages[0] | tojson(true, none, (',', ':'), true) }}"
        "{{ pad_token is defined }}{{ pad_token }}{{ eos_token is defined }}{{ unknown }}"
    )
    peer.save_pretrained(tmp_path)
    template = folder_template({f.name: f.read_bytes() for f in tmp_path.iterdir()})
    talk = [{"role": "user", "content": "<é & 你>"}]
    assert template.render(talk) == peer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_the_known_formats_equal_their_jinja(peer, name):
    """Both the template in KNOWN and the source that a folder gets."""
    for source in filter(None, (KNOWN.get(name), TEMPLATES[name].source)):
        _equal(peer, name, source)


def _equal(peer, name, source):
    peer.chat_template = source
    for talk in (TALK, TALK[1:], TALK[:-1]):
        for prompt in (True, False):
            text = peer.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt)
            assert TEMPLATES[name].render(talk, prompt) == text


CONFIGS = {"plain": {}, "decoder": {"added_tokens_decoder": {"0": {"content": SPECIAL[0], "special": True}}}}
NAMES = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[2]}
OTHERS = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[0], "pad_token": SPECIAL[1]}
OBJECTS = {name: {"content": token, "lstrip": False} for name, token in OTHERS.items()}


@pytest.mark.parametrize("more", CONFIGS)
@pytest.mark.parametrize(("config", "special"), [
    ({}, NAMES), (NAMES, {}), (NAMES, OBJECTS), (OTHERS, NAMES), (OTHERS, {"pad_token": None, "eos_token": SPECIAL[2]}),
    (NAMES | {"extra_special_tokens": ["hi", "e"]}, {"extra_special_tokens": ["us", "hi"]}),
], ids=["map only", "config only", "contradicted", "contradicted in part", "taken back", "joined"])  # fmt: skip
def test_two_files_that_name_tokens_are_read_as_transformers_reads_them(tmp_path, config, special, more):
    """The map takes precedence over the config, unless the config has added_tokens_decoder: then the map is not read."""
    Tokenizer(**Tokenizer.train(["user system assistant hi"], 270, SPECIAL).parts | {"named": {}}).save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(JINJA)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **CONFIGS[more], **config}
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        (tmp_path / name).write_text(json.dumps(content))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours, files = Tokenizer.load(tmp_path), {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    assert ours.named == theirs.special_tokens_map
    assert read_settings(files).get("extra_special_tokens", []) == theirs.extra_special_tokens
    template = folder_template(files)
    assert template.render(TALK) == theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert template.ends == tuple(filter(None, [theirs.eos_token]))


@pytest.mark.parametrize("name", ["chatml", "own"])
def test_a_chat_model_that_was_saved_stops_at_the_end_of_a_turn(tmp_path, name):
    """tinyplm.generate and transformers' generate both stop at the end-of-turn token, with the same greedy answers."""
    own = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    template = TEMPLATES["chatml"] if name == "chatml" else folder_template({"chat_template.jinja": own.encode()})
    tokenizer = Tokenizer.train(["user system assistant hi"], 270, SPECIAL)
    sizes = {**SIZES["llama"], "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 96, "tie_word_embeddings": False}
    model = tinyplm.create("llama", key=3, **sizes)
    prompt = encode(tokenizer, template, TALK[1:2])
    (endless,) = tinyplm.generate(model, prompt, max_new_tokens=8, temperature=0, stop_ids=())
    last = endless.ids[0]  # swap the greedy answer's first token with the end-of-turn token
    end, W = tokenizer.token_to_id(SPECIAL[2]), model.params["head"]["W"]
    W[:, [last, end]] = W[:, [end, last]]
    model.tokenizer = tokenizer
    set_chat_format(model, template)
    tinyplm.save(model, tmp_path)
    ours = tinyplm.load(tmp_path)
    (answer,) = tinyplm.generate(ours, prompt, max_new_tokens=8, temperature=0)
    assert answer.finished == "stop" and answer.ids == []
    theirs, peer = (kind.from_pretrained(tmp_path) for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer))
    assert theirs.generation_config.eos_token_id == [tokenizer.eos_id, end] == sorted(ours.end_ids())
    for talk, more in ((TALK, True), (TALK[:-1], False)):
        rendered = peer.apply_chat_template(talk, tokenize=False, add_generation_prompt=more)
        assert template.render(talk, more) == rendered == folder_template(ours.files, ours.tokenizer.named).render(talk, more)
    inputs = peer.apply_chat_template(TALK[1:2], add_generation_prompt=True, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == prompt
    written = theirs.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
    assert written == [*prompt, end]
