"""How to check layers of PyTorch: values and gradients against tinyplm's, and the laws.

    python examples/check_a_torch_layer.py        # needs PyTorch

A softmax over the entries that a mask allows, as a torch.autograd.Function with a backward of its
own, is checked twice: once right, once with a common mistake.  The wrong one adds -10000 to what
the mask hides.  On ordinary numbers that is invisible; but a row that sees nothing then attends to
everything, and a hidden score that is large enough comes through.  The table names both.

A module is checked with its parameters: here torch.nn.RMSNorm of width 8.
"""

from __future__ import annotations

import sys
from typing import Any

from common import start

from tinyplm.checks import check
from tinyplm.cli.parser import Parser, whole

try:
    import torch
except ImportError:
    torch = None


def layers() -> dict[str, tuple[Any, dict[str, Any]]]:
    """{name: (layer, the settings of its check)}."""

    class MaskedSoftmax(torch.autograd.Function):
        """p = softmax(x) where the mask is True, 0 elsewhere."""

        @staticmethod
        def forward(ctx, x, mask=None):
            if mask is not None:
                x = x.masked_fill(~mask, -torch.inf)
            p = torch.softmax(x, -1)
            if mask is not None:
                p = p.masked_fill(~mask, 0)  # a row that sees nothing: 0, not NaN
            ctx.save_for_backward(p)
            return p

        @staticmethod
        def backward(ctx, dp):
            (p,) = ctx.saved_tensors
            return p * (dp - (dp * p).sum(-1, keepdim=True)), None

    class AddedMask(MaskedSoftmax):
        """The same with a mask that is added."""

        @staticmethod
        def forward(ctx, x, mask=None):
            if mask is not None:
                x = x - 10_000.0 * ~mask
            p = torch.softmax(x, -1)
            ctx.save_for_backward(p)
            return p

    # The parameters of forward have our names, x and mask, so nothing else needs to be said.
    softmax: dict[str, Any] = {"like": "softmax"}
    # The module has other names, its width is given, and its eps is built in.
    rmsnorm = {
        "like": "rmsnorm",
        "cases": [{"x": (2, 3, 8), "gamma": (8,)}, {"x": (1, 1, 8), "gamma": (8,)}],
        "arguments": {"weight": "gamma"},
        "fixed": {"eps": 1e-5},
        "dtypes": ["float64", "float32", "bfloat16"],
    }
    return {
        "a masked softmax": (MaskedSoftmax, softmax),
        "a wrong masked softmax": (AddedMask, softmax),
        "torch.nn.RMSNorm": (torch.nn.RMSNorm(8, eps=1e-5), rmsnorm),
    }


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.option("--cases", 8, "Number of random cases of the softmax.", whole(1))
    return parser


def main() -> None:
    options = parser().options()
    if torch is None:
        raise ValueError("PyTorch: expected it to be installed, got none: pip install torch")
    missed = []
    for name, (layer, settings) in layers().items():
        result = check(layer, **{"cases": options.cases, **settings})
        print(f"\n{name}\n{result}")
        if result.passed == name.startswith("a wrong"):
            missed.append(name)
    if missed:
        sys.exit(f"\nnot as it should be: {', '.join(missed)}")
    print("\nevery right layer passes, and the wrong one is found")


if __name__ == "__main__":
    start(main)
