"""examples/scaling_law.py: a ladder, its laws, and the forecast of a model that was held out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.scripts import assert_one_line, load_example
from tinyplm.data import corpus

QUICK = ("--widths", "32", "64", "--tokens", "128", "256", "512", "--batch", "2", "--context", "16", "--vocabulary", "300")


def test_a_ladder_and_its_forecast(run, tmp_path, texts, monkeypatch):
    documents = [Path(text).read_text() for text in texts]
    monkeypatch.setattr(corpus, "default_corpus", lambda: documents)
    done = run("scaling_law.py", *QUICK, "--repeats", "4", "--workers", "1", "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    rows = re.findall(r"^ +(\d+) +([\d,]+) +([\d,]+) +(\S+) +([\d.]+) +\d+$", done.out, re.M)
    assert [row[0] for row in rows] == ["32"] * 3 + ["64"] * 3 + ["128"]
    for _, N, D, flops, _ in rows:
        exact = 6 * int(N.replace(",", "")) * int(D.replace(",", ""))
        assert float(flops) == pytest.approx(exact, rel=5e-3)  # as printed
    sizes = [int(row[1].replace(",", "")) for row in rows]
    assert 4 * sizes[5] <= sizes[6] and f"forecast of {sizes[6]:,} parameters" in done.out
    measured, by_law = (float(re.search(pattern, done.out)[1]) for pattern in (r"measured ([\d.]+)", r"by L\(N, D\) +([\d.]+)"))
    difference = float(re.search(r": ([-+][\d.]+) from L", done.out)[1])
    assert measured == float(rows[-1][4]) and measured - by_law == pytest.approx(difference, abs=1e-2)
    assert "does not hold it" in done.out or "holds it" in done.out


def test_the_envelope_has_no_run_that_another_beats():
    example = load_example("scaling_law")
    N, D = np.array([1.0, 1, 2, 2, 4, 4]), np.array([1.0, 2, 1, 2, 1, 4])
    loss = np.array([5.0, 4.5, 4.4, 4.6, 4.0, 3.0])
    assert example.envelope(N, D, loss).tolist() == [0, 2, 4, 5]


def test_ladders_that_cannot_be_fitted(run, tmp_path):
    for options, said in (
        (("--widths", "64"), "--widths: expected two or more different numbers, got 64"),
        (("--widths", "32", "48"), "--widths: expected multiples of 32, got 48"),
        (("--widths", "32", "64", "--tokens", "9000", "10000"), "--widths, --tokens: expected six runs or more, got fewer"),
        (("--tokens", "9000", "20", "30"), "--tokens: expected at least 2048, two steps, got 20"),
    ):
        assert_one_line(run("scaling_law.py", *options, "--out", str(tmp_path / "out")), said)
    assert not (tmp_path / "out").exists()
