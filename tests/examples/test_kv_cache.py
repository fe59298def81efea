"""examples/kv_cache.py: the bytes that it predicts are those that are held."""

from __future__ import annotations

import re

import pytest

from tests.support import scripts
from tests.support.scripts import load_example
from tinyplm.layers.cache import Cache

SMALL = ["--layers", "2", "--width", "32", "--heads", "4", "--context", "60", "--window", "4", "--tokens", "2"]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return scripts.runner(monkeypatch, capsys)


def test_the_table(run, tmp_path):
    """Two layers, four heads of width 8, 60 tokens, four bytes a number."""
    found = run("kv_cache.py", *SMALL)
    assert found.code == 0, found.err
    rows = dict(
        re.findall(r"^(\S[^\d\n]*?(?:4)?) {2,}([\d,]+ +[\d,]+ +[\d,]+) ", found.out.replace("4 heads", "four heads"), re.M)
    )
    numbers = {name: [int(n.replace(",", "")) for n in row.split()] for name, row in rows.items()}
    each = {"multi-head": 2 * 4 * 8, "four heads a key": 2 * 8, "multi-query": 2 * 8, "window of 4": 2 * 4 * 8, "latent": 32 + 4}
    places = {"window of 4": 4 - 1 + 16}
    assert numbers == {name: [8 * n, *[8 * n * places.get(name, 60)] * 2] for name, n in each.items()}
    assert "Predicted and held are equal in all 5 rows." in found.out
    assert re.search(r"llama-7b +524,288 +16.00 GiB", found.out) and re.search(r"deepseek-v3 +70,272 ", found.out)
    assert "needs matplotlib" in found.out or (tmp_path / "out-kv-cache" / "kv_cache.png").is_file()


def test_a_cache_of_another_size_ends_the_example(run, monkeypatch):
    empty = Cache.empty
    monkeypatch.setattr(Cache, "empty", lambda **sizes: empty(**{**sizes, "windows": None}))
    found = run("kv_cache.py", *SMALL)
    assert found.code == 1 and re.search(r"window of 4: expected 9,728 bytes, got 30,720\n$", found.err)


def test_the_five_are_one_model_but_for_attention():
    example = load_example("kv_cache")
    defaults = example.argparse.Namespace(**example.parser().defaults)
    kinds = example.kinds(defaults)
    sizes = {(k.config.hidden_size, k.config.num_hidden_layers, k.config.heads, k.config.intermediate_size) for k in kinds}
    assert len(sizes) == 1 and [k.config.context for k in kinds] == [defaults.context] * 5
    mlps = [k.family.shapes(k.config)["body"]["layers"][-1]["mlp"] for k in kinds]
    assert all(mlp == mlps[0] for mlp in mlps)


@pytest.mark.parametrize(("options", "message"), [
    (["--width", "36"], "--width: expected a multiple of 8, for 4 heads of pairs, got 36"),
    (["--tokens", "60"], "--tokens: expected fewer than --context, got 60"),
])  # fmt: skip
def test_options_that_do_not_fit(run, options, message):
    found = run("kv_cache.py", *SMALL, *options)
    assert found.code == 1 and found.err.strip() == f"error: {message}"
