"""Pairs of texts from JSON lines and TSV: the format by hand, and one line for each kind of bad line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.data import encode_pairs, read_json_pairs, read_tsv_pairs

PAIRS = [("Das ist gut.", "That is good."), ('Er sagt "ja".', "He says 'yes'."), ("Ende", "The  end")]


@pytest.fixture
def written(tmp_path):
    def write(text, name="pairs"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def message(call):
    with pytest.raises(ValueError) as raised:
        call()
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    return text


def test_json_lines_by_hand(written):
    lines = [json.dumps({"de": de, "en": en, "id": n}) for n, (de, en) in enumerate(PAIRS)]
    path = written("\ufeff" + "\n\n".join(lines) + "\r\n")
    assert read_json_pairs(path, "de", "en") == PAIRS
    assert read_json_pairs(path, "en", "de") == [(en, de) for de, en in PAIRS]
    assert read_json_pairs(written('{"source": " a ", "target": "b"}')) == [("a", "b")]


def test_tsv_by_hand(written):
    body = "".join(f"{n}\t{de}\t {en} \r\n" for n, (de, en) in enumerate(PAIRS))
    assert read_tsv_pairs(written(body), 1, 2) == PAIRS
    path = written("\n" + "id\tde\ten\n" + body + "\n")
    for columns in ((1, 2), ("de", "en"), (1, "en")):
        assert read_tsv_pairs(path, *columns, header=True) == PAIRS
    assert read_tsv_pairs(written("a\tb\nc\td")) == [("a", "b"), ("c", "d")]


texts = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=9)


@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "a.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    (folder / "a.jsonl").write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in pairs), encoding="utf-8")
    assert read_tsv_pairs(folder / "a.tsv") == read_json_pairs(folder / "a.jsonl", "a", "b") == pairs


def test_bad_lines_are_named_with_file_line_and_field(written):
    good = '{"source": "a", "target": "b"}\n'
    for bad, expected in (
        ('{"source": "a"}', "pairs, line 3: expected a field 'target', got only 'source'"),
        ("{}", "pairs, line 3: expected a field 'source', got an empty object"),
        ('{"source": "a", "target": 5}', "pairs, line 3: 'target': expected a non-empty text, got 5"),
        ('{"source": " ", "target": "b"}', "pairs, line 3: 'source': expected a non-empty text, got ' '"),
        ('["a", "b"]', "pairs, line 3: expected an object, got ['a', 'b']"),
        ('{"source": "a", "target": "b"', "pairs, line 3: expected valid JSON, got "),
        ('{"source": "a", "source": "b"}', "pairs, line 3: expected valid JSON, got the key 'source' 2 times in one object"),
        (b'{"source": "\xff"}', "pairs, line 3: expected valid UTF-8, got "),
    ):  # fmt: skip
        path = written(good.encode() + b"\n" + (bad if isinstance(bad, bytes) else bad.encode()))
        assert expected in message(lambda path=path: read_json_pairs(path))
    for bad, columns, expected in (
        ("a", (0, 1), "pairs, line 3: expected at least 2 columns, separated by tabs, got 1"),
        ("a\t", (0, 1), "pairs, line 3: column 1: expected a non-empty text, got ''"),
        (" \tb", (0, 1), "pairs, line 3: column 0: expected a non-empty text, got ''"),
        (b"\xff\tb", (0, 1), "pairs, line 3: expected valid UTF-8, got "),
    ):
        path = written(b"a\tb\n\n" + (bad if isinstance(bad, bytes) else bad.encode()))
        assert expected in message(lambda path=path, columns=columns: read_tsv_pairs(path, *columns))


def test_bad_calls_and_files_are_refused(written, tmp_path):
    for read in (read_json_pairs, read_tsv_pairs):
        assert message(lambda read=read: read(written("\n \n"))).endswith("pairs: expected one pair of texts a line, got none")
        assert "expected a file, got none (no such file)" in message(lambda read=read: read(tmp_path / "missing"))
    path = written("de\ten\ten\na\tb\tc\n")
    assert "line 1: expected one column 'fr', got 'de', 'en', 'en'" in message(
        lambda: read_tsv_pairs(path, "fr", "de", header=True)
    )
    assert "line 1: expected one column 'en', got " in message(lambda: read_tsv_pairs(path, "de", "en", header=True))
    assert message(lambda: read_tsv_pairs(path, "de", 1)) == (
        "source: expected a number of a column (header=True reads names), got 'de'"
    )
    assert message(lambda: read_tsv_pairs(path, 0, -1)) == "target: expected an integer from 0 to 2147483647, got -1"


def test_pairs_are_encoded_with_the_tasks_prefix():
    def encode(text):
        return [ord(c) for c in text]

    assert encode_pairs([("a", "b")], encode) == [([97], [98])]
    assert encode_pairs([("a", "b"), ("", "c")], encode, prefix="x ") == [([120, 32, 97], [98]), ([120, 32], [99])]
    assert message(lambda: encode_pairs([("a", 5)], encode)) == "pairs: number 0: expected two texts, got ('a', 5)"
    assert message(lambda: encode_pairs([("a", "b")], lambda text: ["x"])).startswith("encode: expected a list of token ids")
