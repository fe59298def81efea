"""The table of decoders: read off the code, and every family trains."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.support.scripts import EXAMPLES
from tinyplm.data import corpus


@pytest.fixture(scope="module")
def tree():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        return runpy.run_path(str(EXAMPLES / "family_tree.py"))


# What the papers say, for a few families; the table computes it.
KNOWN = {
    "llama": {"norm": "RMSNorm, before", "positions": "RoPE", "feed-forward": "silu, gated", "biases": "none"},
    "gpt2": {"norm": "LayerNorm, before", "positions": "learned", "attention": "multi-head", "biases": "all", "head": "tied"},
    "openai-gpt": {"norm": "LayerNorm, after the sum", "published": "117M"},
    "bloom": {"positions": "ALiBi", "published": "559M to 176B"},
    "gemma2": {"norm": "1 + w RMSNorm, before and after",
               "attention": "2 queries a key, windows in some layers, capped scores, capped logits"},
    "glm": {"positions": "interleaved RoPE of 50%", "biases": "k, q, v"},
    "palm": {"norm": "LayerNorm, before, one a layer", "attention": "multi-query", "published": "8.63B to 540B"},
    "olmo2": {"norm": "RMSNorm, after"},
    "mistral": {"attention": "4 queries a key, windows"},
    "mixtral": {"feed-forward": "silu, gated, 2 of 8 experts", "norm": "RMSNorm, before", "published": "46.7B to 141B"},
    "qwen2_moe": {"feed-forward": "silu, gated, 8 of 64 experts, one shared", "biases": "k, q, v"},
    "deepseek_v3": {"attention": "latent", "positions": "interleaved RoPE", "KV": "70.3k",
                    "feed-forward": "silu, gated, 8 of 256 experts, one shared"},
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_traits(tree, name):
    found = tree["traits"](tree["FAMILIES"][name])
    assert KNOWN[name].items() <= found.items()


def test_every_decoder_has_a_title_and_about_as_many_parameters(tree):
    assert tree["FAMILIES"].keys() == tree["TITLES"].keys()
    count = tree["count_parameters"]
    gpt2 = tree["FAMILIES"]["gpt2"]
    target = count(gpt2.shapes(tree["alike"](gpt2, 512, 64, None)))
    for module in tree["FAMILIES"].values():
        own = count(module.shapes(tree["alike"](module, 512, 64, target)))
        assert abs(own / target - 1) < 0.04, f"{module.__name__} has {own} parameters, GPT-2 {target}"


def test_a_short_run_writes_the_plot(tmp_path, texts, monkeypatch, capsys):
    documents = [Path(text).read_text() for text in texts]
    monkeypatch.setattr(corpus, "default_corpus", lambda: documents)
    monkeypatch.setattr(
        sys, "argv", ["family_tree.py", "--families", "gpt2", "gemma2", "mixtral", "--steps", "4", "--context", "8"]
    )
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "family_tree.py"), run_name="__main__")
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith(("GPT-2", "Gemma 2", "Mixtral"))]
    assert len(rows) == 6  # of two tables
    assert "needs matplotlib" in out or (tmp_path / "out-tree" / "family_tree.png").is_file()
