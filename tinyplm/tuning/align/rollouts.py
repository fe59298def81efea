"""Rollouts: answers drawn from a policy, each token an action."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ...arguments import MOST, check_list, check_whole, is_whole, known_arguments, mismatch, wrong
from ...core import IGNORED, map_threads
from ...generation.decode import stream
from ...generation.settings import MOST_TEXTS, stops_of
from ...models.causal_model import CausalModel
from ...models.model import check_decoder
from ..data.sequences import TokenSequence, answered, sequence_arrays


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """`samples` answers per prompt, grouped by prompt.

    prompts   the prompt of each answer, as token ids
    answers   token ids, including the end token: choosing it was an action too
    finished  whether the answer ended by itself; otherwise it was truncated
    samples   answers per prompt, the size of a group
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    finished: list[bool]
    samples: int

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(answer) for answer in self.answers])

    def sequences(self) -> list[TokenSequence]:
        return [answered(prompt, answer) for prompt, answer in zip(self.prompts, self.answers)]

    def arrays(self) -> dict[str, np.ndarray]:
        """{"input_ids", "attention_mask", "targets"} (N, T); only the answers' tokens count."""
        return sequence_arrays(self.sequences())

    def texts(self, tokenizer: Any, stop_ids: Iterable[int] = ()) -> list[str]:
        """The texts the answers add to their prompts, without end tokens."""
        stops = set(stop_ids)
        return [
            tokenizer.decode([i for i in answer if i not in stops], after=prompt)
            for prompt, answer in zip(self.prompts, self.answers)
        ]


@known_arguments
def rollouts(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    samples: int = 1,
    temperature: float = 1.0,
    stop_ids: Iterable[int] | None = None,
    seed: int = 0,
    workers: int = 1,
    first_prompt: int = 0,
    **sampling: Any,
) -> Rollouts:
    """Draw `samples` answers to each prompt (token ids).

    The answers depend on the seed and the prompt's number, not on the workers.
    first_prompt: the number of the first prompt, for prompts that are a part of more.
    stop_ids: the tokens that end an answer, by default model.end_ids().  temperature, sampling: see
    generation.sampling; a policy gradient needs the distribution that was drawn from, so truncated
    sampling (top_k, top_p) is for evaluation.  workers: threads that share the prompts.
    ValueError for invalid prompts (see check_prompts), before anything is drawn.
    """
    check_decoder("model", model)
    check_whole("samples", samples, 1, MOST_TEXTS)
    check_whole("workers", workers, 1)
    check_whole("first_prompt", first_prompt)
    limits = {"vocabulary": model.config.vocab_size, "context": rollout_context(model)}
    prompts = check_prompts(prompts, max_new_tokens=max_new_tokens, **limits)
    stops = stops_of(model, stop_ids)
    vocabulary = None if model.tokenizer is None else model.tokenizer.vocab_size
    # without texts, which for a small model cost more than its tokens
    quick = model.for_decoding()._with(tokenizer=None)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        **sampling,
    }
    options |= {"samples": samples, "stop_ids": stops, "seed": seed, "vocabulary": vocabulary}

    def draw(part: tuple[int, list[list[int]]]) -> tuple[list[list[int]], list[bool]]:
        first, some = part
        answers: list[list[int]] = [[] for _ in range(len(some) * samples)]
        finished = [False] * len(answers)
        for pieces in stream(quick, some, first_prompt=first_prompt + first, **options):
            for piece in pieces:
                answers[piece.row].append(piece.id)
                finished[piece.row] = piece.finished == "stop"
        return answers, finished

    size = -(-len(prompts) // workers)
    parts = [(first, prompts[first : first + size]) for first in range(0, len(prompts), size)]
    drawn = map_threads(draw, parts, workers)
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    answers, finished = (list(chain.from_iterable(some)) for some in zip(*drawn))
    return Rollouts(repeated, answers, finished, samples)


def rollout_context(model: CausalModel) -> int:
    """The longest prompt plus answer whose log-probabilities agree in sampling and training.

    Beyond the context, text is drawn from its last tokens alone; beyond what can be cached (dynamic
    RoPE scaling), the frequencies depend on the current length.
    """
    return min(model.config.context, model.config.cache_context)


def check_prompts(
    prompts: Sequence[Sequence[int]], *, max_new_tokens: int, vocabulary: int, context: int
) -> list[list[int]]:
    """The prompts as lists of Python integers.

    ValueError naming the first that is empty, has ids outside the vocabulary, or does not fit the
    context together with an answer of max_new_tokens.
    """
    check_whole("max_new_tokens", max_new_tokens, 1, MOST)
    check_list("prompts", prompts, "a list of prompts, each a list of token ids")
    if not len(prompts):
        raise ValueError("prompts: expected at least 1, got 0")
    checked = []
    for n, prompt in enumerate(prompts):
        ids = [] if isinstance(prompt, str) or not hasattr(prompt, "__len__") else list(prompt)
        if not ids or not all(is_whole(i) and 0 <= i < vocabulary for i in ids):
            expected = f"one or more token ids from 0 to {vocabulary - 1}"
            raise wrong(f"prompts[{n}]", expected, prompt)
        if len(ids) + max_new_tokens > context:
            reason = f"since max_new_tokens is {max_new_tokens} and the context {context}"
            expected = f"at most {context - max_new_tokens} tokens, {reason}"
            raise mismatch(f"prompts[{n}]", expected, len(ids))
        checked.append(list(map(int, ids)))
    return checked


def answer_mask(batch: dict[str, np.ndarray]) -> np.ndarray:
    """(N, T) booleans: the positions whose target counts."""
    return batch["targets"] != IGNORED
