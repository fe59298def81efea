"""MXFP4: tensors of 4-bit numbers in blocks of 32 with one power of two each, as gpt-oss has them.

OCP Microscaling Formats specification 1.0 (2023), sec. 5.3.3, 5.4.1 and 6.3; OpenAI 2025, sec. 2.1.
A tensor of the file's layout (X, In, Out) is stored as two of bytes,

    NAME_blocks (X, Out, G, 16)   of the 32 G = In numbers of each output, two a byte, the first in
                                  the low four bits: sign, two bits of exponent, one of mantissa
    NAME_scales (X, Out, G)       e of each block, whose numbers are multiplied by 2^(e - 127)

Reading makes float32 of it, in which the numbers are exact; `save` writes them in bfloat16, in
which they also are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arguments import mismatch, wrong
from ..files import printable
from .tensors import StoredTensor, fill

# the numbers of three bits, E2M1 without its sign: sec. 5.3.3
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
_SIGNED = np.concatenate([E2M1, -E2M1])
_OF_BYTE = np.stack([np.tile(_SIGNED, 16), np.repeat(_SIGNED, 16)], axis=-1)  # (256, 2)
BIAS, NAN = 127, 255  # of a scale, E8M0: sec. 5.4.1
WIDTH = 16  # bytes of a block
_BLOCKS, _SCALES = "_blocks", "_scales"


class Mxfp4Tensor(NamedTuple):
    """A tensor in MXFP4 with what reading needs of a StoredTensor, as if the file had bfloat16."""

    blocks: StoredTensor
    scales: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        X, N, G, _ = self.blocks.shape
        return (X, G * WIDTH * 2, N)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def file_dtype(self) -> str:
        return "BF16"

    def pieces(self) -> Iterator[tuple[Any, np.ndarray]]:
        """(where along the first axis, the values there), one expert at a time."""
        blocks, scales = self.blocks.stored(), self.scales.stored()
        for x in range(len(blocks)):
            yield slice(x, x + 1), dequantised(blocks[x : x + 1], scales[x : x + 1])
            self.blocks.release()
            self.scales.release()

    def fill(self, out: np.ndarray, part: np.ndarray, *, finite: bool = False) -> None:
        """StoredTensor.fill, of values from `pieces`."""
        fill(out, part, finite=finite)


def dequantised(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """blocks (X, Out, G, 16) and scales (X, Out, G) of bytes -> float32 (X, 32 G, Out), a view.

    NaN where a scale is NaN; infinity beyond float32.
    """
    values = _OF_BYTE[blocks]  # (X, Out, G, 16, 2)
    powers = scales.astype(np.int32) - BIAS
    with np.errstate(over="ignore"):
        np.ldexp(values, powers[..., None, None], out=values)
    values[scales == NAN] = np.nan
    return values.reshape(*blocks.shape[:2], -1).swapaxes(1, 2)


def with_mxfp4(
    tensors: Mapping[str, StoredTensor], settings: Mapping[str, Any], *, where: str
) -> dict[str, StoredTensor | Mxfp4Tensor]:
    """The tensors with one NAME for each pair NAME_blocks and NAME_scales.

    settings: the quantization_config, which says no more.
    ValueError for one of a pair without the other, other shapes or dtypes, and a NAME that is there
    as well.
    """
    joined: dict[str, StoredTensor | Mxfp4Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_BLOCKS):
            base = name.removesuffix(_BLOCKS)
            other = tensors.get(base + _SCALES)
            if base in tensors:
                both = f"{printable(base, 80)} and {printable(name, 80)}"
                raise mismatch(where, "one name for each tensor", both)
            joined[base] = _pair(base, tensor, other, where=where)
        elif not name.endswith(_SCALES):
            joined[name] = tensor
        elif name.removesuffix(_SCALES) + _BLOCKS not in tensors:
            raise mismatch(f"{where}: {printable(name, 80)}", "blocks for its scales", "none")
    return joined


def _pair(
    name: str, blocks: StoredTensor, scales: StoredTensor | None, *, where: str
) -> Mxfp4Tensor:
    at = f"{where}: {printable(name, 80)}"
    if scales is None:
        raise mismatch(f"{at}{_BLOCKS}", "scales for its blocks", "none")
    for part, tensor in ((_BLOCKS, blocks), (_SCALES, scales)):
        if tensor.file_dtype != "U8":
            raise wrong(f"{at}{part}: dtype", "U8", tensor.file_dtype)
    if len(blocks.shape) != 4 or blocks.shape[3] != WIDTH:
        raise wrong(f"{at}{_BLOCKS}", f"shape (X, Out, G, {WIDTH})", blocks.shape)
    if scales.shape != blocks.shape[:3]:
        raise wrong(f"{at}{_SCALES}", f"shape {blocks.shape[:3]}", scales.shape)
    return Mxfp4Tensor(blocks, scales)
