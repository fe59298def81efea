"""ROUGE by counting, straight from the definitions of Lin 2004."""

from reference.evaluation.metrics import from_counts


def words(text):
    """Runs of the letters a to z and the digits of the lower-cased text."""
    found, word = [], ""
    for c in text.lower() + " ":
        if c in "abcdefghijklmnopqrstuvwxyz0123456789":
            word += c
        elif word != "":
            found.append(word)
            word = ""
    return found


def grams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def rouge_n(prediction, reference, n):
    """Co-occurring n-grams, each used up once.                                   Lin 2004, eq. 1"""
    p, r = grams(prediction, n), grams(reference, n)
    left = list(r)
    shared = 0
    for gram in p:
        if gram in left:
            left.remove(gram)
            shared += 1
    return from_counts(shared, len(p) - shared, len(r) - shared)


def longest_common(a, b):
    """The length of a longest common subsequence, by its recursion; exponential."""
    if len(a) == 0 or len(b) == 0:
        return 0
    if a[-1] == b[-1]:
        return longest_common(a[:-1], b[:-1]) + 1
    return max(longest_common(a[:-1], b), longest_common(a, b[:-1]))


def rouge_l(prediction, reference):
    """Precision and recall of the LCS, and F with beta = 1.                   Lin 2004, eqs. 2-4"""
    shared = longest_common(prediction, reference)
    return from_counts(shared, len(prediction) - shared, len(reference) - shared)


def matched(reference, prediction):
    """Places of the reference in a longest common subsequence; in a tie, its last is skipped."""
    if len(reference) == 0 or len(prediction) == 0:
        return []
    shorter, less = reference[:-1], prediction[:-1]
    if reference[-1] == prediction[-1]:
        return [*matched(shorter, less), len(reference) - 1]
    if longest_common(reference, less) > longest_common(shorter, prediction):
        return matched(reference, less)
    return matched(shorter, prediction)


def rouge_lsum(prediction, reference):
    """Lists of sentences. The union LCS of each reference sentence with all of the prediction.

    Lin 2004, sec. 3.2, where each word of the prediction is used up once.
    """
    left = [word for sentence in prediction for word in sentence]
    size, labelled = len(left), sum(len(sentence) for sentence in reference)
    shared = 0
    for sentence in reference:
        for i in range(len(sentence)):
            if any(i in matched(sentence, other) for other in prediction) and sentence[i] in left:
                left.remove(sentence[i])
                shared += 1
    return from_counts(shared, size - shared, labelled - shared)
