"""Agreement, intervals and strengths by their definitions, item by item."""

import itertools
import math


def cohen_kappa(a, b, weight):
    """Cohen 1968: 1 - mean weight of the pairs / mean weight of all pairs (a_i, b_j)."""
    n = len(a)
    seen = sum(weight(x, y) for x, y in zip(a, b)) / n
    chance = sum(weight(x, y) for x in a for y in b) / n**2
    return 1.0 if chance == 0 else 1 - seen / chance


def fleiss_kappa(labels):
    """Fleiss 1971: labels, a list for each item; the share of pairs of judges that agree."""
    agreed = []
    for item in labels:
        pairs = list(itertools.combinations(item, 2))
        agreed.append(sum(x == y for x, y in pairs) / len(pairs))
    everything = [x for item in labels for x in item]
    chance = sum((everything.count(x) / len(everything)) ** 2 for x in set(everything))
    mean = sum(agreed) / len(agreed)
    return 1.0 if chance == 1 else (mean - chance) / (1 - chance)


def wilson(k, n, z):
    """The two shares p with (k/n - p)^2 = z^2 p (1 - p) / n, by bisection."""

    def beyond(p):
        return (k / n - p) ** 2 - z**2 * p * (1 - p) / n

    def root(inside, outside):
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if beyond(middle) <= 0 else (inside, middle)
        return inside

    return root(k / n, 0.0), root(k / n, 1.0)


def sign_test(differences):
    """The share of all 2^n choices of signs whose sum is as far from 0."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(total >= observed for total in sums) / len(sums)


def log_likelihood(strengths, judgements, prior):
    """Bradley & Terry 1952, with `prior` drawn games of each against a system of strength 0."""

    def log_p(s):
        return -math.log1p(math.exp(-s))

    total = 0.0
    for first, second, outcome in judgements:
        s = strengths[first] - strengths[second]
        total += outcome * log_p(s) + (1 - outcome) * log_p(-s)
    return total + prior * sum((log_p(s) + log_p(-s)) / 2 for s in strengths.values())
