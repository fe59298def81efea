"""Sample text from any saved model: a folder as on the hub, or the run that made it.

    tinyplm generate --model out --prompt "Return the" --samples 3
    tinyplm generate --model out --prompt "def " "class " --temperature 0
    tinyplm generate --model out --prompt "def " --stop "\\n\\n" --show-log-probabilities
    tinyplm generate --model out --prompt "def " --beams 4 --samples 2
    tinyplm generate --model out-speculative/target --draft out-speculative/draft --prompt "def "
    tinyplm generate --model out-later --draft modules    # of pretrain --multi-token 1
    tinyplm generate --model out-translate --prompt "the old teacher helps the cat ." --beams 4

What an encoder-decoder writes for a prompt is printed below it. Its prompts may contain special
tokens, such as <extra_id_0> or <mask>.
"""

from __future__ import annotations

import argparse
import sys
import time

from ..generation import Continuation, DraftStatistics, beam_search, stream
from ..memory import keep_freed_memory
from ..models.model import Model
from ..models.seq2seq_model import Seq2SeqModel
from .parser import Parser, whole
from .sampling import open_writer, sampling, sampling_options


def add(parser: Parser) -> None:
    sampling_options(parser)
    parser.section("texts")
    parser.option(
        "--prompt", [""], "Texts to continue.", nargs="+", shown="the start of a document"
    )
    parser.option(
        "--tokens",
        None,
        "Maximum number of tokens to add.",
        whole(1),
        shown="120; for an encoder-decoder, at most its positions",
    )
    parser.option("--samples", 1, "Number of texts per prompt.", whole(1))
    parser.option(
        "--beams",
        None,
        "Search for the most probable texts with N beams, and print the --samples best; "
        "temperature, top-k, top-p, min-p and seed then have no effect.",
        whole(1, 1000),
        shown="sample",
    )
    parser.option(
        "--draft",
        None,
        "Folder of a smaller decoder with the same tokens, which proposes tokens that the model "
        "checks several at a time: the same distribution, sooner if the proposals are good. "
        '"modules": the model\'s own modules for later tokens.',
        metavar="FOLDER",
        shown="none",
    )
    parser.option("--draft-length", 4, "Number of tokens that the draft proposes.", whole(1))
    parser.option(
        "--stop",
        [],
        r"Stop before any of these texts; \n is a line break.",
        nargs="+",
        shown="none",
    )
    parser.flag(
        "--show-log-probabilities", "Also show each token with its log-probability in nats."
    )


def encoded(model: Model, prompt: str) -> list[int]:
    """The ids of a text to continue; for an encoder-decoder, those of a whole source."""
    tokenizer = model.text_tokenizer()
    if isinstance(model, Seq2SeqModel):
        return tokenizer.encode(prompt, allow_special=True, add_special_tokens=True)
    return tokenizer.prompt(prompt)


def shown(model: Model, prompt: str) -> str:
    """What is printed before a new text: it continues a prompt, but only answers a source."""
    return f"{prompt}\n" if isinstance(model, Seq2SeqModel) else prompt


def search(model: Model, prompts: list[list[int]], options: argparse.Namespace) -> None:
    """The most probable texts of each prompt, with their log-probabilities if asked for."""
    if options.stop:
        raise ValueError("--stop: expected none with --beams, which end at the model's end tokens")
    if options.draft is not None:
        raise ValueError("--draft: expected none with --beams, which need every probability")
    if options.samples > options.beams:
        raise ValueError(
            f"--samples: expected at most {options.beams} --beams, got {options.samples}"
        )
    names = ("beams", "repetition_penalty", "no_repeat_ngram")
    limits = {"max_new_tokens": options.tokens, "results": options.samples}
    for text in beam_search(
        model, prompts, **limits, **{name: getattr(options, name) for name in names}
    ):
        print(f"{shown(model, options.prompt[text.prompt])}{text.text}\n")
        if options.show_log_probabilities:
            print(f"{text.log_probability:>10.4f}  total, {text.score:.4f} a token\n")


def run(options: argparse.Namespace) -> None:
    keep_freed_memory()
    own = options.draft == "modules"
    model = open_writer(options.model, options, task="multi_token_lm" if own else None)
    tokenizer = model.text_tokenizer()
    prompts = [encoded(model, prompt) for prompt in options.prompt]
    begin = tokenizer.eos_id  # ends a document, and so starts one too
    if [] in prompts and begin is None:
        expected = "a text, since the tokenizer has no token to start a document"
        raise ValueError(f"--prompt: expected {expected}, got an empty one")
    prompts = [prompt or [begin] for prompt in prompts]
    if options.tokens is None:
        positions = model.config.context if isinstance(model, Seq2SeqModel) else None
        options.tokens = min(120, positions or 120)
    if options.beams is not None:
        return search(model, prompts, options)
    stops = [stop.replace("\\n", "\n") for stop in options.stop]
    alone = (
        len(prompts) * options.samples == 1
    )  # then it is streamed; several are printed at the end
    ends, counts = model.end_ids(), DraftStatistics()
    draft = options.draft
    if not (draft is None or own):
        draft = open_writer(draft, options, option="draft")
    begin_time = time.perf_counter()
    texts = [
        Continuation(n, [], [], "") for n in range(len(prompts)) for _ in range(options.samples)
    ]
    steps = stream(
        model,
        prompts,
        max_new_tokens=options.tokens,
        samples=options.samples,
        seed=options.seed,
        stop_ids=ends,
        stop_strings=stops,
        draft=draft,
        draft_length=options.draft_length,
        statistics=counts,
        **sampling(options),
    )
    if alone:
        print(shown(model, options.prompt[0]), end="", flush=True)
    for pieces in steps:
        for piece in pieces:
            texts[piece.row].add(piece, ends)
            if alone:
                print(piece.text, end="", flush=True)
    seconds = time.perf_counter() - begin_time
    for text in texts:
        print("\n" if alone else f"{shown(model, options.prompt[text.prompt])}{text.text}\n")
        if options.show_log_probabilities:
            for token, log_p in zip(text.ids, text.log_probabilities):
                print(f"{log_p:>10.4f}  {tokenizer.decode([token])!r}")
            print(f"{sum(text.log_probabilities):>10.4f}  total\n")
    if counts.passes:
        accepted = f"{counts.accepted} of {counts.checked} checked proposals accepted"
        print(f"{accepted}, {counts.tokens_per_pass:.2f} tokens per pass", file=sys.stderr)
    count = sum(len(text.ids) for text in texts)
    print(f"{count} tokens in {seconds:.1f} s, {count / seconds:.0f} per second", file=sys.stderr)
