"""Bytes of training and decoding from a config alone: states, activations, cache, speed.

States of training, of N parameters of w bytes each (`states`):

    weights     w N         gradients  w N
    moments     AdamW two of max(4, w) a parameter; Adafactor rows and columns of each matrix, and
                all of a vector's (optim/adafactor.py, without a first moment)
    master      4 N, copies in float32 of 16-bit weights, where a framework keeps them (ours keeps
                none)

Over devices: tensor and pipeline sizes divide everything; of the data-parallel size Nd, ZeRO
(Rajbhandari et al. 2020, sec. 5) divides at stage 1 moments and master copies, at stage 2 also
gradients, at stage 3 also weights.  With mixed precision and AdamW that is 2 + 2 + 12 bytes a
parameter.

Activations of frameworks in 16 bits, in bytes a layer, with s tokens, b texts, width h, a heads and
t devices over which tensors are split (Korthikanti et al. 2022, sec. 4, table 2):

    all kept                   s b h (34 + 5 a s / h);   split  s b h (10 + 24 / t + 5 a s / (h t))
    and the sequence split     s b h (34 + 5 a s / h) / t
    attention recomputed       s b h 34 / t with the sequence split; else s b h (10 + 24 / t)
    whole layers recomputed    2 s b h

Our own walk keeps other arrays, in float32 mostly: these formulas are not measurements of it.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from ..arguments import MOST, check_choice, check_flag, check_number, check_whole, mismatch
from ..core import flatten
from ..families import check_task, is_seq2seq, shapes_of
from ..layers.cache_size import cache_bytes, numbers_per_token
from ..models.causal_lm import cache_layout
from .counts import is_tied, parameters

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
OPTIMIZERS = ("adamw", "adafactor")
RECOMPUTED = ("none", "attention", "layers")


def memory(
    family: ModuleType,
    config: Any,
    *,
    dtype: str = "float32",
    batch: int = 1,
    context: int = 1,
    source: int | None = None,
    task: str | None = None,
) -> dict[str, int]:
    """Bytes of {"weights", "gradients", "moments", "cache"}.

    gradients  as many numbers as weights           moments  AdamW's two, in at least float32
    cache      keys and values of `context` tokens in each of `batch` texts; of an encoder-decoder
               also those of `source` tokens (default: as many).  Missing for an encoder.
    Activations depend on the form of a step and are not counted.
    """
    check_choice("dtype", dtype, BYTES)
    for name, value in (("batch", batch), ("context", context)):
        check_whole(name, value, 1, MOST)
    check_whole("source", source, 1, MOST, or_none=True)
    count = sum(parameters(family, config, task=task).values())
    width = BYTES[dtype]
    found = {"weights": count * width, "gradients": count * width}
    found["moments"] = 2 * count * max(4, width)
    if not hasattr(family, "TASKS"):
        sizes: dict[str, Any] = {"batch": batch, "context": context, "source": source}
        found["cache"] = cache(family, config, dtype=dtype, **sizes)
    return found


def cache(
    family: ModuleType,
    config: Any,
    *,
    dtype: str = "float32",
    batch: int = 1,
    context: int = 1,
    source: int | None = None,
) -> int:
    """Bytes of the cache of a decoder or an encoder-decoder, as `memory` describes them.

    Grouped, latent and windowed attention keep what their layers keep.  ValueError for an encoder.
    """
    check_choice("dtype", dtype, BYTES)
    for name, value in (("batch", batch), ("context", context)):
        check_whole(name, value, 1, MOST)
    check_whole("source", source, 1, MOST, or_none=True)
    width = BYTES[dtype]
    if hasattr(family, "TASKS"):
        raise mismatch("model", "a decoder, or an encoder-decoder", "an encoder")
    if is_seq2seq(family):
        places = context + (context if source is None else source)
        return batch * places * numbers_per_token(**config.cache_sizes) * width
    kept = np.dtype("float16" if width == 2 else dtype)
    return cache_bytes(**cache_layout(family, config), batch=batch, capacity=context, dtype=kept)


def states(
    family: ModuleType,
    config: Any,
    *,
    dtype: str = "float32",
    optimizer: str = "adamw",
    master: bool = False,
    stage: int = 0,
    data: int = 1,
    tensor: int = 1,
    pipeline: int = 1,
    task: str | None = None,
) -> dict[str, float]:
    """Bytes a device of {"weights", "gradients", "moments", "master"}; master only where kept.

    stage: of ZeRO, 0 to 3, over `data` devices.  The split is taken to be even.
    """
    check_choice("dtype", dtype, BYTES)
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_flag("master", master)
    check_whole("stage", stage, 0, 3)
    for name, value in (("data", data), ("tensor", tensor), ("pipeline", pipeline)):
        check_whole(name, value, 1, MOST)
    if master and BYTES[dtype] != 2:
        raise mismatch("master", "False, since the weights are not of 16 bits", master)
    shapes = flatten(shapes_of(family, config, check_task(family, task)))
    count, width = sum(map(math.prod, shapes.values())), BYTES[dtype]
    numbers = {"adamw": 2 * count, "adafactor": sum(map(_factored, shapes.values()))}[optimizer]
    found = {"weights": width * count, "gradients": width * count}
    found["moments"] = max(4, width) * numbers
    if master:
        found["master"] = 4 * count
    divided = {"moments": 1, "master": 1, "gradients": 2, "weights": 3}
    return {
        part: n / (tensor * pipeline) / (data if stage >= divided[part] else 1)
        for part, n in found.items()
    }


def published_activations(
    *,
    length: int,
    batch: int,
    width: int,
    heads: int,
    layers: int = 1,
    tensor: int = 1,
    sequence: bool = False,
    recompute: str = "none",
) -> float:
    """Bytes a device of the activations of 16-bit frameworks, by the formulas above.

    sequence: whether the parts outside the tensor-parallel ones are split over the sequence
    """
    given = {"length": length, "batch": batch, "width": width, "heads": heads, "layers": layers}
    for name, value in {**given, "tensor": tensor}.items():
        check_whole(name, value, 1, MOST)
    check_flag("sequence", sequence)
    check_choice("recompute", recompute, RECOMPUTED)
    numbers = length * batch * width * layers
    if recompute == "layers":
        return 2 * numbers
    attention = 5 * heads * length / width if recompute == "none" else 0
    whole = 10 / tensor if sequence else 10
    return numbers * (whole + (24 + attention) / tensor)


def decoding_speed(
    family: ModuleType,
    config: Any,
    *,
    bandwidth: float,
    dtype: str = "float32",
    batch: int = 1,
    context: int = 1,
) -> float:
    """Tokens a second, at most: batch * bandwidth / bytes of the weights and the cache.

    bandwidth in bytes a second.  Each step reads each weight once, of the experts those of one
    token, and `context` tokens of each cache; of an untied table of tokens, rows only.  So with
    experts and a batch above 1, the truth is lower.  ValueError for an encoder.
    """
    check_number("bandwidth", bandwidth, above=0)
    kept = cache(family, config, dtype=dtype, batch=batch, context=context)
    counts = parameters(family, config, active=True)
    read = sum(counts.values())
    if not is_tied(family, config):
        read -= counts["embeddings"]
    return batch * bandwidth / (BYTES[dtype] * read + kept)


def _factored(shape: tuple[int, ...]) -> int:
    """Numbers of Adafactor's second moment."""
    if len(shape) < 2:
        return math.prod(shape)
    return math.prod(shape[:-1]) + math.prod((*shape[:-2], shape[-1]))
