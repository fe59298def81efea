"""Evaluation metrics by counting, straight from their definitions."""

import math


def accuracy(predictions, labels):
    """The number right over the number of samples."""
    right = 0
    for p, t in zip(predictions, labels):
        if p == t:
            right += 1
    return right / len(labels)


def precision_recall_f1_of_class(predictions, labels, kind):
    """precision = tp / (tp + fp), recall = tp / (tp + fn), F1 their harmonic mean; 0 / 0 = 0."""
    tp, fp, fn = counts_of_class(predictions, labels, kind)
    return from_counts(tp, fp, fn)


def counts_of_class(predictions, labels, kind):
    tp = fp = fn = 0
    for p, t in zip(predictions, labels):
        if p == kind and t == kind:
            tp += 1
        elif p == kind:
            fp += 1
        elif t == kind:
            fn += 1
    return tp, fp, fn


def from_counts(tp, fp, fn):
    precision = tp / (tp + fp) if tp + fp > 0 else 0.0
    recall = tp / (tp + fn) if tp + fn > 0 else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    return precision, recall, f1


def macro(predictions, labels, kinds):
    """The mean over classes of precision, recall and F1."""
    rows = [precision_recall_f1_of_class(predictions, labels, kind) for kind in kinds]
    return tuple(sum(row[i] for row in rows) / len(rows) for i in range(3))


def micro(predictions, labels, kinds):
    """Precision, recall and F1 of the counts summed over classes."""
    rows = [counts_of_class(predictions, labels, kind) for kind in kinds]
    return from_counts(*(sum(row[i] for row in rows) for i in range(3)))


def matthews_correlation(predictions, labels):
    """The correlation of two classifications, from their indicator vectors.      Gorodkin 2004

    R = cov(X, Y) / sqrt(cov(X, X) cov(Y, Y)),
    cov(X, Y) = sum_n sum_k (X_nk - mean_n X_nk) (Y_nk - mean_n Y_nk).
    """
    kinds = sorted(set(predictions) | set(labels))
    N = len(labels)
    x_mean = {k: sum(1 for p in predictions if p == k) / N for k in kinds}
    y_mean = {k: sum(1 for t in labels if t == k) / N for k in kinds}
    xy = xx = yy = 0.0
    for p, t in zip(predictions, labels):
        for k in kinds:
            x = (1.0 if p == k else 0.0) - x_mean[k]
            y = (1.0 if t == k else 0.0) - y_mean[k]
            xy += x * y
            xx += x * x
            yy += y * y
    if len(set(predictions)) == 1 or len(set(labels)) == 1:
        return 0.0
    return xy / math.sqrt(xx * yy)


def pearson_correlation(x, y):
    """Covariance over the product of the standard deviations."""
    if len(set(x)) == 1 or len(set(y)) == 1:
        return 0.0
    mx, my = math.fsum(x) / len(x), math.fsum(y) / len(y)
    xy = math.fsum((a - mx) * (b - my) for a, b in zip(x, y))
    xx = math.fsum((a - mx) ** 2 for a in x)
    yy = math.fsum((b - my) ** 2 for b in y)
    return xy / math.sqrt(xx * yy)


def ranks(x):
    """1 + the number of smaller values + half the number of other equal ones."""
    return [1 + sum(1 for b in x if b < a) + (sum(1 for b in x if b == a) - 1) / 2 for a in x]


def spearman_correlation(x, y):
    return pearson_correlation(ranks(x), ranks(y))


# ---- chunks


def chunks(tags):
    """Chunks (kind, first word, stop), by the two questions of the shared task's scorer.

    Between any two words: does a chunk end here, does one start here?
    Tjong Kim Sang & Buchholz 2000.
    """
    found = []
    start = None
    for i in range(len(tags) + 1):
        before, kind_before = split_tag(tags[i - 1]) if i > 0 else ("O", "")
        now, kind_now = split_tag(tags[i]) if i < len(tags) else ("O", "")
        ends = before != "O" and (now == "O" or now == "B" or kind_now != kind_before)
        starts = now == "B" or (now == "I" and (before == "O" or kind_now != kind_before))
        if ends:
            found.append((kind_before, start, i))
        if starts:
            start = i
    return found


def split_tag(tag):
    return ("O", "") if tag == "O" else (tag[0], tag[2:])


def chunk_f1(predictions, labels):
    tp = fp = fn = 0
    for p, t in zip(predictions, labels):
        p, t = chunks(p), chunks(t)
        for chunk in p:
            if chunk in t:
                tp += 1
            else:
                fp += 1
        for chunk in t:
            if chunk not in p:
                fn += 1
    return from_counts(tp, fp, fn)


# ---- answers


def normalise_answer(text):
    """Lower case, no punctuation or articles, single spaces.   Rajpurkar et al. 2016, sec. 6.1"""
    kept = ""
    for c in text.lower():
        if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~":
            kept += c
    words, word = [], ""
    for c in kept + " ":  # a run of letters and digits is a word; "_" is already gone
        if c.isalnum():
            word += c
        else:
            words.append(" " if word in ("a", "an", "the") else word)
            words.append(c)
            word = ""
    return " ".join("".join(words).split())


def answer_f1(prediction, answer):
    """F1 of the shared words, each counted as often as it occurs in both."""
    p, t = normalise_answer(prediction).split(), normalise_answer(answer).split()
    if len(p) == 0 or len(t) == 0:
        return 1.0 if p == t else 0.0
    remaining = list(t)
    shared = 0
    for word in p:
        if word in remaining:
            remaining.remove(word)
            shared += 1
    return from_counts(shared, len(p) - shared, len(t) - shared)[2]


def best_span(start, end, longest):
    """(i, j) with the largest start_i + end_j, i <= j, at most `longest` tokens; first in a tie."""
    best = None
    for i in range(len(start)):
        for j in range(i, len(end)):
            if j - i + 1 > longest:
                continue
            if best is None or start[i] + end[j] > start[best[0]] + end[best[1]]:
                best = (i, j)
    return best
