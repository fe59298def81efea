"""Files in FP8: what each byte is, scales by blocks, a folder as DeepSeek publishes it, faults."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinyplm
from tests.support.families import batch, tiny
from tinyplm.core import flatten
from tinyplm.hub.fp8 import dequantised, with_fp8
from tinyplm.hub.tensors import open_safetensors

BYTES = np.delete(np.arange(256, dtype=np.uint8), [127, 255])  # those that are numbers
BLOCK = {"weight_block_size": [4, 3]}


def write(path, arrays):
    """A safetensors file; a pair (bytes,) is F8_E4M3, which NumPy lacks."""
    header, data = {}, b""
    for name, a in arrays.items():
        kind = "F8_E4M3" if isinstance(a, tuple) else {"f": "F", "u": "U", "i": "I"}[a.dtype.kind] + str(8 * a.itemsize)
        raw = np.ascontiguousarray(a[0] if isinstance(a, tuple) else a)
        ends = [len(data), len(data) + raw.nbytes]
        header[name] = {"dtype": kind, "shape": list(raw.shape), "data_offsets": ends}
        data += raw.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def number(byte):
    """E4M3 by its definition."""
    sign, exponent, mantissa = -1 if byte & 128 else 1, byte >> 3 & 15, byte & 7
    if exponent == 0:
        return sign * math.ldexp(mantissa, -9)
    return sign * math.ldexp(8 + mantissa, exponent - 10)


def test_every_byte():
    ones = np.ones((1, 1), np.float32)
    for byte in BYTES.tolist():
        value = dequantised(np.array([[byte]], np.uint8), ones, (1, 1))[0, 0]
        assert value == number(byte) and np.signbit(value) == (byte > 127)
    assert np.isnan(dequantised(np.array([[127, 255]], np.uint8), np.ones((1, 2), np.float32), (1, 1))).all()
    assert number(0x7E) == 448 and number(1) == 2**-9


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (9, 10), (3, 7), (8, 6)])
def test_each_block_has_its_scale(shape):
    rng = np.random.default_rng(0)
    numbers = rng.choice(BYTES, shape)
    scales = rng.uniform(0.5, 2, (-(-shape[0] // 4), -(-shape[1] // 3))).astype(np.float32)
    values = dequantised(numbers, scales, (4, 3))
    assert values.dtype == np.float32 and values.shape == shape
    for i, j in np.ndindex(shape):
        assert values[i, j] == np.float32(number(int(numbers[i, j]))) * scales[i // 4, j // 3]


def published(folder, seed=0):
    """A tiny DeepSeek-V3 in a folder as published: matrices of linear layers in FP8; and the same in float32."""
    model = tiny("deepseek_v3", dtype="float32")
    plain = folder / "plain"
    tinyplm.save(model, plain)
    tensors, rng = load_file(plain / "model.safetensors"), np.random.default_rng(seed)
    quantised, exact = {}, {}
    for name, a in tensors.items():
        exact[name] = a
        if name.endswith("_proj.weight") or "_proj_with_mqa" in name:
            numbers = rng.choice(BYTES[np.abs([number(int(b)) for b in BYTES]) < 2], a.shape)
            scales = rng.uniform(0.1, 0.5, (-(-a.shape[0] // 4), -(-a.shape[1] // 3))).astype(np.float32)
            quantised |= {name: (numbers,), f"{name}_scale_inv": scales}
            exact[name] = dequantised(numbers, scales, (4, 3))
        else:
            quantised[name] = a
    assert len(quantised) > len(exact) > 20
    settings = json.loads((plain / "config.json").read_text())
    write(plain / "model.safetensors", exact)
    (folder / "fp8").mkdir()
    write(folder / "fp8" / "model.safetensors", quantised)
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", **BLOCK}
    (folder / "fp8" / "config.json").write_text(json.dumps({**settings, "quantization_config": quantization}))
    return plain, folder / "fp8"


def test_a_published_folder(tmp_path):
    plain, quantised = published(tmp_path)
    model, expected = tinyplm.load(quantised), tinyplm.load(plain)
    assert model.config == expected.config and model.dtype == np.float32
    others = flatten(expected.params)
    for path, a in flatten(model.params).items():
        assert np.array_equal(a, others[path]), path
    ids, _ = batch()
    assert np.array_equal(model(ids)[0]["logits"], expected(ids)[0]["logits"])
    tinyplm.save(model, tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    again = flatten(tinyplm.load(tmp_path / "saved").params)
    assert all(np.array_equal(a, again[path]) for path, a in flatten(model.params).items())


ONE, SQUARE = np.ones((1, 1), np.float32), (BYTES[:4].reshape(2, 2),)
FAULTS = {
    "no scales": ({"a.w": SQUARE}, BLOCK, "a.w: expected w_scale_inv beside its F8_E4M3, got none"),
    "no numbers": ({"a.w_scale_inv": ONE}, BLOCK, "a.w_scale_inv: expected F8_E4M3 for its scales, got none"),
    "others": ({"a.w": ONE, "a.w_scale_inv": ONE}, BLOCK, "a.w_scale_inv: expected F8_E4M3 for its scales, got none"),
    "too few": ({"a.w": (BYTES[:10].reshape(5, 2),), "a.w_scale_inv": ONE}, BLOCK, "a.w_scale_inv: expected shape (2, 1), got"),
    "a vector": ({"a.w": (BYTES[:4],), "a.w_scale_inv": ONE}, BLOCK, "a.w: expected two axes, got (4,)"),
    "integers": ({"a.w": SQUARE, "a.w_scale_inv": ONE.astype("int32")}, BLOCK, "a.w_scale_inv: dtype: expected F32, got 'I32'"),
    "another format": ({}, {"fmt": "e5m2"}, "config: quantization_config: fmt: expected e4m3, got 'e5m2'"),
    "one side": ({}, {"weight_block_size": [128]}, "weight_block_size: expected two positive integers, got [128]"),
    "no side": ({}, {"weight_block_size": [0, 128]}, "weight_block_size: expected two positive integers, got [0, 128]"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "settings", "message"), FAULTS.values(), ids=FAULTS)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, arrays, settings, message):
    write(tmp_path / "x.safetensors", arrays)
    tensors = open_safetensors(tmp_path / "x.safetensors")
    with pytest.raises(ValueError) as error:
        with_fp8(tensors, settings, where="here")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_without_its_settings_fp8_is_refused_by_name(tmp_path):
    _, folder = published(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    del settings["quantization_config"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="expected quantization_config in config.json, .* got F8_E4M3 in model.* without it$"):
        tinyplm.load(folder)


def test_nan_and_other_methods_are_refused(tmp_path):
    _, folder = published(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(
        ValueError, match="config: quantization_config: expected a model without quantization, or quant_method fp8"
    ):
        tinyplm.load(folder)
    (folder / "config.json").write_text(json.dumps(settings))
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    name = next(name for name, entry in header.items() if entry["dtype"] == "F8_E4M3")
    at = 8 + size + header[name]["data_offsets"][0]
    (folder / "model.safetensors").write_bytes(raw[:at] + b"\x7f" + raw[at + 1 :])
    with pytest.raises(ValueError, match=f"tensor {name}: expected finite numbers, got nan"):
        tinyplm.load(folder)


def test_what_exceeds_float32_is_infinite():
    values = dequantised(np.array([[0x7E, 0xFE, 0x38]], np.uint8), np.array([[1e38]], np.float32), (4, 3))
    assert np.array_equal(values, np.array([[np.inf, -np.inf, 1e38]], np.float32))
