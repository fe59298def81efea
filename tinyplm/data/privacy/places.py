"""Street addresses by rules: English ones with a house number first, Chinese ones with 号 last."""

from __future__ import annotations

import re
from collections.abc import Iterator

_STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Highway|Hwy|Parkway|Pkwy|Crescent|Cres|Mews|Alley"
)
_UNSURE = "Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Way|Terrace|Close|Gardens|Circle"
_UNIT = (
    r"(?:,? (?:Apartment|Apt|Suite|Ste|Unit|Flat|Floor|Room)\.? ?[A-Za-z0-9-]{1,6}|,? #[0-9]{1,5})?"
)
_TOWN = (
    r"(?:,? (?:[A-Z][a-z'.]{1,20}(?: [A-Z][a-z'.]{1,20}){0,2}),? (?:[A-Z]{2} [0-9]{5}(?:-[0-9]{4})?"
    r"|[A-Z]{1,2}[0-9][0-9A-Z]? [0-9][A-Z]{2})(?![0-9A-Za-z]))"
)
_NUMBER = r"[0-9](?<![0-9A-Za-z_.,:/#-][0-9])[0-9]{0,4}[A-Za-z]?(?:-[0-9]{1,4})?"
_WORDS = r" (?:[NSEW]{1,2}\.? )?(?:(?:[A-Z][A-Za-z'’-]{1,20}|[0-9]{1,3}(?:st|nd|rd|th)) ){1,4}"
# Where the last word also means something else ("2 Hard Drive"), a town or a flat must follow.
_ENGLISH = re.compile(
    rf"{_NUMBER}{_WORDS}(?:(?:{_STREETS})\b\.?{_UNIT}{_TOWN}?"
    rf"|(?:{_UNSURE})\b\.?(?:{_UNIT}{_TOWN}|(?=, ?[A-Z#])))"
)

_HAN = "一-鿿"
_DIGITS = "0-9一二三四五六七八九十百"
_CHINESE = re.compile(rf"(?:路|街|大道|巷|弄|胡同|村|里)[{_DIGITS}]{{1,6}}(?:号|弄)")
_FOLLOWING = re.compile(
    rf"(?:(?:附)?[A-Za-z{_DIGITS}]{{1,5}}(?:号楼|号院|号|幢|栋|座|单元|层|楼|室|房)){{0,5}}"
)
_HAN_BEFORE = re.compile(rf"[{_HAN}{_DIGITS}]{{0,40}}\Z")
_REGIONS = re.compile(
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|"
    "广东|海南|四川|贵州|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_BEFORE_PLACE = re.compile(r".*[在到于址是从往至为住寄往]", re.DOTALL)
_SHORT = 5  # characters of a street's name where nothing says where the address begins


def street_addresses(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each English address, in order, then of each Chinese one.

    English: a house number, one to four capitalised words, a word such as Street, and what follows
    of a flat, a town and a postal code.   Chinese: a street with the number of a house; from the
    name of the province, if it stands within 40 characters, or a word such as 在 before it.
    """
    for found in _ENGLISH.finditer(text):
        yield found.span()
    done = 0
    for found in _CHINESE.finditer(text):
        if found.start() < done:
            continue
        following = _FOLLOWING.match(text, found.end())
        end = following.end() if following else found.end()
        yield _begin(text, max(done, found.start() - 40), found.start()), end
        done = end


def _begin(text: str, lowest: int, street: int) -> int:
    window = text[lowest:street]
    run = _HAN_BEFORE.search(window)
    start = run.start() if run else len(window)
    if region := _REGIONS.search(window, start):
        return lowest + region.start()
    if before := _BEFORE_PLACE.match(window, start):
        if before.end() < len(window):
            return lowest + before.end()
    return lowest + max(start, len(window) - _SHORT)
