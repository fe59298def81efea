"""Sample text from any saved folder: one that examples/pretrain.py made, or one that transformers wrote.

python examples/generate.py out/step-1200 --prompt "Return the" --samples 3
python examples/generate.py out --prompt "def " "class " --temperature 0 --stop "\n\n" --show-log-probabilities
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import tinyplm
from tinyplm.backend import keep_freed_memory
from tinyplm.generation.generate import Continuation, stream
from tinyplm.training import incremental
from tinyplm.training.checkpoint import find


def sampling_options(parser: argparse.ArgumentParser) -> None:
    """The options of examples/generate.py and examples/chat.py that say how a token is chosen."""
    option = parser.add_argument
    option("--temperature", type=float, default=0.8, help="0 is greedy (default: %(default)s)")
    option("--top-k", type=int, default=None, help="draw from the k most probable tokens only")
    option("--top-p", type=float, default=0.95, help="from the most probable ones up to this mass (default: %(default)s)")
    option("--min-p", type=float, default=None, help="from those of at least this share of the most probable one's probability")
    option("--repetition-penalty", type=float, default=1.0, help="above 1 makes used tokens less probable (default: %(default)s)")
    option("--no-repeat-ngram", type=int, default=None, metavar="N", help="no N tokens in a row twice")
    option("--seed", type=int, default=0, help="the same seed gives the same texts (default: %(default)s)")
    option("--device", default="cpu", help="cpu or gpu (default: %(default)s)")
    option("--dtype", default="float32", help="of the arithmetic; float16 is slow on a CPU (default: %(default)s)")


def sampling(options: argparse.Namespace) -> dict:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram")
    return {name: getattr(options, name) for name in names}


def load(options: argparse.Namespace) -> tinyplm.Model:
    """The model of a folder, or of a run of examples/pretrain.py the best one, or the latest if none was evaluated yet."""
    path = Path(options.folder)
    if not (path / "config.json").exists():
        named = [name for name in ("best", "latest") if (path / name).is_file()]
        if named:
            path = find(path, named[0])
        elif (path / "run.json").is_file():
            raise ValueError(f"{path}: this run has saved no checkpoint yet")
    if (path / incremental.FILE).is_file():
        raise ValueError(f"{path}: holds only what changed since another checkpoint, expected a full one; "
                         f"tinyplm.training.incremental.replay({str(path)!r}, FOLDER) makes one of it")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is no tokenizer: text_tokenizer() says it
        return tinyplm.load(path, dtype=options.dtype, device=options.device).for_decoding()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a folder with config.json, model.safetensors and tokenizer.json, or a run's --out")
    parser.add_argument("--prompt", nargs="+", default=[""], help="beginnings of texts (default: the beginning of a document)")
    parser.add_argument("--tokens", type=int, default=120, help="how many to add at most (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="how many texts a prompt (default: %(default)s)")
    parser.add_argument("--stop", nargs="+", default=[], metavar="TEXT", help=r"end before one of these texts (\n is a newline)")
    parser.add_argument("--show-log-probabilities", action="store_true", help="and each token with its log-probability in nats")
    sampling_options(parser)
    options = parser.parse_args()

    keep_freed_memory()
    model = load(options)
    tokenizer = model.text_tokenizer()
    prompts = [tokenizer.prompt(prompt) for prompt in options.prompt]
    begin = tokenizer.eos_id  # ends a document, so it also begins one
    if [] in prompts and begin is None:
        raise ValueError(f"{options.folder}: the tokenizer has no token to begin a document with, so --prompt is needed")
    prompts = [prompt or [begin] for prompt in prompts]
    stops = [stop.replace("\\n", "\n") for stop in options.stop]
    alone = len(prompts) * options.samples == 1  # one text is shown as it comes, several when they are done
    ends = model.end_ids()
    start = time.perf_counter()
    texts = [Continuation(n // options.samples, [], [], "") for n in range(len(prompts) * options.samples)]
    steps = stream(model, prompts, max_new_tokens=options.tokens, samples=options.samples, seed=options.seed, stop_ids=ends,
                   stop_strings=stops, **sampling(options))  # fmt: skip
    if alone:
        print(options.prompt[0], end="", flush=True)
    for pieces in steps:
        for piece in pieces:
            texts[piece.row].add(piece, ends)
            if alone:
                print(piece.text, end="", flush=True)
    seconds = time.perf_counter() - start
    for text in texts:
        print("\n" if alone else f"{options.prompt[text.prompt]}{text.text}\n")
        if options.show_log_probabilities:
            for token, log_p in zip(text.ids, text.log_probabilities):
                print(f"{log_p:>10.4f}  {tokenizer.decode([token])!r}")
            print(f"{sum(text.log_probabilities):>10.4f}  in all\n")
    count = sum(len(text.ids) for text in texts)
    print(f"{count} tokens in {seconds:.1f} s, {count / seconds:.0f} a second", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FloatingPointError, OSError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
