"""Vocabulary files: vocab.json, added_tokens.json, merges.txt and vocab.txt."""

from __future__ import annotations

from pathlib import Path

from ...arguments import mismatch, shown, wrong
from ...files import printable, read_json, read_text


def read_vocabulary(path: Path) -> dict[str, int]:
    """An object of tokens and their ids."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise wrong(printable(path), "an object of tokens and ids", content)
    return content


def read_merges(path: Path) -> list[tuple[str, str]]:
    """One merge "a b" per line; the first line may state the version."""
    merges = []
    for number, line in enumerate(read_text(path).split("\n")):
        if line.strip() and not (number == 0 and line.startswith("#version")):
            parts = line.rstrip("\r").split(" ")
            if len(parts) != 2 or not all(parts):
                raise wrong(f"{printable(path)}, line {number + 1}", "a pair of tokens", line)
            merges.append((parts[0], parts[1]))
    return merges


def read_lines(path: Path) -> dict[str, int]:
    """One token per line; its id is the line number, from 0."""
    vocab: dict[str, int] = {}
    for id, token in enumerate(read_text(path).rstrip("\n").split("\n")):
        token = token.rstrip("\r")
        if vocab.setdefault(token, id) != id:
            expected = "a token that is not in the file yet"
            given = f"{shown(token)}, as in line {vocab[token] + 1}"
            raise mismatch(f"{printable(path)}, line {id + 1}", expected, given)
    return vocab
