"""Memory of a training step with and without activation checkpointing, against PyTorch.

    python benchmarks/memory.py
    python benchmarks/memory.py --shape 32,256,4,256,8,4096 --group 6

One row per depth and context length.  The configurations:

    kept, torch-kept        all activations kept
    layers, torch-layers    only each layer's inputs kept, the layer recomputed in the backward; in
                            PyTorch by torch.utils.checkpoint (use_reentrant=False)
    groups                  the same by groups of layers, by default of about sqrt(L)

Both libraries compute the loss in chunks.  Each configuration runs in its own process with all
cores; the processes alternate, one step each.

Prints peak memory in MiB above the memory before the model was created, including parameters,
gradient and the optimizer's moments (the column "states", 16 bytes per parameter), and the time of
a step relative to the same library without checkpointing.
"""

from __future__ import annotations

import argparse
import os
import sys

from steps import FAMILIES, config_fields, read_shape, tinyplm_work, torch_work
from table import Table, add_option
from turns import median_ratio, serve, take_turns

# layers, width, heads, context, batch, vocabulary: three depths, then two long contexts
SHAPES = [
    "4,256,4,256,4,2048",
    "8,256,4,256,4,2048",
    "16,256,4,256,4,2048",
    "4,256,4,1024,2,2048",
    "4,256,4,2048,2,2048",
]
CONFIGURATIONS = {
    "tinyplm": ("kept", "layers", "groups"),
    "PyTorch": ("torch-kept", "torch-layers"),
}


def states(family: str, shape: list[int]) -> float:
    """MiB of parameters, gradient and both moments in float32."""
    from tinyplm.families import family as find_family
    from tinyplm.hub import folders as hub
    from tinyplm.hub.names import count_parameters

    L, D, H, T, _, V = shape
    module = find_family(family)
    config = hub.make_config(module, None, **config_fields(family, L, D, H, T, V))
    return 16 * count_parameters(module.shapes(config)) / 2**20


def compare(family: str, shape: list[int], group: int, rounds: int, workers: int) -> list[float]:
    """The values of one row of the table."""
    arguments = [
        "--family",
        family,
        "--shape",
        ",".join(map(str, shape)),
        "--group",
        str(group),
        "--workers",
        str(workers),
    ]
    results = take_turns(__file__, sum(CONFIGURATIONS.values(), ()), arguments, rounds)
    memories = [results[name][2] for names in CONFIGURATIONS.values() for name in names]
    times = [
        median_ratio(results[name][1], results[first][1])
        for first, *others in CONFIGURATIONS.values()
        for name in others
    ]
    return [group, states(family, shape), *memories, *times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=FAMILIES, default="gpt2", help="(default: %(default)s)")
    parser.add_argument(
        "--shape",
        action="append",
        help="layers,width,heads,context,batch,vocabulary; may be repeated",
    )
    parser.add_argument(
        "--group",
        type=int,
        help="layers per group (default: about the square root of the number of layers)",
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="steps of each configuration (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="threads of tinyplm (default: %(default)s)",
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", choices=sum(CONFIGURATIONS.values(), ()), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shapes = [read_shape(shape) for shape in options.shape or SHAPES]
    if options.serve in CONFIGURATIONS["PyTorch"]:
        serve(
            *torch_work(
                options.family,
                shapes[0],
                checkpointing=options.serve == "torch-layers",
                chunked=True,
            ),
            warm_up=1,
        )
        return
    if options.serve:
        checkpointing = {"kept": 0, "layers": 1, "groups": options.group}[options.serve]
        serve(*tinyplm_work(options.family, shapes[0], options.workers, checkpointing), warm_up=1)
        return
    note = (
        f"{options.family}: peak memory of a step in MiB; "
        "time relative to the same library with all activations kept"
    )
    configurations = [name for names in CONFIGURATIONS.values() for name in names]
    columns = {"group": ".0f", "states": ".0f"} | dict.fromkeys(configurations, ".0f")
    columns |= {f"{name} time": ".2f" for _, *others in CONFIGURATIONS.values() for name in others}
    table = Table("(L, D, H, T, B, V)", columns, file=options.json, note=note)
    for shape in shapes:
        group = options.group or max(2, round(shape[0] ** 0.5))
        table.row(
            str(tuple(shape)),
            *compare(options.family, shape, group, options.rounds, options.workers),
        )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
