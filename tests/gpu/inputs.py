"""Inputs for planted mistakes and legitimate operations, made afresh for each on the device under test."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

HOST = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)  # an array that stays on the host
HOST_IDS = np.array([2, 0, 2])
HOST.flags.writeable = False  # so that no test can modify it for the next


def inputs(xp) -> SimpleNamespace:
    return SimpleNamespace(
        x=xp.array(HOST),  # (3, 4)
        y=xp.array(HOST[::-1] ** 2 + 0.5),  # (3, 4), positive
        W=xp.array(HOST.T * 0.25),  # (4, 3)
        half=xp.array(HOST.astype(np.float16)),
        double=xp.array(HOST.astype(np.float64)),
        n=xp.array(np.arange(12, dtype=np.int32).reshape(3, 4)),
        small=xp.array(np.arange(4, dtype=np.int8)),
        ids=xp.array(HOST_IDS),  # has a duplicate
        order=xp.array(np.array([2, 0, 1])),  # no duplicates
        alias=xp.array(np.array([2, 0, -1])),  # -1 is 2
        one=xp.array(np.array(1)),  # 0-d
        mask=xp.array(HOST > 0),
    )


def to_numpy(value):
    """Converts arrays of any device, also in tuples and lists, to NumPy arrays."""
    if isinstance(value, (tuple, list)):
        return [to_numpy(v) for v in value]
    return value.get() if hasattr(value, "get") else np.asarray(value)
