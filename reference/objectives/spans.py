"""Span corruption and prefix language modelling, token by token (Raffel et al. 2020).

Texts are lists of ids, masks lists of booleans.
"""

from __future__ import annotations

from itertools import combinations


def counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Numbers of noise tokens and of spans; each is kept possible: one noise token, one kept token
    before each span."""
    noise = round(length * density)
    if noise < 1:
        noise = 1
    if noise > length - 1:
        noise = length - 1
    spans = round(noise / mean_span)
    if spans < 1:
        spans = 1
    if spans > length - noise:
        spans = length - noise
    return noise, spans


def divisions(items: int, parts: int) -> list[tuple[int, ...]]:
    """Every way to divide `items` things in a row into `parts` non-empty runs: their sizes."""
    result = []
    for cuts in combinations(range(1, items), parts - 1):
        bounds = [0, *cuts, items]
        result.append(tuple(b - a for a, b in zip(bounds, bounds[1:])))
    return result


def masks(length: int, density: float, mean_span: float) -> list[tuple[bool, ...]]:
    """Every noise mask of a text: kept and noise alternate, beginning with kept."""
    noise, spans = counts(length, density, mean_span)
    result = []
    for kept in divisions(length - noise, spans):
        for replaced in divisions(noise, spans):
            mask: list[bool] = []
            for a, b in zip(kept, replaced):
                mask += [False] * a + [True] * b
            result.append(tuple(mask))
    return result


def corrupt(
    ids: list[int], noise: list[bool], sentinels: list[int], closing: bool
) -> tuple[list[int], list[int]]:
    """Fig. 2: one sentinel for each span in the inputs; sentinel and span in the targets."""
    inputs: list[int] = []
    targets: list[int] = []
    spans = 0
    inside = False
    for token, noisy in zip(ids, noise):
        if noisy and not inside:
            inputs.append(sentinels[spans])
            targets.append(sentinels[spans])
            spans += 1
        if noisy:
            targets.append(token)
        else:
            inputs.append(token)
        inside = noisy
    if closing:
        targets.append(sentinels[spans])
    return inputs, targets


def restore(inputs: list[int], targets: list[int], sentinels: list[int]) -> list[int]:
    """The text from inputs and targets."""
    spans: dict[int, list[int]] = {}
    open_span: list[int] = []
    for token in targets:
        if token in sentinels:
            open_span = []
            spans[token] = open_span
        else:
            open_span.append(token)
    text: list[int] = []
    for token in inputs:
        if token in spans:
            text += spans[token]
        else:
            text.append(token)
    return text


def lengths(length: int, density: float, mean_span: float, special: int) -> tuple[int, int]:
    """(raw tokens, length of the targets) without a closing sentinel: the longest text whose
    inputs have at most `length` tokens.  Each side ends with `special` tokens."""

    def sizes(tokens: int) -> tuple[int, int]:
        noise, spans = counts(tokens, density, mean_span)
        return tokens - noise + spans + special, noise + spans + special

    tokens = length - special
    while sizes(tokens + 1)[0] <= length:
        tokens += 1
    if density == 0.5 and sizes(tokens)[1] > sizes(tokens)[0]:
        tokens -= 1
    return tokens, sizes(tokens)[1]


def prefix_splits(ids: list[int]) -> list[tuple[list[int], list[int]]]:
    """Every split into a prefix and a target, neither empty."""
    return [(ids[:n], ids[n:]) for n in range(1, len(ids))]
