"""Documents of token ids as one long array, in memory and on disk.

    ids of document 1, eos, ids of document 2, eos, ...

On disk it is a one-dimensional .npy file: uint16 for a vocabulary of at most 65536 tokens, else
uint32. It is opened memory-mapped, so a corpus may exceed main memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np

from ..arguments import as_ids, check_path, check_several, check_whole, wrong
from ..files import open_regular, printable, replaced

DTYPES = (np.dtype(np.uint16), np.dtype(np.uint32))


def token_dtype(vocab_size: int) -> np.dtype:
    """The smaller of uint16 and uint32 that holds the ids 0 ... vocab_size - 1."""
    check_whole("vocab_size", vocab_size, 1, 2**32)
    return DTYPES[0] if vocab_size <= 2**16 else DTYPES[1]


def pack(id_lists: Iterable[Sequence[int]], eos_id: int, vocab_size: int) -> np.ndarray:
    """All documents concatenated, each followed by eos_id: (N,) uint16 or uint32.

    id_lists may be a generator: only the packed form is held in memory.
    Errors: ValueError naming the document (from 0) and the first id outside 0 ... vocab_size - 1.
    """
    dtype = token_dtype(vocab_size)
    check_whole("eos_id", eos_id, 0, vocab_size - 1)
    check_several("id_lists", id_lists, "lists of token ids")
    parts = [np.empty(0, dtype)]
    end = np.array([eos_id], dtype)
    for number, ids in enumerate(id_lists):
        parts += [as_ids(f"document {number}", ids, vocab_size).astype(dtype), end]
    return np.concatenate(parts)


def write_tokens(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write a token array atomically: after a crash `path` holds the old file or the whole new one.

    It is written under a temporary name in the same folder, flushed to disk and renamed; the folder
    must exist. Errors: ValueError for an array that open_tokens would refuse; OSError.
    """
    check_path("path", path)
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype not in DTYPES:
        raise wrong("array", "an array (N,) of uint16 or uint32", array)
    with replaced(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def open_tokens(path: str | os.PathLike) -> np.ndarray:
    """The token array in a file, memory-mapped and read-only: (N,) uint16 or uint32.

    Errors: a one-line ValueError naming the file if it is missing or is not a complete token file
    (not .npy, a pickle, another dtype or rank, more or fewer bytes than its header states).
    """
    check_path("path", path)
    name = printable(path)
    expected = "expected a one-dimensional .npy file of uint16 or uint32"
    with open_regular(path):  # reading a pipe would never end
        pass
    try:
        # open_memmap rather than load: it never unpickles and accepts no other format.
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise ValueError(f"{name}: {expected}, got an error ({error.strerror or error})") from None
    except Exception as error:  # NumPy raises several types for a bad header
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{name}: {expected}, got an invalid header ({reason})") from None
    if array.ndim != 1 or array.dtype not in DTYPES:  # other byte orders are other dtypes
        raise ValueError(f"{name}: {expected}, got {array.dtype.str} of shape {array.shape}")
    size, wanted = os.path.getsize(path), array.offset + array.nbytes
    if size != wanted:
        raise ValueError(f"{name}: expected {wanted} bytes for {array.size} tokens, got {size}")
    return array
