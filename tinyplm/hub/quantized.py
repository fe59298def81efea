"""Tensors that are stored in a quantised form, each dequantised as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..arguments import mismatch
from ..files import printable
from .fp8 import E4M3, Fp8Tensor, with_fp8
from .mxfp4 import Mxfp4Tensor, with_mxfp4
from .tensors import StoredTensor

HubTensor = StoredTensor | Mxfp4Tensor | Fp8Tensor

# quant_method of config.json -> function (tensors, quantization_config, *, where) -> tensors
READERS: dict[str, Callable[..., Mapping[str, HubTensor]]] = {"fp8": with_fp8, "mxfp4": with_mxfp4}


def floating(
    tensors: Mapping[str, StoredTensor], method: str | None, settings: Mapping[str, Any], where: str
) -> Mapping[str, HubTensor]:
    """The tensors, dequantised by the method of config.json (`settings`), if there is one.

    ValueError for numbers in FP8 without it: they mean nothing without their scales.
    """
    if method is not None:
        return READERS[method](tensors, settings["quantization_config"], where=where)
    for name, tensor in tensors.items():
        if tensor.file_dtype == E4M3:
            expected = "quantization_config in config.json, which says how they are scaled"
            given = f"{E4M3} in {printable(name, 80)} without it"
            raise mismatch(f"{where}: tensors in FP8", expected, given)
    return tensors
