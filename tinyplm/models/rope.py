"""The rotary settings of a config.json, in any of their spellings, and the rotation they define."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..arguments import is_number, shown
from ..backend import array_module, to_host
from ..layers.rope import rope, rotary_tables
from ..layers.rope_scaling import (
    dynamic_frequencies,
    linear_frequencies,
    llama3_frequencies,
    rope_frequencies,
    yarn_frequencies,
    yarn_magnitude,
)
from .config import limit

# type: (the settings it needs, those it may have), by the names that config.json uses
_SETTINGS: dict[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "dynamic": ({"factor"}, set()),
    "yarn": (
        {"factor"},
        {
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "attention_factor",
            "truncate",
            "finetuned",
        },
    ),
    "llama3": (
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
        set(),
    ),
}


@dataclasses.dataclass(frozen=True)
class Rope:
    """The rotary settings of a config, read from any of their spellings by `read_rope`."""

    type: str  # default, linear, dynamic, yarn or llama3
    base: float
    trained: int  # the context of the training that the frequencies are stretched from
    context: int  # the longest sequence
    settings: dict[str, Any]  # the others, by their names in config.json
    made: dict[int, tuple] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def cache_context(self) -> int:
        """The longest sequence that can be cached.

        Beyond it dynamic scaling changes the frequencies of the keys that are cached already.
        """
        return min(self.context, self.trained) if self.type == "dynamic" else self.context

    def frequencies(self, width: int, length: int) -> tuple[np.ndarray, float]:
        """(frequencies (width/2,), magnitude) for a sequence of `length` positions.

        Only dynamic scaling depends on the length.  All others are made once: decoding asks for
        them at each token.
        """
        if self.type == "dynamic":
            return self._frequencies(width, length)
        if width not in self.made:
            self.made[width] = self._frequencies(width, length)
        return self.made[width]

    def _frequencies(self, width: int, length: int) -> tuple[np.ndarray, float]:
        s = self.settings
        if self.type == "default":
            return rope_frequencies(width, base=self.base), 1.0
        if self.type == "linear":
            return linear_frequencies(width, base=self.base, factor=s["factor"]), 1.0
        if self.type == "dynamic":
            return dynamic_frequencies(
                width, base=self.base, factor=s["factor"], original=self.trained, length=length
            ), 1.0
        if self.type == "llama3":
            return llama3_frequencies(
                width,
                base=self.base,
                factor=s["factor"],
                low_freq_factor=s["low_freq_factor"],
                high_freq_factor=s["high_freq_factor"],
                original=self.trained,
            ), 1.0
        magnitude = s.get("attention_factor")
        if magnitude is None:
            magnitude = yarn_magnitude(
                s["factor"], mscale=s.get("mscale"), mscale_all_dim=s.get("mscale_all_dim")
            )
        return yarn_frequencies(
            width,
            base=self.base,
            factor=s["factor"],
            original=self.trained,
            beta_fast=s.get("beta_fast") or 32.0,
            beta_slow=s.get("beta_slow") or 1.0,
            truncate=s.get("truncate", True),
        ), magnitude


def read_rope(
    parameters: Mapping[str, Any] | None,
    scaling: Mapping[str, Any] | None,
    theta: float | None,
    positions: int,
    original: int | None = None,
) -> Rope:
    """The rotary settings of a config.json: `parameters` is rope_parameters, of transformers 5;
    `scaling` and `theta` are rope_scaling and rope_theta, of earlier versions.

    positions: max_position_embeddings.  original: an original_max_position_embeddings beside these
    objects, which takes precedence over the one in them, as in transformers.
    ValueError that names an unknown type, a setting that is missing, unknown or out of range, and
    spellings that contradict each other.
    """
    for name, given in (("rope_parameters", parameters), ("rope_scaling", scaling)):
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"config: {name} must be an object, got {shown(given)}")
    if (
        parameters
        and scaling
        and _plain(parameters, theta) != _plain(scaling, _plain(parameters, theta)["rope_theta"])
    ):
        both = f"rope_parameters {shown(parameters)} and rope_scaling {shown(scaling)}"
        raise ValueError(f"config: {both} contradict each other")
    settings = _plain(parameters or scaling or {}, theta)
    base, kind = settings.pop("rope_theta"), settings.pop("rope_type")
    if original is not None and kind in ("yarn", "llama3"):
        settings["original_max_position_embeddings"] = original
    if theta is not None and theta != base:
        both = f"rope_theta is {shown(theta)}, but {shown(base)} in rope_parameters"
        raise ValueError(f"config: {both}")
    if not isinstance(kind, str) or kind not in _SETTINGS:
        known = ", ".join(_SETTINGS)
        raise ValueError(f"config: unknown rope_type {shown(kind)}; expected one of {known}")
    needed, optional = _SETTINGS[kind]
    if unknown := sorted(settings.keys() - needed - optional):
        known = ", ".join(sorted(needed | optional)) or "none"
        raise ValueError(
            f"config: rope_type {kind!r} has the unknown setting {shown(unknown[0])}; "
            f"expected some of {known}"
        )
    for name, value in {"rope_theta": base, **settings}.items():
        _check(name, value)
    if (
        kind == "yarn"
        and "factor" not in settings
        and "original_max_position_embeddings" in settings
    ):
        settings["factor"] = (
            positions / settings["original_max_position_embeddings"]
        )  # as transformers finds it
        _check("factor", settings["factor"])
    if missing := sorted(needed - settings.keys()):
        raise ValueError(f"config: rope_type {kind!r} needs {', '.join(missing)}")
    if kind == "llama3" and settings["low_freq_factor"] >= settings["high_freq_factor"]:
        raise ValueError("config: low_freq_factor must be below high_freq_factor")
    if kind == "yarn" and (settings.get("beta_slow") or 1) > (settings.get("beta_fast") or 32):
        raise ValueError("config: beta_slow must not be above beta_fast")
    trained = context = positions
    if "original_max_position_embeddings" in settings:
        trained = settings["original_max_position_embeddings"]
    if kind in (
        "linear",
        "dynamic",
        "yarn",
    ):  # max_position_embeddings is often the trained context
        context = max(context, int(trained * settings["factor"]))
    return Rope(kind, float(base), trained, context, settings)


def _plain(settings: Mapping[str, Any], theta: float | None) -> dict[str, Any]:
    """With rope_type (older: type) and rope_theta always there, without settings that are None
    (for truncate, None is false)."""
    plain = {name: value for name, value in settings.items() if value is not None}
    if "truncate" in settings:
        plain["truncate"] = settings["truncate"] or False
    kind = plain.pop("type", None)
    if plain.setdefault("rope_type", kind or "default") != kind and kind is not None:
        other = f"rope_type, which means the same, is {shown(plain['rope_type'])}"
        raise ValueError(f"config: type is {shown(kind)}, but {other}")
    plain.setdefault("rope_theta", 10000.0 if theta is None else theta)
    return plain


def _check(name: str, value: Any) -> None:
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
        raise ValueError(f"config: {name} must be {expected}, got {shown(value)}")


def rotary(settings: Rope, width: int) -> Callable[..., Callable[[int], dict[str, Callable]]]:
    """The piece `positions` of a decoder with RoPE: queries and keys of all layers are turned by
    layers.rope, with tables made once.

    With dynamic scaling the length that counts is the largest position of the batch plus 1, as in
    transformers; to know it, a GPU has to be waited for.
    """

    def positions(position_ids, *, keys, dtype):
        length = int(to_host(position_ids.max())) + 1 if settings.type == "dynamic" else 1
        host, magnitude = settings.frequencies(width, length)
        frequencies = array_module(position_ids).asarray(host)
        cos, sin = rotary_tables(position_ids, frequencies, magnitude=magnitude, dtype=dtype)
        turned = {"rotary": partial(rope, cos=cos, sin=sin)}
        return lambda layer: turned

    return positions
