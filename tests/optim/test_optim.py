"""AdamW, schedules and clipping against the reference, on every device."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.optim.adamw as ref_adamw
import reference.optim.clip as ref_clip
import reference.optim.schedule as ref_schedule
from tests.laws import FEW, PART, relative_error
from tinyplm.backend import to_device, to_host
from tinyplm.core import Product, Rows, flatten
from tinyplm.optim import optimizer as optimizer_module
from tinyplm.optim.adamw import AdamW
from tinyplm.optim.clip import clip_by_global_norm, global_norm
from tinyplm.optim.flat import FlatTree
from tinyplm.optim.layerwise import depths, layerwise_rates
from tinyplm.optim.schedule import (
    SCHEDULES,
    constant_inverse_sqrt,
    inverse_sqrt_peak,
    learning_rate,
    relative_step,
    warmup_constant,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    warmup_stable_decay,
)


def _params(seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    shapes = {"tokens": (4, 3), "layers": [{"W1": (3, 2), "b1": (2,), "gamma": (3,)}]}
    return {"tokens": rng.normal(size=shapes["tokens"]).astype(dtype),
            "layers": [{n: rng.normal(size=s).astype(dtype) for n, s in shapes["layers"][0].items()}]}  # fmt: skip


def test_adamw_equals_the_reference(device):
    params = _params()
    optimizer = AdamW(to_device(params, device), betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    theta = {path: a.copy() for path, a in flatten(params).items()}
    m, v = ({path: np.zeros_like(a) for path, a in theta.items()} for _ in "mv")
    for t in range(1, 6):
        gradient = _params(seed=t)
        optimizer.gradient.add(to_device(gradient, device))
        optimizer.step(0.1 / t)
        for path, g in flatten(gradient).items():
            decay = 0.3 if path.endswith("W1") else 0.0  # no decay for norms, biases, embeddings
            theta[path], m[path], v[path] = ref_adamw.adamw_update(
                theta[path], g, m[path], v[path], t, lr=0.1 / t, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=decay
            )
    assert relative_error(to_host(optimizer.params), {"tokens": theta["tokens"],
                          "layers": [{n: theta[f"layers.0.{n}"] for n in ("W1", "b1", "gamma")}]}) < PART  # fmt: skip


def test_blocks_and_threads_of_the_update_change_nothing(monkeypatch):
    """The norm is summed block by block, so the block size may change its last bit; the number of threads must not."""

    def run(workers=1, norm=None):
        optimizer = AdamW(_params(), weight_decay=0.1)
        for t in range(3):
            optimizer.gradient.add(_params(seed=t + 1))
            optimizer.step(0.01, clip=0.5, norm=norm, workers=workers)
        return optimizer.values.buffer

    whole, norm = run(norm=np.float64(3.0)), optimizer_module.global_norm(_params(seed=1))
    monkeypatch.setattr(optimizer_module, "_BLOCK", 5)
    assert np.array_equal(run(norm=np.float64(3.0)), whole)
    blocks = run()
    for workers in (2, 3, 99):
        assert np.array_equal(run(workers), blocks)
    optimizer = AdamW(_params())
    optimizer.gradient.add(_params(seed=1))
    assert relative_error(np.asarray(optimizer.gradient_norm(workers=2)), np.asarray(norm)) < FEW


def test_the_optimiser_owns_its_buffers_and_uses_the_gradient_up():
    params = _params()
    before = params["tokens"].copy()
    optimizer = AdamW(params)
    optimizer.gradient.add(_params(seed=1))
    optimizer.step(0.1)
    assert np.array_equal(params["tokens"], before), "the caller's tree moved"
    assert not np.array_equal(optimizer.params["tokens"], before)
    assert not optimizer.gradient.buffer.any()


def test_the_rule_of_what_decays_can_be_given():
    optimizer = AdamW(_params(), weight_decay=0.5, decays=lambda path, a: path == "tokens")
    optimizer.step(0.1)
    assert np.allclose(optimizer.params["tokens"], _params()["tokens"] * 0.95)
    assert np.array_equal(optimizer.params["layers"][0]["W1"], _params()["layers"][0]["W1"])


def _network(layers=3, seed=0):
    rng = np.random.default_rng(seed)

    def block():
        return {"W1": rng.normal(size=(3, 3)), "b1": rng.normal(size=3)}

    return {"body": {"tokens": rng.normal(size=(4, 3)), "layers": [block() for _ in range(layers)], "norm": rng.normal(size=3)},
            "head": {"W": rng.normal(size=(3, 2))}}  # fmt: skip


def test_depths_count_from_the_embeddings_to_the_head():
    found = depths(_network())
    assert found == {"body.tokens": 0, "body.norm": 3, "head.W": 4, **{f"body.layers.{i}.{n}": i + 1 for i in range(3)
                                                                       for n in ("W1", "b1")}}  # fmt: skip
    rates = layerwise_rates(_network(), 0.5)
    by_hand = {"body.tokens": 1 / 16, "body.layers.0.b1": 1 / 8, "body.layers.2.W1": 1 / 2, "body.norm": 1 / 2, "head.W": 1}
    assert {path: rates(path, None) for path in by_hand} == by_hand


@pytest.mark.parametrize("block", [5, 1 << 17])
def test_rates_by_parameter_equal_one_optimiser_each(device, block, monkeypatch):
    """Weight decay uses the parameter's own rate too, as in torch's parameter groups; the norm covers all parameters."""
    monkeypatch.setattr(optimizer_module, "_BLOCK", block)
    rates = layerwise_rates(_network(), 0.7)
    together = AdamW(to_device(_network(), device), weight_decay=0.1, rates=rates)
    alone = {path: AdamW({path: a}, weight_decay=0.1) for path, a in flatten(_network()).items()}
    for t in range(1, 4):
        gradient = _network(seed=t)
        together.gradient.add(to_device(gradient, device))
        assert float(to_host(together.gradient_norm())) == pytest.approx(float(global_norm(gradient)), rel=PART)
        together.step(0.1 / t)
        for path, g in flatten(gradient).items():
            alone[path].gradient.add({path: g})
            alone[path].step(0.1 / t * rates(path, g))
    for path, a in flatten(to_host(together.params)).items():
        assert relative_error(a, alone[path].params[path]) < FEW, path


def test_equal_rates_are_none_at_all():
    def run(**options):
        optimizer = AdamW(_network(), **options)
        for t in range(3):
            optimizer.gradient.add(_network(seed=t + 1))
            optimizer.step(0.01, clip=0.5)
        return optimizer

    plain, ones = run(), run(rates=lambda path, a: 1.0)
    assert plain.values.paths == ones.values.paths and np.array_equal(plain.values.buffer, ones.values.buffer)
    matrices = [path.rsplit(".")[-1][0] == "W" for path in plain.values.paths]
    assert matrices == [True] * 4 + [False] * 5, "the decayed ones are the front part"


def test_float16_parameters_have_float32_moments():
    optimizer = AdamW(_params(dtype="float16"))
    optimizer.gradient.add(_params(seed=1, dtype="float16"))
    optimizer.step(0.1)
    assert optimizer.params["tokens"].dtype == np.float16 and optimizer.m.buffer.dtype == np.float32


@given(seed=st.integers(0, 99), limit=st.floats(0.01, 100))
def test_clipping_equals_the_reference(seed, limit):
    tree = _params(seed)
    ours, norm = clip_by_global_norm(tree, limit=limit)
    theirs, expected = ref_clip.clip_by_global_norm(tree, limit=limit)
    assert norm == pytest.approx(expected, rel=PART) and relative_error(ours, theirs) < PART


def test_clipping_on_devices_and_of_zero(device):
    tree = to_device({"a": np.array([3.0]), "b": [np.array([[4.0]])]}, device)
    assert float(to_host(global_norm(tree))) == 5
    clipped, _ = clip_by_global_norm(tree, limit=1.0)
    assert to_host(clipped)["a"][0] == pytest.approx(0.6, rel=FEW)
    zero, norm = clip_by_global_norm({"a": np.zeros(3)}, limit=1.0)
    assert norm == 0 and not zero["a"].any()


@given(warmup=st.integers(0, 10), rest=st.integers(1, 20), floor=st.floats(0, 0.5), decay=st.integers(1, 20))
def test_schedules_equal_the_reference(warmup, rest, floor, decay):
    total = warmup + rest
    for step in range(total + 3):
        common = {"peak": 1.5, "warmup": warmup}
        assert warmup_constant(step, **common) == pytest.approx(ref_schedule.warmup_constant(step, **common), rel=FEW)
        common |= {"total": total, "floor": floor}
        for ours, theirs in ((warmup_cosine, ref_schedule.warmup_cosine), (warmup_linear, ref_schedule.warmup_linear)):
            assert ours(step, **common) == pytest.approx(theirs(step, **common), rel=PART, abs=FEW)
        if decay <= rest:
            common["decay"] = decay
            expected = ref_schedule.warmup_stable_decay(step, **common)
            assert warmup_stable_decay(step, **common) == pytest.approx(expected, rel=PART, abs=FEW)


@given(st.integers(1, 10**6), st.integers(1, 20_000), st.integers(1, 4096))
def test_inverse_square_roots_equal_the_papers(step, warmup, width):
    peak = inverse_sqrt_peak(width, warmup)
    expected = ref_schedule.transformer(step, width=width, warmup=warmup)
    assert warmup_inverse_sqrt(step, peak=peak, warmup=warmup) == pytest.approx(expected, rel=FEW)
    assert constant_inverse_sqrt(step, peak=warmup**-0.5, warmup=warmup) == pytest.approx(
        ref_schedule.t5(step, warmup=warmup), rel=FEW)  # fmt: skip
    for warmup_init, schedule in ((False, constant_inverse_sqrt), (True, warmup_inverse_sqrt)):  # Adafactor's
        expected = schedule(step, peak=1e-2, warmup=10_000)
        assert relative_step(step, warmup_init=warmup_init) == pytest.approx(expected, rel=FEW)


def test_inverse_square_roots_by_hand():
    assert inverse_sqrt_peak(512, 4000) == pytest.approx(1 / math.sqrt(512 * 4000))  # Vaswani et al.'s base model: 7e-4
    base = {"peak": inverse_sqrt_peak(512, 4000), "warmup": 4000}
    assert warmup_inverse_sqrt(99_999, **base) == pytest.approx(1 / math.sqrt(512 * 100_000))
    assert [warmup_inverse_sqrt(step, peak=6.0, warmup=4) for step in (0, 1, 3, 15)] == [1.5, 3.0, 6.0, 3.0]
    assert [constant_inverse_sqrt(step, peak=6.0, warmup=4) for step in (0, 3, 15, 63)] == [6.0, 6.0, 3.0, 1.5]
    assert constant_inverse_sqrt(2**20 - 1, peak=0.01, warmup=10_000) == pytest.approx(2**-10)  # T5: 1 / sqrt(2^20)
    for schedule in (warmup_inverse_sqrt, constant_inverse_sqrt):  # without a warm-up, as with one of a single update
        assert [schedule(step, peak=6.0, warmup=0) for step in (0, 3)] == [6.0, 3.0]
    assert [relative_step(step) for step in (0, 9_999, 999_999)] == pytest.approx([0.01, 0.01, 0.001])
    assert [relative_step(step, warmup_init=True) for step in (0, 9_999, 999_999)] == pytest.approx([1e-6, 0.01, 0.001])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [1, 7, 1000])
def test_schedules_are_continuous_at_the_end_of_the_warm_up(name, warmup):
    """The last update of the warm-up has the peak, and the rate changes by O(1 / warmup) after it."""
    options = {"peak": 3.0, "warmup": warmup, "total": 3 * warmup, "floor": 0.0, "decay": warmup}
    before, at, after = (learning_rate(name, warmup - 1 + k, **options) for k in (-(warmup > 1), 0, 1))
    assert at == pytest.approx(3.0, rel=FEW)
    assert abs(at - before) <= 3.0 / warmup + 3 * FEW and 0 <= at - after <= 3.0 / warmup + 3 * FEW


def test_schedules_by_name_and_bad_ones():
    for name in SCHEDULES:
        decayed = math.sqrt(5 / 6) if "inverse" in name else 1.0  # update 6 of a warm-up of 5
        assert learning_rate(name, 5, peak=1.0, warmup=5, total=10, floor=0.0, decay=2) == decayed
    for call, message in (
        (lambda: learning_rate("step", 0, peak=1, warmup=0, total=1, floor=0, decay=1),
         "^schedule: expected one of cosine, linear, constant, stable-decay, inverse-sqrt, constant-inverse-sqrt, got 'step'"),
        (lambda: AdamW({"a": np.ones(1), "b": np.ones(1, dtype="f4")}), "one dtype"),
        (lambda: depths(_params()), "^depths: params: expected "),
        (lambda: clip_by_global_norm(_params(), limit=0), "clip: expected a finite number > 0, got 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


INSIDE, OUTSIDE = float(np.nextafter(1.0, 0.0)), float(np.nextafter(0.0, -1.0))  # just below 1, and just below 0
START = {"step": 0, "peak": 1.0, "warmup": 2}
COMMON = {**START, "total": 9, "floor": 0.0}


@pytest.mark.parametrize("name, given, accepted, refused", [
    ("betas", lambda v: AdamW(_params(), betas=v), [(0, 0.5), [INSIDE, INSIDE]],
     [(0.9, 1.0), (OUTSIDE, 0.9), (0.9, 0.95, 0.99), (0.9,), 0.9, None, (0.9, "1"), (True, 0.9), (0.9, np.nan)]),
    ("eps", lambda v: AdamW(_params(), eps=v), [0, 1e-8], [OUTSIDE, np.nan, np.inf, "1", None, True]),
    ("weight_decay", lambda v: AdamW(_params(), weight_decay=v), [0, 5], [OUTSIDE, np.nan, np.inf, "1", None]),
    ("rates: tokens", lambda v: AdamW(_params(), rates=lambda path, a: v), [5e-324, 2], [0, np.nan, np.inf, None]),
    ("lr", lambda v: AdamW(_params()).step(v), [0, 0.0, 1, np.float32(0.1)],
     [OUTSIDE, -1, np.nan, np.inf, "1", None, True, _params(), []]),
    ("clip", lambda v: AdamW(_params()).step(0.1, clip=v), [None, 5e-324, 2], [0, -1, np.nan, np.inf, "1"]),
    ("clip", lambda v: clip_by_global_norm(_params(), limit=v), [5e-324, 2], [0, -1, np.nan, np.inf, "1", None]),
    ("decay", lambda v: layerwise_rates(_network(), v), [5e-324, 1], [0, float(np.nextafter(1, 2)), np.nan, "1", None]),
    *((name, lambda v, f=f, name=name: f(**{**COMMON, name: v}), accepted, refused)
      for f in (warmup_linear, warmup_cosine, lambda **o: warmup_stable_decay(decay=3, **o)) for name, accepted, refused in (
          ("step", [0, np.int64(7), 99], [-1, 0.5, "1", None, True]), ("peak", [0, 2.5], [OUTSIDE, np.nan, np.inf, "1", None]),
          ("floor", [0, 2.5], [OUTSIDE, np.nan, np.inf, "1", None]), ("total", [5, np.int32(99)], [0, -1, 8.5, "9"]))),
    ("width", lambda v: inverse_sqrt_peak(v, 4), [1, 512], [0, 1.5, None]),
    ("warmup", lambda v: inverse_sqrt_peak(4, v), [0], [-1, None]),
    ("warmup_init", lambda v: relative_step(0, warmup_init=v), [True], [1, None]), ("step", relative_step, [0], [-1, 0.5]),
    *((name, lambda v, f=f, name=name: f(**{**START, name: v}), accepted, refused)
      for f in (warmup_constant, warmup_inverse_sqrt, constant_inverse_sqrt)
      for name, accepted, refused in (("step", [0, 99], [-1, 0.5]), ("peak", [0, 2.5], [OUTSIDE, np.nan]),
                                      ("warmup", [0, 99], [-1, 0.5, None]))),
    *(("warmup", lambda v, f=f: f(0, peak=1.0, warmup=v, total=9), [0, 8], [-1, 9, 2.0, None])
      for f in (warmup_linear, warmup_cosine)),
    ("decay", lambda v: warmup_stable_decay(0, peak=1.0, warmup=4, total=9, decay=v), [1, 5], [0, 6, 1.0, None]),
])  # fmt: skip
def test_borders_of_what_an_optimiser_takes(name, given, accepted, refused):
    for value in accepted:
        given(value)
    for value in refused:
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
            given(value)


def test_a_refused_step_changes_nothing():
    optimizer = AdamW(_params())
    optimizer.gradient.add(_params(seed=1))
    for lr, clip in ((-1.0, None), (np.nan, 1.0), (0.1, np.nan), (_params(seed=1), None)):
        with pytest.raises(ValueError, match="got"):
            optimizer.step(lr, clip=clip)
    with pytest.raises(ValueError, match=r"^lr: expected a number \(add gradients with optimizer.gradient.add\), got \{'tok"):
        optimizer.step(_params(seed=1))
    assert optimizer.t == 0 and relative_error(optimizer.params, _params()) == 0
    assert relative_error(optimizer.gradient.tree, _params(seed=1)) == 0


@pytest.mark.parametrize("path, wrong, message", [
    ("tokens", np.ones((1, 3)), r"tokens: expected an array of real numbers of shape \(4, 3\), got float64 .* \(1, 3\)"),
    ("tokens", 1.0, r"tokens: expected .*, got 1.0"),
    ("tokens", np.ones(()), r"tokens: expected .*, got float64 array of shape \(\)"),
    ("tokens", np.ones((3, 4)), r"tokens: expected .*shape \(3, 4\)"),
    ("tokens", np.ones((4, 3), complex), r"tokens: expected .*got complex128"),
    ("tokens", Rows(np.arange(2), np.ones((2, 4))), "tokens: expected"),
    ("tokens", Rows(np.arange(2), np.ones((1, 3))), "tokens: expected"),
    ("tokens", Product(np.ones((2, 3)), np.ones((2, 3))), "tokens: expected"),
    ("layers.0.b1", np.ones((1, 2)), r"layers.0.b1: expected an array of real numbers of shape \(2,\)"),
    ("layers.0.b1", np.ones(1), "layers.0.b1: expected"),
    ("layers.0.b9", np.ones(2), "gradient: expected a tree with some of tokens, layers.0.W1, .* got 'layers.0.b9'"),
    ("", 1.0, "gradient: expected a tree with some of tokens, .* got 1.0"),
    ("tokens", [[1.0] * 3] * 4, "gradient: expected a tree with some of tokens, .* got 'tokens.0.0'"),
])  # fmt: skip
def test_gradients_are_added_whole_or_not_at_all(path, wrong, message):
    flat = FlatTree(_params(), copy=True)
    before = flat.buffer.copy()
    with pytest.raises(ValueError, match=f"^{message}"):
        flat.add(wrong, path)
    tree = _params()
    if path.startswith("layers.0."):
        tree["layers"][0][path.removeprefix("layers.0.")] = wrong
    elif path:
        tree["tokens"] = wrong
    if path:
        with pytest.raises(ValueError, match=f"^{message}"):
            flat.add(dict(reversed(tree.items())))
    assert np.array_equal(flat.buffer, before)


def test_a_flat_tree_is_views_into_one_buffer():
    flat = FlatTree(_params(), copy=True)
    buffer = flat.buffer
    buffer *= 2
    assert np.array_equal(flat.tree["layers"][0]["b1"], 2 * _params()["layers"][0]["b1"])
    flat.clear()
    flat.add({"tokens": np.ones((4, 3)), "layers": [None]})
    assert flat.buffer.sum() == 12
    for look in (lambda: flat.buffer, lambda: flat.tree["tokens"], lambda: flat.leaves["tokens"]):
        flat.clear()
        assert not look().any()
        flat.add(np.ones(2), "layers.0.b1")  # one part, by path
        flat.add(np.ones(2), "layers.0.b1")
        assert flat.leaves["layers.0.b1"].tolist() == [2, 2] and flat.buffer.sum() == 4
        flat.clear()
        flat.add(Rows(np.array([1, 1]), np.ones((2, 3))), "tokens")  # the first to be added, covering only a few rows
        flat.add(Rows(np.array([2]), np.ones((1, 3))), "tokens")
        assert flat.leaves["tokens"].sum(axis=1).tolist() == [0, 6, 3, 0] and flat.buffer.sum() == 9
        flat.clear()
        for times in (1, 2):
            flat.add({"tokens": Product(np.arange(8.0).reshape(2, 4), np.ones((2, 3)))}, workers=2)
            assert flat.leaves["tokens"][:, 0].tolist() == [4 * times, 6 * times, 8 * times, 10 * times]
            assert flat.buffer.sum() == 84 * times
