"""Fill gaps in a text: a GLM and a T5 pretrained on the same tokens, beside a trigram.

    python examples/infill.py                       # about five minutes on two cores
    python examples/infill.py --text my-book.txt    # your own text
    python examples/infill.py --steps 8000          # longer training

A small GLM (blank infilling), a small T5 (span corruption) and a LLaMA (the next token) are trained
on equally many windows of the same tokens, with as large a share blanked and spans of the same mean
length in the first two.  Then

    gaps            of 1 to 6 tokens in held-out text are filled by GLM and T5, which decide where a
                    fill ends, and by a trigram that is told the length of the gap: the most
                    probable tokens given two on each side, by Kneser-Ney from the training tokens
    continuations   of held-out text by the GLM, which reads what comes before [gMASK] in both
                    directions, and by the LLaMA, which reads it from left to right

A fill is right if all its tokens are.  The picture shows the share of right fills by length.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import run_options, start, text_option
from encoder_decoders import layout_of
from encoder_decoders import sized as sized_t5

import tinyplm
from tinyplm.cli.decoders import sized, small_llama
from tinyplm.cli.folders import unused
from tinyplm.cli.output import save_plot
from tinyplm.cli.parser import POSITIVE, Parser, number, whole
from tinyplm.data import corpus
from tinyplm.data.corpus import deduplicate, read_texts, split_documents
from tinyplm.data.packing import pack
from tinyplm.evaluation import InterpolatedKneserNey
from tinyplm.families import glm_2021
from tinyplm.generation.blanks import blank_tokens
from tinyplm.models.causal_model import CausalModel
from tinyplm.objectives import (
    InfilledDocuments,
    SpanCorruptedWindows,
    blank_infilling,
    named_sentinels,
    noise_counts,
)
from tinyplm.objectives.spans import span_lengths
from tinyplm.tokenizers import Tokenizer
from tinyplm.training import loop
from tinyplm.training.samples import FixedBatches
from tinyplm.training.settings import Settings

LENGTHS = (1, 2, 3, 4, 6)
MORE = 4  # tokens that a fill may have beyond the longest gap
BEAM = 4  # of the trigram
CONTINUED = 64  # windows, at most, whose second halves are scored
END = "</s>"
PIECES = ["[CLS]", "[MASK]", "[gMASK]", "<|startofpiece|>", "<|endofpiece|>"]
NAMES = ("GLM", "T5", "trigram")


# ------------------------------------------------------------------------------------------ models


def prepare(options: argparse.Namespace) -> tuple[Tokenizer, np.ndarray, np.ndarray, int]:
    """The tokenizer of all models, the tokens to train on and those held out, tokens of a window.

    The window is the text that fills T5's inputs; it has --window tokens or a few more.
    """
    texts = deduplicate(read_texts(options.text)) if options.text else corpus.default_corpus()
    training, held_out = split_documents(texts, options.validation, options.seed)
    noise = {"density": options.density, "mean_span": options.mean_span}
    length = next(n for n in range(3, 2**20) if span_lengths(n, **noise)[0] >= options.window)
    window = span_lengths(length, **noise)[0]
    spans = noise_counts(window, **noise)[1] + 1
    sentinels = [f"<extra_id_{n}>" for n in range(spans)]
    special = [END, "<pad>", "<unk>", *PIECES, *sentinels]
    tokenizer = Tokenizer.train(training, options.vocabulary, special, kind="Unigram")
    end, size = tokenizer.vocab[END], tokenizer.vocab_size
    parts = [pack(tokenizer.encode_batch(part), end, size) for part in (training, held_out)]
    least = window + LENGTHS[-1]
    if len(parts[1]) < least:
        raise ValueError(f"--text: expected {least} held-out tokens or more, got {len(parts[1])}")
    return tokenizer, parts[0], parts[1], window


def make(options: argparse.Namespace, tokenizer: Tokenizer, window: int) -> dict[str, Any]:
    """The three models, untrained."""
    shape = {"layers": options.layers, "width": options.width, "heads": options.heads}
    longest = glm_length(options, window)
    size = tokenizer.vocab_size
    # GLM and LLaMA have as many layers as both sides of T5 together
    tall = {**shape, "layers": 2 * options.layers}
    glm = tinyplm.create(
        "glm_2021", sized(glm_2021, vocab_size=size, context=longest, **tall), key=options.seed
    )
    t5 = tinyplm.create("t5", sized_t5("t5", tokenizer, context=window, **shape), key=options.seed)
    glm.tokenizer = t5.tokenizer = tokenizer
    del tall["heads"]
    llama = small_llama(tokenizer, context=window, key=options.seed, **tall)
    return {"GLM": glm, "T5": t5, "LLaMA": llama}


def glm_length(options: argparse.Namespace, window: int) -> int:
    """The tokens of a sample: [CLS], the window, and two more for each blank."""
    return 1 + window + 2 * int(np.ceil(options.density * window))


def samples(
    name: str, model: Any, tokens: np.ndarray, options: argparse.Namespace, window: int, seed: int
) -> Any:
    """Windows of the tokens with blanks; None for a decoder, which trains on the tokens."""
    spans: dict[str, Any] = {"mean_span": options.mean_span, "seed": seed}
    if name == "GLM":
        shares = {"spans": 1 - options.documents, "document": options.documents}
        own = {"tokens": blank_tokens(model), "shares": shares, "rate": options.density}
        return InfilledDocuments(tokens, glm_length(options, window), **own, **spans)
    noise, count = noise_counts(window, density=options.density, mean_span=options.mean_span)
    sentinels = named_sentinels(model.tokenizer.vocab)
    own = {"layout": layout_of("t5", model.tokenizer), "sentinels": sentinels}
    length = window - noise + count + 1
    return SpanCorruptedWindows(tokens, length, density=options.density, **own, **spans)


def train(
    name: str, model: Any, parts: Sequence[np.ndarray], options: argparse.Namespace, window: int
) -> float:
    """Train it; the seconds that took."""
    data: list[Any] = list(parts)
    length = window
    if name != "LLaMA":
        data = [samples(name, model, parts[0], options, window, options.seed)]
        length = data[0].length
        data.append(FixedBatches(samples(name, model, parts[1], options, window, 1), 32))
    adafactor = name == "T5"  # as in pretrain_t5.py, which says why
    settings = Settings(
        steps=options.steps,
        batch_size=options.batch,
        sequence_length=length,
        optimizer="adafactor" if adafactor else "adamw",
        learning_rate=options.t5_lr if adafactor else options.lr,
        schedule="linear",
        warmup=min(100, options.steps // 4),
        weight_decay=0.0,
        seed=options.seed,
        workers=options.workers,
        evaluate_every=options.steps,
        save_every=options.steps,
        keep=1,
    )
    begin = time.perf_counter()
    folder = Path(options.out) / name
    state = loop.train(model, *data, settings, out=folder, progress=False)
    if state.signal is not None:  # training ends in order, and nothing is to follow
        raise KeyboardInterrupt
    return time.perf_counter() - begin


# -------------------------------------------------------------------------------------------- gaps


def draw_gaps(
    tokens: np.ndarray, window: int, length: int, count: int, seed: int, end: int
) -> list[tuple[list[int], list[int], list[int]]]:
    """Texts of `window` tokens as (before, gap, after), the gap of `length` tokens in their middle
    half.  No gap or its neighbour is the end of a document."""
    rng = np.random.default_rng([seed, length])
    found: list[tuple[list[int], list[int], list[int]]] = []
    for _ in range(100 * count):
        if len(found) == count:
            break
        text = tokens[(at := int(rng.integers(len(tokens) - window + 1))) : at + window].tolist()
        a = window // 4 + int(rng.integers(max(1, window // 2 - length + 1)))
        if end not in text[a - 2 : a + length + 2]:
            found.append((text[:a], text[a : a + length], text[a + length :]))
    if len(found) < count:
        raise ValueError(f"--gaps: expected at most {len(found)} of {length} tokens, got {count}")
    return found


def fills(name: str, model: Any, gaps: list, batch: int = 32) -> list[list[int]]:
    """What the model writes into each gap, with the most probable token each time."""
    vocab = model.tokenizer.vocab
    found: list[list[int]] = []
    for first in range(0, len(gaps), batch):
        some = gaps[first : first + batch]
        if name == "GLM":
            prompts = [[vocab["[CLS]"], *a, vocab["[MASK]"], *b] for a, _, b in some]
        else:
            prompts = [[*a, vocab["<extra_id_0>"], *b, vocab[END]] for a, _, b in some]
        most = LENGTHS[-1] + MORE
        for one in tinyplm.fill(model, prompts, max_new_tokens=most, temperature=0.0):
            found.append(one.blanks[0].ids)
    return found


class Trigram:
    """The most probable tokens of a gap given two on each side, found by beam search."""

    def __init__(self, tokens: np.ndarray, size: int) -> None:
        self.model, self.size = InterpolatedKneserNey(3).fit(tokens, size), size

    def next(self, before: np.ndarray) -> np.ndarray:
        """log p (N, V) of each token after two, before (N, 2)."""
        rows = np.empty((len(before), self.size, 3), np.int64)
        rows[..., :2], rows[..., 2] = before[:, None], np.arange(self.size)
        return np.append(0.0, self.model.log_prob(rows.reshape(-1))).reshape(rows.shape)[..., 2]

    def fill(self, before: Sequence[int], after: Sequence[int], length: int) -> list[int]:
        texts, scores = np.array([before[-2:]]), np.zeros(1)
        for _ in range(length):
            ranked = (scores[:, None] + self.next(texts[:, -2:])).reshape(-1)
            best = np.argsort(-ranked, kind="stable")[: BEAM * BEAM]
            new = (best % self.size)[:, None]
            texts, scores = np.concatenate([texts[best // self.size], new], axis=1), ranked[best]
            both = [np.append(text[-2:], after[:2]) for text in texts]
            ahead = np.array([self.model.log_prob(row)[1:].sum() for row in both])
            kept = np.argsort(-(scores + ahead * (texts.shape[1] == length + 2)))[:BEAM]
            texts, scores = texts[kept], scores[kept]
        return texts[0, 2:].tolist()


def judged(found: dict[str, list[list[int]]], gaps: list) -> dict[str, np.ndarray]:
    """Of each filler, which gaps it fills with the very tokens."""
    return {
        name: np.array([ids == gap for ids, (_, gap, _) in zip(all_ids, gaps)])
        for name, all_ids in found.items()
    }


def compared(right: np.ndarray, other: np.ndarray) -> str:
    """ "ahead", "behind" or "no clear difference", by the gaps that one alone fills: more than two
    standard errors of their number if both were equally good (McNemar 1947)."""
    alone, beside = int((right & ~other).sum()), int((other & ~right).sum())
    clear = abs(alone - beside) > 2 * (alone + beside) ** 0.5
    verdict = ("ahead" if alone > beside else "behind") if clear else "no clear difference"
    return f"{verdict} ({alone} gaps that it alone fills, {beside} that it alone does not)"


def report_gaps(models: dict[str, Any], parts: Sequence[np.ndarray], options: Any, W: int) -> None:
    """Print the table and some fills, and draw the picture."""
    tokenizer = models["GLM"].tokenizer
    end, size = tokenizer.vocab[END], tokenizer.vocab_size
    trigram = Trigram(parts[0], size)
    table: dict[int, dict[str, np.ndarray]] = {}
    shown: list[str] = []
    for length in LENGTHS:
        gaps = draw_gaps(parts[1], W, length, options.gaps, options.seed, end)
        found = {name: fills(name, models[name], gaps) for name in ("GLM", "T5")}
        found["trigram"] = [trigram.fill(a, b, length) for a, _, b in gaps]
        table[length] = judged(found, gaps)
        shown += [show(tokenizer, gaps[n], found, n) for n in range(min(options.shown, len(gaps)))]
    print(f"\nRight fills of {options.gaps} gaps each, of held-out text:\n")
    print(f"{'tokens':>6}" + "".join(f"{name:>10}" for name in NAMES))
    for length, right in table.items():
        print(f"{length:>6}" + "".join(f"{right[name].mean():>10.1%}" for name in NAMES))
    every = {n: np.concatenate([right[n] for right in table.values()]) for n in NAMES}
    print()
    for a, b in (("GLM", "trigram"), ("T5", "trigram"), ("GLM", "T5")):
        print(f"{a} against {b}: {compared(every[a], every[b])}")
    print("\n" + "\n\n".join(shown) + "\n" if shown else "")

    def panel(axes: Any) -> None:
        for name, mark in zip(NAMES, "os^"):
            axes.plot(LENGTHS, [table[n][name].mean() for n in LENGTHS], marker=mark, label=name)
        axes.set(
            title="gaps filled exactly", xlabel="tokens of the gap", ylabel="share", ylim=(0, None)
        )
        axes.legend()

    save_plot(Path(options.out) / "infill.png", panel, size=(6, 4))


def show(tokenizer: Tokenizer, gap: tuple, found: dict[str, list[list[int]]], n: int) -> str:
    """A gap with its neighbourhood, and what each makes of it."""
    before, right, after = gap
    around = tokenizer.decode(before[-12:]), tokenizer.decode(right, after=before)
    lines = [
        f"text       ...{around[0]}[{around[1]}]{tokenizer.decode(after[:12], after=right)}..."
    ]
    lines += [f"{name:<11}[{tokenizer.decode(found[name][n], after=before)}]" for name in NAMES]
    return "\n".join(line.replace("\n", "\\n") for line in lines)


# ----------------------------------------------------------------------------------- continuations


def report_continued(models: dict[str, Any], tokens: np.ndarray, options: Any, W: int) -> None:
    """One text continued by the GLM and the LLaMA; and what both make of the true continuations."""
    glm, llama, half = models["GLM"], models["LLaMA"], W // 2
    tokenizer = glm.tokenizer
    starts = range(0, len(tokens) - W + 1, W)
    texts = np.array([tokens[at : at + W] for at in starts][:CONTINUED]).astype(np.int64)
    losses = {"GLM": glm_loss(glm, texts, half), "LLaMA": llama_loss(llama, texts, half)}
    text, vocab = texts[len(texts) // 2].tolist(), tokenizer.vocab
    common: dict[str, Any] = {"temperature": 0.7, "seed": options.seed, "max_new_tokens": W - half}
    [filled] = tinyplm.fill(glm, [vocab["[CLS]"], *text[:half], vocab["[gMASK]"]], **common)
    [continued] = tinyplm.generate(llama, text[:half], **common)
    ids = {"held-out": text[half:], "GLM": filled.blanks[0].ids, "LLaMA": continued.ids}
    print(f"\n{'text':<11}{_line(tokenizer, text[:half], [])}")
    for name, some in ids.items():
        print(f"{name:<11}{_line(tokenizer, some, text[:half])}")
    names = sorted(losses, key=losses.__getitem__)
    numbers = ", ".join(f"{name} {losses[name]:.3f}" for name in names)
    print(f"\nSecond halves of {len(texts)} windows, nats per token: {numbers}")


def glm_loss(model: CausalModel, texts: np.ndarray, half: int) -> float:
    """Nats per token of the second halves, filled in for [gMASK], without the end of the piece."""
    tokens, W = blank_tokens(model), texts.shape[1]
    span = np.array([[half, W]])
    made = [blank_infilling(row, span, [0], tokens=tokens, kind="document") for row in texts]
    inputs = {
        "input_ids": np.stack([one.input_ids for one in made]),
        "position_ids": np.stack([one.position_ids for one in made]),
        "prefix_lengths": np.array([one.prefix for one in made]),
    }
    targets = np.stack([one.targets for one in made])
    targets[:, -1] = -100
    return float(model.loss(targets={"logits": targets}, grad=False, **inputs)[0])


def llama_loss(model: CausalModel, texts: np.ndarray, half: int) -> float:
    """Nats per token of the second halves."""
    targets = texts[:, 1:].copy()
    targets[:, : half - 1] = -100
    return float(model.loss(targets={"logits": targets}, grad=False, input_ids=texts[:, :-1])[0])


def _line(tokenizer: Tokenizer, ids: list[int], after: list[int]) -> str:
    return tokenizer.decode(ids, after=after).replace("\n", "\\n")


# ---------------------------------------------------------------------------------------- all of it


def main() -> None:
    options = parser().options()
    if options.width % options.heads or options.width // options.heads % 2:
        raise ValueError(f"--heads: expected heads of even width in {options.width}")
    unused(options.out)
    tokenizer, *parts, window = prepare(options)
    models = make(options, tokenizer, window)
    seen = options.steps * options.batch * window
    print(f"Each sees {seen:,} tokens of text, in windows of {window}:\n")
    for name, model in models.items():
        seconds = train(name, model, parts, options, window)
        print(f"{name:<6} {model.parameter_count():>10,} parameters {seconds:>6.0f} s", flush=True)
    report_gaps(models, parts, options, window)
    report_continued(models, parts[1], options, window)


def parser() -> Parser:
    parser = Parser(__doc__)
    option = parser.option
    text_option(parser)
    option("--steps", 800, "Training steps of each model.", whole(1))
    option("--batch", 32, "Windows per step.", whole(1))
    option("--window", 48, "Tokens of a window of text, or a few more.", whole(16))
    option("--density", 0.3, "Share of the text that is blanked.", number(above=0.0, most=0.5))
    option("--mean-span", 3.0, "Mean length of a blank.", number(least=1.0, most=100.0))
    share = "Share of GLM's samples with one long blank instead, [gMASK]."
    option("--documents", 0.2, share, number(above=0.0, below=1.0))
    option("--vocabulary", 1024, "Vocabulary size of the tokenizer.", whole(300))
    option("--layers", 2, "Layers of each side of T5; GLM and LLaMA have twice as many.", whole(1))
    option("--width", 128, "Width of the models.", whole(8))
    option("--heads", 4, "Heads.", whole(1))
    option("--lr", 2e-3, "Peak learning rate of GLM and LLaMA (AdamW).", POSITIVE)
    option("--t5-lr", 5e-2, "That of T5, relative to a parameter's size (Adafactor).", POSITIVE)
    held_out = "Share of the text held out."
    option("--validation", 0.05, held_out, number(above=0.0, below=1.0))
    option("--gaps", 150, "Gaps of each length.", whole(1))
    option("--shown", 1, "Gaps of each length that are shown.", whole())
    run_options(parser, "out-infill")
    return parser


if __name__ == "__main__":
    start(main)
