"""Personal data by rules: what is found in made-up texts, and what is left alone."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data.checksums import luhn_sum, mod_11_2
from tests.support.personal_data import PLANTS, clean_lines, planted
from tinyplm.data.pipeline import Document
from tinyplm.data.privacy import (
    KINDS,
    MASKS,
    card_issuer,
    find,
    identity_check,
    is_card_number,
    is_identity_number,
    is_old_identity_number,
    luhn,
    luhn_digit,
    privacy,
)

STRICT = ("mail", "identity", "card", "ip", "phone")
ALL = tuple(KINDS)


def found(text: str, kinds=ALL, **options) -> list[tuple[str, str]]:
    return [(kind, text[start:end]) for start, end, kind in find(text, kinds, **options)]


@given(st.from_regex(r"[0-9]{17,17}", fullmatch=True))
@settings(max_examples=25)
def test_check_digits_are_those_of_the_definitions(digits):
    assert identity_check(digits) == mod_11_2(digits)
    assert luhn(digits) == (luhn_sum(digits) % 10 == 0)
    assert luhn(digits + luhn_digit(digits))
    assert sum(luhn(digits + c) for c in "0123456789") == 1


def test_published_examples():
    # GB 11643-1999, annex A; X stands for 10
    assert identity_check("11010519491231002") == "X" and identity_check("44052418800101001") == "4"
    assert is_identity_number("11010519491231002X") and is_identity_number("11010519491231002x")
    assert not is_identity_number("440524188001010014")  # a birth in 1880
    assert not is_identity_number("110105194912310021") and not is_identity_number("11010519490229002X")
    assert is_old_identity_number("130503670401001") and not is_old_identity_number("130503670431001")
    assert not is_identity_number("") and not is_old_identity_number("13050367040100Ⅰ")
    assert luhn("79927398713") and not luhn("79927398710") and not luhn("")  # ISO/IEC 7812-1's rule, by Wikipedia's example
    # the issuers' test numbers
    tests = {"4111111111111111": "Visa", "5555555555554444": "Mastercard", "378282246310005": "American Express",
             "30569309025904": "Diners Club",
             "6011111111111117": "Discover", "3530111333300000": "JCB", "6200000000000005": "UnionPay"}  # fmt: skip
    for number, issuer in tests.items():
        assert is_card_number(number) and card_issuer(number) == issuer
        assert not is_card_number(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert card_issuer("1234567890123456") is None


@pytest.mark.parametrize("kind", PLANTS)
def test_at_least_99_percent_of_what_is_planted_is_found(kind):
    rng, missed, count = np.random.default_rng(7), [], 500
    for _ in range(count):
        text, plant = planted(kind, rng)
        number = plant.removeprefix("tel. ").removeprefix("电话")  # the word before it is not part of it
        if (kind, number) not in found(text, STRICT):
            missed.append((text, found(text, STRICT)))
    assert len(missed) <= count // 100, missed


@pytest.mark.parametrize("separator", [", ", ",", "; ", "\t", "\n", " and "])
def test_several_on_a_line(separator):
    rng, missed, count = np.random.default_rng(11), [], 60
    for _ in range(count):
        kinds = [list(PLANTS)[i] for i in rng.integers(0, 4, 4)]
        plants = [PLANTS[kind](rng).removeprefix("tel. ").removeprefix("电话") for kind in kinds]
        plants = ["+1 212-555-0199" if plant.isdigit() and len(plant) < 11 else plant for plant in plants]  # those need the word
        got = found(separator.join(plants), STRICT)
        missed += [pair for pair in zip(kinds, plants, strict=True) if pair not in got]
    assert len(missed) <= 4 * count // 100, missed


def test_under_half_a_percent_of_clean_lines_is_touched():
    """None here; the figures for whole corpora are in benchmarks/privacy.py."""
    lines = list(clean_lines(np.random.default_rng(3), 1000))
    touched = [(line, found(line)) for line in lines if found(line)]
    assert len(touched) < 0.005 * len(lines), touched


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("O'Neil: o'neil+x@mail.example.co.uk. (at) joe (at) host.com, a [at] b [dot] org!",
         ["o'neil+x@mail.example.co.uk", "joe (at) host.com", "a [at] b [dot] org"]),
        ("邮箱zhang.san@qq.com。＜ｌｉ＠ａｂｃ．ｃｎ＞", ["zhang.san@qq.com", "ｌｉ＠ａｂｃ．ｃｎ"]),
        ("@decorator x@y a@b.c 5@3.14 user@host @a.b.com a..b@ a@.com", []),
        ("(+44) 20 7946 0958 (+1 212-555-0199) 13800138000,13900139000",
         ["(+44) 20 7946 0958", "+1 212-555-0199", "13800138000", "13900139000"]),
        ("Phone: 555-0199. phone 2024-01-15; tel 12345",
         ["555-0199", "2024-01-15"]),  # after the word, a date is taken for a number
        ("0.13800138000 x13800138000 13800138000.5 17179869184 15000000000 0x13800138000", []),
        ("4111 1111 1111 1111 1111 4111-1111-1111-1111", ["4111-1111-1111-1111"]),  # a table of groups of four
        ("8.8.8.8 8.8.8.8:53 version 8.8.8.8 1.8.8.8.8 256.1.1.1 08.8.8.8 192.168.0.1 127.0.0.1",
         ["8.8.8.8", "8.8.8.8"]),
        ("2001:4860:4860::8888 x[1000::2] 12:30:45 a::b 2001:db8::1 2000::2", ["2001:4860:4860::8888"]),
        ("At 221B Baker Street, London NW1 6XE. 12 Elm Lane, Apt 4, Oz, KS 66002. 2 Hard Drive",
         ["221B Baker Street, London NW1 6XE", "12 Elm Lane, Apt 4, Oz, KS 66002"]),
        ("我住在北京市海淀区中关村大街27号3号楼2单元501室。地址：南京路100号",
         ["北京市海淀区中关村大街27号3号楼2单元501室", "南京路100号"]),
        ("Dr. Jane A. Smith, Mr Darcy, Mr. President; 请找王明教授，欧阳修老师，各位老师",
         ["Jane A. Smith", "Darcy", "王明", "欧阳修"]),
    ],
)  # fmt: skip
def test_by_hand(text, expected):
    assert [plant for _, plant in found(text)] == expected


def test_what_is_optional():
    old = "号码 130503670401001 和 192.168.0.1"
    assert found(old, ["identity", "ip"]) == []
    assert found(old, ["identity"], old_identity=True) == [("identity", "130503670401001")]
    assert found(old, ["ip"], public_only=False) == [("ip", "192.168.0.1")]
    both = "13800138000@qq.com"  # of two that overlap, the earlier kind
    assert found(both) == [("mail", both)] and found(both, ["phone"]) == []


@given(
    st.lists(
        st.sampled_from(
            ["13800138000", " ", "-", "+1", "(", "555-0199", "a@b.com", ".", "张先生", "Mr. Li", "路12号", "\n", "8.8.8.8", "x"]
        )
    )
)
@settings(max_examples=25)
def test_spans_are_apart_and_the_rest_stays(parts):
    text = "".join(parts)
    place, rest = 0, []
    for start, end, _ in find(text, ALL):
        assert place <= start < end <= len(text)
        rest.append(text[place:start])
        place = end
    rest.append(text[place:])
    masked, counts = privacy(kinds=ALL, masks=dict.fromkeys(ALL, "\0"))(Document(text, "t"))
    assert masked is not None and masked.text.split("\0") == rest
    assert sum(counts.values()) == len(rest) - 1


MAIL = "One.\nMail a@b.com or A@b.com or c@d.com.\nThree, 13800138000.\n"


def test_mask_drop_line_drop_document():
    document = Document(MAIL, "t", {"n": 1})
    masked, counts = privacy()(document)
    assert masked == Document("One.\nMail <EMAIL> or <EMAIL> or <EMAIL>.\nThree, <PHONE>.\n", "t", {"n": 1})
    assert counts == {"mail addresses masked": 3, "phone numbers masked": 1}
    lines, counts = privacy(action="drop line")(document)
    assert lines is not None and lines.text == "One.\n"
    assert counts == {"lines with mail addresses dropped": 1, "lines with phone numbers dropped": 1}
    assert privacy(action="drop line")(Document("a@b.com", "t"))[0] is None
    dropped, counts = privacy(action="drop document", kinds=["mail", "name"])(document)
    assert dropped is None and counts == {"documents with mail addresses": 1}
    assert privacy()(Document("Nobody.", "t")) == (Document("Nobody.", "t"), {})
    assert document.text == MAIL


def test_pseudonyms_are_the_same_for_the_same_value_and_key():
    first, second = (pickle.loads(pickle.dumps(privacy(pseudonyms=key, masks={"phone": "TEL"}))) for key in (1, 2))
    text = first(Document(MAIL, "t"))[0].text
    a, b, c = text.splitlines()[1].split(" or ")
    assert a.removeprefix("Mail ") == b and b != c.rstrip(".") and b.startswith("<EMAIL:") and len(b) == len("<EMAIL:") + 9
    assert "TEL" in text and first(Document("b, A@B.COM", "u"))[0].text == f"b, {b}"
    assert second(Document(MAIL, "t"))[0].text != text
    spaced = first(Document("138 0013 8000", "u"))[0].text
    assert spaced in text  # separators do not count


def test_the_time_is_proportional_to_a_hostile_line():
    """A megabyte of what makes a backtracking expression quadratic: 10^10 steps for each of these, or 10^6."""
    units = [
        "a",
        "1",
        "1 ",
        "@",
        "a@",
        "a.",
        "1.",
        "(1",
        "+1",
        "::",
        "00 49 ",
        "Mr. A",
        "1 Ab Ab ",
        "张先生",
        "北京市路1号",
        "a(at)b(dot)",
        "tel ",
        "-",
    ]
    text = "".join((unit * 60_000)[:60_000] for unit in units)
    assert len(text) >= 10**6
    start = time.process_time()
    find(text, ALL)
    assert time.process_time() - start < 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": "mail"}, "privacy: kinds: expected several of mail"),
        ({"kinds": ["post"]}, "privacy: kinds: expected one of mail"),
        ({"kinds": []}, "privacy: kinds: expected at least one"),
        ({"action": "hide"}, "privacy: action: expected one of mask"),
        ({"masks": {"post": "x"}}, "privacy: masks: expected one of mail"),
        ({"masks": {"mail": 1}}, "privacy: masks: mail: expected a string"),
        ({"pseudonyms": -1}, "privacy: pseudonyms: expected None or an integer"),
        ({"public_only": 1}, "privacy: public_only: expected True or False"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        privacy(**options)
    assert MASKS.keys() == KINDS.keys()
