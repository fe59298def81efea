"""How to check kernels written in C: values and gradients against tinyplm's, and the laws.

    python examples/check_a_c_kernel.py

It compiles examples/kernels.c with the system's compiler into a temporary folder, as float and as
double, and checks RMSNorm, softmax and attention; then an RMSNorm with a wrong backward, to see it
found.  For your own kernel you write what CFUNCTIONS has: the C prototypes of its forward and its
backward, and the shapes of its arrays, which say what the sizes among its arguments mean.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import start

from tinyplm.checks import CFunction, check
from tinyplm.cli.parser import Parser, whole

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")

# {name: (its component, the names of forward and backward, what CFunction needs to know)}
CFUNCTIONS = {
    "rmsnorm": (
        "rmsnorm",
        ("rmsnorm", "rmsnorm_backward"),
        {"shapes": "x (N..., D), gamma (D)", "keeps": "r (N...)"},
    ),
    "softmax": (
        "softmax",
        ("softmax", "softmax_backward"),
        {"shapes": "x (N..., S), mask (N..., S)", "value": "p"},
    ),
    "attention": (
        "attention",
        ("attention", "attention_backward"),
        {
            "shapes": "q (B, H, T, E), k (B, K, S, E), v (B, K, S, F), mask (B, H, T, S), "
            "y (B, H, T, F)",
            "keeps": "p (B, H, T, S)",
            "accumulates": True,
        },
    ),
    "a wrong rmsnorm": (
        "rmsnorm",
        ("rmsnorm", "rmsnorm_backward_wrong"),
        {"shapes": "x (N..., D), gamma (D)", "keeps": "r (N...)"},
    ),
}


def compiled(real: str, folder: Path) -> Path:
    """The shared library of kernels.c for float or double."""
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is None:
        raise ValueError(f"a C compiler: expected one of {', '.join(COMPILERS)}, got none")
    library = folder / f"kernels_{real}.so"
    flags = ["-O2", "-shared", "-fPIC", f"-DREAL={real}"]
    command = [found, *flags, "-o", str(library), str(SOURCE), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{SOURCE.name}: expected it to compile, got {done.stderr.strip()}")
    return library


def prototype(name: str, real: str) -> str:
    """As in the source; you would simply paste it."""
    return re.search(rf"void {name}\([^)]*\)", SOURCE.read_text())[0].replace("REAL", real)


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--cases", 8, "Number of random cases per kernel.", whole(1))
    return parser


def main() -> None:
    options = parser().options()
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        for real in ("float", "double"):
            library = compiled(real, Path(folder))
            for name, (like, functions, described) in CFUNCTIONS.items():
                forward, backward = (prototype(function, real) for function in functions)
                kernel = CFunction(library, forward, backward, **described)
                result = check(kernel, like, cases=options.cases)
                print(f"\n{name}, {real}\n{result}")
                if result.passed == name.startswith("a wrong"):
                    missed.append(f"{name}, {real}")
    if missed:
        sys.exit(f"\nnot as it should be: {', '.join(missed)}")
    print("\nevery right kernel passes, and the wrong one is found")


if __name__ == "__main__":
    start(main)
