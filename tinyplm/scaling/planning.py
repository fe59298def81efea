"""From a budget to sizes, batch, rate, time, energy and carbon.

    seconds = C / (devices * peak * utilisation)        C = 6 N D FLOPs, peak in FLOP/s a device
    kWh     = device-hours * watts / 1000 * PUE         PUE: power of building / devices
    kg      = kWh * intensity                           kg CO2e a kWh

Patterson et al. 2021, "Carbon Emissions and Large Neural Network Training", sec. 2; Touvron et
al. 2023 (LLaMA), table 15 and its caption: 400 W, PUE 1.1, 0.385 kg a kWh.

A plan has one proposal by each law:

    chinchilla   Hoffmann et al. 2022, table 3 (about 20 tokens a parameter)
    besiroglu    the optimum of Besiroglu et al.'s law
    kaplan       Kaplan et al. 2020: N = 1.3e9 C^0.73, with D = C / 6 N.  N is without embeddings
    inference    with a demand: the size that reaches besiroglu's loss with the least training and
                 use together (Sardana et al. 2023); it trains longer than the budget

`memory` takes a decoder like GPT-2 with 128 numbers of width a layer, as GPT-3 and LLaMA have about
(Brown et al. 2020, table 2.1; Touvron et al. 2023, table 2), so that N = 12 L D^2 = 3 D^3 / 32.

Batch and rate: training/presets.py; lr_deepseek: laws.py.  Losses are those of the law `besiroglu`,
or with a corpus, for all proposals, those of Muennighoff et al. 2023.  They compare proposals of
one plan; other corpora and tokenizers have other losses.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..arguments import MOST, check_number, check_whole, mismatch
from ..families import gpt2
from ..training.presets import batch_tokens, learning_rate_of
from . import chinchilla, laws
from .activations import training_memory


def seconds(flops: float, *, devices: float = 1, peak: float, utilisation: float = 1.0) -> float:
    """Seconds of a run: flops / (devices * peak * utilisation).  peak: FLOP/s of a device."""
    for name, value in (("flops", flops), ("devices", devices), ("peak", peak)):
        check_number(name, value, above=0)
    check_number("utilisation", utilisation, above=0, most=1)
    return flops / (devices * peak * utilisation)


def energy(device_hours: float, *, watts: float, pue: float = 1.1) -> float:
    """kWh: device-hours * watts / 1000 * PUE."""
    check_number("device_hours", device_hours, least=0)
    check_number("watts", watts, above=0)
    check_number("pue", pue, least=1)
    return device_hours * watts / 1000 * pue


def carbon(kwh: float, *, intensity: float = 0.385) -> float:
    """kg CO2e of so many kWh.  intensity in kg a kWh; 0.385 is the mean of the USA in LLaMA's
    table 15."""
    check_number("kwh", kwh, least=0)
    check_number("intensity", intensity, least=0)
    return kwh * intensity


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One proposal of a plan."""

    law: str
    reason: str
    parameters: float
    tokens: float
    epochs: float | None  # of the corpus, where one is given
    flops: float
    loss: float  # nats a token, by the law of the plan
    batch: float  # tokens
    steps: int
    lr: float
    lr_deepseek: float


def plan(
    *,
    flops: float | None = None,
    loss: float | None = None,
    corpus: float | None = None,
    demand: float = 0,
) -> list[Sizes]:
    """Proposals for a budget of FLOPs, or for the least FLOPs that reach a loss.

    corpus: tokens that differ; demand: tokens read and written in use.  ValueError unless one of
    flops and loss is given, and for a loss that the law cannot reach.
    """
    if (flops is None) == (loss is None):
        raise mismatch("flops", "a budget, or else a loss", "both" if flops else "neither")
    check_number("flops", flops, least=1e9, most=1e40, or_none=True)
    check_number("corpus", corpus, least=1, or_none=True)
    check_number("demand", demand, least=0)
    law = chinchilla.BESIROGLU
    check_number("loss", loss, above=law.E, or_none=True)
    C = law.flops(loss) if loss is not None else flops
    assert C is not None
    check_number("the FLOPs that this loss needs", C, least=1e9, most=1e40)
    N = laws.optimum(C)["N"]
    chosen = [
        ("chinchilla", "approach 1, table 3: N ∝ C^0.498", *chinchilla.table_optimum(C)),
        ("besiroglu", "the optimum of the re-fitted law", *law.optimum(C)),
        ("kaplan", "N ∝ C^0.73, without embeddings", N, C / 6 / N),
    ]
    if demand:
        aim = law.loss(*law.optimum(C))
        text = f"the loss of besiroglu with the least training and use of {demand:.3g} tokens"
        chosen.append(("inference", text, *chinchilla.inference_optimal(law, aim, demand)))
    return [_sizes(*each, corpus) for each in chosen]


def memory(parameters: float, *, length: int = 1024, checkpointing: int = 0) -> dict[str, int]:
    """Bytes at the peak of a step of one text of `length` tokens, in float32 with AdamW, by part.

    -> {"weights", "gradients", "moments", "activations", "logits"}: the first three of `parameters`
    N; the others of GPT-2 with D = (32 N / 3)^(1/3), a multiple of 64, and L = N / 12 D^2, with the
    arrays that a step holds only for a while among its activations (activations.py).
    """
    check_number("parameters", parameters, least=1, most=1e18)
    check_whole("length", length, 1, MOST)
    D = 64 * max(1, round((32 * parameters / 3) ** (1 / 3) / 64))
    L = max(1, round(parameters / 12 / D**2))
    config = gpt2.Config(n_embd=D, n_layer=L, n_head=D // 64, n_positions=length)
    sizes: dict[str, Any] = {"batch": 1, "length": length, "checkpointing": checkpointing}
    found = training_memory(gpt2, config, **sizes)
    each = round(4 * parameters)
    return {
        **{"weights": each, "gradients": each, "moments": 2 * each},
        **{"activations": found["activations"] + found["temporary"], "logits": found["logits"]},
    }


def _sizes(law: str, reason: str, N: float, D: float, corpus: float | None) -> Sizes:
    C, epochs = 6 * N * D, None if corpus is None else D / corpus
    if corpus is None:
        loss = chinchilla.BESIROGLU.loss(N, D)
    else:
        loss = chinchilla.constrained_loss(N, D, corpus)
    batch = min(batch_tokens(C), D)
    rates = learning_rate_of(max(1, round(N))), laws.deepseek_rate(C)
    return Sizes(law, reason, N, D, epochs, C, loss, batch, max(1, round(D / batch)), *rates)
