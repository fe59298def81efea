"""n-gram baselines with dicts, sets and loops, straight from the papers."""

import math

import numpy as np


def uniform(tokens, *, vocab_size):
    """ln (1 / V) for each of tokens[1:]."""
    return np.array([math.log(1 / vocab_size) for _ in tokens[1:]])


def unigram(train, tokens, *, vocab_size, added=1.0):
    """ln of Laplace's law of succession, (c(w) + added) / (N + V added)."""
    result = []
    for w in tokens[1:]:
        count = sum(1 for token in train if token == w)
        result.append(math.log((count + added) / (len(train) + vocab_size * added)))
    return np.array(result)


def kneser_ney(train, tokens, *, vocab_size, order=3, modified=True):
    """ln p(tokens[i] | the order - 1 tokens before it), i = 1, 2, ...

    Kneser & Ney 1995, interpolated as in Chen & Goodman 1999.

    Order n: counts of occurrences. Order k < n: N1+(* gram), the number of distinct tokens seen
    before the gram. Below order 1: the uniform distribution.
    """
    train = [int(token) for token in train]
    counts = {}  # counts[k][gram of k tokens]
    for k in range(1, order + 1):
        counts[k] = {}
        if k == order:
            for i in range(len(train) - k + 1):
                gram = tuple(train[i : i + k])
                counts[k][gram] = counts[k].get(gram, 0) + 1
        else:
            before = {}
            for i in range(1, len(train) - k + 1):
                before.setdefault(tuple(train[i : i + k]), set()).add(train[i - 1])
            for gram, tokens_before in before.items():
                counts[k][gram] = len(tokens_before)

    discount = {k: discount_function(list(counts[k].values()), modified) for k in counts}

    def probability(w, history):
        k = len(history) + 1
        lower = probability(w, history[1:]) if history else 1 / vocab_size
        total = 0
        taken = 0.0
        for v in range(vocab_size):
            c = counts[k].get((*history, v), 0)
            total += c
            taken += discount[k](c)
        if total == 0:  # this history was not seen
            return lower
        c = counts[k].get((*history, w), 0)
        return max(c - discount[k](c), 0) / total + taken / total * lower

    tokens = [int(token) for token in tokens]
    result = []
    for i in range(1, len(tokens)):
        history = tuple(tokens[max(0, i - order + 1) : i])
        result.append(math.log(probability(tokens[i], history)))
    return np.array(result)


def discount_function(counts, modified):
    """count -> its discount, estimated from the counts of all n-grams of one order.

    Single: Ney, Essen & Kneser 1994, D = n1 / (n1 + 2 n2). Three: Chen & Goodman 1999, "modified".
    Where these are undefined (no n-gram with count 1; no three valid discounts) the rules are
    tinyplm's: 1/2, and the single one.
    """
    n1, n2, n3, n4 = (counts.count(j) for j in (1, 2, 3, 4))
    single = n1 / (n1 + 2 * n2) if n1 > 0 else 0.5

    def take_single(c):
        return single if c > 0 else 0.0

    if not modified or n1 == 0 or n2 == 0 or n3 == 0:
        return take_single
    d1 = 1 - 2 * single * n2 / n1
    d2 = 2 - 3 * single * n3 / n2
    d3 = 3 - 4 * single * n4 / n3

    def take_three(c):
        if c == 0:
            return 0.0
        if c == 1:
            return d1
        if c == 2:
            return d2
        return d3

    valid = 0 < d1 <= 1 and 0 < d2 <= 2 and 0 < d3 <= 3
    return take_three if valid else take_single
