"""BLEU by counting, straight from Papineni et al. 2002."""

import math


def bleu(predictions, references, *, order=4, smoothing="none", floor=0.1, effective=False):
    """Token lists, and for each the token lists of its references -> (score, precisions, BP).

    Papineni et al. 2002, sec. 2: modified n-gram precision, brevity penalty with the closest
    reference length. Smoothing methods 1 ("floor") and 3 ("exp") of Chen & Cherry 2014.
    """
    precisions, any_match, orders, k = [], False, 0, 0
    for n in range(1, order + 1):
        clipped = total = 0
        for prediction, some in zip(predictions, references):
            found = [tuple(prediction[i : i + n]) for i in range(len(prediction) - n + 1)]
            total += len(found)
            for gram in set(found):
                most = 0
                for reference in some:
                    count = 0
                    for i in range(len(reference) - n + 1):
                        if tuple(reference[i : i + n]) == gram:
                            count += 1
                    most = max(most, count)
                clipped += min(found.count(gram), most)
        if clipped > 0:
            any_match = True
        if total > 0:
            orders = n
        if total == 0:
            precisions.append(0.0)
        elif clipped > 0:
            precisions.append(clipped / total)
        elif smoothing == "exp":
            k += 1
            precisions.append(1 / (2**k * total))
        elif smoothing == "floor":
            precisions.append(floor / total)
        else:
            precisions.append(0.0)
    c = sum(len(prediction) for prediction in predictions)
    r = 0
    for prediction, some in zip(predictions, references):
        closest = None
        for reference in some:
            distance = abs(len(reference) - len(prediction))
            if closest is None or (distance, len(reference)) < closest:
                closest = (distance, len(reference))
        r += closest[1]
    penalty = 1.0 if c >= r else 0.0 if c == 0 else math.exp(1 - r / c)
    if not any_match:
        return 0.0, [0.0] * order, penalty
    N = orders if effective else order
    score = penalty
    for p in precisions[:N]:
        score *= p ** (1 / N)
    return score, precisions, penalty
