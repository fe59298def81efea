"""How a backward pass is verified: against a formula and against finite differences.

    python examples/gradient_check.py                       # all components, a table of errors
    python examples/gradient_check.py layernorm attention   # some
    python examples/gradient_check.py layernorm --break     # wrong gradients, to see it fail

For each positional argument x of a component f, with a random direction d and a random cotangent c,

    <c, f(x + h d) - f(x - h d)> / 2h    must equal    <backward(c), d>

to the accuracy of the central difference, about h^2 = 1e-10 in float64.  The cotangent is random
because a constant one hides errors: with it, the gradient of softmax is exactly zero.  Components,
cases and the law are those of tinyplm.checks; tests/components.py pairs them with the formulas of
reference/.  Run it from a checkout: neither is installed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import start

from tinyplm.cli.parser import Parser, one_of, whole

# the checkout, for tests/ and reference/
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.components import COMPONENTS
from tinyplm.checks import draw_sizes, laws
from tinyplm.core import tree_map


def spoiled(gradient: Any) -> Any:
    return tree_map(lambda a: a * 1.01, gradient)  # None stays None


def broken(f: Callable) -> Callable:
    """f with gradients 1% too large, as from a wrong constant."""

    def wrong(*args, **kwargs):
        y, back = f(*args, **kwargs)

        def backward(dy):
            gradients = back(dy)
            several = isinstance(gradients, tuple)
            return tuple(map(spoiled, gradients)) if several else spoiled(gradients)

        return y, backward

    return wrong


def parser() -> Parser:
    parser = Parser(__doc__, epilog=f"Components: {', '.join(COMPONENTS)}")
    parser.option(
        "components",
        [],
        "Names of components, from the list below.",
        one_of(*COMPONENTS),
        nargs="*",
        metavar="COMPONENT",
        shown="all",
    )
    parser.option("--cases", 5, "Number of random cases per component.", whole(1))
    parser.option("--seed", 0, "Random seed of the cases.", whole())
    parser.flag("--break", "Scale every gradient by 1.01 to see the check fail.")
    return parser


def main() -> None:
    options = parser().options()
    print(f"{'component':<26}{'argument':<12}{'against formula':>16}{'against differences':>21}")
    wrong = []
    for name in options.components or COMPONENTS:
        component = COMPONENTS[name]
        f = broken(component.f) if getattr(options, "break") else component.f
        formula, differences = 0.0, {}
        for case_number in range(options.cases):
            rng = np.random.default_rng((options.seed, case_number))
            case = component.make(draw_sizes((options.seed, case_number)))
            y, _ = laws.call(f, case, "cpu")
            expected = component.reference(*case.args, **case.kwargs | case.reference_kwargs)
            formula = max(formula, laws.relative_error(y, np.asarray(expected)))
            for argument, error in laws.directional_derivative(f, case, "cpu", rng):
                differences[argument] = max(differences.get(argument, 0.0), error)
        names = list(inspect.signature(component.f).parameters)
        for row, (argument, error) in enumerate(sorted(differences.items())):
            left = (name, f"{formula:.1e}") if row == 0 else ("", "")
            right = error < laws.DIFFERENCE and (row > 0 or formula < 1e-10)
            wrong += [] if right else [f"{name}.{names[argument]}"]
            line = f"{left[0]:<26}{names[argument]:<12}{left[1]:>16}{error:>21.1e}"
            print(line + ("" if right else "   WRONG"))
    if wrong:
        sys.exit(f"\nwrong: {', '.join(wrong)}")
    print("\nall are right: values within 1e-10, gradients within 1e-7")


if __name__ == "__main__":
    start(main)
