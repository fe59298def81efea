"""Labels shifted right: by hand, against the reference, and on the strict device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reference.objectives import seq2seq as formula
from tests.gpu.strict import no_synchronisation, register, strict, to_device, to_host
from tinyplm.core import shift_right

shapes = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
labels = arrays.arrays(
    st.sampled_from([np.int64, np.int32]), shapes, elements=st.integers(-1, 9).map(lambda n: n if n >= 0 else -100)
)


def test_by_hand():
    given = np.array([[7, 8, 1], [9, 1, -100]])
    assert shift_right(given, 0, 0).tolist() == [[0, 7, 8], [0, 9, 1]]
    assert shift_right(given, 2, 5).tolist() == [[2, 7, 8], [2, 9, 1]]
    assert shift_right(np.array([4, -100, 6, -100]), 2, 5).tolist() == [2, 4, 5, 6]
    assert shift_right(np.zeros((2, 0), int), 2, 5).shape == (2, 0)


@given(labels, st.integers(0, 9), st.integers(0, 9))
def test_equals_the_reference_row_by_row(labels, start, pad):
    labels.flags.writeable = False
    shifted = shift_right(labels, start, pad)
    assert shifted.shape == labels.shape and shifted.dtype == np.int64
    for index in np.ndindex(labels.shape[:-1]):
        assert shifted[index].tolist() == formula.shift_right(labels[index].tolist(), start, pad)


def test_on_a_device():
    register()
    labels = np.array([[7, 8, 1], [9, -100, -100]])
    there = to_device(labels)
    with no_synchronisation():
        shifted = shift_right(there, 2, 5)
    assert type(shifted) is type(strict.zeros(1)) and to_host(shifted).tolist() == [[2, 7, 8], [2, 9, 5]]


def test_bad_input_is_refused():
    for call, message in (
        (lambda: shift_right([[1, 2]], 0, 0), "labels: expected an array (..., T) of integers, got [[1, 2]]"),
        (
            lambda: shift_right(np.ones((1, 2)), 0, 0),
            "labels: expected an array (..., T) of integers, got float64 array of shape",
        ),
        (lambda: shift_right(np.array(3), 0, 0), "labels: expected an array"),
        (lambda: shift_right(np.ones((1, 2), int), -1, 0), "start_id: expected an integer from 0 to 2147483647, got -1"),
        (lambda: shift_right(np.ones((1, 2), int), 0, None), "pad_id: expected an integer from 0 to 2147483647, got None"),
    ):
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value).startswith(message)
