"""Preference pairs: two answers to one prompt, of which the first was chosen."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

import numpy as np

from ...arguments import check_list, wrong
from ...core import IGNORED
from .sequences import Sequence, arrays, check_sequences

Pair = tuple[Sequence, Sequence]


def prompt_length(sequence: Sequence) -> int:
    """How many tokens come before the first that counts."""
    return sequence.counts.index(True)


def check_every_pair(pairs: Any, *, name: str = "pair", least: int = 0) -> None:
    """ValueError unless they are so many pairs of Sequences or more."""
    check_list(f"{name}s", pairs, "a list of pairs (chosen, rejected)")
    if len(pairs) < least:
        raise ValueError(f"{name}s: expected at least {least}, got {len(pairs)}")
    for n, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(s, Sequence) for s in pair):
            raise wrong(f"{name} {n}", "a chosen and a rejected Sequence", pair)


def check_pairs(pairs: SequenceOf[Pair], *, context: int | None, vocabulary: int, name: str = "pair") -> None:
    """ValueError naming the first pair whose prompts differ, whose answers are the same, or that the model cannot read."""
    check_every_pair(pairs, name=name)
    for n, pair in enumerate(pairs):
        prompts = [s.ids[: prompt_length(s)] for s in pair]
        if prompts[0] != prompts[1]:
            raise ValueError(f"{name} {n}: the prompts of the two answers differ: {prompts[0]!r:.60} and {prompts[1]!r:.60}")
        if pair[0].ids == pair[1].ids:
            raise ValueError(f"{name} {n}: the chosen and the rejected answer are the same")
        check_sequences(pair, context=context, vocabulary=vocabulary, name=f"{name} {n}, answer")


def pair_arrays(pairs: SequenceOf[Pair]) -> dict[str, np.ndarray]:
    """{"input_ids", "attention_mask", "targets"} (N, 2, T) of sequences.arrays: chosen, then rejected;
    and "second" (N, 2, 1) booleans, True for the rejected answer."""
    flat = arrays([sequence for pair in pairs for sequence in pair])
    values = {name: a.reshape(len(pairs), 2, -1) for name, a in flat.items()}
    return values | {"second": np.tile([[False], [True]], (len(pairs), 1, 1))}


def joint_arrays(pairs: SequenceOf[Pair]) -> dict[str, np.ndarray]:
    """Each pair in one row, its common prompt read once: the prompt, then the chosen answer, then the rejected one, which cannot
    see the chosen one and whose positions go on from the prompt's.  The same log-probabilities for fewer tokens.

    -> {"input_ids", "targets" (N, T), "position_ids" (N, T), "attention_mask" (N, 1, T, T) booleans, "second" (N, T) booleans}.
    A place's target is the next token of its own answer.  The last token of the prompt predicts the first of both answers, so it
    stands in the row twice: once more, with its own position, in front of the rejected answer.
    """
    rows = []
    for chosen, rejected in pairs:
        P = prompt_length(chosen)
        first, second = arrays([chosen]), arrays([rejected])
        ids = [first["input_ids"][0], second["input_ids"][0, P - 1 :]]
        targets = [first["targets"][0], second["targets"][0, P - 1 :]]
        rows.append((P, ids, targets))
    T = max(sum(map(len, ids)) for _, ids, _ in rows)
    inputs, position_ids = np.zeros((len(rows), T), np.int64), np.zeros((len(rows), T), np.int64)
    targets = np.full_like(inputs, IGNORED)
    part = np.full_like(inputs, 3)  # 0 the prompt but its last token, 1 and 2 the answers, 3 padding
    for n, (P, ids, wanted) in enumerate(rows):
        A, B = map(len, ids)
        inputs[n, : A + B], targets[n, : A + B] = np.concatenate(ids), np.concatenate(wanted)
        position_ids[n, : A + B] = np.concatenate([np.arange(A), np.arange(P - 1, P - 1 + B)])
        part[n, : P - 1], part[n, P - 1 : A], part[n, A : A + B] = 0, 1, 2
    mask = (part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)
    return {"input_ids": inputs, "targets": targets, "position_ids": position_ids, "attention_mask": mask[:, None],
            "second": part == 2}  # fmt: skip
