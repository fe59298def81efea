"""Personal data in texts, found by rules and masked or dropped.

step.py       privacy(...): the step of the corpus pipeline
find.py       all kinds in one text, without overlaps
mail.py       mail addresses
numbers.py    identity numbers and payment cards, by their check digits (checksums.py)
phones.py     phone numbers: international, Chinese, American, German, British
network.py    IPv4 and IPv6 addresses
places.py     street addresses, English and Chinese
names.py      names after or before a title
"""

from .checksums import identity_check, is_identity_number, is_old_identity_number, luhn, luhn_digit
from .find import KINDS, Span, find
from .numbers import card_issuer, is_card_number
from .step import MASKS, privacy

__all__ = [
    "KINDS",
    "MASKS",
    "Span",
    "card_issuer",
    "find",
    "identity_check",
    "is_card_number",
    "is_identity_number",
    "is_old_identity_number",
    "luhn",
    "luhn_digit",
    "privacy",
]
