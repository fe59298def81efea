"""Made-up personal data in made-up contexts, and clean lines full of numbers; all from a generator.

Nothing here looks at how tinyplm.data.privacy finds them: check digits come from reference/.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import uuid
from collections.abc import Iterator

import numpy as np

from reference.data.checksums import luhn_sum, mod_11_2

FIRST = "anna ben chloe david.k eva_m felix george-w h.ito ivan john.doe k l.chen maria2 nils o.b pia q99 r.s.t 张".split()[:-1]
HOSTS = "example.com mail.example.org uni-x.de corp.co.uk qq.com 163.com sub.dept.univ.edu my-site.io post.museum abc.cn".split()
CODES = "1 44 49 33 86 81 7 91 61 34 39 852 353 420 972 55 31 971".split()
ISSUED = [
    *[("4", 16), ("4", 13), ("4", 19), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16), ("34", 15), ("37", 15), ("36", 14)],
    *[("6011", 16), ("65", 16), ("3528", 16), ("62", 16), ("62", 19), ("2200", 16)],
]
CONTEXTS = [
    "{}", "Please write to {} today.", "contact: {}", "<{}>", "({})", "[{}]", "- {}", "{}, or later", "see {}; thanks", '"{}"',
    "name=Li;value={};", "\t{}\t", "reach us via {}!", "Yours,\n{}\nLondon", "* {} *", "| {} | x |",
    "我的联系方式是{}。", "请记录：{}，谢谢",
    "（{}）", "他说{}不对", "Kontakt: {}.", "is it {}?", "a) {} b)", "<td>{}</td>", "{{'v': '{}'}}", "Notes {} end",
]  # fmt: skip


def _pick(rng: np.random.Generator, items: list[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _digits(rng: np.random.Generator, count: int, first: str = "0123456789") -> str:
    return _pick(rng, list(first)) + "".join(map(str, rng.integers(0, 10, count - 1)))


def mail(rng: np.random.Generator) -> str:
    local = _pick(rng, FIRST) + _pick(rng, ["", "", "7", "+news", "_x", "%a", "." + _pick(rng, FIRST)])
    at = f"{local}@{_pick(rng, HOSTS)}"
    return at.upper() if rng.random() < 0.1 else at


def phone(rng: np.random.Generator) -> str:
    kind = int(rng.integers(10))
    if kind == 0:  # international
        code = _pick(rng, CODES)
        if code == "1":
            parts = [_digits(rng, 3, "23456789"), _digits(rng, 3, "23456789"), _digits(rng, 4)]
        else:
            parts = [_digits(rng, 2, "123456789"), _digits(rng, 3), _digits(rng, 4)]
        return f"+{code}" + _pick(rng, ["", " ", "-"]).join(["", *parts])
    if kind == 1:  # international, as written by hand
        area, rest = (
            _digits(rng, 2, "23456789"),
            _digits(rng, 4),
        )
        return _pick(
            rng,
            [
                f"+49 (0){area} {rest}{rest[:3]}",
                f"+49 ({area}) {rest}-{rest}",
                f"0049 {area} {rest} {rest}",
                f"(+44) {area} {rest} {rest}",
                f"0086 13{area[:1]} {rest} {rest}",
                f"+1 ({area}2) 555-{rest}",
            ],
        )
    if kind in (2, 3):  # American
        area, exchange, line = _digits(rng, 3, "23456789"), _digits(rng, 3, "23456789"), _digits(rng, 4)
        return _pick(
            rng,
            [
                f"({area}) {exchange}-{line}",
                f"{area}-{exchange}-{line}",
                f"{area}.{exchange}.{line}",
                f"1-{area}-{exchange}-{line}",
                f"{area} {exchange} {line}",
                f"({area}) {exchange}-{line} x{line[:3]}",
                f"tel. {area}{exchange}{line}",
            ],
        )
    if kind in (4, 5, 6):  # Chinese mobile
        number = "1" + _digits(rng, 10, "3456789")
        a, b, c = number[:3], number[3:7], number[7:]
        return _pick(
            rng,
            [number, number, f"{a} {b} {c}", f"{a}-{b}-{c}", f"+86{number}", f"+86 {a} {b} {c}", f"86-{number}", f"+86-{number}"],
        )
    if kind == 7:  # Chinese landline
        area, rest = _pick(rng, ["010", "021", "0755", "0571"]), _digits(rng, 8, "2345678")
        return _pick(rng, [f"{area}-{rest}", f"({area}) {rest}", f"({area}){rest}", f"{area} {rest}", f"电话{rest}"])
    if kind == 8:  # German
        area, rest = _pick(rng, ["030", "089", "0711", "0171", "0151", "06221"]), _digits(rng, 7, "23456789")
        return _pick(
            rng,
            [
                f"{area} {rest}",
                f"{area}/{rest}",
                f"{area}-{rest}",
                f"({area}) {rest}",
                f"{area} {rest[:3]} {rest[3:]}",
                f"{area} / {rest}",
            ],
        )
    rest = _digits(rng, 6)  # British
    return _pick(
        rng,
        [
            f"020 7{rest[:3]} {rest[:4]}",
            f"07700 {rest}",
            f"07{_digits(rng, 9, '123456789')}",
            f"(01632) {rest}",
            f"0113 4{rest[:2]} {rest[:4]}",
        ],
    )


def identity(rng: np.random.Generator) -> str:
    province = _pick(rng, "11 12 13 21 31 32 33 35 36 37 41 42 43 44 45 50 51 53 61 62 65".split())
    day = datetime.date(1930, 1, 1) + datetime.timedelta(days=int(rng.integers(30_000)))
    first = f"{province}{_digits(rng, 4)}{day:%Y%m%d}{_digits(rng, 3)}"
    number = first + mod_11_2(first)
    spaced = f"{number[:6]} {number[6:14]} {number[14:]}"
    return _pick(rng, [number, number, number.lower(), spaced])


def card(rng: np.random.Generator) -> str:
    prefix, length = ISSUED[int(rng.integers(16))]
    digits = prefix + _digits(rng, length - len(prefix) - 1)
    digits += next(c for c in "0123456789" if luhn_sum(digits + c) % 10 == 0)
    if length == 16:
        return _pick(rng, ["", "", " ", "-"]).join(digits[i : i + 4] for i in range(0, 16, 4))
    if length == 15:
        return _pick(rng, ["", " ", "-"]).join([digits[:4], digits[4:10], digits[10:]])
    return digits


PLANTS = {"mail": mail, "phone": phone, "identity": identity, "card": card}


def planted(kind: str, rng: np.random.Generator) -> tuple[str, str]:
    """(text, what is planted in it)."""
    plant = PLANTS[kind](rng)
    context = _pick(rng, CONTEXTS)
    if plant[:2].encode().isalpha() and kind == "mail":  # a letter right before would belong to it
        context = context.replace("x{}", "x {}")
    return context.format(plant), plant


def clean_lines(rng: np.random.Generator, count: int) -> Iterator[str]:
    """Lines with numbers that are nobody's: versions, dates, ISBN, hashes, digits of pi and e, prices, coordinates, code."""
    pi = "3.1415926535897932384626433832795028841971"
    pi += "6939937510582097494459230781640628620899862803482534211706798214808651328230664709"
    while True:
        for line in _some_clean(rng, pi):
            yield line
            count -= 1
            if not count:
                return


def _some_clean(rng: np.random.Generator, pi: str) -> list[str]:
    n = [int(x) for x in rng.integers(0, 10**9, 12)]
    r = rng.random(4)
    day = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=n[0] * 2)
    isbn = "978" + _digits(rng, 9)
    isbn += str(-sum(int(c) * (1, 3)[i % 2] for i, c in enumerate(isbn)) % 10)
    place = int(rng.integers(len(pi) - 40))
    digest = hashlib.sha1(str(n).encode()).hexdigest()
    return [
        f"numpy {n[0] % 3}.{n[1] % 30}.{n[2] % 10} and "
        f"Chrome/{n[3] % 130}.0.{n[4] % 9999}.{n[5] % 300} since version 10.2.{n[6] % 99}.{n[7] % 9}",
        f"{day:%Y-%m-%d} {day:%H:%M:%S} {day:%d/%m/%Y} {day:%d.%m.%Y} {day:%Y%m%d%H%M%S} {day.isoformat()}+01:00",
        f"ISBN {isbn} or {isbn[:3]}-{isbn[3]}-{isbn[4:6]}-{isbn[6:12]}-{isbn[12]}, "
        f"0-{isbn[4:7]}-{isbn[7:12]}-X, ISSN {isbn[:4]}-{isbn[4:8]}",
        f"commit {digest} {digest[:7]} md5 {digest[:32]} {uuid.UUID(digest[:32])} 0x{n[0]:08X} #{n[1] % 2**24:06x}",
        f"pi = {pi[: place + 12]} ... {pi[place : place + 10]} {pi[place + 10 : place + 20]} {pi[place + 20 : place + 30]}",
        f"e = {math.e!r}, {r[0]!r} {r[1] * 1e-9!r} -{r[2] * 1e12!r} {n[0]}e{n[1] % 30}",
        f"price ${n[0]:,}.{n[1] % 100:02} €{n[2] % 10**6 / 100:.2f} ¥{n[3]:,} 1.{n[4] % 1000:03}.{n[5] % 1000:03},00",
        f"{r[0] * 180 - 90:.6f}, {r[1] * 360 - 180:.6f}; "
        f"{n[0] % 90}°{n[1] % 60}'{n[2] % 60}\"N; +{r[2] * 90:07.4f}{r[3] * -180:09.4f}/",
        f"for (int i = {n[0]}; i < {n[1]}; i += {n[2] % 16}) a[{n[3] % 640}] = x{n[4]} + 0x{n[5]:x} * {n[6]}u;",
        f"{n[0]:010d} {n[1]} {n[2]} {n[3]} bytes {n[4] % 65536}:{n[5] % 65536} "
        f"id={n[6]} ts={1_600_000_000 + n[7]} ms={1_600_000_000_000 + n[8]}",
        f"{n[0] % 1000:4d} {n[1] % 1000:4d} {n[2] % 10000:5d} | "
        f"{n[3] / 1e4:.3f} | {n[4] / 1e7:.1f}% | {n[5] % 300}x{n[6] % 300}",
        f"arXiv:{n[0] % 25:02}{n[1] % 12 + 1:02}.{n[2] % 10**5:05} "
        f"doi:10.{n[3] % 9000 + 1000}/s{n[4]}-{n[5] % 1000:03}-{n[6] % 10000:04}-x RFC {n[7] % 9000}",
        f"OID 1.3.6.1.4.1.{n[0] % 9999} MAC "
        f"{n[1] % 100:02}:1a:{n[2] % 100:02}:{n[3] % 100:02}:ff:{n[4] % 100:02} x[{n[5] % 9}::{n[6] % 9}] std::max",
        f"第{n[0] % 300}页，共{n[1] % 10**7}人，"
        f"{n[2] % 60 + 1960}年{n[3] % 12 + 1}月{n[4] % 28 + 1}日，{n[5] / 1e6:.2f}万元，编号{n[6]}",
    ]  # fmt: skip
