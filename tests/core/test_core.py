"""The stack, checkpointing, batch shards, devices, scatter-add."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.laws import FEW, PART, difference_rounding, equal, leaves, relative_error
from tinyplm import backend, core
from tinyplm.layers.linear import linear


def test_chain_goes_back_in_reverse():
    def times(M):
        return lambda x: (x @ M, lambda dy: dy @ M.T)

    A, B, x = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4), np.ones((5, 2))
    y, back = core.chain(x, times(A), None, times(B))
    assert equal(y, x @ A @ B) and equal(back(y), y @ B.T @ A.T)


def test_on_tree_gives_the_gradients_of_what_the_tree_has():
    f = core.on_tree(linear, "W", "b")
    x, W = np.ones((2, 3)), np.ones((3, 4))
    for p in ({"W": W}, {"b": np.ones(4), "W": W}):
        y, back = f(p, x)
        assert back(y)[0].keys() == p.keys()


def _layer(p, x, shift, *, power):
    """A layer with a shared input and a per-layer keyword: y = x W + power * shift."""
    y, back = linear(x, p["W"])

    def backward(dy):
        dx, dW, _ = back(dy)
        return {"W": dW}, dx, core.unbroadcast(dy, shift.shape) * power

    return y + power * shift, backward


def _stack_case():
    rng = np.random.default_rng(0)
    ps = [{"W": rng.normal(size=(3, 3))} for _ in range(4)]
    return ps, rng.normal(size=(2, 3)), rng.normal(size=(3,)), rng.normal(size=(2, 3))


def _run(ps, x, shift, uses=None, **options):
    return core.stack(_layer, ps, x, shift, uses=uses, each=lambda i: {"power": i + 1}, options=core.StackOptions(**options))


def test_stack_equals_layers_by_hand():
    ps, x, shift, dy = _stack_case()
    y, backward = _run(ps, x, shift)
    expected = x
    for i, p in enumerate(ps):
        expected = expected @ p["W"] + (i + 1) * shift
    assert np.allclose(y, expected, rtol=PART)
    dps, dx, dshift = backward(dy)
    step = 1e-6
    for which, g in (("x", dx), ("shift", dshift), ("W", dps[1]["W"])):
        d = np.random.default_rng(1).normal(size=g.shape)

        def at(h, which=which, d=d):
            moved = {"x": x, "shift": shift, "W": ps[1]["W"]}
            moved[which] = moved[which] + h * d
            return (_run([ps[0], {"W": moved["W"]}, *ps[2:]], moved["x"], moved["shift"])[0] * dy).sum()

        assert np.isclose((at(step) - at(-step)) / (2 * step), (g * d).sum(), rtol=1e-7, atol=difference_rounding(at(0), step))


def test_checkpointing_and_once_are_bit_equal():
    ps, x, shift, dy = _stack_case()
    expected = list(_run(ps, x, shift)[1](dy))
    for once in (False, True):
        for checkpointing in (False, True, 1, 2, 3, 4, 9):
            y, backward = _run(ps, x, shift, once=once, checkpointing=checkpointing)
            assert equal(y, _run(ps, x, shift)[0]) and equal(list(backward(dy)), expected), (once, checkpointing)
            if not once:
                assert equal(list(backward(dy)), expected)
    with pytest.raises(ValueError, match="checkpointing: expected an integer >= 0, got -1"):
        _run(ps, x, shift, checkpointing=-1)


def test_once_refuses_a_second_call_and_repeatable_does_not():
    ps, x, shift, dy = _stack_case()
    for checkpointing in (0, 2):
        _, backward = _run(ps, x, shift, once=True, checkpointing=checkpointing)
        backward(dy)
        with pytest.raises(RuntimeError, match="expected one call of backward, .*, got a second one"):
            backward(dy)
    _, backward = _run(ps, x, shift)
    assert equal(list(backward(dy)), list(backward(dy)))


def test_callback_gets_each_layer_last_first():
    ps, x, shift, dy = _stack_case()
    expected = _run(ps, x, shift)[1](dy)[0]
    got = []
    dps, _, _ = _run(ps, x, shift, on_gradient=lambda i, dp: got.append((i, dp)))[1](dy)
    assert [i for i, _ in got] == [3, 2, 1, 0] and dps == [None] * 4
    assert equal([dp for _, dp in reversed(got)], expected)


def test_a_gradient_that_was_handed_on_is_gone_before_the_next_layer():
    handed, alive = [], []

    def layer(p, x):
        def backward(dy):
            gc.collect()
            alive.append(sum(ref() is not None for ref in handed))
            return np.ones(3), dy

        return x, backward

    options = core.StackOptions(on_gradient=lambda i, dp: handed.append(weakref.ref(dp)))
    core.stack(layer, [2.0] * 4, np.ones(3), options=options)[1](np.ones(3))
    assert alive == [0, 0, 0, 0] and len(handed) == 4


class _Held:
    """Counts the layers whose activations are alive."""

    def __init__(self):
        self.alive = []
        self.before = []  # each layer, at its start

    def layer(self, p, x):
        self.before.append(self.count())
        kept = x + 0
        self.alive.append(weakref.ref(kept))
        return x * p, lambda dy: (p, dy * p * (kept[0] == kept[0]))

    def count(self):
        gc.collect()
        return sum(ref() is not None for ref in self.alive)


def test_closures_are_dropped_without_grad_and_freed_in_passing():
    held = _Held()
    y, backward = core.stack(held.layer, [2.0] * 5, np.ones(3), options=core.StackOptions(grad=False))
    assert held.count() == 0
    with pytest.raises(RuntimeError, match="^stack: grad: expected True before a call of backward, got False$"):
        backward(np.ones(3))
    held = _Held()
    _, backward = core.stack(held.layer, [2.0] * 5, np.ones(3))
    assert held.count() == 5
    held = _Held()
    counts = []
    _, backward = core.stack(
        held.layer,
        [2.0] * 5,
        np.ones(3),
        options=core.StackOptions(once=True, on_gradient=lambda *_: counts.append(held.count())),
    )
    backward(np.ones(3))
    assert counts == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [0, 1, 2, 3, 4]), ({"grad": False}, [0] * 5), ({"checkpointing": 2}, [0] * 5), ({"frozen": 3}, [0, 0, 0, 0, 1])],
)
def test_a_closure_that_is_not_needed_is_dropped_before_the_next_layer(options, expected):
    held = _Held()
    core.stack(held.layer, [2.0] * 5, np.ones(3), options=core.StackOptions(**options))
    assert held.before == expected


@pytest.mark.parametrize(("size", "expected"), [(1, [0, 0, 0, 0, 0]), (2, [0, 1, 0, 1, 0]), (3, [1, 0, 2, 1, 0])])
def test_checkpointing_holds_one_group_at_a_time(size, expected):
    """Layers alive after each backward, last layer first: the remaining layers of the current group."""
    held, counts = _Held(), []
    _, backward = core.stack(held.layer, [2.0] * 5, np.ones(3), options=core.StackOptions(
        checkpointing=size, on_gradient=lambda i, dp: counts.append(held.count())))  # fmt: skip
    assert held.count() == 0
    backward(np.ones(3))
    assert counts == expected


def test_once_frees_the_input_of_each_group():
    """Inputs alive after each backward, last layer first; the input of the lowest group is the caller's."""
    inputs, counts = [], []

    def layer(p, x):
        y = x * p
        inputs.append(weakref.ref(y))
        return y, lambda dy: (p, dy * p)

    def count(*_):
        gc.collect()
        counts.append(sum(ref() is not None for ref in inputs))

    backward = core.stack(layer, [2.0] * 5, np.ones(3), options=core.StackOptions(
        once=True, checkpointing=1, on_gradient=count))[1]  # fmt: skip
    backward(np.ones(3))
    assert counts == [3, 2, 1, 0, 0]


@pytest.mark.parametrize("frozen", [0, 1, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_frozen_layers_are_a_constant_below_the_others(frozen, size):
    ps, x, shift, dy = _stack_case()
    y, _ = _run(ps, x, shift)
    below, _ = core.stack(_layer, ps[:frozen], x, shift, each=lambda i: {"power": i + 1},
                          options=core.StackOptions(grad=False))  # fmt: skip
    above = core.stack(_layer, ps[frozen:], below, shift, each=lambda i: {"power": frozen + i + 1})
    expected, _, dshift = above[1](dy)
    got = []
    for callback in (None, lambda i, dp: got.append((i, dp))):
        found, backward = _run(ps, x, shift, frozen=frozen, checkpointing=size, on_gradient=callback)
        assert equal(found, y)
        dps, dx, dshared = backward(dy)
        assert dps[:frozen] == [None] * frozen and (frozen == 4 or equal(dshared, dshift))
        assert callback or equal(dps[frozen:], expected)
        assert (not dx.any() and dx.shape == x.shape) if frozen else dx.any()
    assert [i for i, _ in got] == list(range(frozen, 4))[::-1] and equal([dp for _, dp in got[::-1]], expected)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_layers_that_share_parameters_add_up_their_gradients(size, frozen):
    """Five layers share two parameter trees: gradients are summed over the layers and emitted once complete."""
    ps, x, shift, dy = _stack_case()
    uses = [0, 0, 1, 1, 1]
    y, apart = _run([ps[n] for n in uses], x, shift)
    dlayers, dx, _ = apart(dy)
    expected = [{"W": sum(dp["W"] for dp, n in zip(dlayers, uses) if n == g)} if g >= frozen else None for g in (0, 1)]
    for once in (False, True):
        got = []
        for callback in (None, lambda n, dp, got=got: got.append((n, dp))):
            found, backward = _run(
                ps[:2], x, shift, uses=uses, checkpointing=size, frozen=frozen, once=once, on_gradient=callback
            )
            assert equal(found, y)
            for _ in range(1 if once else 2):  # a sum kept between two calls would be twice as large
                dps, found_dx, _ = backward(dy)
                assert relative_error(dps, expected if callback is None else [None, None]) < FEW
                assert equal(found_dx, dx) if frozen == 0 else not found_dx.any()
        assert [n for n, _ in got] == [1, 0][: 2 - frozen] * (1 if once else 2)
        assert all(relative_error(dp, expected[n]) < FEW for n, dp in got)
    with pytest.raises(ValueError, match=r"stack: uses: expected integers in ascending order, got \[1, 0\]"):
        _run(ps, x, shift, uses=[1, 0])


def test_frozen_layers_keep_nothing():
    held, counts = _Held(), []
    _, backward = core.stack(held.layer, [2.0] * 5, np.ones(3), options=core.StackOptions(
        frozen=3, once=True, on_gradient=lambda i, dp: counts.append((i, held.count()))))  # fmt: skip
    assert held.count() == 2
    backward(np.ones(3))
    assert counts == [(4, 1), (3, 0)]
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=f"frozen: expected an integer .*, got {wrong}"):
            core.stack(held.layer, [2.0] * 5, np.ones(3), options=core.StackOptions(frozen=wrong))


# ------------------------------------------------------------------------------------------------------------- shards


@given(n=st.integers(1, 9), count=st.integers(1, 9))
def test_shards_cover_the_batch_in_order(n, count):
    batch = {"ids": np.arange(n * 2).reshape(n, 2), "w": [np.arange(n)]}
    if count > n:
        with pytest.raises(ValueError, match=f"batch, count: expected as many samples as shards or more, got {n} and {count}"):
            core.shards(batch, count)
        return
    parts = core.shards(batch, count)
    assert np.array_equal(np.concatenate([p["ids"] for p in parts]), batch["ids"])
    sizes = [len(p["w"][0]) for p in parts]
    assert sum(sizes) == n and max(sizes) - min(sizes) <= 1


def test_shards_refuse_a_ragged_batch():
    with pytest.raises(ValueError, match="same number of samples"):
        core.shards({"a": np.ones(2), "b": np.ones(3)}, 2)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_map_shards_keeps_the_order(workers):
    parts = core.map_shards(lambda b: b["x"].sum(), {"x": np.arange(12).reshape(6, 2)}, workers)
    assert len(parts) == workers and sum(parts) == 66


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_reduce_shards_adds_in_the_order_of_the_shards(workers):
    """Regardless of which shard finishes first; here later shards are faster."""
    added = []

    def f(part, give):
        number = int(part["x"][0])
        for path in ("head", "layers.1", "layers.0"):
            time.sleep(0.002 * (6 - number))
            give(path, number)
        return number

    batch = {"x": np.arange(6)}
    firsts = [int(part["x"][0]) for part in core.shards(batch, workers)]
    assert core.reduce_shards(f, batch, workers, lambda path, number: added.append((path, number))) == firsts
    for path in ("head", "layers.1", "layers.0"):
        assert [number for p, number in added if p == path] == firsts
    assert len(added) == 3 * workers


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_reduce_shards_raises_what_went_wrong_and_nobody_waits_for_ever(broken, first):
    """Even if a shard fails before the shards ahead of it have emitted anything."""

    def f(part, give):
        if not first:
            give("a", part)
        if part["x"][0] == broken:
            raise KeyError(f"shard {broken}")
        time.sleep(0.05)
        give("b", part)

    with pytest.raises(KeyError, match=f"shard {broken}"):
        core.reduce_shards(f, {"x": np.arange(3)}, 3, lambda path, part: None)


def test_reduce_shards_refuses_parts_that_do_not_match():
    """A shard would wait forever for a part that the shard ahead never emits."""

    def f(part, give):
        for path in "abc"[: 1 + part["x"][0]]:
            give(path, part)

    with pytest.raises(RuntimeError, match="shard 1: expected 1 parts of the gradient, as from shard 0, got more"):
        core.reduce_shards(f, {"x": np.arange(2)}, 2, lambda path, part: None)


def test_map_shards_passes_errors_on():
    def fail(part):
        raise ValueError("in the worker")

    with pytest.raises(ValueError, match="in the worker"):
        core.map_shards(fail, {"x": np.arange(4)}, 2)


# ------------------------------------------------------------------------------------------------------------ backend


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 9), n=st.integers(0, 30), seed=st.integers(0, 999))
def test_scatter_add_equals_a_loop(device, rows, n, seed):
    rng = np.random.default_rng(seed)
    ids, updates = rng.integers(0, rows, n), rng.normal(size=(n, 3))
    expected = np.zeros((rows, 3))
    for i, u in zip(ids, updates):
        expected[i] += u
    out = backend.scatter_add(rows, backend.to_device(ids, device), backend.to_device(updates, device))
    assert relative_error(backend.to_host(out), expected) < PART


def test_add_rows_adds_to_what_is_there(device):
    rng = np.random.default_rng(0)
    out, ids, updates = rng.normal(size=(5, 3)), np.array([3, 0, 3, 3]), rng.normal(size=(4, 3))
    expected = out.copy()
    np.add.at(expected, ids, updates)
    on_device = backend.to_device(out.copy(), device)
    backend.add_rows(on_device, backend.to_device(ids, device), backend.to_device(updates, device))
    assert relative_error(backend.to_host(on_device), expected) < FEW
    backend.add_rows(on_device, backend.to_device(ids[:0], device), backend.to_device(updates[:0], device))
    assert relative_error(backend.to_host(on_device), expected) < FEW


def test_half_precision_sums_do_not_stop_at_2048(device):
    ones = backend.to_device(np.ones((4096, 2), dtype=np.float16), device)
    ids = backend.to_device(np.zeros(4096, dtype=int), device)
    for total in (backend.sum_float32(ones, axis=0), backend.scatter_add(1, ids, ones)[0]):
        assert total.dtype == "float16" and backend.to_host(total).tolist() == [4096, 4096]
    kept = backend.sum_float32(backend.to_device(np.ones((2, 3)), device), axis=(0, 1), keepdims=True)
    assert kept.shape == (1, 1) and kept.dtype == "float64" and float(kept[0, 0]) == 6


def test_unknown_devices_and_arrays_are_refused():
    with pytest.raises(ValueError, match="device: expected one of cpu, .*, got 'tpu'"):
        backend.to_device(np.ones(1), "tpu")
    with pytest.raises(TypeError, match="expected an array"):
        backend.array_module([1, 2])


def test_moving_trees(device):
    tree = {"a": np.arange(3.0), "b": [np.ones(1), None]}
    moved = backend.to_device(tree, device)
    assert backend.is_host(moved["a"]) == (device == "cpu")
    assert all(np.array_equal(a, b) for a, b in zip(leaves(backend.to_host(moved)), leaves(tree), strict=True))
