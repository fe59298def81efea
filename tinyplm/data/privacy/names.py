"""Personal names by rules: after an English or German title, before a Chinese one."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = r"[A-ZÀ-Þ][A-Za-zß-ÿ'’-]{1,24}"
_TITLED = re.compile(
    r"[MDPHF](?<![A-Za-z0-9_][MDPHF])(?:(?:(?<=M)(?:r|rs|s|x|iss)|(?<=D)r|(?<=P)rof)\.?"
    r"|(?<=P)rofessor|(?<=H)err|(?<=F)rau) "
    rf"((?:[A-Z]\. ?){{0,3}}{_WORD}(?: [A-Z]\.)?"
    rf"(?: (?:van |von |de |der |bin |al-)?{_WORD}){{0,2}})"
)
_NOT_NAMES = frozenset(
    "President Speaker Chairman Chair Secretary Minister Justice Universe World America "
    "Office Who The And".split()
)

# The most common surnames; without those that are mostly another word (和, 于, 向, 时, 从, 都 ...).
_SURNAMES = frozenset(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘蔡蒋余杜叶程苏魏吕"
    "丁沈任姚卢傅钟姜崔谭廖范汪陆金石戴贾韦夏邱侯邹熊孟秦阎薛闫雷龙史陶贺顾毛郝龚邵万钱严赖"
    "武莫孔白汤康易乔殷施葛倪聂梅俞章鲁柳岳詹关洪裴季庄祝欧童霍翟耿焦司柴"
)
_DOUBLE = frozenset(
    "欧阳 司马 上官 诸葛 东方 皇甫 尉迟 公孙 慕容 司徒 夏侯 令狐 端木 轩辕 南宫".split()
)
_CHINESE_TITLE = re.compile(
    "先生|女士|小姐|太太|老师|教授|医生|博士|律师|师傅|同学|同志|阿姨|经理|主任|院士"
)
_HAN = re.compile("[一-鿿]*\\Z")


def personal_names(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each name after an English or German title, then of each before a Chinese.

    The title is not part of it.   English: initials and up to three capitalised words.   Chinese: a
    common surname and at most two more characters; the longest reading that begins with one.
    """
    for found in _TITLED.finditer(text):
        if found[1].split()[0] not in _NOT_NAMES:
            yield found.span(1)
    done = 0
    for title in _CHINESE_TITLE.finditer(text):
        begin = _surname(text[max(done, title.start() - 4) : title.start()])
        if begin:
            yield title.start() - begin, title.start()
            done = title.end()


def _surname(before: str) -> int:
    """How many of the last characters are a name: 0 for none."""
    run = _HAN.search(before)
    han = run[0] if run else ""
    for length in range(min(4, len(han)), 0, -1):
        name = han[-length:]
        if (length > 1 and name[:2] in _DOUBLE) or (length <= 3 and name[0] in _SURNAMES):
            return length
    return 0
