"""What training requires of a model: a class with only the members of Trainable can be trained by the loop's steps and by a
learner, and the package's own models have all of those members."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL
from tests.support import families
from tinyplm.core import StackOptions, flatten
from tinyplm.models.causal_model import CausalModel
from tinyplm.models.encoder_model import EncoderModel
from tinyplm.models.protocol import LossOptions, OutputOptions, Trainable
from tinyplm.models.score_model import ScoreModel
from tinyplm.models.seq2seq_model import Seq2SeqModel
from tinyplm.optim.adamw import AdamW
from tinyplm.training.settings import Settings
from tinyplm.training.step import accumulate, evaluate_batches, update
from tinyplm.tuning.adapters.soft_prompt import SoftPrompted
from tinyplm.tuning.align.distill import Student
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.settings import RecipeSettings

MEMBERS = {name for name in [*vars(Trainable), *Trainable.__annotations__] if not name.startswith("_")}


class Sums:
    """y = sum of w[ids] over a row + b, with squared error, written out using Trainable's members alone."""

    device, width = "cpu", 2

    def __init__(self, params):
        self.params = params

    def with_params(self, params):
        return Sums(params)

    def head_rows(self, targets):
        return len(targets["logits"])

    def _outputs(self, inputs):
        return self.params["w"][inputs["input_ids"]].sum(axis=1) + self.params["b"]

    def _parts(self, inputs, dy):
        dw = np.zeros_like(self.params["w"])
        np.add.at(dw, inputs["input_ids"], dy[:, None])
        return {"w": dw}, dy.sum()

    def loss(self, *, targets, total=None, grad=True, **inputs):
        error = self._outputs(inputs) - targets["logits"]
        total = total["logits"] if total else len(error)

        def backward(dloss):
            dw, db = self._parts(inputs, dloss * 2 * error / total)
            return {**dw, "b": db}

        return (error**2).sum() / total, backward if grad else None

    def loss_in_parts(self, emit, inputs, *, targets, total=None, options=LossOptions(), stacking=StackOptions()):
        value, back = self.loss(targets=targets, total=total, **inputs)

        def backward(dloss):
            gradient = back(dloss)
            emit("w", gradient.pop("w"))
            return [gradient]

        return value, backward

    def outputs_in_parts(self, emit, inputs, *, targets=None, options=OutputOptions(), stacking=StackOptions()):
        def backward(doutputs):
            dw, db = self._parts(inputs, doutputs["y"])
            emit("", dw)
            return [{"b": db}]

        return {"y": self._outputs(inputs)}, backward


def sums():
    return Sums({"w": np.zeros(5), "b": np.zeros(())})


rng = np.random.default_rng(0)
IDS = rng.integers(0, 5, (12, 3))
Y = np.array([3.0, -1.0, 0.5, 2.0, -2.0])[IDS].sum(axis=1) + 0.7


def test_the_members_are_those():
    assert {name for name in vars(sums()) | vars(Sums) if not name.startswith("_")} == MEMBERS


@pytest.mark.parametrize("workers", [1, 3])
def test_steps_of_the_loop(workers):
    model = sums()
    optimizer = AdamW(model.params, weight_decay=0.0)
    model.params = optimizer.params
    settings = Settings(steps=300, batch_size=12, sequence_length=3, learning_rate=0.1, warmup=0, clip=1e3, workers=workers,
                        micro_batch_size=6)  # fmt: skip
    first = accumulate(model, optimizer, IDS, Y, settings=settings)
    assert float(first) == pytest.approx(float((Y**2).mean()))
    value, back = model.loss(targets={"logits": Y}, input_ids=IDS)
    for path, a in flatten(back(1.0)).items():
        assert np.allclose(optimizer.gradient.leaves[path], a, rtol=MODEL)
    optimizer.gradient.clear()
    for step in range(settings.steps):
        update(model, optimizer, IDS, Y, settings=settings, step=step)
    batches = [({"input_ids": IDS[:8]}, {"logits": Y[:8]}), ({"input_ids": IDS[8:]}, {"logits": Y[8:]})]
    assert evaluate_batches(model, batches, workers=workers) < 1e-3


def test_steps_of_a_learner():
    learner = Learner(sums(), RecipeSettings(steps=300, batch_size=12, learning_rate=0.1, warmup=0, workers=2))

    def loss(outputs, extra, part):
        error = outputs["y"] - part["y"]
        return {"loss": (error**2).sum() / 12}, lambda dloss: ({"y": dloss * 2 * error / 12}, None)

    batch = {"inputs": {"input_ids": IDS}, "loss": {"y": Y}}
    losses = [learner.step(batch, loss)["loss"] for _ in range(300)]
    assert losses[0] == pytest.approx(float((Y**2).mean())) and losses[-1] < 1e-3
    assert not learner.has_names


@pytest.mark.parametrize("cls", [CausalModel, EncoderModel, ScoreModel, Seq2SeqModel, SoftPrompted, Student])
def test_the_packages_models_have_the_members_with_these_arguments(cls):
    for name in MEMBERS - Trainable.__annotations__.keys():
        member, asked = getattr(cls, name), getattr(Trainable, name)
        if not isinstance(asked, property):
            names = inspect.signature(member).parameters.keys()
            assert inspect.signature(asked).parameters.keys() <= names, name


@pytest.mark.parametrize("cls", [CausalModel, EncoderModel, ScoreModel, Seq2SeqModel])
@pytest.mark.parametrize("call", ["__call__", "loss"])
def test_every_model_has_the_defaults_of_the_stack(cls, call):
    parameters = inspect.signature(getattr(cls, call)).parameters
    for field in dataclasses.fields(StackOptions):
        assert parameters[field.name].default is field.default, field.name


def test_wrong_calls_of_a_training_step_are_one_line():
    model, ids = tinyplm.create("llama", families.FAMILIES["llama"].config), np.array([[1, 2]])
    inputs, targets = {"input_ids": ids}, {"logits": ids}

    def emit(path, gradient):
        raise AssertionError("no gradient is formed")

    wrong = [
        ("inputs: expected a dict of arrays with input_ids, got ", {"inputs": [1]}),
        ("inputs: expected a dict of arrays with input_ids, got ", {"inputs": {"inputs_embeds": np.zeros((1, 2, 6))}}),
        ("inputs: cache: expected None in training, got ", {"inputs": {**inputs, "cache": model.empty_cache(1)}}),
        ("stacking: expected StackOptions, got 3", {"stacking": 3}),
    ]
    for call, kind in ((model.loss_in_parts, "LossOptions"), (model.outputs_in_parts, "OutputOptions")):
        for message, change in [*wrong, (f"options: expected {kind}, got ", {"options": {"chunk": 3}})]:
            with pytest.raises(ValueError, match=f"^{message}") as error:
                call(emit, **{"inputs": inputs, "targets": targets, **change})
            assert "\n" not in str(error.value)
