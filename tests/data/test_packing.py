"""Packed token arrays and batches: files, training order, evaluation windows, document positions."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.data import IGNORED, Windows, document_positions, evaluation_windows, open_tokens, pack, write_tokens


def raises(message):
    """A one-line ValueError that contains `message` verbatim."""
    import re

    return pytest.raises(ValueError, match=rf"\A[^\n]*{re.escape(message)}[^\n]*\Z")


# ---- packing

ids_strategy = st.lists(st.lists(st.integers(0, 98), max_size=9), max_size=9)


@given(ids_strategy)
def test_pack_puts_eos_after_each_document(id_lists):
    packed = pack((ids for ids in id_lists), 99, 100)
    assert packed.dtype == np.uint16
    assert packed.tolist() == [token for ids in id_lists for token in [*ids, 99]]


def test_pack_takes_the_smallest_type():
    assert pack([[65535]], 0, 65536).dtype == np.uint16
    assert pack([[65536]], 0, 65537).tolist() == [65536, 0]
    assert pack([[65536]], 0, 65537).dtype == np.uint32
    assert pack([np.array([1], np.int8)], 0, 2).tolist() == [1, 0]


@pytest.mark.parametrize(
    "id_lists, eos, vocab_size, message",
    [
        ([[1], [2, 10]], 0, 10, "document 1: expected token ids from 0 to 9, got 10"),
        ([[-1]], 0, 10, "document 0: expected token ids from 0 to 9, got -1"),
        ([[1]], 10, 10, "eos_id: expected an integer from 0 to 9, got 10"),
        ([[1]], None, 10, "eos_id: expected an integer from 0 to 9, got None"),
        ([[1.5]], 0, 10, "document 0: expected a list of token ids, got [1.5]"),
        ([[[1]]], 0, 10, "document 0: expected a list of token ids, got [[1]]"),
        ([], 0, 0, "vocab_size: expected an integer from 1 to 4294967296, got 0"),
        ([], 0, 2**32 + 1, "vocab_size: expected an integer from 1 to 4294967296"),
    ],
)
def test_pack_errors(id_lists, eos, vocab_size, message):
    with raises(message):
        pack(id_lists, eos, vocab_size)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_tokens_on_disk(tmp_path, dtype, size):
    array = np.arange(size).astype(dtype)
    path = tmp_path / "tokens.npy"
    write_tokens(path, array)
    found = open_tokens(path)
    assert isinstance(found, np.memmap) and not found.flags.writeable
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.npy"]
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), array)


@pytest.mark.parametrize("step", ["numpy.save", "os.fsync", "os.replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "tokens.npy"
    write_tokens(path, np.arange(5, dtype=np.uint16))
    before = path.read_bytes()

    def fail(file, *rest, **options):
        if step == "numpy.save":
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_tokens(path, np.arange(9, dtype=np.uint16))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.npy"]


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2), np.uint16), np.zeros(3, ">u2"), np.zeros(3, int)])
def test_write_tokens_refuses_what_could_not_be_opened(tmp_path, array):
    with raises("array: expected an array (N,) of uint16 or uint32"):
        write_tokens(tmp_path / "x.npy", array)
    assert not list(tmp_path.iterdir())


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


GOOD = saved(np.arange(6, dtype=np.uint16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is text",
        GOOD[:-1],
        GOOD[:50],
        GOOD[:7],
        GOOD + b"\0",
        GOOD.replace(b"(6,), }", b"(-6,),}"),
        GOOD.replace(b"<u2", b"<xx"),
        GOOD.replace(b"fortran", b"((((tra"),
        saved(np.zeros(3)),
        saved(np.zeros(3, ">u2")),
        saved(np.zeros(3, np.int64)),
        saved(np.zeros((2, 2), np.uint16)),
        saved(np.zeros((), np.uint16)),
        saved(np.array([{}]), allow_pickle=True),
        pickle.dumps(np.arange(3)),
    ],
    ids=lambda data: repr(data[-12:]),
)
def test_open_tokens_refuses_everything_else(tmp_path, data):
    assert data != GOOD
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with raises(f"{path}: "):
        open_tokens(path)


def test_open_tokens_missing_and_folder(tmp_path):
    with raises(f"{tmp_path / 'no.npy'}: expected a file, got none (no such file)"):
        open_tokens(tmp_path / "no.npy")
    with raises(f"{tmp_path}: expected a regular file, got a folder"):
        open_tokens(tmp_path)


# ---- the order of training


@st.composite
def windows_strategy(draw):
    length = draw(st.integers(1, 12))
    size = draw(st.integers(length + 1, 150))
    return Windows(np.arange(size, dtype=np.uint16), length, draw(st.integers(0, 2**64 - 1)))


@given(windows_strategy(), st.integers(0, 5))
def test_an_epoch_visits_each_window_of_its_grid_once(windows, epoch):
    count, length, size = windows.windows_per_epoch, windows.length, len(windows.tokens)
    inputs, targets = windows.batch(epoch * count, count)
    assert inputs.shape == targets.shape == (count, length)
    assert inputs.dtype == targets.dtype == np.int64
    # Tokens equal their positions here: windows are runs, targets are shifted by one, starts cover a whole grid.
    np.testing.assert_array_equal(inputs, inputs[:, :1] + np.arange(length))
    np.testing.assert_array_equal(targets, inputs + 1)
    starts = np.sort(inputs[:, 0])
    np.testing.assert_array_equal(starts, starts[0] + length * np.arange(count))
    assert 0 <= starts[0] and targets.max() < size
    assert size - (count * length + 1) < 2 * length


@given(windows_strategy(), st.integers(0, 60), st.integers(0, 12))
def test_a_batch_is_its_samples(windows, first, count):
    inputs, targets = windows.batch(first, count)
    fresh = Windows(windows.tokens, windows.length, windows.seed)
    for row in reversed(range(count)):  # in another order, from another object
        one_input, one_target = fresh.batch(first + row, 1)
        np.testing.assert_array_equal(inputs[row], one_input[0])
        np.testing.assert_array_equal(targets[row], one_target[0])


def test_epochs_and_seeds_differ_and_every_token_comes_up():
    windows = Windows(np.arange(1000, dtype=np.uint16), 16, 5)
    starts = [windows.starts(epoch).copy() for epoch in range(400)]
    assert len({array.min() for array in starts}) > 16
    assert np.any(np.argsort(starts[0]) != np.argsort(starts[1]))
    assert np.any(starts[0] != Windows(windows.tokens, 16, 6).starts(0))
    inputs, targets = windows.batch(0, 400 * windows.windows_per_epoch)
    assert set(inputs.ravel()) | set(targets.ravel()) == set(range(1000))


def test_every_window_is_as_likely_in_every_place():
    windows = Windows(np.arange(80, dtype=np.uint16), 8, 0)
    seen = np.zeros((9, 9), int)
    for epoch in range(3600):
        seen[np.arange(9), np.argsort(windows.starts(epoch))] += 1
    chi2 = ((seen - 400) ** 2 / 400).sum()  # 64 degrees of freedom: mean 64, standard deviation 11
    assert 20 < chi2 < 120


def test_the_order_is_part_of_the_format():
    """A run resumed with a later tinyplm or NumPy must see the same samples."""
    windows = Windows(np.arange(100, dtype=np.uint16), 10, 7)
    assert windows.starts(3).tolist() == STARTS


STARTS = [14, 44, 84, 64, 24, 54, 74, 34, 4]


def test_memory_mapped_tokens_give_the_same_batches(tmp_path):
    array = np.random.default_rng(0).integers(0, 500, 3000).astype(np.uint16)
    write_tokens(tmp_path / "t.npy", array)
    mapped = open_tokens(tmp_path / "t.npy")
    for a, b in zip(Windows(array, 64, 1).batch(30, 40), Windows(mapped, 64, 1).batch(30, 40), strict=True):
        assert type(b) is np.ndarray
        np.testing.assert_array_equal(a, b)
    pairs = zip(evaluation_windows(array, 64), evaluation_windows(mapped, 64), strict=True)
    for (a, at), (b, bt) in pairs:
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(at, bt)


@given(st.lists(st.lists(st.integers(0, 2), min_size=7, max_size=7), min_size=1, max_size=4))
def test_document_positions(rows):
    documents, positions = document_positions(np.array(rows), 0)
    assert documents.dtype == positions.dtype == np.int64
    for row, numbers, places in zip(rows, documents.tolist(), positions.tolist(), strict=True):
        number, place = 0, -1
        for t, token in enumerate(row):
            number, place = (number + 1, 0) if token == 0 else (number, place + 1)
            assert (numbers[t], places[t]) == (number, place)


@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 5), st.integers(1, 20))
def test_evaluation_predicts_each_token_but_the_first_once(size, length, batch, stride):
    stride = min(stride, length)
    tokens = np.arange(size, dtype=np.uint16)
    found = []
    for inputs, targets in evaluation_windows(tokens, length, batch, stride):
        assert inputs.shape == targets.shape and inputs.shape[0] <= batch and inputs.shape[1] == length
        assert inputs.dtype == targets.dtype == np.int64
        counts = targets != IGNORED
        np.testing.assert_array_equal(targets[counts], inputs[counts] + 1)
        assert counts.any(axis=-1).all()  # no row is all padding
        later = inputs[:, 0] > 0  # after the first window, every target has its context
        assert (np.argmax(counts[later], axis=1) == length - stride).all()
        found += targets[counts].tolist()
    assert found == list(range(1, size))


def test_evaluation_pads_with_zeros_and_ignored_targets():
    ((inputs, targets),) = evaluation_windows(np.arange(1, 6, dtype=np.uint16), 3)
    assert inputs.tolist() == [[1, 2, 3], [4, 0, 0]] and targets.tolist() == [[2, 3, 4], [5, IGNORED, IGNORED]]
    ((inputs, targets),) = evaluation_windows(np.arange(1, 6, dtype=np.uint16), 3, stride=1)
    assert targets.tolist() == [[2, 3, 4], [IGNORED, IGNORED, 5]] and inputs.tolist() == [[1, 2, 3], [2, 3, 4]]
    with pytest.raises(ValueError, match="stride: expected an integer from 1 to 3, got 4"):
        evaluation_windows(np.arange(9), 3, stride=4)


def test_too_small_and_wrong_arguments():
    tokens = np.zeros(10, np.uint16)
    with raises("tokens: expected at least 11 for a window of 10, got 10"):
        Windows(tokens, 10, 0)
    assert Windows(tokens, 9, 0).windows_per_epoch == 1
    with raises("tokens: expected at least 2 for a prediction, got 1"):
        evaluation_windows(tokens[:1], 4)
    with raises("tokens: expected an array of integers of shape (N,), got float64 array of shape (3,)"):
        Windows(np.zeros(3), 1, 0)
    with raises("tokens: expected an array of integers of shape (N,), got int64 array of shape (2, 2)"):
        evaluation_windows(np.zeros((2, 2), int), 1)
    with raises("length: expected an integer from 1 to 4611686018427387904, got 0"):
        Windows(tokens, 0, 0)
    with raises("seed: expected an integer from 0 to 18446744073709551615, got -1"):
        Windows(tokens, 2, -1)
    with raises("first: expected an integer"):
        Windows(tokens, 2, 0).batch(-1, 1)
    with raises("batch: expected an integer"):
        evaluation_windows(tokens, 2, 0)
