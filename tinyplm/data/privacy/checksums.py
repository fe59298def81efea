"""Check digits: Luhn's of payment cards, and that of Chinese identity numbers."""

from __future__ import annotations

import datetime

from ...arguments import check_text, wrong

# The first two digits of an identity number: provinces and the like (GB/T 2260).
PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 "
    "71 81 82 83".split()
)
FIRST_YEAR, LAST_YEAR = 1900, 2099  # of a birth
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # 2^(17 - i) mod 11
_CHECKS = "10X98765432"  # by the weighted sum mod 11
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # the sum of the digits of 2 d


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B).

    From the right, every second digit is doubled and its digits are added: the sum of all is a
    multiple of 10.  False for no digits.
    """
    check_digits("digits", digits)
    back = [int(c) for c in reversed(digits)]
    total = sum(back[0::2]) + sum(_DOUBLED[d] for d in back[1::2])
    return bool(back) and total % 10 == 0


def luhn_digit(digits: str) -> str:
    """The digit that, added at the end, makes them valid by `luhn`."""
    check_digits("digits", digits)
    back = [int(c) for c in reversed(digits)]
    return str(-(sum(_DOUBLED[d] for d in back[0::2]) + sum(back[1::2])) % 10)


def identity_check(digits: str) -> str:
    """The check character of the first 17 digits of a Chinese identity number: "0" to "9" or "X".

    GB 11643-1999, by ISO 7064's MOD 11-2: sum_i a_i 2^(i - 1) = 1 mod 11 over the places i from the
    right, the check character first, with X for 10.
    """
    check_digits("digits", digits)
    if len(digits) != 17:
        raise wrong("digits", "17 digits", digits)
    return _CHECKS[sum(w * int(d) for w, d in zip(_WEIGHTS, digits, strict=True)) % 11]


def is_identity_number(text: str) -> bool:
    """Whether it is a Chinese identity number of 18 characters, without separators.

    A province, a date of birth that exists, from FIRST_YEAR to LAST_YEAR, and the right check
    character; "x" counts as "X".
    """
    check_text("text", text)
    if len(text) != 18 or not _all_digits(text[:17]) or text[:2] not in PROVINCES:
        return False
    year, month, day = int(text[6:10]), int(text[10:12]), int(text[12:14])
    if not (FIRST_YEAR <= year <= LAST_YEAR and _is_date(year, month, day)):
        return False
    return text[17].upper() == identity_check(text[:17])


def is_old_identity_number(text: str) -> bool:
    """The same for the 15 digits used until 1999, with two digits of a year 19xx and no check."""
    check_text("text", text)
    if len(text) != 15 or not _all_digits(text) or text[:2] not in PROVINCES:
        return False
    return _is_date(1900 + int(text[6:8]), int(text[8:10]), int(text[10:12]))


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def _all_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def check_digits(name: str, value: str) -> None:
    """ValueError unless it is a string of digits, or an empty one."""
    if not isinstance(value, str) or (value and not _all_digits(value)):
        raise wrong(name, "a string of the digits 0 to 9", value)
