"""Sample text from any saved folder: one that examples/pretrain.py made, or one that transformers wrote.

python examples/generate.py out/step-1200 --prompt "Return the" --samples 3
python examples/generate.py out --prompt "def " "class " --temperature 0 --stop "\n\n" --show-log-probabilities
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings

from common import Parser, model_folder, number, one_of, start, whole

import tinyplm
from tinyplm.generation import Continuation, stream
from tinyplm.memory import keep_freed_memory
from tinyplm.training import incremental


def sampling_options(parser: Parser) -> None:
    """The options of examples/generate.py and examples/chat.py that say how a token is chosen."""
    parser.option("--temperature", 0.8, "How much chance there is in the choice; 0 always takes the most probable token.",
                  number(least=0.0))  # fmt: skip
    parser.option("--top-k", None, "Draw from the N most probable tokens only.", whole(1), otherwise="from all")
    parser.option("--top-p", 0.95, "Draw from the most probable tokens up to this mass.", number(above=0.0, most=1.0))
    parser.option("--min-p", None, "Draw from tokens of at least this share of the most probable one's probability.",
                  number(least=0.0, most=1.0), otherwise="from all")  # fmt: skip
    parser.option("--repetition-penalty", 1.0, "Above 1, make tokens that occurred less probable.", number(above=0.0))
    parser.option("--no-repeat-ngram", None, "Let no N tokens in a row occur twice.", whole(1), otherwise="no such limit")
    parser.option("--seed", 0, "The seed; the same one gives the same texts.", whole())
    parser.option("--device", "cpu", "Where to compute: cpu or gpu.", one_of("cpu", "gpu"))
    parser.option("--dtype", "float32", "The dtype of the arithmetic: float32, float64 or float16, which is slow on a CPU.",
                  one_of("float32", "float64", "float16"))  # fmt: skip


def sampling(options: argparse.Namespace) -> dict:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram")
    return {name: getattr(options, name) for name in names}


def load(options: argparse.Namespace) -> tinyplm.Model:
    """The model of a folder, or of a run of examples/pretrain.py the best one, or the latest if none was evaluated yet."""
    path = model_folder(options.folder)
    if (path / incremental.FILE).is_file():
        raise ValueError(f"{path}: holds only what changed since another checkpoint, expected a full one; "
                         f"tinyplm.training.incremental.replay({str(path)!r}, FOLDER) makes one of it")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is no tokenizer: text_tokenizer() says it
        return tinyplm.load(path, dtype=options.dtype, device=options.device).for_decoding()


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("folder", help="A folder with config.json, model.safetensors and tokenizer.json, or a run's --out.")
    parser.option("--prompt", [""], "The beginnings of texts.", nargs="+", otherwise="the beginning of a document")
    parser.option("--tokens", 120, "The number of tokens to add at most.", whole(1))
    parser.option("--samples", 1, "The number of texts for each prompt.", whole(1))
    parser.option("--stop", [], r"End before one of these texts; \n is a line break.", nargs="+", otherwise="none")
    parser.flag("--show-log-probabilities", "Show each token with its log-probability in nats, too.")
    sampling_options(parser)
    return parser


def main() -> None:
    options = parser().options()
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
    begin_time = time.perf_counter()
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
    seconds = time.perf_counter() - begin_time
    for text in texts:
        print("\n" if alone else f"{options.prompt[text.prompt]}{text.text}\n")
        if options.show_log_probabilities:
            for token, log_p in zip(text.ids, text.log_probabilities):
                print(f"{log_p:>10.4f}  {tokenizer.decode([token])!r}")
            print(f"{sum(text.log_probabilities):>10.4f}  in all\n")
    count = sum(len(text.ids) for text in texts)
    print(f"{count} tokens in {seconds:.1f} s, {count / seconds:.0f} a second", file=sys.stderr)


if __name__ == "__main__":
    start(main)
