"""Family-specific features of the encoders: published sizes, configs, positions, shared layers."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, apart, equal, relative_error
from tests.support.encoder_families import FAMILIES, batch, random_like, tiny
from tinyplm import families as models
from tinyplm.core import tree_map
from tinyplm.hub.names import count_parameters
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.losses.regression import binary_cross_entropy, mean_squared_error
from tinyplm.models.config import from_dict, labels, to_dict
from tinyplm.models.tasks import loss_of
from tinyplm.optim.flat import FlatTree

# Parameter counts of transformers' masked-LM models of these sizes, tied weights counted once; tests/interop counts them there.
COUNTS = {
    "bert": {"bert-tiny": 4416698, "bert-mini": 11201594, "bert-small": 28795194, "bert-medium": 41404730,
             "bert-base-uncased": 109514298, "bert-large-uncased": 335174458, "bert-base-cased": 108340804,
             "bert-large-cased": 333610308, "bert-base-chinese": 102290312, "bert-base-multilingual-cased": 177974523},
    "roberta": {"roberta-base": 124697433, "roberta-large": 355412057, "distilroberta-base": 82170201},
    "xlm-roberta": {"xlm-roberta-base": 278295186, "xlm-roberta-large": 560142482},
    "camembert": {"camembert-base": 110655493, "camembert-large": 336695557},
    "albert": {f"albert-{size}-{version}": count for version in ("v1", "v2") for size, count in
               {"base": 11221680, "large": 16795824, "xlarge": 54821040, "xxlarge": 206368944}.items()},
    "distilbert": {"distilbert-base-uncased": 66985530, "distilbert-base-cased": 65812036,
                   "distilbert-base-multilingual-cased": 135445755},
    "deberta": {"deberta-base": 139244121, "deberta-large": 406264921, "deberta-xlarge": 758905945},
    "deberta-v2": {"deberta-v2-xlarge": 887085156, "deberta-v2-xxlarge": 1567041636, "deberta-v3-xsmall": 70958820,
                   "deberta-v3-small": 142024548, "deberta-v3-base": 184551780, "deberta-v3-large": 435191908},
}  # fmt: skip


@pytest.mark.parametrize("family", COUNTS)
def test_parameter_counts_of_the_published_sizes(family):
    module = models.family(family)
    assert {size: count_parameters(module.shapes(config)) for size, config in module.SIZES.items()} == COUNTS[family]


def test_counts_of_the_papers():
    """Including the pooler: BERT-base 110M (Devlin et al. 2019, sec. 3), ALBERT-base 12M and xxlarge, for which table 1 of Lan et
    al. 2020 lists 235M, but the released weights have 223M."""
    counts = {
        size: count_parameters(models.family(family).shapes(models.family(family).SIZES[size], "pooled"))
        for family, size in (("bert", "bert-base-uncased"), ("albert", "albert-base-v2"), ("albert", "albert-xxlarge-v2"))
    }
    assert counts == {"bert-base-uncased": 109482240, "albert-base-v2": 11683584, "albert-xxlarge-v2": 222595584}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        (
            "bert",
            {"hidden_size": 10, "num_attention_heads": 4},
            "hidden_size: expected a multiple of num_attention_heads = 4",
        ),
        ("distilbert", {"dim": 10, "n_heads": 4}, "dim: expected a multiple of n_heads = 4, got 10"),
        ("albert", {"num_hidden_groups": 13}, "num_hidden_groups: expected 1 to 12, got 13"),
        ("albert", {"embedding_size": 0}, "embedding_size: expected a positive integer, got 0"),
        ("albert", {"hidden_act": "mish"}, "hidden_act: expected one of gelu, "),
        ("albert", {"tie_word_embeddings": False}, "tie_word_embeddings: expected True for albert, got False"),
        ("roberta", {"pad_token_id": 600}, "pad_token_id: expected a token from 0 to 50264, with positions after it, got 600"),
        ("roberta", {"pad_token_id": -1}, "with positions after it, got -1 with 512 positions"),
        ("roberta", {"pad_token_id": None}, "pad_token_id: expected int, got None"),
        ("xlm-roberta", {"is_decoder": True}, "is_decoder: expected False for xlm-roberta, got True"),
        (
            "camembert",
            {"position_embedding_type": "relative_key"},
            "expected None or 'absolute' for camembert",
        ),
        ("distilbert", {"qa_dropout": 1.0}, "qa_dropout: expected a number in [0, 1), got 1.0"),
        ("distilbert", {"hidden_dim": "wide"}, "hidden_dim: expected int, got 'wide'"),
    ],
)
def test_configs_that_cannot_be_are_refused(family, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        models.family(family).Config(**fields)


def test_distilbert_is_read_by_either_name_of_a_field():
    Config = models.family("distilbert").Config
    source = {"model_type": "distilbert", "hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 1, "mystery": 5}
    config = from_dict(Config, source)
    assert (config.dim, config.n_heads, config.n_layers) == (12, 3, 1)
    assert to_dict(config) == source
    assert to_dict(dataclasses.replace(config, dim=24)) == source | {"hidden_size": 24}
    with pytest.raises(ValueError, match="config: hidden_size: expected 24, the value of its synonym dim, got 12"):
        from_dict(Config, source | {"dim": 24})


def test_roberta_counts_the_tokens_that_are_not_padding():
    """From the ids, even when embeddings are passed too (a training step); embeddings alone all count as tokens."""
    model = tiny("roberta")
    ids = np.array([[1, 1, 4, 5, 6], [4, 5, 6, 1, 1], [4, 5, 6, 7, 8]])
    mask = (ids != 1).astype(np.int64)
    outputs, _ = model(ids, attention_mask=mask)
    alone, _ = model(ids[:1, 2:])
    assert relative_error(outputs["hidden"][0, 2:], alone["hidden"][0]) < MODEL, "padding in front moves no position"
    positions = np.array([[1, 1, 2, 3, 4], [2, 3, 4, 1, 1], [2, 3, 4, 5, 6]])
    assert equal(outputs, model(ids, attention_mask=mask, position_ids=positions)[0])
    embeds = model.params["body"]["tokens"][ids]
    assert equal(model(inputs_embeds=embeds, attention_mask=mask)[0],
                 model(ids, attention_mask=mask, position_ids=np.arange(2, 7))[0])  # fmt: skip
    targets = {"logits": np.where(mask == 1, 10 - ids, -100)}
    sums = FlatTree(model.params)
    _, back = model.loss_in_parts(lambda path, d: sums.add(d, path), {"input_ids": ids, "attention_mask": mask}, targets=targets)
    sums.add(back(1.0)[0])
    expected = model.loss(targets=targets, input_ids=ids, attention_mask=mask)[1](1.0)
    assert apart(sums.tree, expected) < MODEL


def test_roberta_has_room_for_all_positions_but_those_up_to_the_paddings():
    config = FAMILIES["roberta"].config
    assert config.context == 6 and dataclasses.replace(config, pad_token_id=0).context == 7
    model = tiny("roberta")
    model(np.full((1, 6), 3))
    with pytest.raises(ValueError, match="input_ids: expected at most 6 tokens, the context, got 7"):
        model(np.full((1, 7), 3))


def test_albert_with_a_tree_for_each_layer_computes_the_same():
    """Three layers in two groups, against a model with three groups of the same values and separate gradients."""
    shared = tiny("albert", inner_group_num=2)
    single = tiny("albert", inner_group_num=2, num_hidden_groups=3)
    groups = [0, 0, 1]  # int(i / 1.5)
    layers = shared.params["body"]["layers"]
    single.params = {**shared.params, "body": {**shared.params["body"], "layers": [layers[g] for g in groups]}}
    (outputs, backward), (outputs2, backward2) = shared(**batch(shared)), single(**batch(single))
    assert equal(outputs, outputs2)
    c = random_like(outputs)
    three = backward2(c)["body"]["layers"]
    first = tree_map(lambda a, b: a + b, three[0], three[1])
    assert apart(backward(c)["body"]["layers"], [first, three[2]]) < MODEL


def test_distilbert_begins_with_sinusoids_where_its_config_says_so():
    plain, waves = (tinyplm.create("distilbert", FAMILIES["distilbert"].config, sinusoidal_pos_embds=b) for b in (False, True))
    table = waves.params["body"]["positions"]
    assert np.allclose(table[:, 0], np.sin(np.arange(6))) and np.allclose(table[:, 1], np.cos(np.arange(6)))
    assert not np.allclose(plain.params["body"]["positions"], table)
    dhidden = np.random.default_rng(0).normal(size=(1, 2, 6)).astype("float32")
    dpositions = waves(np.full((1, 2), 3))[1]({"hidden": dhidden})["body"]["positions"]
    assert np.abs(dpositions[:2]).min() > 1e-4 and not dpositions[2:].any()  # trained like the others


ATTENTION_RATES = {"bert": "attention_probs_dropout_prob", "roberta": "attention_probs_dropout_prob",
                   "albert": "attention_probs_dropout_prob", "distilbert": "attention_dropout",
                   "deberta-v2": "attention_probs_dropout_prob"}  # fmt: skip


@pytest.mark.parametrize("family", ATTENTION_RATES)
def test_the_rate_of_attention_is_for_its_weights_alone(family):
    """If all values are 0, dropping attention weights changes nothing."""
    model = tiny(family, "body", **{ATTENTION_RATES[family]: 0.5})
    dropped = model(**batch(model), key=1)[0]["hidden"]
    assert not np.array_equal(dropped, model(**batch(model))[0]["hidden"])
    layers = model.params["body"]["layers"]
    for layer in layers if family != "albert" else [block for group in layers for block in group]:
        layer["attention"] |= {name: np.zeros_like(layer["attention"][name]) for name in ("Wv", "bv")}
    assert np.array_equal(model(**batch(model), key=1)[0]["hidden"], model(**batch(model))[0]["hidden"])


@pytest.mark.parametrize(
    ("family", "rate", "tasks"),
    [("bert", "classifier_dropout", {"sequence_classification", "multiple_choice", "token_classification"}),
     ("roberta", "classifier_dropout", {"sequence_classification", "token_classification"}),
     ("albert", "classifier_dropout_prob", {"pretraining", "sequence_classification", "multiple_choice", "token_classification"}),
     ("distilbert", "seq_classif_dropout", {"sequence_classification", "multiple_choice"}),
     ("distilbert", "qa_dropout", {"question_answering"}),
     ("xlnet", "summary_last_dropout", {"sequence_classification", "multiple_choice"})],
)  # fmt: skip
def test_which_heads_a_dropout_rate_is_for(family, rate, tasks):
    for task in FAMILIES[family].module.TASKS:
        model = tiny(family, task, **{rate: 0.5})
        assert equal(model(**batch(model), key=1)[0], model(**batch(model))[0]) == (task not in tasks), task


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_classifier_without_a_rate_of_its_own_has_the_others(family):
    config = dataclasses.replace(FAMILIES[family].config, hidden_dropout_prob=0.3)
    assert config.head_dropout == 0.0 and dataclasses.replace(config, classifier_dropout=None).head_dropout == 0.3


@pytest.mark.parametrize(
    ("count", "problem", "loss"),
    [(1, None, mean_squared_error), (3, "regression", mean_squared_error), (3, None, binary_cross_entropy),
     (3, "multi_label_classification", binary_cross_entropy), (1, "regression", mean_squared_error)],
)  # fmt: skip
def test_the_loss_follows_from_the_targets(count, problem, loss):
    """Integer targets are classes, whatever the config says."""
    config = dataclasses.replace(FAMILIES["bert"].config, problem_type=problem, **labels(map(str, range(count))))
    assert loss_of(np.zeros((2, count), "float32"), config) is loss
    assert loss_of(np.zeros(2, int), config) is cross_entropy
