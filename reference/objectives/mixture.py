"""Mixing rates of tasks (Raffel et al. 2020, sec. 3.5.2)."""

from __future__ import annotations


def rates(sizes: list[int], limit: int | None, temperature: float) -> list[float]:
    """r_m = min(e_m, K) / sum min(e_n, K), then r_m^(1/T) / sum r_n^(1/T)."""
    limited = [size if limit is None else min(size, limit) for size in sizes]
    proportional = [size / sum(limited) for size in limited]
    powers = [rate ** (1 / temperature) for rate in proportional]
    return [power / sum(powers) for power in powers]


def sample_numbers(tasks: list[int]) -> list[int]:
    """For the task of each sample: how many earlier samples have the same one."""
    return [tasks[:n].count(task) for n, task in enumerate(tasks)]
