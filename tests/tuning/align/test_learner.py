"""Code shared by the recipes: sequences, the learner, its log and its checks."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, difference_rounding, relative_error
from tests.support import tuning
from tinyplm.core import flatten, tree_map
from tinyplm.models.protocol import OutputOptions
from tinyplm.training.log import Progress
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.training.step import NonFiniteError
from tinyplm.tuning.align.journal import Journal
from tinyplm.tuning.align.learner import Learner, token_log_probs
from tinyplm.tuning.align.sft import SFTSettings, sft
from tinyplm.tuning.data.sequences import TokenSequence, answered, check_sequences, sequence_arrays
from tinyplm.tuning.finetuning.classes import classification
from tinyplm.tuning.finetuning.finetune import finetune
from tinyplm.tuning.settings import RecipeSettings, TuningSettings

SIZES = {"llama": {"vocab_size": 40, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
                   "max_position_embeddings": 16},
         "gpt2": {"vocab_size": 40, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 16, "resid_pdrop": 0.1,
                  "embd_pdrop": 0.1, "attn_pdrop": 0.1},
         "qwen2_moe": {"vocab_size": 40, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_experts": 4,
                       "num_attention_heads": 3, "num_key_value_heads": None, "max_position_embeddings": 16,
                       "num_experts_per_tok": 2, "moe_intermediate_size": 6, "mlp_only_layers": [0],
                       "shared_expert_intermediate_size": 5}}  # fmt: skip


def tiny(family="llama", **changes):
    model = tinyplm.create(family, dtype=changes.pop("dtype", "float64"), key=changes.pop("key", 3), **SIZES[family], **changes)
    return model


def some_sequences(count=6, seed=0):
    draw = np.random.default_rng(seed)
    return [answered(draw.integers(0, 40, draw.integers(1, 6)).tolist(), draw.integers(0, 40, draw.integers(1, 6)).tolist())
            for _ in range(count)]  # fmt: skip


def batch_of(sequences, **loss):
    values = sequence_arrays(sequences)
    targets = values.pop("targets")
    return {"inputs": values, "targets": {"logits": targets}, "loss": loss}


def likelihood(total):
    """The loss -sum(w l) / total - 0.1 sum(H) / total + sum(v^2): a bit of everything a recipe may use."""

    def loss(outputs, extra, part):
        w, H = part["weights"], outputs["entropy"]
        value = -(w * outputs["log_probs"]).sum() / total - 0.1 * H.sum() / total

        def backward(dloss):
            return {"log_probs": -dloss * w / total, "entropy": np.full_like(H, -0.1 * dloss / total)}, None

        return {"loss": value, "entropy": H.sum() / total}, backward

    return loss


def gradient_of(model, settings, batch, loss, **options):
    learner = Learner(model, settings, **options)
    values = learner.accumulate(batch, loss, OutputOptions(entropy=True))
    return values, tree_map(np.copy, learner.optimizer.gradient.tree)


def test_sequences_become_arrays():
    """By hand: the target at a position is the next token, if that token counts."""
    values = sequence_arrays([answered([7, 8], [9, 1]), TokenSequence([4, 5, 6], [False, True, False])], width=4)
    assert values["input_ids"].tolist() == [[7, 8, 9, 0], [4, 5, 0, 0]]
    assert values["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert values["targets"].tolist() == [[-100, 9, 1, -100], [5, -100, -100, -100]]


@pytest.mark.parametrize("make, message", [
    (lambda: TokenSequence([1, 2], [False]), "each of 2 tokens, got 1"),
    (lambda: TokenSequence([1], [False]), "got 1 tokens"),
    (lambda: TokenSequence([1, 2], [False, False]), "none to be predicted"),
    (lambda: TokenSequence([1, 2], [True, True]), "expected False for the first token, which is predicted from nothing"),
    (lambda: answered([1], []), "answer: expected at least 1 token, got 0"),
    (lambda: answered([], [1]), "prompt: expected at least 1 token, got 0"),
    (lambda: sequence_arrays([answered([1, 2], [3, 4])], width=2), "width: expected at least 3, the longest sequence, got 2"),
    (lambda: check_sequences([answered([1], [2]), answered([1, 2], [3])], context=1, vocabulary=9, name="pair"),
     "pair 1: expected at most 1 tokens"),
    (lambda: check_sequences([answered([1], [9])], context=None, vocabulary=9), "expected token ids from 0 to 8, got 9"),
    (lambda: check_sequences([answered([1], [2]), [1, 2]], context=None, vocabulary=9), "sequence 1: expected a .*, got \\[1, 2"),
    (lambda: check_sequences([answered([1], [-1])], context=None, vocabulary=9), "expected token ids from 0 to 8, got -1"),
])  # fmt: skip
def test_bad_sequences(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_parts_and_pairs_add_up_to_one_batch(family):
    """Micro-batches, threads, and two sequences per sample: the same values and gradient, to the rounding of a few additions."""
    model, sequences = tiny(family), some_sequences()
    batch = batch_of(sequences)
    draw = np.random.default_rng(1)
    batch["loss"] = {"weights": draw.random(batch["targets"]["logits"].shape)}
    loss = likelihood(7.0)
    values, gradient = gradient_of(model, RecipeSettings(), batch, loss)
    pairs = tree_map(lambda a: a.reshape(3, 2, *a.shape[1:]), batch)
    for settings, some in [(RecipeSettings(workers=2), batch), (RecipeSettings(micro_batch_size=4), batch),
                           (RecipeSettings(micro_batch_size=2, workers=2), pairs),
                           (RecipeSettings(checkpointing=1), pairs)]:  # fmt: skip
        other, parts = gradient_of(model, settings, some, loss)
        assert relative_error(list(other.values()), list(values.values())) < MODEL
        assert relative_error(parts, gradient) < MODEL


def test_the_gradient_is_that_of_the_models_own_call():
    """The same loss from full logits, through the model's backward."""
    model, batch = tiny(), batch_of(some_sequences())
    targets = batch["targets"]["logits"]
    batch["loss"] = {"weights": np.ones(targets.shape)}
    values, gradient = gradient_of(model, RecipeSettings(), batch, likelihood(5.0))
    from tinyplm.losses.log_probs import log_probs

    outputs, backward = model(batch["inputs"]["input_ids"], attention_mask=batch["inputs"]["attention_mask"])
    found, back = log_probs(outputs["logits"], targets=targets)
    dlogits = back({"log_probs": np.full(targets.shape, -1 / 5), "entropy": np.full(targets.shape, -0.1 / 5)})
    assert values["loss"] == pytest.approx(-found["log_probs"].sum() / 5 - 0.1 * found["entropy"].sum() / 5, rel=MODEL)
    assert relative_error(gradient["model"], backward({"logits": dlogits})) < MODEL
    whole, back = model.token_outputs(batch["inputs"]["input_ids"], targets=targets, entropy=True,
                                      attention_mask=batch["inputs"]["attention_mask"])  # fmt: skip
    assert relative_error(whole["entropy"], found["entropy"]) < MODEL
    again = back({"log_probs": np.full(targets.shape, -1 / 5), "entropy": np.full(targets.shape, -0.1 / 5)})
    assert relative_error(again, gradient["model"]) < MODEL
    dhidden = np.random.default_rng(2).normal(size=whole["hidden"].shape)
    assert relative_error(back({"hidden": dhidden}), backward({"hidden": dhidden})) < MODEL


def test_dropout_depends_on_the_sample_and_not_on_the_cut():
    model, batch = tiny("gpt2"), batch_of(some_sequences())
    batch["loss"] = {"weights": np.ones(batch["targets"]["logits"].shape)}
    pairs = tree_map(lambda a: a.reshape(3, 2, *a.shape[1:]), batch)
    none = gradient_of(model, RecipeSettings(), pairs, likelihood(5.0))
    whole = gradient_of(model, RecipeSettings(dropout=True), pairs, likelihood(5.0))
    parts = gradient_of(model, RecipeSettings(dropout=True, micro_batch_size=1), pairs, likelihood(5.0))
    assert relative_error(parts[1], whole[1]) < MODEL
    assert relative_error(whole[1], none[1]) > 1e-3  # dropout is actually on
    learner = Learner(model, RecipeSettings(dropout=True))
    learner.done = 1
    learner.accumulate(pairs, likelihood(5.0), OutputOptions(entropy=True))
    assert relative_error(learner.optimizer.gradient.tree, whole[1]) > 1e-3  # another step has different masks


def test_extra_parameters_and_a_transform():
    """theta scales one matrix; the loss returns the gradient of the vector in extra. Both are trained; the model is unchanged."""
    model, batch = tiny(), batch_of(some_sequences())
    path = "body.layers.1.mlp.Wup"
    base = flatten(model.params)[path].copy()

    def transform(theta):
        from tinyplm.core import unflatten

        params = unflatten(flatten(model.params) | {path: base * theta["s"]}, model.params)
        return params, lambda d: {"s": (d[path] * base).sum(keepdims=True)[0]} if path in d else None

    def loss(outputs, extra, part):
        value = -outputs["log_probs"].sum() / 5 + (extra["v"] ** 2).sum()
        return {"loss": value}, lambda d: ({"log_probs": np.full_like(outputs["log_probs"], -d / 5)}, {"v": 2 * d * extra["v"]})

    def value(s, v):
        learner = Learner(model, RecipeSettings(), transform=transform, theta={"s": np.full(1, s)}, extra={"v": np.full(2, v)})
        return learner, learner.accumulate(batch, loss)["loss"]

    learner, at = value(1.2, 0.3)
    gradient, h = learner.optimizer.gradient.tree, 1e-5
    slope = (value(1.2 + h, 0.3)[1] - value(1.2 - h, 0.3)[1]) / (2 * h)
    assert gradient["model"]["s"][0] == pytest.approx(slope, rel=1e-7, abs=difference_rounding(at))  # h^2 is 1e-10
    assert gradient["extra"]["v"].tolist() == [0.6, 0.6]
    before = flatten(learner.model.params)[path].copy()
    learner.update()
    assert not np.array_equal(flatten(learner.model.params)[path], before)  # rebuilt from theta
    assert np.array_equal(flatten(learner.model.params)[path], base * learner.theta["s"])
    assert np.array_equal(flatten(model.params)[path], base)
    with pytest.raises(ValueError, match="transform: expected one with theta"):
        Learner(model, RecipeSettings(), theta={"s": np.ones(1)})


def test_steps_learn_and_leave_the_given_model_alone():
    model, batch = tiny(), batch_of(some_sequences())
    total = float((batch["targets"]["logits"] != -100).sum())
    batch["loss"] = {"weights": np.ones(batch["targets"]["logits"].shape)}
    learner = Learner(model, RecipeSettings(steps=20, learning_rate=1e-2, warmup=0))
    before = tree_map(np.copy, model.params)
    losses = [learner.step(batch, likelihood(total), OutputOptions(entropy=True))["loss"] for _ in range(20)]
    assert losses[-1] < losses[0] - 1
    assert relative_error(model.params, before) == 0
    found = token_log_probs(learner.model, {**batch["inputs"], "targets": batch["targets"]["logits"]}, batch_size=4, workers=2)
    alone = token_log_probs(learner.model, {**batch["inputs"], "targets": batch["targets"]["logits"]}, entropy=True)
    assert relative_error(found["log_probs"], alone["log_probs"]) < MODEL
    assert set(found) == {"log_probs"} and set(alone) == {"log_probs", "entropy"}
    assert alone["entropy"].shape == found["log_probs"].shape
    assert (found["log_probs"][batch["targets"]["logits"] == -100] == 0).all()


def test_log_probs_without_gradients(monkeypatch):
    """Nothing is kept for a backward; rows of only padding give zeros."""
    model, batch, grads = tiny(), sequence_arrays(some_sequences()), []
    outputs = model.token_outputs
    monkeypatch.setattr(model, "token_outputs", lambda **options: (grads.append(options["grad"]), outputs(**options))[1])
    assert token_log_probs(model, batch)["log_probs"].any() and grads == [False]
    nothing = {"attention_mask": batch["attention_mask"] * 0, "targets": batch["targets"] * 0 - 100}
    found = token_log_probs(model, {**batch, **nothing})["log_probs"]
    assert found.shape == batch["targets"].shape and not found.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stops_before_the_update(bad):
    model, batch = tiny(), batch_of(some_sequences())
    learner = Learner(model, RecipeSettings())
    before = tree_map(np.copy, learner.model.params)

    def loss(outputs, extra, part):
        return {"loss": bad}, lambda d: ({"log_probs": np.ones_like(outputs["log_probs"])}, None)

    def steep(outputs, extra, part):
        return {"loss": 1.0}, lambda d: ({"log_probs": np.full_like(outputs["log_probs"], bad)}, None)

    with pytest.raises(NonFiniteError, match="step 1: loss: expected a finite number, got"):
        learner.step(batch, loss)
    assert not learner.optimizer.gradient.buffer.any()  # nothing of it leaks into the next step
    with np.errstate(invalid="ignore"), pytest.raises(NonFiniteError, match="gradient norm: expected a finite number, got"):
        learner.step(batch, steep)
    assert relative_error(learner.model.params, before) == 0


def test_a_failing_loss_leaves_no_gradient_behind():
    model, batch = tiny(), batch_of(some_sequences())
    learner = Learner(model, RecipeSettings(micro_batch_size=3))
    calls = []

    def loss(outputs, extra, part):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("broken")
        return {"loss": 1.0}, lambda d: ({"log_probs": np.ones_like(outputs["log_probs"])}, None)

    with pytest.raises(RuntimeError, match="broken"):
        learner.accumulate(batch, loss)
    assert not learner.optimizer.gradient.buffer.any()


def test_the_journal(tmp_path):
    model = tiny(dtype="float32")
    with Journal(tmp_path / "run", 2, progress=False) as journal:
        journal.record(1, {"loss": 2.0, "kl": 0.5})
        with pytest.raises(NonFiniteError, match="step 2: kl: expected a finite number, got nan"):
            journal.record(2, {"loss": 2.0, "kl": float("nan")})
        journal.write(step=1, accuracy=0.5)
        journal.finish(Learner(model, RecipeSettings()), recipe="test")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 2.0, "kl": 0.5}, {"step": 1, "accuracy": 0.5}]
    assert journal.history == lines[:1]
    again = tinyplm.load(tmp_path / "run/final")
    assert relative_error(again.params, model.params) == 0
    facts = json.loads((tmp_path / "run/final/recipe.json").read_text())
    assert facts["recipe"] == "test" and facts["settings"]["steps"] == 100
    with pytest.raises(ValueError, match="expected a folder without a run"):
        Journal(tmp_path / "run", 2, progress=False)
    with Journal(None, 2, progress=False) as silent:
        silent.record(1, {"loss": 1.0})
        silent.finish(Learner(model, RecipeSettings()))


def test_the_bar_counts_every_step(monkeypatch, tmp_path):
    """In recipes, fine-tuning and pretraining: it advances by the number of steps done, up to the last."""
    seen = []
    monkeypatch.setattr(Progress, "update", lambda self, steps, values: seen.append((self.total, steps)))
    sft(tiny(), some_sequences(), SFTSettings(steps=3), progress=False)
    assert seen == [(3, 1)] * 3
    seen.clear()
    made = tuning.model()
    samples = classification(made, tuning.TEXTS, tuning.KINDS)
    finetune(made, samples, samples, TuningSettings(epochs=2, batch_size=6), progress=False)
    assert seen == [(4, 1)] * 4
    seen.clear()
    tokens = np.arange(100) % 40
    train(tiny(), tokens, tokens, Settings(steps=3, batch_size=2, sequence_length=5, warmup=0), out=tmp_path, progress=False)
    assert seen == [(3, 1)] * 3
