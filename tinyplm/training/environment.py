"""What a run's last bits depend on besides its settings: libraries, BLAS, workers, device."""

from __future__ import annotations

import os
import sys

import numpy as np

from ..files import printable

# The operations of a training step and their order.  Raise it in a change that alters the last bits
# of a step, so that a run resumed across the change says so.
ARITHMETIC = 2


def describe(workers: int, device: str) -> dict[str, str]:
    """The environment as stored in trainer.json."""
    version = sys.modules[__package__.partition(".")[0]].__version__
    return {
        "tinyplm": f"{version} (arithmetic {ARITHMETIC})",
        "numpy": np.__version__,
        "BLAS": _blas(),
        "workers": str(workers),
        "device": device,
    }


def _blas() -> str:
    """Name, version, kernel and threads of NumPy's BLAS, as far as known."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        libraries = []
    else:
        libraries = threadpool_info()
    for facts in libraries:
        if facts["user_api"] == "blas" and "numpy" in facts["filepath"]:
            kernel = facts.get("architecture", "")
            name = f"{facts['internal_api']} {facts['version']} {kernel}".strip()
            return f"{name}, {facts['num_threads']} threads"
    built = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()


def difference(saved: dict[str, str], now: dict[str, str]) -> str | None:
    """One line naming the differences and their consequence; None if there are none."""
    changed = [
        f"{name} {printable(str(saved.get(name)), 80)}, now {value}"
        for name, value in now.items()
        if saved.get(name) != value
    ]
    if not changed:
        return None
    consequence = "results will match the uninterrupted run to rounding, not bit for bit"
    return f"environment changed: {'; '.join(changed)}: {consequence}"


def workers_note(workers: int, samples: int) -> str | None:
    """One line if there are more workers than samples in a batch, or than cores; else None."""
    able = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if able else os.cpu_count() or 1
    if workers > samples:
        shared = f"{workers} workers share at most {samples} sequences at a time"
        return f"{shared}: {workers - samples} of them stay idle"
    if workers > cores:
        many = f"{workers} workers on {cores} cores"
        return f"{many}: more workers than cores do not speed up training"
    return None
