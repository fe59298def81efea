# ruff: noqa: E402 - imports follow importorskip
"""Traces of transformers' encoder-decoders beside ours: no difference in correct models, and planted mistakes where they are."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.t5.modeling_t5 import T5Attention

import tinyplm
from tests.interop.pair import float64, padding, with_ours
from tests.interop.seq2seq_pair import FAMILIES, FIRST, peer

# What no module of theirs gives: a sum with the bias of the logits, and rows before they are scaled.
UNSEEN = {
    **dict.fromkeys(("t5", "t5-v1_1", "mt5"), set()),
    "bart": {"logits"},
    "mbart": {"logits", "encoder.tokens", "decoder.tokens"},
    "marian": {"logits", "encoder.tokens", "decoder.tokens"},
}
SIDES = ("encoder", "decoder")


def pair(family, folder):
    """transformers' model and ours.  A T5 does not scale its scores, so its queries are small: random ones would saturate the
    softmax, whose gradient then has an error of its own size."""
    theirs = peer(family)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if name.endswith("Attention.q.weight"):
                p *= 0.1
    return with_ours(theirs, folder)


def compared(theirs, ours, T, planted=contextlib.nullcontext):
    """Of sources of six tokens, padded on the left, and targets of T, padded on the right."""
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(FIRST, 41, (3, 6)), rng.integers(FIRST, 41, (3, T))
    mask, decoder_mask = padding("left", 3, 6)[0], padding("right", 3, T)[0]
    labels[decoder_mask == 0] = -100
    inputs = {"attention_mask": mask, "decoder_attention_mask": decoder_mask}
    with tinyplm.trace() as t:
        _, backward = ours.loss(input_ids=ids, **inputs, targets={"logits": labels})
        backward(1.0)
    with float64(), planted():
        given = {"input_ids": ids, "labels": labels, **inputs}
        other = tinyplm.trace_torch(theirs, given, backward=lambda outputs: outputs.loss)
    return t, tinyplm.compare(t, other)


@pytest.mark.parametrize("T", [6, 4])  # as many tokens on both sides, which only the names tell apart
@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_transformers_differ_nowhere(family, T, tmp_path):
    theirs, ours = pair(family, tmp_path)
    t, result = compared(theirs, ours, T)
    assert result.equal, result.table()
    assert {name for name in t if name not in result.places} == UNSEEN[family]
    trained = [p for p in theirs.parameters() if p.requires_grad]
    assert sum(row.kind == "parameter" for row in result.rows) == len(trained)
    assert result.places["decoder.layers.1.cross.k"].endswith(("EncDecAttention.k", "encoder_attn.k_proj"))
    assert result.places["encoder.layers.0.attention.heads"].endswith((".o:input", "out_proj:input"))
    assert any(row.differs is False and row.difference > 0 for row in result.rows), "the same numbers prove nothing"


@contextlib.contextmanager
def scaled():
    """T5's scores divided by sqrt(E)."""
    forward = T5Attention.forward

    def changed(self, hidden_states, *args, **kwargs):
        back = self.q.register_forward_hook(lambda module, inputs, q: q * 6**-0.5)
        try:
            return forward(self, hidden_states, *args, **kwargs)
        finally:
            back.remove()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(T5Attention, "forward", changed)
        yield


@contextlib.contextmanager
def next_bucket():
    """Distances that fall into the next bucket."""
    of = T5Attention._relative_position_bucket

    def changed(*args, num_buckets=32, **kwargs):
        return (of(*args, num_buckets=num_buckets, **kwargs) + 1) % num_buckets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(T5Attention, "_relative_position_bucket", staticmethod(changed))
        yield


@contextlib.contextmanager
def one_sided():
    """Buckets of the encoder as of the decoder's: keys behind the query all alike."""
    of = T5Attention._relative_position_bucket

    def changed(*args, bidirectional=True, **kwargs):
        return of(*args, bidirectional=False, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(T5Attention, "_relative_position_bucket", staticmethod(changed))
        yield


@contextlib.contextmanager
def off_by_one():
    """BART's positions from row 3 on."""
    table = transformers.models.bart.modeling_bart.BartLearnedPositionalEmbedding
    forward = table.forward

    def changed(self, *args, **kwargs):
        self.offset = 3
        return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "forward", changed)
        yield


MISTAKES = {
    "scaled scores": ("t5", scaled, "encoder.layers.0.attention.heads"),
    "the next bucket": ("t5", next_bucket, "encoder.layers.0.attention.heads"),
    "buckets of a decoder": ("t5", one_sided, "encoder.layers.0.attention.heads"),
    "positions off by one": ("bart", off_by_one, "encoder.embeddings.embed_norm"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_a_whole_side_are_found_where_they_are(name, tmp_path):
    family, planted, place = MISTAKES[name]
    _, result = compared(*pair(family, tmp_path), 4, planted)
    assert not result.equal and result.first_forward == place
    assert f"differs first at {place}" in str(result)


def plant(theirs, path, f):
    with torch.no_grad():
        p = theirs.get_parameter(path)
        p.copy_(f(p).clone())


CHANGES = {
    "decoder.layers.1.cross.k": ("t5", "decoder.block.1.layer.1.EncDecAttention.k.weight", lambda W: W.flip(1)),
    "decoder.layers.2.norm3": ("t5", "decoder.block.2.layer.2.layer_norm.weight", lambda g: g + 1e-6),
    "decoder.layers.0.cross": ("bart", "model.decoder.layers.0.encoder_attn.out_proj.weight", lambda W: W.T),
    "encoder.layers.1.mlp.up": ("bart", "model.encoder.layers.1.fc1.bias", torch.zeros_like),
    "decoder.layers.2.mlp": ("bart", "model.decoder.layers.2.fc2.weight", lambda W: -W),
}


@pytest.mark.parametrize("place", CHANGES)
def test_a_changed_parameter_is_found_where_it_is(place, tmp_path):
    family, path, f = CHANGES[place]
    theirs, ours = pair(family, tmp_path)
    plant(theirs, path, f)
    _, result = compared(theirs, ours, 4)
    assert not result.equal and result.first_forward == place


def test_causes_at_the_outputs_have_names(tmp_path):
    """T5's factor of the logits, a bias of BART's that is left out, the loss."""
    theirs, ours = pair("t5", tmp_path / "t5")
    theirs.config.scale_decoder_outputs = False
    _, result = compared(theirs, ours, 4)
    assert result.first_forward == "logits" and result.explanation.name == "a factor of the logits"
    theirs, ours = pair("bart", tmp_path / "bart")
    outputs, _ = ours(np.full((2, 3), 5), decoder_input_ids=np.full((2, 4), 6), grad=False)
    with tinyplm.trace() as t:
        ours(np.full((2, 3), 5), decoder_input_ids=np.full((2, 4), 6), grad=False)
    given = {"logits": outputs["logits"] - ours.buffers["logits_bias"]}
    result = tinyplm.compare(t, given, partial=True)
    assert result.explanation.name == "no bias"


def test_cross_attention_to_padding_is_found(tmp_path):
    """The decoder is given no mask of the source."""
    theirs, ours = pair("bart", tmp_path)
    forward = theirs.model.decoder.forward
    theirs.model.decoder.forward = lambda *args, **kwargs: forward(*args, **{**kwargs, "encoder_attention_mask": None})
    _, result = compared(theirs, ours, 4)
    assert result.first_forward == "decoder.layers.0.cross.heads"
