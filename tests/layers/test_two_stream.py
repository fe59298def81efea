"""XLNet's attention beyond the laws: relative positions, what each stream sees, which tokens have influence, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference.layers.two_stream as ref
from tests.laws import FEW, PART
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.core import tree_map
from tinyplm.layers.memory import extended
from tinyplm.layers.position import sinusoidal
from tinyplm.layers.relative_shift import distance_encodings, relative_rows, relative_shift
from tinyplm.layers.stream_views import one_way_band, stream_views
from tinyplm.layers.two_stream import relative_attention, two_stream_attention

on_devices = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ----------------------------------------------------------------------------------------------------------- positions


@on_devices
@given(T=st.integers(1, 5), memory=st.integers(0, 4), half=st.integers(1, 4), clamp=st.integers(-1, 4))
def test_distance_encodings_equal_the_reference(device, T, memory, half, clamp):
    xp = array_module(to_device(np.ones(1), device))
    ours = to_host(distance_encodings(T, T + memory, 2 * half, clamp=clamp, xp=xp, dtype="float64"))
    assert np.max(np.abs(ours - ref.distance_encodings(T, T + memory, 2 * half, clamp=clamp))) < FEW  # a few roundings of 1


def test_distance_encodings_are_the_sinusoids_with_the_sines_first():
    R = distance_encodings(3, 5, 6, xp=np, dtype="float64")
    assert np.allclose(R[:5], sinusoidal(np.arange(5, 0, -1), 6, dtype="float64")[:, [0, 2, 4, 1, 3, 5]], rtol=0, atol=FEW)
    assert R.shape == (8, 6) and np.array_equal(R[5], [0, 0, 0, 1, 1, 1])  # distance 0
    assert distance_encodings(3, 5, 6, xp=np).dtype == "float32"


def test_the_shift_by_hand():
    """Two queries after one memory token: the columns are the distances 3, 2, 1, 0, -1."""
    x = np.array([[3, 2, 1, 0, -1], [3, 2, 1, 0, -1]])
    distances = [[1, 0, -1], [2, 1, 0]]
    assert relative_shift(x, keys=3)[0].tolist() == distances
    assert relative_rows(x[None, None], places=np.array([[1, 0]]), keys=3)[0][0, 0].tolist() == distances[::-1]


def test_the_reference_by_hand():
    """One head of width 1 and q = 0: the biases alone set the scores.  Distances 2, 1, 0, -1 score 9, log 3, 0, log 2."""
    zero, one, v = np.zeros((1, 1, 2, 1)), np.ones((1, 1)), np.array([0.0, 12.0]).reshape(1, 1, 2, 1)
    r = np.array([9.0, np.log(3), 0.0, np.log(2)]).reshape(1, 1, 4, 1)
    attend = ref.relative_attention
    assert np.allclose(attend(zero, zero, v, r, one, one).ravel(), [8, 3], rtol=FEW)  # 1:2 and 3:1
    k = np.array([np.log(2), 0.0]).reshape(1, 1, 2, 1)
    assert np.allclose(attend(zero, k, v, r, one, one).ravel(), [6, 12 / 7], rtol=FEW)  # 2:2 and 6:1
    different, segments = np.array([[[False, True], [True, False]]]), np.array([0.0, np.log(3)]).reshape(2, 1, 1)
    assert np.allclose(attend(zero, k, v, r, one, one, one, segments, different=different).ravel(), [9, 12 / 19], rtol=FEW)
    assert np.allclose(attend(zero, k, v, r, one, one, places=np.array([[1, 0]])).ravel(), [12 / 7, 6], rtol=FEW)


@given(B=st.integers(1, 3), T=st.integers(1, 6), memory=st.integers(0, 4), seed=st.integers(0, 999))
def test_queries_in_order_are_the_special_case_of_queries_anywhere(B, T, memory, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(size=(B, 2, T, 2 * T + memory)), rng.normal(size=(B, 2, T, T + memory))
    (y, back), (y2, back2) = (relative_shift(x, keys=T + memory),
                              relative_rows(x, places=np.broadcast_to(np.arange(T), (B, T)), keys=T + memory))  # fmt: skip
    assert np.array_equal(y, y2) and np.array_equal(back(dy), back2(dy))


def _parameters(rng, D=6, H=2, E=3):
    shapes = {**{f"W{n}": (D, H, E) for n in "qkvr"}, "Wo": (H, E, D), **{f"{n}_bias": (H, E) for n in "krs"}}
    return {name: rng.normal(size=shape) for name, shape in {**shapes, "segments": (2, H, E)}.items()}


def _relative(T, S, D=6):
    return distance_encodings(T, S, D, xp=np, dtype="float64")[None]


def test_only_distances_matter():
    """Shifting the tokens, with the surrounding ones masked, leaves the output unchanged: positions have no origin."""
    rng = np.random.default_rng(0)
    p, x = _parameters(rng), rng.normal(size=(2, 4, 6))
    alone, _ = two_stream_attention(p, x, relative=_relative(4, 4), content={})
    among = np.concatenate([rng.normal(size=(2, 3, 6)), x, rng.normal(size=(2, 2, 6))], axis=1)
    mask = np.zeros((1, 1, 1, 9), dtype=bool)
    mask[..., 3:7] = True
    moved, _ = two_stream_attention(p, among, relative=_relative(9, 9), content={"mask": mask})
    assert np.allclose(moved[:, 3:7], alone, rtol=PART, atol=PART)


def test_memory_is_the_tokens_in_front():
    """Memory and tokens give the same keys; memory never gets a gradient (it is a keyword)."""
    rng = np.random.default_rng(1)
    p, x = _parameters(rng), rng.normal(size=(2, 7, 6))
    whole, _ = two_stream_attention(p, x, relative=_relative(7, 7), content={})
    last, _ = two_stream_attention(p, x[:, 3:], relative=_relative(4, 7), content={}, memory=x[:, :3])
    assert np.allclose(last, whole[:, 3:], rtol=PART, atol=PART)


# ------------------------------------------------------------------------------------------------------------- streams


def _order(rng, B, T):
    """(order (B, T), perm_mask): token t is predicted at step order[b, t] and may attend to tokens predicted earlier."""
    order = rng.permuted(np.broadcast_to(np.arange(T), (B, T)), axis=1)
    return order, (order[:, :, None] <= order[:, None, :]).astype(np.float64)


def _mapping(places, T):
    return (np.asarray(places)[..., None] == np.arange(T)).astype(np.float64)


@on_devices
@given(B=st.integers(1, 3), T=st.integers(1, 5), memory=st.integers(0, 3), M=st.integers(1, 4), seed=st.integers(0, 999))
def test_views_by_their_definition(device, B, T, memory, M, seed):
    """Token by token, following the docstring."""
    rng = np.random.default_rng(seed)
    S, places = T + memory, rng.integers(-1, T, (B, M))  # -1: no target
    inputs = {"attention_mask": rng.integers(0, 2, (B, T)), "perm_mask": rng.integers(0, 2, (B, T, T)),
              "target_mapping": _mapping(places, T), "token_type_ids": rng.integers(0, 2, (B, T)),
              "band": rng.random((T, S)) < 0.8}  # fmt: skip
    inputs = {name: a for name, a in inputs.items() if name == "target_mapping" or rng.random() < 0.7}
    content, query = (
        {name: None if a is None else to_host(a) for name, a in view.items()}
        for view in stream_views((B, T, S), xp=array_module(to_device(np.ones(1), device)),
                                 **{name: to_device(a, device) for name, a in inputs.items()})
    )  # fmt: skip

    def visible(b, t, j):
        if "band" in inputs and not inputs["band"][t, j]:
            return False
        if j < memory:
            return True
        hidden = "attention_mask" in inputs and not inputs["attention_mask"][b, j - memory]
        return not hidden and not ("perm_mask" in inputs and inputs["perm_mask"][b, t, j - memory])

    def segment(b, j):
        return inputs["token_type_ids"][b, j - memory] if j >= memory else 0

    masks = [True if view["mask"] is None else view["mask"] for view in (content, query)]
    shapes = [(B, 1, T, S), (B, 1, M, S)]
    masks = [np.broadcast_to(mask, shape) for mask, shape in zip(masks, shapes)]
    for b, t, j in np.ndindex(B, T, S):
        assert masks[0][b, 0, t, j] == (visible(b, t, j) or j == memory + t)
    for b, m, j in np.ndindex(B, M, S):
        z = places[b, m]
        assert masks[1][b, 0, m, j] == (z >= 0 and visible(b, z, j))
        assert z < 0 or query["places"][b, m] == z
    for view, where in ((content, np.broadcast_to(np.arange(T), (B, T))), (query, query["places"])):
        if "token_type_ids" not in inputs:
            assert view["different"] is None
        else:
            for b, m, j in np.ndindex(*where.shape, S):
                assert view["different"][b, m, j] == (segment(b, memory + where[b, m]) != segment(b, j))


def test_an_input_mask_is_an_attention_mask_turned_over():
    padding = np.array([[0, 0, 1], [1, 0, 0]])
    masks = [
        stream_views((2, 3, 4), xp=np, **mask)[0]["mask"] for mask in ({"input_mask": padding}, {"attention_mask": 1 - padding})
    ]
    assert np.array_equal(*masks) and not masks[0].all()


def test_one_way_bands_by_hand():
    """Two tokens after three of memory: each sees up to its own position; with same_length, all see equally far back."""
    assert one_way_band(2, 5, same_length=False, xp=np).astype(int).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert one_way_band(2, 5, same_length=True, xp=np).astype(int).tolist() == [[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("longest", "first", "kept"),
    [
        (None, None, "ab012"),
        (0, 0, "ab012"),
        (4, None, "b012"),
        (2, None, "12"),
        (None, 2, "ab01"),
        (3, 1, "ab0"),
        (9, 9, "ab012"),
    ],
)
def test_the_memory_that_is_handed_on_by_hand(longest, first, kept):
    """Two earlier tokens, a and b, and three current ones, in two layers."""
    known = {"a": 10.0, "b": 11.0, "0": 0.0, "1": 1.0, "2": 2.0}
    states = [np.array([layer, layer + 1, layer + 2]).reshape(1, 3, 1) for layer in (0.0, 100.0)]
    mems = np.array([[[10.0, 11.0], [110.0, 111.0]]])[..., None]
    expected = np.array([known[name] for name in kept])
    found = extended(mems, states, longest=longest, first=first)
    assert np.array_equal(found[0, :, :, 0], [expected, expected + 100])
    assert np.array_equal(extended(None, states, longest=longest, first=first)[0, 0, :, 0], [e for e in expected if e < 10])


def test_one_layer_sees_its_own_token_in_the_content_stream_alone():
    rng = np.random.default_rng(2)
    B, T = 2, 5
    p, h, g = _parameters(rng), rng.normal(size=(B, T, 6)), rng.normal(size=(B, T, 6))
    order, perm_mask = _order(rng, B, T)
    content, query = stream_views(
        (B, T, T), perm_mask=perm_mask, target_mapping=_mapping(np.broadcast_to(np.arange(T), (B, T)), T), xp=np
    )

    def run(h):
        y, back = two_stream_attention(p, np.concatenate([h, g], axis=1), relative=_relative(T, T), content=content, query=query)
        return y[:, :T], y[:, T:], back

    h_out, g_out, back = run(h)
    for t in range(T):
        changed = h.copy()
        changed[:, t] += 1.0
        h_new, g_new, _ = run(changed)
        dy = np.zeros((B, 2 * T, 6))
        dy[:, T + t] = rng.normal(size=(B, 6))
        _, dx = back(dy)
        for b in range(B):
            later = order[b] > order[b, t]  # these may attend to t
            assert (np.any(g_new[b] != g_out[b], axis=-1) == later).all()
            assert (np.any(h_new[b] != h_out[b], axis=-1) == (later | (np.arange(T) == t))).all()
            assert (np.any(dx[b, :T] != 0, axis=-1) == (order[b] < order[b, t])).all()  # exactly zero for the others


def test_a_query_with_nothing_to_see_gives_zeros():
    rng = np.random.default_rng(3)
    p, x = _parameters(rng), rng.normal(size=(1, 4, 6))
    content, query = stream_views((1, 3, 3), perm_mask=np.ones((1, 3, 3)), target_mapping=_mapping([[1]], 3), xp=np)
    y, back = two_stream_attention(p, x, relative=_relative(3, 3), content=content, query=query)
    assert not y[:, 3].any() and y[:, :3].all()
    dy = np.zeros_like(y)
    dy[:, 3] = rng.normal(size=6)
    assert not any(np.any(g) for g in [back(dy)[1], *back(dy)[0].values()])


def test_the_streams_add_their_gradients():
    """One call with both streams equals the sum of one call per stream, up to the order of addition."""
    rng = np.random.default_rng(4)
    B, T, M = 2, 4, 3
    p, x = _parameters(rng), rng.normal(size=(B, T + M, 6))
    _, perm_mask = _order(rng, B, T)
    target_mapping = _mapping(rng.integers(0, T, (B, M)), T)
    types = rng.integers(0, 2, (B, T))
    content, query = stream_views((B, T, T), perm_mask=perm_mask, target_mapping=target_mapping, token_type_ids=types, xp=np)
    settings = {"relative": _relative(T, T), "content": content, "query": query}
    y, back = two_stream_attention(p, x, **settings)
    assert np.array_equal(y[:, :T], two_stream_attention(p, x[:, :T], relative=_relative(T, T), content=content)[0])
    dy = rng.normal(size=y.shape)
    parts = [np.where((np.arange(T + M) < T)[None, :, None] == first, dy, 0.0) for first in (True, False)]
    both, (one, two) = back(dy), (back(part) for part in parts)
    summed = tree_map(lambda a, b: a + b, {"p": one[0], "x": one[1]}, {"p": two[0], "x": two[1]})
    for name, gradient in both[0].items():
        assert np.allclose(gradient, summed["p"][name], rtol=PART, atol=PART), name
    assert np.allclose(both[1], summed["x"], rtol=PART, atol=PART)


# ----------------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_refused():
    rng = np.random.default_rng(5)
    q, k, r, bias = rng.normal(size=(1, 2, 3, 4)), rng.normal(size=(1, 2, 5, 4)), rng.normal(size=(1, 2, 8, 4)), np.ones((2, 4))
    relative_attention(q, k, k, r, bias, bias)
    for wrong in (r[:, :, 1:], r[:, :1], r[..., 1:], np.ones((2, 2, 8, 4))):
        with pytest.raises(ValueError, match="relative_attention: (expected q|r: expected .* of shape)"):
            relative_attention(q, k, k, wrong, bias, bias)
    with pytest.raises(ValueError, match=r"relative_attention: places: expected .* \(1, 3\), got .* \(1, 2\)"):
        relative_attention(q, k, k, r, bias, bias, places=np.zeros((1, 2), dtype=int))
    with pytest.raises(ValueError, match="s_bias, segments, different: expected all of them or none"):
        relative_attention(q, k, k, r, bias, bias, bias, np.ones((2, 2, 4)))
    with pytest.raises(ValueError, match="relative_shift: x: expected 9 columns, one for each distance"):
        relative_shift(np.ones((3, 8)), keys=6)
    with pytest.raises(ValueError, match="width: expected an even number, got 7"):
        distance_encodings(2, 2, 7, xp=np)
