"""examples/moe_balance.py run as a command, and tinyplm pretrain with a family of experts."""

from __future__ import annotations

import json
import runpy
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import EXAMPLES
from tinyplm.core import flatten
from tinyplm.data import corpus
from tinyplm.training import loop

TINY = (
    "--steps",
    "6",
    "--context",
    "32",
    "--batch",
    "4",
    "--vocabulary",
    "300",
    "--width",
    "16",
    "--heads",
    "2",
    "--experts",
    "4",
)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_four_models_are_trained_and_drawn(run, tmp_path, texts, monkeypatch):
    documents = [Path(text).read_text() for text in texts]
    monkeypatch.setattr(corpus, "default_corpus", lambda: documents)
    outcome = run("moe_balance.py", *TINY, "--bias-rate", "0.5", "--out", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    table = {
        line[:13].strip(): line[13:].split() for line in outcome.out.splitlines() if line[:13].strip() and line[13:14] == " "
    }
    names = ("bias update", "neither", "balance loss", "dense")
    rows = {name: next(row for start, row in table.items() if start == name) for name in names}
    assert [len(rows[name]) for name in names] == [6, 6, 6, 4]
    assert len({rows[name][0] for name in names[:3]}) == 1, "equal parameters"
    routers, dense = (int(rows[name][1].replace(",", "")) for name in ("neither", "dense"))
    assert routers - dense == 2 * 16 * 4, "as many are active, but for the routers of two layers"
    for name in names:
        out = tmp_path / "out" / name.replace(" ", "-")
        judged = [r for r in records(out) if "validation_loss" in r]
        assert f"{judged[-1]['validation_loss']:.4f}" == rows[name][2]
        assert all(("expert_counts" in r) == (name != "dense") for r in judged)
        biases = flatten(tinyplm.load(out / "step-6").buffers)
        assert any(b.any() for b in biases.values()) == (name == "bias update")
        assert any("balance_loss" in r for r in records(out)) == (name == "balance loss")
    assert (tmp_path / "out/moe_balance.png").exists() or "matplotlib" in outcome.out


def test_held_out_load(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = runpy.run_path(str(EXAMPLES / "moe_balance.py"))
    options = example["parser"]().parse_args([])
    options.__dict__.update({**example["parser"]().defaults, "context": 8, "experts": 4, "width": 16})
    model = tinyplm.create("deepseek_v3", example["configure"](options, 300, dense=False))
    tokens = np.arange(83) % 300
    counts = example["held_out_load"](model, tokens, 8)
    assert counts.shape == (2, 4) and (counts.sum(axis=1) == 80 * 2).all()


@pytest.mark.parametrize(("option", "value", "word"), [("--top-k", "5", "--experts = 4"), ("--bias-rate", "-1", "-1")])
def test_wrong_options_are_one_line(run, tmp_path, option, value, word):
    outcome = run("moe_balance.py", *TINY, option, value, "--out", str(tmp_path / "out"))
    assert outcome.code != 0 and outcome.err.startswith("error: ") and word in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_signal_ends_it(run, tmp_path, texts, monkeypatch):
    """train returns after a signal; no other model is trained then."""
    calls = []
    monkeypatch.setattr(corpus, "default_corpus", lambda: [Path(text).read_text() for text in texts])
    monkeypatch.setattr(loop, "train", lambda *args, **options: calls.append(args) or SimpleNamespace(signal=signal.SIGTERM))
    outcome = run("moe_balance.py", *TINY, "--out", str(tmp_path / "out"))
    assert outcome.code == 130 and outcome.err.strip() == "interrupted" and len(calls) == 1


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_pretraining_a_family_with_experts(run, tmp_path, texts, family):
    out, quick = tmp_path / "out", ("--size", "tiny", "--steps", "4", "--context", "16", "--batch", "4", "--vocabulary", "300")
    more = ("--balance", "0.01", "--z-loss", "0.001", "--bias-rate", "0.25", "--samples", "1", "--micro-batch", "3")
    outcome = run("pretrain", *quick, *more, "--model", family, "--text", *texts, "--out", str(out))
    assert outcome.code == 0 and "Sample 1:" in outcome.out, outcome.err
    steps = [r for r in records(out) if "loss" in r]
    assert all(r["balance_loss"] > 0 and r["z_loss"] > 0 and max(r["load_max"]) >= 1 for r in steps)
    resumed = run("pretrain", "--out", str(out), "--resume", "--bias-rate", "0.5")
    assert resumed.code != 0 and "--bias-rate was 0.25, now 0.5" in resumed.err
