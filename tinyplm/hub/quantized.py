"""Tensors that are stored in a quantised form, each dequantised as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .fp8 import Fp8Tensor, with_fp8
from .mxfp4 import Mxfp4Tensor, with_mxfp4
from .tensors import StoredTensor

HubTensor = StoredTensor | Mxfp4Tensor | Fp8Tensor

# quant_method of config.json -> function (tensors, quantization_config, *, where) -> tensors
READERS: dict[str, Callable[..., Mapping[str, HubTensor]]] = {"fp8": with_fp8, "mxfp4": with_mxfp4}
