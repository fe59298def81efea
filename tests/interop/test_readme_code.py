"""Code of the documents that imports torch, after the blocks that it builds on."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.interop.pair import float64  # noqa: E402
from tests.support.documents import blocks, needs_torch, run_blocks, write_decoder  # noqa: E402


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_same_gradients_in_transformers(family, trained, tmp_path, monkeypatch):
    """The README's check, which must have compared every parameter."""
    monkeypatch.chdir(tmp_path)
    write_decoder(("path/to/a/hugging-face/folder",), trained, family)
    codes = [code for code, path in blocks("README.md") if not path]
    last = max(n for n, code in enumerate(codes) if needs_torch(code))
    names: dict = {}
    with float64():  # restores what the block changes in torch
        run_blocks("README.md", codes[: last + 1], names)
    assert {name for name, _ in names["theirs"].named_parameters()} <= names["gradients"].keys()
    assert names["parameter"].grad.dtype == names["torch"].float64


def test_only_the_readme_has_code_with_torch():
    assert not any(needs_torch(code) for name in ("docs/usage.md", "CONTRIBUTING.md") for code, _ in blocks(name))
