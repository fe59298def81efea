"""Law 2b for every component, and that it sees a gradient that differences cannot tell from the right one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests import exact_gradients, laws
from tests.components import COMPONENTS
from tests.exact_gradients import compare, draw
from tinyplm.core import tree_map

DRAWS = 5
SMALL_ERROR = 1e-9  # a hundredth of what law 2 can see


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    return range(60 * DRAWS) if request.config.getoption("--long") else range(DRAWS)


@pytest.mark.parametrize("name", COMPONENTS)
def test_gradients_are_the_derivatives_of_the_formula(name, seeds):
    for seed in seeds:
        for comparison in compare(*draw(name, seed)):
            assert comparison.holds, f"draw {seed}: {comparison}"


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_formula_has_the_same_value_in_dual_numbers(name):
    """Value parts follow the operations of the floats, but Python's `sum` adds floats more accurately from 3.12 on."""
    _, reference, case, rng = draw(name, 1)
    expected = np.asarray(reference(*case.args, **{**case.kwargs, **case.reference_kwargs}))
    for i, x in enumerate(case.args):
        if x is not None:
            y = exact_gradients.along_argument(reference, case, i, laws.random_like(x, rng))
            values = [getattr(number, "value", number) for number in np.ravel(y).tolist()]
            assert laws.relative_error(np.reshape(values, expected.shape), expected) < laws.FEW / laws.SMALLEST


def _spoiled(f, argument):
    """f with the gradient of one positional argument too large by SMALL_ERROR."""

    def wrong(*args, **kwargs):
        y, back = f(*args, **kwargs)

        def backward(dy):
            gradients = back(dy)
            if not isinstance(gradients, tuple):
                return tree_map(lambda a: a * (1 + SMALL_ERROR), gradients)
            spoiled = tree_map(lambda a: a * (1 + SMALL_ERROR), gradients[argument])
            return (*gradients[:argument], spoiled, *gradients[argument + 1 :])

        return y, backward

    return wrong


# self-attention has no context: cross_attention has one
NEVER_PASSED = {"multi_head_attention": {2}, "joined_attention": {2}, "rotary_attention": {2}}


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_law_sees_a_gradient_that_is_wrong_by_a_billionth(name):
    """For every positional argument of every component."""
    unseen = set(range(len(draw(name, 0)[2].args)))
    for seed in range(30):
        f, reference, case, rng = draw(name, seed)
        for i in [i for i in unseen if case.args[i] is not None]:
            spoiled = {c.argument: c for c in compare(_spoiled(f, i), reference, case, rng)}
            if not spoiled[i].holds:
                unseen.discard(i)
    assert unseen == NEVER_PASSED.get(name, set())


@pytest.mark.parametrize("name", ["rmsnorm", "attention", "cross_entropy"])
def test_differences_do_not_see_it(name):
    """Which is why there is law 2b."""
    f, reference, case, rng = draw(name, 1)
    for i, _ in enumerate(case.args):
        for _, error in laws.directional_derivative(_spoiled(f, i), case, "cpu", rng):
            assert error < 1e-7


def test_the_table_in_the_docs_lists_every_component():
    rows = re.findall(r"^\| (\w+) \|.*\| \d+ of \d+ \|$", exact_gradients.TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(COMPONENTS), "run python -m tests.exact_gradients --write"
