"""How many tokens of two texts stay, and the windows of one text, one token at a time."""

from __future__ import annotations


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that are left of texts with `first` and `second` tokens when they are to fit into
    `room`.

    The longer text loses one token, again and again.  When both are equally long, that one loses it
    which was the shorter at first; the first text if neither was.
    """
    first_was_shorter = first <= second
    while first + second > room:
        if first > second or (first == second and first_was_shorter):
            first -= 1
        else:
            second -= 1
    return first, second


def windows(tokens: list, length: int, stride: int) -> list[list]:
    """Stretches of `length` tokens; each begins with the last `stride` of the one before; the last
    one may be shorter."""
    result = [tokens[:length]]
    done = length
    while done < len(tokens):
        repeated = tokens[done - stride : done]
        new = tokens[done : done + length - stride]
        result.append(repeated + new)
        done += len(new)
    return result


def windows_from_the_end(tokens: list, length: int, stride: int) -> list[list]:
    """The same from the last token backwards: the first window holds the last tokens, each in the
    order of the text."""
    return [window[::-1] for window in windows(tokens[::-1], length, stride)]
