"""Rejection sampling: the answers of a policy that a reward accepts, as data for sft.

Draw several answers to each prompt, reward them, and keep the best one, or all, of those that reach
a threshold.  The best one: Touvron et al. 2023 (Llama 2), sec. 3.2.3.  All that are correct, each
text once: Yuan et al. 2023, sec. 3.3; DeepSeek-AI 2025, sec. 2.3.3.

For token sequences and a rule on token ids instead of records, see distill.sampled_answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...arguments import (
    check_choice,
    check_flag,
    check_number,
    check_whole,
    known_arguments,
    listed,
    mismatch,
    wrong,
)
from ...generation.settings import stops_of
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ...training.log import Progress
from ..data.records import Record
from .rollouts import Rollouts, rollouts
from .rounds import Reward, rewarded, round_prompts

KEEP = ("best", "all")
ROWS = 256  # answers that are drawn at a time


@dataclasses.dataclass(frozen=True)
class Accepted:
    """What became of the answers.

    drawn       answers
    finished    of these, those that ended by themselves and are a text that can be trained on
    accepted    of these, those that reach the threshold
    by_prompt   (prompts,) float64: the share of each prompt's answers that is accepted
    kept        the records
    before      mean reward of all answers
    after       mean reward of the kept ones, NaN if there is none
    """

    drawn: int
    finished: int
    accepted: int
    by_prompt: np.ndarray
    kept: int
    before: float
    after: float

    @property
    def share(self) -> float:
        """The share of all answers that is accepted."""
        return self.accepted / self.drawn


@known_arguments
def accepted_answers(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    records: Sequence[Mapping[str, Any]],
    reward: Reward,
    *,
    max_new_tokens: int,
    samples: int = 4,
    keep: str = "best",
    threshold: float | None = None,
    temperature: float = 1.0,
    stop_ids: Sequence[int] | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> tuple[list[Record], Accepted]:
    """The answers that are worth learning, as records for sft, and the statistics.

        reward = record_reward("exact", model.tokenizer, records)
        found, statistics = accepted_answers(model, prompts, records, reward, max_new_tokens=64,
                                             threshold=1)
        write_records("sampled.jsonl", found)               # tinyplm sft --data sampled.jsonl

    prompts: token ids, one list for each record.
    records: {"prompt": text or messages}, of kind "prompt"; the new ones are instructions
    {"instruction", "output", "reward"} if all prompts are texts, otherwise conversations
    {"messages", "reward"}, with the prompt's "tools".
    keep: "best", the answer with the greatest reward to each prompt, of equal ones the first that
    was drawn; or "all", each text once per prompt.
    threshold: the least reward of an answer that is kept; None: any.
    Dropped whatever their reward: truncated answers, empty ones, and texts with a special token,
    which would forge a turn.  If none remains, the list is empty.
    The same seed gives the same records; reward, stop_ids and errors are as in tuning.grpo.
    """
    check_decoder("model", model)
    tokenizer = model.text_tokenizer()
    check_whole("samples", samples, 1)
    check_choice("keep", keep, KEEP)
    check_number("threshold", threshold, or_none=True)
    check_flag("progress", progress)
    checked = round_prompts(prompts, max_new_tokens, model, model, reward)
    rows = _checked(records, len(checked))
    stops = sorted(stops_of(model, stop_ids))
    options: dict[str, Any] = {
        "samples": samples,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "stop_ids": stops,
        "seed": seed,
        "workers": workers,
    }
    found: list[Record] = []
    as_texts = all(isinstance(record["prompt"], str) for record in rows)
    seen: set[tuple[tuple[int, ...], str]] = set()
    finished, by_prompt, all_rewards = 0, np.zeros(len(checked)), []
    for first, drawn, rewards in _batches(model, checked, reward, options, progress):
        all_rewards.append(rewards)
        texts = drawn.texts(tokenizer, stops)
        good = np.array([_usable(tokenizer, *row) for row in zip(texts, drawn.finished)])
        finished += int(good.sum())
        if threshold is not None:
            good &= rewards >= threshold
        for n in range(len(drawn) // samples):
            group = n * samples + np.flatnonzero(good[n * samples : (n + 1) * samples])
            by_prompt[first + n] = len(group) / samples
            if keep == "best" and len(group):
                group = group[[np.argmax(rewards[group])]]
            for row in group.tolist():
                name = (tuple(drawn.prompts[row]), texts[row])
                if name not in seen:
                    seen.add(name)
                    told = {"reward": float(rewards[row])}
                    found.append({**_record(rows[first + n], texts[row], as_texts), **told})
    every = np.concatenate(all_rewards)
    after = float(np.mean([record["reward"] for record in found])) if found else float("nan")
    accepted = round(float(by_prompt.sum()) * samples)
    return found, Accepted(
        *(len(every), finished, accepted, by_prompt, len(found), float(every.mean()), after)
    )


def _checked(records: Any, count: int) -> list[Mapping[str, Any]]:
    rows = listed("records", records, "a list of records, one for each prompt")
    if len(rows) != count:
        raise mismatch("records", f"{count}, one per prompt", len(rows))
    for n, record in enumerate(rows):
        if not isinstance(record, Mapping) or not isinstance(record.get("prompt"), (str, list)):
            raise wrong(f"record {n}", "a dict with a text or messages as 'prompt'", record)
    return rows


def _batches(
    model: CausalModel,
    prompts: list[list[int]],
    reward: Reward,
    options: dict[str, Any],
    progress: bool,
) -> Iterator[tuple[int, Rollouts, np.ndarray]]:
    """(number of the first prompt, answers, rewards) of as many prompts as fit in ROWS answers."""
    size = max(1, ROWS // options["samples"])
    bar = Progress(len(prompts), 0, show=progress, unit="prompt")
    for first in range(0, len(prompts), size):
        some = prompts[first : first + size]
        drawn = rollouts(model, some, first_prompt=first, **options)
        rewards = rewarded(reward, drawn, np.arange(first, first + len(some)))["reward"]
        bar.update(len(some), {"reward": f"{rewards.mean():.3f}"})
        yield first, drawn, rewards
    bar.close()


def _usable(tokenizer: Any, text: str, finished: bool) -> bool:
    """Whether an answer ended, says something, and has no text of a special token."""
    if not finished or not text.strip():
        return False
    return tokenizer.encode(text, allow_special=True) == tokenizer.encode(text)


def _record(record: Mapping[str, Any], answer: str, as_text: bool) -> Record:
    prompt = record["prompt"]
    if as_text:
        return {"instruction": prompt, "output": answer}
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    tools = {} if record.get("tools") is None else {"tools": record["tools"]}
    return {"messages": [*asked, {"role": "assistant", "content": answer}], **tools}
