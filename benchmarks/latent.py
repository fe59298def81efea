"""Latent attention: one token after others from the cache, absorbed against expanded.

    python benchmarks/latent.py
    python benchmarks/latent.py --rounds 50 --shape 2048,16,0,512,128,64,128 --context 4096

One layer's attention, batch 1, float32, on one thread; the two forms (layers/latent.py) run in one
process, one call each in turn, and the median over rounds of their ratio is told: 10 means that the
expanded form takes ten times as long.  "numbers" are those that the cache keeps of a token and
layer, C + R, beside the H (E + R + E2) of keys and values.  The script stops unless both forms
agree.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from table import Table, add_option
from turns import median_ratio

# D, H, Q (0: none), C, E, R, E2: DeepSeek-V2-Lite, a quarter of the heads of V3, a small one
SHAPES = ["2048,16,0,512,128,64,128", "1792,32,1536,512,128,64,128", "256,4,0,128,64,32,64"]
EARLIER = 2048


def parameters(D: int, H: int, Q: int, C: int, E: int, R: int, E2: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"Wq": (D, H * (E + R))} if Q == 0 else {"Wdq": (D, Q), "Wuq": (Q, H * (E + R))}
    shapes |= {"Wdkv": (D, C), "Wkr": (D, R), "Wuk": (C, H * E), "Wuv": (C, H * E2)}
    shapes["Wo"] = (H * E2, D)
    p = {
        name: rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[0] ** -0.5)
        for name, shape in shapes.items()
    }
    norms = {"kv_norm": C} | ({"q_norm": Q} if Q else {})
    return p | {name: np.ones(n, dtype=np.float32) for name, n in norms.items()}


def decoding(shape: list[int], context: int) -> tuple[dict[str, Callable], int]:
    """One token in either form, and how many numbers the cache has of a token."""
    from tinyplm.core.threads import blas_threads
    from tinyplm.kernels.attention import attention
    from tinyplm.layers.cache import Cache
    from tinyplm.layers.latent import absorbed_attention, latent_attention
    from tinyplm.layers.mask import Visible
    from tinyplm.layers.rope import rope, rotary_tables

    D, H, _, C, _, R, _ = shape
    p, rng = parameters(*shape), np.random.default_rng(1)
    cache = Cache.empty(
        **{"layers": 1, "batch": 1, "kv_heads": 1, "capacity": context + 1},
        **{"width": {"c": C, "k_r": R}, "dtype": "float32"},
    )
    for buffer in cache.layers[0].values():
        buffer[...] = rng.standard_normal(buffer.shape, dtype=np.float32)
    x = rng.standard_normal((1, 1, D), dtype=np.float32)
    frequencies = 1e4 ** (-np.arange(0, R, 2) / R)
    cos, sin = rotary_tables(np.full((1, 1), context), frequencies=frequencies, dtype="float32")
    turn = partial(rope, cos=cos, sin=sin, interleaved=True)

    def call(form: Callable) -> Callable:
        def one() -> np.ndarray:
            visible = Visible(1, context + 1, causal=True)
            with blas_threads(1):
                return form(
                    p, x, heads=H, rotary=turn, mask=visible, attend=attention,
                    cache=(cache.layers[0], context, None),
                )[0]  # fmt: skip

        return one

    forms = {"expanded": call(latent_attention), "absorbed": call(absorbed_attention)}
    a, b = (one() for one in forms.values())
    if np.max(np.abs(a - b)) > 1e-3 * np.max(np.abs(a)):
        raise RuntimeError("the two forms: expected equal outputs, got others")
    return forms, cache.nbytes // 4 // (context + 1)


def times(calls: dict[str, Callable], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """{call: (wall seconds, CPU seconds)}."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter(), time.process_time()
            call()
            found[name][0].append(time.perf_counter() - begin[0])
            found[name][1].append(time.process_time() - begin[1])
    return found


def main() -> None:
    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape", action="append", help="D,H,Q,C,E,R,E2 (Q 0: none); may be repeated"
    )
    parser.add_argument("--context", type=int, default=EARLIER, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=21, help="default: %(default)s")
    add_option(parser, __file__)
    options = parser.parse_args()
    columns = {"expanded": ".2f", "absorbed": ".2f", "ratio": ".1f", "CPU ratio": ".1f"}
    columns |= {"numbers": ".0f", "keys and values": ".0f"}
    note = f"one token after {options.context}, one layer: milliseconds (medians); numbers a token"
    table = Table("(D, H, Q, C, E, R, E2)", columns, file=options.json, note=note, width=38)
    for text in options.shape or SHAPES:
        shape = [int(n) for n in text.split(",")]
        calls, numbers = decoding(shape, options.context)
        found = times(calls, options.rounds)
        milliseconds = [1e3 * statistics.median(wall) for wall, _ in found.values()]
        ratios = [median_ratio(*(clocks[i] for clocks in found.values())) for i in range(2)]
        _, H, _, _, E, R, E2 = shape
        table.row(f"{tuple(shape)}", *milliseconds, *ratios, numbers, H * (E + R + E2))


if __name__ == "__main__":
    main()
