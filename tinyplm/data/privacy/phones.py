"""Phone numbers, told from other numbers by their form or by a word before them.

By their form: international numbers (E.164, after + or 00), Chinese mobile, landline and service
numbers, American ones with separators, German and British ones with an area code set apart, and
Russian ones with brackets.  After a word such as "tel" or "电话": any 7 to 15 digits.  Ten digits
without separators, and French numbers without a country code (01 23 45 67 89), need such a word,
since too many other numbers look like them.
"""

from __future__ import annotations

import re

# Country codes (ITU-T E.164, list of assigned codes): two digits, and those that begin three.
_TWO = frozenset(
    "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 "
    "65 66 81 82 84 86 90 91 92 93 94 95 98".split()
)
_BEGIN_THREE = frozenset(
    "21 22 23 24 25 26 29 35 37 38 42 50 59 67 68 69 80 85 87 88 96 97 99".split()
)

_END = r"(?![0-9A-Za-z_@])(?!\.[0-9])"
_EXTENSION = r"(?:,? ?(?:x|ext\.?|extension) ?[0-9]{1,5})?"
_SEP = r"[ .\-/]"
# after "+" or "00"; "(0)" is the trunk digit that callers from abroad leave out
_INTERNATIONAL = re.compile(
    rf"[1-9][0-9]{{0,2}}(?:[ -]?\(0\) ?)?(?:(?:[ -]?[(]|[)][ -]?| - |{_SEP})?[0-9]){{4,14}}"
    rf"{_EXTENSION}{_END}"
)
_CODE_APART = re.compile(r"[1-9][0-9]{0,2}[ \-/(]")
_CHINESE_MOBILE = re.compile(
    rf"(?:86[ -]?)?1[3-9][0-9](?:[ -]?[0-9]{{8}}|([ .-])[0-9]{{4}}\1[0-9]{{4}}){_END}"
)
_AMERICAN = re.compile(
    rf"(?:1[ .-])?(?:\([2-9][0-9]{{2}}\)[ -]?[2-9][0-9]{{2}}[ .-]"
    rf"|[2-9][0-9]{{2}}([ .-])[2-9][0-9]{{2}}\1)[0-9]{{4}}{_EXTENSION}{_END}"
)
# "0711 123456", "(0711) 12 34 56", "030/1234567", "020 7946 0958", "010-62345678"
_TRUNK = re.compile(
    rf"(?:\(0[1-9][0-9]{{1,4}}\) ?|0[1-9][0-9]{{1,4}}(?: ?[-/] ?| ))"
    rf"[0-9]{{2,8}}(?:[ -][0-9]{{2,6}}){{0,4}}{_END}"
)
_BARE_MOBILE = re.compile(rf"(?:01[567][0-9]{{8,9}}|07[1-9][0-9]{{8}}){_END}")  # German, British
_RUSSIAN = re.compile(rf"8[ -]?\([0-9]{{3}}\)[ -]?[0-9]{{3}}-[0-9]{{2}}-[0-9]{{2}}{_END}")
_SERVICE = re.compile(rf"[48]00-[0-9]{{3,4}}-[0-9]{{3,4}}{_END}")  # Chinese: 400-810-1234
_ANY = re.compile(rf"\(?[0-9](?:[ ().\-/]{{0,3}}[0-9]){{6,14}}{_EXTENSION}{_END}")
_CUE = re.compile(
    r"(?:(?<![A-Za-z])(?:tele?|phone|telephone|telefon|fax|mobile|mobil|cell|handy|whatsapp|wechat|"
    r"mob|tél|ph|call|(?:call|text|ring|reach)(?: (?:me|us|him|her|them|at|on)){1,2})"
    r"(?: (?:number|no\.?|nr\.?|is|at))?(?:[.:#]\s?|\s|[.:] ?[-–]? ?)(?:is )?"
    r"|(?:电话|手机|手机号|号码|热线|传真|致电|联系方式)[:：\s]?[是为]?)[(+]?\Z",
    re.IGNORECASE,
)
_AFTER_CUE = " \t\n(+:#.-"
_FORMS: dict[str, tuple[re.Pattern, ...]] = {  # by the first digit
    "0": (_TRUNK, _BARE_MOBILE),
    "4": (_AMERICAN, _SERVICE),
    "8": (_AMERICAN, _SERVICE, _RUSSIAN),
    **dict.fromkeys("1235679", (_AMERICAN,)),
}
_POWERS = frozenset(str(2**n) for n in range(33, 40))  # 11 digits that are sizes, not phones

_SUM = re.compile(r"[0-9A-Za-z_)\]]\+\Z")
_NOT_CLEAR = re.compile(r"(?:[0-9]\.|[A-Za-z_][/\\]|[A-Fa-f0-9]{4}-)\Z")

Found = tuple[int, int, str]


def find_phone(text: str, first: int, lowest: int) -> Found | None:
    """(start, end, "phone") of the phone number whose digits begin at `first`, or None.

    lowest: what stands before it belongs to another number.   With a word such as "phone" or "电话"
    just before, any 7 to 15 digits with separators; without, the forms that show what they are.
    """
    before = text[max(lowest, first - 32) : first]
    found = None
    if before.endswith("+") or text.startswith("00", first):
        found = _international(text, first, before)
    found = found or _by_form(text, first, before, lowest) or _by_cue(text, first, before)
    return (*found, "phone") if found else None


def _international(text: str, first: int, before: str) -> tuple[int, int] | None:
    """+CC ..., also "(+CC) ..." and "00CC ..." with a separator."""
    plus = before.endswith("+")
    if plus:
        if _SUM.search(before):
            return None
        found = _INTERNATIONAL.match(text, first)
    else:
        found = _INTERNATIONAL.match(text, first + 2) if is_clear(before) else None
        long = found and re.match("[0-9]{11}", found[0])
        if found and not (long or _CODE_APART.match(found[0]) or _CUE.search(before)):
            return None
    while found and not _is_international(found[0]):
        found = _shorter(found, text)
    if not found:
        return None
    bracket = before.endswith("(+") and ")" in found[0].partition("(")[0]
    return first - plus - bracket, found.end()


def _shorter(found: re.Match, text: str) -> re.Match | None:
    """The match without its last group after a space, as in "+49 30 123456 2024"; None if none."""
    cut = found.start() + found[0].rfind(" ")
    return _INTERNATIONAL.fullmatch(text, found.start(), cut) if cut > found.start() else None


def _is_international(written: str) -> bool:
    number = re.split(r",? ?[xe]", written)[0]
    digits = re.sub(r"[^0-9]", "", number.replace("(0)", ""))
    if not 8 <= len(digits) <= 15:
        return False
    if "." in number and (number.count(".") < 2 or re.search(r"[ \-/]", number)):
        return False  # a decimal, or coordinates (ISO 6709: +40.7128-074.0060)
    if digits[0] == "1":  # the North American plan
        return len(digits) == 11 and digits[1] in "23456789" and digits[4] in "23456789"
    return digits[0] == "7" or digits[:2] in _TWO or digits[:2] in _BEGIN_THREE


def _by_form(text: str, first: int, before: str, lowest: int) -> tuple[int, int] | None:
    """Chinese, American, German and British numbers in the forms that show what they are."""
    digit = text[first]
    found = _CHINESE_MOBILE.match(text, first) if digit in "18" else None
    if found and found[0] not in _POWERS and not found[0].endswith("000000"):
        return (first, found.end()) if is_clear(before) else None
    begin = first - before.endswith("(")
    for pattern in _FORMS[digit]:
        found = pattern.match(text, begin) or (
            pattern.match(text, first) if begin < first else None
        )
        if found and is_clear(before) and _alone(text, found, lowest):
            if pattern is not _TRUNK or 9 <= sum(map(str.isdigit, found[0])) <= 13:
                return found.span()
    return None


def _alone(text: str, found: re.Match, lowest: int) -> bool:
    """Whether no other group of digits stands beside it, after a separator that it has itself."""
    before, after = (
        text[max(lowest, found.start() - 2) : found.start()],
        text[found.end() : found.end() + 2],
    )
    if before[:1].isdigit() and before[1:] in found[0] and before[1:] in " .-/" and before[1:]:
        return False
    return not (after[1:].isdigit() and after[0] in found[0] and after[0] in " .-/")


def _by_cue(text: str, first: int, before: str) -> tuple[int, int] | None:
    word = before.rstrip(_AFTER_CUE)
    if not (word and word[-1].isalpha() and _CUE.search(before)):
        return None
    begin = first - before.endswith("(")
    found = _ANY.match(text, begin) or _ANY.match(text, first)
    return found.span() if found else None


def is_clear(before: str) -> bool:
    """Whether it is not the end of a decimal, a hexadecimal identifier or a path."""
    return not _NOT_CLEAR.search(before)
