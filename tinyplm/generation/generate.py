"""Text from a language model, by the full pass over the sequence for every token (the cache comes with LLaMA)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .. import random
from ..backend import to_host
from ..models import causal_lm
from ..models.model import Model
from .sampling import check_sampling, draw, token_distribution


def generate(
    model: Model,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    samples: int = 1,
    seed: int = 0,
    stop_id: int | None = None,
    vocabulary: int | None = None,
) -> list[list[int]]:
    """`samples` continuations of one prompt of token ids, without the prompt; each ends before stop_id or at max_new_tokens.

    temperature 0 is greedy.  Sample n depends on the seed and on n, not on how many there are.  vocabulary: draw ids below this
    one only, those that the tokenizer has, since a model's table may be padded beyond them.  Where prompt
    and continuation outgrow the model's context, the model sees the last `context` tokens.
    ValueError for an empty prompt or one longer than the context, ids out of range, and bad sampling settings;
    FloatingPointError when the model gives NaN.
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    texts: list[list[int]] = [[] for _ in range(samples)]
    running = np.ones(samples, dtype=bool)
    for tokens in stream(model, prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                         samples=samples, seed=seed, vocabulary=vocabulary):  # fmt: skip
        running &= tokens != stop_id
        for text, token, goes_on in zip(texts, tokens.tolist(), running):
            if goes_on:
                text.append(token)
        if not running.any():
            break
    return texts


def stream(model: Model, prompt: Sequence[int], *, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
           top_p: float | None = None, samples: int = 1, seed: int = 0, vocabulary: int | None = None
           ) -> Iterator[np.ndarray]:  # fmt: skip
    """The next token of every sample, (samples,) int64, one step after the other."""
    check_sampling(temperature, top_k, top_p)
    prompt = list(prompt)
    if not prompt:
        raise ValueError("the prompt is empty: expected at least one token")
    context = model.config.context
    if len(prompt) > context:
        raise ValueError(f"the prompt of {len(prompt)} tokens is longer than the context of {context}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be >= 1, got {max_new_tokens}")
    if vocabulary is not None and vocabulary < 1:
        raise ValueError(f"vocabulary must be >= 1 or None, got {vocabulary}")
    generators = [random.generator(random.fold(random.key(seed), sample)) for sample in range(samples)]
    ids = np.tile(np.asarray(prompt, dtype=np.int64), (samples, 1))
    for _ in range(max_new_tokens):
        inputs = model.inputs(ids[:, -context:])
        logits = to_host(causal_lm.last_logits(model.family, model.params, config=model.config, **inputs))[:, :vocabulary]
        probabilities = token_distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        tokens = draw(probabilities, np.array([rng.random() for rng in generators]))
        yield tokens
        ids = np.concatenate([ids, tokens[:, None]], axis=1)
