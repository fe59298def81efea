"""Mixtures of experts, one token and one expert at a time.

`expert` and `shared` are reference functions (p, x) of one token x (1, D), such as gated_mlp.
"""

import numpy as np

from reference.layers.activation import _sigmoid
from reference.layers.linear import linear
from reference.layers.softmax import softmax
from reference.scalar import numbers, zeros


def largest(values, count: int) -> list[int]:
    """The places of the `count` largest, the largest first; of equal ones the first."""
    places: list[int] = []
    for _ in range(count):
        found = None
        for i in range(len(values)):
            if i not in places and (found is None or values[i] > values[found]):
                found = i
        places.append(found)
    return places


def top_experts(
    logits: np.ndarray,
    *,
    top_k: int,
    bias: np.ndarray | None = None,
    groups: int = 1,
    kept_groups: int = 1,
    best: int = 1,
) -> np.ndarray:
    """The top_k largest of logits + bias among the experts of the kept_groups best groups.

    A group's score is the sum of its `best` largest.   DeepSeek team 2024a, sec. 2.2.2; 2024b, sec.
    2.1.2.   logits (..., X) -> choice (..., top_k) integers.
    """
    logits = numbers(logits)
    X = logits.shape[-1]
    size = X // groups
    choice = np.zeros(logits.shape[:-1] + (top_k,), dtype=np.int64)
    for row in np.ndindex(logits.shape[:-1]):
        scores = [logits[row + (i,)] + (0.0 if bias is None else bias[i]) for i in range(X)]
        of_groups = []
        for g in range(groups):
            members = scores[g * size : (g + 1) * size]
            total = 0.0
            for i in largest(members, min(best, size)):
                total += members[i]
            of_groups.append(total)
        kept = largest(of_groups, kept_groups)
        candidates = [i for i in range(X) if i // size in kept]
        for j, place in enumerate(largest([scores[i] for i in candidates], top_k)):
            choice[row + (j,)] = candidates[place]
    return choice


def sigmoid_choice(logits: np.ndarray, *, best: int = 2, **settings) -> np.ndarray:
    """top_experts of sigmoid(logits) + bias.             DeepSeek team 2024b, eq. 15 and 16"""
    return top_experts(_sigmoids(logits), best=best, **settings)


def softmax_weights(
    logits: np.ndarray, *, choice: np.ndarray, renormalised: bool = False, scale: float = 1.0
) -> np.ndarray:
    """The chosen entries of softmax(logits), divided by their sum if renormalised, times scale.

    logits (..., X), choice (..., k) -> (..., k).
    Shazeer et al. 2017, eq. 3; DeepSeek team 2024a, eq. 21
    """
    return _weights(softmax(logits), choice, renormalised, scale)


def sigmoid_weights(
    logits: np.ndarray, *, choice: np.ndarray, renormalised: bool = True, scale: float = 1.0
) -> np.ndarray:
    """The chosen entries of sigmoid(logits), divided by their sum if renormalised, times scale.

    DeepSeek team 2024b, eq. 13 and 15
    """
    return _weights(_sigmoids(logits), choice, renormalised, scale)


def _sigmoids(logits: np.ndarray) -> np.ndarray:
    logits = numbers(logits)
    s = zeros(logits.shape, like=logits)
    for i in np.ndindex(logits.shape):
        s[i] = _sigmoid(logits[i])
    return s


def _weights(scores: np.ndarray, choice: np.ndarray, renormalised: bool, scale: float):
    w = zeros(choice.shape, like=scores)
    for row in np.ndindex(choice.shape[:-1]):
        total = 0.0
        for c in choice[row]:
            total += scores[row + (int(c),)]
        for j, c in enumerate(choice[row]):
            g = scores[row + (int(c),)]
            w[row + (j,)] = scale * (g / total if renormalised else g)
    return w


def clamped_swiglu(
    z: np.ndarray, u: np.ndarray, *, alpha: float = 1.702, limit: float = 7.0
) -> np.ndarray:
    """y = a sigmoid(alpha a) (v + 1),  a = min(z, limit),  v = max(-limit, min(u, limit)).

    OpenAI 2025, sec. 2.2
    """
    z, u = numbers(z), numbers(u)
    y = zeros(z.shape, like=(z, u))
    for i in np.ndindex(z.shape):
        a = min(z[i], limit)
        v = max(min(u[i], limit), -limit)
        y[i] = a * _sigmoid(alpha * a) * (v + 1.0)
    return y


def clamped_gated_mlp(p: dict, x: np.ndarray, *, alpha: float = 1.702, limit: float = 7.0):
    """y = clamped_swiglu(x Wgate + bgate, x Wup + bup) Wdown + bdown.      OpenAI 2025, sec. 2.2"""
    z, u = linear(x, p["Wgate"], p.get("bgate")), linear(x, p["Wup"], p.get("bup"))
    return linear(clamped_swiglu(z, u, alpha=alpha, limit=limit), p["Wdown"], p.get("bdown"))


def experts(p: dict, x: np.ndarray, weights: np.ndarray, *, choice: np.ndarray, expert):
    """y_n = sum_j w_nj expert_c(x_n),  c = choice_nj.                    Shazeer et al. 2017, eq. 1

    p: the parameters of an expert with a leading axis of experts.
    x (..., D), weights and choice (..., k) -> (..., D).
    """
    x, weights = numbers(x), numbers(weights)
    y = zeros(x.shape, like=(x, weights, *p.values()))
    for row in np.ndindex(x.shape[:-1]):
        for j, c in enumerate(choice[row]):
            o = expert({name: a[int(c)] for name, a in p.items()}, x[row][None])
            for d in range(x.shape[-1]):
                y[row + (d,)] += weights[row + (j,)] * o[0, d]
    return y


def sigmoid_gated(p: dict, x: np.ndarray, *, f) -> np.ndarray:
    """y = sigmoid(x w) f(p[mlp], x).                                   Yang et al. 2024, sec. 2.2.2

    x (..., D), w (D, 1) -> (..., D).
    """
    z, o = linear(x, p["w"]), f(p["mlp"], x)
    y = zeros(o.shape, like=(z, o))
    for row in np.ndindex(x.shape[:-1]):
        for d in range(x.shape[-1]):
            y[row + (d,)] = _sigmoid(z[row + (0,)]) * o[row + (d,)]
    return y


def routed_block(
    p: dict, x: np.ndarray, before: np.ndarray, *, norm, attention, mlp, bias=None
) -> np.ndarray:
    """[y, before, z]: h = x + attention(norm1(x)),  y = h + m,  [m, z] = mlp(norm2(h)).

    mlp: `moe` with its settings.   x (..., D), before (..., X) -> (..., D + 2 X).
    Xiong et al. 2020, table 1, right
    """
    h = _sum(x, attention(p["attention"], norm(p["norm1"], x)))
    joined = mlp(p["mlp"], norm(p["norm2"], h), bias=bias)
    D, X = x.shape[-1], before.shape[-1]
    out = zeros(x.shape[:-1] + (D + 2 * X,), like=(h, before, joined))
    for row in np.ndindex(x.shape[:-1]):
        for d in range(D):
            out[row + (d,)] = h[row + (d,)] + joined[row + (d,)]
        for i in range(X):
            out[row + (D + i,)] = before[row + (i,)]
            out[row + (D + X + i,)] = joined[row + (D + i,)]
    return out


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = zeros(a.shape, like=(a, b))
    for i in np.ndindex(a.shape):
        out[i] = a[i] + b[i]
    return out


def moe(p: dict, x: np.ndarray, *, choose, weigh, expert, shared=None, bias=None) -> np.ndarray:
    """[y, z]: y = sum_j w_j expert_c(x) + shared(x),  w = weigh(z),  z = x W + b, side by side.

    Shazeer et al. 2017, eq. 1; DeepSeek team 2024b, eq. 12.   x (..., D) -> (..., D + X).
    """
    router = p["router"]
    z = linear(x, router["W"], router.get("b"))
    choice = choose(z, bias=bias)
    y = experts(p["experts"], x, weigh(z, choice=choice), choice=choice, expert=expert)
    more = None if shared is None else shared(p["shared"], x)
    joined = zeros(x.shape[:-1] + (x.shape[-1] + z.shape[-1],), like=(y, z, more))
    for row in np.ndindex(x.shape[:-1]):
        for d in range(x.shape[-1]):
            joined[row + (d,)] = y[row + (d,)] + (0.0 if more is None else more[row + (d,)])
        for i in range(z.shape[-1]):
            joined[row + (x.shape[-1] + i,)] = z[row + (i,)]
    return joined
