"""The strict device itself: it must catch whatever would fail on a GPU, and allow everything else."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from . import strict_ufunc
from .inputs import HOST, inputs, to_numpy
from .mistakes import MISTAKES, OUT_OF_RANGE, WAITS
from .operations import OPERATIONS
from .strict import (
    PromotionError,
    StrictArray,
    SynchronisationError,
    counters,
    counting,
    freeze,
    no_synchronisation,
    register,
    strict,
    to_device,
    to_host,
)
from .strict_rules import API


def gpu():
    """CuPy, if it is usable here."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.is_available():
        pytest.skip("CuPy finds no GPU")
    return cupy


@pytest.fixture(params=["strict", "gpu"])
def xp(request):
    return strict if request.param == "strict" else gpu()


# Mistakes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*MISTAKES, *WAITS])
def test_mistake_runs_under_numpy(name):
    """Otherwise a refusal by the strict device would prove nothing."""
    (MISTAKES | WAITS)[name](np, inputs(np))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_caught(name):
    with pytest.raises((TypeError, IndexError, AttributeError, NotImplementedError)):
        MISTAKES[name](strict, inputs(strict))


@pytest.mark.parametrize("name", WAITS)
def test_wait_is_counted_and_can_be_forbidden(name):
    with counting() as count:
        WAITS[name](strict, inputs(strict))
    assert count.synchronisations >= 1
    given = inputs(strict)
    with no_synchronisation(), pytest.raises(SynchronisationError):
        WAITS[name](strict, given)


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_index_out_of_range_is_caught(name):
    with pytest.raises(IndexError):
        OUT_OF_RANGE[name](strict, inputs(strict))


@pytest.mark.parametrize("make", [strict.empty, strict.ones], ids=["empty", "ones"])
def test_empty_holds_garbage(make):
    """`ones` shows that the check can fail."""
    arrays = [make((2, 3), dtype=dtype).get() for dtype in ("float16", "float64", "complex64")]
    garbage = all(np.isnan(a).all() for a in arrays) and (make(3, "int32").get() > 2**30).all()
    garbage = garbage and 0 < make(4, bool).get().sum() < 4
    assert garbage == (make is strict.empty)


def test_empty_like_holds_garbage():
    x = inputs(strict).x
    assert np.isnan(strict.empty_like(x).get()).all()
    assert strict.empty_like(x, dtype="int64", shape=(5,)).get().min() > 2**60


def test_promotion_that_differs_is_refused(monkeypatch):
    """CuPy 14.2 and NumPy 2.4 agree on all dtypes, so the test plants a CuPy that adds float16 in float32."""
    monkeypatch.setitem(strict_ufunc.UFUNCS, "add", API["cupy"]["ufuncs"]["add"] | {"types": "ff->f dd->d"})
    strict_ufunc.result_dtypes.cache_clear()
    half, add = inputs(strict).half, strict_ufunc.StrictUfunc("add")  # a new one, which has not checked these dtypes yet
    with pytest.raises(PromotionError, match="float32"):
        add(half, half)
    monkeypatch.undo()
    strict_ufunc.result_dtypes.cache_clear()
    assert add(half, half).dtype == (half + half).dtype == "float16"


# Legitimate operations


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_gives_what_numpy_gives(name, xp):
    with np.errstate(all="ignore"):
        expected = to_numpy(OPERATIONS[name](np, inputs(np)))
    result = OPERATIONS[name](xp, inputs(xp))
    found = to_numpy(result)
    if not isinstance(found, list):
        found, expected, result = [found], [expected], [result]
    for f, e, r in zip(found, expected, result, strict=True):
        assert isinstance(r, xp.ndarray)
        assert (f.shape, f.dtype) == (e.shape, e.dtype)
        if xp is strict:
            np.testing.assert_array_equal(f, e)
        else:
            np.testing.assert_allclose(f, e, rtol=1e-2 if f.dtype == "float16" else 1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_does_not_wait(name):
    given = inputs(strict)
    with no_synchronisation():
        OPERATIONS[name](strict, given)


@pytest.mark.parametrize("name", WAITS)
def test_waiting_operation_gives_what_numpy_gives(name):
    found, expected = (WAITS[name](xp, inputs(xp)) for xp in (strict, np))
    if not isinstance(expected, (str, bytes)):
        for f, e in zip(np.atleast_1d(to_numpy(found)), np.atleast_1d(to_numpy(expected)), strict=True):
            np.testing.assert_array_equal(f, e)


def test_sorting_is_stable():
    ties = np.arange(1000) % 7
    np.testing.assert_array_equal(to_device(ties).argsort().get(), np.argsort(ties, kind="stable"))
    np.testing.assert_array_equal(strict.argsort(to_device(ties)).get(), np.argsort(ties, kind="stable"))


# The array


def test_scalar_results_are_arrays():
    i = inputs(strict)
    for value in (
        i.x.sum(),
        i.x[0, 0],
        i.x.max(),
        i.x.mean() * 2,
        strict.exp(1.0),
        strict.allclose(i.x, i.y),
    ):
        assert isinstance(value, StrictArray) and value.shape == ()
    assert not any(isinstance(v, np.generic) for v in i.x)


def test_refusal_of_conversion_says_what_cupy_says():
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array is not allowed.*\.get\(\)"):
        np.asarray(inputs(strict).x)


def test_has_only_attributes_of_cupy():
    public = {n for n in dir(StrictArray) if not n.startswith("_")}
    assert public <= {*API["ndarray"]["methods"], *API["ndarray"]["attributes"]}
    assert {n for n in vars(strict) if not n.startswith("_")} <= set().union(*API["cupy"].values())
    with pytest.raises(AttributeError):
        inputs(strict).x.name = "an attribute"


def test_device_array_is_not_made_by_its_class():
    with pytest.raises(TypeError, match="asarray"):
        strict.ndarray((2, 3))


def test_the_way_to_the_device_and_back_copies():
    host = HOST.copy()
    x = to_device(host)
    host[...] = 0
    back = to_host(x)
    np.testing.assert_array_equal(back, HOST)
    back[...] = 0
    np.testing.assert_array_equal(x.get(), HOST)
    np.testing.assert_array_equal(copy.deepcopy(x).get(), HOST)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x)).get(), HOST)


def test_python_scalar_must_fit_the_dtype():
    with pytest.raises(OverflowError):
        inputs(strict).small + 1000
    with pytest.raises(OverflowError):
        inputs(strict).small[0] = 1000


# Counters


def test_counters():
    counters.reset()
    x = strict.asarray(HOST)
    assert (counters.host_to_device, counters.device_to_host, counters.synchronisations) == (1, 0, 0)
    with counting() as inside:
        x.get()
        strict.asnumpy(x)
        x[x > 0]
    assert (inside.host_to_device, inside.device_to_host, inside.synchronisations) == (0, 2, 3)
    assert counters.synchronisations == 3
    strict.asarray(x), strict.array(x), strict.zeros(3), strict.asarray([x, x])
    assert counters.host_to_device == 1


def test_no_synchronisation_ends_with_its_block():
    x = inputs(strict).x
    with no_synchronisation():
        with no_synchronisation():
            pass
        with pytest.raises(SynchronisationError, match="float"):
            float(x.sum())
    float(x.sum())


# Frozen arrays

WRITES = {
    "assignment": lambda x: x.__setitem__(0, 1.0),
    "in place": lambda x: x.__iadd__(1.0),
    "out of a ufunc": lambda x: strict.exp(x, out=x),
    "out of a function": lambda x: strict.cumsum(x, axis=0, out=x),
    "through a slice": lambda x: x[1:].fill(0),
    "through a transposed array": lambda x: x.T.__setitem__(..., 0.0),
    "through a reshaped array": lambda x: x.reshape(-1).__imul__(2.0),
    "through asarray": lambda x: strict.asarray(x).__imul__(2.0),
    "add.at": lambda x: strict.add.at(x, strict.asarray([0, 1]), 1.0),
    "copyto": lambda x: strict.copyto(x, 0.0),
    "sort": lambda x: x.sort(),
    "set": lambda x: x.set(np.zeros_like(HOST)),
    "put_along_axis": lambda x: strict.put_along_axis(x, strict.asarray([[0, 1, 2, 3]]), 1.0, axis=1),
}


@pytest.mark.parametrize("name", WRITES)
def test_frozen_array_refuses_writes(name):
    WRITES[name](inputs(strict).x)
    frozen = freeze(inputs(strict).x)
    with pytest.raises(ValueError, match="read-only|write"):
        WRITES[name](frozen)
    np.testing.assert_array_equal(frozen.get(), HOST)


def test_freeze_returns_the_array_and_copies_of_it_can_be_written():
    x = inputs(strict).x
    assert freeze(x) is x
    y = x.copy()
    y += 1
    (x + 0)[...] = 2
    with pytest.raises(TypeError):
        freeze(HOST)


def test_register():
    backend = pytest.importorskip("tinyplm.backend")
    register()
    x = backend.to_device({"a": [HOST]}, "strict")["a"][0]
    assert isinstance(x, StrictArray) and backend.array_module(x) is strict
    np.testing.assert_array_equal(backend.to_host(x), HOST)
