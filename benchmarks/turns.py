"""Alternating measurements, shared by the benchmarks.

Each library runs in its own process with all cores.  The processes alternate, so a change in the
machine's speed affects all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PAUSE = 0.3  # seconds before each turn: OpenMP's threads keep spinning for a while after a turn


def peak_memory() -> int:
    """This process's peak resident size in KiB (Linux).  ru_maxrss would start at the parent's."""
    return next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )


def memory_before() -> int:
    """Reset the peak (proc(5): clear_refs) and return the resident size in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def matmul_peak(matmul: Callable, a) -> float:
    """GFLOP/s of the product of a square float32 matrix with itself: the best of 60."""
    return 2 * len(a) ** 3 / shortest(lambda: matmul(a, a), 60) / 1e9


def shortest(f: Callable, times: int) -> float:
    """Seconds of the fastest of `times` calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def libraries_only() -> None:
    """Hide this folder from later imports: its tokenizers.py has the name of a library."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]


def serve(
    work: Callable,
    fact: float = 0,
    before: int = 0,
    warm_up: int = 3,
    prepare: Callable | None = None,
) -> None:
    """The worker process: prints `fact` (a matmul peak, or 0), then works once per line of stdin.

    before: peak_memory() before the model was created.  prepare: creates the argument of `work`
    anew for each call, untimed.
    """

    def timed() -> float:
        given = (prepare(),) if prepare else ()
        start = time.perf_counter()
        work(*given)
        return time.perf_counter() - start

    for _ in range(warm_up):
        timed()
    print(fact, flush=True)
    for _ in sys.stdin:
        print(timed(), peak_memory() - before, flush=True)


def take_turns(
    script: str,
    libraries: tuple[str, ...],
    arguments: list[str],
    rounds: int,
    may_fail: tuple[str, ...] = (),
) -> dict[str, tuple]:
    """{library: (its fact, seconds of each round, peak memory in MiB)}.

    Each worker is `script --serve LIBRARY ARGUMENTS`.  may_fail: libraries to omit if they exit
    before their first turn; their messages appear on stderr.
    """
    processes, facts = {}, {}
    for library in libraries:  # one by one, so each measures its fact alone
        command = [sys.executable, script, "--serve", library, *arguments]
        processes[library] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        fact = processes[library].stdout.readline()
        if fact:
            facts[library] = float(fact)
        elif library in may_fail:
            processes.pop(library).wait()
        else:
            status = processes[library].wait()
            raise RuntimeError(f"{library}: expected a running process, got exit status {status}")
    seconds, memory = {library: [] for library in processes}, {}
    for _ in range(rounds):
        for library, process in processes.items():
            time.sleep(PAUSE)
            process.stdin.write("go\n")
            process.stdin.flush()
            time_taken, used = process.stdout.readline().split()
            seconds[library].append(float(time_taken))
            memory[library] = float(used) / 1024
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return {library: (facts[library], seconds[library], memory[library]) for library in processes}


def median_ratio(slower: list[float], faster: list[float]) -> float:
    """The median of the pairwise ratios."""
    return statistics.median(a / b for a, b in zip(slower, faster))
