"""SentencePiece's compiled character maps: written from their binary layout, applied naively.

Aoe 1989 (double arrays).

Standard library only.  tinyplm reads such maps; this file writes them, placing each state at the
first offset that fits.
"""

from __future__ import annotations


def build(rules: dict[str, str], far: bool = False) -> bytes:
    """The bytes of a map with these rules; no string may be empty or contain a zero.

    far: write all offsets in the form for large ones, as multiples of 256.
    """
    texts = b""
    trie: dict = {}
    for old, new in rules.items():
        state = trie
        for byte in old.encode():
            state = state.setdefault(byte, {})
        state["value"] = len(texts)
        texts += new.encode() + b"\0"

    units = {0: 0}
    bases = set()  # unique: two states with the same base would read each other's units
    waiting = [(0, trie)]
    for index, state in waiting:  # grows
        base, step = (index % 256, 256) if far else (0, 1)
        while base in bases or any(
            (base ^ (0 if label == "value" else label)) in units for label in state
        ):
            base += step
        bases.add(base)
        offset = index ^ base
        units[index] |= (offset // 256 << 10 | 1 << 9) if far else offset << 10
        for label, below in state.items():
            if label == "value":
                units[index] |= 1 << 8
                units[base] = below | 1 << 31
            else:
                units[base ^ label] = label
                waiting.append((base ^ label, below))
    size = (max(units) // 256 + 1) * 256
    trie_bytes = b"".join(units.get(i, 0).to_bytes(4, "little") for i in range(size))
    return len(trie_bytes).to_bytes(4, "little") + trie_bytes + texts


def normalize_longest(rules: dict[str, str], text: str) -> str:
    """SentencePiece's own rule: the longest match, from left to right (Kudo & Richardson 2018)."""
    result = ""
    while text:
        fitting = [old for old in rules if text.startswith(old)]
        old = max(fitting, key=len) if fitting else text[0]
        result += rules.get(old, old)
        text = text[len(old) :]
    return result


def normalize(rules: dict[str, str], clusters: list[str]) -> str:
    """The normalized text of these grapheme clusters, as the library `tokenizers` does it."""
    result = ""
    for cluster in clusters:
        fitting = [old for old in rules if cluster.startswith(old)]
        if fitting and len(cluster.encode()) < 6:
            result += rules[min(fitting, key=len)]
        else:
            for char in cluster:
                result += rules.get(char, char)
    return result
