"""Chat templates of model folders: untrusted programs in Jinja, run in jinja2's sandbox and within limits.

The sandbox keeps a template from Python's internals, but `{% for %}` in `{% for %}`, "x" * 10**9 or a list that holds another
twice, forty times over, still take all time and memory.  So each render has a meter, and every step of the template goes through
it: each turn of a loop, call, filter, test and operator that makes something, and each piece of output.  For messages of n
characters in m messages a render is refused when

    time     it takes more than SECONDS + m / 1000 seconds
    size     one value has more than LARGEST + 16 n characters and items, what is in it counted as often as it would be printed
    memory   all values and all output that it makes have together more than ROOM + 1000 n characters
    depth    calls (macros) or values are nested more than DEEPEST levels deep
    source   the template itself has more than LONGEST_SOURCE characters or MOST_NODES parts, or nests deeper than Python allows

A single step takes time in proportion to the sizes of its values and result, which are known before it is carried out, so that
none of these limits is exceeded by much.  This needs no signals and no processes: it works in any thread, on any system.

The hooks: the sandbox's own for calls and operators; filters and tests that are wrapped; and the template's tree, in which what
else can make a value (literals, ~, slices, text) or repeat (loops, macros) is passed through a filter of ours.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from time import perf_counter
from typing import Any

import regex
from jinja2 import TemplateError, Undefined, nodes, pass_context, pass_eval_context
from jinja2.ext import Extension
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from ...arguments import shown

SECONDS = 1.0
LARGEST = 10**6
ROOM = 10**8
DEEPEST = 100
LONGEST_SOURCE = 1 << 16  # characters of a template; the longest on the hub have some 20,000
MOST_NODES = 10_000  # of its tree; those have some 5,000
MAX_BITS = 4096  # of an integer

# What may be called.  Its result and its time are in proportion to what it is given, or, in _PRODUCTS, to the product of these.
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric "
        "isprintable isspace istitle isupper lower lstrip partition removeprefix removesuffix rfind rindex rpartition rsplit "
        "rstrip split splitlines startswith strip swapcase title upper "
        "center format format_map join ljust replace rjust zfill".split()
    ),
    list: frozenset(("copy", "count", "index")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("copy", "fromkeys", "get", "items", "keys", "values")),
}
_PRODUCTS = frozenset(
    "batch center format indent join ljust replace rjust slice tojson zfill "  # what they make
    "count find index partition rfind rindex rpartition rsplit split".split()  # what they compare
)
_REMOVED = (
    "pprint",
    "random",
    "striptags",
    "urlize",
    "wordwrap",
)  # random or quadratic, and in no chat template
_VIEWS = (type({}.items()), type({}.keys()), type({}.values()))
_WIDE = regex.compile(
    r"%[-#0 +]*(?:\([^)]*\))?[-#0 +]*(?:\*|\d{4}|\d*\.(?:\*|\d{4}))"
)  # a width of four digits, or an argument

Render = Callable[..., str]
_running: ContextVar[_Meter] = ContextVar(
    "running"
)  # the meter of the render that runs in this thread


class _Meter:
    def __init__(self, size: int, messages: int):
        self.seconds = SECONDS + messages / 1000
        self.deadline = perf_counter() + self.seconds
        self.largest, self.room = LARGEST + 16 * size, ROOM + 1000 * size
        self.limit = self.room
        self.depth = 0
        # id -> (the container, which must live as long as its id is used; weight; depth)
        self.known: dict[int, tuple[Any, int, int]] = {}

    def step(self) -> None:
        if perf_counter() > self.deadline:
            raise TemplateError(f"it takes more than {self.seconds:g} seconds")

    def weight(self, value: Any) -> int:
        """Characters and items of a value, with what is in it."""
        return self._weight(value, 0)[0]

    def _weight(self, value: Any, level: int) -> tuple[int, int]:
        if isinstance(value, str):
            return len(value), 0
        if value is None or isinstance(value, (bool, float, Undefined)):
            return 1, 0
        if isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise TemplateError(f"an integer has more than {MAX_BITS} bits")
            return 1 + value.bit_length() // 4, 0
        if isinstance(value, range):
            return 8 * len(value), 1
        if not isinstance(
            value, (list, tuple, Mapping, *_VIEWS)
        ):  # of jinja2: a macro, a namespace
            return 100, 0
        if id(value) in self.known:
            return self.known[id(value)][1:]
        items = (
            (part for pair in value.items() for part in pair)
            if isinstance(value, Mapping)
            else value
        )
        weight, depth = 2, 0
        for item in items:
            w, d = self._weight(item, level + 1)
            weight, depth = weight + w + 2, max(depth, d + 1)
            if weight > self.largest or depth + level > DEEPEST:
                break
        if weight > self.largest:
            raise TemplateError(f"a value has more than {self.largest:,} characters and items")
        if depth + level > DEEPEST:
            raise TemplateError(f"a value is nested more than {DEEPEST} levels deep")
        self.known[id(value)] = value, weight, depth
        return weight, depth

    def made(self, value: Any) -> Any:
        """A value that a step has made.  Generators become lists: they have no size, and a million nested ones crash Python."""
        if isinstance(value, Iterator):
            value = list(value)
        if (weight := self.weight(value)) > self.largest:
            raise TemplateError(f"a value has more than {self.largest:,} characters and items")
        self.charge(8 * len(value) if isinstance(value, (list, tuple, Mapping)) else weight)
        return value

    def charge(self, count: int) -> None:
        self.room -= count
        if self.room < 0:
            raise TemplateError(f"it makes more than {self.limit:,} characters")

    def product(self, name: str, values: Sequence[Any]) -> None:
        """Before a step that takes or makes at most the product of its values' sizes; an integer's is itself."""
        if name == "replace":
            values = [*values[:1], *values[2:]]  # without what is replaced
        sizes = (
            abs(v) if isinstance(v, int) else self.weight(v)
            for v in values
            if v is not None and not isinstance(v, bool)
        )
        product = math.prod(1 + size for size in sizes)
        if product > self.limit:
            raise TemplateError(f"{name} could take more than {self.limit:,} steps")


def compile_template(source: str, tokens: Mapping[str, str], where: str) -> Render:
    """render(messages, add_generation_prompt) of a template; ValueError, beginning with `where`, if it is not valid.

    render raises ValueError for whatever goes wrong in the template, and where it exceeds a limit.
    """
    environment = _Environment()
    try:
        if len(source) > LONGEST_SOURCE:
            raise TemplateError(
                f"it has {len(source):,} characters, expected at most {LONGEST_SOURCE:,}"
            )
        template = environment.from_string(source)
    except Exception as error:  # also of Python, which compiles what jinja2 writes
        raise ValueError(
            f"{where}: the folder's chat template is not valid: {_said(error)}"
        ) from None

    def render(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        known = {
            "messages": [dict(m) for m in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        absent = {
            "tools": None,
            "documents": None,
        }  # templates ask "is not none", which holds for what is not defined
        size = sum(len(str(text)) for m in known["messages"] for text in m.values())
        before = _running.set(_Meter(size, len(known["messages"])))
        try:
            return template.render({**tokens, **known, **absent})
        except (
            Exception
        ) as error:  # it is somebody's program, and whatever goes wrong in it is not ours
            raise ValueError(
                f"{where}: the folder's chat template refuses these messages: {_said(error)}"
            ) from None
        finally:
            _running.reset(before)

    return render


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error)
    return text if text.isprintable() and len(text) <= 200 else shown(text, 200)


# ------------------------------------------------------------------------------------------------------ the hooks


_HANDLES = (
    Context,
    EvalContext,
    ImmutableSandboxedEnvironment,
)  # what jinja2 gives to functions before their arguments


def _limited(name: str, function: Callable) -> Callable:
    """A filter or test that goes through the meter.  Without one (jinja2 computes constants when it compiles) it raises."""

    @wraps(function)  # with jinja2's marks: pass_context ...
    def call(*args: Any, **kwargs: Any) -> Any:
        meter = _running.get()
        meter.step()
        values = [arg for arg in (*args, *kwargs.values()) if not isinstance(arg, _HANDLES)]
        if name in _PRODUCTS:
            meter.product(name, values)
        if name == "format":
            _check_widths(str(values[0]))
        if name == "sum" and isinstance(
            kwargs.get("start", args[3] if len(args) > 3 else 0), (list, tuple)
        ):
            raise TemplateError(
                "sum is for numbers"
            )  # of lists it takes the square of their length
        return meter.made(function(*args, **kwargs))

    return call


@pass_context
def _value(context: Context, value: Any) -> Any:
    _running.get().step()
    return _running.get().made(value)


@pass_eval_context
def _joined(context: EvalContext, parts: list[Any]) -> str:
    """a ~ b ~ c; their sizes are known before they are joined."""
    meter = _running.get()
    meter.step()
    meter.weight(parts)
    return meter.made((markup_join if context.autoescape else str_join)(parts))


@pass_context
def _step(context: Context, value: Any) -> Any:
    _running.get().step()
    return value


@pass_context
def _output(context: Context, value: Any) -> Any:
    meter = _running.get()
    meter.step()
    meter.charge(meter.weight(value))
    return value


def _check_widths(text: str) -> None:
    """Of a text with %: TemplateError for widths that make a long text of a short one."""
    if _WIDE.search(text):
        raise TemplateError(f"the width in {shown(text)} is too large")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=_output,
        )
        self.filters["tojson"] = _to_json
        self.filters = {
            name: _limited(name, function)
            for name, function in self.filters.items()
            if name not in _REMOVED
        }
        self.filters |= {"_value": _value, "_step": _step, "_joined": _joined}
        self.tests = {name: _limited(name, function) for name, function in self.tests.items()}
        # what templates of the hub call
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now, "namespace": _Namespace}
        del self.globals["lipsum"]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if sum(1 for _ in tree.find_all(nodes.Node)) > MOST_NODES:
            raise TemplateError(f"it has more than {MOST_NODES:,} parts")
        tree = _metered(tree)
        tree.set_environment(self)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in _METHODS.items():
            if isinstance(obj, kind) or obj is kind:
                return attr in names or attr in getattr(obj, "_fields", ())  # of groupby
        return not isinstance(obj, (int, float, bytes)) and super().is_safe_attribute(
            obj, attr, value
        )

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def limited(*args: Any, **kwargs: Any) -> str:
            text = value.__self__
            _running.get().product("format", [text, (args, kwargs)])
            for _, _, spec, _ in string.Formatter().parse(text):
                if spec and ("{" in spec or regex.search(r"\d{4}", spec)):
                    raise TemplateError(f"the width in {shown(text)} is too large")
            return wrapped(*args, **kwargs)

        return limited

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        meter = _running.get()
        meter.step()
        receiver, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(receiver, str) and name in _PRODUCTS:
            meter.product(name, [receiver, *args, *kwargs.values()])
        if meter.depth >= DEEPEST:
            raise TemplateError(f"calls are nested more than {DEEPEST} levels deep")
        meter.depth += 1
        try:
            return meter.made(super().call(__context, __obj, *args, **kwargs))
        finally:
            meter.depth -= 1

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = _running.get()
        meter.step()
        if operator == "*":
            for value, count in ((left, right), (right, left)):
                if isinstance(count, int) and isinstance(value, (str, list, tuple)):
                    if meter.weight(value) * count > meter.largest:
                        raise TemplateError(
                            f"* makes a value of more than {meter.largest:,} characters and items"
                        )
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > MAX_BITS:
                raise TemplateError(f"** makes an integer of more than {MAX_BITS} bits")
        elif operator == "%" and isinstance(left, str):
            _check_widths(left)
            meter.product("%", [left, (right,)])
        return meter.made(super().call_binop(context, operator, left, right))


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %} marks the assistant's words for training; here it changes nothing."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(
            line
        )  # a scope of its own, as in transformers

    def _said(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(Namespace):
    """As in transformers: no names that begin with _, by which an object could pass for another."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805 - as in jinja2: an attribute may be called self
        self, attributes = args[0], dict(*args[1:], **kwargs)
        for name in attributes:
            _Namespace._check(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        Namespace.__setitem__(self, name, value)

    def __repr__(
        self,
    ) -> (
        str
    ):  # jinja2's shows what is in it, which may be another one, twice, that holds another one ...
        return "<Namespace>"

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace has no attribute {shown(name)}: it begins with _")


def _metered(node: nodes.Node) -> nodes.Node:
    """The tree in which all that repeats or makes a value goes through the meter."""
    for name, value in node.iter_fields():
        if isinstance(value, list):
            setattr(
                node,
                name,
                [_metered(part) if isinstance(part, nodes.Node) else part for part in value],
            )
        elif isinstance(value, nodes.Node):
            setattr(node, name, _metered(value))

    def through(name: str, inner: nodes.Node) -> nodes.Filter:
        return nodes.Filter(inner, name, [], [], None, None, lineno=node.lineno)

    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
        node.body.insert(
            0,
            nodes.ExprStmt(
                through("_step", nodes.Const(None, lineno=node.lineno)), lineno=node.lineno
            ),
        )
    if isinstance(node, nodes.For) and node.test is not None:
        node.test = nodes.And(
            through("_step", nodes.Const(True, lineno=node.lineno)), node.test, lineno=node.lineno
        )
    if isinstance(node, nodes.Compare):
        node.expr = through("_step", node.expr)
    if isinstance(node, nodes.TemplateData):
        return nodes.MarkSafeIfAutoescape(
            through("_step", nodes.Const(node.data, lineno=node.lineno)), lineno=node.lineno
        )
    if isinstance(node, nodes.Concat):
        return through("_joined", nodes.List(node.nodes, lineno=node.lineno))
    sliced = isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    literal = isinstance(node, (nodes.List, nodes.Dict)) or (
        isinstance(node, nodes.Tuple) and node.ctx == "load"
    )
    constant = (
        not isinstance(node, nodes.Dict)
        and literal
        and all(isinstance(item, nodes.Const) for item in node.items)
    )
    return through("_value", node) if sliced or (literal and not constant) else node


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    if not isinstance(form, str) or len(form) > 200:
        raise TemplateError("strftime_now: expected a format of at most 200 characters")
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """As transformers renders it; jinja2's own filter is made for HTML and writes < as \\u003c."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
