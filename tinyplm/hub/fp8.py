"""FP8: matrices of 8-bit numbers with one scale for each block, as DeepSeek-V3 and R1 have them.

DeepSeek team 2024b, sec. 3.3.2; OCP 8-bit Floating Point Specification 1.0 (2023), sec. 5.1 (E4M3).
A matrix NAME (Out, In) is stored as two tensors,

    NAME (Out, In)              in E4M3: sign, four bits of exponent, three of mantissa
    NAME_scale_inv (Out / m, In / n) rounded up, in float32: what the numbers of a block of m rows
                                and n columns are multiplied by; m and n are weight_block_size

Reading makes float32 of it, and `save` writes that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arguments import is_whole, mismatch, wrong
from ..files import printable
from .tensors import StoredTensor, fill

_SCALES, E4M3 = "_scale_inv", "F8_E4M3"
BIAS = 7  # of the exponent


def _value(byte: int) -> float:
    """One number in E4M3: 2^(e - 7) (1 + m / 8), 2^-6 m / 8 for e = 0; NaN if all bits are 1."""
    sign, e, m = (-1.0 if byte >> 7 else 1.0), byte >> 3 & 15, byte & 7
    if (e, m) == (15, 7):
        return float("nan")
    return sign * (2.0 ** (e - BIAS) * (1 + m / 8) if e else 2.0 ** (1 - BIAS) * m / 8)


_OF_BYTE = np.array([_value(byte) for byte in range(256)], dtype=np.float32)


class Fp8Tensor(NamedTuple):
    """A matrix in FP8 with what reading needs of a StoredTensor, as if the file had float32."""

    numbers: StoredTensor
    scales: StoredTensor
    block: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def file_dtype(self) -> str:
        return "F32"

    def pieces(self) -> Iterator[tuple[Any, np.ndarray]]:
        """(..., the values): one matrix at a time is small beside a model."""
        yield ..., dequantised(self.numbers.stored(), np.asarray(self.scales), self.block)
        self.numbers.release()

    def fill(self, out: np.ndarray, part: np.ndarray, *, finite: bool = False) -> None:
        """StoredTensor.fill, of values from `pieces`."""
        fill(out, part, finite=finite)


def dequantised(numbers: np.ndarray, scales: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """numbers (Out, In) of bytes and scales (Out / m, In / n), rounded up -> float32 (Out, In).

    Infinity beyond float32.
    """
    values, (rows, columns) = _OF_BYTE[numbers], numbers.shape
    spread = np.repeat(scales, block[1], axis=1)[:, :columns].astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        for i, row in enumerate(spread):
            values[i * block[0] : min((i + 1) * block[0], rows)] *= row
    return values


def with_fp8(
    tensors: Mapping[str, StoredTensor], settings: Mapping[str, Any], *, where: str
) -> dict[str, StoredTensor | Fp8Tensor]:
    """The tensors with one NAME for each pair NAME and NAME_scale_inv.

    settings: the quantization_config.   ValueError for other settings, numbers without scales or
    scales without numbers, and scales of another shape.
    """
    block = _block(settings)
    joined: dict[str, StoredTensor | Fp8Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALES):
            base = name.removesuffix(_SCALES)
            if base not in tensors or tensors[base].file_dtype != E4M3:
                raise mismatch(f"{where}: {printable(name, 80)}", f"{E4M3} for its scales", "none")
        elif tensor.file_dtype == E4M3:
            joined[name] = _pair(name, tensor, tensors.get(name + _SCALES), block, where=where)
        else:
            joined[name] = tensor
    return joined


def _block(settings: Mapping[str, Any]) -> tuple[int, int]:
    name, block = "config: quantization_config", settings.get("weight_block_size", [128, 128])
    if settings.get("fmt", "e4m3") != "e4m3":
        raise wrong(f"{name}: fmt", "e4m3", settings["fmt"])
    right = isinstance(block, list) and len(block) == 2 and all(is_whole(n) for n in block)
    if not right or min(block) < 1:
        raise wrong(f"{name}: weight_block_size", "two positive integers", block)
    return block[0], block[1]


def _pair(
    name: str,
    numbers: StoredTensor,
    scales: StoredTensor | None,
    block: tuple[int, int],
    *,
    where: str,
) -> Fp8Tensor:
    at = f"{where}: {printable(name, 80)}"
    if scales is None:
        raise mismatch(at, f"{name.rsplit('.', 1)[-1]}{_SCALES} beside its {E4M3}", "none")
    if len(numbers.shape) != 2:
        raise wrong(at, "two axes", numbers.shape)
    rows, columns = numbers.shape
    expected = (-(-rows // block[0]), -(-columns // block[1]))
    if scales.shape != expected:
        raise wrong(f"{at}{_SCALES}", f"shape {expected}", scales.shape)
    if scales.file_dtype not in ("F32", "BF16"):
        raise wrong(f"{at}{_SCALES}: dtype", "F32", scales.file_dtype)
    return Fp8Tensor(numbers, scales, block)
