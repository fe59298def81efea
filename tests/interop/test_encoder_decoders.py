# ruff: noqa: E402 - imports follow importorskip
"""Encoder-decoders against transformers: T5's buckets and its relative position bias."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.t5.modeling_t5 import T5Attention

from tests.interop.pair import assert_same
from tinyplm.layers.relative_bias import relative_bias
from tinyplm.layers.relative_buckets import t5_buckets, t5_rows

BUCKETS = [4, 5, 8, 12, 20, 31, 32, 33, 48, 64, 100, 128, 256, 320]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("longest", [20, 64, 100, 127, 128, 129, 200, 512, 1000, 16384])
def test_buckets(longest, bidirectional):
    """The logarithm is float32 on both sides; 32 buckets up to 128 are the published models'."""
    d = np.arange(-20_000, 20_001)
    compared = 0
    for buckets in BUCKETS:
        if (buckets // 2 if bidirectional else buckets) // 2 < longest:
            settings = {"bidirectional": bidirectional, "num_buckets": buckets, "max_distance": longest}
            expected = T5Attention._relative_position_bucket(torch.from_numpy(d), **settings).numpy()
            ours = t5_buckets(d, buckets=buckets, longest=longest, bidirectional=bidirectional)
            np.testing.assert_array_equal(ours, expected, err_msg=f"{buckets} buckets")
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (7, 7), (40, 40), (1, 40), (3, 40)])
def test_the_bias_and_its_gradient(T, S, decoder):
    """Of all positions, and of the last T of S, as with a cache."""
    config = transformers.T5Config(num_heads=3, relative_attention_num_buckets=8, relative_attention_max_distance=20,
                                   is_decoder=decoder)  # fmt: skip
    theirs = T5Attention(config, has_relative_attention_bias=True).double()
    expected = theirs.compute_bias(T, S, past_seen_tokens=S - T)
    table = theirs.relative_attention_bias.weight
    rows = t5_rows(T, S, buckets=8, longest=20, bidirectional=not decoder)
    bias, backward = relative_bias(table.detach().numpy(), rows=rows, keys=S)
    assert_same("bias", bias, expected.detach().numpy())
    cotangent = np.random.default_rng(0).normal(size=bias.shape)
    expected.backward(torch.from_numpy(cotangent))
    assert_same("the gradient of the table", backward(cotangent), table.grad.numpy())
