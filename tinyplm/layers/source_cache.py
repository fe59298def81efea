"""The cache of an encoder-decoder's decoder: its own earlier tokens, and its keys of the source.

The keys and values that cross-attention reads are computed once for each source.  Samples of one
source, such as its beams, share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import wrong
from ..backend import array_module
from .cache import Cache


@dataclasses.dataclass(frozen=True)
class SourceCache:
    """earlier: the decoder's keys and values (layers.cache.Cache) of N samples.

    memories: (k, v) of each layer, (B, K, S, E), from layers.cross_attention.keys_and_values; N is
    a multiple of B, and N / B consecutive samples have the same source.
    attention_mask: (B, S) of 0/1, 0 = padding of the sources, or None.
    """

    earlier: Cache
    memories: tuple[tuple[Any, Any], ...]
    attention_mask: Any = None

    @property
    def length(self) -> int:
        """How many of the decoder's tokens it holds."""
        return self.earlier.length

    @property
    def capacity(self) -> int:
        """How many of the decoder's tokens it has room for."""
        return self.earlier.capacity

    @property
    def batch(self) -> int:
        """N."""
        return self.earlier.batch

    @property
    def sources(self) -> int:
        """B."""
        return self.memories[0][0].shape[0]

    @property
    def source_length(self) -> int:
        """S."""
        return self.memories[0][0].shape[2]

    @property
    def dtype(self) -> Any:
        return self.earlier.dtype

    @property
    def nbytes(self) -> int:
        return self.earlier.nbytes + sum(k.nbytes + v.nbytes for k, v in self.memories)

    def begin(self) -> None:
        """Record that a call is about to write into the buffers."""
        self.earlier.begin()

    def check_kept(self) -> None:
        """ValueError if a later call has overwritten some of its places."""
        self.earlier.check_kept()

    def advanced(self, T: int) -> SourceCache:
        """The cache after a call with T tokens; this one is consumed."""
        return dataclasses.replace(self, earlier=self.earlier.advanced(T))

    def take(self, rows: np.ndarray) -> SourceCache:
        """A copy of these samples (integers on the host), any number >= 1 in any order.

        What is kept of the sources is copied only where their order or number changes.
        """
        right = isinstance(rows, np.ndarray) and rows.ndim == 1 and rows.dtype.kind in "iu"
        if not (right and rows.size and 0 <= rows.min() and rows.max() < self.batch):
            expected = f"an array (N,) of integers from 0 to {self.batch - 1}, N >= 1"
            raise wrong("cache: rows", expected, rows)
        xp = array_module(self.memories[0][0])
        earlier = self.earlier.take(xp.asarray(rows))
        return dataclasses.replace(self._with_sources(rows), earlier=earlier)

    def reordered(self, rows: np.ndarray, shared: Sequence[int] | None = None) -> SourceCache:
        """Its samples in another order, in place: see Cache.reordered."""
        earlier = self.earlier.reordered(rows.tolist(), shared)
        return dataclasses.replace(self._with_sources(rows), earlier=earlier)

    def _with_sources(self, rows: np.ndarray) -> SourceCache:
        """With the sources of these samples: one each, or one for each group side by side."""
        if self.sources == 1:
            return self
        xp = array_module(self.memories[0][0])
        wanted = rows // (self.batch // self.sources)
        firsts = np.flatnonzero(np.diff(wanted, prepend=-1))
        each = len(wanted) // len(firsts)
        if len(wanted) == each * len(firsts) and (firsts == each * np.arange(len(firsts))).all():
            wanted = wanted[firsts]
        if np.array_equal(wanted, np.arange(self.sources)):
            return self
        at = xp.asarray(wanted)
        memories = tuple((k[at], v[at]) for k, v in self.memories)
        mask = None if self.attention_mask is None else self.attention_mask[at]
        return dataclasses.replace(self, memories=memories, attention_mask=mask)
