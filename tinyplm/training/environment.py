"""What the last bits of a run depend on beside its settings: library versions, the BLAS, workers, the device."""

from __future__ import annotations

import os
import sys

import numpy as np

from ..files import named


def describe(workers: int, device: str) -> dict[str, str]:
    """The environment as trainer.json keeps it."""
    version = sys.modules[__package__.partition(".")[0]].__version__
    return {"tinyplm": version, "numpy": np.__version__, "BLAS": _blas(), "workers": str(workers), "device": device}


def _blas() -> str:
    """Name, version, kernel and threads of NumPy's BLAS, as far as can be known."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        found = []
    else:
        found = [library for library in threadpool_info() if library["user_api"] == "blas" and "numpy" in library["filepath"]]
    if found:
        facts = found[0]
        kernel = facts.get("architecture", "")
        return f"{facts['internal_api']} {facts['version']} {kernel}".strip() + f", {facts['num_threads']} threads"
    built = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()


def difference(saved: dict[str, str], now: dict[str, str]) -> str | None:
    """One line on what differs, and what follows; None when nothing does."""
    changed = [f"{name} {named(saved.get(name), 80)}, now {value}" for name, value in now.items() if saved.get(name) != value]
    if not changed:
        return None
    return f"not as before: {'; '.join(changed)}: results agree with the unbroken run to rounding, not bit by bit"


def workers_note(workers: int, samples: int) -> str | None:
    """One line when there are more workers than a batch has samples, or the machine has cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = min(workers, samples)
    if workers > samples:
        return f"{workers} workers share at most {samples} sequences at a time, so {workers - used} of them have nothing to do"
    if workers > cores:
        return f"{workers} workers on {cores} cores: more workers than cores do not make it faster"
    return None
