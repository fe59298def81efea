"""Encoder-decoders as they generate: the encoder once, its keys and values kept, then the decoder token by token."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gpu.strict import no_synchronisation, register
from tests.laws import MODEL, MODEL_32, apart, equal, leaves, relative_error
from tests.support.seq2seq_families import CONTEXT, FAMILIES, FIRST, SOURCE, VOCABULARY, batch, tiny
from tinyplm.backend import to_device, to_host
from tinyplm.layers.cache import Cache
from tinyplm.layers.source_cache import SourceCache

register()
each_family = pytest.mark.parametrize("family", FAMILIES)
SOURCES = batch()["input_ids"]
MASKED = {"attention_mask": SOURCE}


def targets(N, T=6, seed=1):
    return np.random.default_rng(seed).integers(FIRST, VOCABULARY, (N, T))


def whole(model, ids, sources=(0, 1, 2)):
    """{"logits", "hidden"} of the full pass, for these samples' sources."""
    rows = list(sources)
    outputs, _ = model(SOURCES[rows], attention_mask=SOURCE[rows], decoder_input_ids=ids, grad=False)
    return to_host({name: outputs[name] for name in ("logits", "hidden")})


def started(model, *, capacity=6, samples=1):
    return model.source_cache(model.encode(SOURCES, **MASKED), capacity=capacity, samples=samples, **MASKED)


def in_pieces(model, ids, cache, cuts=()):
    """({"logits", "hidden"} of all pieces joined, the last cache)."""
    pieces, edges = [], [0, *sorted(cuts), ids.shape[1]]
    before = cache.length
    for lo, hi in zip(edges, edges[1:]):
        outputs = model.decode(ids[:, lo:hi], cache=cache)
        cache = outputs.pop("cache")
        assert list(outputs) == ["logits", "hidden"] and cache.length == before + hi
        pieces.append(to_host(outputs))
    return {name: np.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]}, cache


@each_family
def test_encoding_alone_is_the_encoders_part_of_a_call(device, family):
    model = tiny(family, device=device)
    expected = to_host(model(**batch(), grad=False)[0]["encoder_hidden"])
    assert equal(to_host(model.encode(SOURCES, **MASKED)), expected)
    embeds = to_host(model.params["body"]["tokens"])[SOURCES]
    assert equal(to_host(model.encode(inputs_embeds=embeds, **MASKED)), expected)


@each_family
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 5)), samples=st.integers(1, 3), room=st.integers(0, 2))
def test_a_target_in_any_pieces_equals_the_full_pass(device, family, seed, cuts, samples, room):
    """With one or more targets for each source, which are then side by side."""
    model = tiny(family, device=device)
    ids = targets(3 * samples, seed=seed)
    cache = started(model, capacity=6 + room, samples=samples)
    assert (cache.length, cache.capacity, cache.batch, cache.sources, cache.source_length) == (0, 6 + room, 3 * samples, 3, 5)
    found, cache = in_pieces(model, ids, cache, cuts)
    assert cache.length == 6 and relative_error(found, whole(model, ids, np.repeat([0, 1, 2], samples))) < MODEL


@each_family
def test_sources_without_padding_and_float32(family):
    model, exact = tiny(family, dtype="float32"), tiny(family)
    ids = targets(3)
    found, cache = in_pieces(model, ids, model.source_cache(model.encode(SOURCES), capacity=6), (1, 2, 3))
    assert cache.dtype == np.float32 and all(a.dtype == np.float32 for a in leaves([found, *map(list, cache.memories)]))
    expected, _ = exact(SOURCES, decoder_input_ids=ids, grad=False)
    assert relative_error(found, {name: expected[name] for name in found}) < MODEL_32


# rows of a cache of three sources with two samples each: beams of the same source, another order, uneven numbers, dropped ones
TAKEN = {
    "themselves": [0, 1, 2, 3, 4, 5],
    "beams of the same source": [1, 1, 2, 2, 5, 4],
    "sources in another order": [4, 5, 0, 1, 2, 2],
    "one of each": [1, 3, 4],
    "more of each": [0, 1, 1, 2, 3, 3, 4, 5, 5],
    "uneven": [0, 2, 3, 3],
    "one source alone": [3, 2],
    "one sample": [5],
    "a source twice": [0, 1, 4, 5, 0, 0],
    "apart": [0, 2, 4, 1, 3, 5],
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken_samples_go_on_as_if_they_were_alone(device, name):
    """The cache that they are taken from is left as it is, and can still be used."""
    rows = np.array(TAKEN[name])
    for family in ("t5", "bart") if device == "cpu" else ("bart",):
        model = tiny(family, device=device)
        ids, more = targets(6, 3), targets(len(rows), 3, seed=2)
        _, cache = in_pieces(model, ids, started(model, samples=2))
        taken = cache.take(rows)
        assert (taken.batch, taken.length) == (len(rows), 3)
        found, after = in_pieces(model, more, taken, (1,))
        assert after.length == 6
        expected = whole(model, np.concatenate([ids[rows], more], axis=1), rows // 2)
        assert relative_error(found, {n: a[:, 3:] for n, a in expected.items()}) < MODEL
        last = targets(6, 1, seed=3)
        again, _ = in_pieces(model, last, cache)
        expected = whole(model, np.concatenate([ids, last], axis=1), np.repeat([0, 1, 2], 2))
        assert relative_error(again, {n: a[:, 3:] for n, a in expected.items()}) < MODEL


def test_samples_of_the_same_sources_share_what_is_kept_of_them():
    model = tiny("bart")
    _, cache = in_pieces(model, targets(6, 2), started(model, samples=2))
    for rows in ([1, 1, 2, 3, 5, 4], [1, 2, 4], [0, 0, 1, 2, 2, 2, 4, 5, 5]):
        assert cache.take(np.array(rows)).memories is cache.memories
    assert cache.take(np.array([2, 3, 0, 1])).sources == 2
    assert cache.take(np.array([0, 2, 3])).sources == 3, "one of the first, two of the second: each sample has its own"
    places = 2 * sum(k.size for k, _ in cache.memories)
    assert cache.nbytes == 8 * (places + 2 * 2 * 6 * 3 * 6 * 2)


@each_family
def test_a_consumed_cache_is_refused(family):
    model = tiny(family)
    cache = started(model)
    model.decode(targets(3, 2), cache=cache)
    with pytest.raises(ValueError, match="^cache: expected the one that the last call returned, got one that an earlier call"):
        model.decode(targets(3, 2), cache=cache)
    with pytest.raises(ValueError, match="^cache: expected the one that the last call returned, got "):
        cache.take(np.arange(3))


def test_what_is_asked_of_decoding_is_refused_in_one_line():
    model = tiny("bart")
    E = model.encode(SOURCES)
    cache = model.source_cache(E, capacity=2, samples=2)
    own = Cache.empty(layers=2, batch=3, kv_heads=3, capacity=4, width=2, dtype="float64")
    wrong = [
        (lambda: model.encode(), "expected either input_ids or inputs_embeds, and not both"),
        (lambda: model.encode([[1] * 9]), f"input_ids: expected at most {CONTEXT} tokens, the context, got 9"),
        (lambda: model.encode(SOURCES, attention_mask=[[1]]), "attention_mask: expected shape (3, 5), got (1, 1)"),
        (lambda: model.source_cache(E[0], capacity=4), "encoder_hidden: expected an array (B, S, 6), as encode gives, got "),
        (
            lambda: model.source_cache(E[..., :5], capacity=4),
            "encoder_hidden: expected an array (B, S, 6), as encode gives, got ",
        ),
        (lambda: model.source_cache(E, capacity=9), "capacity: expected an integer from 1 to 8, got 9"),
        (lambda: model.source_cache(E, capacity=4, samples=0), "samples: expected an integer from 1 to "),
        (
            lambda: model.source_cache(E, capacity=4, attention_mask=[[1] * 4]),
            "attention_mask: expected shape (3, 5), got (1, 4)",
        ),
        (lambda: model.source_cache(E, capacity=4, attention_mask=[[2] * 5]), "attention_mask: expected 0 and 1 "),
        (lambda: model.decode([[3]], cache=own), "cache: expected one of source_cache or of an earlier call's outputs, got "),
        (
            lambda: model.decode([[3]], cache=None),
            "cache: expected one of source_cache or of an earlier call's outputs, got None",
        ),
        (lambda: model.decode([[3]], cache=cache), "decoder_input_ids: expected shape (6, 1 to 2), got (1, 1)"),
        (lambda: model.decode([[3] * 3] * 6, cache=cache), "decoder_input_ids: expected shape (6, 1 to 2), got (6, 3)"),
        (lambda: model.decode([[11]] * 6, cache=cache), "decoder_input_ids: expected integers from 0 to 10, got 11"),
        (lambda: model.decode([[0.5]] * 6, cache=cache), "decoder_input_ids: expected integers, got "),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
            call()
        assert "\n" not in str(error.value)
    assert isinstance(cache, SourceCache) and cache.length == 0
    for rows in (np.zeros(0, int), np.array([6]), np.array([-1]), np.array([[0]]), np.array([0.0]), [0, 1], None):
        with pytest.raises(ValueError, match=r"^cache: rows: expected an array \(N,\) of integers from 0 to 5, N >= 1, got "):
            cache.take(rows)


def test_the_cache_of_another_model_is_refused():
    """Of other sizes or another dtype, and of other parameters, whose keys of the source would be read in silence."""
    model = tiny("bart")
    cache = started(model)
    own = "{'layers': 2, 'kv_heads': %d, 'width': %d} in %s"
    others = [
        (tiny("bart", decoder_attention_heads=2), own % (2, 3, "float64"), own % (3, 2, "float64")),
        (model.astype("float32"), own % (3, 2, "float32"), own % (3, 2, "float64")),
        (model.with_params(model.params), "one that this model made", "another model's"),
    ]
    for other, expected, got in others:
        with pytest.raises(ValueError, match=f"^{re.escape(f'cache: expected {expected}, got {got}')}$"):
            other.decode(targets(3, 1), cache=cache)
    model.to("cpu").decode(targets(3, 1), cache=cache)


@each_family
def test_decoding_never_waits_for_the_device(family):
    model = tiny(family, device="strict")
    ids, source, mask = to_device([targets(3), SOURCES, SOURCE], "strict")
    with no_synchronisation():
        cache = model.source_cache(model.encode(source, attention_mask=mask), capacity=6, attention_mask=mask)
        cache = model.decode(ids[:, :3], cache=cache)["cache"].take(np.array([2, 1, 1]))
        found = model.decode(ids[:, 3:], cache=cache)
    ids = to_host(ids)
    expected = whole(model, np.concatenate([ids[[2, 1, 1], :3], ids[:, 3:]], axis=1), [2, 1, 1])
    assert relative_error(to_host(found["logits"]), expected["logits"][:, 3:]) < MODEL


def test_positions_beyond_the_context_of_t5_have_no_end():
    """Its distances have no longest one, so a cache may hold more tokens than any other family's."""
    model = tiny("t5")
    ids = targets(3, 40)
    found, _ = in_pieces(model, ids, started(model, capacity=40), range(7, 40, 9))
    assert apart(found, whole(model, ids)) < MODEL


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copied", "pickled"])
def test_a_copy_of_a_cache_is_consumed_on_its_own(copied):
    model = tiny("bart")
    cache = model.decode(targets(3, 2), cache=started(model))["cache"]
    twin, more = copied(cache), targets(3, 2, seed=2)
    found = [m.decode(more, cache=c)["logits"] for m, c in ((model, cache), (copied(model), twin))]
    assert equal(*found)
    with pytest.raises(ValueError, match="consumed"):
        model.decode(more, cache=copied(cache))
