"""Numbers that name a person: Chinese identity numbers and payment cards, found in one pass with
phone numbers.

A place is tried where a group of digits begins that no letter, digit or underscore precedes and
that continues to at least seven digits with the separators of phone numbers.  Every pattern has
bounded repetitions, so the time is proportional to the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from .checksums import check_digits, is_identity_number, is_old_identity_number, luhn
from .phones import find_phone, is_clear

# the first digit of a group, which six more follow; found by its class, then checked
_START = re.compile(r"[0-9](?<![0-9A-Za-z_][0-9])(?=(?:[ ().\-/]{0,3}[0-9]){6})")
_END = r"(?![0-9A-Za-z_])(?!\.[0-9])"
_IDENTITY = re.compile(
    rf"[1-8](?:[0-9]{{5}}([ -]?)[0-9]{{8}}\1[0-9]{{3}}[0-9Xx]"
    rf"|[0-9]{{3}}(?: [0-9]{{4}}){{3}} [0-9][0-9Xx]){_END}(?!-[0-9])"
)
_OLD_IDENTITY = re.compile(rf"[1-8][0-9]{{14}}{_END}(?!-[0-9])")
_CARD = re.compile(
    rf"(?:[0-9]{{13,19}}|[0-9]{{4}}([ .-])[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{1,4}}(?:\1[0-9]{{1,3}})?"
    rf"|3[0-9]{{3}}([ -])[0-9]{{6}}\2[0-9]{{4,5}}|62[0-9]{{4}}([ -])[0-9]{{13}}){_END}(?!-[0-9])"
)
_GROUP_AFTER = re.compile(r"[ -][0-9]{4}(?![0-9])")  # a fifth group: a table of numbers
_GROUP_BEFORE = re.compile(r"(?<![0-9])[0-9]{4}[ -]\Z")

# {issuer: (first prefix, last prefix, lengths)}; ISO/IEC 7812 ranges as the issuers publish them
ANY_LENGTH = (13, 14, 15, 16, 17, 18, 19)
LONG = (16, 17, 18, 19)
ISSUERS: dict[str, list[tuple[str, str, tuple[int, ...]]]] = {
    "Visa": [("4", "4", (13, 16, 19))],
    "Mastercard": [("51", "55", (16,)), ("2221", "2720", (16,))],
    "American Express": [("34", "34", (15,)), ("37", "37", (15,))],
    "Diners Club": [(p, q, (14,)) for p, q in (("300", "305"), ("36", "36"), ("38", "39"))],
    "Discover": [("6011", "6011", (16, 19)), ("644", "649", (16, 19)), ("65", "65", (16, 19))],
    "JCB": [("3528", "3589", LONG)],
    "UnionPay": [("62", "62", LONG), ("81", "81", LONG)],
    "Maestro": [
        (p, q, ANY_LENGTH) for p, q in (("50", "50"), ("56", "58"), ("639", "639"), ("67", "67"))
    ],
    "Mir": [("2200", "2204", LONG)],
}


def card_issuer(digits: str) -> str | None:
    """The issuer whose prefixes and lengths these digits have; None for none."""
    check_digits("digits", digits)
    for issuer, ranges in ISSUERS.items():
        for first, last, lengths in ranges:
            if len(digits) in lengths and first <= digits[: len(first)] <= last:
                return issuer
    return None


def is_card_number(digits: str) -> bool:
    """Whether an issuer has this prefix and length, and the check digit is right."""
    return card_issuer(digits) is not None and luhn(digits)


def numbers(
    text: str, kinds: Collection[str], *, old_identity: bool = False
) -> Iterator[tuple[int, int, str]]:
    """(start, end, kind) of each number of these kinds, "identity", "card" or "phone", in order."""
    place = done = 0  # done: the end of the last one
    while start := _START.search(text, place):
        first, end, found = start.start(), None, None
        if "identity" in kinds and (end := _identity(text, first, old_identity)):
            found = first, end, "identity"
        elif "card" in kinds and (end := _card(text, first, done)):
            found = first, end, "card"
        if found and not is_clear(text[max(done, first - 5) : first]):
            found = None
        if found is None and "phone" in kinds:
            found = find_phone(text, first, done)
        place = first + 1
        if found is not None:
            yield found
            place = done = found[1]


def _identity(text: str, first: int, old: bool) -> int | None:
    """The end of the identity number that begins at `first`."""
    found = _IDENTITY.match(text, first)
    if found and is_identity_number(re.sub("[ -]", "", found[0])):
        return found.end()
    found = _OLD_IDENTITY.match(text, first) if old else None
    return found.end() if found and is_old_identity_number(found[0]) else None


def _card(text: str, first: int, lowest: int) -> int | None:
    """The end of the card number that begins at `first`."""
    found = _CARD.match(text, first)
    if not found or not is_card_number(re.sub("[ .-]", "", found[0])):
        return None
    if found.lastindex:  # in groups: not from a table of groups of four
        separator = found[found.lastindex]
        before = _GROUP_BEFORE.search(text, max(lowest, first - 6), first)
        if before and text[first - 1] == separator:
            return None
        after = _GROUP_AFTER.match(text, found.end())
        if after and after[0][0] == separator:
            return None
    return found.end()
