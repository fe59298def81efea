"""The full XLNet: what the prediction order hides, memory, every gradient, dropout, devices, config and parameter counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, difference_rounding, equal, leaves, random_like, relative_error
from tests.support.encoder_families import keys_of_masks
from tinyplm.backend import to_device, to_host
from tinyplm.core import StackOptions, flatten, shards, tree_map, unflatten
from tinyplm.families import xlnet
from tinyplm.hub.names import count_parameters
from tinyplm.objectives.permutation import permutation_mask
from tinyplm.optim.adamw import AdamW, decays_by_default
from tinyplm.random import sample_keys

V, D = 11, 6
TINY = xlnet.Config(vocab_size=V, d_model=D, n_layer=2, n_head=2, d_inner=7, dropout=0.0, summary_last_dropout=0.0, mem_len=None,
                    clamp_len=3)  # fmt: skip


def tiny(task="permutation_lm", seed=0, dtype="float64", **changes):
    """A tiny model with all parameters random, including biases and norms."""
    model = tinyplm.create("xlnet", dataclasses.replace(TINY, **changes), task=task, dtype="float64")
    rng = np.random.default_rng(seed)
    model.params = tree_map(lambda a: (a + rng.normal(0, 0.5, a.shape)).astype(dtype), model.params)
    return model


def permuted(seed=0, B=2, T=5, M=3, types=True):
    """(inputs, places (B, M) of the targets, rank (B, T)): the targets are the last M of a random order; no memory."""
    rng = np.random.default_rng(seed)
    order = np.array([rng.permutation(T) for _ in range(B)])
    rank, places = np.argsort(order, axis=1), order[:, T - M :]
    inputs = {"input_ids": rng.integers(0, V, (B, T)), "perm_mask": np.stack([permutation_mask(r) for r in rank]),
              "target_mapping": (places[..., None] == np.arange(T)).astype(np.int64)}  # fmt: skip
    return inputs | ({"token_type_ids": rng.integers(0, 2, (B, T))} if types else {}), places, rank


# ------------------------------------------------------------------------------------------------- order and memory


@pytest.mark.parametrize("n_layer", [1, 2, 3])
def test_a_target_depends_on_what_comes_before_it_in_the_order_and_on_nothing_else(n_layer):
    """Exactly: its own token and later ones do not change a single bit of its logits and get exactly zero gradient."""
    model = tiny(n_layer=n_layer)
    inputs, places, rank = permuted()
    embeds = np.random.default_rng(1).normal(size=(*inputs.pop("input_ids").shape, D))
    outputs, backward = model(inputs_embeds=embeds, **inputs)
    B, T = rank.shape
    for b, t in np.ndindex(B, T):
        changed = embeds.copy()
        changed[b, t] += 1.0
        new = model(inputs_embeds=changed, grad=False, **inputs)[0]["logits"]
        for other, m in np.ndindex(places.shape):
            seen = other == b and rank[b, t] < rank[b, places[b, m]]
            assert np.array_equal(new[other, m], outputs["logits"][other, m]) != seen
    for b, m in np.ndindex(places.shape):
        dlogits = np.zeros_like(outputs["logits"])
        dlogits[b, m] = np.random.default_rng(2).normal(size=V)
        _, dembeds = backward({"logits": dlogits})
        seen = np.zeros((B, T), dtype=bool)
        seen[b] = rank[b] < rank[b, places[b, m]]
        assert np.array_equal(dembeds.any(axis=-1), seen)


def test_the_prediction_knows_the_place_that_it_is_for():
    """The same context gives different predictions at different positions; eq. 3 without the target position would not."""
    model = tiny(clamp_len=-1)
    inputs = {"input_ids": np.arange(3, 8)[None], "perm_mask": np.ones((1, 5, 5)), "target_mapping": np.eye(5)[None, 2:]}
    inputs["perm_mask"][:, :, :2] = 0  # two visible tokens: with one, every attention weight is 1
    logits = model(**inputs, grad=False)[0]["logits"][0]
    assert min(np.abs(logits[i] - logits[j]).max() for i in range(3) for j in range(i)) > 1e-3


def test_clamped_distances_are_all_the_same():
    """One layer, distances clamped at 1: for the last token the others have no positions, like a bag of words."""
    ids = np.array([[3, 4, 5, 6, 7], [6, 4, 3, 5, 7]])
    for clamp_len, same in ((1, True), (-1, False)):
        hidden = tiny("body", n_layer=1, clamp_len=clamp_len)(ids, grad=False)[0]["hidden"]
        assert np.allclose(hidden[0, -1], hidden[1, -1], rtol=MODEL, atol=MODEL) == same


def test_targets_in_any_order_and_an_empty_row():
    model = tiny()
    inputs, places, _ = permuted()
    logits = model(**inputs, grad=False)[0]["logits"]
    turned = dict(inputs, target_mapping=np.concatenate([inputs["target_mapping"][:, ::-1], np.zeros((2, 1, 5))], axis=1))
    outputs, backward = model(**turned)
    assert np.allclose(outputs["logits"][:, :3], logits[:, ::-1], rtol=MODEL, atol=MODEL) and outputs["logits"].shape == (2, 4, V)
    everyone = model(**{name: a for name, a in inputs.items() if name != "target_mapping"}, grad=False)[0]
    assert everyone["logits"].shape == (2, 5, V)


def test_memory_equals_computing_the_earlier_tokens_again():
    """Two segments in turn, or both at once with the second hidden from the first: the second gets the same states."""
    model = tiny(n_layer=3)
    p = model.params["body"]
    rng = np.random.default_rng(0)
    ids = rng.integers(0, V, (2, 7))
    types = np.concatenate([np.zeros((2, 3), dtype=int), rng.integers(0, 2, (2, 4))], axis=1)  # memory is in segment 0
    (_, mems), _ = xlnet.body_with_memory(p, config=model.config, input_ids=ids[:, :3], token_type_ids=types[:, :3])
    (hidden, _), _ = xlnet.body_with_memory(p, config=model.config, input_ids=ids[:, 3:], token_type_ids=types[:, 3:], mems=mems)
    perm_mask = np.zeros((2, 7, 7))
    perm_mask[:, :3, 3:] = 1
    whole, _ = xlnet.body(p, config=model.config, input_ids=ids, token_type_ids=types, perm_mask=perm_mask)
    assert np.allclose(hidden, whole[:, 3:], rtol=MODEL, atol=MODEL)
    assert not np.allclose(hidden, xlnet.body(p, config=model.config, input_ids=ids[:, 3:], token_type_ids=types[:, 3:])[0])


def test_transformer_xl_reads_segment_by_segment_what_it_reads_at_once():
    model = tiny(attn_type="uni", clamp_len=-1)
    p, ids, mems, parts = model.params["body"], np.random.default_rng(0).integers(0, V, (2, 7)), None, []
    for piece in (ids[:, :2], ids[:, 2:6], ids[:, 6:]):
        (hidden, mems), _ = xlnet.body_with_memory(p, config=model.config, input_ids=piece, mems=mems)
        parts.append(hidden)
    assert mems.shape == (2, 2, 7, D)
    whole, _ = xlnet.body(p, config=model.config, input_ids=ids)
    assert np.allclose(np.concatenate(parts, axis=1), whole, rtol=MODEL, atol=MODEL)
    changed, _ = xlnet.body(p, config=model.config, input_ids=np.where(np.arange(7) < 4, ids, 0))
    assert np.array_equal(changed[:, :4], whole[:, :4])


def test_memory_is_kept_whole_with_checkpointing_and_is_not_written_into():
    model = tiny()
    mems = np.random.default_rng(0).normal(size=(2, 2, 3, D))
    mems.flags.writeable = False
    given = {"config": model.config, "input_ids": np.ones((2, 4), dtype=int), "mems": mems}
    (hidden, following), backward = xlnet.body_with_memory(model.params["body"], **given)
    (again, following_too), backward_too = xlnet.body_with_memory(
        model.params["body"], **given, stacking=StackOptions(checkpointing=1)
    )
    assert np.array_equal(hidden, again) and np.array_equal(following, following_too) and following.shape == (2, 2, 7, D)
    dhidden = np.random.default_rng(1).normal(size=hidden.shape)
    before = following_too.copy()
    assert equal(list(flatten(backward(dhidden)[0]).values()), list(flatten(backward_too(dhidden)[0]).values()))
    assert np.array_equal(following_too, before)


@pytest.mark.parametrize("side", [1, -1])
def test_padding_has_no_influence(side):
    """Left or right padding changes nothing, whatever its values, and its embeddings get exactly zero gradient."""
    model = tiny("token_classification")
    rng = np.random.default_rng(0)
    embeds, mask = rng.normal(size=(2, 5, D)), np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])[:, ::side]
    outputs, backward = model(inputs_embeds=embeds, attention_mask=mask)
    other = np.where(mask[..., None] == 1, embeds, rng.normal(size=embeds.shape))
    assert np.array_equal(model(inputs_embeds=other, attention_mask=mask)[0]["logits"][mask == 1], outputs["logits"][mask == 1])
    dlogits = rng.normal(size=outputs["logits"].shape) * mask[..., None]
    _, dembeds = backward({"logits": dlogits})
    assert np.array_equal(dembeds.any(axis=-1), mask == 1)
    alone, _ = model(inputs_embeds=embeds[:1][mask[:1] == 1][None])  # the other tokens are as without padding
    assert np.allclose(alone["logits"][0], outputs["logits"][0][mask[0] == 1], rtol=MODEL, atol=MODEL)


# ----------------------------------------------------------------------------------------------------------- gradients


def _batch(task, seed=0):
    """(inputs, targets) for a task's loss, with padding and types, plus a permutation and memory for language models."""
    rng = np.random.default_rng(seed)
    B, T = 2, 5
    if task == "permutation_lm":
        inputs, places, _ = permuted(seed)
        targets = {"logits": np.take_along_axis(inputs["input_ids"], places, axis=1)}
        return inputs | {"mems": rng.normal(size=(B, 2, 2, D))}, targets
    shape = (B, 3, T) if task == "multiple_choice" else (B, T)
    mask = np.ones(shape, dtype=int)
    mask[1, ..., :2] = 0
    inputs = {"input_ids": rng.integers(0, V, shape), "attention_mask": mask, "token_type_ids": rng.integers(0, 2, shape)}
    targets = {"sequence_classification": {"logits": np.array([1, 0])}, "multiple_choice": {"logits": np.array([2, 0])},
               "token_classification": {"logits": np.array([[0, 1, -100, 1, 0], [-100, -100, 1, 0, 0]])},
               "question_answering": {"start_logits": np.array([1, 2]), "end_logits": np.array([4, -100])}}  # fmt: skip
    return inputs, targets[task]


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("task", [task for task in xlnet.TASKS if task != "body"])
def test_every_gradient_by_directional_derivatives(task, rate):
    """Each parameter leaf along its own direction; also with dropout, whose masks the key fixes."""
    model = tiny(task, dropout=rate, summary_last_dropout=rate)
    inputs, targets = _batch(task)
    given = dict(model.inputs(**inputs), targets=targets, key=sample_keys(3, np.arange(2)) if rate else None)
    value, backward = model.loss(**given)
    gradients = flatten(backward(1.0))
    rng, h = np.random.default_rng(1), 1e-5
    for path, g in gradients.items():
        d = rng.normal(size=g.shape)
        ends = []
        for step in (h, -h):
            moved = dict(flatten(model.params), **{path: flatten(model.params)[path] + step * d})
            params = unflatten(moved, model.params)
            ends.append(model.with_params(params).loss(grad=False, **given)[0])
        numerical, scale = (ends[0] - ends[1]) / (2 * h), np.abs(g * d).sum()
        assert abs(numerical - (g * d).sum()) <= 1e-6 * scale + difference_rounding(ends), path
        silent = path == "body.mask" and task != "permutation_lm" or task == "multiple_choice" and path == "head.classifier.b"
        assert np.any(g) or silent, f"{path}: a zero gradient proves nothing"


def test_loss_in_parts_is_the_loss():
    model = tiny()
    inputs, targets = _batch("permutation_lm")
    value, backward = model.loss(targets=targets, **inputs)
    parts = {}

    def give(path, gradient):
        for name, a in flatten(gradient, path).items():
            parts[name] = parts.get(name, 0) + a

    value_too, backward_too = model.loss_in_parts(give, inputs, targets=targets)
    for left in backward_too(1.0):
        rows = left["body"]["tokens"]
        table = np.zeros((V, D))
        np.add.at(table, rows.ids, rows.updates)
        parts["body.tokens"] = parts["body.tokens"] + table
    expected = flatten(backward(1.0))
    assert value == value_too and parts.keys() == expected.keys()
    for path, g in expected.items():
        assert np.allclose(parts[path], g, rtol=MODEL, atol=MODEL), path


@pytest.mark.parametrize(("summary_type", "place"), [("last", -1), ("first", 0)])
@pytest.mark.parametrize(("summary_activation", "activation"), [("tanh", np.tanh), (None, lambda x: x)])
def test_what_a_sequence_is_summed_up_by(summary_type, place, summary_activation, activation):
    model = tiny("sequence_classification", summary_type=summary_type, summary_activation=summary_activation)
    outputs, _ = model(np.array([[3, 4, 5], [6, 7, 8]]))
    p = model.params["head"]
    pooled = activation(outputs["hidden"][:, place] @ p["pooler"]["W"] + p["pooler"]["b"])
    assert relative_error(outputs["logits"], pooled @ p["classifier"]["W"] + p["classifier"]["b"]) < MODEL


def test_every_mask_of_both_streams_has_a_key_of_its_own(monkeypatch):
    model = tiny(dropout=0.2)
    keys = keys_of_masks(monkeypatch, lambda: model(**permuted()[0], key=1))
    # per layer: the weights of both streams, after attention, inside and after the feed-forward layer;
    # once per model: the tokens, the targets, the distances, the output
    assert len(set(keys)) == len(keys) == 5 * model.config.n_layer + 4


def test_dropout_is_the_same_however_the_batch_is_sharded_and_recomputed():
    model = tiny(dropout=0.3)
    inputs, targets = _batch("permutation_lm")
    given = {name: a for name, a in model.inputs(**inputs).items() if a is not None} | {"targets": targets["logits"]}
    given["key"] = sample_keys(5, np.arange(2))

    def gradient(part, **stacking):
        targets = {"logits": part.pop("targets")}
        value, backward = model.loss(**part, targets=targets, total={"logits": 6}, **stacking)
        return {"loss": value, **flatten(backward(1.0))}

    whole, again = gradient(dict(given)), gradient(dict(given), checkpointing=1)
    parts = [gradient(part) for part in shards(given, 2)]
    for name, a in whole.items():
        assert np.array_equal(a, again[name]), name
        assert np.allclose(a, parts[0][name] + parts[1][name], rtol=MODEL, atol=MODEL), name
    other, _ = model.loss(**{**{n: a for n, a in given.items() if n != "targets"}, "key": sample_keys(6, np.arange(2))},
                          targets=targets, total={"logits": 6})  # fmt: skip
    assert other != whole["loss"]


def test_it_learns_to_predict_in_any_order():
    """Sentences that count up by one: with a new random order at each step, the target loss falls far below chance."""
    model = tinyplm.create("xlnet", dataclasses.replace(TINY, d_model=24, n_head=4, d_inner=48, clamp_len=-1), key=1)
    optimizer, losses = AdamW(model.params), []
    for step in range(300):
        inputs, places, _ = permuted(seed=step, B=8, T=6, M=3, types=False)
        inputs["input_ids"] = (np.random.default_rng(step).integers(0, V, (8, 1)) + np.arange(6)) % V
        targets = np.take_along_axis(inputs["input_ids"], places, axis=1)
        value, backward = model.with_params(optimizer.params).loss(targets={"logits": targets}, **inputs)
        optimizer.gradient.add(backward(1.0))
        optimizer.step(5e-3)
        losses.append(float(value))
    assert abs(losses[0] - np.log(V)) < 0.2 and np.mean(losses[-10:]) < 0.3


# ------------------------------------------------------------------------------------------------- devices, dtypes


@pytest.mark.parametrize("task", list(xlnet.TASKS))
def test_every_device_and_dtype(task, device):
    """The stand-in for CuPy agrees up to the order of summation; float32 stays float32."""
    inputs = _batch(task)[0] if task == "multiple_choice" else permuted()[0]
    results = []
    for dtype in ("float64", "float32"):
        model = tiny(task, dtype=dtype, dropout=0.2)
        expected = None
        for place in ("cpu", device):
            outputs, backward = model.to(place)(**inputs, key=2)
            cotangents = random_like(outputs, np.random.default_rng(0))
            gradients = to_host(backward({name: to_device(c, place) for name, c in cotangents.items()}))
            found = [*leaves(to_host(outputs)), *flatten(gradients).values()]
            assert {a.dtype for a in found} == {np.dtype(dtype)}
            expected = expected or found
            for a, b in zip(found, expected, strict=True):
                assert np.allclose(a, b, rtol=MODEL if dtype == "float64" else 1e-4, atol=MODEL if dtype == "float64" else 1e-4)
        results.append(expected[0])
    assert np.allclose(*results, atol=1e-3)


# ------------------------------------------------------------------------------------------- config, counts, bad input


def test_published_sizes():
    """Counted by transformers from the released configs (tests/interop/test_xlnet.py); the bodies have 117M and 360M."""
    counts = {name: count_parameters(xlnet.shapes(config)) for name, config in xlnet.SIZES.items()}
    assert counts == {"xlnet-base-cased": 116_750_336, "xlnet-large-cased": 360_300_800}


def test_init_is_as_published():
    params = flatten(tinyplm.create("xlnet", dataclasses.replace(TINY, d_model=64, vocab_size=500, n_head=4), key=5).params)
    for path, a in params.items():
        name = path.rsplit(".", 1)[-1]
        if name == "gamma":
            assert (a == 1).all()
        elif name in ("beta", "b1", "b2", "bias"):
            assert not a.any()
        else:  # including k_bias, r_bias, s_bias, the segments and the mask
            assert abs(a.std() / 0.02 - 1) < 5 / (2 * a.size) ** 0.5 and abs(a.mean()) < 5 * 0.02 / a.size**0.5, path


def test_biases_of_attention_do_not_decay():
    params = flatten(tiny().params)
    decayed = {path.rsplit(".", 1)[-1] for path, a in params.items() if decays_by_default(path, a)}
    assert decayed == {"Wq", "Wk", "Wv", "Wr", "Wo", "W1", "W2"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 9, "n_head": 3}, "d_model: expected n_head d_head, even, got 9, 3, None"),
        ({"d_head": 2}, "d_model: expected n_head d_head, even, got 6, 2, 2"),
        ({"bi_data": True}, "bi_data: expected False for xlnet, got True"),
        ({"untie_r": False}, "untie_r: expected .* for xlnet, got False"),
        ({"attn_type": "both"}, "attn_type: expected .* for xlnet, got 'both'"),
        ({"summary_type": "mean"}, "summary_type: expected .* for xlnet, got 'mean'"),
        ({"summary_activation": "sinh"}, "summary_activation: expected one of "),
        ({"mem_len": -1}, "mem_len: expected an integer >= 0 or null, got -1"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings: expected True for xlnet, got False"),
    ],
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        tinyplm.create("xlnet", TINY, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"perm_mask": np.ones((2, 4))}, r"perm_mask: expected .* \(2, 4, 4\), got .* \(2, 4\)"),
        ({"target_mapping": np.ones((2, 4))}, r"target_mapping: expected .* \(2, M, 4\), got .* \(2, 4\)"),
        ({"target_mapping": np.ones((2, 1, 4))}, "target_mapping: expected zeros, and at most one 1 in each row"),
        ({"target_mapping": np.eye(4)[None, :2].repeat(2, 0) / 2}, "target_mapping: expected 0 and 1 .* got 0.5"),
        ({"mems": np.ones((2, 1, 3, 6))}, r"mems: expected shape \(2, 2, earlier tokens, 6\), got \(2, 1, 3, 6\)"),
        ({"input_mask": np.ones((2, 3))}, r"input_mask: expected shape \(2, 4\), got \(2, 3\)"),
        ({"input_mask": np.ones((2, 4)), "attention_mask": np.ones((2, 4), int)}, "input_mask: expected at most one of them"),
        ({"position_ids": np.arange(4)}, "position_ids: expected None, since xlnet takes only attention_mask, "),
    ],
)
def test_wrong_inputs_are_refused_in_one_line(inputs, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny()(np.ones((2, 4), dtype=int), **inputs)
    assert "\n" not in str(error.value)


def test_a_sequence_may_be_of_any_length():
    outputs, _ = tiny(clamp_len=-1)(np.ones((1, 700), dtype=int), grad=False)
    assert outputs["logits"].shape == (1, 700, V)
