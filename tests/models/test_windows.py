"""Sliding windows: query t sees the keys t - window + 1 .. t, whichever code computes the attention.

There is one layer, so a hidden state can depend on its window alone.  Every boundary is exact: positions
outside have no influence and get exactly zero gradient, positions inside have both.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.laws import MODEL, equal, relative_error
from tests.support.families import FAMILIES, tiny
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten
from tinyplm.generation import Memory, generate, stream
from tinyplm.kernels import block_attention
from tinyplm.models.routed import is_routed

WINDOWED = {
    "mistral": lambda window, layers: {"sliding_window": window},
    "phi3": lambda window, layers: {"sliding_window": window},
    "qwen2": lambda window, layers: {"sliding_window": window, "max_window_layers": 0},
    "qwen3": lambda window, layers: {"sliding_window": window, "max_window_layers": 0},
    "mixtral": lambda window, layers: {"sliding_window": window},
    "qwen2_moe": lambda window, layers: {"sliding_window": window, "layer_types": ["sliding_attention"] * layers},
    "gpt_oss": lambda window, layers: {"sliding_window": window, "layer_types": ["sliding_attention"] * layers},
    "qwen3_moe": lambda window, layers: {"sliding_window": window, "use_sliding_window": True},
    "gemma2": lambda window, layers: {"sliding_window": window, "layer_types": ["sliding_attention"] * layers},
    "gemma3_text": lambda window, layers: {"sliding_window": window, "layer_types": ["sliding_attention"] * layers},
    "gpt3": lambda window, layers: {"band": window},
}
each_family = pytest.mark.parametrize("family", [name for name in WINDOWED if name != "gpt3"])
every_family = pytest.mark.parametrize("family", WINDOWED)
each_window = pytest.mark.parametrize("window", [1, 2, 4, 9, 10])
T = 9


def windowed(family, window, layers=1, device="cpu"):
    """With this window in each layer; of GPT-3's pattern in each second one."""
    sizes = {"n_layer": layers, "n_positions": 300} if family == "gpt3" else {"num_hidden_layers": layers,
                                                                              "max_position_embeddings": 300}  # fmt: skip
    return tiny(family, **WINDOWED[family](window, layers), **sizes, device=device)


def visible(T, window):
    """(T, T): whether query t sees key s."""
    t, s = np.arange(T)[:, None], np.arange(T)
    return (s <= t) & (s > t - window)


def influence(model, T, places, mask=None):
    """(T, len(places)): whether hidden state t changes with the embedding at each of these positions.

    Each position has its own call, of the same shape: in a batch, BLAS may round equal rows differently.  So it may the rows of
    an expert, which is given as many as chose it: there a change counts from 1e-12 on.
    """
    least = 1e-12 if is_routed(model.family) else 0.0
    embeds = np.random.default_rng(0).normal(size=(1, T, 6))

    def hidden(embeds):
        inputs = {"inputs_embeds": to_device(embeds, model.device), "attention_mask": mask}
        return to_host(model(**inputs, grad=False)[0]["hidden"])[0]

    base = hidden(embeds)
    moved = [hidden(embeds + (np.arange(T) == s)[:, None]) for s in places]
    return np.stack([np.abs(h - base).max(axis=-1) > least for h in moved], axis=1)


@each_family
@each_window
@pytest.mark.parametrize("padded", [0, 3])
def test_what_is_outside_the_window_has_no_influence(device, family, window, padded):
    model = windowed(family, window, device=device)
    mask = (np.arange(T) >= padded).astype(int)[None]
    found = influence(model, T, range(T), mask)
    assert np.array_equal(found[padded:, padded:], visible(T, window)[padded:, padded:])
    assert not found[padded:, :padded].any()


@each_family
@each_window
def test_what_is_outside_the_window_gets_no_gradient(device, family, window):
    """dhidden at one position t reaches the embeddings in its window alone."""
    model = windowed(family, window, device=device)
    rng = np.random.default_rng(0)
    outputs, backward = model(inputs_embeds=rng.normal(size=(T, T, 6)))
    dhidden = rng.normal(size=(T, T, 6)) * np.eye(T)[..., None]  # sample t: at position t
    dembeds = to_host(backward({"hidden": to_device(dhidden, device)})[1])
    assert np.array_equal(np.abs(dembeds).max(axis=-1) > 0, visible(T, window))


@each_family
@pytest.mark.parametrize("window", [1, 100, 128, 129, 200])
def test_windows_in_blocks_of_queries(device, family, window):
    """More queries than a block holds: around the boundaries of the window and of the blocks."""
    model, length = windowed(family, window, device=device), 2 * block_attention.BLOCK + 9
    places = sorted({0, 1, 100, 127, 128, 129, length - window, length - window - 1, length - 1})
    assert np.array_equal(influence(model, length, places), visible(length, window)[:, places])


@each_family
def test_blocks_of_queries_and_one_block_give_the_same_gradients(family, monkeypatch):
    model = windowed(family, 50)
    ids = np.random.default_rng(0).integers(0, 11, (2, 150))
    mask = (np.arange(150) >= np.array([[0], [30]])).astype(int)
    dlogits = np.random.default_rng(1).normal(size=(2, 150, 11))

    def run():
        outputs, backward = model(ids, attention_mask=mask)
        return outputs["logits"], backward({"logits": dlogits})

    logits, gradients = run()
    monkeypatch.setattr("tinyplm.kernels.attention.BLOCK", 150)
    plain_logits, plain_gradients = run()
    assert relative_error(logits, plain_logits) < MODEL
    for path, a in flatten(gradients).items():
        assert relative_error(a, flatten(plain_gradients)[path]) < MODEL, path


@each_family
@each_window
@pytest.mark.parametrize("padded", [[0, 0], [0, 5]])
def test_cached_decoding_equals_the_whole_pass(device, family, window, padded):
    """In pieces longer and shorter than the window, then token by token."""
    model = windowed(family, window, layers=2, device=device)
    ids = np.random.default_rng(0).integers(0, 11, (2, T))
    mask = (np.arange(T) >= np.array(padded)[:, None]).astype(int)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    whole = to_host(model(ids, attention_mask=mask, position_ids=positions)[0]["logits"])
    cache, logits = model.empty_cache(2, T), []
    for lo, hi in ((0, 4), (4, 6), *((n, n + 1) for n in range(6, T))):
        inputs = {"attention_mask": mask[:, :hi], "position_ids": positions[:, lo:hi]}
        outputs, _ = model(ids[:, lo:hi], **inputs, cache=cache, grad=False)
        cache = outputs["cache"]
        logits.append(to_host(outputs["logits"]))
    assert relative_error(np.concatenate(logits, axis=1), whole) < MODEL


@each_family
def test_two_layers_see_two_windows(family):
    """Each layer propagates information by window - 1 positions.       Jiang et al. 2023, sec. 2"""
    found = influence(windowed(family, 3, layers=2), T, range(T))
    assert np.array_equal(found, visible(T, 2 * 2 + 1))


@pytest.mark.parametrize("family", [name for name in WINDOWED if name != "gemma3_text"])  # where windows have their own RoPE
@pytest.mark.parametrize("window", [T, 100])
def test_a_window_that_is_long_enough_hides_nothing(family, window):
    ids = np.random.default_rng(0).integers(0, 11, (2, T))
    off = dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), {"use_sliding_window": False})
    off |= {"gpt3": {"band": None}, "gpt_oss": {"layer_types": ["full_attention"]}}
    model = windowed(family, window)
    plain = dataclasses.replace(model.config, layer_types=None) if family in ("gemma2", "qwen2_moe") else model.config
    plain = dataclasses.replace(plain, **off.get(family, {"sliding_window": None}))
    assert equal(model(ids)[0], type(model)(model.family, plain, model.params)(ids)[0])


def test_every_family_with_a_window_is_here():
    variants = {n: [f.config, *(dataclasses.replace(f.config, **v) for v in f.variants.values())] for n, f in FAMILIES.items()}
    pieces = {name: [FAMILIES[name].module.pieces(config) for config in configs] for name, configs in variants.items()}
    with_windows = {name for name, some in pieces.items() if any(p.window(i) for p in some for i in range(2))}
    assert with_windows == WINDOWED.keys()


# ------------------------------------------------------------------------------------------------------- rolling caches

ROLLING = {
    **{name: changes(3, 2) for name, changes in WINDOWED.items()},
    "gemma2": {"sliding_window": 3},  # the lower of two layers
    "gemma3_text": {"sliding_window": 3, "sliding_window_pattern": 2},
    "gpt3": {"band": 3},  # the upper
}
LONG = 70


def rolling(family, **options):
    context = {"n_positions": LONG} if family == "gpt3" else {"max_position_embeddings": LONG}
    return tiny(family, **{**ROLLING[family], **context}, **options)


@pytest.mark.parametrize(
    ("family", "cuts"),
    [
        *((name, (5, 30, *range(31, 55), 63)) for name in ROLLING),
        ("mistral", range(1, LONG)),
        ("gemma2", range(1, LONG)),
        ("gemma2", (1, 18, 19, 37, 66)),
    ],
)
@pytest.mark.parametrize("padded", [[0, 0], [0, 25]])
def test_a_rolling_cache_equals_the_whole_pass(family, cuts, padded):
    """Over several times what its buffers hold, in pieces longer and shorter than the window, with padding that rolls out."""
    model = rolling(family)
    ids = np.random.default_rng(0).integers(0, 11, (2, LONG))
    mask = (np.arange(LONG) >= np.array(padded)[:, None]).astype(int)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    whole = model(ids, attention_mask=mask, position_ids=positions, grad=False)[0]["logits"]
    cache, edges, logits = model.empty_cache(2, LONG), [0, *cuts, LONG], []
    for lo, hi in zip(edges, edges[1:]):
        inputs = {"attention_mask": mask[:, :hi], "position_ids": positions[:, lo:hi]}
        outputs, _ = model(ids[:, lo:hi], **inputs, cache=cache, grad=False)
        cache = outputs["cache"]
        logits.append(outputs["logits"])
    assert relative_error(np.concatenate(logits, axis=1), whole) < MODEL


@pytest.mark.parametrize("family", ROLLING)
def test_the_memory_of_a_cache_stays_at_the_window(family):
    """2 B K E numbers for each place: a layer with a window of 3 has 2 places and 16 to roll in, whatever the capacity."""
    model = rolling(family)
    sizes, window = model.config.cache_sizes, model.family.pieces(model.config).window
    places = sum(LONG if window(i) is None else 18 for i in range(2))
    cache = model.empty_cache(3)
    assert cache.nbytes == 2 * 3 * sizes["kv_heads"] * sizes["width"] * 8 * places
    ids = np.random.default_rng(0).integers(0, 11, (3, LONG))
    for lo in range(0, LONG, 7):
        cache = model(ids[:, lo : lo + 7], cache=cache, grad=False)[0]["cache"]
    assert cache.nbytes == 2 * 3 * sizes["kv_heads"] * sizes["width"] * 8 * places and cache.length == LONG


@pytest.mark.parametrize("family", ROLLING)
def test_a_cache_that_grows_beyond_the_window_begins_to_roll(family):
    """As in a chat, whose first text is short."""
    model = rolling(family)
    ids = np.random.default_rng(0).integers(0, 11, (2, LONG))
    whole = model(ids, grad=False)[0]["logits"]
    cache, logits, length = model.empty_cache(2, 6), [], 0
    for capacity, steps in ((6, (6,)), (13, (3, 1)), (LONG, (1, 20, 1, 2, 30)), (LONG, (6,))):
        cache = cache.grown(capacity)
        for T in steps:
            outputs, _ = model(ids[:, length : length + T], cache=cache, grad=False)
            cache, length = outputs["cache"], length + T
            logits.append(outputs["logits"])
    assert length == LONG and relative_error(np.concatenate(logits, axis=1), whole) < MODEL
    assert cache.nbytes == model.empty_cache(2).nbytes and cache.windows == model.empty_cache(2).windows


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_a_rolling_cache_goes_back_as_far_as_it_can(family):
    model = rolling(family)
    ids = np.random.default_rng(0).integers(0, 11, (1, LONG))
    cache = model(ids[:, :50], cache=model.empty_cache(1), grad=False)[0]["cache"]
    with pytest.raises(ValueError, match="cache: length: expected at least 50 with a window, got 30"):
        cache.cut(30)
    cache = model(ids[:, 50:55], cache=cache, grad=False)[0]["cache"]
    least = next(n for n in range(56) if cache.can_cut(n))
    assert 40 < least < 55
    again, _ = model(ids[:, least : least + 9], cache=cache.cut(least), grad=False)
    whole = model(ids[:, : least + 9], grad=False)[0]["logits"]
    assert relative_error(again["logits"], whole[:, least:]) < MODEL


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt3"])
def test_the_memory_of_a_chat_with_windows(family):
    """Where the cache cannot go back to what two texts share, the text is computed anew: the same ids as without a cache."""
    model, memory = rolling(family), Memory()
    text, kept_at = np.random.default_rng(0).integers(0, 11, 40).tolist(), []
    for kept, new in ((99, [4, 5]), (44, [7]), (10, [1] * 25), (3, [8, 9]), (99, [1])):
        kept_at.append(memory.cache is None or memory.cache.can_cut(min(kept, len(text))))
        options = {"max_new_tokens": 5, "temperature": 0}
        ids = [piece.id for pieces in stream(model, [text], memory=memory, **options) for piece in pieces]
        assert ids == generate(model, [text], cached=False, **options)[0].ids
        text = [*text, *ids][:kept] + new
    assert not all(kept_at), "some text should be one that the cache cannot go back to"
