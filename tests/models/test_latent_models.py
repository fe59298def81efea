"""Models with latent attention: the layout for decoding, caches of the other attention, adapters."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

import reference.losses.balance as ref_balance
import tinyplm
from reference.layers.softmax import softmax as ref_softmax
from tests.laws import MODEL, relative_error
from tests.support.families import FAMILIES as TINY
from tests.support.families import randomised, tiny
from tinyplm.core import flatten, tree_map
from tinyplm.families import deepseek_v3
from tinyplm.hub.names import count_parameters
from tinyplm.layers.cache_size import numbers_per_token
from tinyplm.tuning.adapters.lora import lora_of, merge_lora
from tinyplm.tuning.adapters.prefix import prefix_of, prefix_parameters, with_prefix

FAMILIES = ("deepseek_v2", "deepseek_v3")
IDS = np.array([[5, 6, 7, 8], [9, 10, 1, 0]])
DENSE = dataclasses.replace(TINY["deepseek_v3"].config, first_k_dense_replace=5)
QUERIES = {"low rank": ({}, {"Wdq", "Wuq"}), "one matrix": ({"q_lora_rank": None}, {"Wq"})}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_laid_out_for_decoding_it_is_the_same_model(family, tied):
    model = tiny(family, tie_word_embeddings=tied)
    quick = model.for_decoding()
    assert quick.for_decoding() is quick and (quick is model) == (not tied)
    expected = count_parameters(model.family.shapes(model.config))
    assert quick.parameter_count() == model.parameter_count() == expected
    assert relative_error(quick(IDS)[0]["logits"], model(IDS)[0]["logits"]) < MODEL
    options = {"max_new_tokens": 4, "temperature": 0, "stop_ids": ()}
    results = [tinyplm.generate(m, [5, 6], cached=c, **options)[0] for m in (model, quick) for c in (True, False)]
    for other in results[1:]:
        assert other.ids == results[0].ids
        assert np.allclose(other.log_probabilities, results[0].log_probabilities, rtol=MODEL)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_of_the_other_attention_is_refused(family):
    """In one line, before anything is written into it."""
    latent, plain = tiny(family), tiny("llama")
    C, R = latent.config.kv_lora_rank, latent.config.qk_rope_head_dim
    assert numbers_per_token(**latent.config.cache_sizes) == latent.config.num_hidden_layers * (C + R)
    for model, other in ((latent, plain), (plain, latent)):
        cache = other.empty_cache(2, 6)
        with pytest.raises(ValueError, match=r"^cache: expected .*'width': .*, got .*'width': .*$") as refused:
            model(IDS, cache=cache)
        assert "\n" not in str(refused.value)
        assert all(not buffer.any() for layer in cache.layers for buffer in layer.values())
        assert other(IDS, cache=cache)[0]["cache"].length == 4


def test_a_cache_of_other_widths_is_refused():
    model = tiny("deepseek_v2")
    for change in ({"kv_lora_rank": 4}, {"qk_rope_head_dim": 2}):
        with pytest.raises(ValueError, match=r"^cache: expected .*'c': 3, 'k_r': 4.*, got .*'c': .*'k_r': "):
            model(IDS, cache=tiny("deepseek_v2", **change).empty_cache(2, 6))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_is_refused(family):
    """Keys and values of its own are what this attention lacks."""
    model = tiny(family)
    message = r"^model: expected attention with keys and values, for a prefix of those, got latent attention"
    theta = prefix_parameters(tiny("llama"), rows=2)
    calls = [
        lambda: prefix_of(model, rows=2),
        lambda: prefix_of(model, ids=[1, 2]),
        lambda: prefix_parameters(model, rows=2),
        lambda: with_prefix(model, theta),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("query", QUERIES)
def test_lora_reaches_every_matrix_of_latent_attention(family, query):
    """Each gets a gradient, that of the merged matrix taken back, and the merged model is what was trained."""
    changes, own = QUERIES[query]
    model = tiny(family, **changes)
    names = sorted(own | {"Wdkv", "Wkr", "Wuk", "Wuv", "Wo"})
    adapter = lora_of(model, rank=2, alpha=4.0, targets=names)
    layers = range(model.config.num_hidden_layers)
    assert adapter["theta"].keys() == {f"body.layers.{i}.attention.{name}" for i in layers for name in names}
    draw = np.random.default_rng(0)
    theta = tree_map(lambda a: a + draw.normal(0, 0.3, a.shape), adapter["theta"])
    params, back = adapter["transform"](theta)
    merged = merge_lora(model, theta, alpha=4.0)
    assert relative_error(merged.params, params) == 0
    loss = {"targets": {"logits": IDS[:, ::-1].copy()}, "input_ids": IDS}
    whole = merged.loss(**loss)[1](1.0)
    leaves, dtheta = flatten(whole), back(whole)
    assert dtheta.keys() == theta.keys()
    for path, factors in theta.items():
        assert np.any(leaves[path]), path
        assert relative_error(dtheta[path]["A"], leaves[path] @ factors["B"].T * 2.0) < MODEL
        assert relative_error(dtheta[path]["B"], factors["A"].T @ leaves[path] * 2.0) < MODEL


def test_671_billion_parameters_are_counted_from_shapes_alone():
    """In less than 50 ms of CPU time; it takes 1."""
    times = []
    for _ in range(3):
        start = time.process_time()
        count = count_parameters(deepseek_v3.shapes(deepseek_v3.SIZES["deepseek-v3"]))
        times.append(time.process_time() - start)
    assert count == 671_026_404_352
    assert min(times) < 0.05


# ------------------------------------------------------------------------------------------------------------ experts


@pytest.mark.parametrize("name", FAMILIES)
def test_the_balance_loss_counts_the_papers_choice(name):
    """DeepSeek-V2: the experts that tokens go to, whatever their groups; V3: those by the logits alone."""
    groups = {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1} if name == "deepseek_v2" else {}
    model = tiny(name, first_k_dense_replace=0, **groups)
    outputs, _ = model(IDS, grad=False)
    logits, chosen = (outputs[n].swapaxes(1, 2) for n in ("router_logits", "chosen_experts"))
    alone = np.argsort(-logits, axis=-1, kind="stable")[..., : chosen.shape[-1]]
    assert (np.sort(chosen) != np.sort(alone)).any(), "the groups matter"
    choice, affinities = (chosen, ref_softmax) if name == "deepseek_v2" else (alone, ref_balance.normalised_sigmoid)
    expected = ref_balance.sequence_balance_loss(logits, choice=choice, affinities=affinities)
    plain, balanced = (model.loss(input_ids=IDS, targets={"logits": IDS}, balance=b)[0] for b in (0.0, 2.0))
    assert float(balanced - plain) == pytest.approx(2 * expected, rel=MODEL)


@pytest.mark.parametrize("task", ["causal_lm", "multi_token_lm"])
def test_more_dense_layers_than_layers(task):
    """All of the model's are dense; a module for later tokens has experts."""
    model = randomised("deepseek_v3", DENSE, task, 0, "float64", {})
    assert all("router" not in layer["mlp"] for layer in model.params["body"]["layers"])
    loss, back = model.loss(input_ids=IDS, targets={"logits": IDS}, balance=1.0)
    assert flatten(back(1.0)).keys() == flatten(model.params).keys() and np.isfinite(loss)
    biases = [bias is not None for bias in model.buffers["corrections"]]
    assert biases == [False, False] + [True] * (task == "multi_token_lm")


def test_without_groups_their_fields_mean_nothing():
    one, other = (tiny("deepseek_v2", topk_method="greedy", **groups) for groups in ({}, {"n_group": 3, "topk_group": 5}))
    assert other.config.groups == other.config.kept_groups == 1
    assert np.array_equal(one(IDS, grad=False)[0]["logits"], other(IDS, grad=False)[0]["logits"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_group": 3}, "n_group: expected a divisor of n_routed_experts = 4, got 3"),
        ({"topk_group": 3}, "topk_group: expected at most n_group = 2, got 3"),
        ({"num_experts_per_tok": 3}, "num_experts_per_tok: expected at most 2, the experts of topk_group = 1 of 2 groups, got 3"),
        ({"n_group": 4, "topk_group": 2}, "n_group: expected at most 2, for two experts or more in each, got 4"),
        ({"routed_scaling_factor": 0.0}, "routed_scaling_factor: expected a number > 0, got 0"),
        ({"scoring_func": "softmax"}, "scoring_func: expected 'sigmoid' for deepseek_v3, got 'softmax'"),
        ({"num_key_value_heads": 1}, "num_key_value_heads: expected 2, the number of heads, got 1"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=f"^config: {message}") as refused:
        dataclasses.replace(DENSE, **changes)
    assert "\n" not in str(refused.value)
