"""Language identification by character n-grams: multinomial naive Bayes, n-gram by n-gram."""

import math


def ngrams(text: str, longest: int) -> list[str]:
    """All n-grams of 1 to `longest` characters; one space alone is none."""
    found = []
    for n in range(1, longest + 1):
        for start in range(len(text) - n + 1):
            if text[start : start + n] != " ":
                found.append(text[start : start + n])
    return found


def probabilities(
    text: str, samples: dict[str, list[str]], *, longest: int, vocabulary: int, smoothing: float
) -> dict[str, float]:
    """p(l | text) with equal priors, each log-likelihood divided by `longest`.

    p(g | l) = (count of g in the samples of l + smoothing) / (all counts + vocabulary * smoothing).
    Manning, Raghavan & Schuetze 2008, eq. 13.4 and 13.7.   Texts are normalised already.
    """
    scores = {}
    for language, texts in samples.items():
        counts: dict[str, int] = {}
        for sample in texts:
            for gram in ngrams(sample, longest):
                counts[gram] = counts.get(gram, 0) + 1
        total = sum(counts.values()) + vocabulary * smoothing
        score = 0.0
        for gram in ngrams(text, longest):
            score += math.log((counts.get(gram, 0) + smoothing) / total)
        scores[language] = score / longest
    largest = max(scores.values())
    total = sum(math.exp(score - largest) for score in scores.values())
    return {language: math.exp(score - largest) / total for language, score in scores.items()}
