"""Several rules with weights, the rule of a record, and rules by name."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from ....arguments import check_number, check_text, is_number, mismatch, shown, wrong
from ....imported import imported
from .answers import Contains, Exact, Numeric, Pattern, check_answer
from .forms import Language, MaximumLength, TargetLength, ThinkFormat

# what a rule may ask for, by the names of its arguments
GIVEN = ("prompt", "answer", "record", "finished", "tokens")


class Told(ValueError):
    """The error of a rule, which names it."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A rule with its name and weight; takes: the names of the arguments that it is called with."""

    name: str
    rule: Callable[..., Any]
    weight: float
    takes: tuple[str, ...]

    @classmethod
    def of(cls, rule: Any, name: str | None = None, weight: float = 1.0) -> Part:
        """ValueError unless the rule is a function of some of GIVEN, by name."""
        own = getattr(rule, "NAME", getattr(rule, "__name__", type(rule).__name__))
        return cls(name or own, rule, weight, _takes(rule, name or own))

    def values(self, given: Mapping[str, Any]) -> dict[str, float]:
        """{"reward": number, ...} of the rule; Told if it raises, or if one is not finite."""
        try:
            found = self.rule(**{name: given[name] for name in self.takes if name in given})
        except Told:
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise Told(f"reward {self.name}: expected a number, got {said[:200]}") from error
        values = dict(found) if isinstance(found, Mapping) else {"reward": found}
        if "reward" not in values:
            raise Told(f'reward {self.name}: expected a number as "reward", got {shown(found, 60)}')
        for name, value in values.items():
            if not is_number(value) and not isinstance(value, (bool, np.bool_)):
                what = "a finite number" if name == "reward" else f"a finite number as {name}"
                raise Told(f"reward {self.name}: expected {what}, got {shown(value, 60)}")
        return {str(name): float(value) for name, value in values.items()}

    def check(self, record: Mapping[str, Any], where: str) -> None:
        """ValueError unless the record has what the rule needs."""
        if check := getattr(self.rule, "check", None):
            check(record, where)


def _takes(rule: Any, name: str) -> tuple[str, ...]:
    expected = f"a function of some of ({', '.join(GIVEN)}), by these names"
    if not callable(rule):
        raise wrong(f"rule {name}", expected, rule)
    try:
        parameters = inspect.signature(rule).parameters.values()
    except (TypeError, ValueError):  # written in C
        raise wrong(f"rule {name}", expected, rule) from None
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty and p.kind not in variable]
    if any(p not in named or p.name not in GIVEN for p in needed):
        raise mismatch(f"rule {name}", expected, f"one of {inspect.signature(rule)}")
    return GIVEN if everything else tuple(p.name for p in named if p.name in GIVEN)


@dataclasses.dataclass(frozen=True)
class Weighted:
    """sum of weight * reward over the parts; each part's reward is logged as reward_NAME."""

    parts: tuple[Part, ...]

    def __call__(self, **given: Any) -> dict[str, float]:
        total, logged = 0.0, {}
        for part in self.parts:
            values = part.values(given)
            reward = values.pop("reward")
            total += part.weight * reward
            logged[f"reward_{part.name}"] = reward
            logged |= {f"reward_{part.name}_{name}": value for name, value in values.items()}
        return {"reward": total, **logged}

    def check(self, record: Mapping[str, Any], where: str) -> None:
        for part in self.parts:
            part.check(record, where)


@dataclasses.dataclass(frozen=True)
class OfRecord:
    """The rule that the record's "rule" names, such as "numeric"; exact for a record without one.

    A record cannot name a file's function: data are not to run code.  Of several rules with
    weights only the sum is used, so that all records have the same parts to log.
    """

    NAME: ClassVar[str] = "rule"

    def __call__(self, **given: Any) -> float:
        return _of_data(given["record"].get("rule", "exact")).values(given)["reward"]

    def check(self, record: Mapping[str, Any], where: str) -> None:
        if "rule" not in record and "answer" not in record:
            check_answer(record, where, "exact, since it has no rule")
        try:
            part = _of_data(record.get("rule", "exact"))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        part.check(record, where)


# {name: (the class of the rule, the kinds of the arguments after its name)}
RULES: dict[str, tuple[Callable[..., Any], tuple[type, ...]]] = {
    "exact": (Exact, ()),
    "numeric": (Numeric, ()),
    "contains": (Contains, ()),
    "regex": (Pattern, ()),
    "format": (ThinkFormat, ()),
    "language": (Language, (str,)),
    "length": (MaximumLength, (int,)),
    "target_length": (TargetLength, (int,)),
    "rule": (OfRecord, ()),
}


def parse_rule(text: str, *, files: bool = True) -> Any:
    """The rule that a text names: NAME, with its arguments and a weight after colons, or several.

        parse_rule("exact")
        parse_rule("exact:1,format:0.2,language:zh:0.1")
        parse_rule("reward.py:function:0.5")           # imports the file; refused without `files`

    ValueError for an unknown or a repeated name, or a bad argument.
    """
    check_text("rule", text, empty=False)
    parts = [_part(item.strip(), files) for item in text.split(",")]
    if len(parts) == 1 and parts[0].weight == 1:
        return parts[0].rule
    return _combined(parts)


def weighted(rules: Mapping[Any, float]) -> Weighted:
    """Several rules as one: {rule: weight}, each rule by name or as a function.

    weighted({"exact": 1, "language:zh": 0.2, my_function: 0.5})
    """
    if not isinstance(rules, Mapping) or not rules:
        raise wrong("rules", "a dict {rule: weight}", rules)
    parts = []
    for rule, weight in rules.items():
        check_number(f"rules: weight of {shown(rule, 60)}", weight)
        part = _part(rule.strip(), True) if isinstance(rule, str) else Part.of(rule)
        parts.append(dataclasses.replace(part, weight=part.weight * float(weight)))
    return _combined(parts)


def _combined(parts: list[Part]) -> Weighted:
    names = [part.name for part in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise mismatch("rules", "each name once", f"{twice[0]} {names.count(twice[0])} times")
    return Weighted(tuple(parts))


def _part(text: str, files: bool) -> Part:
    """The rule and the weight of one item, such as "language:zh:0.2"."""
    path, py, rest = text.rpartition(".py:")
    if py:
        if not files:
            raise wrong("rule", f"one of {', '.join(RULES)}", text)
        function, _, weight = rest.partition(":")
        return Part.of(imported(f"{path}.py:{function}", "rule"), function, _weight(weight, text))
    name, *arguments = text.split(":")
    if name not in RULES:
        raise wrong("rule", f"one of {', '.join(RULES)}{', or FILE.py:NAME' * files}", text)
    make, kinds = RULES[name]
    form = ":".join([name, *(f"<{kind.__name__}>" for kind in kinds), "<weight>"])
    try:
        values = [kind(value) for kind, value in zip(kinds, arguments)]
    except ValueError:
        raise wrong("rule", f"{form}, the weight optional", text) from None
    if len(values) < len(kinds) or len(arguments) > len(kinds) + 1:
        raise wrong("rule", f"{form}, the weight optional", text)
    try:
        rule = make(*values)
    except ValueError as error:
        raise ValueError(f"rule {shown(text, 60)}: {error}") from None
    return Part.of(rule, name, _weight("".join(arguments[len(kinds) :]), text))


def _weight(text: str, item: str) -> float:
    try:
        value = float(text or 1)
    except ValueError:
        value = float("nan")
    if not is_number(value):
        raise mismatch(f"rule {shown(item, 60)}", "a number as weight", shown(text))
    return value


def _of_data(text: Any) -> Part:
    """The rule that a record names; ValueError for one that names the record's rule again."""
    check_text("rule", text, empty=False)  # before it is looked up, since a list has no hash
    return _parsed_once(text)


@functools.lru_cache(maxsize=256)
def _parsed_once(text: str) -> Part:
    rule = parse_rule(text, files=False)
    inner = [part.rule for part in rule.parts] if isinstance(rule, Weighted) else [rule]
    if any(isinstance(one, OfRecord) for one in inner):
        raise mismatch("rule", "a rule other than itself", shown(text))
    return Part.of(rule, getattr(rule, "NAME", text))
