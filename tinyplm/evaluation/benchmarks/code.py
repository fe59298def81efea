"""Programs written by a model, run with limits, and the share of problems they solve."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ...arguments import check_number, check_text, check_whole

MEMORY = 2**30  # bytes of address space
FILE = 2**20  # bytes of a file that it writes
FILES = 32  # open at once


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that one of k of the n samples passes: 1 - C(n - c, k) / C(n, k).

    The unbiased estimate of pass@k from n samples, c of them correct, as the product
    1 - prod over i in n - c + 1 ... n of (1 - k / i), which does not overflow.
    Chen et al. 2021, eq. 1 and fig. 3
    """
    check_whole("samples", samples, 1)
    check_whole("correct", correct, 0, samples)
    check_whole("k", k, 1, samples)
    if samples - correct < k:
        return 1.0
    failing = 1.0
    for i in range(samples - correct + 1, samples + 1):
        failing *= 1 - k / i
    return 1 - failing


def passes(program: str, *, seconds: float = 3.0) -> bool:
    """Whether the Python program reaches its end (sys.exit before it does not count).

    The program is a model's: mind what it does. A process of its own in a temporary folder that
    is removed, with an empty environment, Python's isolated mode, and limits on processor time,
    memory, the size and number of files (resource's), and `seconds` of waiting; then its whole
    process group is killed. This contains accidents, not malice: the process reads what this user
    may read, and the network is not closed to it. Use a container or virtual machine for code
    that is not trusted.
    """
    check_text("program", program)
    check_number("seconds", seconds, above=0)
    with tempfile.TemporaryDirectory(prefix="tinyplm-code-") as folder:
        path, done = Path(folder, "program.py"), Path(folder, secrets.token_hex(16))
        program = f"{program}\nopen({done.name!r}, 'w').close()\n"
        path.write_text(program, encoding="utf-8", errors="replace")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(path)],
            cwd=folder,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_limits(seconds),
        )
        try:
            return process.wait(timeout=seconds) == 0 and done.exists()
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)


def _limits(seconds: float) -> Callable[[], None]:
    import resource  # Unix alone

    def limit() -> None:
        most = {
            resource.RLIMIT_CPU: int(seconds) + 1,
            resource.RLIMIT_AS: MEMORY,
            resource.RLIMIT_FSIZE: FILE,
            resource.RLIMIT_NOFILE: FILES,
            resource.RLIMIT_CORE: 0,
        }
        for kind, value in most.items():
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))

    return limit


def _end(process: subprocess.Popen) -> None:
    """Kill the process and what it started."""
    try:
        os.killpg(process.pid, 9)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
