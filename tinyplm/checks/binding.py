"""Which argument of a callable is which of our component's."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import is_several, shown, wrong
from ..core import flatten, tree_map, unflatten
from .callables import Adapter, CallError, Parameter, Slot
from .case import Case, Entry, draw_sizes

HARMLESS = ("block", "chunk")  # keywords that change the order of a computation alone
Arguments = Sequence[str] | Mapping[str, str] | None
Keywords = Mapping[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] | None


def copied(value: Any) -> Any:
    """A tree with copies of its arrays; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return tree_map(copied, value) if isinstance(value, (dict, list)) else value


class Names:
    """The names of a component's arguments, and the defaults of its keyword arguments."""

    def __init__(self, entry: Entry) -> None:
        parameters = inspect.signature(entry.f).parameters.values()
        self.positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        for p in parameters:
            if p.kind is p.VAR_POSITIONAL:  # a block's shared inputs
                count = len(entry.make(draw_sizes(0)).args) - len(self.positional)
                self.positional += [f"{p.name}{i}" for i in range(count)]
        self.keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def __str__(self) -> str:
        keywords = [
            name if default is inspect.Parameter.empty else f"{name}={_plain(default)}"
            for name, default in self.keywords.items()
        ]
        return "; ".join([", ".join(self.positional), *([", ".join(keywords)] if keywords else [])])

    def is_default(self, name: str, value: Any) -> bool:
        default = self.keywords.get(name)
        if value is None or default is None or isinstance(value, np.ndarray):
            return value is default
        return value is default or bool(value == default)


def _plain(value: Any) -> str:
    return value.__name__ if callable(value) else repr(value)


class Bound:
    """An adapted callable as a component: it takes our arguments and returns our gradients.

    arguments  None: a parameter takes our argument of its name, any other the next of ours that no
               parameter has;  {parameter: our name};  or our names in the order of the callable.
               "p.W" is an entry of a tree, "W.T" a matrix transposed.
    keywords   {our name: the callable's name, or a function of the value}, or a function from our
               keyword arguments to the callable's
    fixed      {our name: value} of arguments that every case has and the callable does not take
    """

    def __init__(
        self, adapter: Adapter, entry: Entry, arguments: Any, keywords: Any, fixed: Any
    ) -> None:
        self.adapter, self.entry, self.names = adapter, entry, Names(entry)
        if arguments is not None and not isinstance(arguments, Mapping):
            if not is_several(arguments) or not all(isinstance(n, str) for n in arguments):
                raise wrong("arguments", "names, or a dict {parameter: our name}", arguments)
            arguments = list(arguments)
        if not (keywords is None or callable(keywords) or isinstance(keywords, Mapping)):
            raise wrong("keywords", "None, a dict or a function of a dict", keywords)
        if not (fixed is None or isinstance(fixed, Mapping)):
            raise wrong("fixed", "None or a dict {name: value}", fixed)
        self.arguments, self.keywords, self.fixed = arguments, keywords, dict(fixed or {})
        self._check(arguments.values() if isinstance(arguments, Mapping) else arguments or [])
        unknown = {*self.fixed, *(keywords if isinstance(keywords, Mapping) else ())}
        self._check(unknown)

    def _check(self, names: Any) -> None:
        known = [*self.names.positional, *self.names.keywords]
        for name in names:
            root = str(name).split(".")[0]
            if root not in known and not callable(self.keywords):
                near = difflib.get_close_matches(root, known, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise ValueError(
                    f"arguments: expected names of {', '.join(known)}, got {shown(name)}{hint}"
                )

    # ------------------------------------------------------------------------------------- a case

    def prepared(self, case: Case) -> Case:
        """The case with the fixed values in it."""
        args = [self.fixed.get(n, a) for n, a in zip(self.names.positional, case.args)]
        args += case.args[len(args) :]
        kwargs = {n: self.fixed.get(n, value) for n, value in case.kwargs.items()}
        later = {n: v for n, v in self.fixed.items() if n in self.names.keywords}
        return Case(args, {**kwargs, **later})

    def left_out(self, case: Case) -> list[str]:
        """The names of arguments of this case that the callable does not take.

        Not those that are None or have their default: leaving these out changes nothing.
        """
        slots, _, left = self._plan(case.args, case.kwargs)
        taken = {target.removesuffix(".T") for target, _ in slots}
        missing = [
            n for n in left if n not in HARMLESS and not self.names.is_default(n, case.kwargs[n])
        ]
        for name, value in zip(self.names.positional, case.args):
            if name not in self.fixed:
                missing += [
                    path for path in flatten(value, name) if not {path, name} & taken
                ]  # None has no leaves
        return missing

    def _plan(
        self, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[tuple[str, Slot]], dict[str, Any], list[str]]:
        """((our name, slot) ..., keyword arguments, our keywords that the callable lacks)."""
        ours = dict(zip(self.names.positional, args))
        free = [n for n in self.names.positional if n not in self.fixed]
        given, back, spare = self._translated(kwargs)
        slots: list[tuple[str, Slot]] = []
        keywords: dict[str, Any] = {}

        def take(parameter: str, target: str) -> bool:
            if target.split(".")[0] in ours:
                slots.append((target, Slot(parameter, _entry(ours, target), True)))
            elif target in given:
                slots.append((target, Slot(parameter, given.pop(target), False)))
            else:
                return False
            return True

        def required(p: Parameter) -> bool:
            """Gives a parameter without a default ours, for cases that leave it to the default."""
            if p.required and p.name in spare:
                given[p.name] = spare[p.name]
            return p.name in given

        parameters = self.adapter.parameters
        if isinstance(self.arguments, list):
            in_order = [p.name for p in parameters or [] if not p.keyword]
            for i, target in enumerate(self.arguments):
                if not take(in_order[i] if i < len(in_order) else target, target):
                    raise CallError(f"arguments: expected arguments of ours, got {target}")
            filled: Any = {slot.parameter for _, slot in slots}
            rest = [p for p in parameters or [] if p.name not in filled and p.name in given]
        else:
            rest = self._by_name(parameters, free, take, required, slots)
        for p in rest:
            if p.name in given or required(p):
                keywords[p.name] = given.pop(p.name)
        if parameters is None or self.adapter.more_keywords:
            keywords |= given
            given = {}
        return slots, keywords, [back[n] for n in given if n in back]

    def _translated(
        self, kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
        """(the keyword arguments by the callable's names, {its name: ours}, our other defaults)."""
        given = {n: v for n, v in kwargs.items() if n not in self.fixed}
        if callable(self.keywords):
            return dict(self.keywords(given)), {}, {}
        how = dict(self.keywords or {})
        name = {
            n: how[n] if isinstance(how.get(n), str) else n for n in (*self.names.keywords, *given)
        }
        empty = inspect.Parameter.empty
        others = {
            n: v
            for n, v in self.names.keywords.items()
            if n not in kwargs and n not in self.fixed and v is not empty
        }

        def translated(values: dict[str, Any]) -> dict[str, Any]:
            return {name[n]: how[n](v) if callable(how.get(n)) else v for n, v in values.items()}

        return translated(given), {name[n]: n for n in given}, translated(others)

    def _by_name(
        self,
        parameters: list[Parameter] | None,
        free: list[str],
        take: Callable[[str, str], bool],
        required: Callable[[Parameter], bool],
        slots: list[tuple[str, Slot]],
    ) -> list[Parameter]:
        """Fills the slots of positional parameters; returns the keyword-only ones."""
        renamed = dict(self.arguments or {})
        targets = [renamed.get(p.name, p.name) for p in parameters or []]
        named = {target.split(".")[0] for target in targets}
        waiting = [n for n in free if n not in named]
        for p, target in zip(parameters or [], targets):
            if p.keyword or take(p.name, target) or (required(p) and take(p.name, p.name)):
                continue
            if waiting and p.name not in renamed:
                take(p.name, waiting.pop(0))
            elif p.required:
                raise CallError(
                    f"arguments: expected one of ours ({self.names}) for each parameter, "
                    f"got none for {p.name}"
                )
            else:
                slots.append(("", Slot(p.name, p.default, False)))
        if self.adapter.more_arguments:
            for name in waiting:
                take(name, name)
        return [p for p in parameters or [] if p.keyword]

    # ------------------------------------------------------------------------------------- a call

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, Callable]:
        """As a component, with copies, so that the callable cannot change what it is given."""
        y, backward = self.call(list(copied(list(args))), copied(kwargs))

        def protected(dy: Any) -> Any:
            grads = backward(copied(np.asarray(dy) if np.isscalar(dy) else dy))
            return grads[0] if len(grads) == 1 else tuple(grads)

        return y, protected

    def call(
        self, args: list[Any], kwargs: dict[str, Any], dtype: str | None = None
    ) -> tuple[Any, Callable[[Any], list[Any]]]:
        """Value and backward; dy and the gradients have our structure.  Arrays are not copied."""
        dtype = dtype or next(a.dtype.name for x in args for a in flatten(x).values())
        slots, keywords, _ = self._plan(args, kwargs)
        run = [slot for _, slot in slots]
        y, back = self._tried(lambda: self.adapter.run(run, keywords, dtype), args)

        def backward(dy: Any) -> list[Any]:
            grads = self._tried(lambda: back(dy), args)
            grads = self._tried(lambda: [_numbers("backward", g) for g in grads], args)
            return self._ours(args, [t for t, slot in slots if slot.differentiable], grads)

        y = list(y) if isinstance(y, tuple) else y
        return self._tried(lambda: _numbers("the value", y), args), backward

    def _tried(self, f: Callable[[], Any], args: list[Any]) -> Any:
        try:
            return f()
        except CallError as error:
            raise CallError(f"{self.adapter.name}: {error}") from None
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else "no message"
            arrays = [shown(a) for x in args for a in flatten(x).values()]
            given = ", ".join([*arrays[:4], *["..."] * (len(arrays) > 4)])
            raise CallError(
                f"{self.adapter.name}: expected no error, got {type(error).__name__}: {said} "
                f"(arguments: {given})"
            ) from error

    def _ours(self, args: list[Any], targets: list[str], grads: list[Any]) -> list[Any]:
        """The gradients, one for each of our arguments, with the structure of that argument."""
        found: dict[str, Any] = {}
        for target, grad in zip(targets, grads):
            name = target.removesuffix(".T")
            found[name] = np.asarray(grad).T if name != target and grad is not None else grad
        result: list[Any] = []
        for name, value in zip(self.names.positional, args):
            if name in found or not isinstance(value, (dict, list)):
                result.append(found.get(name))
                continue
            leaves = {path: found.get(f"{name}.{path}") for path in flatten(value)}
            result.append(unflatten(leaves, value))
        return result


def _numbers(what: str, value: Any) -> Any:
    """A tree with its leaves as arrays of real numbers; CallError for others."""

    def array(a: Any) -> np.ndarray:
        try:
            made = np.asarray(a)
        except Exception:  # NumPy raises several types
            raise CallError(f"{what}: expected arrays of numbers, got {shown(a)}") from None
        if made.dtype.kind not in "fiu":
            raise CallError(f"{what}: expected arrays of numbers, got {shown(a)}")
        return made

    return tree_map(array, value)


def _entry(ours: dict[str, Any], target: str) -> Any:
    """The argument "x", the entry "p.W" of a tree (None where there is none), or a transpose."""
    name, *path = target.removesuffix(".T").split(".")
    value = ours[name]
    for key in path:
        if isinstance(value, list):
            value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    if target.endswith(".T") and value is not None:
        return np.ascontiguousarray(value.T)
    return copy.copy(value) if isinstance(value, (dict, list)) else value
