"""Which regular expressions are fast by construction, and a time limit for the others.

A backtracking matcher tries all ways to divide a text among the parts of an expression: (?:a|aa)+$
takes time exponential in the number of a's, .*.*x cubic time.  The expressions of real tokenizers
are not of that kind, and should not pay for it: checking the clock makes them two to five times
slower.  So each expression is analysed once.  It runs without a clock if `is_fast` shows that an
attempt at one position takes time proportional to what it reads, and so does the whole search.  Any
other is limited to SECONDS plus SECONDS_A_CHARACTER for each character.  All words and all
expressions of one text share this limit (`within_time`).
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

import regex

from ...arguments import shown

SECONDS, SECONDS_A_CHARACTER = 0.5, 7e-6  # processor time, which `regex` measures
MOST_PARTS = 100_000  # (?:a{300}){300} counts as 90,000, since that is how it is compiled
FEW = 4  # {1,4} is a choice, {0,5} a repetition


@dataclass
class _Branch:
    """Consecutive parts.  repeats: how many of them can match in any number of ways; choices: in a
    few ways.  tried, tried_choices: how many are retried in all their ways because something after
    them may fail."""

    repeats: int = 0
    choices: int = 0
    tried: int = 0
    tried_choices: int = 0
    group: bool = False

    def add(self, part: _Branch, optional: bool = False) -> None:
        if part.tried or not optional:  # it may fail
            self.tried = max(self.tried, self.repeats + part.tried)
            self.tried_choices = max(self.tried_choices, self.choices + part.tried_choices)
        self.repeats, self.choices = self.repeats + part.repeats, self.choices + part.choices


@dataclass
class _Group:
    """An open bracket.  last: the last part of the branch, which a quantifier may follow."""

    opening: str
    finished: list[_Branch] = field(default_factory=list)
    branch: _Branch = field(default_factory=_Branch)
    last: _Branch | None = None

    def put(self, part: _Branch | None) -> None:
        if self.last is not None:
            self.branch.add(self.last)
        self.last = part

    def next_branch(self) -> None:
        self.put(None)
        self.finished.append(self.branch)
        self.branch = _Branch()

    def closed(self) -> _Branch:
        self.next_branch()
        several = len(self.finished) > 1
        counts = zip(
            *((b.repeats, b.choices + several, b.tried, b.tried_choices) for b in self.finished)
        )
        repeats, choices, tried, tried_choices = map(max, counts)
        result = _Branch(repeats, choices, tried, tried_choices, group=True)
        # A lookaround can fail although its content matches.
        if self.opening not in ("", "(", "(?:"):
            result.tried = max(result.tried, result.repeats)
            result.tried_choices = max(result.tried_choices, result.choices)
        return result


def is_fast(parts: Sequence[str]) -> bool:
    """Whether a search takes time proportional to the text, whatever the text.

    parts: the smallest parts of the expression, as patterns.py cuts it.  True only if nothing that
    is repeated can match in several ways, and if before anything that may fail at most one part is
    repeated without limit and few are optional or alternatives.  Also, if an alternative can fail
    after a repeated part, such as \\s+(?!\\S), a later one must match the repeated part in any
    case, \\s+: otherwise each position of a long run is tried in vain.  Errs towards False.
    """
    alternatives = _alternatives(parts)
    branches = []
    for alternative in alternatives:
        branch = _branch(alternative)
        if branch is None or branch.tried > 1 or branch.tried_choices > FEW:
            return False
        branches.append(branch)
    return all(
        not branch.tried
        or any(
            _takes(alternatives[j], _repeated(alternatives[i])) and not branches[j].tried
            for j in range(i + 1, len(branches))
        )
        for i, branch in enumerate(branches)
    )


def _alternatives(parts: Sequence[str]) -> list[list[str]]:
    """The expression cut at each | outside of brackets."""
    depth = 0
    result: list[list[str]] = [[]]
    for part in parts:
        depth += (part[0] == "(" and part != "(?i)") - (part == ")")
        if part == "|" and not depth:
            result.append([])
        else:
            result[-1].append(part)
    return result


def _repeated(parts: list[str]) -> str | None:
    """The first part that is repeated without limit; None if it is a group."""
    for part, after in zip(parts, parts[1:]):
        if after[0] in "*+" or after[0] == "{" and after[1:]:
            return part
    return None


def _takes(parts: list[str], part: str | None) -> bool:
    """Whether the parts start with part+, after optional parts."""
    at = 0
    while parts[at + 1 : at + 2] == ["?"]:
        at += 2
    return part not in (None, ")") and parts[at : at + 2] == [part, "+"]


def _branch(parts: Iterable[str]) -> _Branch | None:
    """What an expression may try; None if a repeated part can match in several ways."""
    groups = [_Group("")]
    for part in parts:
        group = groups[-1]
        if part == "|":
            group.next_branch()
        elif part[0] == "(" and part != "(?i)":
            group.put(None)
            groups.append(_Group(part))
        elif part == ")":
            if len(groups) == 1:
                return None
            inside = groups.pop().closed()
            groups[-1].put(inside)
        elif part[0] in "*+?" or (part[0] == "{" and len(part) > 1):
            least, most = _limits(part)
            repeated = group.last
            if repeated is None or (repeated.group and most not in (None, 1)):
                return None
            if most is None and (repeated.repeats or repeated.choices):
                return None
            if most is None or most > max(FEW, least):
                repeated = _Branch(repeats=1)
            elif least != most:
                repeated = replace(repeated, choices=repeated.choices + 1)
            group.branch.add(repeated, optional=least == 0)
            group.last = None
        else:
            group.put(_Branch())
    whole = groups.pop().closed()
    return None if groups else whole


def count_parts(parts: Iterable[str]) -> int:
    """The number of parts of a compiled expression: a part repeated {n} times counts n times."""
    sums, last = [0], [0]
    for part in parts:
        if part[0] in "*+?" or (part[0] == "{" and len(part) > 1):
            last[-1] *= max(1, *(n or 0 for n in _limits(part)))
            continue
        sums[-1] += last[-1]
        last[-1] = 1
        if part[0] == "(" and part != "(?i)":
            sums.append(0)
            last.append(0)
        elif part == ")" and len(sums) > 1:
            inside = sums.pop()
            last.pop()
            last[-1] = inside
    return sum(sums) + sum(last)


def _limits(quantifier: str) -> tuple[int, int | None]:
    """The minimum and the maximum number of repetitions; None: no maximum."""
    if quantifier[0] != "{":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[quantifier[0]]
    low, comma, high = quantifier[1:].partition("}")[0].partition(",")
    least = int(low or 0)
    return least, (int(high) if high else None) if comma else least


class Limited:
    """A compiled pattern with a time limit per run, and ValueError when it is exceeded."""

    def __init__(self, pattern: regex.Pattern, expression: str):
        self.pattern, self.expression, self.groups = pattern, expression, pattern.groups

    def findall(self, text: str) -> list[Any]:
        return self._run(self.pattern.findall, text)

    def finditer(self, text: str) -> list[regex.Match]:
        return self._run(lambda *args, **limit: list(self.pattern.finditer(*args, **limit)), text)

    def search(self, text: str, start: int = 0) -> regex.Match | None:
        return self._run(self.pattern.search, text, start)

    def _run(self, method: Callable[..., Any], text: str, *place: int) -> Any:
        limit = _limit(len(text))
        remaining = limit if _account.remaining is None else min(limit, _account.remaining)
        started = time.process_time()
        try:
            if remaining <= 0:
                raise TimeoutError
            return method(text, *place, timeout=remaining)
        except TimeoutError:
            raise ValueError(
                f"regular expression {shown(self.expression)}: expected a fast one, got a timeout "
                f"on {shown(text, 40)}, {len(text)} characters"
            ) from None
        finally:
            if _account.remaining is not None:
                _account.remaining -= time.process_time() - started


class _Account(threading.local):
    """The time that remains for all expressions of a call; None outside of such a call."""

    remaining: float | None = None


_account = _Account()
P = ParamSpec("P")
R = TypeVar("R")


def _limit(characters: int) -> float:
    return SECONDS + SECONDS_A_CHARACTER * characters


def within_time(method: Callable[P, R]) -> Callable[P, R]:
    """A decorator for method(self, text, ...): all expressions run in it share the limit for one
    run over the text."""

    @functools.wraps(method)
    def timed(*args: P.args, **kwargs: P.kwargs) -> R:
        if _account.remaining is not None:
            return method(*args, **kwargs)
        _, text = (*args, *kwargs.values())[:2]
        # The method itself refuses what is not text.
        _account.remaining = _limit(len(text) if isinstance(text, (str, list)) else 0)
        try:
            return method(*args, **kwargs)
        finally:
            _account.remaining = None

    return timed
