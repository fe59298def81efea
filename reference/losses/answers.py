"""Log-probabilities of whole answers from those of their tokens."""

import numpy as np

from reference.scalar import exp, log, numbers, zeros


def pair_log_probs(x: np.ndarray, *, second: np.ndarray) -> np.ndarray:
    """log p(answer) = sum_t log p(token_t | the tokens before it), for two answers in each sample.

    x (N, ...), second (N, ...) booleans broadcastable to x, True for tokens of the second answer
    -> (N, 2).
    """
    x = numbers(x)
    second = np.broadcast_to(second, x.shape)
    y = zeros((x.shape[0], 2), like=x)
    for i in np.ndindex(x.shape):
        y[i[0], 1 if second[i] else 0] += x[i]
    return y


def label_scores(x: np.ndarray, *, words: tuple[int, ...]) -> np.ndarray:
    """Log of the mean probability of the words of each label.

    x (N, A, T): log-probabilities of the tokens of word a behind those before it in text n; words:
    how many of the A words, in order, belong to each label -> (N, labels).
    """
    x = numbers(x)
    y = zeros((x.shape[0], len(words)), like=x)
    for n in range(x.shape[0]):
        a = 0
        for c, count in enumerate(words):
            mean = 0.0
            for _ in range(count):
                log_p = 0.0
                for t in range(x.shape[2]):
                    log_p = log_p + x[n, a, t]
                mean = mean + exp(log_p) / count
                a += 1
            y[n, c] = log(mean)
    return y


def cloze_loss(x: np.ndarray, *, words: tuple[int, ...], targets: list[int]) -> float:
    """Fine-tuning by cloze: the mean of -log p(y | x), p(y | x) = p(v(y) | c(x)) / sum over labels
    y' of p(v(y') | c(x)).                                              Du et al. 2022, eq. 3

    p(v(y) | c(x)) is the mean over the words of y; arguments as above, targets: a label for each
    text.
    """
    scores, total = label_scores(x, words=words), 0.0
    for n, label in enumerate(targets):
        evidence = 0.0
        for c in range(len(words)):
            evidence = evidence + exp(scores[n, c])
        total = total - log(exp(scores[n, label]) / evidence)
    return total / len(targets)
