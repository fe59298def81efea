"""Finds what names or reaches a person, in one text: all kinds together, without overlaps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Set
from typing import Any, NamedTuple

import numpy as np

from ...arguments import check_choice, check_flag, check_text, is_several, wrong
from .mail import mail_addresses
from .names import personal_names
from .network import ip_addresses
from .numbers import numbers
from .places import street_addresses

# {kind: what counts call it}, the more certain first: of two that overlap, the earlier here is kept
KINDS = {
    "mail": "mail addresses",
    "identity": "identity numbers",
    "card": "card numbers",
    "ip": "IP addresses",
    "phone": "phone numbers",
    "address": "street addresses",
    "name": "names",
}
_FULL_WIDTH = (0xFF01, 0xFF5E, 0xFEE0)  # first, last, distance from the ASCII character
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"
_SPACES = "\u00a0\u2007\u2009\u202f\u3000"
_BLOCK = 1 << 20  # characters folded at a time
_TO_FOLD = re.compile(f"[{chr(_FULL_WIDTH[0])}-{chr(_FULL_WIDTH[1])}{_DASHES}{_SPACES}]")


class Span(NamedTuple):
    """text[start:end] is of this kind."""

    start: int
    end: int
    kind: str


def find(
    text: str, kinds: Collection[str], *, public_only: bool = True, old_identity: bool = False
) -> list[Span]:
    """The spans of these kinds in a text, in order and without overlaps.

    Time and memory are proportional to the text.   Of two that overlap the kind that KINDS has
    first is kept.   public_only, old_identity: see `privacy`.
    """
    check_text("text", text)
    check_kinds("kinds", kinds)
    check_flag("public_only", public_only)
    check_flag("old_identity", old_identity)
    found = [Span(*span) for span in _all(_folded(text), kinds, public_only, old_identity)]
    if len({span.kind for span in found}) > 1:
        found = _without_overlaps(found)
    return sorted(found)


def check_kinds(name: str, kinds: Any) -> None:
    """ValueError unless these are some of KINDS, at least one."""
    if not is_several(kinds) and not isinstance(kinds, Set) or not hasattr(kinds, "__len__"):
        raise wrong(name, f"several of {', '.join(KINDS)}", kinds)
    for kind in kinds:
        check_choice(name, kind, tuple(KINDS))
    if not len(kinds):
        raise wrong(name, f"at least one of {', '.join(KINDS)}", kinds)


def _folded(text: str) -> str:
    """The text with ASCII characters for others of the same meaning, one for one: full width,
    dashes and spaces."""
    if text.isascii() or not _TO_FOLD.search(text):
        return text
    return "".join(_folded_block(text[i : i + _BLOCK]) for i in range(0, len(text), _BLOCK))


def _folded_block(text: str) -> str:
    codes = np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), np.uint32)
    first, last, distance = _FULL_WIDTH
    codes[(codes >= first) & (codes <= last)] -= distance
    for characters, plain in ((_DASHES, "-"), (_SPACES, " ")):
        for c in characters:
            codes[codes == ord(c)] = ord(plain)
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def _all(
    text: str, kinds: Collection[str], public_only: bool, old_identity: bool
) -> Iterator[tuple[int, int, str]]:
    if "mail" in kinds:
        yield from ((*span, "mail") for span in mail_addresses(text))
    if not {"identity", "card", "phone"}.isdisjoint(kinds):
        yield from numbers(text, kinds, old_identity=old_identity)
    if "ip" in kinds:
        yield from ((*span, "ip") for span in ip_addresses(text, public_only=public_only))
    if "address" in kinds:
        yield from ((*span, "address") for span in street_addresses(text))
    if "name" in kinds:
        yield from ((*span, "name") for span in personal_names(text))


def _without_overlaps(found: list[Span]) -> list[Span]:
    """Those that no kept span of an earlier kind overlaps; spans of one kind do not overlap."""
    kept: list[Span] = []
    for kind in KINDS:
        some = sorted(span for span in found if span.kind == kind)
        kept = [*kept, *_apart(some, kept)] if kept else some
        kept.sort()
    return kept


def _apart(some: list[Span], kept: list[Span]) -> Iterator[Span]:
    place = 0
    for span in some:
        while place < len(kept) and kept[place].end <= span.start:
            place += 1
        if place == len(kept) or kept[place].start >= span.end:
            yield span
