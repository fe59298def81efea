"""Rollouts: a policy's own answers to prompts, as actions of which each token is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from typing import Any

import numpy as np

from ...arguments import MOST, check_list, check_whole, is_whole, wrong
from ...core import IGNORED, map_threads
from ...generation.generate import MOST_TEXTS, stops_of, stream
from ...models.model import Model, check_decoder
from ..data.sequences import Sequence, answered, arrays


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """`samples` answers to each prompt, those to the first prompt first.

    prompts   the prompt of each answer, token ids
    answers   token ids, with the token that ended the answer: choosing it was an action, too
    finished  whether it ended by itself; else it was cut at the longest length
    samples   answers a prompt: a group
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

    def sequences(self) -> list[Sequence]:
        return [answered(prompt, answer) for prompt, answer in zip(self.prompts, self.answers)]

    def arrays(self) -> dict[str, np.ndarray]:
        """{"input_ids", "attention_mask", "targets"} (N, T); the targets that count are the answers' tokens."""
        return arrays(self.sequences())

    def texts(self, tokenizer: Any, stop_ids: Iterable[int] = ()) -> list[str]:
        """The answers as texts, what they add to their prompts, without the token that ended them."""
        stops = set(stop_ids)
        return [tokenizer.decode([i for i in answer if i not in stops], after=prompt)
                for prompt, answer in zip(self.prompts, self.answers)]  # fmt: skip


def rollouts(model: Model, prompts: SequenceOf[SequenceOf[int]], *, max_new_tokens: int, samples: int = 1,
             temperature: float = 1.0, stop_ids: Iterable[int] | None = None, seed: int = 0, workers: int = 1,
             **sampling: Any) -> Rollouts:  # fmt: skip
    """Draw `samples` answers to each prompt (token ids).  They depend on the seed and the prompt's number, not on the workers.

    stop_ids: the tokens that end an answer, by default model.end_ids().  temperature, sampling: see generation.sampling; a policy
    gradient needs the distribution that was drawn from, so that cuts (top_k, top_p) are for evaluation.
    workers: threads that share the prompts.
    ValueError for bad prompts, see check_prompts, before anything is drawn.
    """
    check_decoder("model", model)
    check_whole("samples", samples, 1, MOST_TEXTS)
    check_whole("workers", workers, 1)
    prompts = check_prompts(prompts, max_new_tokens=max_new_tokens, vocabulary=model.config.vocab_size,
                            context=rollout_context(model))  # fmt: skip
    stops = stops_of(model, stop_ids)
    vocabulary = None if model.tokenizer is None else model.tokenizer.vocab_size
    quick = model.for_decoding()._with(tokenizer=None)  # without its texts, which cost more than the tokens of a small model

    def draw(part: tuple[int, list[list[int]]]) -> tuple[list[list[int]], list[bool]]:
        first, some = part
        answers: list[list[int]] = [[] for _ in range(len(some) * samples)]
        finished = [False] * len(answers)
        for pieces in stream(quick, some, samples=samples, max_new_tokens=max_new_tokens, temperature=temperature, stop_ids=stops,
                             seed=seed, vocabulary=vocabulary, first_prompt=first, **sampling):  # fmt: skip
            for piece in pieces:
                answers[piece.row].append(piece.id)
                finished[piece.row] = piece.finished == "stop"
        return answers, finished

    size = -(-len(prompts) // workers)
    parts = [(first, prompts[first : first + size]) for first in range(0, len(prompts), size)]
    drawn = map_threads(draw, parts, workers)
    return Rollouts([prompt for prompt in prompts for _ in range(samples)], [a for some, _ in drawn for a in some],
                    [f for _, some in drawn for f in some], samples)  # fmt: skip


def rollout_context(model: Model) -> int:
    """The longest prompt and answer whose log-probabilities are the same when they are drawn and when they are trained on.

    Beyond the context a text is drawn from its last tokens alone, and beyond what can be cached (dynamic RoPE scaling) the
    frequencies depend on the length so far.
    """
    return min(model.config.context, model.config.cache_context)


def check_prompts(prompts: SequenceOf[SequenceOf[int]], *, max_new_tokens: int, vocabulary: int, context: int) -> list[list[int]]:
    """The prompts as lists of Python's integers.

    ValueError naming the first that is empty, has ids out of the vocabulary, or does not fit in the context together with an
    answer of max_new_tokens.
    """
    check_whole("max_new_tokens", max_new_tokens, 1, MOST)
    check_list("prompts", prompts, "a list of prompts, each a list of token ids")
    if not len(prompts):
        raise ValueError("prompts: expected at least one, got none")
    checked = []
    for n, prompt in enumerate(prompts):
        ids = [] if isinstance(prompt, str) or not hasattr(prompt, "__len__") else list(prompt)
        if not ids or not all(is_whole(i) and 0 <= i < vocabulary for i in ids):
            raise wrong(f"prompts[{n}]", f"one or more token ids from 0 to {vocabulary - 1}", prompt)
        if len(ids) + max_new_tokens > context:
            raise ValueError(f"prompts[{n}]: expected at most {context - max_new_tokens} tokens, since max_new_tokens is "
                             f"{max_new_tokens} and the context {context}, got {len(ids)}")  # fmt: skip
        checked.append(list(map(int, ids)))
    return checked


def answer_mask(batch: dict[str, np.ndarray]) -> np.ndarray:
    """(N, T) booleans: the places whose target counts."""
    return batch["targets"] != IGNORED
