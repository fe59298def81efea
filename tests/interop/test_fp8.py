# ruff: noqa: E402 - imports follow importorskip
"""FP8 as PyTorch and transformers read it: every byte, and matrices whose sides are no multiples of a block."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

from tinyplm.hub.fp8 import dequantised

BYTES = np.arange(256, dtype=np.uint8).reshape(16, 16)


def as_fp8(numbers):
    return torch.from_numpy(numbers).view(torch.float8_e4m3fn)


def test_every_byte_as_in_pytorch():
    ours = dequantised(BYTES, np.ones((1, 1), np.float32), (16, 16))
    assert np.array_equal(ours, as_fp8(BYTES).float().numpy(), equal_nan=True)


@pytest.mark.parametrize(("shape", "block"), [((16, 16), (4, 4)), ((9, 10), (4, 3)), ((130, 256), (128, 128))])
def test_matrices_as_in_transformers(shape, block):
    rng = np.random.default_rng(0)
    numbers = rng.choice(np.delete(BYTES.reshape(-1), [127, 255]), shape)
    scales = rng.uniform(0.01, 2, [-(-n // m) for n, m in zip(shape, block)]).astype(np.float32)
    theirs = _dequantize_fp8_weight(as_fp8(numbers), torch.from_numpy(scales), list(block), torch.float32)
    assert np.array_equal(dequantised(numbers, scales, block), theirs.numpy())
