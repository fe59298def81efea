"""Mail addresses: what stands around an @ (RFC 5321, in the forms that people use)."""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST_LOCAL = 64  # characters before the @ (RFC 5321, sec. 4.5.3.1.1)
_LETTER = "A-Za-z0-9À-ɏ"  # Latin: a Chinese character before an address is not part of it
_LOCAL = re.compile(rf"[{_LETTER}_](?:[{_LETTER}._%+'&-]{{0,{LONGEST_LOCAL - 1}}})\Z")
_LABELS = rf"(?:[{_LETTER}][{_LETTER}-]{{0,62}}\.){{1,8}}"
_DOMAIN = re.compile(rf"{_LABELS}(?:[A-Za-z]{{2,24}}|xn--[A-Za-z0-9-]{{2,59}})(?![{_LETTER}_])")
# "name (at) host.com", "name [at] host [dot] com"
_AT = re.compile(r"[@(\[{](?:(?<=@)|(?<=[(\[{])[aA][tT][)\]}])")
_DOT = re.compile(r" ?(?:\(dot\)|\[dot\]|\{dot\}) ?", re.IGNORECASE)
_LONGEST_DOMAIN = 120


def mail_addresses(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each mail address, in order.

    A local part of at most LONGEST_LOCAL letters, digits and ._%+'&- without two dots in sequence,
    an @ (or "(at)" or "[at]"), and a domain whose last label has only letters ("(dot)" may stand
    for its dots).
    """
    spelled = "at)" in text or "at]" in text or "at}" in text or "AT" in text
    place, done = 0, 0
    while True:
        if spelled:
            at = _AT.search(text, place)
            if not at:
                return
            first, place = at.span()
            if place > first + 1:  # spelled, perhaps with a space before and after
                first -= text[first - 1 : first] == " "
                place += text[place : place + 1] == " "
        else:
            first = text.find("@", place)
            if first < 0:
                return
            place = first + 1
        begin = _local(text, max(done, first - LONGEST_LOCAL), first)
        end = _domain(text, place) if begin is not None else None
        if begin is not None and end is not None:
            yield begin, end
            place = done = end


def _local(text: str, lowest: int, end: int) -> int | None:
    """Where the local part that ends at `end` begins; None if there is none."""
    window = text[lowest:end]
    start = max(window.rfind(".."), -1) + 2 if ".." in window else 0
    found = _LOCAL.search(window, start)
    if not found or window[-1] in ".'&":
        return None
    begin = lowest + found.start()
    return None if text[begin - 1 : begin] == "@" else begin


def _domain(text: str, place: int) -> int | None:
    """The end of the domain that begins at `place`; None if there is none."""
    found = _DOMAIN.match(text, place)
    if found:
        return found.end()
    window = text[place : place + _LONGEST_DOMAIN]
    if "dot" not in window.lower():
        return None
    # Replace each spelled dot by as many dots as fill its place, of which one counts.
    plain = _DOT.sub(lambda dot: "." + "\0" * (len(dot[0]) - 1), window)
    kept = [i for i, c in enumerate(plain) if c != "\0"]
    found = _DOMAIN.match("".join(plain[i] for i in kept))
    return place + kept[found.end() - 1] + 1 if found else None
