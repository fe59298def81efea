"""Encoder-decoders by the formulas: cases by hand, and what has no influence. Nothing from tinyplm is used here."""

from functools import partial

import numpy as np
import pytest

from reference.layers.relative_bias import bucket_table, relative_bias, t5_bucket
from reference.models.encoder_decoder import bart, t5, transformer
from tests.laws import MODEL, relative_error

D, H, F, V, L = 4, 2, 3, 7, 2


def test_buckets():
    """8 buckets, longest 16, for keys up to the query: 0 .. 3 exact, then 4 ranges whose ends grow by 4^(1/4) = 1.41."""
    bucket = partial(t5_bucket, buckets=8, longest=16, bidirectional=False)
    assert [bucket(-d) for d in (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 99)] == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 7]
    assert bucket(1) == bucket(99) == 0
    both = partial(t5_bucket, buckets=16, longest=16, bidirectional=True)
    assert all(both(-d) == bucket(-d) and both(d) == bucket(-d) + 8 for d in range(1, 99)) and both(0) == 0


def test_relative_bias():
    table = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    buckets = bucket_table(2, 3, lambda distance: abs(distance), first=1)  # queries at 1 and 2
    np.testing.assert_array_equal(buckets, [[1, 0, 1], [2, 1, 0]])
    np.testing.assert_array_equal(
        relative_bias(table, buckets=buckets)[0], [[[2, 1, 2], [3, 2, 1]], [[20, 10, 20], [30, 20, 10]]]
    )


def parameters(name, rng):
    def norm():
        return {"gamma": rng.normal(1, 0.2, D)} | ({} if name == "t5" else {"beta": rng.normal(size=D)})

    def layer(decoder):
        p = {f"norm{n}": norm() for n in range(1, 4 if decoder else 3)}
        for part in ("attention", "cross") if decoder else ("attention",):
            p[part] = {f"W{n}": rng.normal(size=(D, D)) for n in "qkvo"}
        return p | {"mlp": {"W1": rng.normal(size=(D, F)), "W2": rng.normal(size=(F, D))}}

    def side(decoder):
        p = {"layers": [layer(decoder) for _ in range(L)]}
        if name == "t5":
            p |= {"norm": norm(), "relative_bias": rng.normal(size=(8, H))}
        if name == "bart":
            p |= {"positions": rng.normal(size=(12, D)), "embedding_norm": norm()}
        return p

    return {"tokens": rng.normal(size=(V, D)), "encoder": side(False), "decoder": side(True)}


MODELS = {
    "transformer": partial(transformer, heads=H),
    "bart": partial(bart, heads=H),
    "t5": partial(t5, heads=H, buckets=8, longest=5),
}


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_later_tokens_have_no_influence(name):
    rng = np.random.default_rng(0)
    p, model = parameters(name, rng), MODELS[name]
    ids, decoder_ids = rng.integers(0, V, (1, 6)), rng.integers(0, V, (1, 5))
    logits = model(p, ids, decoder_ids, mask=np.array([[1, 1, 1, 1, 0, 0]]))
    assert logits.shape == (1, 5, V)
    np.testing.assert_array_equal(logits[:, :3], model(p, ids[:, :4], decoder_ids[:, :3]))
    for place in (0, 5):  # a token of the encoder does have one
        changed = np.where(np.arange(6) == place, (ids + 1) % V, ids)
        assert relative_error(model(p, changed, decoder_ids), model(p, ids, decoder_ids)) > 1000 * MODEL


def test_t5_sees_distances_alone():
    """Tokens before all others, hidden by both masks, move every position and change nothing; the others see positions."""
    rng = np.random.default_rng(1)
    for name, model in MODELS.items():
        p = parameters(name, rng)
        ids, decoder_ids = rng.integers(0, V, (1, 4)), rng.integers(0, V, (1, 3))
        alone = model(p, ids, decoder_ids)
        before = np.zeros((1, 2), dtype=int)
        masks = {"mask": np.array([[0, 0, 1, 1, 1, 1]]), "decoder_mask": np.array([[0, 0, 1, 1, 1]])}
        moved = model(p, np.c_[before, ids], np.c_[before, decoder_ids], **masks)[:, 2:]
        error = relative_error(moved, alone)
        assert error < MODEL if name == "t5" else error > 1000 * MODEL, f"{name}: {error:.1e}"
