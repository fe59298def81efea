"""The steps by name, and lists of them with settings, checked before any work.

[[step]]
name = "gopher_quality"
least_words = 30
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ...arguments import check_choice, listed, mismatch, shown
from .step import CorpusStep, Step

# {name: (module within tinyplm.data, function)}; imported when a step is used
STEPS = {
    "unicode": ("cleaning", "unicode"),
    "c4": ("cleaning", "c4"),
    "c4_spans": ("cleaning", "c4_spans"),
    "gopher_quality": ("cleaning", "gopher_quality"),
    "gopher_repetition": ("cleaning", "gopher_repetition"),
    "fineweb": ("cleaning", "fineweb"),
    "language": ("language", "language"),
    "quality": ("quality", "quality"),
    "privacy": ("privacy", "privacy"),
    "exact_documents": ("deduplication", "exact_documents"),
    "exact_paragraphs": ("deduplication", "exact_paragraphs"),
    "exact_lines": ("deduplication", "exact_lines"),
    "minhash": ("deduplication", "minhash"),
    "substrings": ("deduplication", "substrings"),
    "decontaminate": ("deduplication", "decontaminate"),
}
# of one language alone, so that they need no model: rules of the form, copies, personal data
DEFAULT = (
    {"name": "unicode"},
    {"name": "gopher_repetition"},
    {"name": "gopher_quality"},
    {"name": "fineweb"},
    {"name": "exact_documents"},
    {"name": "minhash"},
    {"name": "privacy"},
)


class Spec(NamedTuple):
    """A step by its name, with settings."""

    name: str
    settings: Mapping[str, Any]


def factory(name: str) -> Callable[..., Step | CorpusStep]:
    """The function that makes a step from settings; ValueError for an unknown name."""
    check_choice("step", name, tuple(STEPS))
    module, function = STEPS[name]
    return getattr(importlib.import_module(f"tinyplm.data.{module}"), function)


def specs(steps: Iterable[Mapping[str, Any]]) -> list[Spec]:
    """From tables as a TOML file has them; ValueError that names the step by number.

    Every step is made once, so that wrong settings are found before any work.
    """
    found = []
    for number, table in enumerate(listed("steps", steps, "several tables"), 1):
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise mismatch(
                f"step {number}", 'a table with a name, as in name = "unicode"', shown(table)
            )
        spec = Spec(table["name"], {key: value for key, value in table.items() if key != "name"})
        try:
            make(spec)
        except ValueError as error:
            raise ValueError(f"step {number}: {error}") from None
        found.append(spec)
    if not found:
        raise mismatch("steps", "at least one step", "none")
    return found


def make(spec: Spec) -> Step | CorpusStep:
    """The step.  ValueError for an unknown name or setting, or a setting out of its range."""
    made = factory(spec.name)
    known = inspect.signature(made).parameters
    for key in spec.settings:
        if key not in known:
            expected = f"one of its settings: {', '.join(known) or 'none'}"
            raise mismatch(spec.name, expected, shown(key))
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in spec.settings:
            raise mismatch(spec.name, f"the setting {key}", "none")
    try:
        return made(**spec.settings)
    except (TypeError, ValueError) as error:
        text = str(error).removeprefix(f"{spec.name}: ")
        raise ValueError(f"{spec.name}: {text}") from None


def is_corpus_step(step: Step | CorpusStep) -> bool:
    return hasattr(step, "decide")
