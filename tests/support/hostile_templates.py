"""Chat templates that never end or grow without bound: each must be refused, in one line and within two seconds,
or render a text."""

TALK = [
    {"role": "user", "content": "hi there"},
    {"role": "assistant", "content": "x" * 50},
    {"role": "user", "content": "why?"},
]


def chain(begin: str, line: str, end: str, count: int = 60) -> str:
    """Repeats `line`, with {0} for its number and {1} for the next."""
    return (
        begin
        + "".join(line.replace("{0}", str(k)).replace("{1}", str(k + 1)) for k in range(count))
        + end.replace("{0}", str(count))
    )


def grown(step: str, first: str = "'ab'", times: int = 99, last: str = "{{ ns.x }}") -> str:
    return f"{{% set ns = namespace(x={first}) %}}{{% for i in range({times}) %}}{{% set ns.x = {step} %}}{{% endfor %}}{last}"


LONG = "{% set a = 'x' * 999999 %}"
MANY = "{% for i in range(99999) %}"
NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}"

# These must be refused.
ENDLESS = {
    "nested loops": NESTED + "{% endfor %}{% endfor %}",
    "nested loops with output": NESTED + "{{ loop.index }}{% endfor %}{% endfor %}",
    "loops with a test": "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}",
    "select": MANY + "{% set x = range(99999) | select('gt', 5) | list %}{% endfor %}",
    "in": LONG + MANY + "{% if 'b' in a %}{% endif %}{% endfor %}",
    "compare": "{% set a = [[1] * 999] * 300 %}" + MANY + "{% if a == [[1] * 999] * 300 %}{% endif %}{% endfor %}",
    "title": "{% set a = 'a ' * 499999 %}" + MANY + "{% set y = a | title %}{% endfor %}",
    "recursive loop": "{% for a in [[1, 2], [3, 4]] recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "recursive loop, not deep": "{% for a in range(99999) recursive %}{% if loop.depth < 3 %}{{ loop(range(99999)) }}{% endif %}"
    "{% endfor %}",
    "macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "macro with text": "{% macro m(n) %}yyyyyyyyyyyy{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    "call": "{% macro m() %}"
    + MANY
    + "{{ caller() }}{% endfor %}{% endmacro %}{% call m() %}{% call m() %}x{% endcall %}{% endcall %}",
    "cycler": "{% set c = cycler(*range(99999)) %}" + NESTED + "{{ c.next() }}{% endfor %}{% endfor %}",
    "output": MANY + "z" * 50_000 + "{% endfor %}",
    "output into a variable": "{% set x %}" + MANY + "z" * 50_000 + "{% endfor %}{% endset %}",
    "many variables": chain(LONG, "{% set a{0} = a[1:] %}", "", 600),
    "rjust": "{{ 'x'.rjust(3 * 10**9) }}",
    "rjust of a message": "{{ messages[0].content.rjust(3000000000) }}",
    "rjust by name": "{{ ('x' | attr('rjust'))(10**9) }}",
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "zfill": "{{ 'x'.zfill(10**9) }}",
    "center": "{{ 'x' | center(10**9) }}",
    "center, constant": "{{ 'x' | center(1000000000) }}",
    "indent": "{{ ('\n' * 99999) | indent(99999) }}",
    "indent of a line": "{{ 'a\nb' | indent(10**9) }}",
    "times": "{{ 'x' * 10**9 }}",
    "times, turned": "{{ 10**9 * messages[0].content }}",
    "times a list": "{{ (messages * 10**9) | length }}",
    "width": "{{ '%1000000000d' % 5 }}",
    "width as an argument": "{{ '%*d' % (10**9, 5) }}",
    "precision": "{{ '%.1000000000f' % 5.0 }}",
    "width of format": "{{ '{:1000000000}'.format(5) }}",
    "width of format as an argument": "{{ '{:{}}'.format(5, 10**9) }}",
    "width of format_map": "{{ '{a:1000000000}'.format_map({'a': 5}) }}",
    "width of the filter format": "{{ '%1000000000d' | format(5) }}",
    "replace": LONG + "{{ a.replace('x', a) }}",
    "filter replace": LONG + "{{ a | replace('x', a) }}",
    "join": LONG + "{{ a.join(a) }}",
    "filter join": LONG + "{{ range(99999) | join(a) }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list | length }}",
    "slice": "{{ [1] | slice(10**9) | list | length }}",
    "tojson": "{{ messages | tojson(indent=10**9) }}",
    "sum": "{{ ([[1]] * 99999) | sum(start=[]) | length }}",
    "rfind": "{% set a = 'a' * 999999 %}{{ a.rfind('a' * 249999 ~ 'b' ~ 'a' * 249999) }}",
    "expandtabs": "{{ ('\t' * 99999).expandtabs(10**9) }}",
    "translate": "{{ 'x'.translate({120: 'y' * 999999}) }}",
    "bytes": "{{ ('x'.encode() * 10**9) | length }}",
    "to_bytes": "{{ (5).to_bytes(10**9, 'big') }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": grown("ns.x * ns.x", "7"),
    "doubled by ~": grown("ns.x ~ ns.x"),
    "doubled by +": grown("ns.x + ns.x"),
    "a list that holds another twice": grown("[ns.x, ns.x]", "['ab']"),
    "an object that holds another twice": grown("{'a': ns.x, 'b': ns.x}", "['ab']", last="{{ ns.x == ns.x }}"),
    "nested lists": grown("[ns.x]", "[]", 99999),
    "nested generators": grown("ns.x | select", "[1]", 99999, "{{ ns.x | list }}"),
    "fromkeys": "{{ dict.fromkeys(range(99999), 'x' * 9999) | string | length }}",
    "lipsum": "{{ lipsum(n=10**7) }}",
    "wordwrap": "{{ ('x' * 999999) | wordwrap(1) | length }}",
    "striptags": "{{ ('<!---->' * 99999) | striptags }}",
    "ifs": "{% if true %}" * 2000 + "{% endif %}" * 2000,
    "fors": "{% for a in [1] %}" * 2000 + "{% endfor %}" * 2000,
    "more fors than Python has": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "elifs": "{% if a %}" + "{% elif b %}" * 4000 + "{% endif %}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "nots": "{{ " + "not " * 5000 + "1 }}",
    "sums": "{{ " + "'a'+" * 5000 + "'b' }}",
    "filters": "{{ 'a'" + "|upper" * 5000 + " }}",
    "attributes": "{{ a" + ".b" * 5000 + " }}",
    "long": "x" * 10**6,
    "many parts": "{{a}}" * 13_000,
    "digits": "{{ " + "9" * 5000 + " }}",
    "long message": "{{ raise_exception('a\n' * 99999) }}",
    "dates": "{{ strftime_now('%Y' * 99999) }}",
    "include": "{% include 'x' %}",
    "extends": "{% extends 'x' %}",
    "no object of Python": "{{ ''.__class__.__mro__ }}",
    "no disguise": "{{ namespace(__class__=1) }}",
    "not callable": "{% set n = namespace(unsafe_callable=true) %}{% set n.a = n %}{{ n() }}",
}

# These end, some with a surprising text.
HELD = chain(
    "{% set a0 = namespace() %}",
    "{% set a{1} = namespace(v=a{0}, w=[a{0}, a{0}]) %}",
    "{{ a{0} | string }}",
)
FINITE = {
    "a namespace in itself": (
        "{% set n = namespace() %}{% set n.a = n %}{{ n == n }}{{ n }}",
        "True<Namespace>",
    ),
    "namespaces that hold another twice": (HELD, "<Namespace>"),
    "many joined": ("{{ " + "'a'~" * 4000 + "'b' }}", "a" * 4000 + "b"),
    "large": (
        "{{ ('ab' * 400000) | length }}{{ range(99999) | sort(reverse=true) | first }}",
        "80000099998",
    ),
    "messages in a text": ("{{ '%s' % (messages[2],) }}", "{'role': 'user', 'content': 'why?'}"),
    "split and joined": (
        "{{ ','.join('a,b,c'.split(',')) }}{{ 'a-b'.replace('-', '--') }}{{ 'x'.rjust(3) }}",
        "a,b,ca--b  x",
    ),
    "formats": (
        "{{ '%5.1f' % 2.25 }}{{ '{:>4}|{:02d}'.format('a', 7) }}{{ '%s!' | format('a') }}",
        "  2.2   a|07a!",
    ),
    "slices": (
        "{{ messages[1:] | length }}{{ messages[::-1][0].content }}{{ [1, 2, 3, 4] | batch(3) | list }}",
        "2why?[[1, 2, 3], [4]]",
    ),
    "deep": ("{% if true %}" * 15 + "{{ [[[[1]]]] }}" + "{% endif %}" * 15, "[[[[1]]]]"),
}
