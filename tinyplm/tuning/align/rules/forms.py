"""Rules on how an answer is written: its format, its language, its length."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar

import regex

from ....arguments import check_choice, check_number, check_whole

_THINK = regex.compile(r"(?s)\s*<think>(.*?)</think>(.*)")
_TAG = regex.compile(r"</?(?:think|answer)>")
_LETTER = regex.compile(r"\p{L}")

# the scripts in which a language is written
SCRIPTS = {
    **dict.fromkeys("de en es fi fr id it nl pl pt sv tr vi".split(), ("Latin",)),
    **dict.fromkeys("bg ru uk".split(), ("Cyrillic",)),
    **dict.fromkeys("ar fa ur".split(), ("Arabic",)),
    "el": ("Greek",),
    "he": ("Hebrew",),
    "hi": ("Devanagari",),
    "ja": ("Han", "Hiragana", "Katakana"),
    "ko": ("Hangul",),
    "th": ("Thai",),
    "zh": ("Han",),
}


@dataclasses.dataclass(frozen=True)
class ThinkFormat:
    """1 for <think>thoughts</think> and then an answer, each once and neither empty; otherwise 0.

    <think> may be the end of the prompt.                          DeepSeek-AI 2025, sec. 2.2.2
    """

    NAME: ClassVar[str] = "format"

    def __call__(self, prompt: str, answer: str) -> float:
        text = f"<think>{answer}" if prompt.rstrip().endswith("<think>") else answer
        found = _THINK.fullmatch(text)
        once = text.count("<think>") == text.count("</think>") == 1
        return float(bool(found and once and all(map(str.strip, map(_untagged, found.groups())))))


def _untagged(text: str) -> str:
    return _TAG.sub("", text)


@dataclasses.dataclass(frozen=True)
class Language:
    """The share of the answer's letters that are of one language's script, from 0 to 1.

    It tells languages apart by script only.  No letters: 0.       DeepSeek-AI 2025, sec. 2.3.2
    (there of words)
    """

    NAME: ClassVar[str] = "language"

    code: str

    def __post_init__(self) -> None:
        check_choice("language", self.code, SCRIPTS)

    @cached_property
    def _own(self) -> Any:
        scripts = "".join(rf"\p{{Script={script}}}" for script in SCRIPTS[self.code])
        return regex.compile(rf"(?V1)[[{scripts}]&&\p{{L}}]")

    def __call__(self, answer: str) -> float:
        text = _untagged(answer)
        letters = len(_LETTER.findall(text))
        return len(self._own.findall(text)) / letters if letters else 0.0


@dataclasses.dataclass(frozen=True)
class MaximumLength:
    """0 up to maximum - margin tokens, then falling linearly to -1 at the maximum, and -1 beyond.

        r = min(0, max(-1, (maximum - margin - tokens) / margin))    Yu et al. 2025 (DAPO), eq. 13

    margin: by default a fifth of the maximum, as there; 0 for a step.
    """

    NAME: ClassVar[str] = "length"

    maximum: int
    margin: int | None = None

    def __post_init__(self) -> None:
        check_whole("maximum", self.maximum, 1)
        check_whole("margin", self.margin, 0, self.maximum, or_none=True)

    def __call__(self, tokens: int) -> float:
        margin = self.maximum // 5 if self.margin is None else self.margin
        over = tokens - (self.maximum - margin)
        if over <= 0:
            return 0.0
        return -1.0 if over >= margin else -over / margin


@dataclasses.dataclass(frozen=True)
class TargetLength:
    """-|tokens - target| / target, at least -1.        as Aggarwal & Welleck 2025 (L1-Exact), eq. 1

    There the factor is a setting; here it is 1 / target, and the weight of the rule beside others.
    """

    NAME: ClassVar[str] = "target_length"

    target: int

    def __post_init__(self) -> None:
        check_number("target", self.target, above=0)

    def __call__(self, tokens: int) -> float:
        return -min(1.0, abs(tokens - self.target) / self.target)
