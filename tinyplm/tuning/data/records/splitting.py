"""Held-out records: the same in every run, whatever the order of the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ....arguments import check_key, check_number, known_arguments, listed, mismatch, wrong
from .kinds import Record, kind_of

# what two records of a kind have in common if one gives the other away
_PROMPTS = {
    "preference": ("prompt",),
    "prompt": ("prompt",),
    "feedback": ("prompt",),
    "instruction": ("instruction", "input"),
    "tagging": ("tokens",),
    "answering": ("context",),
    "classification": ("text", "pair"),
}


@known_arguments
def split(
    records: Sequence[Mapping[str, Any]], share: float = 0.1, seed: int = 0
) -> tuple[list[Record], list[Record]]:
    """(training, validation): about `share` of the records held out, both in the given order.

    Records with equal prompts (instructions, contexts, texts, or what precedes the first answer of
    a conversation) stay on one side.  Which are held out depends on the seed and on what the
    records contain, not on their order.  With a share above 0 neither side is empty: ValueError if
    all records have one prompt.
    """
    rows = listed("records", records, "a list of records, each a dict")
    check_number("share", share, least=0, below=1)
    check_key("seed", seed)
    groups: dict[bytes, list[int]] = {}
    for n, record in enumerate(rows):
        if not isinstance(record, Mapping):
            raise wrong(f"record {n}", "a dict", record)
        groups.setdefault(_hash(record, seed), []).append(n)
    if not share:
        return [dict(record) for record in rows], []
    if len(groups) < 2:
        raise mismatch("records", "two or more different prompts, to hold one out", len(groups))
    held_out: set[int] = set()
    order = [groups[key] for key in sorted(groups)]
    for group in order[:-1]:  # the last one stays in training
        if len(held_out) + len(group) / 2 <= share * len(rows):
            held_out.update(group)
    if not held_out:
        held_out.update(next(group for group in order if len(group) == min(map(len, order))))
    sides: tuple[list[Record], list[Record]] = ([], [])
    for n, record in enumerate(rows):
        sides[n in held_out].append(dict(record))
    return sides


def _hash(record: Mapping[str, Any], seed: int) -> bytes:
    kind = kind_of(record)
    if kind == "conversation" and isinstance(record.get("messages"), list):
        roles = [m.get("role") if isinstance(m, Mapping) else None for m in record["messages"]]
        first = roles.index("assistant") if "assistant" in roles else len(roles)
        prompt: Any = record["messages"][:first]
    else:
        names = _PROMPTS.get(kind or "")
        prompt = dict(record) if names is None else [record.get(name) for name in names]
    text = json.dumps([int(seed), prompt], sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
