"""The config of a new model: a size by name, or a published one."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..arguments import mismatch
from ..hub.folders import make_config
from ..training.presets import SIZES
from .decoders import TITLES, sized
from .models import Named

SHAPE = ("layers", "width", "heads")


def shape(options: argparse.Namespace) -> tuple[int, int, int]:
    """(layers, width, heads): those of the size, unless they are given one by one."""
    own = (getattr(options, name) for name in SHAPE)
    layers, width, heads = (a or b for a, b in zip(own, SIZES[options.size]))
    if width % heads:
        raise mismatch("--width", f"a multiple of the {heads} heads", width)
    return layers, width, heads


def configure(options: argparse.Namespace, source: Named, vocab_size: int) -> Any:
    """The config of a new model, with the vocabulary, context and dropout of this run."""
    module = source.family
    assert module is not None
    layers, width, heads = shape(options)
    later = {"num_nextn_predict_layers": options.multi_token} if options.multi_token else {}
    if later and not hasattr(module, "module_shapes"):
        expected = f"0, since {TITLES[module.Config.MODEL_TYPE]} has no modules for later tokens"
        raise mismatch("--multi-token", expected, options.multi_token)
    small = sized(
        module,
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        context=options.context,
        dropout=options.dropout,
        **later,
    )
    if source.size is None:
        return small
    own = ["vocab_size", "n_positions", "max_position_embeddings", "seq_length"]
    own += ("bos_token_id", "eos_token_id", "original_max_position_embeddings")
    fields = [f.name for f in dataclasses.fields(small)]
    kept = [n for n in fields if n in own or n.endswith(("_pdrop", "_dropout"))]
    return make_config(module, source.size, **{n: getattr(small, n) for n in kept}, **later)
