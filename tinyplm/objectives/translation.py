"""Translation language modelling: a sentence and its translation in one row, both masked, so that
the model can find a masked word in the other language (Conneau & Lample 2019, sec. 3.3).

    tokens        </s>  the  dog  </s>  </s>  le  chien  </s>
    position_ids     0    1    2     3     0   1      2     3     restart, to align the two
    langs            0    0    0     0     1   1      1     1     selects the language embedding

masked.py masks the whole row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arguments import MOST, as_ids, check_whole, wrong
from .inputs import Row


def translation_pair(
    source: Sequence[int] | np.ndarray,
    target: Sequence[int] | np.ndarray,
    *,
    languages: tuple[int, int],
    eos_id: int,
    length: int,
) -> Row:
    """Both sentences between </s>: input_ids, position_ids, langs, special_tokens_mask (n,).

    languages: the two language numbers. If n would exceed `length`, the longer one is truncated.
    ValueError for an empty sentence, or a length below one token for each.
    """
    source, target = as_ids("source", source), as_ids("target", target)
    if len(as_ids("languages", languages)) != 2:
        raise wrong("languages", "two language numbers", languages)
    check_whole("eos_id", eos_id, 0, MOST)
    check_whole("length", length, most=MOST)
    for name, ids in (("source", source), ("target", target)):
        if not len(ids):
            raise ValueError(f"{name}: expected 1 or more tokens, got none")
    room = length - 4
    if room < 2:
        raise wrong("length", "at least 6, with four </s>", length)
    first = source[: max(room - len(target), room - room // 2)]
    sentences = [first, target[: room - len(first)]]
    sizes = [len(sentence) + 2 for sentence in sentences]
    return {
        "input_ids": np.concatenate([[eos_id, *sentence, eos_id] for sentence in sentences]),
        "position_ids": np.concatenate([np.arange(size) for size in sizes]),
        "langs": np.repeat(languages, sizes),
        "special_tokens_mask": np.concatenate([[1] + [0] * (n - 2) + [1] for n in sizes]),
    }
