"""Plan a run by several laws: size, tokens, batch, rate, memory, time, energy, carbon for a budget.

    tinyplm plan --flops 1e21 --corpus 2e10 --demand 1e12
    tinyplm plan --hours 24 --devices 8 --peak 989e12 --utilisation 0.4
    tinyplm plan --loss 2.5 --peak 989e12 --json

The budget is --flops, or --hours on devices of a --peak, or the --loss to reach.  The laws are in
tinyplm/scaling/planning.py.  `tinyplm pretrain --preset auto --hours H` sizes a small model for
this machine by its measured speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from .. import scaling
from ..arguments import mismatch
from ..scaling import planning
from .folders import config_option
from .output import table
from .parser import Parser, number, whole


def add(parser: Parser) -> None:
    some = number(above=0)
    none = "none"
    parser.option("--flops", None, "FLOPs to spend on training.", some, shown=none)
    parser.option("--hours", None, "Hours to train; needs --peak.", some, shown=none)
    parser.option("--loss", None, "Nats a token to reach.", some, shown=none)
    parser.option("--corpus", None, "Tokens of the corpus that differ.", some, shown=none)
    parser.option("--demand", 0.0, "Tokens read and written in use.", number(least=0))
    parser.section("Machine")
    parser.option("--devices", 1, "Devices that train.", whole(1))
    parser.option("--peak", None, "FLOP/s of a device at its peak.", some, shown=none)
    parser.option("--utilisation", 0.4, "Share of the peak reached.", number(above=0, most=1))
    parser.option("--watts", None, "Power of a device.", some, shown="no energy is shown")
    parser.option("--pue", 1.1, "Power of the building by that of its devices.", number(least=1))
    parser.option(
        "--intensity", 0.385, "Carbon of the electricity, kg CO2e a kWh.", number(least=0)
    )
    parser.flag("--json", "Print JSON.")
    parser.section("Memory of a step, of one text in float32")
    parser.option("--context", 1024, "Tokens of the text.", whole(1))
    text = "Layers whose activations are computed again together, of which only the input is kept."
    parser.option("--checkpointing", 0, text, whole(0), shown="all are kept")
    config_option(parser)


def run(options: argparse.Namespace) -> None:
    proposals = scaling.plan(
        flops=budget(options), loss=options.loss, corpus=options.corpus, demand=options.demand
    )
    rows = [
        {**dataclasses.asdict(each), **costs(each.flops, options), **memory(each, options)}
        for each in proposals
    ]
    print(json.dumps(rows, indent=1) if options.json else shown(rows))


def budget(options: argparse.Namespace) -> float | None:
    """FLOPs; None where a loss is given."""
    named = {"--flops": options.flops, "--hours": options.hours, "--loss": options.loss}
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        raise mismatch("plan", "one of --flops, --hours and --loss", ", ".join(given) or "none")
    if options.peak is None and (options.hours or options.watts):
        raise mismatch("--peak", "the FLOP/s of a device, since hours or watts are given", "none")
    if options.hours is None:
        return options.flops
    return 3600 * options.hours * options.devices * options.peak * options.utilisation


def costs(flops: float, options: argparse.Namespace) -> dict[str, float]:
    """{"hours", "kwh", "kg_co2e"}: what can be said of them."""
    if options.peak is None:
        return {}
    machine: dict[str, Any] = {"devices": options.devices, "peak": options.peak}
    hours = scaling.seconds(flops, **machine, utilisation=options.utilisation) / 3600
    if options.watts is None:
        return {"hours": hours}
    kwh = scaling.energy(hours * options.devices, watts=options.watts, pue=options.pue)
    kg = scaling.carbon(kwh, intensity=options.intensity)
    return {"hours": hours, "kwh": kwh, "kg_co2e": kg}


def memory(proposal: Any, options: argparse.Namespace) -> dict[str, int]:
    """How many bytes, {"weights_bytes", ...}."""
    chosen = {"length": options.context, "checkpointing": options.checkpointing}
    found = planning.memory(proposal.parameters, **chosen)
    return {f"{part}_bytes": n for part, n in found.items()}


def shown(rows: list[dict[str, Any]]) -> str:
    """One column a proposal; below, why."""
    lines = [
        (name, *("" if row[name] is None else text(row[name]) for row in rows))
        for name in rows[0]
        if name != "reason" and any(row[name] is not None for row in rows)
    ]
    reasons = [f"{row['law']}: {row['reason']}" for row in rows]
    return "\n".join([table(lines), "", *reasons])


def text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
