"""Code in the README and in CONTRIBUTING: quotes match the source, and examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.support import families, minilm, tuning
from tinyplm.families import llama

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\(`([^`]+)`)?", re.DOTALL)  # code, and the file it is quoted from
SHORT = {"steps": 2, "warmup": 1, "max_new_tokens": 2}  # what makes a run long
NUMBER = re.compile(rf"\b({'|'.join(SHORT)})=\d+")


def blocks(document):
    """(code, the file it quotes or "")."""
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_quoted_code_is_that_of_the_source(document):
    for code, path in blocks(document):
        if path:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert code in source, f"{document}: {code.splitlines()[0]} differs from {path}"
        else:
            assert not code.startswith(("@", "def ")), f"{document}: {code.splitlines()[0]}: no file"


def test_the_readme_opens_with_a_layer():
    assert any(path.startswith("tinyplm/layers/") for _, path in blocks("README.md"))


def prepare(trained, monkeypatch):
    """Files and names that the README assumes."""
    monkeypatch.setitem(llama.SIZES, "llama-3.2-1b", families.FAMILIES["llama"].config)
    sizes = {"vocab_size": trained.vocab_size, "bos_token_id": None, "eos_token_id": None}
    small = {"n_embd": 12, "n_head": 2, "n_layer": 1, "n_positions": 128}
    decoder = tinyplm.create("gpt2", **small, **sizes)
    decoder.tokenizer = trained
    Path("all-MiniLM-L6-v2").symlink_to(minilm.folder())
    for model, folders in (
        (decoder, ("path/to/a/hugging-face/folder", "path/to/a/smaller/folder", "my-model")),
        (tuning.model(dtype="float32"), ("bert-folder",)),
    ):
        for folder in folders:
            Path(folder).parent.mkdir(parents=True, exist_ok=True)
            tinyplm.save(model, folder)
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
    pair = {
        "prompt": talk[:1],
        "chosen": talk[1:],
        "rejected": [{"role": "assistant", "content": "Alan."}],
    }
    written = {"source": "the quick fox", "target": "the lazy dog"}
    for name, record, count in (("talks", {"messages": talk}, 8), ("pairs", pair, 8), ("my-pairs", written, 60)):
        Path(f"{name}.jsonl").write_text(f"{json.dumps(record)}\n" * count, encoding="utf-8")
    ids, texts = (
        np.array([[1, 2, 3]]),
        ["good fox", "bad dog", "the lazy dog", "the quick fox"],
    )
    return {
        "input_ids": ids,
        "next_ids": ids[:, :1],
        "mask": np.ones_like(ids),
        "types": np.zeros_like(ids),
        "dlogits": np.ones((1, 3, trained.vocab_size), dtype="float32"),
        "texts": texts,
        "labels": ["good", "bad", "bad", "good"],
        "more_texts": texts,
        "more_labels": ["good", "bad", "bad", "good"],
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_runs(document, trained, tmp_path, monkeypatch):
    """Runs the blocks in order in one namespace, with fewer steps and tokens."""
    monkeypatch.chdir(tmp_path)
    names = prepare(trained, monkeypatch)
    for code, path in blocks(document):
        if not path:
            exec(
                compile(NUMBER.sub(lambda m: f"{m[1]}={SHORT[m[1]]}", code), f"{document}: {code.splitlines()[0]}", "exec"),
                names,
            )
