"""Adafactor against the reference, on every device; its state, its threads, runs that are resumed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.optim import adafactor as reference
from tests.laws import FEW, PART, relative_error
from tests.support.survivor import QUICK, TOKENS, contents, interrupted, run
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten, tree_map, unflatten
from tinyplm.hub.tensors import read_safetensors
from tinyplm.optim import Adafactor, AdamW, relative_step
from tinyplm.training.checkpoint import find
from tinyplm.training.settings import Settings, optimizer_of
from tinyplm.tuning import SFTSettings

SHAPES = {"tokens": (4, 3), "layers": [{"W1": (3, 2), "bias": (2,), "gamma": (1,)}]}
OPTIONS = [
    {},
    {"beta1": 0.7, "weight_decay": 0.3, "decays": lambda path, a: path.endswith("W1")},
    {"scale": False, "threshold": 0.3, "eps": (1e-2, 0.5), "decay_rate": 0.5},
    {"eps": (1e-30, 5.0), "threshold": 1e9, "weight_decay": 0.1, "rates": lambda path, a: 2.0 if a.ndim == 1 else 0.5},
]


def drawn(seed, shapes=SHAPES, scale=1.0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return tree_map(lambda shape: (rng.normal(0, scale, shape)).astype(dtype), shapes)


def by_reference(
    theta, gradients, lrs, *, eps=(1e-30, 1e-3), threshold=1.0, decays=None, rates=None, weight_decay=0.0, **options
):
    """The parameters after each of these gradients, by path."""
    theta, states = flatten(theta), {path: {} for path in flatten(theta)}
    for t, (gradient, lr) in enumerate(zip(gradients, lrs), 1):
        for path, g in flatten(gradient).items():
            a = theta[path]
            decay = weight_decay if (path.endswith("W1") if decays is None else decays(path, a)) else 0.0
            rate = lr * (1.0 if rates is None else rates(path, a))
            theta[path], states[path] = reference.adafactor_update(
                a, g, states[path], t, rho=rate, eps1=eps[0], eps2=eps[1], d=threshold, weight_decay=decay, **options
            )
    return theta


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "moment and decay", "no scale", "eps and rates"])
def test_adafactor_equals_the_reference(device, options):
    params, lrs = drawn(0), [0.1 / t for t in range(1, 7)]
    gradients = [drawn(t, scale=10.0 ** (t % 3 - 1)) for t in range(1, 7)]
    gradients[2] = tree_map(np.zeros_like, gradients[2])  # 0 / sqrt(eps1) and not 0 / 0
    optimizer = Adafactor(to_device(params, device), **options)
    for gradient, lr in zip(gradients, lrs):
        optimizer.gradient.add(to_device(gradient, device))
        optimizer.step(lr)
    expected = unflatten(by_reference(params, gradients, lrs, **options), params)
    assert relative_error(to_host(optimizer.params), expected) < PART
    assert relative_error(to_host(optimizer.params), params) > 1e-2


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99), st.floats(-6, 6), st.booleans())
def test_any_matrix_equals_the_reference(n, m, seed, magnitude, warmup_init):
    shapes = {"a": (n, m), "b": (n,)}
    params, gradients = drawn(seed, shapes), [drawn([seed, t], shapes, 10.0**magnitude) for t in range(4)]
    lrs = [relative_step(t, warmup_init=warmup_init) for t in range(4)]
    assert lrs == pytest.approx([reference.relative_step(t + 1, warmup_init=warmup_init) for t in range(4)], rel=FEW)
    optimizer = Adafactor(params)
    for gradient, lr in zip(gradients, lrs):
        optimizer.gradient.add(gradient)
        optimizer.step(lr)
    assert relative_error(optimizer.params, by_reference(params, gradients, lrs)) < PART


def test_a_first_step_by_hand():
    """b = 0 at t = 1.  G^2 is of rank one, so the factors are exact and U is the sign of G, with rms 1."""
    theta = {"W": np.array([[3.0, -4.0], [0.0, 5.0]])}  # rms sqrt(50 / 4)
    optimizer = Adafactor(theta)
    optimizer.gradient.add({"W": np.array([[1.0, -2.0], [3.0, 6.0]])})
    optimizer.step(0.01)
    step = 0.01 * math.sqrt(12.5)
    np.testing.assert_allclose(optimizer.params["W"], theta["W"] - step * np.array([[1, -1], [1, 1]]), rtol=PART)
    np.testing.assert_allclose(optimizer.state["row.W"], [2.5, 22.5], rtol=PART)
    np.testing.assert_allclose(optimizer.state["column.W"], [5.0, 20.0], rtol=PART)
    # t = 2: b = 1 - 2^-0.8; without a gradient nothing moves but the means
    optimizer.step(0.01)
    np.testing.assert_allclose(optimizer.state["row.W"], np.array([2.5, 22.5]) * (1 - 2**-0.8), rtol=PART)


def test_an_update_is_no_longer_than_its_bound():
    """The root mean square of a step is at most lr max(eps2, rms(theta)) threshold, whatever the gradient."""
    optimizer = Adafactor({"W": np.full((3, 4), 2.0)}, threshold=0.5)
    for t in range(5):
        before = optimizer.params["W"].copy()
        optimizer.gradient.add({"W": np.random.default_rng(t).normal(0, 10.0 ** (4 * t), (3, 4))})
        optimizer.step(0.1)
        moved = np.sqrt(np.mean((optimizer.params["W"] - before) ** 2))
        assert moved <= 0.1 * 0.5 * np.sqrt(np.mean(before**2)) * (1 + PART)


def test_a_stack_of_matrices_is_factored_like_each_alone_but_clipped_together():
    params = {"W": np.random.default_rng(0).normal(size=(2, 3, 4))}
    optimizer, alone = Adafactor(params), Adafactor({"0": params["W"][0], "1": params["W"][1]})
    g = np.random.default_rng(1).normal(size=(2, 3, 4))
    optimizer.gradient.add({"W": g})
    alone.gradient.add({"0": g[0], "1": g[1]})
    optimizer.step(0.1)
    alone.step(0.1)
    assert optimizer.state["row.W"].shape == (2, 3) and optimizer.state["column.W"].shape == (2, 4)
    for name in ("row", "column"):
        for i in range(2):
            np.testing.assert_allclose(optimizer.state[f"{name}.W"][i], alone.state[f"{name}.{i}"], rtol=PART)


@pytest.mark.parametrize("options", OPTIONS[:2], ids=["defaults", "moment"])
def test_threads_change_nothing_and_clipping_scales_the_gradient(options):
    def ran(workers=1, scale=1.0, clip=None):
        optimizer = Adafactor(drawn(0, dtype="float32"), **options)
        for t in range(3):
            optimizer.gradient.add(drawn(t + 1, scale=scale, dtype="float32"))
            optimizer.step(0.1, clip=clip, workers=workers)
        return optimizer

    one = ran()
    for workers in (2, 3, 99):
        other = ran(workers)
        assert np.array_equal(other.values.buffer, one.values.buffer)
        assert all(np.array_equal(a, other.state[name]) for name, a in one.state.items())
    assert not np.array_equal(ran(clip=0.5).values.buffer, one.values.buffer)
    assert relative_error(ran(scale=8.0).params, one.params) < 1e-6, "the step does not feel the scale of the loss"


def test_the_state_is_sublinear_and_in_float32():
    shapes = {"tokens": (1000, 64), "layers": [{"W": (64, 256), "gamma": (64,)} for _ in range(2)]}
    params = drawn(0, shapes, dtype="float16")
    size = sum(a.size for a in flatten(params).values())

    def numbers(optimizer):
        assert {a.dtype for a in optimizer.state.values()} == {np.dtype("float32")}
        return sum(a.size for a in optimizer.state.values())

    assert numbers(AdamW(params)) == 2 * size
    assert numbers(Adafactor(params)) == 1064 + 2 * (64 + 256 + 64) < size / 50
    assert numbers(Adafactor(params, beta1=0.9)) == 1064 + 2 * (64 + 256 + 64) + size
    optimizer = Adafactor(params)
    optimizer.gradient.add(drawn(1, shapes, dtype="float16"))
    optimizer.step(0.1)
    assert optimizer.params["tokens"].dtype == np.float16 and np.isfinite(optimizer.values.buffer).all()


@pytest.mark.parametrize(("options", "message"), [
    ({"eps": 1e-3}, "eps: expected two numbers > 0, got 0.001"),
    ({"eps": (0.0, 1e-3)}, "eps: expected two numbers > 0, got"),
    ({"threshold": 0}, "threshold: expected a finite number > 0, got 0"),
    ({"decay_rate": -0.8}, "decay_rate: expected a finite number > 0 and <= 1, got -0.8"),
    ({"beta1": 1}, "beta1: expected a finite number >= 0 and < 1, got 1"),
    ({"beta1": None}, "beta1: expected a finite number >= 0 and < 1, got None"),
    ({"scale": 1}, "scale: expected True or False, got 1"),
    ({"weight_decay": -1}, "weight_decay: expected a finite number >= 0, got -1"),
])  # fmt: skip
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Adafactor(drawn(0), **options)
    for call in (lambda o: o.step(-1.0), lambda o: o.step(0.1, workers=0), lambda o: o.step(0.1, clip=0)):
        optimizer = Adafactor(drawn(0))
        with pytest.raises(ValueError, match="expected"):
            call(optimizer)
        assert optimizer.t == 0


# ------------------------------------------------------------------------------------------------------------ runs

RUN = {"optimizer": "adafactor", "schedule": "inverse-sqrt", "weight_decay": 0.1}


@pytest.mark.parametrize(("workers", "full_every"), [(1, 1), (2, 3)])
def test_a_resumed_run_is_bit_equal(tmp_path, workers, full_every):
    options = {**RUN, "workers": workers, "full_every": full_every, "keep": 9}
    run(tmp_path / "whole", **options)
    with interrupted(4):
        run(tmp_path / "broken", **options)
    run(tmp_path / "broken", **options)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_checkpoint_holds_the_state_and_no_other_optimiser_takes_it_over(tmp_path):
    run(tmp_path / "small", **RUN)
    run(tmp_path / "adamw")
    states = {name: read_safetensors(find(tmp_path / name) / "optimizer.safetensors")[0] for name in ("small", "adamw")}
    size = {name: sum(a.nbytes for a in state.values()) for name, state in states.items()}
    assert size["small"] < size["adamw"] / 4  # of a model of width 8
    assert {name.partition(".")[0] for name in states["small"]} == {"row", "column", "v"}
    expected = "settings.optimizer was 'adamw', now 'adafactor'"
    with pytest.raises(ValueError, match=rf"^[^\n]*: expected the configuration of this run, got another: {expected}$"):
        run(tmp_path / "adamw", optimizer="adafactor")
    with pytest.raises(ValueError, match="settings.optimizer was 'adafactor', now 'adamw'"):
        run(tmp_path / "small", **{**RUN, "optimizer": "adamw"})


def test_settings_choose_the_optimiser():
    """With the settings' weight decay, and without a first moment: beta1, beta2 and eps are AdamW's."""
    chosen = optimizer_of(drawn(0), Settings(optimizer="adafactor", weight_decay=0.3, beta1=0.5))
    assert isinstance(chosen, Adafactor) and chosen.weight_decay == 0.3 and not chosen.beta1
    assert isinstance(optimizer_of(drawn(0), Settings()), AdamW) and isinstance(optimizer_of(drawn(0), SFTSettings()), AdamW)


def test_a_run_learns(tmp_path):
    state = run(tmp_path / "out", **{**RUN, "steps": 60, "learning_rate": 0.05, "evaluate_every": 60, "save_every": 60})
    unigram = -np.log(np.bincount(TOKENS, minlength=11) / TOKENS.size) @ (np.bincount(TOKENS, minlength=11) / TOKENS.size)
    assert state.best_loss < unigram and QUICK["batch_size"] == 4
