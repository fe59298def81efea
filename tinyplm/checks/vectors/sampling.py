"""From logits to the distribution that is sampled, and the token that a uniform number chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...generation import sampling
from .draws import Draws
from .subject import Made, Result, Subject

# Of logits up to 60 divided by a temperature of 0.5, the exponent rounds by 60 times an epsilon.
ROUNDINGS = 256


def _distribution(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    settings = {n: value for n, value in keywords.items() if n != "u"}
    p = sampling.token_distribution(arguments["logits"], **settings)
    return Result({"output.probabilities": p, "output.ids": sampling.draw(p, keywords["u"])})


def _distribution_cases() -> list[Made]:
    rng = Draws(51)
    logits, u = rng.normal(0, 2, (6, 12)), rng.random(6)
    ties = np.round(logits)
    small = logits.copy()
    small[:, ::2] -= 50
    flat = np.full((6, 12), 0.25)
    cases: list[tuple[str, str, np.ndarray, dict[str, Any]]] = [
        ("plain", "", logits, {}),
        ("temperature", "", logits, {"temperature": 0.5}),
        ("hot", "a temperature above 1", logits, {"temperature": 3.0}),
        ("greedy", "temperature 0: all mass on the most probable token", logits,
         {"temperature": 0.0}),
        ("greedy-ties", "temperature 0 and equal logits: the smaller id", ties,
         {"temperature": 0.0}),
        ("top-k", "", logits, {"top_k": 3}),
        ("top-k-ties", "equal logits at the k-th place: smaller ids are kept", ties, {"top_k": 3}),
        ("top-k-one", "one token left", logits, {"top_k": 1}),
        ("top-k-all", "k above the vocabulary: no restriction", logits, {"top_k": 99}),
        ("top-p", "", logits, {"top_p": 0.7}),
        ("top-p-ties", "equal probabilities at the edge: smaller ids are kept", flat,
         {"top_p": 0.7}),
        ("top-p-tiny", "the most probable token alone exceeds p", logits, {"top_p": 0.01}),
        ("min-p", "", logits, {"min_p": 0.2}),
        ("all", "temperature, then top-k, then top-p, then min-p", logits,
         {"temperature": 0.5, "top_k": 6, "top_p": 0.9, "min_p": 0.05}),
        ("improbable", "probabilities down to 1e-25", small, {}),
    ]  # fmt: skip
    return [
        Made(name, note, {"logits": a}, {**settings, "u": u}) for name, note, a, settings in cases
    ]


def _penalised(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    logits = arguments["logits"].copy()
    sampling.penalise_repetition(logits, keywords["seen"], penalty=keywords["penalty"])
    return Result({"output.logits": logits})


def _penalised_cases() -> list[Made]:
    logits = {"logits": Draws(52).normal(0, 2, 12)}
    seen = [0, 3, 3, 7]
    return [
        Made("penalty", "positive logits are divided, negative ones multiplied; twice counts once",
             logits, {"seen": seen, "penalty": 1.25}),
        Made("nothing-seen", "no ids: unchanged", logits, {"seen": [], "penalty": 1.25}),
    ]  # fmt: skip


def _banned(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    logits = arguments["logits"].copy()
    sampling.ban_repeated_ngrams(logits, keywords["ids"], n=keywords["n"])
    return Result({"output.banned": np.isneginf(logits)})


def _banned_cases() -> list[Made]:
    logits, ids = {"logits": Draws(53).normal(0, 2, 6)}, [1, 2, 3, 1, 2, 4, 1, 2]
    return [
        Made("two", "", logits, {"ids": ids, "n": 2}),
        Made("three", "", logits, {"ids": ids, "n": 3}),
        Made("one", "every id so far", logits, {"ids": ids, "n": 1}),
        Made("short", "fewer ids than n: none", logits, {"ids": [1], "n": 3}),
    ]


def _subject(name: str, text: str, f: Any, run: Any, cases: Any) -> Subject:
    return Subject(name, "sampler", text, f, run, cases, ("float64",), roundings=ROUNDINGS)


SUBJECTS = {
    "token_distribution": _subject(
        "token_distribution",
        "temperature, top-k, top-p, min-p, and the ids chosen by the uniform numbers u",
        sampling.token_distribution, _distribution, _distribution_cases),
    "penalise_repetition": _subject(
        "penalise_repetition", "logits of ids already in the text, made smaller",
        sampling.penalise_repetition, _penalised, _penalised_cases),
    "ban_repeated_ngrams": _subject(
        "ban_repeated_ngrams", "ids that would complete an n-gram already in the text",
        sampling.ban_repeated_ngrams, _banned, _banned_cases),
}  # fmt: skip
