"""Encoder folders: reuse for another task, and invalid input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import tinyplm
from tests.laws import equal
from tests.support.encoder_families import CASES, FAMILIES, batch, tiny
from tinyplm.core import flatten
from tinyplm.hub.tensors import read_safetensors, write_safetensors
from tinyplm.models.config import to_dict

FIRST = {name: next(iter(row.module.TASKS)) for name, row in FAMILIES.items()}  # the language-model task
POSITIONS = [name for name in FAMILIES if "positions" in tiny(name).params["body"]]
CHOICES = [name for name, row in FAMILIES.items() if "multiple_choice" in row.module.TASKS]
CLASSIFIERS = ("sequence_classification", "token_classification", "multiple_choice")
each_family = pytest.mark.parametrize("family", FAMILIES)
each_task = pytest.mark.parametrize(("family", "task"), CASES)


def change_config(folder, **changes):
    """Replaces fields of config.json; None removes one."""
    file = folder / "config.json"
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))


def rename_tensors(folder, names):
    """Renames tensors of model.safetensors: {old: new}."""
    file = folder / "model.safetensors"
    tensors = {names.get(name, name): np.array(a) for name, a in read_safetensors(file)[0].items()}
    write_safetensors(file, tensors, dict.fromkeys(tensors, "F64"))


# ------------------------------------------------------------------------------------------------------------- folders


@each_task
def test_saving_and_loading_is_the_identity(tmp_path, family, task):
    model = tiny(family, task, dtype="float32")
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert again.task == task and again.config == model.config and again.fresh == []
    assert equal(again.params, model.params) and flatten(again.params).keys() == flatten(model.params).keys()
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["architectures"] == [model.family.TASKS[task].architecture] and settings["model_type"] == family
    assert equal(again(**batch(again))[0], model(**batch(model))[0])


@pytest.mark.parametrize("other", [name for row in FAMILIES.values() for name in row.same])
def test_a_family_under_another_name_is_written_under_it(tmp_path, other):
    model = tinyplm.create(other, hidden_size=4, num_attention_heads=2, num_hidden_layers=1, intermediate_size=3, vocab_size=9,
                           task="token_classification")  # fmt: skip
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert again.config.MODEL_TYPE == other and again.family is model.family and equal(again.params, model.params)
    expected = {"xlm-roberta": "XLMRobertaForTokenClassification", "camembert": "CamembertForTokenClassification"}[other]
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [expected]


@each_task
def test_a_pretrained_body_gets_the_head_of_another_task(tmp_path, family, task):
    """Head parameters missing from the file are new, depend on the key alone, and are reported by name."""
    source = tiny(family)
    tinyplm.save(source, tmp_path)
    model = tinyplm.load(tmp_path, task=task, key=5)
    assert model.task == task and equal(model.params["body"], source.params["body"])
    assert all(a.dtype == np.float64 for a in flatten(model.params).values())
    heads = flatten(model.params["head"], "head")
    taken = {path for path in heads if path in flatten(source.params)}
    assert set(model.fresh) == set(heads) - taken and (task == FIRST[family] or not taken or task == "pretraining")
    assert all(np.array_equal(heads[path], flatten(source.params)[path]) for path in taken)
    for path in model.fresh:
        assert heads[path].any() == (".W" in path or "gamma" in path), path
    drawn = [heads[path].ravel() for path in model.fresh if ".W" in path]
    assert not drawn or len(np.unique(np.concatenate(drawn))) == sum(map(len, drawn)), "each has a key of its own"
    if any(".W" in path for path in model.fresh):
        assert equal(tinyplm.load(tmp_path, task=task, key=5).params, model.params)
        assert not equal(tinyplm.load(tmp_path, task=task, key=6).params, model.params)
    tinyplm.save(model, tmp_path / "tuned")
    assert tinyplm.load(tmp_path / "tuned").task == task and equal(tinyplm.load(tmp_path / "tuned").params, model.params)


@each_family
def test_labels_are_named_when_a_file_is_taken_over(tmp_path, family):
    tinyplm.save(tiny(family), tmp_path)
    model = tinyplm.load(tmp_path, task="token_classification", labels=["O", "B", "I", "E"])
    assert model.config.id2label == {"0": "O", "1": "B", "2": "I", "3": "E"} and model.config.label2id["E"] == 3
    assert model(np.full((1, 2), 3))[0]["logits"].shape == (1, 2, 4)
    tinyplm.save(model, tmp_path / "tagger")
    assert tinyplm.load(tmp_path / "tagger").config.id2label == model.config.id2label
    with pytest.raises(ValueError, match="labels: expected different strings, at least one, got"):
        tinyplm.load(tmp_path, task="token_classification", labels=["O", "O"])
    with pytest.raises(ValueError, match=r"labels: expected different strings, at least one, got \[\]"):
        tinyplm.load(tmp_path, task="token_classification", labels=[])
    with pytest.raises(ValueError, match=r"expected shape \(2, 6\), got \(4, 6\)"):
        tinyplm.load(tmp_path / "tagger", labels=["O", "B"])


@each_family
def test_a_file_of_the_bare_body_lacks_the_prefix(tmp_path, family):
    """As transformers writes it."""
    model = tiny(family, "body")
    tinyplm.save(model, tmp_path)
    prefix = model.family.PREFIX
    names = list(read_safetensors(tmp_path / "model.safetensors")[0])
    assert all(name.startswith(prefix) for name in names)
    rename_tensors(tmp_path, {name: name.removeprefix(prefix) for name in names})
    assert equal(tinyplm.load(tmp_path).params, model.params)
    assert equal(tinyplm.load(tmp_path, task=FIRST[family]).params["body"], model.params["body"])


@pytest.mark.parametrize(("family", "copy"), [(name, copy) for name, row in FAMILIES.items() for copy in row.module.TIED])
def test_a_tied_tensor_may_stand_in_the_file_under_either_name(tmp_path, family, copy):
    """The writer chooses which of the two names a shared tensor is stored under."""
    model = tiny(family)
    tinyplm.save(model, tmp_path)
    rename_tensors(tmp_path, {model.family.TIED[copy]: copy})
    assert equal(tinyplm.load(tmp_path).params, model.params)
    assert equal(tinyplm.load(tmp_path, task="body").params["body"], model.params["body"])


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "distilbert", "deberta", "deberta-v2"])
def test_norms_under_their_names_of_2018(tmp_path, family):
    model = tiny(family)
    tinyplm.save(model, tmp_path)
    names = list(read_safetensors(tmp_path / "model.safetensors")[0])
    older = {name: re.sub("LayerNorm.bias$", "LayerNorm.beta", re.sub("LayerNorm.weight$", "LayerNorm.gamma", name))
             for name in names}  # fmt: skip
    rename_tensors(tmp_path, older)
    assert sum(name.endswith((".gamma", ".beta")) for name in older.values()) == sum("LayerNorm" in name for name in names) > 0
    assert equal(tinyplm.load(tmp_path).params, model.params)


LABELLED = [(name, a, b) for name, row in FAMILIES.items() for a in CLASSIFIERS for b in CLASSIFIERS
            if a != b and {a, b} <= row.module.TASKS.keys()]  # fmt: skip


@pytest.mark.parametrize(("family", "task", "other"), LABELLED)
def test_the_classifier_of_another_task_is_left_out(tmp_path, family, task, other):
    """It has the same name in many files; the layers before it may be reusable."""
    source = tiny(family, task)
    tinyplm.save(source, tmp_path)
    model = tinyplm.load(tmp_path, task=other)
    assert equal(model.params["body"], source.params["body"])
    known, heads = flatten(source.params), flatten(model.params["head"], "head")
    taken = {path for path in heads if path.startswith("head.pooler.") and path in known}
    assert set(model.fresh) == set(heads) - taken and all(np.array_equal(heads[path], known[path]) for path in taken)


@each_family
def test_a_file_with_the_ends_of_an_answer_names_no_labels(tmp_path, family):
    """transformers gives that head one output per label, and can read only two."""
    tinyplm.save(tiny(family), tmp_path)
    change_config(tmp_path, num_labels=3)
    model = tinyplm.load(tmp_path, task="question_answering")
    assert model.config.num_labels == 2 and not {"num_labels", "id2label", "label2id"} & to_dict(model.config).keys()
    two = dict(zip("01", "ab"))
    assert tiny(family, "question_answering", id2label=two).config.id2label == two
    assert tinyplm.load(tmp_path).config.num_labels == 3


def test_a_decoder_has_no_labels(tmp_path):
    tinyplm.save(tinyplm.create("gpt2", n_layer=1, n_embd=4, n_head=2, vocab_size=7, n_positions=5), tmp_path)
    with pytest.raises(ValueError, match="config.json: labels: expected a classifier's task with them, got 'causal_lm'"):
        tinyplm.load(tmp_path, labels=["a", "b"])


@each_family
def test_the_number_of_labels_in_a_file_follows_their_names(tmp_path, family):
    """transformers uses the number when both are present and differ."""
    tinyplm.save(tiny(family), tmp_path)
    change_config(tmp_path, num_labels=2, id2label=None, label2id=None)
    model = tinyplm.load(tmp_path, task="sequence_classification")
    assert model.config.num_labels == 2 and to_dict(model.config)["num_labels"] == 2
    model = tinyplm.load(tmp_path, task="sequence_classification", labels=["a", "b", "c", "d"])
    assert model.config.num_labels == 4 and to_dict(model.config)["num_labels"] == 4


@each_family
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture: expected one of {first}, "),
        ({"architectures": "BertModel"}, "architectures of config.json: expected a list, got 'BertModel'"),
        ({"id2label": {"1": "red", "2": "green"}}, "id2label: expected labels numbered from 0, got {{'1': 'red', '2': 'green'}}"),
        ({"id2label": {}}, "id2label: expected labels numbered from 0, got {{}}"),
        ({"id2label": None, "num_labels": 0}, "num_labels: expected an integer from 1 to 1048576, got 0"),
        ({"problem_type": "ranking"}, "problem_type: expected one of multi_label_classification, regression, "),
        ({"id2label": {"0": "a", "1": "b"}}, "expected shape (2, 6), got (3, 6)"),
    ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, family, changes, message):
    tinyplm.save(tiny(family, "sequence_classification"), tmp_path)
    change_config(tmp_path, **changes)
    first = next(iter(FAMILIES[family].module.TASKS.values())).architecture
    with pytest.raises(ValueError, match=re.escape(message.format(first=first))) as error:
        tinyplm.load(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@each_family
def test_a_task_that_a_family_has_not_is_refused(tmp_path, family):
    tinyplm.save(tiny(family), tmp_path)
    message = f"task: expected one of {FIRST[family]}, .* for {family}, got 'causal_lm'$"
    with pytest.raises(ValueError, match=message):
        tinyplm.load(tmp_path, task="causal_lm")
    with pytest.raises(ValueError, match=message):
        tinyplm.create(family, FAMILIES[family].config, task="causal_lm")
    change_config(tmp_path, architectures=None)  # treated as a bare body, whose head is dropped
    assert tinyplm.load(tmp_path).task == "body"


# ----------------------------------------------------------------------------------------------------------- bad input


@each_family
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[1, 11]]}, "input_ids: expected integers from 0 to 10, got 11"),
        ({"input_ids": [[-1]]}, "input_ids: expected integers from 0 to 10, got -1"),
        ({"input_ids": [1, 2]}, "input_ids: expected shape (B, T)"),
        ({"input_ids": [[]]}, "B, T >= 1, got (1, 0)"),
        ({"input_ids": [[0.5]]}, "input_ids: expected integers"),
        ({"input_ids": [[2, 2]], "attention_mask": [[1, 1, 1]]}, "attention_mask: expected shape (1, 2), got (1, 3)"),
        ({"input_ids": [[2, 2]], "labels": [[0, 0]]}, "labels: expected None, since {family} takes only attention_mask, "),
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": [[2, 2]], "inputs_embeds": np.ones((1, 2, 6))}, "either input_ids or inputs_embeds"),
        ({"inputs_embeds": np.ones((1, 2, 5))}, "expected shape (B, T, {width}) with B, T >= 1, got (1, 2, 5)"),
    ],
)
def test_bad_input_is_refused_in_one_line(family, inputs, message):
    model = tiny(family)
    width = model.params["body"]["tokens"].shape[1]
    with pytest.raises(ValueError, match=re.escape(message.format(family=family, width=width))) as error:
        model(**inputs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", POSITIONS)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[2] * 7]}, "input_ids: expected at most 6 tokens, the context, got 7"),
        ({"input_ids": [[2, 2]], "position_ids": [[0, 600]]}, "position_ids: expected integers from 0 to "),
        ({"input_ids": [[2, 2]], "position_ids": [[0, -1]]}, "position_ids: expected integers from 0 to "),
        ({"input_ids": [[2, 2]], "position_ids": [0]}, "position_ids: expected shape (2,) or (1, 2)"),
    ],
)
def test_bad_positions_are_refused(family, inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(family)(**inputs)


@pytest.mark.parametrize("model", [tiny("xlnet"), tiny("deberta", position_biased_input=False)], ids=repr)
def test_positions_are_for_models_that_have_them(model):
    with pytest.raises(ValueError, match=f"^position_ids: expected None, since {model.config.MODEL_TYPE} takes only "):
        model([[2, 3]], position_ids=[[0, 1]])


@each_family
def test_token_types_are_for_families_that_have_them(family):
    model = tiny(family)
    if "token_type_ids" not in model.family.INPUTS:
        with pytest.raises(ValueError, match=f"^token_type_ids: expected None, since {family} takes only attention_mask"):
            model([[2, 3]], token_type_ids=[[0, 0]])
        return
    if "segments" in model.params["body"]:  # excludes XLNet: it only compares them, so takes any numbers or none
        assert equal(model([[2, 3]], token_type_ids=[[0, 0]])[0], model([[2, 3]])[0])
        with pytest.raises(ValueError, match="token_type_ids: expected integers from 0 to 1, got 2"):
            model([[2, 3]], token_type_ids=[[0, 2]])
        with pytest.raises(ValueError, match="token_type_ids: expected integers from 0 to 1, got 2"):
            model.loss(input_ids=np.array([[2, 3]]), token_type_ids=np.array([[0, 2]]), targets={"logits": np.array([[2, 3]])})
    with pytest.raises(ValueError, match=re.escape("token_type_ids: expected shape (1, 2), got (2,)")):
        model([[2, 3]], token_type_ids=[0, 1])


@pytest.mark.parametrize("family", CHOICES)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": [[2, 3]]}, "input_ids: expected shape (B, choices, T) with all of them >= 1, got (1, 2)"),
        ({"inputs_embeds": np.ones((1, 2, 3, 6))}, "inputs_embeds: expected None and input_ids for a multiple choice, got"),
        ({"input_ids": [[[2], [3]]], "attention_mask": [[1, 1]]}, "attention_mask: expected shape (1, 2, 1), got (1, 2)"),
        ({"input_ids": [[[2], [11]]]}, "input_ids: expected integers from 0 to 10, got 11"),
    ],
)
def test_bad_input_of_choices_is_refused(family, inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(family, "multiple_choice")(**inputs)


@each_family
def test_bad_targets_are_refused(family):
    model = tiny(family)
    ids = np.full((1, 2), 3)
    for targets, message in (({}, "expected those of at least one output, got none"),
                             ({"logits": np.zeros((2, 2), int)}, "targets: logits: expected shape (1, 2), got (2, 2)"),
                             ({"logits": np.zeros((2, 1), int)}, "targets: logits: expected shape (1, 2), got (2, 1)"),
                             ({"pooled": np.zeros(1, int)}, "targets: expected some of logits, got pooled")):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(message)):
            model.loss(targets=targets, input_ids=ids)
