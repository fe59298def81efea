"""What a decoder is asked by a benchmark: log-likelihoods of continuations, and texts.

    ask = Asker(model, batch=16, cache=Cache("answers.jsonl"))
    ask.loglikelihood([("The sky is", " blue")])       # [Likelihood(sum, greedy, tokens)]
    ask.loglikelihood_rolling(["A whole text"])        # [sum of log p, ...]
    ask.generate_until(["Q: 1 + 1?\\nA:"], until=["\\n"], most=16)

The three kinds of requests of lm-evaluation-harness (Gao et al., lm_eval/api/model.py).  Requests
are sorted by length, so that a batch has little padding, and requests that read the same tokens
(choices of one token after one context) are one row.  Batches depend on the list of requests alone
and not on what is in the cache, so a resumed evaluation gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...arguments import as_texts, check_text, check_whole, mismatch
from ...backend import to_host
from ...generation import generate
from .cache import Cache, digest
from .encoding import Scored, cut, encode_pair, prefix_id, rolling_windows

LOGITS = 2**26  # numbers in the logits of a batch, at most, unless a single row has more
UNBOUNDED = 2048  # tokens that a model without a longest text reads


class Likelihood(NamedTuple):
    """log p(continuation | context) in nats; whether each token is the most probable; tokens."""

    log_prob: float
    greedy: bool
    tokens: int


class Asker:
    """A decoder to ask.  context: tokens that it reads at most; None: the model's longest.

    fingerprint identifies the model in the cache: its files' hash, its dtype.
    """

    def __init__(
        self,
        model: Any,
        *,
        batch: int = 16,
        context: int | None = None,
        cache: Cache | None = None,
        fingerprint: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        check_whole("batch", batch, 1)
        check_whole("context", context, 1, model.config.context, or_none=True)
        check_text("fingerprint", fingerprint)
        self.model, self.tokenizer, self.batch = model, model.text_tokenizer(), batch
        self.context = context or model.config.context or UNBOUNDED
        self.cache = Cache() if cache is None else cache
        self.about = [fingerprint, str(model.dtype), self.context]
        self.progress = progress or (lambda done, all: None)

    def loglikelihood(self, pairs: Iterable[tuple[str, str]]) -> list[Likelihood]:
        """Of each (context, continuation).  A context that is too long loses its beginning."""
        scored = [cut(encode_pair(self.tokenizer, *pair), self.context) for pair in pairs]
        return self._scores(scored)

    def loglikelihood_rolling(self, texts: Sequence[str], *, least: int = 1) -> list[float]:
        """The log-likelihood of whole texts, each token predicted once.

        Texts longer than the context are read in windows (see encoding.rolling_windows); least:
        the tokens before each prediction, except at the beginning.
        """
        windows, owners = [], []
        for number, text in enumerate(as_texts("texts", texts)):
            options = {"first": prefix_id(self.tokenizer), "longest": self.context}
            parts = list(rolling_windows(self.tokenizer.prompt(text), least=least, **options))
            windows += parts
            owners += [number] * len(parts)
        sums = [0.0] * len(texts)
        for number, found in zip(owners, self._scores(windows)):
            sums[number] += found.log_prob
        return sums

    def generate_until(
        self, contexts: Sequence[str], *, until: Sequence[str] = (), most: int = 256
    ) -> list[str]:
        """The most probable continuation, token by token, up to a stop string, an end token or
        `most` tokens.  A context keeps its last `self.context - most` tokens."""
        check_whole("most", most, 1)
        room = self.context - most
        if room < 1:
            expected = f"fewer than the {self.context} tokens of the context"
            raise mismatch("most", expected, most)
        prompts = [tuple(self.tokenizer.prompt(text)[-room:]) for text in contexts]
        prompts = [ids or (prefix_id(self.tokenizer),) for ids in prompts]
        keys = [digest(self.about, "until", ids, list(until), most) for ids in prompts]

        def answers(rows: list[tuple[int, ...]]) -> list[str]:
            options: Any = {
                "max_new_tokens": most,
                "stop_strings": tuple(until),
                "temperature": 0.0,
            }
            found = generate(self.model, [list(ids) for ids in rows], **options)
            return [one.text or "" for one in found]

        return self._answered(prompts, keys, prompts, answers)

    def _scores(self, scored: Sequence[Scored]) -> list[Likelihood]:
        keys = [digest(self.about, "likelihood", one.ids, one.wanted) for one in scored]
        read = [one.ids[:-1] for one in scored]
        rows: dict[tuple[int, ...], list[int]] = {}
        for number, ids in enumerate(read):
            rows.setdefault(ids, []).append(number)

        def answers(some: list[tuple[int, ...]]) -> list[list[Any]]:
            asked = [[scored[n] for n in rows[ids]] for ids in some]
            return self._forward(some, asked)

        groups = self._answered(
            list(rows), [digest([keys[n] for n in g]) for g in rows.values()], list(rows), answers
        )
        found: list[Any] = [None] * len(scored)
        for numbers, values in zip(rows.values(), groups):
            for number, value in zip(numbers, values):
                found[number] = Likelihood(value[0], value[1], scored[number].wanted)
        return found

    def _answered(
        self, items: list, keys: list[str], ids: Sequence[Sequence[int]], answers: Callable
    ) -> list:
        """An answer for each item, longest first, `batch` at a time, from the cache if there."""
        order = sorted(range(len(items)), key=lambda n: (-len(ids[n]), tuple(ids[n]), n))
        for start in range(0, len(order), self.batch):
            some = order[start : start + self.batch]
            if not all(keys[n] in self.cache for n in some):
                found = answers([items[n] for n in some])
                self.cache.add({keys[n]: value for n, value in zip(some, found)})
            self.progress(min(start + self.batch, len(order)), len(order))
        return [self.cache[key] for key in keys]

    def _forward(
        self, rows: list[tuple[int, ...]], asked: list[list[Scored]]
    ) -> list[list[list[Any]]]:
        """[sum of log p, greedy] of each continuation asked of each row."""
        T = max(map(len, rows))
        count = T - min(len(ids) - one.wanted for ids, g in zip(rows, asked) for one in g)
        size = max(1, LOGITS // max(1, count * self.model.config.vocab_size))
        if len(rows) > size:
            cuts = range(0, len(rows), size)
            parts = (self._forward(rows[i : i + size], asked[i : i + size]) for i in cuts)
            return [values for part in parts for values in part]
        ids = np.zeros((len(rows), T), np.int64)
        mask = np.zeros((len(rows), T), np.int64)
        for n, row in enumerate(rows):
            ids[n, : len(row)], mask[n, : len(row)] = row, 1
        inputs = self.model.inputs(ids, attention_mask=mask)
        logits = to_host(self.model.several_logits(inputs, count=count)[0])
        first = T - count  # the position of logits[:, 0]
        found = []
        for n, group in enumerate(asked):
            end = len(rows[n]) - first
            found.append([_score(logits[n, end - one.wanted : end], one) for one in group])
        return found


def _score(logits: np.ndarray, one: Scored) -> list[Any]:
    """[sum of log p, greedy] of the tokens ids[-wanted:] by logits (count, V)."""
    targets = np.array(one.ids[-one.wanted :])
    logits = logits.astype(np.promote_types(logits.dtype, np.float32), copy=False)
    best = logits.max(axis=-1)
    chosen = logits[np.arange(len(targets)), targets]
    log_sum = np.log(np.exp(logits - best[:, None]).sum(axis=-1)) + best
    greedy = bool((logits.argmax(axis=-1) == targets).all())
    return [float((chosen - log_sum).sum(dtype=np.float64)), greedy]
