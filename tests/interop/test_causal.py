# ruff: noqa: E402 - imports follow importorskip
"""Every causal family against transformers: the same numbers and the same gradients (tolerance: see pair.py).

What is specific to one family is in test_gpt2.py and test_llama.py.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


from tests.interop.families import FAMILIES
from tests.interop.pair import as_in_files, assert_same, assert_same_gradients, compare, for_them, named_gradients, padding, pair
from tests.laws import relative_error
from tinyplm.hub import folders as hub
from tinyplm.optim.adamw import AdamW

pytestmark = [pytest.mark.parametrize("family", list(FAMILIES)), pytest.mark.usefixtures("in_float64")]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_logits_loss_and_every_gradient(tmp_path, family, side, tied):
    compare(*pair(family, tmp_path, tie_word_embeddings=tied), side=side)


@pytest.mark.parametrize(("B", "T"), [(1, 7), (1, 2), (5, 3), (2, 12)])  # 12: the whole context
def test_odd_batches(tmp_path, family, B, T):
    theirs, ours = pair(family, tmp_path, **FAMILIES[family].odd)
    for side in ("none", "right", "left"):
        compare(theirs, ours, B=B, T=T, side=side)


def test_one_token(tmp_path, family):
    """Attention to a single key is constant, so q and k get no gradient: compared separately, without the zero check."""
    theirs, ours = pair(family, tmp_path)
    output = theirs(torch.tensor([[5]]))
    outputs, backward = ours([[5]])
    cotangent = np.random.default_rng(0).normal(size=(1, 1, 41))
    output.logits.backward(torch.from_numpy(cotangent))
    assert_same("logits", outputs["logits"], output.logits.detach().numpy())
    ours_by_name, expected = hub.gradients_by_hub_name(ours, backward({"logits": cotangent})), named_gradients(theirs)
    assert set(ours_by_name) == set(expected)
    for name in expected:
        assert_same(name, ours_by_name[name], expected[name])


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_tokens_leak_nowhere(tmp_path, family, side):
    """A token that occurs only in padding gets exactly zero gradient in either library, whatever the padded rows hold.

    Untied, since a tied head gives every row of the table a gradient.
    """
    theirs, ours = pair(family, tmp_path, tie_word_embeddings=False)
    mask, positions = padding(side, 3, 6)
    rng = np.random.default_rng(0)
    ids = np.where(mask == 1, rng.integers(0, 40, mask.shape), 40)
    output = theirs(torch.from_numpy(ids), **for_them(theirs, attention_mask=mask, position_ids=positions))
    cotangent = rng.normal(size=output.logits.shape) * mask[..., None]
    output.logits.backward(torch.from_numpy(cotangent))
    _, backward = ours(ids, attention_mask=mask, position_ids=positions)
    tables = (named_gradients(theirs)[FAMILIES[family].tables[0]], backward({"logits": cotangent})["body"]["tokens"])
    for table in tables:
        assert not table[40].any() and table[ids[mask == 1]].all()


def test_any_position_ids(tmp_path, family):
    """Positions out of order and repeated, one row per sample."""
    theirs, ours = pair(family, tmp_path)
    compare(theirs, ours, B=2, T=6, positions=np.random.default_rng(0).integers(0, 12, (2, 6)))


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_as_inputs(tmp_path, family, tied):
    """The token table then does not affect the outputs, unless it is also the head."""
    theirs, ours = pair(family, tmp_path, tie_word_embeddings=tied)
    rng = np.random.default_rng(0)
    embeds = rng.normal(size=(2, 5, ours.width))
    leaf = torch.from_numpy(embeds).requires_grad_()
    scale = ours.width**0.5 if family.startswith("gemma") else 1  # its embedding module in transformers returns scaled rows
    output = theirs(inputs_embeds=scale * leaf)
    outputs, backward = ours(inputs_embeds=embeds)
    cotangent = rng.normal(size=output.logits.shape)
    output.logits.backward(torch.from_numpy(cotangent))
    dparams, dembeds = backward({"logits": cotangent})
    assert_same("logits", outputs["logits"], output.logits.detach().numpy())
    assert_same("the gradient of inputs_embeds", dembeds, leaf.grad.numpy())
    ours_by_name, expected = hub.gradients_by_hub_name(ours, dparams), named_gradients(theirs)
    if not tied:
        table = FAMILIES[family].tables[0]
        assert not ours_by_name.pop(table).any() and not expected.pop(table).any()
    assert_same_gradients(ours_by_name, expected)


def test_labels_of_transformers_are_our_targets_shifted(tmp_path, family):
    """transformers shifts internally: its loss with labels = ids is ours with targets[t] = ids[t + 1]."""
    theirs, ours = pair(family, tmp_path)
    ids = np.random.default_rng(0).integers(0, 41, (2, 8))
    targets = np.concatenate([ids[:, 1:], np.full((2, 1), -100)], axis=1)
    loss, _ = ours.loss(input_ids=ids, targets={"logits": targets}, grad=False)
    assert_same("loss", loss, theirs(torch.from_numpy(ids), labels=torch.from_numpy(ids)).loss.detach().numpy())


def test_dropout_is_off_without_a_key(tmp_path, family):
    theirs, ours = pair(family, tmp_path)
    ids = np.random.default_rng(0).integers(0, 41, (2, 8))
    expected = theirs(torch.from_numpy(ids)).logits.detach().numpy()
    rates = {name: rate for name, rate in vars(ours.config).items() if name.endswith(("pdrop", "dropout"))}
    assert rates and set(rates.values()) == {0.1}
    assert_same("logits", ours(ids, key=None)[0]["logits"], expected)
    assert relative_error(ours(ids, key=1)[0]["logits"], expected) > 1e-2
    assert relative_error(theirs.train()(torch.from_numpy(ids)).logits.detach().numpy(), expected) > 1e-2


def test_twenty_training_steps_together(tmp_path, family):
    """Loss, backward, clipping, AdamW and a changing learning rate together: the parameters stay equal.

    torch divides by norm + 1e-6 when it clips, which is our clipping with the limit times norm / (norm + 1e-6).
    eps = 1e-6, since AdamW divides by the gradient's magnitude: GPT-2's key biases have an exact gradient of zero, and with 1e-8
    their rounding noise would come close to the tolerance.
    """
    theirs, ours = pair(family, tmp_path)
    named = dict(theirs.named_parameters())
    axes = {name: p.ndim - (".experts." in name) for name, p in named.items()}  # those of all experts are one array
    decayed = [name for name in named if axes[name] == 2 and name not in FAMILIES[family].tables]
    groups = [{"params": [named[name] for name in decayed], "weight_decay": 0.1},
              {"params": [p for name, p in named.items() if name not in decayed], "weight_decay": 0.0}]  # fmt: skip
    torch_optimizer = torch.optim.AdamW(groups, eps=1e-6)
    optimizer = AdamW(ours.params, weight_decay=0.1, eps=1e-6)
    rng = np.random.default_rng(0)
    for step in range(20):
        ids, targets = rng.integers(0, 41, (2, 2, 10))
        lr = 1e-3 * (step + 1)
        for group in torch_optimizer.param_groups:
            group["lr"] = lr
        logits = theirs(torch.from_numpy(ids)).logits
        torch.nn.functional.cross_entropy(logits.reshape(-1, 41), torch.from_numpy(targets.reshape(-1))).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0))
        torch_optimizer.step()
        torch_optimizer.zero_grad()

        _, backward = ours.with_params(optimizer.params).loss(input_ids=ids, targets={"logits": targets})
        optimizer.gradient.add(backward(1.0))
        assert_same("the gradient's norm", optimizer.gradient_norm(), norm)
        optimizer.step(lr, clip=norm / (norm + 1e-6))
    moved = hub.gradients_by_hub_name(ours, optimizer.params)  # works for any tree, not only gradients
    start = hub.gradients_by_hub_name(ours, ours.params)
    for name, p in as_in_files(theirs, {name: p.detach() for name, p in named.items()}).items():
        assert_same(name, moved[name], p.numpy())
        assert relative_error(moved[name], start[name]) > 1e-3, f"{name} has hardly moved"
