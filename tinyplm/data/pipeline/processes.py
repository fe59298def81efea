"""Worker processes for the shards of a stage; in this process if there is one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from multiprocessing.connection import wait as ready
from typing import Any

from .decisions import Decisions
from .stages import Plan, Stage, run_shard, stages_of

AHEAD = 2  # tasks that wait for each process

_plan: Plan
_stages: list[Stage]


class Pool:
    """Processes that have made the steps themselves.  They end with this one, however it ends."""

    def __init__(self, plan: Plan, stages: list[Stage], workers: int) -> None:
        self.plan, self.stages, self.workers = plan, stages, workers
        self.executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.executor is not None:
            self.executor.shutdown(cancel_futures=True)

    def run(
        self, stage: int, shards: Sequence[int], decisions: Iterator[Decisions]
    ) -> Iterator[int]:
        """Runs these shards through the stage; yields each when it is done, in any order."""
        tasks = zip(shards, decisions)
        if self.workers == 1:
            for shard, found in tasks:
                run_shard(self.plan, self.stages, stage, shard, found)
                yield shard
            return
        if not shards:
            return
        if self.executor is None:
            context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
            self.executor = ProcessPoolExecutor(self.workers, context, _begin, (self.plan,))
        waiting: dict[Future, int] = {}
        for shard, found in tasks:
            waiting[self.executor.submit(_task, stage, shard, found)] = shard
            if len(waiting) >= AHEAD * self.workers:
                yield from _finished(waiting)
        while waiting:
            yield from _finished(waiting)


def _finished(waiting: dict[Future, int]) -> list[int]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        try:
            future.result()  # raises what the process raised
        except BrokenExecutor:
            lost = "workers: expected processes that end by themselves, got one that was killed"
            raise ChildProcessError(f"{lost}, perhaps for lack of memory; resume goes on") from None
    return [waiting.pop(future) for future in done]


def _begin(plan: Plan) -> None:
    global _plan, _stages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        ready([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    _plan, _stages = plan, stages_of(plan.specs)


def _task(stage: int, shard: int, decisions: Decisions) -> None:
    run_shard(_plan, _stages, stage, shard, decisions)
