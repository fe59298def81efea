"""Count the parameters, FLOPs and memory of a model of any size, without allocating it.

    tinyplm count --model deepseek-v3 --context 4096 --dtype bfloat16
    tinyplm count --model out                     # a run, or a folder as on the hub
    tinyplm count --list                          # all published sizes

A multiply-add is two FLOPs; only products of matrices are counted (tinyplm/scaling/counts.py).
Activations are those of our own walk, on one device (tinyplm/scaling/activations.py).
"""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from .. import scaling
from ..arguments import mismatch
from ..families import FAMILIES, check_task, family, is_seq2seq
from ..models.routed import is_routed
from ..scaling.memory import OPTIMIZERS
from .folders import config_option
from .models import model_option, named, read_settings
from .output import table
from .parser import Parser, number, one_of, whole

LONGEST = 512  # for a model without a limit of its own


def add(parser: Parser) -> None:
    text = (
        "Model: a folder as on the hub, the --out of a run, or a published size, such as gpt2-xl."
    )
    model_option(parser, help=text, needed=False)
    parser.flag("--list", "Print all published sizes with their parameters, and stop.")
    parser.option("--batch", 1, "Texts in a step and in the cache.", whole(1))
    text = "Tokens of a text; of an encoder-decoder those of the source and of the target."
    shown = f"the longest that the model takes, or {LONGEST}"
    parser.option("--context", None, text, whole(1), shown=shown)
    text = f"Data type of weights, gradients and cache: {', '.join(scaling.BYTES)}."
    parser.option("--dtype", "float32", text, one_of(*scaling.BYTES))
    text = "Layers whose activations are computed again together, of which only the input is kept."
    parser.option("--checkpointing", 0, text, whole(0), shown="all are kept")
    parser.section("Devices: bytes of each")
    parser.option("--stage", 0, "Stage of ZeRO.", whole(0, 3))
    for name in ("data", "tensor", "pipeline"):
        parser.option(f"--{name}", 1, f"Size of {name} parallelism.", whole(1))
    parser.flag("--master", "Count copies in float32 of 16-bit weights.")
    text = "Optimiser: adamw or adafactor."
    parser.option("--optimizer", "adamw", text, one_of(*OPTIMIZERS))
    text = "Bytes a second that a device reads, for a bound of the speed of decoding."
    parser.option("--bandwidth", None, text, number(above=0), shown="no bound")
    config_option(parser)


def run(options: argparse.Namespace) -> None:
    if options.list:
        print(listing())
        return
    if options.model is None:
        raise mismatch("--model", "a model to count, or --list", "none")
    module, config, task = found(options.model)
    longest = config.context
    if options.context is None:
        options.context = longest or LONGEST
    if longest is not None and options.context > longest:
        raise mismatch("--context", f"at most {longest}, the model's", options.context)
    print(parts(module, config, task))
    print()
    print(flops(module, config, task, options))
    print()
    print(memory(module, config, task, options))


def found(name: str) -> tuple[ModuleType, Any, str]:
    """(family, config, task) of what --model names.  Where a size has the name of its family, that
    is meant."""
    source = named(name)
    if source.folder is not None:
        return read_settings(source.folder)
    module = source.family
    assert module is not None
    size = source.size or name
    if size not in module.SIZES:
        sizes = ", ".join(module.SIZES)
        raise mismatch("--model", f"a size of this family: {sizes}", name)
    return module, module.SIZES[size], check_task(module, None)


def parts(module: ModuleType, config: Any, task: str) -> str:
    """Parameters by part; for a mixture of experts also those that a token sees."""
    counts = scaling.parameters(module, config, task=task)
    total = sum(counts.values())
    lines: list[tuple[str, ...]] = [("parameters", "", "")]
    for part, n in [*counts.items(), ("total", total)]:
        lines.append((part, f"{n:,}", f"{n / total:.1%}"))
    if is_routed(module):
        active = scaling.parameters(module, config, task=task, active=True)
        seen = ["active", *(f"{n:,}" for n in [*active.values(), sum(active.values())])]
        lines = [(*line, more) for line, more in zip(lines, seen)]
    return table(lines)


def flops(module: ModuleType, config: Any, task: str, options: argparse.Namespace) -> str:
    """Of a training step and, where there is a cache, of a decoded token."""
    T, B = options.context, options.batch
    texts = f"{B} text{'s' if B > 1 else ''} of {T:,} tokens"
    try:
        step = scaling.training_flops(module, config, batch=B, length=T, task=task)
    except ValueError as error:
        return f"FLOPs are not counted: {str(error).removeprefix('model: ')}"
    lines = [("FLOPs", ""), (f"a training step, {texts}", f"{step:.4g}")]
    if not hasattr(module, "TASKS"):
        source = T if is_seq2seq(module) else None
        token = scaling.decoding_flops(module, config, before=T - 1, source=source)
        lines.append((f"a decoded token, with {T - 1:,} before it", f"{token:.4g}"))
    return table(lines)


def memory(module: ModuleType, config: Any, task: str, options: argparse.Namespace) -> str:
    dtype, names = options.dtype, ("optimizer", "master", "stage", "data", "tensor", "pipeline")
    chosen = {name: getattr(options, name) for name in names}
    found = scaling.states(module, config, dtype=dtype, task=task, **chosen)
    optimizer = {"adamw": "AdamW", "adafactor": "Adafactor"}[options.optimizer]
    shown = {"moments": f"moments of {optimizer}, at least float32", "master": "master copies"}
    step, missing = activations(module, config, task, options)
    lines = [(f"memory, {dtype}" + ("" if step else ", without activations"), "")]
    lines += [(shown.get(part, part), size(round(n))) for part, n in found.items()]
    lines += [(part, size(n)) for part, n in step.items()]
    if step:
        lines.append(("training at its peak", size(round(sum([*found.values(), *step.values()])))))
    note = f"\n\nActivations are not counted: {missing}" if missing else ""
    if hasattr(module, "TASKS"):
        return table(lines) + note
    sizes = {"batch": options.batch, "context": options.context}
    kept = scaling.cache(module, config, dtype=dtype, **sizes)
    text = f"key/value cache, {options.batch} x {options.context:,} tokens"
    lines.append((text, size(kept)))
    if options.bandwidth is not None:
        most = {"bandwidth": options.bandwidth, "dtype": dtype, **sizes}
        speed = scaling.decoding_speed(module, config, **most)
        lines.append(("tokens a second of decoding, at most", f"{speed:.4g}"))
    return table(lines) + note


def activations(
    module: ModuleType, config: Any, task: str, options: argparse.Namespace
) -> tuple[dict[str, int], str]:
    """({part: bytes at the peak of a step, beside the states}, why there are none)."""
    if task != check_task(module, None):
        return {}, "expected a language model's task"
    if options.tensor * options.pipeline > 1:
        return {}, "expected layers that are not split over devices"
    names = ("batch", "dtype", "checkpointing", "optimizer")
    chosen = {name: getattr(options, name) for name in names}
    try:
        found = scaling.training_memory(module, config, length=options.context, **chosen)
    except ValueError as error:
        return {}, str(error).removeprefix("model: ")
    texts = f"{options.batch} x {options.context:,} tokens"
    shown = {
        "activations": f"activations of our walk, {texts}",
        "logits": "logits, and the head's gradients",
        "temporary": "other arrays at the peak",
    }
    return {text: found[part] for part, text in shown.items()}, ""


def size(n: int) -> str:
    """Bytes in the largest unit of which there is one."""
    unit = min((n.bit_length() - 1) // 10, 4) if n else 0
    return f"{n} B" if unit == 0 else f"{n / 1024**unit:.2f} {'KMGT'[unit - 1]}iB"


def listing() -> str:
    """All published sizes, by family."""
    lines = [("size", "parameters", "active")]
    for module in map(family, FAMILIES):
        for name, config in module.SIZES.items():
            total, seen = (
                sum(scaling.parameters(module, config, active=active).values())
                for active in (False, True)
            )
            lines.append((name, f"{total:,}", f"{seen:,}" if seen < total else ""))
    return table(lines)
