"""tinyplm data: a corpus by the steps of a file, resumed, compared, and read for training."""

from __future__ import annotations

import json

from tinyplm.cli.corpus import read_documents

LINE = "The people of the town have to be with a friend of that kind, and number {} is one of them."
STEPS = """
format = "jsonl"
[data]
field = "page.text"
[[step]]
name = "unicode"
[[step]]
name = "gopher_quality"
least_words = 5
[[step]]
name = "exact_documents"
"""


def test_a_corpus_from_a_file_of_steps(tinyplm, tmp_path):
    source, out, config = tmp_path / "web.jsonl", tmp_path / "corpus", tmp_path / "steps.toml"
    pages = [LINE.format(n % 4) for n in range(6)] + ["Short.", None]
    source.write_text("".join(json.dumps({"page": {"text": page}, "n": n}) + "\n" for n, page in enumerate(pages)))
    config.write_text(STEPS)
    start = ("data", "--input", source, "--out", out, "--workers", "1")
    status, printed, _ = tinyplm(*start, "--config", config)
    assert status == 0
    rows = [" ".join(line.split()[:3]) for line in printed.splitlines()]
    assert {"read 7 87.5%", "gopher_quality 6 85.7%", "exact_documents 4 66.7%"} < set(rows)
    assert f"not read   {source}:8: a field page.text that is no text" in printed
    assert {path.name for path in out.iterdir()} == {
        "documents-00000.jsonl", "manifest.json", "report.json", "report.png", "run.json", "times.json"}  # fmt: skip
    lines = [json.loads(line) for line in (out / "documents-00000.jsonl").read_text().splitlines()]
    assert [line["n"] for line in lines] == [0, 1, 2, 3] and lines[0]["page"] == {}
    assert read_documents([str(out)]) == [line["text"] for line in lines]

    (out / "report.json").unlink()  # as if it had been stopped before the end
    assert tinyplm("data", "--out", out, "--resume")[0] == 0 and (out / "report.json").exists()
    status, printed, _ = tinyplm("data", "compare", out, source, "--field", "text", "--out", tmp_path / "found")
    found = json.loads((tmp_path / "found" / "comparison.json").read_text())
    assert status == 0 and found["a"]["documents"] == 4 and found["b"] == found["b"] | {"documents": 0, "unread": 8}
    assert "divergence of words" in printed


def test_what_is_refused_leaves_nothing_behind(tinyplm, tmp_path):
    source, out, config = tmp_path / "a.txt", tmp_path / "out", tmp_path / "steps.toml"
    source.write_text("Short.\n")
    config.write_text('[[step]]\nname = "unicode"\nfrom = "NFC"\n')
    for arguments, message in (
        (("--out", out), "--input: expected files, folders or patterns, got none"),
        (("--input", source), "--out: expected a folder, got none"),
        (("--input", source, "--out", tmp_path), "--out: expected a new or empty folder"),
        (("--input", tmp_path / "none", "--out", out), "none: expected a file, got none (no such file)"),
        (("--input", source, "--out", out, "--config", config), "step 1: unicode: expected one of its settings: form, mojibake"),
        (("--input", source, "--out", out, "--longest", "0"), "--longest: expected an integer >= 1"),
        (("compare", source), "data: expected compare A B, train-language, train-quality, or --input and --out, got compare"),
        (
            ("--input", source, "--out", out, "--samples", f"en={source}"),
            "--samples: expected none where a corpus is made",
        ),
        (("compare", source, source, "--format", "text"), "--format: expected none with compare, got one"),
        (("--out", out, "--resume"), "out: expected a run to resume, got no run.json"),
    ):
        status, printed, err = tinyplm("data", *arguments)
        assert (status, printed) == (2, "") and message in err and err.count("\n") == 1, err
        assert not out.exists()
    config.write_text('[step]\nname = "unicode"\n')  # for [[step]]: it must not stand for the default steps
    err = tinyplm("data", "--input", source, "--out", out, "--config", config)[2]
    assert f"{config}: step: expected a list of tables, got " in err and not out.exists()
    status, printed, err = tinyplm("data", "--input", source, "--out", out, "--workers", "1")
    assert status == 2 and "dropped: fewer than 50 words" in printed
    assert err.endswith(f"tinyplm: --out: expected documents left, got none; {out}/report.json says why\n")
