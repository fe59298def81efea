"""Self-attention hands every option on to multi_head_attention."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import PART, apart, relative_error
from tinyplm import random
from tinyplm.kernels import attention
from tinyplm.kernels.attention import self_attention
from tinyplm.layers.attention import multi_head_attention
from tinyplm.layers.attention_parts import join_projections
from tinyplm.layers.mask import Visible

OPTIONS = {
    "heads": 4,
    "kv_heads": 2,
    "mask": Visible(5, 5, causal=True, window=2),
    "scale": 0.3,
    "rate": 0.4,
    "key": random.sample_keys(0, np.arange(2)),
}


@pytest.mark.parametrize("without", ["nothing", "mask", "scale", "rate", "key"])
@pytest.mark.parametrize("block", [128, 4])
def test_every_option(monkeypatch, block, without):
    monkeypatch.setattr(attention, "BLOCK", block)  # 4: in blocks of queries
    rng = np.random.default_rng(0)
    widths = {"q": 12, "k": 6, "v": 6}
    p = {f"W{n}": rng.normal(size=(8, m)) for n, m in widths.items()} | {f"b{n}": rng.normal(size=m) for n, m in widths.items()}
    p |= {"Wo": rng.normal(size=(12, 8)), "bo": rng.normal(size=8)}
    x, dy = rng.normal(size=(2, 5, 8)), rng.normal(size=(2, 5, 8))
    options = {name: value for name, value in OPTIONS.items() if name != without}
    plain = options | ({"mask": options["mask"].array} if "mask" in options else {})
    expected, expected_back = multi_head_attention(p, x, **plain)
    y, back = self_attention(p, x, **options)
    assert relative_error(y, expected) < PART and apart(list(back(dy)), list(expected_back(dy)[:2])) < PART
    assert relative_error(self_attention(join_projections(p), x, **options)[0], expected) < PART
