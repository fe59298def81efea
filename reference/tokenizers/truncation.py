"""Truncation of two texts to a total length, and windows over one text, token by token."""

from __future__ import annotations


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """The lengths of two texts of `first` and `second` tokens, truncated to `room` in total.

    The longer text loses one token at a time.  When both are equally long, the initially shorter
    one loses it, or the first text if they started equal.
    """
    first_was_shorter = first <= second
    while first + second > room:
        if first > second or (first == second and first_was_shorter):
            first -= 1
        else:
            second -= 1
    return first, second


def windows(tokens: list, length: int, stride: int) -> list[list]:
    """Windows of `length` tokens, each starting with the last `stride` tokens of the previous one.

    The last window may be shorter.
    """
    result = [tokens[:length]]
    done = length
    while done < len(tokens):
        repeated = tokens[done - stride : done]
        new = tokens[done : done + length - stride]
        result.append(repeated + new)
        done += len(new)
    return result


def windows_from_the_end(tokens: list, length: int, stride: int) -> list[list]:
    """The same from the end: the first window has the last tokens.

    Within a window, tokens keep the order of the text.
    """
    return [window[::-1] for window in windows(tokens[::-1], length, stride)]
