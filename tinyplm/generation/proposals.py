"""Who proposes tokens in speculative decoding, and from which distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..models.causal_model import CausalModel
from .rewriting import Rewritable
from .sampling import Sampling, inverted
from .settings import GenerationSettings


@dataclasses.dataclass(frozen=True)
class Rules:
    """How tokens are chosen, by target and draft alike."""

    sampling: Sampling
    vocabulary: int | None  # only ids below it
    stops: set[int]  # nothing follows them

    def uniform(self, generator: np.random.Generator) -> float:
        """The number that decides a draw; greedy decoding is not random."""
        return generator.random() if self.sampling.temperature > 0 else 0.0


class Proposals(NamedTuple):
    """tokens: of each text, those that may follow it; probabilities[j] (rows, V): the distributions
    q of all texts that their tokens number j were drawn from."""

    tokens: list[list[int]]
    probabilities: list[np.ndarray]

    @classmethod
    def none(cls, rows: int) -> Proposals:
        return cls([[] for _ in range(rows)], [])


class Proposer(Protocol):
    """Proposes tokens for texts, at first the prompts, which it was made for.

    Calls: `follow` after the target's first token, then `propose` and `follow` in turn.

    `DraftModel` is one.  `ModuleDraft` (module_draft.py) is the second: the target's own modules
    for later tokens (DeepSeek team 2024b, sec. 2.2).  They read the target's hidden states, so
    `follow` receives them for all places that the target has read.
    """

    def propose(
        self, counts: Sequence[int], generators: Sequence[np.random.Generator]
    ) -> Proposals:
        """At most counts[n] tokens after text n, of which the last alone may be a stop token.

        generators: of each text, all that is random in it, so that a text does not depend on the
        others in its batch.
        """
        ...

    def follow(self, rows: np.ndarray, taken: list[int], tokens: list[int], hidden: Any) -> None:
        """Text i is now text rows[i], its first taken[i] proposals, then tokens[i].

        rows (N,): at first any prompt any number of times, later each text at most once.
        hidden (rows before, T, D), on the target's device: its states at the T last places of its
        texts, left-padded as in Batch, that it had not read: the prompts at first, later the last
        token and all proposals, of which the first 1 + taken[i] count.  None where the target keeps
        no cache.
        """
        ...


def drawn(
    counts: Sequence[int],
    generators: Sequence[np.random.Generator],
    rules: Rules,
    next_logits: Callable[[], np.ndarray],
    texts: list[list[int]],
    append: Callable[[np.ndarray], None],
) -> Proposals:
    """Proposals one after the other, as Proposer.propose wants them.

    next_logits() -> (rows, V) after the texts and what is proposed; append: continues each of
    `texts` with one of tokens (rows,), those of a text with fewer proposals having no meaning.
    """
    rows, sampling = len(counts), rules.sampling
    proposals, going = Proposals.none(rows), list(range(rows))
    for step in range(max(counts)):
        going = [n for n in going if step < counts[n]]
        if not going:
            break
        logits, before = next_logits()[going], [texts[n] for n in going]
        logits = sampling.allowed(logits, before, rules.vocabulary)
        if sampling.reads_texts:  # where no token is allowed the target may yet choose another
            free = ~np.isneginf(logits.max(axis=-1))
            going, logits = [n for n, ok in zip(going, free) if ok], logits[free]
            if not going:
                break
        q = np.zeros((rows, logits.shape[1]))
        q[going] = sampling.probabilities(logits)
        tokens = np.zeros(rows, dtype=np.int64)
        u = np.array([rules.uniform(generators[n]) for n in going])
        tokens[going] = inverted(q[going], u)
        proposals.probabilities.append(q)
        for n in going:
            proposals.tokens[n].append(int(tokens[n]))
        going = [n for n in going if tokens[n] not in rules.stops]
        append(tokens)
    return proposals


class DraftModel:
    """The Proposer that is a model of its own, usually a smaller one.

    Its sampling settings are the target's.  A text that exceeds its context continues by its last
    tokens alone, as in `stream`.
    """

    def __init__(
        self,
        model: CausalModel,
        prompts: list[list[int]],
        settings: GenerationSettings,
        rules: Rules,
    ) -> None:
        self.rules, self.ahead = rules, 0  # how many tokens the texts have that are proposals
        self.batch = Rewritable(model, prompts, settings, spare=spare_places(settings))

    def propose(
        self, counts: Sequence[int], generators: Sequence[np.random.Generator]
    ) -> Proposals:
        def append(tokens: np.ndarray) -> None:
            self.batch.select(np.arange(len(counts)), tokens)
            self.ahead += 1

        next_logits, texts = self.batch.next_logits, self.batch.texts
        return drawn(counts, generators, self.rules, next_logits, texts, append)

    def follow(self, rows: np.ndarray, taken: list[int], tokens: list[int], hidden: Any) -> None:
        batch = self.batch
        if len(rows) > len(batch.texts):
            batch.next_logits()  # a prompt is read once, not once for each of its samples
        kept = [len(batch.texts[n]) - self.ahead + more for n, more in zip(rows.tolist(), taken)]
        batch.rewrite(rows, kept, tokens)
        self.ahead = 0


def longest_draft(settings: GenerationSettings) -> int:
    """The most proposals that can be of use: the last token needs none."""
    return min(settings.draft_length, settings.max_new_tokens - 1)


def spare_places(settings: GenerationSettings) -> int:
    """How many places a cache must be able to go back by: those of one round, which may overlap
    with those of the round before by texts of other lengths."""
    return 2 * longest_draft(settings) + 2
