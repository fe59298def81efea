# ruff: noqa: E402 - imports follow importorskip
"""MXFP4 as transformers dequantises it: every byte, and blocks of random ones."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from tinyplm.hub.mxfp4 import dequantised


def theirs(blocks, scales, dtype):
    return convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales), dtype=dtype).float().numpy()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_byte(dtype):
    blocks = np.arange(256, dtype=np.uint8).reshape(1, 4, 4, 16)
    for scale in range(0, 252):  # above it 6 times the scale exceeds bfloat16
        scales = np.full((1, 4, 4), scale, dtype=np.uint8)
        assert np.array_equal(dequantised(blocks, scales), theirs(blocks, scales, dtype)), scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 5, 2), (1, 1, 1), (4, 96, 3)])
def test_random_blocks(shape, dtype):
    rng = np.random.default_rng(0)
    blocks, scales = (rng.integers(0, n, s, dtype=np.uint8) for n, s in ((256, (*shape, 16)), (252, shape)))
    assert np.array_equal(dequantised(blocks, scales), theirs(blocks, scales, dtype))
