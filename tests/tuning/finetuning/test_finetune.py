"""Fine-tuning: gradients of a step, frozen layers, the loop, and what it keeps and writes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, apart, equal, relative_error
from tests.support.tuning import KINDS, TEXTS, model
from tests.tuning.align.test_logs import without_times
from tinyplm import random
from tinyplm.core import flatten, tree_map
from tinyplm.models.encoder_model import EncoderModel
from tinyplm.optim.adamw import AdamW
from tinyplm.training.step import NonFiniteError, accumulate
from tinyplm.tuning.finetuning import finetune as loop
from tinyplm.tuning.finetuning.answers import answering
from tinyplm.tuning.finetuning.choices import multiple_choice
from tinyplm.tuning.finetuning.classes import classification
from tinyplm.tuning.finetuning.finetune import better, finetune
from tinyplm.tuning.finetuning.freezing import joined, upper_part
from tinyplm.tuning.finetuning.predict import outputs_and_loss, predict
from tinyplm.tuning.finetuning.samples import training_batches
from tinyplm.tuning.finetuning.tags import tagging
from tinyplm.tuning.settings import TuningSettings

CLOSE = MODEL  # float64; sums in a different order


def samples_of(task, made):
    """10 samples from the small texts."""
    if task == "token_classification":
        return tagging(made, [text.split() for text in TEXTS], [[i % 2 for i in range(len(text.split()))] for text in TEXTS])
    if task == "question_answering":
        return answering(made, ["a"] * 10, TEXTS, [(text.rindex(" ") + 1, len(text)) for text in TEXTS[:9]] + [None])
    if task == "multiple_choice":
        some = ["a dog", "the bank", "the cat"]
        rotated = [some[i % 3 :] + some[: i % 3] for i in range(10)]
        return multiple_choice(made, TEXTS, rotated, [row.index("the bank") for row in rotated])
    return classification(made, TEXTS, KINDS)


TASKS = ["sequence_classification", "token_classification", "question_answering", "multiple_choice"]
QUICK = TuningSettings(epochs=2, batch_size=4, learning_rate=1e-2, warmup=0.1)


# ----------------------------------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("key", [None, 5])
def test_a_step_has_the_gradient_of_the_whole_batch(task, workers, key):
    made = model(task)
    inputs, targets = samples_of(task, made).batch(range(10))
    keys = None if key is None else random.sample_keys(key, np.arange(10))
    loss, back = made.loss(targets=targets, key=keys, **inputs)
    optimizer = AdamW(made.params)
    settings = TuningSettings(workers=workers)
    found = accumulate(made, optimizer, inputs, targets, settings=settings, key=key)
    assert float(found) == pytest.approx(float(loss), rel=CLOSE)
    assert relative_error(optimizer.gradient.tree, back(1.0)) < CLOSE
    optimizer.gradient.clear()
    again = accumulate(made, optimizer, inputs, targets, settings=dataclasses.replace(settings, checkpointing=1), key=key)
    assert float(again) == float(found) and relative_error(optimizer.gradient.tree, back(1.0)) < CLOSE


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_frozen_parameters_have_no_gradient_and_the_others_the_same(task, layers, monkeypatch):
    made = model(task, layers=3)
    inputs, targets = samples_of(task, made).batch(range(10))
    full, part = AdamW(made.params), upper_part(made.params, layers)
    few = AdamW(part[0])
    expected = ["head"] + [f"body.layers.{i}" for i in range(3 - layers, 3)]
    assert {path for path in full.values.paths if path.startswith(tuple(expected))} == set(few.values.paths)
    whole = accumulate(made, full, inputs, targets, settings=TuningSettings(), key=3)
    run = []  # the layers whose backward ran
    real = EncoderModel.loss_in_parts

    def spy(model, emit, inputs, **options):
        return real(model, lambda path, d: run.append(path) or emit(path, d), inputs, **options)

    monkeypatch.setattr(EncoderModel, "loss_in_parts", spy)
    loss = accumulate(made, few, inputs, targets, settings=TuningSettings(workers=2), frozen=part[1], key=3)
    assert float(loss) == pytest.approx(float(whole), rel=CLOSE)
    assert {path for path in run if "layers" in path} == set(expected[1:])
    for path, gradient in few.gradient.leaves.items():
        assert relative_error(gradient, full.gradient.leaves[path]) < CLOSE and gradient.any() or path.endswith("bk"), path


def test_parts_are_put_together_again():
    made = model(layers=3)
    part, frozen = upper_part(made.params, 1)
    doubled = {path: 2 * a for path, a in flatten(part).items()}
    assert frozen == 2
    whole = flatten(joined({"body": {"layers": [None, None, part["body"]["layers"][2]]}, "head": None}, made.params))
    assert list(whole) == list(flatten(made.params)) and all(whole[path] is a for path, a in flatten(made.params).items())
    assert doubled.keys() == flatten(part).keys() < whole.keys()
    assert upper_part(made.params, None) == (made.params, 0)
    with pytest.raises(ValueError, match="trained_layers: expected None or an integer from 0 to 3"):
        upper_part(made.params, 4)


@pytest.mark.parametrize("task", TASKS)
def test_outputs_do_not_depend_on_batches_and_the_loss_is_the_models(task):
    made = model(task)
    samples = samples_of(task, made)
    outputs, loss = outputs_and_loss(made, samples, batch_size=10)
    inputs, targets = samples.batch(range(10))
    expected, _ = made.loss(targets=targets, grad=False, **inputs)
    assert loss == pytest.approx(float(expected), rel=CLOSE)
    whole, _ = made(**inputs, grad=False)
    for size, workers in ((1, 1), (3, 2), (100, 4)):
        found = predict(made, samples, batch_size=size, workers=workers)
        assert found.keys() == outputs.keys() == set(samples.targets)
        for name in found:
            for n, row in enumerate(found[name]):
                full = whole[name][n][inputs["attention_mask"][n] == 1] if samples.PER_TOKEN else whole[name][n]
                assert row.shape == full.shape and np.allclose(row, full, rtol=MODEL, atol=MODEL)
    unlabelled = dataclasses.replace(samples, targets={})
    assert outputs_and_loss(made, unlabelled)[1] is None


# ----------------------------------------------------------------------------------------------------------------- the loop


@pytest.mark.parametrize("task", TASKS)
def test_a_small_task_is_learnt(task):
    made = model(task, dtype="float32", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1)
    samples = samples_of(task, made)
    start = outputs_and_loss(made, samples)[1]
    result = finetune(made, samples, samples, TuningSettings(epochs=30, batch_size=4, learning_rate=5e-3, metric="loss"),
                      progress=False)  # fmt: skip
    outputs, loss = outputs_and_loss(made, samples, batch_size=4)
    assert loss < 0.3 * start and loss == pytest.approx(result.scores["loss"], rel=1e-5)
    assert result.scores["loss"] == min(scores["loss"] for scores in result.history)
    assert samples.score(outputs)[samples.measures[0]] >= 0.9


@pytest.mark.parametrize("task", TASKS)
def test_every_device_computes_the_same(device, task):
    def run(place):
        made = model(task).to(place)
        samples = samples_of(task, made)
        return finetune(made, samples, samples, dataclasses.replace(QUICK, trained_layers=1, layer_decay=0.5), progress=False)

    assert run(device).scores["loss"] == pytest.approx(run("cpu").scores["loss"], rel=MODEL)


def test_several_labels_and_numbers_are_learnt():
    for made, labels in ((model(names=("a", "b"), problem_type="multi_label_classification", dtype="float32"),
                          [["a"] if kind == "animal" else ["a", "b"] for kind in KINDS]),
                         (model(names=("score",), dtype="float32"), [len(text) / 10 for text in TEXTS])):  # fmt: skip
        samples = classification(made, TEXTS, labels)
        start = outputs_and_loss(made, samples)[1]
        settings = TuningSettings(epochs=40, batch_size=5, learning_rate=3e-3, dropout=False, metric="loss")
        assert finetune(made, samples, samples, settings, progress=False).scores["loss"] < 0.2 * start


def test_the_same_seed_gives_the_same_bits():
    def run(dtype="float32", **changes):
        made = model(dtype=dtype)
        finetune(made, classification(made, TEXTS, KINDS), classification(made, TEXTS, KINDS),
                 dataclasses.replace(QUICK, **changes), progress=False)  # fmt: skip
        return made.params

    first = run()
    assert equal(first, run())
    assert not equal(first, run(seed=1)), "order and dropout depend on the seed"
    assert not equal(first, run(dropout=False)) and not equal(first, run(clip=1e-3))
    assert equal(run(workers=2), run(workers=2))
    # Two threads sum in a different order than one.  An update moves a parameter by lr g / (sqrt(v) + eps), so the rounding of
    # a gradient (key biases have nothing else) is amplified up to lr / eps = 10^4 times in each of 6 updates: 10^-11 per EPS
    assert apart(run("float64", workers=2), run("float64")) < 1e-9


def test_only_what_is_trained_moves_and_lower_layers_move_less():
    def moved(**changes):
        made = model(layers=2, dtype="float32")
        before = flatten(made.params)
        samples = classification(made, TEXTS, KINDS)
        finetune(made, samples, samples, dataclasses.replace(QUICK, epochs=1, warmup=0.0, **changes), progress=False)
        return {path: float(np.abs(a - before[path]).max()) for path, a in flatten(made.params).items()}

    paths = ("body.positions", "body.layers.0.mlp.W1", "body.layers.1.mlp.W1", "head.classifier.W")
    decayed = [moved(layer_decay=0.3)[path] for path in paths]
    assert all(2 < upper / lower < 6 for lower, upper in zip(decayed, decayed[1:])), decayed  # Adam's steps all have one size
    head = moved(trained_layers=0)
    assert {path for path, change in head.items() if change} == {path for path in head if path.startswith("head")}
    upper = moved(trained_layers=1)
    assert {path for path, change in upper.items() if change} == {p for p in upper if p.startswith(("head", "body.layers.1"))}


def test_each_epoch_has_another_order(monkeypatch):
    orders = []
    real = loop.training_batches
    monkeypatch.setattr(
        loop, "training_batches", lambda *a, **o: orders.append([b.tolist() for b in real(*a, **o)]) or orders[-1]
    )
    made = model()
    samples = classification(made, TEXTS, KINDS)
    finetune(made, samples, samples, QUICK, progress=False)
    assert (
        len(orders) == 2
        and orders[0] != orders[1]
        and sorted(sum(orders[0], [])) == sorted(sum(orders[1], [])) == list(range(10))
    )


def _scripted(monkeypatch, losses):
    """Sets the validation losses of the coming epochs, whatever the model computes."""
    values = iter(losses)
    monkeypatch.setattr(loop, "outputs_and_loss", lambda model, samples, **options: (
        outputs_and_loss(model, samples)[0], next(values)))  # fmt: skip


def test_the_best_epoch_is_kept_and_patience_ends_the_run(monkeypatch, tmp_path):
    _scripted(monkeypatch, [3.0, 1.0, 2.0, 1.0, 0.5])
    made = model(dtype="float32")
    samples = classification(made, TEXTS, KINDS)
    kept = []
    monkeypatch.setattr(loop, "_copy", lambda params, copy=loop._copy: kept.append(copy(params)) or kept[-1])
    settings = dataclasses.replace(QUICK, epochs=9, patience=2, metric="loss")
    result = finetune(made, samples, samples, settings, out=tmp_path, progress=False)
    assert result.best_epoch == 2 and len(result.history) == 4 and result.scores["loss"] == 1.0 and result.steps == 12
    assert len(kept) == 2 and equal(made.params, kept[1])
    assert json.loads((tmp_path / "best" / "tuning.json").read_text())["epoch"] == 2
    saved = tinyplm.load(tmp_path / "best")
    assert saved.task == "sequence_classification" and equal(saved.params, made.params)
    assert equal(predict(saved, classification(saved, TEXTS)), predict(made, samples))
    assert saved.config.id2label == made.config.id2label
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if "gradient_norm" in record]
    assert [record["step"] for record in steps] == list(range(1, 13))
    assert [record["validation_loss"] for record in records if "epoch" in record] == [3.0, 1.0, 2.0, 1.0]
    rates = [record["learning_rate"] for record in steps]
    assert rates[0] == pytest.approx(1e-2 / 2) and rates[1] == 1e-2 and rates[1:] == sorted(rates[1:], reverse=True)
    with pytest.raises(ValueError, match="expected a folder without a run"):
        finetune(made, samples, samples, settings, out=tmp_path, progress=False)


def test_what_is_logged_by_hand(tmp_path, monkeypatch, capsys):
    """Steps: mean batch loss, norm before clipping, warm-up over int(0.4 * 6) updates, then linear decay to 0; epochs: scores."""
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)  # without tqdm, progress is printed as lines
    made = model(dtype="float64")
    samples, held_out = classification(made, TEXTS, KINDS), classification(made, TEXTS[:3], KINDS[:3])
    settings = dataclasses.replace(QUICK, warmup=0.4, dropout=False, clip=0.3, weight_decay=0.2, eps=1e-3, smoothing=0.1, seed=3)
    optimizer, now = AdamW(made.params, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.2), made._with()
    now.params, rows, shown, said = optimizer.params, [], [], []
    rates = [0.005, 0.01, 0.01, 0.0075, 0.005, 0.0025]
    for epoch in range(2):
        for numbers in training_batches(samples.lengths, 4, key=random.fold(random.key(3), 0, epoch)):
            inputs, targets = samples.batch(numbers)
            loss, back = now.loss(targets=targets, smoothing=0.1, **inputs)
            gradient = back(1.0)
            norm = sum((a**2).sum() for a in flatten(gradient).values()) ** 0.5
            optimizer.gradient.add(tree_map(lambda a, norm=norm: a * min(1, 0.3 / norm), gradient))
            step = len([row for row in rows if "gradient_norm" in row]) + 1
            rows.append({"step": step, "loss": loss, "learning_rate": rates[step - 1], "gradient_norm": norm})
            optimizer.step(rates[step - 1])
            shown.append(f"step {step}/6  loss {loss:.3f}  norm {norm:.2f}  lr {rates[step - 1]:.1e}")
        outputs, loss = outputs_and_loss(now, held_out)
        scores = {**held_out.score(outputs), "loss": loss}
        rows.append({"step": step, "epoch": epoch + 1, **{f"validation_{name}": value for name, value in scores.items()}})
        said.append(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    result = finetune(made, samples, held_out, settings, out=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [list(record) for record in records] == [list(row) for row in rows]
    for record, row in zip(records, rows):
        assert record == pytest.approx(row, rel=MODEL)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == said and without_times(printed.err) == [shown[0], shown[-1]]
    assert result.steps == 6 and result.history == [
        {name: row[f"validation_{name}"] for name in scores} for row in records if "epoch" in row
    ]
    assert 0 < result.seconds < 60
    saved = json.loads((tmp_path / "best/tuning.json").read_text())
    assert saved["scores"] == result.history[result.best_epoch - 1] == result.scores and saved["settings"]["clip"] == 0.3


def test_what_is_not_finite_stops_the_run_and_leaves_the_model(monkeypatch, tmp_path):
    made = model(dtype="float32")
    samples = classification(made, TEXTS, KINDS)
    before = flatten(made.params)
    with pytest.raises(NonFiniteError, match="step"):
        with np.errstate(all="ignore"):
            finetune(made, samples, samples, dataclasses.replace(QUICK, learning_rate=1e30, epochs=5), progress=False)
    _scripted(monkeypatch, [1.0, np.nan])
    with pytest.raises(NonFiniteError, match="^step 6: validation loss: expected a finite number, got nan"):
        finetune(made, samples, samples, QUICK, out=tmp_path, progress=False)
    assert all(a is before[path] for path, a in flatten(made.params).items())
    assert json.loads((tmp_path / "best" / "tuning.json").read_text())["epoch"] == 1, "the best so far is still there"
    assert not list(tmp_path.glob(".*"))


def test_a_gradient_that_breaks_off_leaves_nothing_behind(monkeypatch):
    made = model()
    inputs, targets = classification(made, TEXTS, KINDS).batch(range(10))
    optimizer = AdamW(made.params)

    def breaks(model, emit, inputs, **options):
        emit("head", model.params["head"])
        raise ValueError("broken")

    monkeypatch.setattr(EncoderModel, "loss_in_parts", breaks)
    with pytest.raises(ValueError, match="broken"):
        accumulate(made, optimizer, inputs, targets, settings=TuningSettings())
    assert not optimizer.gradient.buffer.any()


def test_a_larger_score_and_a_smaller_loss_are_better():
    assert better("accuracy", 0.6, 0.5) and not better("accuracy", 0.5, 0.5)
    assert better("loss", 0.5, 0.6) and not better("loss", 0.5, 0.5)


def test_bad_samples_are_refused_before_anything_is_done():
    made = model()
    samples = classification(made, TEXTS, KINDS)
    numbers = classification(model(names=["x"]), TEXTS, [1.0] * 10)
    for train, validation, settings, message in (
        (classification(made, TEXTS), samples, QUICK, "training samples: expected samples with labels, got none"),
        (samples, classification(made, TEXTS), QUICK, "validation samples: expected samples with labels, got none"),
        (samples, numbers, QUICK, "validation samples: expected Classes, as for training, got Numbers"),
        (
            samples,
            samples,
            TuningSettings(metric="chunk f1"),
            "metric: expected None, loss or one of accuracy, f1, matthews, got 'chunk f1'",
        ),
        (samples, samples, TuningSettings(trained_layers=5), "trained_layers: expected None or an integer from 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune(made, train, validation, settings, progress=False)
    with pytest.raises(TypeError, match="expected an encoder"):
        finetune(tinyplm.create("gpt2", n_layer=1, n_embd=8, n_head=1, vocab_size=9), samples, samples)
    with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
        outputs_and_loss(made, dataclasses.replace(samples, encodings=[]))
