"""Distillation in chunks, where its numbers are small."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import relative_error
from tinyplm.backend import to_device, to_host
from tinyplm.kernels.distillation import vocabulary_distillation


def test_half_precision_keeps_what_the_loss_scale_is_for():
    """q - p of a large vocabulary is below 2^-24, float16's smallest number; loss scale * (q - p) is not."""
    rng = np.random.default_rng(0)
    shapes = {"x": (6, 4), "W": (4, 4096), "b": (4096,), "teacher_x": (6, 4), "teacher_W": (4, 4096)}
    half = {name: (rng.normal(size=shape) * 0.01).astype(np.float16) for name, shape in shapes.items()}
    found = []
    for dtype in ("float16", "float64"):
        x, W, b, *teacher = (a.astype(dtype) for a in half.values())
        _, back = vocabulary_distillation(x, W, b, teacher_x=teacher[0], teacher_W=teacher[1], total=1.0)
        found.append(list(back(2.0**20)))
    assert all(g.dtype == np.float16 for g in found[0])
    assert all(relative_error(a, b) < 1e-2 for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_token_that_counts(device, dtype):
    """The loss is a zero of the dtype that it has otherwise."""
    rng = np.random.default_rng(0)
    x, W, b, teacher_x, teacher_W = (
        to_device(rng.normal(size=s).astype(dtype), device) for s in ((3, 4), (4, 6), (6,), (3, 2), (2, 6))
    )
    weights = to_device(np.zeros(3, dtype=dtype), device)
    loss, back = vocabulary_distillation(x, W, b, teacher_x=teacher_x, teacher_W=teacher_W, weights=weights, total=2.0)
    assert loss.shape == () and loss.dtype == ("float64" if dtype == "float64" else "float32")
    assert float(to_host(loss)) == 0 and not any(to_host(g).any() for g in back(1.0))
