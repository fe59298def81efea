"""The objectives of GRPO, Dr. GRPO, DAPO and GSPO as their papers state them, for one prompt.

rewards[i] is the reward of answer i; log_probs[i][t] and old[i][t] are the log-probabilities of its
token t under the policy and under the one that drew it.  All are to be maximised.
"""

import math

EPS = 1e-4  # added to the deviation, as implementations do; the papers divide by it alone


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _advantages(rewards: list[float], scale: bool) -> list[float]:
    mean = _mean(rewards)
    if not scale:
        return [r - mean for r in rewards]
    deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return [(r - mean) / (deviation + EPS) for r in rewards]


def _clipped(ratio: float, A: float, low: float, high: float) -> float:
    return min(ratio * A, min(max(ratio, 1.0 - low), 1.0 + high) * A)


def _tokens(log_probs, old, A: float, low: float, high: float) -> list[float]:
    """The clipped gain of each token of one answer."""
    return [_clipped(math.exp(new - before), A, low, high) for new, before in zip(log_probs, old)]


def grpo(rewards, log_probs, old, reference, *, clip: float, beta: float) -> float:
    """1/G sum_i 1/|o_i| sum_t (min(r A, clip(r) A) - beta KL).           Shao et al. 2024, eq. 3"""
    answers = []
    for i, A in enumerate(_advantages(rewards, scale=True)):
        gains = _tokens(log_probs[i], old[i], A, clip, clip)
        ratios = [math.exp(ref - new) for new, ref in zip(log_probs[i], reference[i])]
        kls = [ratio - math.log(ratio) - 1.0 for ratio in ratios]
        answers.append(_mean([gain - beta * kl for gain, kl in zip(gains, kls)]))
    return _mean(answers)


def dr_grpo(rewards, log_probs, old, *, clip: float, longest: int) -> float:
    """1/G sum_i sum_t min(r A, clip(r) A), divided by a constant; A = r - mean.

    Liu et al. 2025, sec. 3.2; the constant, `longest`, is that of its listing 1.
    """
    answers = []
    for i, A in enumerate(_advantages(rewards, scale=False)):
        answers.append(sum(_tokens(log_probs[i], old[i], A, clip, clip)))
    return _mean(answers) / longest


def dapo(
    rewards, log_probs, old, *, low: float, high: float, longest: int, room: int
) -> float | None:
    """1/(sum_i |o_i|) sum_i sum_t min(r A, clip(r, 1 - low, 1 + high) A); None for an even group.

    Yu et al. 2025, eq. 8, 10 and 13; even groups are not sampled (eq. 11).  A is of the rewards
    with the punishment of length added.
    """
    if all(r == rewards[0] for r in rewards):
        return None
    punished = []
    for r, answer in zip(rewards, log_probs):
        over = len(answer) - (longest - room)
        punished.append(r if over <= 0 else r - over / room)
    gains = []
    for i, A in enumerate(_advantages(punished, scale=True)):
        gains += _tokens(log_probs[i], old[i], A, low, high)
    return _mean(gains)


def gspo(rewards, log_probs, old, *, low: float, high: float) -> float:
    """1/G sum_i min(s A, clip(s, 1 - low, 1 + high) A),  s = (pi(y)/pi_old(y))^(1/|y|).

    Zheng et al. 2025, eq. 5 to 7.
    """
    answers = []
    for i, A in enumerate(_advantages(rewards, scale=True)):
        s = math.exp(sum(log_probs[i]) - sum(old[i])) ** (1.0 / len(log_probs[i]))
        answers.append(_clipped(s, A, low, high))
    return _mean(answers)
