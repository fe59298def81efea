"""BART's noises, with their random choices given, and their inverses.

Lewis et al. 2020, sec. 2.2.
"""

from __future__ import annotations

import math


def mask_each(ids: list[int], places: list[int], mask_id: int) -> list[int]:
    return [mask_id if n in places else token for n, token in enumerate(ids)]


def delete(ids: list[int], places: list[int]) -> list[int]:
    return [token for n, token in enumerate(ids) if n not in places]


def infill(ids: list[int], spans: list[tuple[int, int]], mask_id: int) -> list[int]:
    """Each span [start, end) becomes one mask; an empty one inserts it before ids[start]."""
    result: list[int] = []
    for n in range(len(ids) + 1):
        for start, _ in spans:
            if start == n:
                result.append(mask_id)
        if n < len(ids) and not any(start <= n < end for start, end in spans):
            result.append(ids[n])
    return result


def permute(sentences: list[list[int]], order: list[int]) -> list[int]:
    return [token for s in order for token in sentences[s]]


def rotate(ids: list[int], start: int) -> list[int]:
    return [ids[(n + start) % len(ids)] for n in range(len(ids))]


def unmask(inputs: list[int], places: list[int], removed: list[int]) -> list[int]:
    """The text, given the tokens that were masked."""
    text = list(inputs)
    for place, token in zip(places, removed):
        text[place] = token
    return text


def undelete(inputs: list[int], places: list[int], removed: list[int]) -> list[int]:
    """The text, given the tokens that were deleted; places in order."""
    text = list(inputs)
    for place, token in zip(places, removed):
        text.insert(place, token)
    return text


def uninfill(
    inputs: list[int], spans: list[tuple[int, int]], removed: list[int], mask_id: int
) -> list[int]:
    """The text, given the tokens of all spans, in order."""
    text: list[int] = []
    left = list(removed)
    next_span = iter(spans)
    for token in inputs:
        if token == mask_id:
            start, end = next(next_span)
            for _ in range(start, end):
                text.append(left.pop(0))
        else:
            text.append(token)
    return text


def unpermute(inputs: list[int], sizes: list[int], order: list[int]) -> list[list[int]]:
    """The sentences, given their sizes."""
    sentences: list[list[int]] = [[] for _ in sizes]
    place = 0
    for s in order:
        sentences[s] = inputs[place : place + sizes[s]]
        place += sizes[s]
    return sentences


def unrotate(inputs: list[int], start: int) -> list[int]:
    return [inputs[(n - start) % len(inputs)] for n in range(len(inputs))]


def poisson(k: int, mean: float) -> float:
    """P(k) = mean^k e^-mean / k!"""
    return mean**k * math.exp(-mean) / math.factorial(k)
