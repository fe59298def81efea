"""Arrays in pieces: every row once, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tinyplm.backend import to_device, to_host
from tinyplm.kernels import blocks


@pytest.mark.parametrize(
    ("rows", "width", "wider", "pieces"),
    [
        (7, 4, 2, [2, 2, 2, 1]),
        (7, 2, 4, [2, 2, 2, 1]),
        (6, 4, 4, [2, 2, 2]),
        (3, 9, 1, [1, 1, 1]),
        (3, 0, 0, [3]),
        (0, 4, 4, [0]),
    ],
)
def test_every_row_once_in_pieces_of_the_block(monkeypatch, device, rows, width, wider, pieces):
    """Of two arrays, the wider one decides; a row wider than the block is a piece; a GPU gets all rows at once.

    All rows at once keep their shape.
    """
    monkeypatch.setattr(blocks, "BLOCK", 8)
    rng = np.random.default_rng(0)
    x, y, out = (to_device(rng.normal(size=(rows, 1, n)), device) for n in (width, wider, width))
    counts = []

    def f(x, y, out):
        counts.append(len(x))
        assert x.shape[1:-1] == y.shape[1:-1] == ((1,) if len(x) == rows else ())
        assert (x.shape[-1], y.shape[0], y.shape[-1]) == (width, len(x), wider)
        out[...] = x * 2

    blocks.by_blocks(f, x, y, out)
    assert counts == (pieces if device == "cpu" else [rows])
    assert np.array_equal(to_host(out), to_host(x) * 2)
