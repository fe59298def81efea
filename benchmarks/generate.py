"""Decoding of one text against transformers' `generate`, with a key/value cache in float32.

    python benchmarks/generate.py
    python benchmarks/generate.py --rounds 20 --model llama,4,256,4,2048 --tokens 200
    python benchmarks/generate.py --model t5,4,256,4,8192 --model t5,4,256,4,8192,4

Greedy, or beam search where a model's sixth number is the width of the beam.  T5 reads a source of
64 tokens, the others a prompt of 16; T5 has so many layers on each side.

Each library runs in its own process with all cores; the two alternate, one call each.  Prints new
tokens per second of the whole call (medians), their ratio, and the share of the memory bandwidth:
at batch 1 the limit is reading the weights and the cache once per token.  Those of T5's encoder,
which runs once, are not counted.  The bandwidth is measured first, by summing a large array with
one thread per core.
"""

from __future__ import annotations

import argparse
import os
import statistics
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from steps import config_fields
from table import Table, add_option
from turns import libraries_only, median_ratio, serve, shortest, take_turns

libraries_only()  # transformers imports tokenizers, the library

# family, layers, width, heads, vocabulary, beams if more than one; the second model of GPT-2 and
# LLaMA has the shape of GPT-2 124M, T5 has 9.5 million parameters
MODELS = [
    "gpt2,4,256,4,2048",
    "gpt2,12,768,12,50257",
    "llama,4,256,4,2048",
    "llama,12,768,12,50257",
    "t5,4,256,4,8192",
    "t5,4,256,4,8192,4",
]


def settings(model: str, tokens: int) -> tuple[str, dict, int, int]:
    """The family, the fields of its config.json, the length of the prompt or source, the beams."""
    family, *numbers = model.split(",")
    L, D, H, V, *beams = map(int, numbers)
    prompt = 64 if family == "t5" else 16
    config = config_fields(family, L, D, H, prompt + tokens, V)
    if family == "t5":
        config |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
    return family, config, prompt, beams[0] if beams else 1


def bandwidth() -> float:
    """Bytes per second that all cores together read from memory."""
    a = np.ones(100_000_000, dtype=np.float32)
    parts = np.array_split(a, os.cpu_count() or 1)
    with ThreadPoolExecutor(len(parts)) as pool:
        return a.nbytes / shortest(lambda: list(pool.map(np.sum, parts)), 10)


def tinyplm_call(model: str, tokens: int):
    import tinyplm
    from tinyplm.generation import beam_search, generate
    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    family, config, prompt, beams = settings(model, tokens)
    ours = tinyplm.create(family, **config).for_decoding()
    ids = np.random.default_rng(0).integers(0, ours.config.vocab_size, prompt)
    if beams > 1:
        return lambda: beam_search(ours, ids, beams=beams, max_new_tokens=tokens, stop_ids=())
    return lambda: generate(ours, ids, max_new_tokens=tokens, temperature=0, stop_ids=())


def transformers_call(model: str, tokens: int):
    import torch
    import transformers

    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    transformers.utils.logging.set_verbosity_error()
    family, config, prompt, beams = settings(model, tokens)
    config_class, model_class = {
        "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "t5": (transformers.T5Config, transformers.T5ForConditionalGeneration),
    }[family]
    theirs = model_class(config_class(**config)).eval()
    ids = np.random.default_rng(0).integers(0, config["vocab_size"], (1, prompt))
    ids = torch.from_numpy(ids)
    mask = torch.ones_like(ids)
    options = {"num_beams": beams, "do_sample": False, "max_new_tokens": tokens, "pad_token_id": 0}
    before = 1 if family == "t5" else prompt

    def call():
        out = theirs.generate(ids, attention_mask=mask, **options)
        assert out.shape[1] == before + tokens, "generation stopped early"

    return call


def bytes_a_token(model: str, tokens: int) -> float:
    """Bytes read per token: every weight once, except position tables and an encoder, and the
    average cache of each beam; beams share the cache of their source."""
    from tinyplm.families import family as find_family
    from tinyplm.hub import folders as hub
    from tinyplm.hub.names import count_parameters

    name, config, prompt, beams = settings(model, tokens)
    family = find_family(name)
    config = hub.make_config(family, None, **config)
    shapes = family.shapes(config)
    for unread in ("positions", "encoder"):
        shapes["body"].pop(unread, None)
    sizes = config.cache_sizes
    if name == "t5":  # keys and values of the source are read, but their weights are not
        for layer in shapes["body"]["decoder"]["layers"]:
            layer["cross"] = {n: shape for n, shape in layer["cross"].items() if n in ("Wq", "Wo")}
        places = prompt + beams * tokens / 2
    else:
        places = beams * (prompt + tokens / 2)
    cache = 2 * sizes["layers"] * sizes["kv_heads"] * sizes["width"] * places
    return 4 * (count_parameters(shapes) + cache)


def compare(model: str, tokens: int, rounds: int, speed: float) -> list[float]:
    """The values of one row of the table."""
    arguments = ["--model", model, "--tokens", str(tokens)]
    results = take_turns(__file__, ("tinyplm", "transformers"), arguments, rounds)
    (_, seconds, _), (_, peer_seconds, _) = results["tinyplm"], results["transformers"]
    ours, theirs = (tokens / statistics.median(s) for s in (seconds, peer_seconds))
    share = bytes_a_token(model, tokens) / speed
    return [ours, theirs, median_ratio(peer_seconds, seconds), ours * share, theirs * share]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model",
        action="append",
        help="family,layers,width,heads,vocabulary and, for beam search, beams; may be repeated",
    )
    parser.add_argument(
        "--tokens", type=int, default=100, help="new tokens per call (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="calls of each library (default: %(default)s)"
    )
    add_option(parser, __file__)
    parser.add_argument("--serve", choices=["tinyplm", "transformers"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    models = options.model or MODELS
    if options.serve:
        make = tinyplm_call if options.serve == "tinyplm" else transformers_call
        serve(make(models[0], options.tokens), warm_up=1)
        return
    speed = bandwidth()
    note = (
        f"memory bandwidth of all cores: {speed / 1e9:.1f} GB/s; "
        "tokens per second (medians), their ratio, share of the bandwidth"
    )
    columns = {
        "tinyplm": ".1f",
        "transformers": ".1f",
        "ratio": ".2f",
        "share": ".0%",
        "transformers share": ".0%",
    }
    table = Table("family,L,D,H,V,beams", columns, file=options.json, note=note, width=24)
    for model in models:
        table.row(model, *compare(model, options.tokens, options.rounds, speed))


if __name__ == "__main__":
    main()
