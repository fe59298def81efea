"""The corpus pipeline: the same bytes for any number of processes and after any interruption."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinyplm import files
from tinyplm.data import read_documents
from tinyplm.data.pipeline import Document, Ragged, decisions, registry, run_pipeline, runner, stages
from tinyplm.data.pipeline.comparison import compare_corpora, divergence
from tinyplm.data.pipeline.report import Report
from tinyplm.data.pipeline.sources import shards_of
from tinyplm.data.pipeline.tally import Tally, common

WORDS = "the cat and a dog have to be with some friend of that kind of people in this old town today".split()
STEPS = [{"name": "unicode"}, {"name": "gopher_quality", "least_words": 8}, {"name": "exact_documents"},
         {"name": "privacy"}, {"name": "exact_paragraphs"}, {"name": "fineweb", "most_line_ends": 1.0}]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """JSON lines, text and a folder, with copies and things to mask."""
    folder = tmp_path_factory.mktemp("source")
    draw = random.Random(1)
    texts = []
    for n in range(60):
        parts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 30))) + "." for _ in range(3)]
        texts.append("\n\n".join(parts) + f" Write to user{n}@example.com\r\n" if n % 3 else draw.choice(texts or ["Short."]))
    with open(folder / "a.jsonl", "w") as file:
        for n, text in enumerate(texts[:40]):
            file.write(json.dumps({"text": text, "id": n}) + "\n" + "not json\n" * (n == 7))
    (folder / "b.txt").write_text("\n<|endoftext|>\n".join(texts[40:]))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.name != "times.json"}


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    run_pipeline(source, STEPS, out, shard=2000)
    return contents(out)


def test_what_a_run_writes(source, expected):
    report = json.loads(expected["report.json"])["steps"]
    assert [row["step"] for row in report] == ["read", *(step["name"] for step in STEPS)]
    assert report[0]["documents_in"] == 61 and report[0]["drops"] == {"a line that is not JSON": 1}
    assert report[0]["examples"]["a line that is not JSON"][0]["document"] == f"{source}/a.jsonl:9"
    for before, after in zip(report, report[1:]):
        assert after["documents_in"] == before["documents_out"] and after["bytes_in"] == before["bytes_out"]
        assert after["documents_in"] - after["documents_out"] == sum(after["drops"].values())
    assert report[3]["drops"]["copies of an earlier document"] > 5
    lines = [json.loads(line) for name, data in expected.items() if name.startswith("doc") for line in data.splitlines()]
    assert len(lines) == report[-1]["documents_out"] > 20
    assert sum(len(line["text"].encode()) for line in lines) == report[-1]["bytes_out"]
    assert all("@example.com" not in line["text"] for line in lines)
    masked = report[4]["examples"]["mail addresses masked"]
    assert len(masked) == 3 and all("@example.com" in e["before"] and "<EMAIL>" in e["after"] for e in masked)
    assert {line["id"] for line in lines if "id" in line} < set(range(40))
    assert lines[0]["source"].startswith(f"{source}/a.jsonl:")
    assert "work" not in expected and json.loads(expected["manifest.json"])["shards"] > 3


def test_two_processes_write_the_same_bytes(source, expected, tmp_path):
    told = []
    report = run_pipeline(source, STEPS, tmp_path, shard=2000, workers=2, progress=lambda *args: told.append(args))
    assert contents(tmp_path) == expected
    assert told[-1][0] == told[-1][1] == 3 * json.loads(expected["manifest.json"])["shards"]
    assert Report.load(tmp_path).as_json() == report.as_json() == json.loads(expected["report.json"])
    assert run_pipeline(source, STEPS, tmp_path, shard=2000, resume=True).as_json() == report.as_json()


class Stop(BaseException):
    pass


def test_a_run_that_is_stopped_before_any_rename_or_removal_goes_on(source, expected, tmp_path, monkeypatch):
    """Every few such operations, with a piece of an unfinished file left behind; a shard needs four."""
    allowed = [0]

    def limited(real):
        def call(*args, **named):
            if allowed[0] == 0:
                raise Stop
            allowed[0] -= 1
            return real(*args, **named)

        return call

    monkeypatch.setattr(files.os, "replace", limited(os.replace))
    monkeypatch.setattr(runner.shutil, "rmtree", limited(runner.shutil.rmtree))
    monkeypatch.setattr(files, "flush", lambda path: None)  # quicker
    monkeypatch.setattr(files, "sync_folder", lambda path: None)
    for stops in range(100):
        allowed[0] = 4 + stops % 3
        try:
            run_pipeline(source, STEPS, tmp_path, shard=2000, resume=True)
            break
        except Stop:
            (tmp_path / ".documents-00000.jsonl.1.tmp").write_text("{")
    assert 10 < stops < 50
    assert contents(tmp_path) == expected


def test_a_run_that_is_killed_goes_on(source, expected, tmp_path):
    """With its processes, which end, too."""
    code = f"""
import sys
from tinyplm.data.pipeline import run_pipeline
if __name__ == "__main__":
    run_pipeline({str(source)!r}, {STEPS!r}, sys.argv[1], shard=2000, workers=2, resume=True)
"""
    script, out = tmp_path / "run.py", tmp_path / "out"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, out], stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob("work/1-*.json")):
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    left = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "report.json").exists()
    for _ in range(1000):
        if not any(Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in left):
            break
        time.sleep(0.01)
    else:
        raise AssertionError(f"still there: {left}")
    run_pipeline(source, STEPS, out, shard=2000, resume=True)
    assert contents(out) == expected


def test_formats_are_read_again(source, expected, tmp_path):
    documents = [
        json.loads(line)["text"] for name, data in expected.items() if name.startswith("doc") for line in data.splitlines()
    ]
    for format, compression, name in (("jsonl", "gz", "documents-00000.jsonl.gz"), ("text", "none", "documents.txt")):
        out = tmp_path / f"{format}-{compression}"
        run_pipeline(source, STEPS, out, format=format, compression=compression)
        assert (out / name).exists()
        assert [text.strip("\n") for text in read_documents(out)] == documents
    run_pipeline(out, [{"name": "unicode"}], tmp_path / "again")
    assert [text.strip("\n") for text in read_documents(tmp_path / "again")] == documents
    first, second = (tmp_path / "jsonl-gz", tmp_path / "again")
    found = compare_corpora(first, second)
    assert found.shared == {"documents_of_B_in_A": len(documents), "overlap_of_frequent_words": 1.0,
                            "divergence_of_words": 0.0, "divergence_of_pairs": 0.0}  # fmt: skip
    assert found.a == found.b and found.a["documents"] == len(documents)
    assert compare_corpora(source, second).shared["divergence_of_words"] > 0


def test_divergence():
    from collections import Counter

    p, q = Counter("aab"), Counter("bcc")
    middle = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    expected = 2 / 3 * np.log2(2 / 3 / middle["a"]) + 1 / 3 * np.log2(1 / 3 / middle["b"])
    assert divergence(p, q) == pytest.approx(expected, rel=1e-14)
    assert (divergence(p, p), divergence(p, Counter("xy")), divergence(p, Counter())) == (0, 1, 1)


# ---- what is refused


def refused(*arguments, **settings):
    with pytest.raises(ValueError) as raised:
        run_pipeline(*arguments, **settings)
    text = str(raised.value)
    assert "\n" not in text and ": expected " in text and ", got " in text
    return text


def test_bad_calls_are_refused_before_any_work(source, tmp_path):
    out = tmp_path / "out"
    for steps, message in (
        ([], "steps: expected at least one"),
        ([{"name": "unicoe"}], "step 1: step: expected"),
        ([{"nam": "unicode"}], "step 1: expected a table with a name"),
        ([STEPS[0], {"name": "c4", "least": 3}], "step 2: c4: expected one of its settings: least_words"),
        ([{"name": "gopher_quality", "least_words": -1}], "step 1: gopher_quality: least_words: expected"),
        ([{"name": "decontaminate"}], "step 1: decontaminate: expected the setting files, got none"),
    ):
        assert refused(source, steps, out).startswith(message)
    for settings in ({"workers": 0}, {"format": "xml"}, {"compression": "xz"}, {"shard": 0}, {"field": ""}, {"longest": 0}):
        assert refused(source, STEPS, out, **settings).startswith(next(iter(settings)))
    for inputs in ("/none", [], tmp_path, f"{tmp_path}/*.jsonl", [source, source / "b.txt"], 3):
        refused(inputs, STEPS, out)
    assert not out.exists()
    (tmp_path / "other").write_text("")
    assert "a new or empty folder" in refused(source, STEPS, tmp_path)


def test_another_run_is_not_resumed(source, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine.jsonl"
    mine.write_text('{"text": "One."}\n')
    steps = [{"name": "unicode"}]
    run_pipeline(mine, steps, out)
    with files.sole_writer(out):  # this thread may, others may not
        code = (
            f"from tinyplm.data.pipeline import run_pipeline\nrun_pipeline({str(mine)!r}, {steps!r}, {str(out)!r}, resume=True)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "expected no other writer" in done.stderr
    assert "manifest.json: steps" in refused(mine, [{"name": "unicode", "form": "NFKC"}], out, resume=True)
    assert "manifest.json: longest" in refused(mine, steps, out, resume=True, longest=99)
    mine.write_text('{"text": "Two."}\n')
    assert "manifest.json: inputs" in refused(mine, steps, out, resume=True)


# ---- parts


def test_shards_are_whole_documents(source, tmp_path):
    """For any size of shard the same documents in the same order."""
    from tinyplm.data.pipeline.readers import read

    (tmp_path / "c.jsonl").write_bytes(b'{"text": "one"}\n\n{"text": "' + b"x" * 300 + b'"}\n{"text": "last"}')
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"one\n<|endoftext|>\ntwo\n" * 50))
    (tmp_path / "e.txt").write_text("<|endoftext|>\n" * 3 + "a\n <|endoftext|> \nb" * 30)
    names = [str(source / "a.jsonl"), str(source / "b.txt"), *sorted(map(str, tmp_path.iterdir()))]
    seen = []
    for size in (1, 7, 100, 1000, 1 << 20):
        sources, shards = shards_of(names, size)
        assert [source.size for source in sources] == [os.path.getsize(name) for name in names]
        seen.append([item for shard in shards for part in shard for item in read(part)])
    assert len(shards) == 1 and len(seen[-1]) > 140
    assert all(found == seen[-1] for found in seen)


class Lists:
    """A step whose decisions are plain objects."""

    dtype = np.dtype(np.int64)

    def read(self, document):
        return np.array([len(document.text)])

    def decide(self, signatures):
        return [{"longest": int(max(signatures.values))}] * len(signatures)

    def apply(self, document, decision):
        return document._replace(text=f"{decision['longest']}"), {"replaced": 1}


def test_decisions_of_any_kind(monkeypatch, source, tmp_path):
    monkeypatch.setitem(registry.STEPS, "lists", ("test", "lists"))
    real = registry.factory
    monkeypatch.setattr(registry, "factory", lambda name: Lists if name == "lists" else real(name))
    run_pipeline(source, [{"name": "lists"}], tmp_path, shard=2000)
    assert len(set(read_documents(tmp_path))) == 1
    part = decisions.part_of(Ragged.of([[1], [], [2, 3]], int), 1, 2)
    assert [part[i].tolist() for i in range(len(part))] == [[], [2, 3]]


def test_tallies_add_up():
    """In any order of the parts; an example shows where the text changes."""
    whole, parts = Tally("a"), [Tally("a"), Tally("a")]
    for n in range(20):
        before = Document(f"{'x' * 90}{n}", f"f:{n}")
        after = before._replace(text="x" * 90 + "y") if n % 2 else None
        for tally in (whole, parts[n % 3 == 0]):
            tally.note(before, after, {"why": 1})
    for first, second in (parts, parts[::-1]):
        joined = Tally("a")
        joined.add(first)
        joined.add(second)
        assert joined.as_json() == whole.as_json()
    assert (whole.changes, whole.drops, whole.changed) == ({"why": 10}, {"why": 10}, 10)
    assert len(whole.examples["why"]) == 3
    assert [common(a, b) for a, b in (("abc", "abd"), ("", "a"), ("ab", "ab"), ("b", "a"))] == [2, 0, 2, 0]
    assert stages.as_text(Document("a\n<|endoftext|>\nb", "")) == "a\nb\n<|endoftext|>\n"
