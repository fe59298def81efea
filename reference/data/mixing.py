"""How much of each source."""

from __future__ import annotations


def amounts(sizes: list[int], rates: list[float], total: float, epochs: float) -> list[float]:
    """c_i = min(E n_i, lambda p_i), lambda by halving an interval until sum_i c_i = total."""

    def at(scale: float) -> list[float]:
        return [min(epochs * size, scale * rate) for size, rate in zip(sizes, rates)]

    low, high = 0.0, max(epochs * size / rate for size, rate in zip(sizes, rates))
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < total else (low, middle)
    return at(high)


def unimax(sizes: list[int], total: float, epochs: float) -> list[float]:
    """Chung et al. 2023, Algorithm 1.

    From the smallest source on, an equal share of the remaining budget, at most E times its size.
    """
    budget, result = total, [0.0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for done, i in enumerate(order):
        result[i] = min(budget / (len(sizes) - done), epochs * sizes[i])
        budget -= result[i]
    return result


def before(amount: int, block: int, blocks: int) -> int:
    """The samples of a source in the blocks before this one: floor(c j / J)."""
    return amount * block // blocks
