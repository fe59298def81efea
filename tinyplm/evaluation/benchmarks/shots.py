"""Solved examples before a question, chosen as lm-evaluation-harness chooses them.

lm_eval/api/samplers.py: one random.Random(seed) for a task, from which `shots` examples are drawn
for each question in turn; from the questions' own file one more is drawn, and the question itself
removed (there: if fewshot_split is test_split); where it was drawn twice, all are drawn again from
the other samples.  Tasks with examples in a fixed order (MMLU, C-Eval, CMMLU) take the first ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from ...arguments import mismatch
from .task import Sample, Task

SEED = 1234  # lm_eval/evaluator.py, fewshot_random_seed


def prompts(
    task: Task,
    samples: Sequence[Sample],
    shots: int,
    *,
    examples: Sequence[Sample] | None = None,
    description: str = "",
    seed: int = SEED,
) -> Iterator[tuple[str, ...]]:
    """The contexts of each sample with the description and `shots` examples before them.

    examples None: the samples themselves.  ValueError if there are too few.
    """
    pool = list(samples if examples is None else examples)
    needed = shots + (examples is None and shots > 0)
    if needed > len(pool):
        raise mismatch("shots", f"at most {len(pool) - (examples is None)}, the examples", shots)
    draw = Random(seed)
    for sample in samples:
        chosen: list[Sample] = []
        if shots and task.first:
            chosen = [one for one in pool if examples is not None or one != sample][:shots]
        elif shots:
            drawn = draw.sample(pool, needed)
            chosen = [one for one in drawn if examples is not None or one != sample][:shots]
            if len(chosen) < shots:  # two of the question were drawn
                chosen = draw.sample(_others(pool, sample, shots), shots)
        before = description + "".join(f"{one.solved()}\n\n" for one in chosen)
        yield tuple(before + context for context in sample.contexts)


def _others(pool: Sequence[Sample], sample: Sample, shots: int) -> list[Sample]:
    others = [one for one in pool if one != sample]
    if len(others) < shots:
        raise mismatch("shots", f"at most {len(others)}, the samples that differ", shots)
    return others
