"""Rotary positions that differ: pairs, base, scaling, positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...layers.rope_scaling import (
    dynamic_frequencies,
    linear_frequencies,
    llama3_frequencies,
    rope_frequencies,
    yarn_frequencies,
    yarn_magnitude,
)
from .attention_parts import Attention, attention_of
from .site import NotHere, Site, alternative, layers_own

HEADS = layers_own("attention.heads")
BASES = (1e4, 5e5, 1e6, 1e5, 1e3, 1e2, 10.0, 2e4, 5e6, 1e7, 1.6e5)


def rotary_of(site: Site) -> Attention:
    """The attention of this layer, if it rotates."""
    own = attention_of(site)
    own.rotation()
    return own


@alternative("rotary pairs interleaved", at=HEADS, formula="pairs (2i, 2i + 1), not (i, i + E/2)")
def interleaved(site: Site) -> np.ndarray:
    """Theirs rotates neighbouring components, as in the paper; ours rotates halves, as in the
    hub's files."""
    return rotary_of(site).but(interleaved=True)


@alternative("another rotary base", at=HEADS, formula="f_i = base^(-2i/E)", fitted=True)
def base(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs has another base of the frequencies."""
    own = rotary_of(site)
    width, scaled = 2 * len(own.rotation()), own.rotation()
    plain = rope_frequencies(width, base=site.model.config.rope.base)

    def f(base: float) -> np.ndarray:
        if base <= 1:
            return own.but(frequencies=scaled)
        return own.but(frequencies=scaled / plain * rope_frequencies(width, base=base))

    grid = np.exp(np.linspace(np.log(2.0), np.log(1e7), 40))
    return site.fit("base", f, (*BASES, *grid))


@alternative("no scaling of the rotary frequencies", at=HEADS, formula="f_i = base^(-2i/E)")
def unscaled(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs leaves out the scaling of the frequencies that the config asks for."""
    own, rope = rotary_of(site), site.model.config.rope
    plain = rope_frequencies(2 * len(own.rotation()), base=rope.base)
    yield "", own.but(frequencies=plain, magnitude=1.0)
    if own.magnitude != 1:
        yield "the magnitude is kept", own.but(frequencies=plain)


@alternative("another scaling of the rotary frequencies", at=HEADS)
def scaling(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs scales the frequencies in another way, with the factor of the config."""
    own, rope = rotary_of(site), site.model.config.rope
    s, width = rope.settings, 2 * len(own.rotation())
    factor = s.get("factor", 1.0)
    given: dict[str, Any] = {"base": rope.base, "factor": factor}
    long = int(own.positions.max()) + 1
    kinds: dict[str, Any] = {
        "linear": linear_frequencies(width, **given),
        "YaRN": yarn_frequencies(width, original=rope.trained, **given),
        "Llama 3": llama3_frequencies(
            width, original=rope.trained, low_freq_factor=1.0, high_freq_factor=4.0, **given
        ),
    }
    if width > 2:
        more = {"original": rope.trained, "length": long}
        kinds["dynamic"] = dynamic_frequencies(width, **given, **more)
    for name, frequencies in kinds.items():
        yield name, own.but(frequencies=frequencies, magnitude=1.0)
    magnitude = yarn_magnitude(factor)
    yield "YaRN with its magnitude", own.but(frequencies=kinds["YaRN"], magnitude=magnitude)


@alternative("no magnitude of YaRN", at=HEADS, formula="cos and sin are not multiplied by m")
def no_magnitude(site: Site) -> np.ndarray:
    """Theirs leaves out the factor of cosine and sine that goes with YaRN's frequencies."""
    return rotary_of(site).but(magnitude=1.0)


@alternative("no rotation", at=HEADS, formula="scores = scale q k^T")
def none(site: Site) -> np.ndarray:
    """Theirs does not rotate queries and keys."""
    return rotary_of(site).but(frequencies=None)


@alternative("rotated backwards", at=HEADS, formula="angles -t f_i")
def backwards(site: Site) -> np.ndarray:
    """Theirs rotates by the negative angle: a sign in front of the sine."""
    own = rotary_of(site)
    return own.but(frequencies=-own.rotation())


@alternative("only the queries rotated", at=HEADS)
def queries_only(site: Site) -> np.ndarray:
    """Theirs does not rotate the keys."""
    own = rotary_of(site)
    return own.but(key_positions=np.zeros_like(own.positions))


@alternative("only the keys rotated", at=HEADS)
def keys_only(site: Site) -> np.ndarray:
    """Theirs does not rotate the queries."""
    own = rotary_of(site)
    return own.but(positions=np.zeros_like(own.positions), key_positions=own.positions)


@alternative("values rotated too", at=HEADS)
def values_too(site: Site) -> np.ndarray:
    """Theirs rotates the values as well as queries and keys."""
    return rotary_of(site).but(value_rotated=True)


@alternative("query position off by one", at=HEADS, formula="the query at t is rotated as t + 1")
def off_by_one(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs rotates the queries by one position more or less than the keys."""
    own = rotary_of(site)
    for step in (1, -1):
        yield f"{step:+d}", own.but(positions=own.positions + step, key_positions=own.positions)


@alternative("positions counted differently over padding", at=HEADS)
def over_padding(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs counts positions over padding where ours does not, or the other way round."""
    own, T = rotary_of(site), site.theirs.shape[2]
    yield "padding counts", own.but(positions=np.arange(T)[None])
    yield "padding does not count", own.but(positions=tokens_before(site))


@alternative("positions reversed", at=HEADS, formula="T - 1 - t")
def reverse(site: Site) -> np.ndarray:
    """Theirs counts positions from the end of the sequence."""
    own = rotary_of(site)
    return own.but(positions=own.positions.max() - own.positions)


def tokens_before(site: Site) -> np.ndarray:
    """(B, T): how many tokens precede each place, 0 for padding at the start."""
    if site.padding is None:
        raise NotHere
    return np.maximum(np.cumsum(site.padding, axis=1) - 1, 0)
