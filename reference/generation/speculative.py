"""Speculative decoding: how a proposal is accepted or replaced, and what is then written."""

from collections.abc import Callable, Sequence

Text = tuple[int, ...]  # new tokens
NextDistribution = Callable[[Text], Sequence[float]]  # of the token after these


def acceptance_probability(p: Sequence[float], q: Sequence[float], token: int) -> float:
    """1 if q(token) <= p(token), else p(token) / q(token).      Leviathan et al. 2023, sec. 2.3"""
    if q[token] <= p[token]:
        return 1.0
    return p[token] / q[token]


def residual(p: Sequence[float], q: Sequence[float]) -> list[float]:
    """norm(max(0, p - q)), what a token that is not accepted is replaced from; the same section."""
    rest = [max(0.0, float(a) - float(b)) for a, b in zip(p, q)]
    total = 0.0
    for value in rest:
        total += value
    return [value / total for value in rest]


def round_outcomes(
    p: NextDistribution, q: NextDistribution, text: Text, draft_length: int
) -> dict[Text, float]:
    """{the text after one round: its probability}.          Leviathan et al. 2023, algorithm 1

    Every run of `draft_length` proposals, each drawn from q after those before it, each count n of
    accepted ones, and each token that may follow these.
    """
    found: dict[Text, float] = {}

    def add(written: Text, probability: float) -> None:
        found[written] = found.get(written, 0.0) + probability

    def proposed(run: Text, probability: float) -> None:
        if len(run) < draft_length:
            for token, share in enumerate(q(text + run)):
                if share > 0.0:
                    proposed(run + (token,), probability * share)
            return
        for n in range(draft_length):  # n accepted, the next one not
            target, draft = p(text + run[:n]), q(text + run[:n])
            accepted = acceptance_probability(target, draft, run[n])
            if accepted < 1.0:
                for token, share in enumerate(residual(target, draft)):
                    if share > 0.0:
                        add(text + run[:n] + (token,), probability * (1.0 - accepted) * share)
            probability *= accepted
        for token, share in enumerate(p(text + run)):
            add(text + run + (token,), probability * share)

    proposed((), 1.0)
    return found


def expected_tokens(acceptance_rate: float, draft_length: int) -> float:
    """The expected tokens of a round, by the definition: sum of P(at least n tokens), n = 1, 2, ...

    P(at least n + 1 tokens) = a^n for n <= draft_length: the first n proposals were accepted.
    Leviathan et al. 2023, eq. 1, is this sum in closed form.
    """
    total = 0.0
    for n in range(draft_length + 1):
        product = 1.0
        for _ in range(n):
            product *= acceptance_rate
        total += product
    return total
