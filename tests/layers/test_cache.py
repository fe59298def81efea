"""The key/value cache: chunked input equals the full pass, a cache is a value, and its contents are constants.

Every family is tested token by token, one of each wiring in all ways, LLaMA with every kind of RoPE scaling.
"""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.laws import MODEL, MODEL_32, difference_rounding, equal, leaves, relative_error
from tests.support.differences import slope_error
from tests.support.families import CONTEXT, FAMILIES, KINDS, tiny
from tests.support.ropes import ROPES
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.core import flatten, unflatten
from tinyplm.layers.cache import extend

LONGEST = 12  # cache capacity of every model here
MODELS = {
    # a TINY config has a context of CONTEXT, which RoPE may have stretched beyond its own number
    **{
        name: (name, {f.context: LONGEST * getattr(f.config, f.context) // CONTEXT} if f.context else {})
        for name, f in FAMILIES.items()
    },
    "gpt2, scaled by layer": ("gpt2", {"n_positions": LONGEST, **FAMILIES["gpt2"].variants["scaled by layer"]}),
    "llama, one kv head": ("llama", {"max_position_embeddings": LONGEST, "num_key_value_heads": 1}),
    **{f"llama, {name}": ("llama", {**changes, "attention_bias": True}) for name, changes in ROPES.items()},
}
each_model = pytest.mark.parametrize("name", MODELS)
# of each wiring, and LLaMA with each kind of RoPE
most_models = pytest.mark.parametrize("name", [name for name in MODELS if name in KINDS or name not in FAMILIES])
each_family = pytest.mark.parametrize("name", KINDS)


@functools.cache
def model_of(name, device="cpu", dtype="float64"):
    family, changes = MODELS[name]
    return tiny(family, dtype=dtype, device=device, **changes)


def sequences(seed=0, B=3, T=10, padded=None):
    """(ids, attention_mask, position_ids): sample b starts with padded[b] padding positions; its positions count from there."""
    ids = np.random.default_rng(seed).integers(0, 11, (B, T))
    if padded is None:
        return ids, None, None
    mask = (np.arange(T) >= np.array(padded)[:, None]).astype(int)
    return ids, mask, np.maximum(np.cumsum(mask, axis=1) - 1, 0)


def whole(model, ids, mask=None, positions=None):
    return compared(to_host(model(ids, attention_mask=mask, position_ids=positions, grad=False)[0]))


def compared(outputs):
    """Without the chosen experts: in float32 two may be as good."""
    return {name: a for name, a in outputs.items() if name != "chosen_experts"}


def in_pieces(model, ids, mask=None, positions=None, *, cuts, cache):
    """({"logits", "hidden"} concatenated over the pieces, the last cache): one call for each span between cuts."""
    pieces, edges = [], [0, *sorted(cuts), ids.shape[1]]
    start = cache.length
    for lo, hi in zip(edges, edges[1:]):
        seen = None if mask is None else mask[:, : start + hi]
        at = None if positions is None else positions[:, lo:hi]
        outputs, _ = model(ids[:, lo:hi], attention_mask=seen, position_ids=at, cache=cache, grad=False)
        cache = outputs.pop("cache")
        assert cache.length == start + hi
        pieces.append(to_host(outputs))
    return compared({name: np.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]}), cache


# --------------------------------------------------------------------------------------------- pieces and the full pass


@st.composite
def cut_sequences(draw):
    """(seed, T, cuts, padding or None, capacity); a piece may consist of padding alone."""
    T = draw(st.integers(1, LONGEST))
    cuts = draw(st.sets(st.integers(1, T - 1))) if T > 1 else set()
    padded = draw(st.one_of(st.none(), st.lists(st.integers(0, T - 1), min_size=3, max_size=3)))
    return draw(st.integers(0, 999)), T, cuts, padded, draw(st.integers(T, LONGEST))


@most_models
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cut_sequences())
def test_a_sequence_in_any_pieces_equals_the_whole_pass(device, name, case):
    seed, T, cuts, padded, capacity = case
    model = model_of(name, device)
    inputs = sequences(seed, T=T, padded=padded)
    pieces, _ = in_pieces(model, *inputs, cuts=cuts, cache=model.empty_cache(3, capacity))
    assert relative_error(pieces, whole(model, *inputs)) < MODEL


@each_model
def test_token_by_token_in_float32(device, name):
    model, exact = model_of(name, device, "float32"), model_of(name)
    inputs = sequences(padded=[0, 3, 9])
    cache = model.empty_cache(3)
    assert cache.capacity == model.config.cache_context
    pieces, cache = in_pieces(model, *inputs, cuts=range(1, 10), cache=cache)
    assert all(a.dtype == np.float32 for a in (*leaves(pieces), *leaves(cache.layers)))
    assert relative_error(pieces, whole(exact, *inputs)) < MODEL_32


@each_family
def test_masks_of_four_dimensions_with_a_cache(device, name):
    """Each query has its own row over all keys, cached keys first; here each head has its own rows too."""
    model = model_of(name, device)
    ids, _, _ = sequences()
    heads = model.config.heads
    allowed = np.random.default_rng(1).random((3, heads, 10, 10)) < 0.7
    expected = whole(model, ids, allowed)
    cache, logits = model.empty_cache(3), []
    for lo, hi in ((0, 4), (4, 5), (5, 10)):
        outputs, _ = model(ids[:, lo:hi], attention_mask=allowed[:, :, lo:hi, :hi], cache=cache, grad=False)
        cache = outputs["cache"]
        logits.append(to_host(outputs["logits"]))
    assert relative_error(np.concatenate(logits, axis=1), expected["logits"]) < MODEL


@each_family
def test_the_last_logits_alone(name):
    """The logits generation needs, with and without a cache."""
    model = model_of(name)
    ids, _, _ = sequences()
    expected = whole(model, ids)["logits"][:, -1]

    def last(ids, cache=None):
        return model.last_logits(model.inputs(ids, cache=cache))

    logits, none = last(ids)
    assert none is None and relative_error(logits, expected) < MODEL
    logits, cache = last(ids[:, 7:], in_pieces(model, ids[:, :7], cuts=(), cache=model.empty_cache(3))[1])
    assert cache.length == 10 and relative_error(logits, expected) < MODEL


# -------------------------------------------------------------------------------------------------- the cache is a value


@each_family
def test_take_copies_samples(device, name):
    """Several continuations of one sample, and dropped samples; the original is not modified."""
    model = model_of(name, device)
    ids, _, _ = sequences()
    _, cache = in_pieces(model, ids[:, :6], cuts=(), cache=model.empty_cache(3))
    before = to_host(cache.layers)
    before = [{n: a.copy() for n, a in layer.items()} for layer in before]
    rows = np.array([2, 0, 2, 2])
    taken = cache.take(to_device(rows, device))
    assert (taken.batch, taken.length, taken.capacity) == (4, 6, cache.capacity)
    new = np.concatenate([ids[rows, :6], np.random.default_rng(1).integers(0, 11, (4, 4))], axis=1)
    pieces, _ = in_pieces(model, new[:, 6:], cuts=(1,), cache=taken)
    assert relative_error(pieces["logits"], whole(model, new)["logits"][:, 6:]) < MODEL
    assert equal(to_host(cache.layers), before)


@each_family
@pytest.mark.parametrize("rows", [[0, 0, 2], [1, 2, 0], [2, 1, 0], [0, 1, 2], [1, 1, 1]])
def test_reordered_goes_on_with_other_samples_in_place(device, name, rows):
    """Repeats, cycles and swaps; samples 0 and 2 begin alike, and what they share need not be copied."""
    model = model_of(name, device)
    ids, _, _ = sequences()
    ids[2, :4] = ids[0, :4]
    for shared in (None, [4 if {i, n} == {0, 2} else 0 for i, n in enumerate(rows)]):
        _, cache = in_pieces(model, ids[:, :6], cuts=(), cache=model.empty_cache(3))
        buffers = cache.layers
        other = cache.reordered(rows, shared)
        assert other.layers is buffers and (other.batch, other.length, other.capacity) == (3, 6, cache.capacity)
        new = np.concatenate([ids[rows, :6], np.random.default_rng(1).integers(0, 11, (3, 4))], axis=1)
        pieces, _ = in_pieces(model, new[:, 6:], cuts=(1,), cache=other)
        assert relative_error(pieces["logits"], whole(model, new)["logits"][:, 6:]) < MODEL


def test_reordered_writes_only_what_moves(device):
    """Of sample 1 from place 4 on; what is not filled stays as it is."""
    model = model_of("gpt2", device)
    _, cache = in_pieces(model, sequences()[0][:, :6], cuts=(), cache=model.empty_cache(3))
    for layer in cache.layers:
        layer["k"][:, :, 6:] = 5.0
    before = [to_host(layer["k"]).copy() for layer in cache.layers]
    cache = cache.reordered([0, 2, 2], [0, 4, 0])
    for layer, old in zip(cache.layers, before):
        old[1, :, 4:6] = old[2, :, 4:6]
        assert equal(to_host(layer["k"]), old)


@each_family
def test_grown_has_room_for_more(device, name):
    model = model_of(name, device)
    ids, _, _ = sequences()
    _, cache = in_pieces(model, ids[:, :6], cuts=(2,), cache=model.empty_cache(3, 6))
    with pytest.raises(ValueError, match="up to 6 tokens, got 3 of 7"):
        model(ids[:, 6:7], cache=cache)
    larger = cache.grown(10)
    assert (larger.capacity, larger.length, larger.batch) == (10, 6, 3) and cache.capacity == 6
    assert larger.grown(10) is larger and larger.grown(4) is larger
    pieces, _ = in_pieces(model, ids[:, 6:], cuts=(2,), cache=larger)
    assert relative_error(pieces["logits"], whole(model, ids)["logits"][:, 6:]) < MODEL


def test_the_memory_of_a_cache():
    """2 B L K C E numbers: grouped queries need a fraction K / H of the memory of multi-head attention."""
    model = model_of("llama", "cpu", "float32")
    cache = model.empty_cache(3, 5)
    assert (cache.batch, cache.capacity, cache.length) == (3, 5, 0)
    assert cache.nbytes == 2 * 3 * 2 * 2 * 5 * 4 * 4
    full = tiny("llama", dtype="float32", num_key_value_heads=4).empty_cache(3, 5)
    assert full.nbytes == 2 * cache.nbytes


# ------------------------------------------------------------------------------------------------------------- gradients


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(B=st.integers(1, 3), K=st.integers(1, 2), T=st.integers(1, 4), start=st.integers(0, 4), room=st.integers(0, 2))
def test_extend_joins_and_gives_the_new_places_their_gradient(device, B, K, T, start, room):
    rng = np.random.default_rng(start)
    E, S = 3, start + T
    x, filled, dy = rng.normal(size=(B, K, T, E)), rng.normal(size=(B, K, S + room, E)), rng.normal(size=(B, K, S, E))
    buffer = to_device(filled.copy(), device)
    y, backward = extend(to_device(x, device), buffer=buffer, start=start)
    assert np.array_equal(to_host(y), np.concatenate([filled[:, :, :start], x], axis=2))
    assert np.array_equal(to_host(buffer)[:, :, S:], filled[:, :, S:])
    dx = to_host(backward(to_device(dy, device)))
    d = rng.normal(size=x.shape)
    joined = [np.concatenate([filled[:, :, :start], x + h * d], axis=2) for h in (1, -1)]  # linear: any step is exact
    assert dx.shape == x.shape and np.isclose(((joined[0] - joined[1]) / 2 * dy).sum(), (dx * d).sum(), rtol=MODEL, atol=MODEL)


@most_models
def test_the_gradient_of_a_call_with_a_cache(device, name):
    """For every parameter and the inputs, with the cached values fixed: central differences, each time on a fresh copy.

    The gradient is the device's; the differences are taken on the host, where the outputs are the same.  On top of 1e-7, the
    tolerance allows for rounding of the outputs themselves, EPS |c y| / h (see laws.directional_derivative).  The step is small
    because of h^2 times the third derivative: norms of queries and keys of width 4 make it as large as 1e4.
    """
    T, start, h = 9, 5, 2e-6
    ids, mask, positions = sequences(T=T, padded=[0, 2, 7])
    models = {place: model_of(name).to(place) for place in {device, "cpu"}}
    filled = {place: in_pieces(model, ids[:, :start], mask[:, :start], positions[:, :start], cuts=(),
                               cache=model.empty_cache(3, T))[1] for place, model in models.items()}  # fmt: skip
    rng = np.random.default_rng(2)
    inputs = {"attention_mask": mask, "position_ids": positions[:, start:]}
    params = flatten(models["cpu"].params)
    host = {**params, "inputs": params["body.tokens"][ids[:, start:]]}
    c = {"logits": rng.normal(size=(3, T - start, 11)), "hidden": rng.normal(size=(3, T - start, 6))}

    def call(place, values, grad):
        model = models["cpu"].to("cpu")
        model.params = unflatten(values, model.params)
        model = model.to(place)
        cache = filled[place].take(array_module(filled[place].layers[0]["k"]).arange(3))
        return model(inputs_embeds=values["inputs"], **inputs, cache=cache, grad=grad)

    def value(values):
        outputs = call("cpu", values, False)[0]
        return sum((outputs[n] * c[n]).sum() for n in c)

    outputs, backward = call(device, host, True)
    on_host, _ = call("cpu", host, False)
    assert all(relative_error(to_host(outputs[n]), on_host[n]) < MODEL for n in c)
    dparams, dembeds = to_host(list(backward(to_device(c, device))))
    gradient = {**flatten(dparams), "inputs": dembeds}
    assert gradient.keys() == host.keys()
    noise = sum(difference_rounding(to_host(outputs[n]) * c[n], h) for n in c)
    for path, a in host.items():
        d = rng.normal(size=a.shape)
        products = gradient[path] * d
        error = slope_error(lambda h, path=path, a=a, d=d: value({**host, path: a + h * d}), products.sum(),
                            np.abs(products).sum() + noise / 1e-7, h)  # fmt: skip
        assert error < 1e-7, f"{path}: {error:.1e}"


@each_family
def test_backward_still_holds_when_the_next_call_has_gone_on(name):
    """The next call writes after the entries this backward needs, and recomputing the forward changes nothing."""
    model = model_of(name)
    ids, _, _ = sequences()

    def run(**options):
        _, cache = in_pieces(model, ids[:, :4], cuts=(), cache=model.empty_cache(3))
        outputs, backward = model(ids[:, 4:8], cache=cache, **options)
        return outputs, backward, {"logits": np.random.default_rng(0).normal(size=outputs["logits"].shape)}

    outputs, backward, c = run()
    expected = backward(c)
    model(ids[:, 8:], cache=outputs["cache"])
    assert equal(backward(c), expected)
    again, recomputing, c = run(checkpointing=True)
    assert np.array_equal(again["logits"], outputs["logits"]) and equal(recomputing(c), expected)
    with pytest.raises(ValueError, match=r"backward: expected some of hidden, logits, got \['cache'\]"):
        backward({"cache": outputs["cache"]})


# ------------------------------------------------------------------------------------------------------------- bad input


def call_with(model, T, *, length=4, capacity=8, batch=2, **options):
    """A call with T tokens for two samples and a cache of `capacity` positions, the first `length` of them filled."""
    return model(np.ones((2, T), int), cache=model.empty_cache(batch, capacity).advanced(length), **options)


@each_family
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: call_with(m, 5), "cache: expected 2 samples of up to 8 tokens, got 2 of 9"),
        (lambda m: call_with(m, 1, batch=3), "cache: expected 3 samples of up to 8 tokens, got 2 of 5"),
        (lambda m: call_with(m, 1, length=12, capacity=12), "input_ids: expected at most 12 tokens, the context, got 13"),
        (lambda m: call_with(m, 2, attention_mask=np.ones((2, 2), int)), "attention_mask: expected shape (2, 6), got (2, 2)"),
        (lambda m: call_with(m, 2, attention_mask=np.ones((2, 1, 2, 2), bool)), ", 2, 6), got (2, 1, 2, 2)"),
        (lambda m: call_with(m, 2, attention_mask=np.ones((2, 1, 6, 6), bool)), ", 2, 6), got (2, 1, 6, 6)"),
        (lambda m: call_with(m, 2, position_ids=np.arange(6)), "position_ids: expected shape (2,) or (2, 2)"),
        (lambda m: m.empty_cache(2, 13), "capacity: expected an integer from 1 to 12, got 13"),
        (lambda m: m.empty_cache(2, 0), "capacity: expected an integer from 1 to 12, got 0"),
        (lambda m: m.empty_cache(0), "batch: expected an integer from 1 to "),
        (lambda m: m.empty_cache(2).advanced(4).cut(5), "cache: length: expected an integer from 0 to 4, got 5"),
        (lambda m: m.empty_cache(2).advanced(4).cut(-1), "cache: length: expected an integer from 0 to 4, got -1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, call, message):
    if not FAMILIES[name].context and ("context" in message or message.startswith("capacity")):
        pytest.skip("no longest sequence")
    if message.startswith("capacity") and model_of(name).config.position_rows:
        pytest.skip("a cache of pairs of positions holds more than the context: its own tests have that")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call(model_of(name))
    assert "\n" not in str(error.value)


def test_extend_refuses_what_its_buffer_has_no_room_for():
    with pytest.raises(ValueError, match="cache: expected at most 4 places, got 3 filled ones and 2 more"):
        extend(np.ones((1, 1, 2, 3)), buffer=np.zeros((1, 1, 4, 3)), start=3)


def test_dynamic_scaling_can_be_cached_within_the_trained_context_only():
    """Beyond it, the frequencies change with the length, which would invalidate the cached keys."""
    model = model_of("llama, dynamic")
    assert (model.config.context, model.config.cache_context) == (24, LONGEST)
    assert model.empty_cache(1).capacity == LONGEST
    with pytest.raises(ValueError, match="capacity: expected an integer from 1 to 12"):
        model.empty_cache(1, 13)


def test_dynamic_scaling_refuses_a_cache_that_was_grown_too_large():
    model = model_of("llama, dynamic")
    larger = model.empty_cache(1).grown(24)
    with pytest.raises(ValueError, match="cache: expected at most 12 tokens in all, got 13"):
        model(np.ones((1, LONGEST + 1), int), cache=larger)
    model(np.ones((1, LONGEST), int), cache=larger)


def test_dynamic_scaling_refuses_to_cache_far_positions():
    """The largest position determines the scaling, even when only a few tokens are cached."""
    model, ids = model_of("llama, dynamic"), np.ones((1, 5), int)
    model(ids, position_ids=np.arange(7, 12), cache=model.empty_cache(1))
    model(ids, position_ids=np.arange(8, 13))
    with pytest.raises(ValueError, match="12"):
        model(ids, position_ids=np.arange(8, 13), cache=model.empty_cache(1))
