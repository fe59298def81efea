"""Sample text from any saved folder: one that examples/pretrain.py made, or one that transformers wrote.

python examples/generate.py out/step-1200 --prompt "Return the" --samples 3
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import tinyplm
from tinyplm.generation.generate import generate
from tinyplm.training.checkpoint import find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a folder with config.json, model.safetensors and tokenizer.json, or a run's --out")
    parser.add_argument("--prompt", default="", help="the beginning of the text (default: the beginning of a document)")
    parser.add_argument("--tokens", type=int, default=120, help="how many to add at most (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="how many texts (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=None, help="draw from the k most probable tokens only")
    parser.add_argument(
        "--top-p", type=float, default=0.95, help="draw from the most probable tokens up to this mass (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same texts (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or gpu (default: %(default)s)")
    options = parser.parse_args()

    folder = Path(options.folder)
    if (folder / "best").is_file() and not (folder / "config.json").exists():
        folder = find(folder, "best")  # a run of examples/pretrain.py
    model = tinyplm.load(folder, device=options.device)
    if model.tokenizer is None:
        raise ValueError(f"{folder}: there is no tokenizer.json, so text cannot be turned into tokens")
    tokenizer = model.tokenizer
    end = tokenizer.eos_id  # ends a document, so it also begins one
    if not options.prompt and end is None:
        raise ValueError(f"{folder}: the tokenizer has no <|endoftext|> to begin a document with, so --prompt is needed")
    prompt = tokenizer.encode(options.prompt) or [end]
    start = time.perf_counter()
    texts = generate(model, prompt, max_new_tokens=options.tokens, temperature=options.temperature, top_k=options.top_k,
                     top_p=options.top_p, samples=options.samples, seed=options.seed, stop_id=end,
                     vocabulary=tokenizer.vocab_size)  # fmt: skip
    seconds = time.perf_counter() - start
    for ids in texts:
        print(options.prompt + tokenizer.decode(ids), end="\n\n")
    count = sum(len(ids) for ids in texts)
    print(f"{count} tokens in {seconds:.1f} s, {count / seconds:.0f} a second", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
