"""Training of models with experts: parts of a step against one batch, errors in a shard, the routers' biases, resume, the log."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import tinyplm
from tests.laws import FEW, MODEL, equal, relative_error, trained
from tests.support import families
from tests.support.survivor import TOKENS, contents, interrupted, run
from tinyplm.backend import to_host
from tinyplm.models.routed import is_routed
from tinyplm.models.routed_model import RoutedModel
from tinyplm.models.router_losses import Routing
from tinyplm.optim import AdamW
from tinyplm.training import log
from tinyplm.training.checkpoint import find
from tinyplm.training.expert_load import ExpertLoad, correct, entropy, load_record, sizes
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.training.step import accumulate, evaluate, update
from tinyplm.tuning.align.learner import Learner
from tinyplm.tuning.align.sft import SFTSettings, answer_likelihood, batch_of, sft
from tinyplm.tuning.data.sequences import answered

WEIGHTS = {"balance": 3.0, "z_loss": 0.5}  # large, so that a wrong gradient of theirs is seen
ROUTED = {"mixtral": {}, "deepseek_v2": {}, "deepseek_v3": {"first_k_dense_replace": 0, "topk_group": 2},
          "deepseek_v3, multi_token_lm": {}}  # fmt: skip
LATER = {"multi_token": 2.0}  # of a model with modules for later tokens
MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]])


def tiny(name, **changes):
    family, _, task = name.partition(", ")
    return families.randomised(family, families.FAMILIES[family].config, task or None, 0, "float64", {**ROUTED[name], **changes})


def batch(masked=True):
    inputs, targets = families.batch(B=5)
    inputs = {"input_ids": inputs, **({"attention_mask": MASK} if masked else {})}
    return inputs, np.where(MASK > 0, targets, -100) if masked else targets


def settings_of(micro=None, workers=1, **changes):
    return Settings(batch_size=5, micro_batch_size=micro, workers=workers, sequence_length=5, **{**WEIGHTS, **LATER, **changes})


def later(name):
    return LATER if "multi_token" in name else {}


# ------------------------------------------------------------------------------------------------------------ parts of a step


def gradient(name, micro, workers, masked=True, key=7, **changes):
    model = tiny(name, attention_dropout=0.2)
    optimizer, load = AdamW(model.params), ExpertLoad()
    settings = settings_of(micro, workers, **changes)
    loss = accumulate(model, optimizer, *batch(masked), settings=settings, key=key, load=load)
    return float(loss), optimizer.gradient.tree, load


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("micro", "workers"), [(1, 1), (2, 1), (2, 2), (3, 3), (None, 2), (None, 3), (None, 5)])
def test_micro_batches_and_shards_equal_one_batch(name, masked, micro, workers):
    loss, expected, load = gradient(name, None, 1, masked)
    parts_loss, parts, parts_load = gradient(name, micro, workers, masked)
    assert parts_loss == pytest.approx(loss, rel=MODEL) and relative_error(parts, expected) < MODEL
    assert parts_load.whole_counts() == load.whole_counts() and load.counts.sum() > 0
    assert parts_load.losses.keys() == {"balance_loss", "z_loss"} | {f"{n}_loss" for n in later(name)}
    for term, value in parts_load.losses.items():
        assert float(value) == pytest.approx(float(load.losses[term]), rel=MODEL)
    again = gradient(name, micro, workers, masked)
    assert equal(again[1], parts) and equal(again[2].losses, parts_load.losses), "the same cut must give the same bits"


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize("masked", [True, False])
def test_one_batch_is_the_models_own_loss(name, masked):
    loss, found, load = gradient(name, None, 1, masked, key=None)
    model, (inputs, targets) = tiny(name), batch(masked)
    expected, back = model.loss(targets={"logits": targets}, **WEIGHTS, **later(name), **inputs)
    assert loss == pytest.approx(float(expected), rel=MODEL)
    assert relative_error(found, back(1.0)) < MODEL
    chosen = model(**inputs, grad=False)[0]["chosen_experts"]
    real = np.repeat((MASK > 0 if masked else MASK >= 0)[..., None], chosen.shape[2], axis=2)
    if "multi_token" in name:
        real[:, :-1, -1] &= real[:, 1:, 0]
        real[:, -1, -1] = False  # its module has no token after the last
    counts = [np.bincount(chosen[:, :, i][real[:, :, i]].ravel(), minlength=4).tolist() for i in range(chosen.shape[2])]
    assert load.whole_counts() == counts and equal(model.expert_counts(inputs), load.counts)
    pure, _ = model.loss(targets={"logits": targets}, grad=False, **inputs)
    weights = {
        "balance_loss": WEIGHTS["balance"],
        "z_loss": WEIGHTS["z_loss"],
        **{f"{n}_loss": w for n, w in later(name).items()},
    }
    terms = sum(w * float(load.losses[term]) for term, w in weights.items())
    assert loss == pytest.approx(float(pure) + terms, rel=MODEL)


def test_tokens_are_counted_in_float32():
    """float16 has no whole number above 65504, and not each above 2048."""
    logits, choice = np.zeros((3, 23001, 2, 4), np.float16), np.zeros((3, 23001, 2, 1), int)
    total = Routing(logits, choice, np.ones(logits.shape[:3], np.float16)).total(None)
    assert total == 2 * 3 * 23001 and total.dtype == np.float32


def test_the_configs_own_weight_is_the_default():
    own = tiny("mixtral").config.router_aux_loss_coef
    assert own > 0
    losses = [gradient("mixtral", 2, 2, balance=balance, z_loss=0.0) for balance in (None, own, 0.0)]
    assert losses[0][0] == losses[1][0] > losses[2][0] and equal(losses[0][1], losses[1][1])
    assert not losses[2][2].losses and losses[2][2].whole_counts() == losses[0][2].whole_counts()


@pytest.mark.parametrize("name", [name for name, family in families.FAMILIES.items() if is_routed(family.module)])
def test_every_family_with_experts_takes_a_step(name):
    """With the weight of its config, which transformers also reads."""
    model, load = families.tiny(name), ExpertLoad()
    assert model.config.balance >= 0
    loss, _ = update(model, AdamW(model.params), *batch(), settings=settings_of(2, 2, balance=None), step=0, load=load)
    assert np.isfinite(loss) and (load.counts.sum(axis=1) == MASK.sum() * model.config.top_k).all()
    assert ("balance_loss" in load.losses) == (model.config.balance > 0)


def test_without_a_joint_balance_loss_nothing_is_routed_beforehand(monkeypatch):
    passes = []
    counts = RoutedModel.expert_counts
    monkeypatch.setattr(RoutedModel, "expert_counts", lambda self, inputs: (passes.append(1), counts(self, inputs))[1])
    gradient("deepseek_v3", 2, 1)
    gradient("mixtral", 2, 1, balance=0.0)
    gradient("mixtral", None, 2)
    assert not passes
    gradient("mixtral", 2, 1)
    assert len(passes) == 3  # micro-batches of 2, 2 and 1


def test_sizes():
    assert sizes({"input_ids": MASK}) == (25, 5)
    assert sizes({"input_ids": MASK, "attention_mask": MASK}) == (15, 4)
    assert sizes({"input_ids": MASK, "attention_mask": 0 * MASK}) == (1, 1)  # divisors
    assert sizes({"input_ids": MASK, "attention_mask": np.ones((5, 1, 5, 5), bool)}) == (25, 5)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("shard", [0, 1, 2])
def test_an_error_in_one_shard_frees_the_others_and_is_the_one_raised(monkeypatch, late, shard):
    """Before the shard has joined its counts, when the others wait for it, and after."""
    inputs, _ = batch()
    first = inputs["input_ids"][5 * shard // 3]
    body = RoutedModel._in_parts

    def failing(self, emit, head, given, stacking):
        value, back = body(self, emit, head, given, stacking) if late or not is_it(given) else fail()
        return value, (lambda dloss: fail()) if is_it(given) else back

    def is_it(given):
        return np.array_equal(given["input_ids"][0], first)

    def fail():
        raise LookupError("this shard")

    monkeypatch.setattr(RoutedModel, "_in_parts", failing)
    model = tiny("mixtral")
    optimizer, raised = AdamW(model.params), []

    def step():
        try:
            accumulate(model, optimizer, *batch(), settings=settings_of(None, 3))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive(), "the other shards still wait"
    assert [(type(e), str(e)) for e in raised] == [(LookupError, "this shard")]
    assert not any(a.any() for a in optimizer.gradient.leaves.values())


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3"])
@pytest.mark.parametrize("micro", [2, None])
def test_a_whole_step_on_the_strict_device(name, micro):
    results = {}
    for device in ("cpu", "strict"):
        model = tiny(name).to(device)
        optimizer, load = AdamW(model.params), ExpertLoad()
        model.params = optimizer.params
        loss, _ = update(model, optimizer, *batch(), settings=settings_of(micro, bias_rate=0.1, eps=1e-3), step=0,
                         load=load)  # fmt: skip
        results[device] = float(to_host(loss)), load.whole_counts(), to_host(model.buffers), to_host(model.params)
    (loss, *exact, params), (strict_loss, *strict_exact, strict_params) = results.values()
    assert strict_loss == pytest.approx(loss, rel=MODEL) and equal(strict_exact[1], exact[1]) and strict_exact[0] == exact[0]
    assert relative_error(strict_params, params) < trained(1, 1e-3, 1e-3)


# -------------------------------------------------------------------------------------------------------- the routers' biases


def test_each_bias_is_corrected_by_the_counts_of_its_layer():
    model = families.tiny("deepseek_v3")
    before = {"corrections": [None, np.array([0.5, 0.0, -0.25, 1.0])]}
    model.buffers = before
    correct(model, np.array([[4.0, 0.0, 2.0, 2.0]]), rate=0.125)
    assert model.buffers["corrections"][0] is None
    assert model.buffers["corrections"][1].tolist() == [0.375, 0.125, -0.25, 1.0]
    assert before["corrections"][1].tolist() == [0.5, 0.0, -0.25, 1.0], "the old arrays stay"
    for name in ("mixtral", "gpt2"):
        other = families.tiny(name)
        correct(other, None, rate=0.125)
        assert other.buffers == {}


def test_a_step_updates_the_biases_from_the_counts_of_all_its_parts():
    found = []
    for micro, workers in ((None, 1), (2, 2)):
        model, load = tiny("deepseek_v3"), ExpertLoad()
        before = model.buffers
        update(model, AdamW(model.params), *batch(), settings=settings_of(micro, workers, bias_rate=0.25), step=0, load=load)
        for bias, old, counts in zip(model.buffers["corrections"], before["corrections"], load.counts, strict=True):
            assert equal(bias, old + 0.25 * np.sign(counts.mean() - counts))
        found.append(model.buffers)
    assert equal(*found)
    update(model, AdamW(model.params), *batch(), settings=settings_of(bias_rate=0.0), step=0)
    assert equal(model.buffers, found[1])


# -------------------------------------------------------------------------------------------------------- the loop and its log

OPTIONS = {"balance": 0.5, "z_loss": 0.01, "bias_rate": 0.25, "micro_batch_size": 3, "workers": 2}


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "deepseek_v3, multi_token_lm"])
@pytest.mark.parametrize("full_every", [1, 3])
def test_resume_is_bit_equal_in_the_buffers_too(tmp_path, name, full_every):
    options = {**OPTIONS, "family": name, "full_every": full_every, "keep": 2, "steps": 5}
    run(tmp_path / "whole", **options)
    expected = contents(tmp_path / "whole")
    best = None if "multi_token" in name else 4  # the step that is saved in full
    for step in (3, 4):
        out = tmp_path / f"broken at {step}"
        with interrupted(step):
            run(out, **options)
        assert (find(out) / "increment.safetensors").exists() == (full_every == 3 and step != best)
        run(out, **options)
        found = contents(out)
        assert found.keys() == expected.keys()
        for file in expected:
            assert found[file] == expected[file], f"{file} differs"
    if name != "mixtral":
        task = name.partition(", ")[2] or None
        none, *biases = tinyplm.load(tmp_path / "whole/step-5", task=task).buffers["corrections"]
        assert none is None and len(biases) == 1 + bool(task) and all(bias.any() for bias in biases)


def test_the_log_has_the_load_and_validation_is_the_language_models_loss(tmp_path):
    model = families.tiny("mixtral", dtype="float32")
    options = {"steps": 4, "batch_size": 4, "sequence_length": 5, "warmup": 1, "evaluate_every": 2, "balance": 5.0}
    train(model, TOKENS, TOKENS[:40], Settings(**options), out=tmp_path, progress=False)
    records = list(log.read(tmp_path / "log.jsonl"))
    steps, judged = ([r for r in records if name in r] for name in ("gradient_norm", "validation_loss"))
    assert len(steps) == 4 and len(judged) == 2
    for r in steps:
        assert r["dropped_tokens"] == 0 and r["balance_loss"] > 0 and "z_loss" not in r
        for name in ("load_max", "load_min", "load_entropy"):
            assert len(r[name]) == 2
        assert all(low <= 1 <= high for low, high in zip(r["load_min"], r["load_max"]))
    for r in judged:
        counts = np.array(r["expert_counts"])
        assert counts.shape == (2, 4) and (counts.sum(axis=1) == 4 * 5 * 2).all()
        assert steps[r["step"] - 1]["load_max"] == [round(v, 4) for v in counts.max(axis=1) / counts.mean(axis=1)]
    total, count = evaluate(tinyplm.load(tmp_path / "step-4"), TOKENS[:40], length=5)
    assert judged[-1]["validation_loss"] == total / count
    assert steps[0]["loss"] > 5 + judged[0]["validation_loss"] / 2  # with 5 times a balance loss of at least 2


def test_modules_for_later_tokens_train_and_are_saved(tmp_path):
    """The log has their loss, validation is the plain model's, and the checkpoint loads with and without them."""
    run(tmp_path, family="deepseek_v3, multi_token_lm", steps=4, balance=0.0, multi_token=0.5)
    records = list(log.read(tmp_path / "log.jsonl"))
    steps, judged = ([r for r in records if name in r] for name in ("gradient_norm", "validation_loss"))
    assert all(0.5 * r["multi_token_loss"] < r["loss"] and "balance_loss" not in r and len(r["load_max"]) == 2 for r in steps)
    plain, whole = (tinyplm.load(tmp_path / "step-4", task=task) for task in (None, "multi_token_lm"))
    assert plain.parameter_count() < whole.parameter_count()
    for model in (plain, whole):
        total, count = evaluate(model, TOKENS[:40], length=5)
        assert judged[-1]["validation_loss"] == total / count
    first = families.randomised("deepseek_v3", families.FAMILIES["deepseek_v3"].config, "multi_token_lm", 0, "float32", {})
    assert not equal(first.params["body"]["multi_token"], whole.params["body"]["multi_token"])


def test_the_record_of_a_load():
    load = ExpertLoad(np.array([[5.0, 5, 5, 5], [20, 0, 0, 0], [8, 8, 4, 0]]), {"balance_loss": np.float32(0.5)})
    p = np.array([0.4, 0.4, 0.2])
    spread = round(float(-(p * np.log(p)).sum() / np.log(4)), 4)
    assert load_record(load) == {"load_max": [1.0, 4.0, 1.6], "load_min": [1.0, 0.0, 0.0], "load_entropy": [1.0, 0.0, spread],
                                 "dropped_tokens": 0, "balance_loss": 0.5}  # fmt: skip
    assert load_record(ExpertLoad()) == {} and ExpertLoad().whole_counts() is None
    assert entropy(np.array([[3.0], [0.0]])).tolist() == [1, 1] and entropy(np.zeros((1, 2))).tolist() == [0]


def test_a_model_whose_layers_are_all_dense_trains(tmp_path):
    model = families.tiny("deepseek_v3", first_k_dense_replace=2, dtype="float32")
    options = {"steps": 2, "batch_size": 4, "sequence_length": 5, "warmup": 1, "workers": 2, "micro_batch_size": 2}
    train(model, TOKENS, TOKENS[:40], Settings(**options, **WEIGHTS), out=tmp_path, progress=False)
    assert model.buffers == {"corrections": [None, None]} and model.expert_counts({"input_ids": MASK}) is None
    assert not any("load_max" in r or "expert_counts" in r for r in log.read(tmp_path / "log.jsonl"))


def test_weights_for_a_model_without_experts_are_refused_by_name(tmp_path):
    for name in ("balance", "z_loss"):
        with pytest.raises(ValueError, match=rf"^{name}: expected 0, since <gpt2 model.*> has no losses of routers, got 0.1$"):
            train(families.tiny("gpt2"), TOKENS, TOKENS[:40], Settings(**{name: 0.1}), out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    train(families.tiny("gpt2"), TOKENS, TOKENS[:40], Settings(steps=1, warmup=0, batch_size=2, sequence_length=5, balance=0.0),
          out=tmp_path, progress=False)  # fmt: skip
    assert not any("load_max" in r for r in log.read(tmp_path / "log.jsonl"))


@pytest.mark.parametrize(("change", "was"), [({"balance": 0.25}, "0.5"), ({"z_loss": 0.5}, "0.01"), ({"bias_rate": 0.5}, "0.25")])
def test_resume_with_other_weights_is_refused_by_name(tmp_path, change, was):
    with interrupted(4):
        run(tmp_path, family="mixtral", **OPTIONS)
    ((name, now),) = change.items()
    with pytest.raises(ValueError, match=f"settings.{name} was {was}, now {now}"):
        run(tmp_path, family="mixtral", **{**OPTIONS, **change})


# ---------------------------------------------------------------------------------------------------------------- fine-tuning


def sequences():
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 11, 1 + n % 3).tolist() for n in range(8)]
    return [answered(prompt, [prompt[-1], 0]) for prompt in prompts]


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize(("micro", "workers"), [(3, 2), (None, 3)])
def test_parts_of_a_learners_step_equal_one_batch(name, micro, workers):
    found = []
    for cut in ({}, {"micro_batch_size": micro, "workers": workers}):
        learner = Learner(tiny(name), SFTSettings(batch_size=8, balance=3.0, **cut))
        batch, total = batch_of(sequences())
        found.append((learner.accumulate(batch, answer_likelihood(total)), learner.optimizer.gradient.tree["model"]))
    (values, expected), (parts_values, parts) = found
    assert parts_values == pytest.approx(values, rel=MODEL) and relative_error(parts, expected) < MODEL
    arrays = {**batch["inputs"], "targets": batch["targets"]}
    loss, back = tiny(name).loss(**arrays, balance=3.0)
    assert values["loss"] == pytest.approx(float(loss), rel=MODEL) and relative_error(expected, back(1.0)) < MODEL
    pure, _ = tiny(name).loss(**arrays, grad=False)
    assert values["balance_loss"] == pytest.approx((float(loss) - float(pure)) / 3, rel=FEW + MODEL * 10)


@pytest.mark.parametrize("packed", [None, 6])
def test_supervised_fine_tuning(tmp_path, packed):
    model = families.tiny("mixtral", dtype="float32")
    options = SFTSettings(steps=6, batch_size=4, micro_batch_size=2, workers=2, learning_rate=1e-3, balance=0.1, packed=packed)
    result = sft(model, sequences(), options, validation=sequences(), out=tmp_path, progress=False)
    assert len(result.history) == 6 and all(r["balance_loss"] > 0 for r in result.history)
    assert equal(tinyplm.load(tmp_path / "final").params, model.params)
    with pytest.raises(ValueError, match="^balance: expected 0, since <llama model.*> has no losses of routers, got 0.1"):
        sft(families.tiny("llama"), sequences(), options, progress=False)
