# ruff: noqa: E402 - imports follow importorskip
"""BART's and mBART's heads of classes and answers against transformers, in float64; files in both directions."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.pair import as_torch, assert_same, assert_same_gradients, float64, padding, random_model, with_ours
from tests.interop.seq2seq_pair import FAMILIES, FIRST, gradients_of
from tinyplm.hub import folders as hub

TASKS = [(family, task) for family in ("bart", "mbart") for task in FAMILIES[family].module.HEADS]
END = 2
# ours: theirs
OUTPUTS = {"logits": "logits", "start_logits": "start_logits", "end_logits": "end_logits"}


def pair(family, task, folder, **changes):
    row = FAMILIES[family]
    architecture = getattr(transformers, row.module.HEADS[task].architecture)
    labels = {"num_labels": 2 if task == "question_answering" else 3}
    config = row.config(**{**row.tiny, **labels, **changes}, attn_implementation="eager")
    return with_ours(random_model(architecture, config), folder)


def inputs(B, S):
    """Sources with an end token: transformers asks for equally many in each row, and takes the last."""
    ids = np.random.default_rng(1).integers(FIRST, 41, (B, S))
    ids[:, 1], ids[np.arange(B), S - 2 - np.arange(B) % 2] = END, END
    return ids


@pytest.mark.parametrize("shape", [(3, 7), (1, 5)])
@pytest.mark.parametrize(("family", "task"), TASKS)
def test_outputs_losses_and_gradients(family, task, shape, tmp_path):
    theirs, ours = pair(family, task, tmp_path, **(FAMILIES[family].odd if shape[0] == 1 else {}))
    assert ours.task == task
    rng, ids = np.random.default_rng(2), inputs(*shape)
    mask = padding("right", *shape)[0] if shape[0] == 1 else None
    with float64():
        output = theirs(**as_torch(input_ids=ids, attention_mask=mask))
    outputs, backward = ours(ids, attention_mask=mask)
    names = [name for name in OUTPUTS if name in outputs]
    found = [getattr(output, OUTPUTS[name]) for name in names]
    for name, expected in zip(names, found):
        assert_same(name, outputs[name], expected.detach().numpy())
    cotangents = {name: rng.normal(size=outputs[name].shape) for name in names}
    torch.autograd.backward(found, [torch.from_numpy(cotangents[name]) for name in names], retain_graph=True)
    assert_same_gradients(hub.gradients_by_hub_name(ours, backward(cotangents)), gradients_of(theirs))

    B, S = shape
    targets = {name: rng.integers(0, S if name != "logits" else 3, B) for name in names}
    losses = [torch.nn.functional.cross_entropy(a, torch.from_numpy(t)) for a, t in zip(found, targets.values())]
    expected = sum(losses) / len(losses)
    expected.backward()
    loss, loss_back = ours.loss(input_ids=ids, attention_mask=mask, targets=targets)
    assert_same("loss", loss, expected.detach().numpy())
    assert_same_gradients(hub.gradients_by_hub_name(ours, loss_back(1.0)), gradients_of(theirs))


@pytest.mark.parametrize(("family", "task"), TASKS)
def test_files_in_both_directions(family, task, tmp_path):
    theirs, ours = pair(family, task, tmp_path / "theirs")
    tinyplm.save(ours, tmp_path / "ours")
    with float64():
        again = type(theirs).from_pretrained(tmp_path / "ours", dtype="float64").eval()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize(("family", "task"), TASKS)
def test_a_language_model_gets_a_new_head(family, task, tmp_path):
    model = tinyplm.create(family, FAMILIES[family].tiny, key=1)
    tinyplm.save(model, tmp_path)
    other = tinyplm.load(tmp_path, task=task)
    assert other.fresh and all(path.startswith("head.") for path in other.fresh) and not other.buffers
    assert other.params["body"]["tokens"].tobytes() == model.params["body"]["tokens"].tobytes()
