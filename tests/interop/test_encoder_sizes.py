# ruff: noqa: E402 - imports follow importorskip
"""Published sizes and default configs of encoders against transformers, allocating nothing on either side."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


from tests.interop.encoder_pair import FAMILIES
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import to_dict

# For each size, the language model, which is a family's first task, and a classifier.
SIZES = [(name, size, task) for name, row in FAMILIES.items() for size in row.module.SIZES
         for task in (next(iter(row.module.TASKS)), "sequence_classification")]  # fmt: skip
NAMES = ("source", "id2label", "label2id", "problem_type", "position_embedding_type")  # stored differently in transformers
DERIVED = ("pooler_hidden_size", "d_head")  # None in ours: derived from other fields


@pytest.mark.parametrize(("family", "size", "task"), SIZES)
def test_parameter_counts(family, size, task):
    row = FAMILIES[family]
    config = row.module.SIZES[size]
    settings = {name: value for name, value in to_dict(config).items() if value is not None and name != "model_type"}
    with torch.device("meta"):
        theirs = getattr(transformers, row.module.TASKS[task].architecture)(row.config(**settings))
    assert count_parameters(row.module.shapes(config, task)) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_default_configs(family):
    row = FAMILIES[family]
    theirs = row.config()
    assert row.module.Config.MODEL_TYPE == theirs.model_type
    for field in dataclasses.fields(row.module.Config):
        if field.name not in (*NAMES, *DERIVED):
            # transformers reads some fields of DeBERTa and XLNet only when it builds the model, with a default
            assert getattr(theirs, field.name, field.default) == field.default, field.name
    assert theirs.num_labels == row.module.Config().num_labels
