"""Encoder-decoders in training: shards, parts of the outputs, steps that lower the loss, copies, other devices and dtypes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.strict import no_synchronisation
from tests.laws import MODEL, apart, equal, relative_error
from tests.support.encoder_families import random_like
from tests.support.seq2seq_families import FAMILIES, MASKS, batch, labels, tiny
from tinyplm import random
from tinyplm.backend import to_host
from tinyplm.core import IGNORED, StackOptions, flatten, reduce_shards
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.losses.log_probs import log_probs
from tinyplm.models.protocol import LossOptions, OutputOptions
from tinyplm.optim.adamw import AdamW
from tinyplm.optim.flat import FlatTree
from tinyplm.training.settings import Settings
from tinyplm.training.step import accumulate, evaluate_batches, update

each_family = pytest.mark.parametrize("family", FAMILIES)
SOURCES, KEYS = batch()["input_ids"], random.sample_keys(4, np.arange(3))


@each_family
def test_the_loss_is_that_of_the_logits(family):
    model = tiny(family)
    wanted = labels()
    outputs, backward = model(SOURCES, labels=wanted, **MASKS)
    for options in ({}, {"smoothing": 0.1}, {"weights": random.generator(1).random(wanted.shape)}):
        expected, back = cross_entropy(outputs["logits"], targets=wanted, **options, total=7.0)
        loss, loss_back = model.loss(
            input_ids=SOURCES, targets={"logits": wanted}, **MASKS, **options, total={"logits": 7}, chunk=3
        )
        assert loss == pytest.approx(float(expected), rel=MODEL)
        assert apart(loss_back(1.5), backward({"logits": back(1.5)})) < MODEL


@each_family
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_parts_of_a_training_step_add_up_to_the_gradient(family, count):
    """For any number of shards, with dropout: each uses its samples' masks and divides by the total of the full batch."""
    model = tiny(family, **FAMILIES[family].dropout)
    inputs, targets = {"input_ids": SOURCES, **MASKS, "key": KEYS}, {"logits": labels()}
    total = {"logits": float((targets["logits"] != IGNORED).sum())}
    loss, back = model.loss(targets=targets, **inputs)
    sums = FlatTree(model.params)

    def run(shard, give):
        inputs = {**shard["inputs"], "decoder_input_ids": model.config.decoder_ids(shard["targets"]["logits"])}
        value, parts_back = model.loss_in_parts(give, inputs, targets=shard["targets"], total=total)
        return value, parts_back(1.5)

    shards = reduce_shards(run, {"inputs": inputs, "targets": targets}, count, lambda path, d: sums.add(d, path))
    for _, left in shards:
        for tree in left:
            sums.add(tree)
    assert float(sum(value for value, _ in shards)) == pytest.approx(float(loss), rel=MODEL)
    assert apart(sums.tree, back(1.5)) < MODEL


@each_family
def test_log_probabilities_of_the_targets_in_parts(family):
    """Value and gradient are those of the logits; the states of both sides have gradients as well."""
    model, wanted, inputs = tiny(family), labels(), batch()
    outputs, backward = model(**inputs)
    expected, back = log_probs(outputs["logits"], targets=wanted, temperature=0.7)
    sums = FlatTree(model.params)
    found, parts_back = model.outputs_in_parts(lambda path, d: sums.add(d, path), inputs, targets={"logits": wanted},
                                               options=OutputOptions(temperature=0.7, entropy=True))  # fmt: skip
    assert list(found) == ["log_probs", "entropy", "encoder_hidden", "hidden"]
    assert relative_error({n: found[n] for n in expected}, expected) < MODEL
    c = random_like(found)
    for tree in parts_back(c):
        sums.add(tree)
    dlogits = back({name: c[name] for name in expected})
    assert apart(sums.tree, backward({"logits": dlogits, "encoder_hidden": c["encoder_hidden"], "hidden": c["hidden"]})) < MODEL


def test_a_part_of_the_outputs_may_have_no_gradient():
    model, inputs = tiny("bart"), batch()
    for names in ([], ["encoder_hidden"], ["hidden"], ["log_probs"]):
        sums = FlatTree(model.params)
        found, back = model.outputs_in_parts(lambda path, d, sums=sums: sums.add(d, path), inputs, targets={"logits": labels()})
        for tree in back(random_like({name: found[name] for name in names}) | {"entropy": None}):
            sums.add(tree)
        assert any(a.any() for a in flatten(sums.tree).values()) == bool(names)
        assert any(a.any() for a in flatten(sums.tree["body"]["decoder"]).values()) == (names not in ([], ["encoder_hidden"]))


@each_family
def test_a_step_of_training_lowers_the_loss(device, family):
    """On each device; of micro-batches and shards, and with layers recomputed."""
    model = tiny(family, device=device, **FAMILIES[family].dropout)
    inputs = {**{name: a for name, a in batch().items()}, "decoder_input_ids": model.config.decoder_ids(labels())}
    targets = {"logits": labels()}
    optimizer = AdamW(model.params, weight_decay=0.0)
    model.params = optimizer.params
    settings = Settings(steps=9, batch_size=3, sequence_length=4, learning_rate=0.01, warmup=0, clip=1e3, workers=2,
                        micro_batch_size=2, checkpointing=1)  # fmt: skip
    accumulated = accumulate(model, optimizer, inputs, targets, settings=settings)
    loss, back = model.loss(targets=targets, **inputs)
    assert float(to_host(accumulated)) == pytest.approx(float(to_host(loss)), rel=MODEL)
    assert apart(to_host(optimizer.gradient.tree), to_host(back(1.0))) < MODEL
    optimizer.gradient.clear()
    before = evaluate_batches(model, [(inputs, targets)])
    with no_synchronisation():  # of the strict device
        update(model, optimizer, inputs, targets, settings=settings, step=0, key=3)
    assert evaluate_batches(model, [(inputs, targets)]) < before
    assert np.isfinite(before) and before == pytest.approx(float(to_host(loss)), rel=MODEL)


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("factors", [False, True])
def test_frozen_and_recomputed_layers_in_parts(family, factors):
    """Every layer is reported, frozen ones with zeros; the last part is what is left of both look-ups."""
    model = tiny(family)
    inputs, paths = batch(), []
    _, back = model.loss_in_parts(lambda path, d: paths.append(path), inputs, targets={"logits": labels()},
                                  options=LossOptions(factors=factors),
                                  stacking=StackOptions(frozen=3, checkpointing=1))  # fmt: skip
    left = back(1.0)
    assert (
        [path for path in paths if "layers" in path][:1] == ["body.decoder.layers.1"] and paths[0] == "" and paths[-1] == "body"
    )
    assert len(left) == 2 + factors
    rows = [tree["body"]["tokens"] for tree in left[-2:]]
    assert [len(some.ids) for some in rows] == [15, 12]


@each_family
def test_another_device_and_dtype_keep_buffers_and_tasks(device, family):
    model = tiny(family)
    moved = model.to(device)
    assert moved.device == device and moved.task == model.task and moved.origin == model.origin
    assert flatten(moved.buffers).keys() == flatten(model.buffers).keys()
    assert equal(to_host(moved.buffers), model.buffers) and equal(to_host(moved.to("cpu").params), model.params)
    found, expected = moved(**batch(), grad=False)[0], model(**batch(), grad=False)[0]
    assert apart(to_host(found), expected) < MODEL
    half = model.astype("float16")
    assert half.dtype == np.float16 and half(**batch(), grad=False)[0]["logits"].dtype == np.float16
    other = model.with_params(tiny(family, seed=1).params)
    assert other.buffers is model.buffers and not equal(other(**batch(), grad=False)[0], expected)
