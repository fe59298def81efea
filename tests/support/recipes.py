"""Every tuning recipe on tiny models, for tests that interrupt it: run("sft", out) starts a run in `out`, or resumes it.

Standalone: `python -m tests.support.recipes NAME OUT`, or `… kills WORK [COUNT [NAME ...]]`, which kills each recipe COUNT
times (20) with SIGKILL at random moments and compares the end with that of an uninterrupted run, or `… everywhere NAME WORK
'{"every": 1}'`, which does so at its disk operations (see survivor.kill_everywhere)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import families, tuning
from tests.support.survivor import ROOT, contents, kill_everywhere, whole_latest
from tinyplm.models.config import labels
from tinyplm.tuning import (
    DistillSettings,
    DPOSettings,
    GRPOSettings,
    KTOSettings,
    PPOSettings,
    RewardSettings,
    SFTSettings,
    TuningSettings,
    answered,
    classification,
    distill,
    dpo,
    finetune,
    grpo,
    kto,
    lora_of,
    model_reward,
    ppo,
    prefix_of,
    reward,
    sft,
    soft_prompt,
)
from tinyplm.tuning.align.journal import Journal
from tinyplm.tuning.finetuning.finetune import _Run

draw = np.random.default_rng(0)
SEQUENCES = [answered(draw.integers(0, 11, 3).tolist(), draw.integers(0, 11, 1 + n % 3).tolist()) for n in range(7)]
PAIRS = [(answered([n, 4], [n, 2]), answered([n, 4], [5])) for n in range(7)]
FEEDBACK = [(chosen, n % 3 > 0) for n, (chosen, _) in enumerate(PAIRS)]
PROMPTS = [[n, 3] for n in range(5)]
QUICK = {"steps": 4, "batch_size": 3, "warmup": 1, "learning_rate": 0.01, "save_every": 2, "dropout": True}
JUDGED = {**QUICK, "evaluate_every": 1, "keep": 1}
DRAWN = {**QUICK, "max_new_tokens": 2, "epochs": 2, "minibatches": 2, "batch_size": 2, "dropout": False}


def decoder(seed: int = 0, task: str | None = None, **changes: Any) -> Any:
    row = families.FAMILIES["gpt2"]
    config = {**(labels(["reward"]) if task else {}), next(iter(row.dropout)): 0.1, **changes}
    return families.randomised("gpt2", row.config, task, seed, "float32", config)


def even(prompts: list, answers: list) -> list[dict[str, float]]:
    return [{"reward": sum(i % 2 == 0 for i in answer) / len(answer), "length": float(len(answer))} for answer in answers]


def scorer() -> Any:
    return decoder(7, "sequence_classification")


@functools.cache
def labelled() -> tuple:
    made = tuning.model(dtype="float32")
    return tuple(classification(made, tuning.TEXTS[a:b], tuning.KINDS[a:b]) for a, b in ((0, 7), (5, 10)))


def of(function: Callable, settings: Any, *data: Any, model: Callable = decoder, adapt: Callable | None = None, **options: Any):
    def run(out: Path | None, changes: dict, **given: Any) -> tuple[Any, Any]:
        made = model()
        adapted = {} if adapt is None else adapt(made)
        result = function(made, *data, dataclasses.replace(settings, **changes), out=out, **options, **adapted, **given)
        return made, result

    return run


def adapter(**options: Any) -> Callable:
    return lambda model: lora_of(model, rank=2, **options)


def prompted(out: Path | None, changes: dict, **given: Any) -> tuple[Any, Any]:
    settings = SFTSettings(**{**JUDGED, **changes})
    model, result = soft_prompt(decoder(), SEQUENCES, settings, rows=1, validation=SEQUENCES[:3], out=out, **given)
    return model, result


SOME = {"validation": SEQUENCES[:3]}
TARGET = {"kl_target": 0.01, "kl_horizon": 10.0}
RUNS: dict[str, Callable] = {
    "sft": of(sft, SFTSettings(**JUDGED), SEQUENCES, **SOME),
    "sft, packed": of(sft, SFTSettings(**QUICK, packed=6, workers=2), SEQUENCES),
    "sft, LoRA": of(sft, SFTSettings(**JUDGED), SEQUENCES, adapt=adapter(), **SOME),
    "sft, prefix": of(sft, SFTSettings(**QUICK), SEQUENCES, adapt=lambda model: prefix_of(model, rows=2)),
    "soft prompt": prompted,
    "reward": of(reward, RewardSettings(**JUDGED), PAIRS, model=scorer, margins=[0.1, 0.2] * 3 + [0.0], validation=PAIRS[:3]),
    "dpo": of(dpo, DPOSettings(**JUDGED), PAIRS, validation=PAIRS[:3]),
    "dpo, LoRA": of(dpo, DPOSettings(**QUICK), PAIRS, adapt=adapter(alpha=8.0), reference=decoder(3)),
    "dpo, SimPO": of(dpo, DPOSettings(**QUICK, loss="simpo", beta=2.0, margin=0.5, means=True), PAIRS),
    "kto": of(kto, KTOSettings(**JUDGED), FEEDBACK, validation=FEEDBACK[:3]),
    "distill": of(distill, DistillSettings(**JUDGED), decoder(5), SEQUENCES, **SOME),
    "grpo": of(grpo, GRPOSettings(**DRAWN, group=2, beta=0.1), PROMPTS, even, stop_ids=[0]),
    "grpo, DAPO": of(grpo, GRPOSettings(**DRAWN, group=2, redraws=2, overlong=1, clip_ratio_high=0.3, aggregation="token"),
                     PROMPTS, even, stop_ids=[0]),
    "ppo": of(ppo, PPOSettings(**DRAWN, **TARGET), PROMPTS, model_reward(scorer(), offset=0.5), stop_ids=[0]),
    "finetune": of(finetune, TuningSettings(epochs=3, batch_size=3, learning_rate=0.01, save_every=2, keep=1), *labelled(),
                   model=functools.partial(tuning.model, dtype="float32")),
    "finetune, patience": of(finetune, TuningSettings(epochs=9, batch_size=4, learning_rate=1.0, patience=2, metric="loss",
                                                      trained_layers=1), *labelled(),
                             model=functools.partial(tuning.model, dtype="float32")),
}  # fmt: skip


def started(out: Path | None) -> bool:
    return out is not None and (out / "log.jsonl").exists()


def run(name: str, out: Path | None, **changes: Any) -> tuple[Any, Any]:
    """(the model given, the result) of a run, started or resumed."""
    return RUNS[name](out, changes, resume=started(out), progress=False)


@contextlib.contextmanager
def at_step(step: int, act: Callable[[], Any]) -> Iterator[None]:
    """Within the block act() is called when the values of this step, counted from 1, are about to be logged."""
    record, write = Journal.record, _Run.write

    def recording(self: Journal, number: int, *args: Any, **kwargs: Any) -> None:
        if number == step:
            act()
        record(self, number, *args, **kwargs)

    def writing(self: _Run, **values: Any) -> None:
        if values["step"] == step and "epoch" not in values:
            act()
        write(self, **values)

    Journal.record, _Run.write = recording, writing
    try:
        yield
    finally:
        Journal.record, _Run.write = record, write


def process(*arguments: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.support.recipes", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> str:
    out, error = process.communicate(timeout=3000)
    assert process.returncode == 0, error
    return out


def killed(name: str, work: Path, count: int, rng: random.Random) -> int:
    """Kill a recipe's process `count` times at random moments, resume it, compare; -> the kills before its end."""
    whole, out = work / "whole", work / "killed"
    ended(process(name, whole))
    expected, kills, longest = contents(whole), 0, 0.3
    while kills < count:
        running = process(name, out)
        before = newest(out)
        deadline = time.perf_counter() + 60
        while running.poll() is None and newest(out) == before and time.perf_counter() < deadline:
            time.sleep(0.001)  # until it writes
        time.sleep(rng.random() * longest)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert whole_latest(out)
        if running.returncode == 0:  # it ended first: again from the start
            assert contents(out) == expected, f"{name}: differs after {kills} kills"
            shutil.rmtree(out)
            longest *= 0.8
        else:
            kills += 1
    ended(process(name, out))
    found = contents(out)
    assert found.keys() == expected.keys(), f"{name}: {found.keys() ^ expected.keys()}"
    for file in expected:
        assert found[file] == expected[file], f"{name}: {file} differs after {kills} kills"
    return kills


def newest(out: Path) -> float:
    """When anything in the folder was last changed."""
    times = [out.stat().st_mtime] if out.exists() else [0.0]
    for file in out.rglob("*") if out.exists() else ():
        with contextlib.suppress(OSError):
            times.append(file.stat().st_mtime)
    return max(times)


if __name__ == "__main__":
    if sys.argv[1] == "kills":
        count = int(sys.argv[3]) if len(sys.argv) > 3 else 20
        for name in sys.argv[4:] or RUNS:
            begun = time.perf_counter()
            kills = killed(name, Path(sys.argv[2]) / name.replace(", ", "-").replace(" ", "-"), count, random.Random(name))
            print(json.dumps({"recipe": name, "kills": kills, "seconds": round(time.perf_counter() - begun)}), flush=True)
    else:
        os.fsync = lambda file: None  # slow, and a killed process loses nothing it wrote: only a power failure would
        if sys.argv[1] == "everywhere":
            print(*kill_everywhere(Path(sys.argv[3]), go=functools.partial(run, sys.argv[2]), **json.loads(sys.argv[4])))
        else:
            run(sys.argv[1], Path(sys.argv[2]))
