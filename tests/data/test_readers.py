"""Sources of the corpus pipeline: what is broken is named, and the rest is read."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc

import pytest

from tinyplm.data.pipeline.readers import Part, read
from tinyplm.data.pipeline.sources import files_of, kind_of


@pytest.fixture
def reading(tmp_path):
    """reading(bytes, name) -> [(name without its folder, text or None, counts)]."""

    def run(data, name, **settings):
        file = tmp_path / name
        file.write_bytes(data)
        part = Part(str(file), kind_of(file) or "text", 0, None, 1)
        found = list(read(part, **settings))
        return [(name.removeprefix(f"{tmp_path}/"), d and d.text, counts) for name, d, counts in found]

    return run


def test_text(reading):
    data = "\ufeffone\r\ntwo\n <|endoftext|>\n\n<|endoftext|>\n\n三\n".encode()
    assert reading(data, "a.txt") == [("a.txt:1", "one\ntwo", {}), ("a.txt:6", "三", {})]
    replaced = {"characters replaced, which were not UTF-8": 2}
    assert reading(b"a\xffb\xfe", "b.md") == [("b.md:1", "a\ufffdb\ufffd", replaced)]
    cut = {"pieces of documents of more than 8 bytes": 1}
    assert reading(b"abc\ndefg\nhijk\n", "c", longest=8) == [("c:1", "abc", cut), ("c:2", "defg", cut), ("c:3", "hijk", cut)]
    long = {"a line of more than 8 bytes": 1}
    assert reading(b"abc\n" + b"x" * 99 + b"\nd", "d", longest=8) == [("d:2", None, long), ("d:1", "abc\nd", {})]


def test_json_lines(reading):
    lines = ['{"text": "one", "id": 1}', "", '{"text": 3}', "[1]", "{", '{"text": " "}', '{"text": "\\ud800!"}', '{"t": "x"}']
    found = reading("\n".join(lines).encode(), "a.jsonl")
    assert found == [
        ("a.jsonl:1", "one", {}),
        ("a.jsonl:3", None, {"a field text that is no text": 1}),
        ("a.jsonl:4", None, {"no field text": 1}),
        ("a.jsonl:5", None, {"a line that is not JSON": 1}),
        ("a.jsonl:6", None, {"no text": 1}),
        ("a.jsonl:7", "\ufffd!", {"characters replaced, which were half a pair": 1}),
        ("a.jsonl:8", None, {"no field text": 1}),
    ]
    data = b'{"a": {"b": "deep", "c": 1}, "d": 2}\n{"a": 1}\n{"a": {"b": null}}\n' + b"[" * 5000
    assert [text for _, text, _ in reading(data, "b.jsonl", field="a.b")] == ["deep", None, None, None]


def test_json_arrays(reading):
    values = [{"text": "x" * n, "n": list(range(n))} for n in (1, 70_000, 2, 150_000, 3)]
    for indent in (None, 1):
        found = reading(json.dumps(values, indent=indent).encode(), "a.json")
        assert found == [(f"a.json[{n}]", value["text"], {}) for n, value in enumerate(values)]
    assert reading(b'{"text": "a"}', "b.json")[0][2] == {"a .json file that is not an array": 1}
    for end in (b"", b', {"text": "b', b', {"text"; 3}]'):
        found = reading(b'[{"text": "a"}' + end, "c.json")
        assert found[0][1] == "a" and found[1][:2] == ("c.json[1]", None) and len(found) == 2
    assert len(reading(b'[{"text": "' + b"x" * 99_999 + b'"}]', "d.json", longest=1000)) == 1


def test_truncated_and_damaged_files(reading):
    lines = [json.dumps({"text": f"document {n} {hash(str(n))}"}) for n in range(5000)]
    packed = gzip.compress("\n".join(lines).encode(), mtime=0)
    whole = reading(packed, "a.jsonl.gz")
    assert len(whole) == 5000
    for data in (packed[:-4], packed[: len(packed) // 2], packed[:-8] + b"x" * 8):
        found = reading(data, "a.jsonl.gz")
        assert found[:-1] == whole[: len(found) - 1] and found[-1][:2] == ("a.jsonl.gz", None)
        assert "compressed data" in str(found[-1][2]) and len(found) > 500
    assert reading(b"no gzip", "b.txt.gz")[-1][1] is None


def test_zst(reading):
    zstandard = pytest.importorskip("zstandard")
    data = "\n".join(json.dumps({"text": f"document {n} {hash(str(n))}"}) for n in range(5000)).encode()
    packed = zstandard.compress(data[:50_000]) + zstandard.compress(data[50_000:])
    whole = reading(packed, "a.jsonl.zst")
    assert len(whole) == 5000
    found = reading(packed[:-300], "a.jsonl.zst")
    assert found[:-1] == whole[: len(found) - 1] and "is missing" in str(found[-1][2])


def test_html(reading):
    pytest.importorskip("resiliparse")
    page = "<html><head><title>t</title><script>x()</script></head><body><nav><a href=a>Home</a></nav>"
    page += "<main><p>Grüße, <b>world</b> &amp; all.</p><p>Second.</p></main></body></html>"
    for encoding in ("utf-8", "latin-1"):
        ((name, text, _),) = reading(page.encode(encoding), "a.html")
        assert (name, text.split("\n\n")) == ("a.html", ["Grüße, world & all.", "Second."])
    assert reading(b"<p></p>", "b.html")[0][1] is None
    assert reading(page.encode(), "c.html", longest=99)[0][2] == {"a page of more than 99 bytes": 1}


def test_missing_libraries_are_named(monkeypatch, tmp_path):
    for name, library in (("a.txt.zst", "zstandard"), ("a.html", "resiliparse")):
        (tmp_path / name).write_bytes(b"x")
        for module in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)  # an earlier test may have read a page
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ValueError, match=r"expected the extra `data` for .* \(pip install 'tinyplm\[data\]'\), got"):
            files_of(tmp_path / name)


def test_a_long_line_takes_little_memory(reading):
    data = b'{"text": "' + b"x" * 20_000_000 + b'"}\n{"text": "after"}\n'
    tracemalloc.start()
    found = reading(data, "a.jsonl", longest=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [("a.jsonl:1", None, {"a line of more than 65,536 bytes": 1}), ("a.jsonl:2", "after", {})]
    assert peak < 1_000_000


def test_files_of(tmp_path):
    for name in ("b.txt", "a.jsonl.gz", "c/d.md", "skip.bin", ".hidden.txt", "c/.git/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [name.removeprefix(f"{tmp_path}/") for name in files_of(tmp_path)]
    assert found == ["a.jsonl.gz", "b.txt", "c/d.md"]
    assert files_of([f"{tmp_path}/**/*.md", tmp_path / "skip.bin"]) == [f"{tmp_path}/c/d.md", f"{tmp_path}/skip.bin"]
