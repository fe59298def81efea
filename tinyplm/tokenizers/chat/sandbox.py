"""Chat templates of model folders: untrusted Jinja programs, run in jinja2's sandbox within limits.

The sandbox keeps a template from Python's internals.  But nested `{% for %}`, "x" * 10**9, or a
list that contains another one twice, forty levels deep, could still consume all time and memory.
So each render has a meter (meter.py), and the template itself is limited to LONGEST_SOURCE
characters, MOST_NODES nodes and the nesting that Python allows.

The hooks for the meter are the sandbox's own for calls and operators; wrapped filters and tests;
and, for everything else that can create a value (literals, ~, slices, text) or repeat (loops,
macros), a filter inserted into the template's syntax tree.
"""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any

import regex
from jinja2 import TemplateError, nodes, pass_context, pass_eval_context
from jinja2.ext import Extension
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from ...arguments import shown
from .meter import DEEPEST, MAX_BITS, LimitError, Meter

LONGEST_SOURCE = 1 << 16  # characters; the longest templates on the hub have about 20,000
MOST_NODES = 10_000  # of the syntax tree; those have about 5,000

# What may be called.  Time and result are proportional to the arguments, or for _PRODUCTS to the
# product of their sizes.
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit "
        "isidentifier islower isnumeric isprintable isspace istitle isupper lower lstrip partition "
        "removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines "
        "startswith strip swapcase title upper "
        "center format format_map join ljust replace rjust zfill".split()
    ),
    list: frozenset(("copy", "count", "index")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("copy", "fromkeys", "get", "items", "keys", "values")),
}
_PRODUCTS = frozenset(
    "batch center format indent join ljust replace rjust slice tojson zfill "  # by their result
    "count find index partition rfind rindex rpartition rsplit split".split()  # by comparisons
)
# Random or quadratic, and not used by chat templates.
_REMOVED = ("pprint", "random", "striptags", "urlize", "wordwrap")
# A width of four digits, or taken from an argument.
_WIDE = regex.compile(r"%[-#0 +]*(?:\([^)]*\))?[-#0 +]*(?:\*|\d{4}|\d*\.(?:\*|\d{4}))")

Render = Callable[..., str]
_running: ContextVar[Meter] = ContextVar("running")  # the meter of this thread's render


def compile_template(source: str, tokens: Mapping[str, str], where: str) -> Render:
    """render(messages, add_generation_prompt, tools) of a template.

    ValueError, starting with `where`, for an invalid template.  render raises ValueError for any
    error in the template and when it exceeds a limit.
    """
    environment = _Environment()
    try:
        if len(source) > LONGEST_SOURCE:
            raise LimitError(f"expected at most {LONGEST_SOURCE:,} characters, got {len(source):,}")
        template = environment.from_string(source)
    except Exception as error:  # including Python's, which compiles jinja2's output
        raise ValueError(f"{where}: chat template: {_said(error, 'valid source')}") from None

    def render(
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        known = [dict(message) for message in messages]
        # Templates ask "is not none", which is true for undefined names.
        others = {"tools": None if tools is None else list(tools), "documents": None}
        values = itertools.chain(tools or (), *(message.values() for message in known))
        size = sum(len(str(value)) for value in values)
        before = _running.set(Meter(size, len(known)))
        try:
            return template.render(
                {**tokens, **others}, messages=known, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # an untrusted program can raise anything
            said = _said(error, "a template that accepts the messages")
            raise ValueError(f"{where}: chat template: {said}") from None
        finally:
            _running.reset(before)

    return render


def _said(error: Exception, expected: str) -> str:
    """The message for an error, on one printable line."""
    text = "nesting that is too deep" if isinstance(error, RecursionError) else str(error)
    if not text.isprintable() or len(text) > 200:
        text = shown(text, 200)
    return text if isinstance(error, LimitError) else f"expected {expected}, got: {text}"


# ---- the hooks


# What jinja2 passes to functions before their arguments.
_HANDLES = (Context, EvalContext, ImmutableSandboxedEnvironment)


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A metered filter or test.

    Without a meter, when jinja2 evaluates constants at compile time, it raises.
    """

    @wraps(function)  # with jinja2's markers, such as pass_context
    def call(*args: Any, **kwargs: Any) -> Any:
        meter = _running.get()
        meter.step()
        values = [arg for arg in (*args, *kwargs.values()) if not isinstance(arg, _HANDLES)]
        if name in _PRODUCTS:
            meter.product(name, values)
        if name == "format":
            _check_widths(str(values[0]))
        start = kwargs.get("start", args[3] if len(args) > 3 else 0)
        if name == "sum" and isinstance(start, (list, tuple)):
            # For lists its time is quadratic in their length.
            raise LimitError("sum: expected numbers, got a list")
        return meter.made(function(*args, **kwargs))

    return call


@pass_context
def _value(context: Context, value: Any) -> Any:
    _running.get().step()
    return _running.get().made(value)


@pass_eval_context
def _joined(context: EvalContext, parts: list[Any]) -> str:
    """a ~ b ~ c; the sizes are checked before joining."""
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
    """TemplateError if the text is a %-format with a width that would make the result long."""
    if _WIDE.search(text):
        raise LimitError(f"format: expected a width of at most 3 digits, got {shown(text)}")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with the meter's hooks."""

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
        tests: Any = self.tests
        self.tests = {name: _limited(name, function) for name, function in tests.items()}
        # Templates of the hub call these.
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now, "namespace": _Namespace}
        del self.globals["lipsum"]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if sum(1 for _ in tree.find_all(nodes.Node)) > MOST_NODES:
            raise LimitError(f"expected at most {MOST_NODES:,} nodes, got more")
        _metered(tree)  # in place, since the root stays
        tree.set_environment(self)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use obj.attr."""
        for kind, names in _METHODS.items():
            if isinstance(obj, kind) or obj is kind:
                return attr in names or attr in getattr(obj, "_fields", ())  # of groupby
        if isinstance(obj, (int, float, bytes)):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """A metered str.format; None for any other function."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def limited(*args: Any, **kwargs: Any) -> str:
            text = value.__self__
            _running.get().product("format", [text, (args, kwargs)])
            for _, _, spec, _ in string.Formatter().parse(text):
                if spec and ("{" in spec or regex.search(r"\d{4}", spec)):
                    raise LimitError(
                        f"format: expected a width of at most 3 digits, got {shown(text)}"
                    )
            return wrapped(*args, **kwargs)

        return limited

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        """A metered call."""
        meter = _running.get()
        meter.step()
        receiver, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(receiver, str) and name in _PRODUCTS:
            meter.product(name, [receiver, *args, *kwargs.values()])
        if meter.depth >= DEEPEST:
            raise LimitError(f"expected calls nested at most {DEEPEST} levels deep, got more")
        meter.depth += 1
        try:
            return meter.made(super().call(__context, __obj, *args, **kwargs))
        finally:
            meter.depth -= 1

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """A metered operator."""
        meter = _running.get()
        meter.step()
        if operator == "*":
            for value, count in ((left, right), (right, left)):
                if isinstance(count, int) and isinstance(value, (str, list, tuple)):
                    if meter.weight(value) * count > meter.largest:
                        raise meter.too_large()
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > MAX_BITS:
                raise LimitError(f"**: expected integers of at most {MAX_BITS} bits, got more")
        elif operator == "%" and isinstance(left, str):
            _check_widths(left)
            meter.product("%", [left, (right,)])
        return meter.made(super().call_binop(context, operator, left, right))


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %} marks the assistant's words; it has no effect."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        """A call block: like in transformers, a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(Namespace):
    """As in transformers, without names that start with _, which could impersonate an object."""

    # As in jinja2, there is no parameter `self`, which may be the name of an attribute.
    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805
        self, attributes = args[0], dict(*args[1:], **kwargs)
        for name in attributes:
            _Namespace._check(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        Namespace.__setitem__(self, name, value)

    # jinja2's shows the content, which may be another namespace, twice, that contains another ...
    def __repr__(self) -> str:
        return "<Namespace>"

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(
                f"namespace: expected a name without a leading _, got {shown(name)}"
            )


def _metered(node: nodes.Node) -> nodes.Node:
    """Insert the meter into a syntax tree, wherever something repeats or creates a value."""
    for name, value in node.iter_fields():
        if isinstance(value, list):
            parts = [_metered(part) if isinstance(part, nodes.Node) else part for part in value]
            setattr(node, name, parts)
        elif isinstance(value, nodes.Node):
            setattr(node, name, _metered(value))

    def through(name: str, inner: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(inner, name, [], [], None, None, lineno=node.lineno)

    def constant(value: Any) -> nodes.Const:
        return nodes.Const(value, lineno=node.lineno)

    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
        step = nodes.ExprStmt(through("_step", constant(None)), lineno=node.lineno)
        node.body.insert(0, step)
    if isinstance(node, nodes.For) and node.test is not None:
        node.test = nodes.And(through("_step", constant(True)), node.test, lineno=node.lineno)
    if isinstance(node, nodes.Compare):
        node.expr = through("_step", node.expr)
    if isinstance(node, nodes.TemplateData):
        text = through("_step", constant(node.data))
        return nodes.MarkSafeIfAutoescape(text, lineno=node.lineno)
    if isinstance(node, nodes.Concat):
        return through("_joined", nodes.List(node.nodes, lineno=node.lineno))
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return through("_value", node)
    if isinstance(node, nodes.Dict):
        return through("_value", node)
    if isinstance(node, nodes.List) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
        if not all(isinstance(item, nodes.Const) for item in node.items):
            return through("_value", node)
    return node


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    if not isinstance(form, str) or len(form) > 200:
        expected = "strftime_now: expected a format of at most 200 characters"
        raise LimitError(f"{expected}, got {shown(form)}")
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
