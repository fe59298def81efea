"""Translation language modelling: a sentence and its translation in one row, words of both masked, so that the model may look for
a word in the other language (Conneau & Lample 2019, sec. 3.3).

    tokens        </s>  the  dog  </s>  </s>  le  chien  </s>
    position_ids     0    1    2     3     0   1      2     3     start again, so that the two are aligned
    langs            0    0    0     0     1   1      1     1     which language's embedding is added

Masking is that of masked.py, over the whole row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arguments import MOST, as_ids, check_whole, wrong
from .inputs import Row


def translation_pair(
    source: Sequence[int],
    target: Sequence[int],
    *,
    languages: tuple[int, int],
    eos_id: int,
    length: int,
) -> Row:
    """Both sentences between </s>, one after the other: input_ids, position_ids, langs, special_tokens_mask (n,), n <= length.

    languages: the numbers of the two languages.  Where both together are too long, the end of the longer one is cut.
    ValueError for an empty sentence, and for a length that leaves less than one token for each.
    """
    source, target = as_ids("source", source), as_ids("target", target)
    if len(as_ids("languages", languages)) != 2:
        raise wrong("languages", "the numbers of two languages", languages)
    check_whole("eos_id", eos_id, 0, MOST)
    check_whole("length", length, most=MOST)
    if not len(source) or not len(target):
        raise ValueError(
            f"sentences of {len(source)} and {len(target)} tokens, expected 1 or more in each"
        )
    room = length - 4
    if room < 2:
        raise ValueError(
            f"length {length} leaves {room} tokens beside four </s>, expected 2 or more"
        )
    first = np.asarray(source, np.int64)[: max(room - len(target), room - room // 2)]
    sentences = [first, np.asarray(target, np.int64)[: room - len(first)]]
    eos, special = np.array([eos_id]), np.ones(1, np.int64)
    sizes = [len(sentence) + 2 for sentence in sentences]
    return {
        "input_ids": np.concatenate(
            [part for sentence in sentences for part in (eos, sentence, eos)]
        ),
        "position_ids": np.concatenate([np.arange(size) for size in sizes]),
        "langs": np.repeat(languages, sizes),
        "special_tokens_mask": np.concatenate(
            [
                part
                for sentence in sentences
                for part in (special, np.zeros(len(sentence), np.int64), special)
            ]
        ),
    }
