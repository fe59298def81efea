# ruff: noqa: E402 - imports follow importorskip
"""Every family of encoder-decoders against transformers: outputs, losses, all gradients, files in both directions."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.interop.pair import assert_same, float64
from tests.interop.seq2seq_pair import FAMILIES, compare, pair

ALL = list(FAMILIES)


@pytest.mark.parametrize("target", ["none", "right"])
@pytest.mark.parametrize("source", ["none", "left", "right"])
@pytest.mark.parametrize("family", ALL)
def test_outputs_losses_and_gradients(family, source, target, tmp_path):
    compare(*pair(family, tmp_path), source=source, target=target)


@pytest.mark.parametrize("family", ALL)
def test_odd_shapes(family, tmp_path):
    theirs, ours = pair(family, tmp_path, **FAMILIES[family].odd)
    compare(theirs, ours, B=1, S=11, T=2, source="left")
    compare(theirs, ours, B=2, S=2, T=13, target="right")


@pytest.mark.parametrize("family", ALL)
def test_one_token(family, tmp_path):
    """One token on each side: what scores a single key has no gradient, so the outputs alone are compared."""
    theirs, ours = pair(family, tmp_path)
    with float64(), torch.no_grad():
        output = theirs(input_ids=torch.tensor([[5]]), decoder_input_ids=torch.tensor([[2]]))
    outputs, _ = ours([[5]], decoder_input_ids=[[2]])
    assert_same("logits", outputs["logits"], output.logits.numpy())
    assert_same("encoder_hidden", outputs["encoder_hidden"], output.encoder_last_hidden_state.numpy())
