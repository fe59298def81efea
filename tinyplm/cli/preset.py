"""--preset and --hours: settings of pretraining by rule, for this corpus and machine."""

from __future__ import annotations

import argparse
from typing import Any

from .. import hub
from ..arguments import mismatch
from ..models.model import Model
from ..training.log import clock
from ..training.presets import propose
from ..training.settings import Settings
from .models import Named
from .parser import POSITIVE, Parser, one_of
from .sizes import SHAPE, SIZES, configure, shape

# what a preset sets unless it is given
NAMES = (*SHAPE, "batch", "steps", "lr", "warmup")


def preset_options(parser: Parser) -> None:
    """--preset and --hours."""
    text = f"Size, batch, steps and rates by rule for this corpus and machine: {', '.join(SIZES)}; "
    text += "or auto, the size that --hours call for.  Options that are given win.  The rules and "
    text += "their sources are in tinyplm/training/presets.py."
    parser.option("--preset", None, text, one_of("auto", *SIZES), shown="none")
    text = "The most hours a preset may take, measured with ten steps; alone: of --preset auto."
    parser.option("--hours", None, text, POSITIVE, shown="as long as its tokens need")


def check_preset(options: argparse.Namespace, source: Named) -> None:
    """ValueError for options that contradict --preset."""
    if options.hours and not options.preset:
        options.preset = "auto"
    if options.preset is None:
        return
    if options.preset == "auto" and not options.hours:
        raise mismatch("--preset auto", "--hours with it", "none")
    if source.family is None or source.size is not None:
        raise mismatch("--preset", f"none, since {options.model} has its own size", options.preset)
    if "size" in options.given:
        raise mismatch("--size", "none, since --preset names one", options.size)
    options.size = "small" if options.preset == "auto" else options.preset


def apply_preset(
    options: argparse.Namespace,
    source: Named,
    settings: Settings,
    tokens: int,
    vocab_size: int,
    task: str | None,
) -> None:
    """Set the options to the values of the preset, except those that were given; print why.

    tokens: of the training text.
    """
    own = any(getattr(options, name) for name in SHAPE)
    size = shape(options) if own else options.preset

    def make(layers: int, width: int, heads: int) -> Model:
        sizes = {"layers": layers, "width": width, "heads": heads}
        config = configure(argparse.Namespace(**{**vars(options), **sizes}), source, vocab_size)
        places: dict[str, Any] = {"device": options.device, "dtype": options.dtype}
        return hub.create(config.MODEL_TYPE, config, task=task, key=options.seed, **places)

    facts: dict[str, Any] = {"corpus_tokens": tokens, "vocab_size": vocab_size}
    found = propose(make, size, settings, hours=options.hours, **facts)
    assert found.seconds is not None  # it was measured
    print(f"preset     {options.preset}:")
    for name in NAMES:
        given = name in options.given or (name in SHAPE and getattr(options, name) is not None)
        if not given:
            setattr(options, name, getattr(found, name))
        why = "given" if given else found.reasons[name]
        print(f"           {name:<7} {getattr(options, name)!s:<7} {why}")
    share = options.steps * options.batch / (found.steps * found.batch)
    speed = f"{found.flops / found.seconds / 1e9:.1f} GFLOP/s in ten steps"
    print(f"           training should take {clock(share * found.seconds)} ({speed})")
