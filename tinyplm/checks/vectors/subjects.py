"""All subjects by name."""

from __future__ import annotations

from ...families import FAMILIES
from ..cases import COMPONENTS
from . import components, families, objectives, optimisation, sampling, tokenization
from .subject import Subject

OTHERS: dict[str, Subject] = optimisation.SUBJECTS | sampling.SUBJECTS | objectives.SUBJECTS


def names() -> list[str]:
    """The names that `components` of `write` may contain."""
    return sorted([*COMPONENTS, *OTHERS, *tokenization.NAMES])


def subject(name: str) -> Subject:
    if name in FAMILIES:
        return families.subject(name)
    return OTHERS[name] if name in OTHERS else components.subject(name)


__all__ = ["FAMILIES", "names", "subject"]
