"""The modules for later tokens as a draft of their own model.

DeepSeek team 2024b, sec. 2.2 and 5.4.3; models/multi_token.py has the modules.  Of a text t with m
tokens the model's states h^0_i are known but for the last place, so i <= m - 2.  Module k proposes
token m + k - 1 at place m - 2, with the model's own head:

    h^k_i = module_k(h^(k-1)_i, tokens[t_(i+k)]),   t_(m+k-1) from head(h^k_(m-2)),   k = 1 ... n

where t_(m), t_(m+1), ... are what was proposed before.  More than n proposals come from module n,
applied again to its own output as if this were h^(n-1) at the next place: both are to predict the
same token.  The proposals get worse with each, but the texts follow the model's distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import array_module, at_least_float32, is_host, to_device, to_host
from ..layers.activation import capped
from ..layers.cache import Cache
from ..layers.cache_alignment import aligned
from ..layers.linear import linear
from ..models.multi_token import module
from ..models.multi_token_model import MultiTokenModel
from ..models.walks import look_up
from .proposals import Proposals, Rules, drawn, longest_draft
from .settings import GenerationSettings


class ModuleDraft:
    """The Proposer whose proposals come from the target's own modules.

    Texts are left-padded so that their places m - 2 end together, at `width`.  Each module has a
    cache of its own, which ends where a text's tokens are no longer certain for all modules; the
    `unread` places from there on are read in each round, and their states h^0 are kept.  Where the
    target keeps no cache, and so gives no states, nothing is proposed.
    """

    def __init__(
        self,
        model: MultiTokenModel,
        prompts: list[list[int]],
        settings: GenerationSettings,
        rules: Rules,
    ) -> None:
        self.model, self.rules = model, rules
        self.pieces = model.family.pieces(model.config, **(model.buffers or {}))
        self.longest = longest_draft(settings)
        self.modules = model.params["body"]["multi_token"][: self.longest]  # others are of no use
        longest = max(map(len, prompts)) + settings.max_new_tokens
        self.capacity = min(longest, model.config.cache_context) + self.longest
        self.texts = [list(prompt) for prompt in prompts]
        self.width = max(map(len, prompts)) - 1
        self.pads = [self.width + 1 - len(prompt) for prompt in prompts]  # columns before a text
        self.ahead = 0  # how many tokens the texts have that are proposals
        self.caches: list[Cache] = []
        self.states: Any = None  # h^0 (rows, at least unread, D) of the last places
        self.unread = 0

    def propose(
        self, counts: Sequence[int], generators: Sequence[np.random.Generator]
    ) -> Proposals:
        if self.states is None:
            return Proposals.none(len(counts))
        h, step, n = self.states[:, self.states.shape[1] - self.unread :], 0, len(self.modules)

        def advance() -> None:
            nonlocal h, step
            h = h if step < n else h[:, -1:]
            tokens = last_tokens(self.texts, h.shape[1], missing=step - self.ahead)
            h = self._module(min(step, n - 1), h, tokens)
            step += 1

        def next_logits() -> np.ndarray:
            advance()
            W, _ = self.model.family.output_matrix(self.model.params, config=self.model.config)
            logits, _ = capped(linear(h[:, -1], W)[0], self.model.config.logit_cap)
            return at_least_float32(logits if is_host(logits) else to_host(logits))

        def append(tokens: np.ndarray) -> None:
            for text, token in zip(self.texts, tokens.tolist()):
                text.append(token)
            self.ahead += 1

        proposals = drawn(counts, generators, self.rules, next_logits, self.texts, append)
        while step < n:  # the others read what is certain, too
            advance()
        return proposals

    def follow(self, rows: np.ndarray, taken: list[int], tokens: list[int], hidden: Any) -> None:
        if hidden is None:
            self.states = None
            return
        states, index, n = hidden, rows.tolist(), len(self.modules)
        if not self.caches:
            self._read_prompts(hidden)
        else:
            new = hidden[:, hidden.shape[1] - 1 - self.ahead :]
            states = array_module(new).concatenate([self.states, new], axis=1)
        known, pads = min(cache.length for cache in self.caches), [self.pads[r] for r in index]
        kept = [len(self.texts[r]) - self.ahead + more for r, more in zip(index, taken)]
        # of each text, the places at which all modules read tokens that it has now
        certain = [min(known, self.width + min(0, more + 1 - n)) for more in taken]
        read = [max(0, end - pad) for end, pad in zip(certain, pads)]
        self.unread = max(count - done for count, done in zip(kept, read))
        ends = [min(known, pad + max(0, c - self.unread)) for pad, c in zip(pads, kept)]
        self._align(rows, ends, max(kept) - self.unread)
        after = [states.shape[1] - self.ahead + more for more in taken]
        self.states = last_places(states, rows, after, max(self.unread, self.longest))
        self.texts = [[*self.texts[r][:c], t] for r, c, t in zip(index, kept, tokens)]
        self.width, self.ahead = max(kept), 0
        self.pads = [self.width - count for count in kept]

    def _align(self, rows: np.ndarray, ends: list[int], length: int) -> None:
        """Row i of the caches is now row rows[i] up to ends[i], at `length`."""
        if not np.array_equal(rows, np.arange(len(self.texts))):
            taken = to_device(rows, self.model.device)
            self.caches = [cache.take(taken) for cache in self.caches]
        self.caches = [aligned(cache, ends, length) for cache in self.caches]

    def _read_prompts(self, hidden: Any) -> None:
        """Each module reads the places of the prompts for which all have a token.

        hidden (prompts, T, D): a prompt is read once, not once for each of its samples.
        """
        model, n = self.model, len(self.modules)
        sizes = {**model.config.cache_sizes, "layers": 1, "batch": len(self.texts)}
        sizes |= {"capacity": self.capacity, "dtype": model.dtype, "xp": array_module(hidden)}
        self.caches = [Cache.empty(**sizes) for _ in self.modules]
        T = hidden.shape[1]
        ids, h = last_tokens(self.texts, T), hidden[:, : max(0, T - n)]
        for k in range(n if T > n else 0):
            h = self._module(k, h, ids[:, k + 1 : T - n + k + 1])

    def _module(self, k: int, hidden: Any, ids: np.ndarray) -> Any:
        """h^(k+1) of module k, counted from 0, for the places after those in its cache."""
        model, cache = self.model, self.caches[k]
        start, S = cache.length, cache.length + hidden.shape[1]
        columns, pads = np.arange(S), np.array(self.pads)[:, None]
        real = (columns >= pads).astype(np.int64)
        places = np.clip(columns[start:] - pads, 0, model.config.cache_context - 1)
        inputs = {"position_ids": places, "attention_mask": None if real.all() else real}
        if model.device != "cpu":
            ids, inputs = to_device([ids, inputs], model.device)
        embeds, _ = look_up(model.params["body"], ids, None)
        cache.begin()
        stream, _ = module(
            self.pieces,
            self.modules[k],
            hidden,
            embeds,
            layer=model.config.num_hidden_layers + k,
            eps=model.config.rms_norm_eps,
            cache=cache,
            **inputs,
        )
        self.caches[k] = cache.advanced(hidden.shape[1])
        return stream["hidden"]


def last_tokens(texts: Sequence[Sequence[int]], count: int, *, missing: int = 0) -> np.ndarray:
    """(texts, count): the last tokens, of which the last `missing` are 0, as before a text."""
    ids = np.zeros((len(texts), count + missing), dtype=np.int64)
    for row, text in zip(ids, texts):
        last = text[-count:]
        row[count - len(last) : count] = last
    return ids[:, missing:]


def last_places(states: Any, rows: np.ndarray, ends: list[int], count: int) -> Any:
    """(rows, count or all that there are, D): row i has the last before ends[i] of states[rows[i]].

    Where a text has fewer, others stand before them, which must be masked.
    """
    count = min(count, states.shape[1])
    columns = np.maximum(np.array(ends)[:, None] - count + np.arange(count), 0)
    xp = array_module(states)
    return states[xp.asarray(rows)[:, None], xp.asarray(columns)]
