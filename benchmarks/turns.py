"""Two libraries side by side: each in a process of its own with all cores, taking turns, so that a change of the machine's speed
hits both.  What benchmarks/*.py share."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PAUSE = 0.3  # seconds before each turn: OpenMP's threads go on spinning for a while after their library's turn


def peak_memory() -> int:
    """The largest resident size of this process so far, in KiB (Linux); ru_maxrss would begin with that of the parent."""
    return next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )


def memory_before() -> int:
    """The resident size now, in KiB, from which the peak is counted again (proc(5): clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def matmul_peak(matmul: Callable, a) -> float:
    """GFLOP/s of the product of a square float32 matrix with itself, the best of some."""
    return 2 * len(a) ** 3 / shortest(lambda: matmul(a, a), 60) / 1e9


def shortest(f: Callable, times: int) -> float:
    """Seconds of the fastest of some calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def libraries_only() -> None:
    """From now on, imports find no script of this folder: tokenizers.py here has the name of a library."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]


def serve(
    work: Callable,
    fact: float = 0,
    before: int = 0,
    warm_up: int = 3,
    prepare: Callable | None = None,
) -> None:
    """The worker process: prints a fact (its matmul peak, where that is asked for), then works once for each line on stdin.

    before: peak_memory() before the model was made.  prepare: what work is given, made anew each time and not timed.
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
    """{library: (its fact, seconds of each round, peak memory in MiB)} from `script --serve LIBRARY ARGUMENTS`.

    may_fail: libraries that are left out of the result if they end before their first turn; what they say is on stderr.
    """
    processes, facts = {}, {}
    for library in libraries:  # one after the other, so that each measures its fact alone
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
            raise RuntimeError(
                f"{library}: expected its process to get ready, but it ended with {processes[library].wait()}"
            )
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
    """The median of the ratios pair by pair."""
    return statistics.median(a / b for a, b in zip(slower, faster))
