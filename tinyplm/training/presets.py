"""Proposals of a run: width, depth, batch, steps and rates for a corpus, a machine and some hours.

What is proposed, for a decoder with L layers of width D and a vocabulary of V tokens:

Depth.      L = D / 64, the ratio of GPT-2's and GPT-3's smallest models, at least 2.  At a fixed
            number of parameters the loss changes by a few percent while D / L varies by a factor of
            40 (Kaplan et al. 2020, fig. 5).  At most (ln D - 5.04) / 0.0555: more is wasted (Levine
            et al. 2020, eq. 10).  Heads are 64 wide, at least two.
Parameters  N = 12 L D^2 + V D: four matrices of attention, two of an MLP 4 times as wide, and the
            tied head.
FLOPs       of a training token: c = 6 N + 6 L T D with T tokens of context, the second term being
            attention (Kaplan et al. 2020, table 1: 2 N + 2 L T D forward, twice that backward).
Tokens      20 N, the optimum of a fixed budget (Hoffmann et al. 2022, table 3), but at most 4
            epochs of the corpus: up to there repeated tokens are worth nearly as much as new ones
            (Muennighoff et al. 2023, sec. 6).
Size        by hours: the largest D with c * tokens <= C, where C = hours * FLOP/s is the budget.
            Where the corpus limits the tokens, more compute goes into parameters, up to 16.9 times
            U / 20 with U unique tokens, those of one epoch; there one more is worth 1/e^3 or 5% of
            the first (ibid., sec. 3: R*_N = 5.3, and 16.9 = 1 + 3 R*_N).
Batch       0.292 C^0.327 tokens (DeepSeek-AI 2024, eq. 1), but small enough for 2000 updates, and
            at least 8 sequences.  Both bounds are ours: the law was fitted above 10^17 FLOPs, and
            in our runs of 10^12 to 10^13 smaller batches were too noisy for the rate below.
Rate        0.003239 - 0.0001395 ln N, at least 1e-4 (Kaplan et al. 2020, eq. D.1).
Warm-up     2 / (1 - beta2) updates, the memory of AdamW's second moment (Ma & Yarats 2021), or 1.2%
            of the updates if that is more (Kaplan et al. 2020: 3000 of 250,000); at most a tenth.

These are starting points.  The laws were fitted to models of 10^6 to 10^10 parameters.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import MOST, check_choice, check_function, check_number, check_whole, wrong
from ..memory import keep_freed_memory
from ..models.model import Model, check_model
from .settings import Settings, optimizer_of
from .step import update

# name: (layers, width, heads)
SIZES = {
    "tiny": (2, 64, 2),
    "mini": (4, 128, 2),
    "small": (2, 256, 4),
    "medium": (6, 384, 6),
    "large": (8, 512, 8),
}
TOKENS_PER_PARAMETER = 20
EPOCHS = 4
EXCESS = 16.9  # parameters / those that the unique tokens call for
UPDATES = 2000  # at least, where the batch allows it
SEQUENCES = 8  # of a batch, at least
SHARE = 0.9  # of the hours; the rest is for evaluation, saving and the report
WIDEST = 16384
LARGEST = 10**18  # of tokens


def parameters(layers: int, width: int, vocab_size: int) -> int:
    """N = 12 L D^2 + V D."""
    return 12 * layers * width**2 + vocab_size * width


def flops_per_token(layers: int, width: int, vocab_size: int, context: int) -> int:
    """FLOPs of a training token, forward and backward: c = 6 N + 6 L T D."""
    return 6 * parameters(layers, width, vocab_size) + 6 * layers * context * width


@dataclasses.dataclass(frozen=True)
class Proposal:
    """The settings of a run; `reasons` says for each field why it has its value."""

    layers: int
    width: int
    heads: int
    batch: int  # sequences per step
    steps: int
    lr: float
    warmup: int
    parameters: int
    tokens: int  # seen in training
    flops: float
    seconds: float | None  # of training; None: no speed is known
    reasons: dict[str, str] = dataclasses.field(compare=False)


def preset(
    size: str | tuple[int, int, int],
    *,
    corpus_tokens: int,
    vocab_size: int,
    context: int,
    hours: float | None = None,
    flop_per_second: float | None = None,
    tokens_per_parameter: float | None = TOKENS_PER_PARAMETER,
    beta2: float = 0.95,
) -> Proposal:
    """A proposal by the rules at the top of this module.

    size: a name of SIZES; (layers, width, heads); or "auto", the largest that hours call for
    corpus_tokens: of the training text
    hours: the most that the run may take, of which training gets 90%; None: as long as the tokens
    need
    flop_per_second: the speed of training on this machine, see measured_speed; needed with hours
    tokens_per_parameter: None: as many tokens as hours and corpus allow.  So it is for "auto", too,
    whose widths are multiples of 64: its tokens use what the next width would exceed
    ValueError if not even two layers of width 64 and one step fit into the hours.
    """
    _check(size, corpus_tokens, vocab_size, context, hours, flop_per_second, tokens_per_parameter)
    budget = None
    if hours is not None and flop_per_second is not None:
        budget = SHARE * 3600 * hours * flop_per_second
    most = EPOCHS * corpus_tokens
    if size == "auto" and budget is not None:
        layers, width, heads = _largest(budget, corpus_tokens, vocab_size, context)
        tokens_per_parameter = None
    else:
        layers, width, heads = SIZES[size] if isinstance(size, str) else size
    count = parameters(layers, width, vocab_size)
    each = flops_per_token(layers, width, vocab_size, context)
    limits = {f"{EPOCHS} epochs of the corpus": float(most)}
    if tokens_per_parameter is not None:
        limits[f"{tokens_per_parameter:g} tokens per parameter"] = tokens_per_parameter * count
    if budget is not None:
        limits["the hours"] = budget / each
    limit = min(limits, key=lambda name: limits[name])
    batch = _batch(limits[limit], each, context)
    steps = int(limits[limit] // (batch * context))
    if steps < 1:
        name, given = ("hours", hours) if limit == "the hours" else ("corpus_tokens", corpus_tokens)
        raise wrong(name, f"enough for a step of {batch * context} tokens", given)
    tokens = steps * batch * context
    reasons = {
        "layers": "width / 64, at least 2, at most (ln width - 5.04) / 0.0555",
        "width": f"the largest whose {TOKENS_PER_PARAMETER} tokens per parameter, at most {EPOCHS} "
        "epochs, fit into the hours",
        "heads": "64 wide, at least two",
        "batch": f"{batch * context} tokens: 0.292 C^0.327, or fewer for {UPDATES} updates, but "
        f"at least {SEQUENCES} sequences",
        "steps": f"limited by {limit}: {tokens / count:.1f} tokens per parameter, "
        f"{tokens / corpus_tokens:.1f} epochs",
        "lr": "0.003239 - 0.0001395 ln N",
        "warmup": "2 / (1 - beta2) updates, or 1.2% of them, at most a tenth",
    }
    if size != "auto":
        given_size = f"the size {size}" if isinstance(size, str) else "given"
        reasons |= dict.fromkeys(("layers", "width", "heads"), given_size)
    flops = float(tokens * each)
    seconds = None if flop_per_second is None else flops / flop_per_second
    rates = learning_rate_of(count), warmup_steps(steps, beta2)
    found = (layers, width, heads, batch, steps, *rates, count, tokens)
    return Proposal(*found, flops=flops, seconds=seconds, reasons=reasons)


def _check(
    size: Any,
    corpus_tokens: Any,
    vocab_size: Any,
    context: Any,
    hours: Any,
    flop_per_second: Any,
    tokens_per_parameter: Any,
) -> None:
    if isinstance(size, str):
        check_choice("size", size, ["auto", *SIZES])
    elif not isinstance(size, tuple) or len(size) != 3:
        raise wrong("size", "a name, or (layers, width, heads)", size)
    else:
        for name, value in zip(("layers", "width", "heads"), size):
            check_whole(name, value, 1, MOST)
    counts = {"corpus_tokens": corpus_tokens, "vocab_size": vocab_size, "context": context}
    for name, value in counts.items():
        check_whole(name, value, 1, LARGEST)
    numbers = {"hours": hours, "flop_per_second": flop_per_second}
    for name, value in {**numbers, "tokens_per_parameter": tokens_per_parameter}.items():
        check_number(name, value, above=0, or_none=True)
    if hours is not None and flop_per_second is None:
        raise wrong("flop_per_second", "the measured speed, since hours are given", None)
    if size == "auto" and hours is None:
        raise wrong("hours", "a number, since the size is to be found", None)


def learning_rate_of(parameters: int) -> float:
    """0.003239 - 0.0001395 ln N, at least 1e-4; to two digits.    Kaplan et al. 2020, eq. D.1"""
    check_whole("parameters", parameters, 1, LARGEST)
    return float(f"{max(1e-4, 0.003239 - 0.0001395 * math.log(parameters)):.1e}")


def batch_tokens(flops: float) -> float:
    """Tokens of a batch for a run of so many FLOPs: 0.292 C^0.3271.    DeepSeek-AI 2024, eq. 1"""
    check_number("flops", flops, above=0)
    return 0.292 * flops**0.3271


def warmup_steps(steps: int, beta2: float = 0.95) -> int:
    """max(2 / (1 - beta2), 0.012 steps), at most a tenth of the steps.        Ma & Yarats 2021"""
    check_whole("steps", steps, 1, LARGEST)
    check_number("beta2", beta2, least=0, below=1)
    return min(steps // 10, max(round(2 / (1 - beta2)), round(0.012 * steps)))


def _shape(width: int) -> tuple[int, int, int]:
    useful = int((math.log(width) - 5.04) / 0.0555)
    return max(2, min(width // 64, useful)), width, max(2, width // 64)


def _largest(budget: float, unique: int, vocab_size: int, context: int) -> tuple[int, int, int]:
    best = _shape(64)
    for width in range(128, WIDEST + 1, 64):
        layers, _, _ = shape = _shape(width)
        count = parameters(layers, width, vocab_size)
        tokens = min(TOKENS_PER_PARAMETER * count, EPOCHS * unique)
        needed = flops_per_token(layers, width, vocab_size, context) * tokens
        if needed > budget or count > EXCESS * unique / TOKENS_PER_PARAMETER:
            break
        best = shape
    return best


def _batch(tokens: float, each: int, context: int) -> int:
    most = min(batch_tokens(tokens * each), tokens / UPDATES)
    return max(SEQUENCES, int(most // context))


def measured_speed(model: Model, settings: Settings, *, steps: int = 10) -> float:
    """Tokens per second of training `model`, a decoder: the median of some steps on random ids.

    The model's parameters stay as they are.  The first two steps are not counted: they allocate.
    """
    check_model("model", model)
    model.check_causal()
    if not isinstance(settings, Settings):
        raise wrong("settings", "Settings", settings)
    check_whole("steps", steps, 3, 1000)
    keep_freed_memory()
    shape = (settings.batch_size, settings.sequence_length + 1)
    ids = np.random.default_rng(settings.seed).integers(0, model.config.vocab_size, shape)
    optimizer = optimizer_of(model.params, settings)
    trained = model.with_params(optimizer.params)
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        loss, _ = update(trained, optimizer, ids[:, :-1], ids[:, 1:], settings=settings, step=0)
        float(loss)  # a GPU has finished then
        seconds.append(time.perf_counter() - begin)
    return settings.batch_size * settings.sequence_length / statistics.median(seconds[2:])


def propose(
    make: Callable[[int, int, int], Model],
    size: str | tuple[int, int, int],
    settings: Settings,
    *,
    corpus_tokens: int,
    vocab_size: int,
    hours: float | None = None,
) -> Proposal:
    """`preset` with the speed of this machine, measured with ten steps; with the proposed model and
    batch again if they are others.

    make(layers, width, heads): a model with random parameters
    settings: of a run; its context, workers, device, optimiser and betas are used
    """
    check_function("make", make)
    if not isinstance(settings, Settings):
        raise wrong("settings", "Settings", settings)
    context = settings.sequence_length

    def speed(shape: tuple[int, int, int], batch: int) -> float:
        own = dataclasses.replace(settings, batch_size=batch, micro_batch_size=None)
        each = flops_per_token(shape[0], shape[1], vocab_size, context)
        return measured_speed(make(*shape), own) * each

    def proposal(size: str | tuple[int, int, int], speed: float, per: float | None) -> Proposal:
        return preset(
            size,
            corpus_tokens=corpus_tokens,
            vocab_size=vocab_size,
            context=context,
            hours=hours,
            flop_per_second=speed,
            tokens_per_parameter=per,
            beta2=settings.beta2,
        )

    auto = isinstance(size, str) and size == "auto"
    per = None if auto else TOKENS_PER_PARAMETER
    proposal(size, 1e30, per)  # refuses wrong arguments before any work
    start, batch = "small" if auto else size, settings.batch_size
    first = SIZES[start] if isinstance(start, str) else start
    found = proposal(size, speed(first, batch), per)
    shape = (found.layers, found.width, found.heads)
    if (shape, found.batch) == (first, batch):
        return found
    final = proposal(shape, speed(shape, found.batch), per)
    reasons = {name: found.reasons[name] for name in ("layers", "width", "heads")}
    return dataclasses.replace(final, reasons={**final.reasons, **reasons})
