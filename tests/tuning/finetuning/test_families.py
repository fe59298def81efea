"""Every encoder family is fine-tuned for every task it supports, also with its lower layers frozen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, relative_error
from tests.support.encoder_families import FAMILIES
from tests.support.tuning import KINDS, TEXTS, tokenizer
from tinyplm.core import flatten
from tinyplm.optim.adamw import AdamW
from tinyplm.optim.layerwise import depths
from tinyplm.training.step import accumulate
from tinyplm.tuning.finetuning.answers import answering
from tinyplm.tuning.finetuning.choices import multiple_choice
from tinyplm.tuning.finetuning.classes import classification
from tinyplm.tuning.finetuning.finetune import finetune
from tinyplm.tuning.finetuning.freezing import upper_part
from tinyplm.tuning.finetuning.predict import outputs_and_loss, predict
from tinyplm.tuning.finetuning.tags import tagging
from tinyplm.tuning.settings import TuningSettings

MAKE = {
    "sequence_classification": lambda made: classification(made, TEXTS, ["red" if k == "animal" else "blue" for k in KINDS]),
    "token_classification": lambda made: tagging(made, [t.split() for t in TEXTS], [["red"] * len(t.split()) for t in TEXTS]),
    "question_answering": lambda made: answering(made, ["a"] * 10, TEXTS, [(0, 3)] * 10),
    "multiple_choice": lambda made: multiple_choice(made, TEXTS, [["a dog", "the bank"]] * 10, [0, 1] * 5),
}
CASES = [(family, task) for family, row in FAMILIES.items() for task in MAKE if task in row.module.TASKS]


def model(family, task):
    names = {field.name for field in dataclasses.fields(FAMILIES[family].module.Config)}
    room = {"max_position_embeddings": 60} if "max_position_embeddings" in names else {}
    made = tinyplm.create(family, dataclasses.replace(FAMILIES[family].config, vocab_size=tokenizer().vocab_size, **room),
                          task=task, dtype="float64")  # fmt: skip
    made.tokenizer = tokenizer()
    return made


def assert_fine_tuned(made, samples, out):
    """The loss falls, predictions change, and the saved model makes those of the one in memory."""
    before, start = outputs_and_loss(made, samples)
    settings = TuningSettings(epochs=3, batch_size=5, learning_rate=1e-2, metric="loss", layer_decay=0.9, workers=2)
    result = finetune(made, samples, samples, settings, out=out, progress=False)
    assert result.scores["loss"] < start
    saved = tinyplm.load(out / "best")
    for name, values in predict(saved, samples).items():
        assert not np.allclose(values[0], before[name][0])
        assert np.allclose(values[0], predict(made, samples)[name][0])


def assert_same_above_frozen_layers(made, samples, count):
    """However many of the `count` layers are trained: their gradient is that of the whole."""
    inputs, targets = samples.batch(range(len(TEXTS)))
    full = AdamW(made.params)
    accumulate(made, full, inputs, targets, settings=TuningSettings())
    for layers in range(count + 1):
        part, frozen = upper_part(made.params, layers)
        few = AdamW(part)
        accumulate(made, few, inputs, targets, settings=TuningSettings(), frozen=frozen)
        assert frozen == count - layers and few.values.paths
        for path in few.values.paths:
            assert relative_error(few.gradient.leaves[path], full.gradient.leaves[path]) < MODEL, path


@pytest.mark.parametrize(("family", "task"), CASES)
def test_it_is_fine_tuned(family, task, tmp_path):
    made = model(family, task)
    samples = MAKE[task](made)
    inputs, _ = samples.batch(range(len(samples)))
    assert ("token_type_ids" in inputs) <= ("token_type_ids" in made.family.INPUTS)
    lengths = inputs["attention_mask"].sum(-1)
    assert lengths.min() < lengths.max() and (inputs["attention_mask"][..., -1] == 1).all() == FAMILIES[family].left
    assert_fine_tuned(made, samples, tmp_path)


@pytest.mark.parametrize(("family", "task"), [case for case in CASES if case[1] == "sequence_classification"])
def test_what_is_above_the_frozen_layers_has_the_same_gradient(family, task):
    made = model(family, task)
    L = len(made.params["body"]["layers"])
    assert_same_above_frozen_layers(made, MAKE[task](made), L)
    depth = depths(made.params)
    assert depth["body.tokens"] == 0 and {depth[path] for path in flatten(made.params)} == set(range(L + 2))
    assert all(depth[path] == 0 for path in depth if path.startswith("body.") and not path.startswith("body.layers"))
