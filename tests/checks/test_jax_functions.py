"""JAX functions.  Where JAX is missing a stand-in has the few names that the adapter uses."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from tinyplm.checks import Jax, check


def stand_in() -> types.ModuleType:
    """jax.numpy.asarray makes arrays that NumPy's functions take; jax.vjp differentiates by differences with step 1, which are
    exact for functions of degree two."""

    class Array(np.ndarray):
        """Tells them apart from the arrays of NumPy, as JAX's are."""

    def array(value, dtype=None):
        made = np.array(value, dtype or np.asarray(value).dtype).view(Array)
        made.flags.writeable = False
        return made

    def vjp(f, *primals):
        assert all(p is None or isinstance(p, Array) for p in primals)
        y = f(*primals)

        def back(dy):
            grads = []
            for i, p in enumerate(primals):
                if p is None:
                    grads.append(None)
                    continue
                grad = np.zeros(p.shape, p.dtype)
                for at in np.ndindex(p.shape):
                    step = np.zeros(p.shape, p.dtype)
                    step[at] = 1
                    ahead, behind = (f(*primals[:i], array(p + s), *primals[i + 1 :]) for s in (step, -step))
                    grad[at] = (np.asarray(dy) * (np.asarray(ahead) - np.asarray(behind))).sum() / 2
                grads.append(array(grad))
            return tuple(grads)

        return y, back

    jax = types.ModuleType("jax")
    jax.numpy = types.SimpleNamespace(asarray=array)
    jax.config = types.SimpleNamespace(jax_enable_x64=True)
    jax.vjp, jax.Array = vjp, Array
    return jax


@pytest.fixture(params=["a stand-in", "jax"])
def jax(request, monkeypatch):
    if request.param == "a stand-in":
        monkeypatch.setitem(sys.modules, "jax", stand_in())
        yield sys.modules["jax"]
        return
    real = pytest.importorskip("jax")
    before = real.config.jax_enable_x64
    real.config.update("jax_enable_x64", True)
    yield real
    real.config.update("jax_enable_x64", before)


def linear(x, W, b):
    y = x @ W
    return y if b is None else y + b


def test_a_right_function_passes(jax):
    result = check(linear, "linear", kind="jax", cases=3)
    assert result.passed and {row.dtype for row in result.rows} == {"float64", "float32"}, str(result)


def test_a_wrong_function_is_seen(jax):
    result = check(lambda x, W, b: linear(x * 0.5, W, b), "linear", kind="jax", cases=3)
    assert {row.law for row in result.rows if not row.passed} == {"value", "gradient of x", "gradient of W"}


def test_it_gets_arrays_of_jax(jax):
    seen = []

    def table(table, ids):
        seen.extend([table, ids])
        return table[ids]

    assert check(table, "embedding", kind="jax", cases=2).passed
    assert all(isinstance(a, jax.Array) for a in seen)


def test_without_x64_it_is_checked_in_float32(jax, monkeypatch):
    if isinstance(jax.config, types.SimpleNamespace):
        jax.config.jax_enable_x64 = False
    else:
        jax.config.update("jax_enable_x64", False)
    assert {row.dtype for row in check(Jax(linear), "linear", cases=2).rows} == {"float32"}


def test_what_jax_has_wrapped_is_recognised():
    jax = pytest.importorskip("jax")
    result = check(jax.jit(linear), "linear", cases=2, dtypes=("float32", "bfloat16"))
    assert result.passed, str(result)

    @jax.custom_vjp
    def wrong(x, W, b):
        return linear(x, W, b)

    wrong.defvjp(lambda *args: (wrong(*args), args), lambda args, dy: (dy @ args[1].T, args[1] * 0, None))
    assert "gradient of W" in {row.law for row in check(wrong, "linear", cases=2).rows if not row.passed}


def test_without_jax_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ValueError, match="kind: expected JAX to be installed, got none"):
        check(linear, "linear", kind="jax")
