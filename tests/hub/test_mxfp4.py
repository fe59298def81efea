"""MXFP4 tensors: every byte, the layout, block by block within memory, and what is refused."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from tinyplm.hub.mxfp4 import dequantised, with_mxfp4
from tinyplm.hub.names import to_tree
from tinyplm.hub.tensors import open_safetensors, write_safetensors
from tinyplm.models.names import Rename


def number(bits: int) -> float:
    """Four bits: a sign, two bits of exponent with bias 1, one of mantissa; exponent 0 is subnormal."""
    sign, exponent, mantissa = -1.0 if bits & 8 else 1.0, bits >> 1 & 3, bits & 1
    return sign * (mantissa * 0.5 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2))


def test_every_byte_with_every_scale():
    """Exactly, where float32 holds the number; the first of two numbers is in the low bits."""
    blocks = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (255, 16, 16))[None]
    scales = np.broadcast_to(np.arange(255, dtype=np.uint8)[:, None], (255, 16))[None]
    found = dequantised(blocks, scales)
    assert found.shape == (1, 512, 255) and found.dtype == np.float32
    numbers = np.array([[number(byte & 15), number(byte >> 4)] for byte in range(256)]).reshape(512)
    exact = numbers[:, None] * 2.0 ** (np.arange(255) - 127)
    held = np.abs(exact) <= np.finfo(np.float32).max
    assert np.array_equal(found[0][held], exact[held]) and np.isinf(found[0][~held]).all()
    assert np.array_equal(np.signbit(found[0]), np.signbit(exact)) and held[:, :252].all()
    bfloat16 = found[0][held].astype(np.float32).view(np.uint32) & 0xFFFF
    assert not bfloat16.any(), "exact in bfloat16"


def packed(rng, X, Out, G):
    return {
        "x.w_blocks": rng.integers(0, 256, (X, Out, G, 16), dtype=np.uint8),
        "x.w_scales": rng.integers(110, 130, (X, Out, G), dtype=np.uint8),
    }


def opened(tmp_path, arrays):
    write_safetensors(tmp_path / "model.safetensors", arrays)
    return open_safetensors(tmp_path / "model.safetensors")


def test_the_layout(tmp_path):
    """Number i of output o is at the block i // 32 of row o, beside tensors of other kinds, which stay as they are."""
    rng = np.random.default_rng(0)
    arrays = packed(rng, 3, 5, 2) | {"x.w_bias": rng.normal(size=(3, 5)).astype(np.float32)}
    tensors = with_mxfp4(opened(tmp_path, arrays), {}, where="here")
    assert tensors.keys() == {"x.w", "x.w_bias"}
    assert (tensors["x.w"].shape, tensors["x.w"].dtype, tensors["x.w"].file_dtype) == ((3, 64, 5), np.float32, "BF16")
    names, shapes = [Rename("x.w", "w"), Rename("x.w_bias", "b")], {"w": (3, 64, 5), "b": (3, 5)}
    for dtype in (None, np.float64):
        tree = to_tree(tensors, names, shapes, where="here", dtype=None if dtype is None else np.dtype(dtype))
        assert tree["w"].dtype == (dtype or np.float32) and tree["w"].flags.c_contiguous
        for x, i, o in np.ndindex(3, 64, 5):
            byte = int(arrays["x.w_blocks"][x, o, i // 32, i % 32 // 2])
            expected = number(byte >> 4 if i % 2 else byte & 15) * 2.0 ** (int(arrays["x.w_scales"][x, o, i // 32]) - 127)
            assert tree["w"][x, i, o] == expected
        assert np.array_equal(tree["b"], arrays["x.w_bias"])


def test_the_peak_of_reading_is_the_tree_and_a_few_experts(tmp_path):
    rng = np.random.default_rng(0)
    tensors = with_mxfp4(opened(tmp_path, packed(rng, 32, 64, 4)), {}, where="here")
    tracemalloc.start()
    try:
        tree = to_tree(tensors, [Rename("x.w", "w")], {"w": (32, 128, 64)}, where="here")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tree["w"].nbytes == 2**20 and peak < tree["w"].nbytes * (1 + 6 / 32)


BAD = {
    "here: x.w_blocks: expected scales for its blocks, got none": {"x.w_scales": None},
    "here: x.w_scales: expected blocks for its scales, got none": {"x.w_blocks": None},
    "here: x.w_blocks: expected shape (X, Out, G, 16), got (3, 5, 2, 8)": {"x.w_blocks": np.zeros((3, 5, 2, 8), np.uint8)},
    "here: x.w_scales: expected shape (3, 5, 2), got (3, 5, 1)": {"x.w_scales": np.zeros((3, 5, 1), np.uint8)},
    "here: x.w_scales: dtype: expected U8, got 'F32'": {"x.w_scales": np.zeros((3, 5, 2), np.float32)},
    "here: expected one name for each tensor, got x.w and x.w_blocks": {"x.w": np.zeros((3, 64, 5), np.float32)},
    "here: tensor x.w: expected finite numbers, got nan": {"x.w_scales": np.full((3, 5, 2), 255, np.uint8)},
    "here: tensor x.w: expected finite numbers, got": {"x.w_scales": np.full((3, 5, 2), 254, np.uint8)},
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, message):
    arrays = packed(np.random.default_rng(0), 3, 5, 2) | BAD[message]
    tensors = opened(tmp_path, {name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        to_tree(with_mxfp4(tensors, {}, where="here"), [Rename("x.w", "w")], {"w": (3, 64, 5)}, where="here")
    assert "\n" not in str(error.value)


def test_half_precision_refuses_what_it_does_not_hold(tmp_path):
    arrays = packed(np.random.default_rng(0), 1, 2, 1) | {"x.w_scales": np.full((1, 2, 1), 160, np.uint8)}
    tensors = with_mxfp4(opened(tmp_path, arrays), {}, where="here")
    with pytest.raises(ValueError, match="here: tensor x.w: expected values within float16, got"):
        to_tree(tensors, [Rename("x.w", "w")], {"w": (1, 32, 2)}, where="here", dtype=np.dtype("float16"))
