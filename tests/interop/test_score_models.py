# ruff: noqa: E402 - imports follow importorskip
"""Decoders with a score head against transformers' ...ForSequenceClassification, in float64 to 1e-9 (see pair.py)."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.families import FAMILIES
from tests.interop.pair import EAGER, TOLERANCE, float64, for_them, named_gradients, random_model, with_ours
from tests.laws import relative_error
from tinyplm.hub import folders as hub

CLASSES = {name: getattr(transformers, row.module.Config.SCORED) for name, row in FAMILIES.items()}
PAD = 40  # the last id: transformers takes the last token that differs from this


def pair(family, folder, labels=3, problem=None, odd=False, **changes):
    row = FAMILIES[family]
    sizes = {**row.tiny, **(row.odd if odd else {}), "pad_token_id": PAD, "num_labels": labels, "problem_type": problem}
    config = row.config(**{**sizes, **changes}, **EAGER)
    return with_ours(random_model(CLASSES[family], config), folder)


def inputs(B, T, side):
    draw = np.random.default_rng(1)
    lengths = np.maximum(T - np.arange(B), 1)[:, None]
    mask = np.arange(T) < lengths if side == "right" else np.arange(T) >= T - lengths
    ids = np.where(mask, draw.integers(0, PAD, (B, T)), PAD)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "position_ids": positions}


TARGETS = {"single_label_classification": (3, lambda d, B: d.integers(0, 3, B)),
           "multi_label_classification": (3, lambda d, B: d.integers(0, 2, (B, 3)).astype(float)),
           "regression": (1, lambda d, B: d.normal(size=(B, 1)))}  # fmt: skip


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("problem", TARGETS)
@pytest.mark.parametrize(
    "B, T, side, odd", [(3, 7, "right", False), (3, 7, "left", False), (1, 1, "right", False), (2, 5, "left", True)]
)
def test_logits_loss_and_every_gradient(family, problem, B, T, side, odd, tmp_path):
    labels, draw = TARGETS[problem]
    theirs, ours = pair(family, tmp_path, labels, problem, odd)
    values = inputs(B, T, side)
    targets = draw(np.random.default_rng(2), B)
    with float64():
        found = theirs(**for_them(theirs, **values), labels=torch.from_numpy(targets))
        found.loss.backward()
    outputs, _ = ours(**values)
    assert relative_error(outputs["logits"], found.logits.detach().numpy()) < TOLERANCE
    loss, back = ours.loss(targets={"logits": targets}, **values)
    assert float(loss) == pytest.approx(found.loss.item(), rel=TOLERANCE)
    gradients = hub.gradients_by_hub_name(ours, back(1.0))
    expected = {name: g.copy() for name, g in named_gradients(theirs).items()}
    assert gradients.keys() == expected.keys()
    size = max(np.abs(g).max() for g in expected.values())
    ids = values["input_ids"]
    for name, wanted in expected.items():
        if name == FAMILIES[family].tables[0]:
            wanted[PAD] = gradients[name][PAD]  # torch gives the table's padding row no gradient; here only padding reads it
            assert PAD in ids or not gradients[name][PAD].any()
        assert np.abs(gradients[name] - wanted).max() < TOLERANCE * size, name


@pytest.mark.parametrize("family", CLASSES)
def test_files_go_both_ways_bit_by_bit(family, tmp_path):
    theirs, ours = pair(family, tmp_path / "theirs")
    tinyplm.save(ours, tmp_path / "ours")
    with float64():  # DeepSeek's routers are made in float32
        again, info = CLASSES[family].from_pretrained(tmp_path / "ours", output_loading_info=True, dtype=torch.float64)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, p in theirs.state_dict().items():
        read = again.state_dict()[name]  # transformers keeps DeepSeek's routers in float32
        assert read.dtype == torch.float64 or ".mlp.gate." in name
        assert torch.equal(p.to(read.dtype), read), name
    assert again.config.num_labels == 3 and again.config.pad_token_id == PAD
