"""Rules that compare an answer with its record.                   DeepSeek-AI 2025, sec. 2.2.2

Each is called with what it asks for by name, answer and record, and gives a number.  `check` says
before anything is drawn whether a record has what the rule needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import regex

from ....arguments import check_number, check_text, is_number, mismatch, shown

SECONDS = 1.0  # that a pattern may take
# 1,234.5 or -3e5; a minus after a letter, a digit or a bracket is an operator or a hyphen
_NUMBER = regex.compile(
    r"(?:(?<![\w)\]])[-+\u2212])?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+)?"
)
_THOUGHTS = regex.compile(r"(?s).*</think>")
_INSIDE = regex.compile(r"(?s)<answer>(.*?)</answer>")


def final_answer(text: str) -> str:
    """What follows the last </think>, and of that what is inside the last <answer></answer>."""
    text = _THOUGHTS.sub("", text, count=1)
    inside = _INSIDE.findall(text)
    return (inside[-1] if inside else text).strip()


def last_number(text: str) -> float | None:
    """The last number in a text, such as 1234.5 of "1,234.5 km"; None if there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def right_answers(record: Mapping[str, Any]) -> list[str]:
    """The record's "answer" as texts: a text, a number, or a list of such."""
    value = record.get("answer")
    return [str(v).strip() for v in (value if isinstance(value, list) else [value])]


def check_answer(record: Mapping[str, Any], where: str, rule: str) -> None:
    """ValueError unless the record has an answer to compare with."""
    value = record.get("answer")
    values = value if isinstance(value, list) else [value]
    right = (isinstance(v, str) and v.strip() or is_number(v) for v in values)
    if not values or not all(right):
        got = shown(value, 60) if "answer" in record else f"only {', '.join(map(repr, record))}"
        raise mismatch(where, f'an "answer" for the rule {rule}, a text or a number', got)


@dataclasses.dataclass(frozen=True)
class Exact:
    """1 if the final answer, without white space around it, is one of the record's; otherwise 0."""

    NAME: ClassVar[str] = "exact"

    def __call__(self, answer: str, record: Mapping[str, Any]) -> float:
        return float(final_answer(answer) in right_answers(record))

    def check(self, record: Mapping[str, Any], where: str) -> None:
        check_answer(record, where, self.NAME)


@dataclasses.dataclass(frozen=True)
class Numeric:
    """1 if the last number of the final answer is the last one of the record's; otherwise 0.

    tolerance: of the difference, absolute for numbers below 1, otherwise relative.
    """

    NAME: ClassVar[str] = "numeric"

    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, least=0)

    def __call__(self, answer: str, record: Mapping[str, Any]) -> float:
        found, near = last_number(final_answer(answer)), self.tolerance
        if found is None or math.isinf(found):  # 1e999 is no right answer
            return 0.0
        right = [x for x in map(last_number, right_answers(record)) if x is not None]
        return float(any(math.isclose(found, x, rel_tol=near, abs_tol=near) for x in right))

    def check(self, record: Mapping[str, Any], where: str) -> None:
        check_answer(record, where, self.NAME)
        if None in map(last_number, right_answers(record)):
            raise mismatch(where, "a number in the answer", shown(record["answer"], 60))


@dataclasses.dataclass(frozen=True)
class Contains:
    """1 if one of the record's answers occurs in the final answer; otherwise 0."""

    NAME: ClassVar[str] = "contains"

    def __call__(self, answer: str, record: Mapping[str, Any]) -> float:
        text = final_answer(answer)
        return float(any(right in text for right in right_answers(record)))

    def check(self, record: Mapping[str, Any], where: str) -> None:
        check_answer(record, where, self.NAME)


@dataclasses.dataclass(frozen=True)
class Pattern:
    """1 if a regular expression is found in the final answer; otherwise 0.

    pattern: None: the record's "pattern".  A search that takes more than a second finds nothing,
    and is logged as reward_regex_slow 1.
    """

    NAME: ClassVar[str] = "regex"

    pattern: str | None = None

    def __post_init__(self) -> None:
        check_text("pattern", self.pattern, or_none=True, empty=False)
        if self.pattern is not None:
            _compiled(self.pattern, "pattern")

    def __call__(self, answer: str, record: Mapping[str, Any]) -> dict[str, float]:
        wanted = record["pattern"] if self.pattern is None else self.pattern
        try:
            found = _compiled(wanted, "pattern").search(final_answer(answer), timeout=SECONDS)
        except TimeoutError:
            return {"reward": 0.0, "slow": 1.0}
        return {"reward": float(found is not None), "slow": 0.0}

    def check(self, record: Mapping[str, Any], where: str) -> None:
        if self.pattern is None:
            if not isinstance(record.get("pattern"), str):
                got = f"only {', '.join(map(repr, record))}"
                raise mismatch(where, 'a "pattern" for the rule regex', got)
            _compiled(record["pattern"], f"{where}: pattern")


def _compiled(pattern: str, where: str) -> Any:
    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError) as error:
        raise mismatch(where, "a regular expression", f"{shown(pattern, 60)} ({error})") from None
    except RecursionError:
        given = f"{shown(pattern, 60)} (too deeply nested)"
        raise mismatch(where, "a regular expression", given) from None
