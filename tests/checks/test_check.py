"""check: right callables of every kind pass, and each planted mistake fails the law that is about it."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from tests.support import callables
from tests.support.callables import WRONG, rmsnorm, softmax
from tinyplm import checks
from tinyplm.checks import COMPONENTS, Case, Pair, check, check_test
from tinyplm.checks.result import Result, Row
from tinyplm.layers import activation


def failed(result: Result) -> dict[str, str]:
    """{law: note} of the rows that failed."""
    return {row.law: row.note for row in result.rows if not row.passed}


# ---------------------------------------------------------------------------------------------- right and wrong functions


@pytest.mark.parametrize("name", COMPONENTS)
def test_our_own_components_pass(name):
    result = check(COMPONENTS[name].f, name, cases=1)
    assert result.passed and not result.notes[1:], str(result)


@pytest.mark.parametrize("name", [name for name, entry in COMPONENTS.items() if name.removesuffix("_kernel") == entry.plain])
def test_a_kernel_passes_as_its_plain_form(name):
    """Two ways to compute one thing agree within the bounds."""
    assert check(COMPONENTS[name].f, COMPONENTS[name].plain, cases=3).passed


@pytest.mark.parametrize(("f", "like"), [(rmsnorm, "rmsnorm"), (softmax, "softmax")])
def test_a_right_function_passes(f, like):
    result = check(f, like)
    assert result.passed, str(result)
    laws = {row.law for row in result.rows}
    assert {"value", "gradient of x", "linear in dy", "repeatable", "dtypes", "inputs untouched", "dy untouched"} <= laws
    assert ({"padding without influence", "rows with nothing to attend to"} <= laws) == (like == "softmax")


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_seen_by_its_law(name):
    like, f, law, note = WRONG[name]
    found = failed(check(f, like))
    assert note in found[law], found


@pytest.mark.parametrize("name", ["writes into x", "writes into dy", "promotes the value", "padding comes through",
                                  "uniform where nothing is seen", "overflows", "not repeatable"])  # fmt: skip
def test_such_a_mistake_is_not_taken_for_a_wrong_gradient(name):
    like, f, law, _ = WRONG[name]
    found = set(failed(check(f, like, cases=3, dtypes=["float64", "float32"]))) - {law}
    assert not {row for row in found if row.startswith("gradient of its own")}
    if name not in ("uniform where nothing is seen", "padding comes through"):  # drawn cases may have such rows
        assert not found


def test_empty_rows_are_tried_where_no_case_has_them():
    cases = [{"x": (2, 3, 4), "mask": np.array([True, True, False, True])}]
    found = failed(check(callables.uniform_when_empty, "softmax", cases=cases))
    assert list(found) == [callables.ROWS]


def test_a_gradient_that_is_right_for_another_value_is_told_apart():
    found = failed(check(callables.eps_outside, "rmsnorm"))
    assert "value" in found and "gradient of its own value" not in found
    assert "gradient of its own value" in failed(check(callables.missing_term, "rmsnorm"))


def test_in_lower_dtypes_what_the_dtype_explains_passes_and_more_fails():
    """An error of 1e-5 is far beyond float32 and invisible in float16."""
    off = callables.changed(lambda g, dy: (g[0] * g[0].dtype.type(1 + 1e-5), g[1]))
    for dtype in ("float64", "float32", "float16"):
        found = failed(check(off, "rmsnorm", dtypes=dtype))
        assert ("gradient of x" in found) == (dtype != "float16"), found


def test_float16_overflows_sooner():
    assert "finite for large values" in failed(check(callables.naive, "softmax", dtypes="float16", cases=3))
    assert check(softmax, "softmax", dtypes="float16", cases=3).passed


def test_cancellation_that_ours_has_too_is_no_mistake():
    """With two near numbers a row and a small eps, the gradient of LayerNorm is the small difference of large ones."""
    x = 1 + 1e-3 * np.random.default_rng(0).normal(size=(9, 2))
    cases = [{"x": x, "gamma": (2,), "eps": 1e-9}]
    assert check(callables.layernorm, "layernorm", cases=cases).passed


def test_bfloat16_arrives_as_float32_with_rounded_numbers():
    seen = []

    def f(x, gamma, *, eps):
        seen.append(x)
        return rmsnorm(x, gamma, eps=eps)

    assert check(f, "rmsnorm", dtypes="bfloat16", cases=2).passed
    assert all(x.dtype == np.float32 for x in seen)
    drawn = [x for x in seen if not (x.view(np.uint32) & 0xFFFF).any()]
    assert len(drawn) > len(seen) / 2


# ------------------------------------------------------------------------------------------------- how a callable is called


def forward(x, gamma, *, eps):
    return rmsnorm(x, gamma, eps=eps)[0]


def backward(dy, x, gamma, *, eps):
    return rmsnorm(x, gamma, eps=eps)[1](dy)


def kept_forward(x, gamma, *, eps):
    y, back = rmsnorm(x, gamma, eps=eps)
    return y, (x, back)


def kept_backward(dy, kept):
    return kept[1](dy)


@pytest.mark.parametrize("pair", [(forward, backward), [kept_forward, kept_backward], Pair(forward, backward)])
def test_a_pair_of_functions(pair):
    assert check(pair, "rmsnorm", cases=3).passed


@pytest.mark.parametrize("name", [name for name, (like, *_) in WRONG.items() if like == "rmsnorm" and "another" not in name])
def test_mistakes_in_a_pair(name):
    _, f, law, note = WRONG[name]

    def wrong_forward(x, gamma, *, eps):
        return f(x, gamma, eps=eps)

    assert note in failed(check((wrong_forward, lambda dy, back: back(dy)), "rmsnorm"))[law]


def test_other_names_and_orders():
    def other(weight, inp, epsilon):
        y, back = rmsnorm(inp, weight, eps=epsilon)
        return y, lambda dy: back(dy)[::-1]

    given = {"arguments": {"weight": "gamma", "inp": "x"}, "keywords": {"eps": "epsilon"}}
    assert check(other, "rmsnorm", cases=3, **given).passed
    assert check(other, "rmsnorm", cases=3, arguments=("gamma", "x", "eps")).passed
    swapped = check(lambda a, b, eps: other(b, a, eps), "rmsnorm", cases=3)  # the gradients in the wrong order
    assert not swapped.passed


def test_without_names_our_arguments_come_in_order():
    assert check(lambda inp, weight, eps: rmsnorm(inp, weight, eps=eps), "rmsnorm", cases=3).passed
    assert check(lambda *args, **kwargs: rmsnorm(*args, **kwargs), "rmsnorm", cases=3).passed


def test_what_is_not_taken_is_left_out_of_the_cases():
    result = check(lambda x: softmax(x), "softmax", cases=4)
    assert result.passed and "not taken, so every case is without: mask" in result.notes
    result = check(lambda q, k, v, *, mask: COMPONENTS["attention"].f(q, k, v, mask=mask)[:1]
                   + (lambda dy: COMPONENTS["attention"].f(q, k, v, mask=mask)[1](dy)[:3],), "attention", cases=3)  # fmt: skip
    assert result.passed and "not taken, so every case is without: bias, scale" in result.notes


def test_entries_of_trees_and_transposed_matrices():
    mlp = COMPONENTS["mlp"].f

    def flat(x, w1, b1, w2, b2, activation):
        p = {"W1": w1.T, "b1": b1, "W2": w2.T, "b2": b2}
        y, back = mlp({n: a for n, a in p.items() if a is not None}, x, activation=activation)

        def backward(dy):
            dp, dx = back(dy)
            return dx, dp["W1"].T, dp.get("b1"), dp["W2"].T, dp.get("b2")

        return y, backward

    order = ("x", "p.W1.T", "p.b1", "p.W2.T", "p.b2", "activation")
    assert check(flat, "mlp", arguments=order).passed
    named = {"w1": "p.W1.T", "b1": "p.b1", "w2": "p.W2.T", "b2": "p.b2"}
    assert check(flat, "mlp", arguments=named, cases=3).passed


def test_components_among_the_keywords_are_translated():
    ours = {name: getattr(activation, name) for name in ("gelu", "gelu_tanh", "silu")}
    seen = set()

    def renamed(p, x, *, act):
        return COMPONENTS["mlp"].f(p, x, activation=act)

    def mlp(p, x, *, act):
        seen.add(act)
        return renamed(p, x, act=ours[act])

    assert check(renamed, "mlp", keywords={"activation": "act"}, cases=3).passed
    translated = check(mlp, "mlp", keywords=lambda kw: {"act": kw["activation"].__name__})
    assert translated.passed and len(seen) > 1 and seen <= set(ours)
    named = {"activation": lambda f: f.__name__}
    assert check(lambda p, x, *, activation: mlp(p, x, act=activation), "mlp", keywords=named, cases=3).passed


def test_what_is_fixed_is_in_every_case():
    def at_tenth(x, gamma):
        return rmsnorm(x, gamma, eps=0.1)

    assert check(at_tenth, "rmsnorm", fixed={"eps": 0.1}).passed
    assert not check(at_tenth, "rmsnorm", fixed={"eps": 0.2}).passed
    assert not check(at_tenth, "rmsnorm").passed  # of its cases with our default


def test_given_cases():
    shapes = [{"x": (2, 3, 64), "gamma": (64,)}, {"x": (5, 1), "gamma": (1,), "eps": 0.5}]
    result = check(rmsnorm, "rmsnorm", cases=shapes)
    assert result.passed and result.cases == 2
    assert "(5, 1)" in failed(check(callables.eps_outside, "rmsnorm", cases=shapes))["value"]
    mask = np.array([[True, False, True], [False, False, False]])
    assert check(softmax, "softmax", cases=[{"x": (2, 3), "mask": mask}, Case([np.ones((2, 2))])]).passed
    tree = {"p": {"W1": (4, 6), "W2": (6, 4)}, "x": (1, 2, 4), "activation": activation.silu}
    assert check(COMPONENTS["mlp"].f, "mlp", cases=[tree]).passed


def test_the_same_seed_draws_the_same_cases():
    def rows(seed):
        return check(callables.missing_term, "rmsnorm", seed=seed).rows

    assert rows(0) == rows(0) != rows(1)


# --------------------------------------------------------------------------------------------------- the result, the test


def test_the_table():
    assert str(check(rmsnorm, "rmsnorm", cases=2)).endswith("all 15 passed")
    lines = str(check(callables.missing_term, "rmsnorm", cases=2)).splitlines()
    assert lines[0] == "missing_term, checked as rmsnorm in 2 cases"
    assert lines[1].split() == ["law", "dtype", "error", "bound"]
    (row,) = [line for line in lines if line.startswith("gradient of x") and "float64" in line]
    assert "FAILED: case" in row and "eps=" in row and ": x (" in row and "gamma (" in row
    own = str(check(lambda p, x, *, activation: (x + 1, lambda dy: ({}, dy)), "mlp", cases=1))
    assert re.search(r"case 0: p.W1 \(\d, \d\), .*p.W2 .*x \(.*activation=\w+", own)
    assert lines[-1] == "3 of 15 failed"
    bad = Result("f", "g", 1, [Row("value", "float64", np.inf, 1e-15, False, "not finite")], [])
    assert not bad.passed and "inf" in str(bad) and str(bad).endswith("1 of 1 failed")


def test_a_test_in_two_lines():
    test = check_test(rmsnorm, like="rmsnorm", cases=2)
    test()
    with pytest.raises(AssertionError, match="gradient of x +float64 .* FAILED"):
        check_test(callables.missing_term, like="rmsnorm", cases=2)()
    assert test.check(cases=1).cases == 1
    assert checks.check is check


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("f", "given", "message"), [
    (rmsnorm, {"like": "rmsnrom"}, r"like: expected a component, .* got 'rmsnrom' \(did you mean rmsnorm\?\)"),
    (rmsnorm, {"like": None}, "like: expected a component, .* got None"),
    (3, {}, r"f: expected a callable, or a pair \(forward, backward\) of them, got 3"),
    ((rmsnorm,), {}, "f: expected a callable, or a pair"),
    (np.tanh, {"like": "tanh"}, "tanh: expected the value and a backward, got float64 array"),
    (lambda x, gamma, eps: 1, {}, "expected the value and a backward, got 1 .*kind='torch'"),
    (lambda x, gamma, eps: ("a", np.tanh), {}, "the value: expected arrays of numbers, got 'a'"),
    (lambda x, gamma, eps: (x * 1j, np.tanh), {}, "the value: expected arrays of numbers, got complex128 array"),
    (callables.changed(lambda g, dy: ("a", g[1])), {}, "backward: expected arrays of numbers, got 'a'"),
    (callables.changed(lambda g, dy: g[:1]), {}, "backward: expected 2 gradients, got 1"),
    (callables.changed(lambda g, dy: (*g, 1)), {}, "backward: expected 2 gradients, got 3"),
    (callables.changed(lambda g, dy: g[0]), {}, "backward: expected a tuple of 2 gradients, got float64 array"),
    (callables.changed(lambda g, dy: 1 / 0), {}, "wrong: expected no error, got ZeroDivisionError: division by zero"),
    ((forward, lambda dy, *a, **k: (1, 2, 3)), {}, "forward: backward: expected 2 gradients, got 3"),
    ((lambda x, gamma, eps: (1, 2, 3), backward), {}, r"forward: expected y or \(y, kept\), got a tuple of 3"),
    (lambda x, *, eps: 0, {}, "cases: expected one that f can take, got none in .*: f has no parameter for gamma"),
    (lambda x, gamma, more, eps: 0, {}, "arguments: expected one of ours .* for each parameter, got none for more"),
    (rmsnorm, {"arguments": {"x": "gama"}}, r"arguments: expected names of x, gamma, eps, got 'gama' \(did you mean gamma\?\)"),
    (rmsnorm, {"arguments": 3}, "arguments: expected names, or a dict"),
    (rmsnorm, {"arguments": [3]}, "arguments: expected names, or a dict"),
    (rmsnorm, {"keywords": 3}, "keywords: expected None, a dict or a function"),
    (rmsnorm, {"fixed": 3}, "fixed: expected None or a dict"),
    (rmsnorm, {"fixed": {"epsilon": 1}}, r"expected names of x, gamma, eps, got 'epsilon' \(did you mean eps\?\)"),
    (rmsnorm, {"dtypes": "int8"}, "dtypes: expected some of float64, float32, float16, bfloat16, got 'int8'"),
    (rmsnorm, {"dtypes": []}, "dtypes: expected some of"),
    (rmsnorm, {"cases": 0}, "cases: expected an integer from 1 to 1000, or a list of cases, got 0"),
    (rmsnorm, {"cases": []}, "cases: expected an integer from 1"),
    (rmsnorm, {"cases": [3]}, "cases: expected Case, or dicts"),
    (rmsnorm, {"cases": [{"y": (2, 3)}]}, "cases: expected Case, or dicts"),
    (rmsnorm, {"cases": [{"x": "(2, 3)"}]}, "cases: expected shapes"),
    (rmsnorm, {"cases": [{}]}, "cases: expected at least one shape"),
    (rmsnorm, {"cases": [{"x": (2, 3), "gamma": (2,)}]}, "cases: expected arguments that our component takes, got case 0: "),
    (lambda x, gamma: 0, {"cases": [{"x": (2, 3), "gamma": (3,), "eps": 0.5}]}, r"got eps in case 0 \(fixed=\{'eps': ...\}"),
    (rmsnorm, {"kind": "tensorflow"}, "kind: expected None or one of ours, torch, jax, got 'tensorflow'"),
    (rmsnorm, {"seed": -1}, "seed: expected an integer from 0"),
])  # fmt: skip
def test_bad_input_is_one_line(f, given, message):
    with pytest.raises(ValueError, match=message) as error:
        check(f, **{"like": "rmsnorm", "cases": 2, **given})
    assert "\n" not in str(error.value)


def test_a_value_that_is_none_fails():
    assert failed(check(lambda x, gamma, eps: (None, np.tanh), "rmsnorm"))["value"].startswith("there is none")


def test_a_value_of_nan_fails_and_nothing_raises():
    found = failed(check(lambda x, gamma, eps: (x * np.nan, lambda dy: (dy * np.nan, gamma)), "rmsnorm"))
    assert "not finite" in found["value"] and "not finite" in found["gradient of x"]


def test_a_gradient_with_another_structure_fails():
    found = failed(check(callables.changed(lambda g, dy: (g[0], {"a": g[1]})), "rmsnorm"))
    assert found["gradient of gamma"].startswith("there is none") and found["gradient of gamma.a"] == "where ours has none"


def test_an_error_of_the_callable_is_the_cause():
    with pytest.raises(ValueError) as error:
        check(callables.changed(lambda g, dy: 1 / 0), "rmsnorm")
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_callable_cannot_change_the_cases_of_others():
    """Arguments and dy are copies, except where the law is about them."""
    ways = itertools.product(("writes into x", "writes into dy"), ("float64", "float32"))
    for name, dtype in ways:
        like, f, law, _ = WRONG[name]
        assert list(failed(check(f, like, dtypes=dtype, cases=2))) == [law]
