# ruff: noqa: E402 - imports follow importorskip
"""Every encoder family and task against transformers in float64: outputs, losses, every gradient, files both ways."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


import tinyplm
from tests.interop.encoder_pair import CASES, FAMILIES, compare, compare_loss, full_name, inputs_for, pair
from tests.interop.pair import assert_bit_equal, float64, our_tensors
from tinyplm.hub.tensors import read_safetensors, write_safetensors

SHAPES = {
    "padded right": {},
    "padded left": {"side": "left"},
    "no padding, no types": {"side": "none", "types": False},
    "one token": {"B": 2, "T": 1, "side": "none"},
    "one sample": {"B": 1, "T": 5, "side": "none"},
}


POOLED = ("sequence_classification", "multiple_choice", "pooled", "pretraining", "next_sentence")


@pytest.mark.parametrize(
    ("family", "task", "shape"),
    [(family, task, shape) for family, task in CASES for shape in SHAPES
     if not (shape == "padded left" and task in POOLED and FAMILIES[family].empty)],
)  # fmt: skip
def test_outputs_and_gradients(tmp_path, family, task, shape):
    theirs, ours = pair(family, task, tmp_path)
    inputs = inputs_for(family, task, **SHAPES[shape])
    alone = ("self.query", "self.key", "attention.query", "attention.key", "q_lin", "k_lin", "rel_attn.q", "rel_attn.k",
             "rel_attn.r", "seg_embed", *FAMILIES[family].one_token)  # fmt: skip
    exempt = alone if shape == "one token" else ()
    compare(theirs, ours, inputs, exempt=exempt)


@pytest.mark.parametrize(("family", "task"), CASES)
def test_three_heads_of_width_ten(tmp_path, family, task):
    theirs, ours = pair(family, task, tmp_path, **FAMILIES[family].odd)
    compare(theirs, ours, inputs_for(family, task))


@pytest.mark.parametrize(
    ("family", "task", "changes"),
    [*((name, "masked_lm", {"hidden_act": "relu"}) for name in ("bert", "roberta", "albert", "deberta", "deberta-v2")),
     *((name, "sequence_classification", {"pooler_hidden_act": "tanh"}) for name in ("deberta", "deberta-v2")),
     ("xlnet", "sequence_classification", {"summary_type": "first"}),
     ("distilbert", "masked_lm", {"activation": "relu"}), ("xlnet", "permutation_lm", {"ff_activation": "relu"}),
     ("albert", "masked_lm", {"num_hidden_layers": 18, "num_hidden_groups": 14, "inner_group_num": 1})],
)  # fmt: skip
def test_other_configs(tmp_path, family, task, changes):
    """Which parts use an activation (RoBERTa's head has its own), and which group a layer belongs to: for two of ALBERT's 18
    layers here the rounding of a quotient decides."""
    theirs, ours = pair(family, task, tmp_path, **changes)
    compare(theirs, ours, inputs_for(family, task))


@pytest.mark.parametrize(("family", "task"), [case for case in CASES if case[1] not in ("body", "pooled")])
def test_losses(tmp_path, family, task):
    theirs, ours = pair(family, task, tmp_path)
    exempt = ("classifier.bias", "logits_proj.bias") if task == "multiple_choice" else ()  # the same for all choices
    ends_in_padding = task == "question_answering" and FAMILIES[family].empty
    compare_loss(theirs, ours, inputs_for(family, task, side="none" if ends_in_padding else "right"), exempt=exempt)


@pytest.mark.parametrize(("family", "task"), CASES)
def test_files_of_either_side(tmp_path, monkeypatch, family, task):
    """Our file, read by transformers, has the same bits under the same names, and nothing else."""
    theirs, ours = pair(family, task, tmp_path / "theirs")
    tinyplm.save(ours, tmp_path / "ours")
    monkeypatch.setattr(torch, "FloatTensor", torch.DoubleTensor)  # XLNet builds its parameters from these, whatever the dtype
    with float64():
        again, report = type(theirs).from_pretrained(tmp_path / "ours", dtype=torch.float64, output_loading_info=True)
    if not (task == "body" and "pooled" in FAMILIES[family].module.TASKS):  # transformers adds a new pooler there
        assert not report["missing_keys"]
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    wanted = {name: t.detach() for name, t in theirs.state_dict().items()}
    assert_bit_equal({name: t for name, t in again.state_dict().items() if name in wanted}, wanted)
    assert set(our_tensors(ours)) <= {full_name(ours, name) for name in wanted}
    assert tinyplm.load(tmp_path / "ours").task == task
    np.testing.assert_equal(tinyplm.load(tmp_path / "ours").config, ours.config)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "xlnet"])
def test_norms_under_their_names_of_2018(tmp_path, family):
    """LayerNorm.gamma and .beta are read as in transformers."""
    theirs, ours = pair(family, "masked_lm", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): np.array(a)
               for name, a in read_safetensors(file)[0].items()}  # fmt: skip
    assert any(name.endswith("LayerNorm.gamma") for name in tensors)
    write_safetensors(file, tensors)
    with float64():
        again, report = type(theirs).from_pretrained(tmp_path, dtype=torch.float64, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_bit_equal(again.state_dict(), theirs.state_dict())
    assert_bit_equal(our_tensors(tinyplm.load(tmp_path)), our_tensors(ours))
