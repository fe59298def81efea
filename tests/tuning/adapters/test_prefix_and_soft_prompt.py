"""Soft prompts and prefix tuning.  The laws of attention with a prefix are in test_components.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, MODEL_32, difference_rounding, relative_error
from tests.tuning.align.test_learner import SIZES, some_sequences, tiny
from tests.tuning.align.test_sft import copying
from tinyplm.core import flatten, tree_map
from tinyplm.tuning.adapters.prefix import load_prefix, prefix, prefix_of, prefix_parameters, save_prefix, with_prefix
from tinyplm.tuning.adapters.soft_prompt import SoftPrompted, continuation, load_rows, prompt_rows, soft_prompt
from tinyplm.tuning.align.learner import Learner, token_log_probs
from tinyplm.tuning.align.sft import SFTSettings, answer_likelihood, answer_loss, batch_of, sft
from tinyplm.tuning.data.sequences import sequence_arrays
from tinyplm.tuning.settings import RecipeSettings

IDS = np.array([[5, 6, 7, 8], [9, 10, 11, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


def differences(make, theta, gradient, draw):
    """|<gradient, d> - the central difference along d| over the sum of |g_i d_i|; make(theta) returns a learner's loss."""
    d = tree_map(lambda a: draw.normal(size=a.shape), theta)
    ends = [make(tree_map(lambda a, b, h=h: a + h * b, theta, d)) for h in (1e-5, -1e-5)]
    terms = [(flatten(gradient)[path] * step).sum() for path, step in flatten(d).items()]
    return abs(sum(terms) - (ends[0] - ends[1]) / 2e-5) / (sum(map(abs, terms)) + difference_rounding(ends[0]) / 1e-7)


# ------------------------------------------------------------------------------------------------------- prefixes


@pytest.mark.parametrize("family", SIZES)
def test_the_prefix_of_a_text_is_that_text(family):
    """The keys and values of a text as prefix: the same as reading the text, for tokens at the positions after it."""
    model, text = tiny(family), [3, 1, 4]
    behind = with_prefix(model, prefix_parameters(model, ids=text))
    whole, _ = model(
        np.concatenate([np.tile(text, (2, 1)), IDS], axis=1), attention_mask=np.pad(MASK, ((0, 0), (3, 0)), constant_values=1)
    )
    found, _ = behind(IDS, attention_mask=MASK, position_ids=np.arange(3, 7))
    assert relative_error(found["logits"][MASK == 1], whole["logits"][:, 3:][MASK == 1]) < MODEL


@pytest.mark.parametrize("family", SIZES)
def test_gradients_of_a_prefix_and_of_nothing_else(family):
    model, draw = tiny(family), np.random.default_rng(0)
    theta = tree_map(lambda a: a + draw.normal(0, 0.3, a.shape), prefix_parameters(model, rows=3))
    batch, total = batch_of(some_sequences())

    def learner(theta):
        return Learner(model, RecipeSettings(workers=2), **prefix_of(model, theta=theta))

    main = learner(theta)
    main.accumulate(batch, answer_likelihood(total))
    gradient = main.optimizer.gradient.tree["model"]
    assert differences(lambda t: learner(t).accumulate(batch, answer_likelihood(total))["loss"], theta, gradient, draw) < 1e-7
    params, back = prefix(theta, base=model.params)
    whole = model._with(params=params).loss(targets=batch["targets"], total={"logits": total}, **batch["inputs"])[1](1.0)
    assert relative_error(back(whole), gradient) < MODEL
    assert back({"body.tokens": np.ones((40, 12))}) == {}


@pytest.mark.parametrize("family", SIZES)
def test_a_prefix_decodes_with_a_cache(family):
    model = tiny(family)
    behind = with_prefix(model, tree_map(lambda a: a * 20, prefix_parameters(model, rows=2, key=1)))
    options = {"max_new_tokens": 6, "temperature": 0, "stop_ids": ()}
    (cached,), (plain,) = (tinyplm.generate(behind, [5, 6], cached=c, **options) for c in (True, False))
    assert cached.ids == plain.ids and np.allclose(cached.log_probabilities, plain.log_probabilities, rtol=MODEL)
    (quick,) = tinyplm.generate(behind.for_decoding(), [5, 6], **options)
    assert quick.ids == cached.ids
    (other,) = tinyplm.generate(model, [5, 6], **options)
    assert not np.allclose(other.log_probabilities, cached.log_probabilities, rtol=1e-3)


def test_long_sequences_see_the_prefix_too():
    """Longer than one block of queries, where attention normally does not materialise its mask."""
    model = tinyplm.create("llama", dtype="float64", **{**SIZES["llama"], "max_position_embeddings": 600, "num_hidden_layers": 1})
    behind, ids = with_prefix(model, prefix_parameters(model, ids=[1, 2])), np.random.default_rng(0).integers(0, 40, (1, 300))
    whole, _ = model(np.concatenate([[[1, 2]], ids], axis=1), grad=False)
    assert relative_error(behind(ids, position_ids=np.arange(2, 302), grad=False)[0]["logits"], whole["logits"][:, 2:]) < MODEL


def test_prefix_tuning_learns_and_saves_only_the_prefix(tmp_path):
    base = tiny(dtype="float32")
    model, before = base._with(), tree_map(np.copy, base.params)
    settings = SFTSettings(steps=40, batch_size=32, learning_rate=3e-2)
    result = sft(
        model, copying(60, 0), settings, validation=copying(20, 1), out=tmp_path, progress=False, **prefix_of(base, rows=3)
    )
    assert result.validation[40] < result.validation[0] - 0.1
    assert relative_error(base.params, before) == 0
    theta = load_prefix(tmp_path / "final")
    assert relative_error(with_prefix(base, theta).params, model.params) == 0
    assert not (tmp_path / "final/model.safetensors").exists() and (tmp_path / "final/recipe.json").exists()
    with pytest.raises(ValueError, match="save: params: expected those of the config"):
        tinyplm.save(model, tmp_path / "no")
    save_prefix(theta, tmp_path / "alone")
    assert relative_error(load_prefix(tmp_path / "alone"), theta) == 0


def test_bad_prefixes(tmp_path):
    model = tiny()
    for options in ({}, {"rows": 2, "ids": [1]}):
        with pytest.raises(ValueError, match="expected either rows or ids"):
            prefix_parameters(model, **options)
    with pytest.raises(ValueError, match="rows: expected an integer from 1 to 2147483647, got 0"):
        prefix_parameters(model, rows=0)
    theta = prefix_parameters(model, rows=2)
    theta.popitem()
    with pytest.raises(ValueError, match=r"theta: expected Pk and Pv \(3, P, 4\) for each of 2 layers, got 3 arrays"):
        with_prefix(model, theta)
    with pytest.raises(ValueError, match="expected adapter.safetensors"):
        load_prefix(tmp_path)


# ------------------------------------------------------------------------------------------------------- soft prompts


@pytest.mark.parametrize("family", SIZES)
def test_rows_of_words_are_these_words(family):
    model, values = tiny(family), sequence_arrays(some_sequences())
    prompted = SoftPrompted(model, prompt_rows(model, ids=[3, 1, 4]))
    wide = {name: np.pad(a, ((0, 0), (3, 0)), constant_values=c) for (name, a), c in zip(values.items(), (0, 1, -100))}
    wide["input_ids"][:, :3] = [3, 1, 4]
    assert (
        relative_error(token_log_probs(prompted, values)["log_probs"], token_log_probs(model, wide)["log_probs"][:, 3:]) < MODEL
    )


def test_what_ends_an_answer_ends_it_behind_rows_too():
    model = tiny()
    model.generation = {"eos_token_id": [3, 7]}
    prompted = SoftPrompted(model, prompt_rows(model, rows=2))
    assert prompted.end_ids() == model.end_ids() == {3, 7}


@pytest.mark.parametrize("family", SIZES)
def test_gradients_of_the_rows(family):
    model, draw = tiny(family), np.random.default_rng(0)
    batch, total = batch_of(some_sequences())
    rows = draw.normal(size=(3, 12))

    def learner(theta):
        return Learner(SoftPrompted(model, theta["rows"]), RecipeSettings(workers=2, micro_batch_size=4))

    main = learner({"rows": rows})
    main.accumulate(batch, answer_likelihood(total))
    gradient = main.optimizer.gradient.tree["model"]
    assert (
        differences(lambda t: learner(t).accumulate(batch, answer_likelihood(total))["loss"], {"rows": rows}, gradient, draw)
        < 1e-7
    )


def test_only_the_rows_change(tmp_path):
    model = tiny(dtype="float32")
    before = tree_map(np.copy, model.params)
    settings = SFTSettings(steps=40, batch_size=32, learning_rate=0.5)
    prompted, result = soft_prompt(
        model, copying(60, 0), settings, rows=4, validation=copying(20, 1), out=tmp_path, progress=False
    )
    assert result.validation[40] < result.validation[0] - 0.03
    assert relative_error(model.params, before) == 0 and prompted.rows.shape == (4, 12)
    assert relative_error(load_rows(tmp_path / "final"), prompted.rows) == 0
    assert json.loads((tmp_path / "final/adapter.json").read_text())["kind"] == "soft prompt"
    again = SoftPrompted(model, load_rows(tmp_path / "final"))
    assert answer_loss(again, copying(20, 1)) == pytest.approx(result.validation[40], rel=MODEL_32)
    with pytest.raises(ValueError, match="expected an adapter of kind 'prefix'"):
        load_prefix(tmp_path / "final")


def test_a_continuation_behind_words_is_that_of_the_whole_text():
    model = tiny()
    prompted = SoftPrompted(model, prompt_rows(model, ids=[3, 1, 4]))
    (expected,) = tinyplm.generate(model, [3, 1, 4, 5, 6], max_new_tokens=6, temperature=0, stop_ids=())
    assert continuation(prompted, [5, 6], max_new_tokens=6, temperature=0, stop_ids=()) == expected.ids
    end = expected.ids[2]
    cut = expected.ids[: expected.ids.index(end)]
    assert continuation(prompted, [5, 6], max_new_tokens=6, temperature=0, stop_ids=[end]) == cut
    drawn = [continuation(prompted, [5], max_new_tokens=6, stop_ids=(), seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_bad_rows():
    model = tiny()
    for rows, message in (
        (np.zeros((2, 11)), r"rows: expected shape .P, 12. with P < 16, got .2, 11."),
        (np.zeros((16, 12)), r"with P < 16"),
    ):
        with pytest.raises(ValueError, match=message):
            SoftPrompted(model, rows)
    with pytest.raises(ValueError, match="expected either rows or ids"):
        prompt_rows(model)
    with pytest.raises(ValueError, match="rows: expected an integer from 1 to 2147483647, got 0"):
        soft_prompt(model, copying(2, 0), rows=0, progress=False)
    with pytest.raises(ValueError, match="sequences: expected at most 4 places behind 12 rows, got 5"):
        soft_prompt(model, copying(2, 0), rows=12, progress=False)
    soft_prompt(model, copying(2, 0), SFTSettings(steps=1), rows=11, progress=False)  # these just fit
    with pytest.raises(ValueError, match="^packed: expected None, .* got 16"):
        soft_prompt(model, copying(2, 0), SFTSettings(packed=16), progress=False)
    assert SoftPrompted(model, np.zeros((15, 12))).rows.shape == (15, 12)
