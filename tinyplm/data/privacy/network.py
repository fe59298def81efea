"""Addresses of the Internet: IPv4 and IPv6, told from versions, section numbers, times and code."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4 = re.compile(
    rf"[0-9](?<![0-9A-Za-z_.-][0-9])"  # the first digit of a group
    rf"[0-9]{{0,2}}(?:\.{_OCTET}){{3}}(?![0-9A-Za-z_])(?!\.[0-9])"
)
_V6 = re.compile(r"(?<![0-9A-Za-z_:.])[0-9A-Fa-f]{4}:[0-9A-Fa-f:]{2,34}")
_TWO_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_AFTER = re.compile(r"[0-9A-Za-z_]")
# "version 1.2.3.4", "Firefox/3.6.13.1", "section 4.2.1.1"
_VERSION = re.compile(
    r"(?:\b(?:v|ver|vers|version|release|revision|rev|build|section|sec|chapter|clause|table|"
    r"figure|fig|paragraph|rfc|python|版本|第)\.?[\s:=]{0,3}|[A-Za-z]/|§ ?|[A-Za-z]-)\Z",
    re.IGNORECASE,
)


def ip_addresses(text: str, *, public_only: bool = True) -> Iterator[tuple[int, int]]:
    """(start, end) of each IPv4 address, in order, then of each IPv6 address.

    Four octets without leading zeros, not after a word such as "version" or "section" and not part
    of a longer dotted number; IPv6 as `ipaddress` reads it, from a first group of four hexadecimal
    digits, with at least one letter or four groups, so that slices such as x[1::2] and names such
    as a::b do not count.   public_only: only addresses that are globally reachable.
    """
    for found in _V4.finditer(text):
        if _VERSION.search(text[max(0, found.start() - 16) : found.start()]):
            continue
        try:
            v4 = ipaddress.IPv4Address(found[0])
        except ValueError:  # a leading zero, or a first octet above 255
            continue
        if (v4.is_global and not v4.is_multicast or not public_only) and int(v4) >> 24:
            yield found.span()
    place = 0
    while colons := _TWO_COLONS.search(text, place):  # a colon is found faster than a digit
        place = colons.start() + 1
        groups = _V6.match(text, colons.start() - 4) if colons.start() >= 4 else None
        if groups and (v6 := _v6(text, groups, public_only)):
            yield v6
            place = v6[1]


def _v6(text: str, found: re.Match, public_only: bool) -> tuple[int, int] | None:
    written = found[0].rstrip(":") if not found[0].endswith("::") else found[0]
    end = found.start() + len(written)
    if _AFTER.match(text, end):
        return None
    groups = [group for group in written.split(":") if group]
    if len(groups) < 4 and not re.search(r"[A-Fa-f]", written):
        return None
    try:
        v6 = ipaddress.IPv6Address(written)
    except ValueError:
        return None
    public = v6.is_global and int(v6) >> 125 == 1  # 2000::/3, all that is handed out (RFC 4291)
    return (found.start(), end) if public or not public_only else None
