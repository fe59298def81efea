"""Preference pairs: two answers to one prompt, the chosen one first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...arguments import check_list, mismatch, wrong
from ...core import IGNORED
from .sequences import TokenSequence, check_sequences, sequence_arrays

Pair = tuple[TokenSequence, TokenSequence]


def prompt_length(sequence: TokenSequence) -> int:
    """The number of tokens before the first that counts."""
    return sequence.counts.index(True)


def check_every_pair(pairs: Any, *, name: str = "pair", least: int = 0) -> None:
    """ValueError unless these are at least `least` pairs of TokenSequence."""
    check_list(f"{name}s", pairs, "a list of pairs (chosen, rejected)")
    if len(pairs) < least:
        raise ValueError(f"{name}s: expected at least {least}, got {len(pairs)}")
    for n, pair in enumerate(pairs):
        two = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not two or not all(isinstance(s, TokenSequence) for s in pair):
            raise wrong(f"{name} {n}", "a chosen and a rejected TokenSequence", pair)


def check_pairs(
    pairs: Sequence[Pair],
    *,
    context: int | None,
    vocabulary: int,
    name: str = "pair",
    least: int = 0,
) -> None:
    """ValueError unless these are at least `least` pairs the model can read.

    The prompts of a pair must be equal, its answers different.
    """
    check_every_pair(pairs, name=name, least=least)
    for n, pair in enumerate(pairs):
        prompts = [s.ids[: prompt_length(s)] for s in pair]
        if prompts[0] != prompts[1]:
            given = f"{prompts[0]!r:.60} and {prompts[1]!r:.60}"
            raise mismatch(f"{name} {n}", "equal prompts", given)
        if pair[0].ids == pair[1].ids:
            raise mismatch(f"{name} {n}", "different answers", "the same as chosen and rejected")
        check_sequences(pair, context=context, vocabulary=vocabulary, name=f"{name} {n}, answer")


def pair_arrays(pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """{"input_ids", "attention_mask", "targets"} (N, 2, T): chosen, then rejected;
    and "second" (N, 2, 1) booleans, True for the rejected answer."""
    flat = sequence_arrays([sequence for pair in pairs for sequence in pair])
    values = {name: a.reshape(len(pairs), 2, -1) for name, a in flat.items()}
    return values | {"second": np.tile([[False], [True]], (len(pairs), 1, 1))}


def joint_arrays(pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """Each pair in one row, with its prompt read once: prompt, chosen answer, rejected answer.

    The rejected answer does not see the chosen one, and its positions continue from the prompt's:
    the same log-probabilities for fewer tokens.

    -> {"input_ids", "targets", "position_ids" (N, T), "attention_mask" (N, 1, T, T) booleans,
        "second" (N, T) booleans, True in the rejected answer}

    A position's target is the next token of its own answer.  The prompt's last token predicts the
    first token of both answers, so it occurs twice: again, with its own position, before the
    rejected answer.
    """
    rows = []
    for chosen, rejected in pairs:
        P = prompt_length(chosen)
        first, second = sequence_arrays([chosen]), sequence_arrays([rejected])
        ids = [first["input_ids"][0], second["input_ids"][0, P - 1 :]]
        wanted = [first["targets"][0], second["targets"][0, P - 1 :]]
        rows.append((P, ids, wanted))
    T = max(sum(map(len, ids)) for _, ids, _ in rows)
    inputs, position_ids = np.zeros((len(rows), T), np.int64), np.zeros((len(rows), T), np.int64)
    targets = np.full_like(inputs, IGNORED)
    # 0 the prompt without its last token, 1 and 2 the answers, 3 padding
    part = np.full_like(inputs, 3)
    for n, (P, ids, wanted) in enumerate(rows):
        A, B = map(len, ids)
        inputs[n, : A + B], targets[n, : A + B] = np.concatenate(ids), np.concatenate(wanted)
        position_ids[n, : A + B] = np.concatenate([np.arange(A), np.arange(P - 1, P - 1 + B)])
        part[n, : P - 1], part[n, P - 1 : A], part[n, A : A + B] = 0, 1, 2
    mask = (part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)
    return {
        "input_ids": inputs,
        "targets": targets,
        "position_ids": position_ids,
        "attention_mask": mask[:, None],
        "second": part == 2,
    }
