"""The rotary settings of a config.json, in each spelling, and the rotation that they define."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..arguments import is_number, mismatch, shown, wrong
from ..backend import array_module, to_host
from ..layers.rope import paired_rope, paired_tables, rope, rotary_tables
from ..layers.rope_scaling import (
    BETA_FAST,
    BETA_SLOW,
    dynamic_frequencies,
    linear_frequencies,
    llama3_frequencies,
    longrope_frequencies,
    longrope_magnitude,
    rope_frequencies,
    yarn_frequencies,
    yarn_magnitude,
)
from .config import limit

_ORIGINAL = "original_max_position_embeddings"
_YARN = {
    *(_ORIGINAL, "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    *("attention_factor", "truncate", "finetuned"),
}
# type: (required settings, optional settings), under their names in config.json
_SETTINGS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "dynamic": ({"factor"}, set()),
    "yarn": ({"factor"}, _YARN),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", _ORIGINAL}, set()),
    "longrope": ({"short_factor", "long_factor"}, {"factor", "attention_factor", _ORIGINAL}),
}
_BY_LENGTH = ("dynamic", "longrope")  # types whose frequencies depend on the length


@dataclasses.dataclass(frozen=True)
class Rope:
    """The rotary settings of a config; `read_rope` makes them from each spelling."""

    type: str  # a key of _SETTINGS
    base: float
    trained: int  # the context length of the original training
    context: int  # the longest sequence
    settings: dict[str, Any]  # the others, under their names in config.json
    share: float = 1.0  # of a head's components, which are turned
    made: dict[int, tuple] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def cache_context(self) -> int:
        """The longest sequence that can be cached.

        Beyond the trained context, dynamic scaling and LongRoPE have other frequencies, so keys
        that were cached within it would be wrong.
        """
        return min(self.context, self.trained) if self.type in _BY_LENGTH else self.context

    def frequencies(self, width: int, length: int) -> tuple[np.ndarray, float]:
        """(frequencies (width/2,), magnitude) for a sequence of `length` positions.

        Only those of dynamic scaling and LongRoPE depend on the length.  The others are cached,
        since decoding asks for them at each token.
        """
        if self.type in _BY_LENGTH:
            return self._frequencies(width, length)
        if width not in self.made:
            self.made[width] = self._frequencies(width, length)
        return self.made[width]

    def _frequencies(self, width: int, length: int) -> tuple[np.ndarray, float]:
        s = self.settings
        if self.type == "default":
            return rope_frequencies(width, base=self.base), 1.0
        if self.type == "longrope":
            return self._longrope(width, length)
        scaling: dict[str, Any] = {"base": self.base, "factor": s["factor"]}
        if self.type == "linear":
            return linear_frequencies(width, **scaling), 1.0
        scaling["original"] = self.trained
        if self.type == "dynamic":
            return dynamic_frequencies(width, **scaling, length=length), 1.0
        if self.type == "llama3":
            limits = {name: s[name] for name in ("low_freq_factor", "high_freq_factor")}
            return llama3_frequencies(width, **scaling, **limits), 1.0
        magnitude = s.get("attention_factor")
        if magnitude is None:
            scales = {name: s.get(name) for name in ("mscale", "mscale_all_dim")}
            magnitude = yarn_magnitude(s["factor"], **scales)
        fast, slow = s.get("beta_fast") or BETA_FAST, s.get("beta_slow") or BETA_SLOW
        options = {"beta_fast": fast, "beta_slow": slow, "truncate": s.get("truncate", True)}
        return yarn_frequencies(width, **scaling, **options), magnitude

    def _longrope(self, width: int, length: int) -> tuple[np.ndarray, float]:
        """The long factors for a text beyond the trained context; one magnitude for all texts."""
        s = self.settings
        for name in ("short_factor", "long_factor"):
            if len(s[name]) != width // 2:
                expected = f"{width // 2} numbers, one for each pair of components"
                raise mismatch(f"config: {name}", expected, len(s[name]))
        factors = s["long_factor" if length > self.trained else "short_factor"]
        magnitude = s.get("attention_factor")
        if magnitude is None:
            factor = s.get("factor", self.context / self.trained)
            magnitude = longrope_magnitude(factor, original=self.trained)
        return longrope_frequencies(width, base=self.base, factors=factors), magnitude


BASE = 10000.0  # rope_theta, where neither file nor family has another


def read_rope(
    parameters: Mapping[str, Any] | None,
    scaling: Mapping[str, Any] | None,
    theta: float | None,
    positions: int,
    original: int | None = None,
    *,
    share: float = 1.0,
    base: float = BASE,
) -> Rope:
    """The rotary settings of a config.json.

    parameters: rope_parameters (transformers 5).  scaling, theta: rope_scaling and rope_theta
    (earlier versions).  positions: max_position_embeddings.  original: the config's own
    original_max_position_embeddings, which overrides the one in these objects, as in transformers.
    share: the family's or the file's partial_rotary_factor, which one in these objects overrides;
    base: the family's rope_theta, where the file has none.
    ValueError for an unknown type, a missing, unknown or out-of-range setting, and spellings that
    contradict each other.
    """
    for name, given in (("rope_parameters", parameters), ("rope_scaling", scaling)):
        if given is not None and not isinstance(given, Mapping):
            raise wrong(f"config: {name}", "an object", given)
    if parameters and scaling:
        plain = _plain(parameters, base if theta is None else theta)
        if plain != _plain(scaling, plain["rope_theta"]):
            expected = f"the rope_parameters, {shown(parameters)}"
            raise wrong("config: rope_scaling", expected, scaling)
    settings = _plain(parameters or scaling or {}, base if theta is None else theta)
    base, kind = settings.pop("rope_theta"), settings.pop("rope_type")
    share = settings.pop("partial_rotary_factor", share)
    if not is_number(share) or not 0 < share <= 1:
        raise wrong("config: partial_rotary_factor", "a number in (0, 1]", share)
    if original is not None and kind in ("yarn", "llama3", "longrope"):
        settings["original_max_position_embeddings"] = original
    if theta is not None and theta != base:
        raise wrong("config: rope_theta", f"{shown(base)}, as in rope_parameters", theta)
    if not isinstance(kind, str) or kind not in _SETTINGS:
        raise wrong("config: rope_type", f"one of {', '.join(_SETTINGS)}", kind)
    required, optional = _SETTINGS[kind]
    if unknown := sorted(settings.keys() - required - optional):
        expected = f"settings from {', '.join(sorted(required | optional)) or 'none'}"
        raise wrong(f"config: rope_type {kind}", expected, unknown[0])
    for name, value in {"rope_theta": base, **settings}.items():
        _check(name, value)
    trained = settings.get("original_max_position_embeddings", positions)
    if kind == "yarn" and "original_max_position_embeddings" in settings:
        _check("factor", settings.setdefault("factor", positions / trained))  # as in transformers
    if missing := sorted(required - settings.keys()):
        expected = f"the settings {', '.join(sorted(required))}"
        raise ValueError(f"config: rope_type {kind}: expected {expected}, got no {missing[0]}")
    if kind == "llama3" and settings["low_freq_factor"] >= (high := settings["high_freq_factor"]):
        raise wrong("config: low_freq_factor", f"less than {high}", settings["low_freq_factor"])
    slow, fast = settings.get("beta_slow") or BETA_SLOW, settings.get("beta_fast") or BETA_FAST
    if kind == "longrope" and trained < 2 and settings.get("attention_factor") is None:
        raise wrong("config: original_max_position_embeddings", "at least 2 for longrope", trained)
    if kind == "yarn" and slow > fast:
        raise wrong("config: beta_slow", f"at most beta_fast = {fast}", slow)
    context = positions
    if kind in ("linear", "dynamic", "yarn"):  # positions is often the trained context
        context = max(context, int(trained * settings["factor"]))
    return Rope(kind, float(base), trained, context, settings, float(share))


def _plain(settings: Mapping[str, Any], theta: float) -> dict[str, Any]:
    """The settings that are not None, with rope_type (formerly type) and rope_theta filled in.

    A truncate of None means false.  The type su is the former name of longrope.
    """
    plain = {name: value for name, value in settings.items() if value is not None}
    if "truncate" in settings:
        plain["truncate"] = settings["truncate"] or False
    for name in ("type", "rope_type"):
        if plain.get(name) == "su":
            plain[name] = "longrope"
    kind = plain.pop("type", None)
    if plain.setdefault("rope_type", kind or "default") != kind and kind is not None:
        expected = f"{shown(plain['rope_type'])}, the value of its synonym rope_type"
        raise wrong("config: type", expected, kind)
    plain.setdefault("rope_theta", theta)
    return plain


def _check(name: str, value: Any) -> None:
    if name in ("short_factor", "long_factor"):
        if not isinstance(value, list) or not all(is_number(n) and 0 < n <= 1e6 for n in value):
            raise wrong(f"config: {name}", "a list of numbers above 0, at most 1e6", value)
        return
    number, most = value if is_number(value) else -1, math.inf
    if name in ("truncate", "finetuned"):
        good, expected = isinstance(value, bool), "true or false"
    elif name == "original_max_position_embeddings":
        good, expected, most = type(value) is int and value > 0, "a positive integer", limit(name)
    elif name == "factor":
        good, expected = 1 <= number <= 1e6, "a number from 1 to 1e6"
    elif name == "rope_theta":
        good, expected, most = number > 1, "a number > 1", 1e15
    else:  # 0 stands for "not given" in mscale and mscale_all_dim
        good, expected, most = number >= 0, "a number >= 0", 1e6
    if good and number > most:
        good, expected = False, f"at most {most:g}"
    if good and name.startswith("beta") and 0 < number < 1e-6:
        good, expected = False, "0 or at least 1e-6"
    if not good:
        raise wrong(f"config: {name}", expected, value)


def rotary(
    settings: Rope, width: int, *, interleaved: bool = False
) -> Callable[..., Callable[[int, int], dict[str, Callable]]]:
    """The piece `positions` of a decoder with RoPE; interleaved: see layers.rope.

    layers.rope rotates the queries and keys of all layers, with tables computed once per pass.
    With dynamic scaling and LongRoPE the length is the largest position of the batch plus 1, as in
    transformers; reading it synchronises a GPU.
    """

    def positions(position_ids, *, dtype, **_):
        length = int(to_host(position_ids.max())) + 1 if settings.type in _BY_LENGTH else 1
        host, magnitude = settings.frequencies(width, length)
        frequencies = array_module(position_ids).asarray(host)
        cos, sin = rotary_tables(position_ids, frequencies, magnitude=magnitude, dtype=dtype)
        rotation = {"rotary": partial(rope, cos=cos, sin=sin, interleaved=interleaved)}
        return lambda layer, seen: rotation

    return positions


def given_rotary(frequencies: np.ndarray) -> Callable[..., Callable[[int, int], dict[str, Any]]]:
    """The piece `positions` of a decoder with RoPE of these frequencies (E/2,) on the host."""

    def positions(position_ids, *, dtype, **_):
        own = array_module(position_ids).asarray(frequencies)
        cos, sin = rotary_tables(position_ids, own, dtype=dtype)
        rotation = {"rotary": partial(rope, cos=cos, sin=sin)}
        return lambda layer, seen: rotation

    return positions


def paired_rotary(frequencies: np.ndarray) -> Callable[..., Callable[[int, int], dict[str, Any]]]:
    """The piece `positions` of a decoder that turns each half of a head by positions of its own.

    position_ids (B, 2, T): those of the first and of the second half; or (B, T) or (T,), those of
    the first, with 0 for the second.   frequencies (E/4,) on the host: see paired_rope.
    """

    def positions(position_ids, *, dtype, **_):
        xp = array_module(position_ids)
        if position_ids.ndim < 3:
            first = position_ids if position_ids.ndim == 2 else position_ids[None]
            position_ids = xp.stack([first, 0 * first], axis=1)
        tables = paired_tables(position_ids, xp.asarray(frequencies), dtype=dtype)
        rotation = {"rotary": partial(paired_rope, **tables)}
        return lambda layer, seen: rotation

    return positions
