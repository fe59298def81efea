"""The rules of C4, Gopher and FineWeb by character and word, from the papers.

Rae et al. 2021, app. A.1.1 and table A1; Penedo et al. 2024, sec. 3.5 and its code; Raffel et al.
2020, sec. 2.2 and its code.  Words stand between white space; an ideograph or kana is one.
"""

from __future__ import annotations

UNSPACED = (
    (0x3005, 0x3007),
    (0x3041, 0x3096),
    (0x30A1, 0x30FA),
    (0x30FC, 0x30FC),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def ideograph(c: str) -> bool:
    return any(low <= ord(c) <= high for low, high in UNSPACED)


def words(text: str) -> list[str]:
    found, word = [], ""
    for c in text + " ":
        if c.isspace() or ideograph(c):
            if word:
                found.append(word)
            word = ""
            if ideograph(c):
                found.append(c)
        else:
            word += c
    return found


def unspaced(text: str) -> bool:
    found = words(text)
    return 2 * sum(len(word) == 1 and ideograph(word) for word in found) > len(found)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def paragraphs(text: str) -> list[str]:
    return [block.strip() for block in text.split("\n\n") if block.strip()]


# ---- Gopher, quality


def gopher_quality(text: str) -> bool:
    """Whether the document stays."""
    found = words(text)
    if not 50 <= len(found) <= 100_000:
        return False
    if not unspaced(text):
        if not 3 <= sum(len(word) for word in found) / len(found) <= 10:
            return False
        if (
            sum(stop in found for stop in ("the", "be", "to", "of", "and", "that", "have", "with"))
            < 2
        ):
            return False
    if (
        text.count("#") / len(found) > 0.1
        or (text.count("...") + text.count("…")) / len(found) > 0.1
    ):
        return False
    rows = lines(text)
    if sum(row[0] in "-*•‣◦▪●·" for row in rows) / len(rows) > 0.9:
        return False
    if sum(row.endswith("...") or row.endswith("…") for row in rows) / len(rows) > 0.3:
        return False
    return sum(any(c.isalpha() for c in word) for word in found) / len(found) >= 0.8


# ---- Gopher, repetition


def duplicates(parts: list[str], total: int) -> tuple[float, float]:
    """Of those that occurred before: (share of the parts, characters as a share of the text)."""
    before, count, characters = [], 0, 0
    for part in parts:
        if part in before:
            count += 1
            characters += len(part)
        before.append(part)
    return count / max(len(parts), 1), characters / total


def top_ngram(found: list[str], n: int, gap: int) -> int:
    """Characters of all occurrences of the most frequent n-gram, if it occurs twice."""
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    best, most = None, 1
    for gram in grams:
        if grams.count(gram) > most:
            best, most = gram, grams.count(gram)
    return 0 if best is None else most * (sum(map(len, best)) + gap * (n - 1))


def covered(found: list[str], n: int) -> int:
    """Characters of words in an n-gram that occurred before."""
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    inside = set()
    for i, gram in enumerate(grams):
        if gram in grams[:i]:
            inside |= set(range(i, i + n))
    return sum(len(found[i]) for i in inside)


def gopher_repetition(text: str) -> bool:
    total = len(text)
    for parts in (lines(text), paragraphs(text)):
        share, characters = duplicates(parts, total)
        if share > 0.30 or characters > 0.20:
            return False
    found, gap = words(text), 0 if unspaced(text) else 1
    top = {2: 0.20, 3: 0.18, 4: 0.16}
    if any(top_ngram(found, n, gap) > limit * total for n, limit in top.items()):
        return False
    runs = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    return not any(covered(found, n) > limit * total for n, limit in runs.items())


# ---- FineWeb


def fineweb(text: str) -> bool:
    rows = [row.rstrip() for row in text.split("\n") if row.strip()]
    if not rows or sum(row[-1] in ".?!。？！．｡؟۔।॥" for row in rows) / len(rows) < 0.12:
        return False
    if sum(len(row) <= 30 for row in rows) / len(rows) > 0.67:
        return False
    if duplicates(rows, len(text.replace("\n", "")))[1] > 0.01:
        return False
    return text.count("\n") <= 0.3 * len(words(text))


# ---- C4


def c4_line(line: str) -> bool:
    """Whether a line stays, without white space around it and without marks of citations."""
    small = line.lower()
    policies = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )
    return (
        line != ""
        and line[-1] in '.?!"。？！”'
        and not line.endswith("...")
        and len(words(line)) >= 5
        and all(len(word) <= 1000 for word in line.split())
        and "javascript" not in small
        and not any(policy in small for policy in policies)
    )
