"""How long a regular expression may take: which are fast by their form, and a limit of time for the others.

A matcher that backtracks tries all ways to divide a text among an expression's parts: (?:a|aa)+$ takes time exponential in the
number of a's, .*.*x the third power.  The expressions of tokenizers are not of that kind, and must not pay for it: looking at the
clock makes them two to five times slower.  So an expression is read once, and runs without a clock if `is_fast` says that an
attempt to match at one place takes time proportional to what it reads, and the whole search too; any other has SECONDS, and a bit
for each character.  All words of a text, and all expressions that it goes through, have this time together (`within_time`).
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import regex

from ...arguments import shown

SECONDS, SECONDS_A_CHARACTER = 0.5, 7e-6  # of the processor, which `regex` measures
MOST_PARTS = (
    100_000  # of an expression, with (?:a{300}){300} counted as 90,000: it is compiled as so many
)
FEW = 4  # {1,4} is a choice, {0,5} a repetition


@dataclass
class _Branch:
    """Parts one after the other.  `repeats`: how many of them match in any number of ways, `choices`: in a few.  Where something
    after them fails they are tried in all their ways: `tried`, `tried_choices`."""

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
    """A bracket that is being read.  last: the last part of the branch, which a quantifier may follow."""

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
        result = _Branch(*map(max, counts), group=True)
        if self.opening not in (
            "",
            "(",
            "(?:",
        ):  # it looks around: it may fail although what is in it matches
            result.tried, result.tried_choices = (
                max(result.tried, result.repeats),
                max(result.tried_choices, result.choices),
            )
        return result


def is_fast(parts: Sequence[str]) -> bool:
    """Whether a search takes time proportional to the text, whatever the text.

    parts: the smallest parts of the expression, as patterns.py cuts it.  True only if nothing that is repeated can itself match
    in several ways, and of the parts before something that may fail at most one is repeated without limit, and few are optional
    or alternatives; and if an alternative that fails behind a repeated part, such as \\s+(?!\\S), is followed by one that takes
    the repeated part in any case, \\s+: otherwise each place of a long run is tried in vain.  Errs towards False.
    """
    alternatives = _alternatives(parts)
    branches = [_branch(alternative) for alternative in alternatives]
    if None in branches or any(b.tried > 1 or b.tried_choices > FEW for b in branches):
        return False
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
    depth, result = 0, [[]]
    for part in parts:
        depth += (part[0] == "(" and part != "(?i)") - (part == ")")
        if part == "|" and not depth:
            result.append([])
        else:
            result[-1].append(part)
    return result


def _repeated(parts: list[str]) -> str | None:
    """The first part that is repeated without limit; None if it is a group."""
    return next(
        (
            part
            for part, after in zip(parts, parts[1:])
            if after[0] in "*+" or after[0] == "{" and after[1:]
        ),
        None,
    )


def _takes(parts: list[str], part: str | None) -> bool:
    """Whether they begin with part+, behind what is optional."""
    at = 0
    while parts[at + 1 : at + 2] == ["?"]:
        at += 2
    return part not in (None, ")") and parts[at : at + 2] == [part, "+"]


def _branch(parts: Iterable[str]) -> _Branch | None:
    """What an expression may try; None where a repeated part can match in several ways."""
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
    """How many parts an expression is compiled to: what is repeated {n} times counts n times."""
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
    """How often at least and at most; None: without limit."""
    if quantifier[0] != "{":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[quantifier[0]]
    low, comma, high = quantifier[1:].partition("}")[0].partition(",")
    least = int(low or 0)
    return least, (int(high) if high else None) if comma else least


class Limited:
    """A compiled pattern with a time limit on every run.  ValueError if it takes longer."""

    def __init__(self, pattern: regex.Pattern, expression: str):
        self.pattern, self.expression, self.groups = pattern, expression, pattern.groups

    def findall(self, text: str) -> list[Any]:
        return self._run(self.pattern.findall, text)

    def finditer(self, text: str) -> list[regex.Match]:
        return self._run(lambda *args, **limit: list(self.pattern.finditer(*args, **limit)), text)

    def search(self, text: str, start: int = 0) -> regex.Match | None:
        return self._run(self.pattern.search, text, start)

    def _run(self, method: Callable, text: str, *place: int) -> Any:
        alone = _limit(len(text))
        left = alone if _account.left is None else min(alone, _account.left)
        started = time.process_time()
        try:
            if left <= 0:
                raise TimeoutError
            return method(text, *place, timeout=left)
        except TimeoutError:
            raise ValueError(
                f"the regular expression {shown(self.expression)} takes too long for {shown(text, 40)}, {len(text)} characters"
            ) from None
        finally:
            if _account.left is not None:
                _account.left -= time.process_time() - started


class _Account(threading.local):
    """What is left of a call's time for all its expressions; None outside of such a call."""

    left: float | None = None


_account = _Account()
F = TypeVar("F", bound=Callable)


def _limit(characters: int) -> float:
    return SECONDS + SECONDS_A_CHARACTER * characters


def within_time(method: F) -> F:
    """A decorator for method(self, text, ...): all expressions that are run in it share the time of one run over the text."""

    @functools.wraps(method)
    def timed(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        if _account.left is not None:
            return method(self, text, *args, **kwargs)
        _account.left = _limit(
            len(text) if isinstance(text, (str, list)) else 0
        )  # what is no text the method refuses
        try:
            return method(self, text, *args, **kwargs)
        finally:
            _account.left = None

    return timed  # type: ignore[return-value]
