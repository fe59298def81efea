"""The laws of Kaplan et al. 2020, "Scaling Laws for Neural Language Models", and rules of batch
and rate.

N parameters without embeddings, D tokens, S updates, C in PF-days (8.64e19 FLOPs), L in nats a
token of WebText2 with GPT-2's vocabulary.

    L(N)     = (N_c / N)^0.076,  N_c = 8.8e13                      eq. 1.1, tokens without end
    L(D)     = (D_c / D)^0.095,  D_c = 5.4e13                      eq. 1.2, a large model, stopped
    L(C_min) = (C_c / C_min)^0.050,  C_c = 3.1e8 PF-days           eq. 1.3, the best size and batch
    B_crit   = B* / L^(1/0.21),  B* = 2e8 tokens                   eq. 1.4
    L(N, D)  = [(N_c/N)^(a_N/a_D) + D_c/D]^a_D                     eq. 1.5, constants of its own:
               a_N = 0.076, a_D = 0.103, N_c = 6.4e13, D_c = 1.8e13
    L(N, S)  = (N_c/N)^a_N + (S_c/S_min)^a_S                       eq. 1.6, constants of its own:
               a_N = 0.077, a_S = 0.76, N_c = 6.5e13, S_c = 2.1e3
    N = 1.3e9 C^0.73,  B = 2.0e6 C^0.24 tokens,  S = 5.4e3 C^0.03,  D = 2e10 C^0.27    appendix A

The constants were compared with quotations of the paper in public repositories, not with the paper
itself.  Those of L(N, S) but alpha_S and S_c, and the numbers of equations, were not found there.
"""

from __future__ import annotations

from ..arguments import check_number

PF_DAY = 8.64e19  # FLOPs: 1e15 a second for a day
BATCH_STAR = 2e8  # tokens


def loss_of_size(N: float) -> float:
    """L(N): nats a token of a model trained on tokens without end."""
    return _power("N", N, 8.8e13, 0.076)


def loss_of_tokens(D: float) -> float:
    """L(D): nats a token of a large model, stopped where it is best."""
    return _power("D", D, 5.4e13, 0.095)


def loss_of_compute(flops: float) -> float:
    """L(C_min): nats a token at the best size and a small batch.  flops: not PF-days."""
    check_number("flops", flops, above=0)
    return _power("flops", flops / PF_DAY, 3.1e8, 0.050)


def loss(N: float, D: float) -> float:
    """L(N, D): nats a token of N parameters trained on D tokens until the loss is best."""
    for name, value in (("N", N), ("D", D)):
        check_number(name, value, above=0)
    return ((6.4e13 / N) ** (0.076 / 0.103) + 1.8e13 / D) ** 0.103


def loss_of_steps(N: float, steps: float) -> float:
    """L(N, S_min): after so many updates with a batch far above the critical one."""
    return _power("N", N, 6.5e13, 0.077) + _power("steps", steps, 2.1e3, 0.76)


def critical_batch(loss: float) -> float:
    """B_crit: tokens of the batch that takes twice the fewest updates and twice the fewest tokens
    to that loss."""
    check_number("loss", loss, above=0)
    return BATCH_STAR / loss ** (1 / 0.21)


def optimum(flops: float) -> dict[str, float]:
    """{"N", "batch", "steps", "D"} of the best use of so many FLOPs; batch and D in tokens."""
    check_number("flops", flops, above=0)
    C = flops / PF_DAY
    return {"N": 1.3e9 * C**0.73, "batch": 2.0e6 * C**0.24, "steps": 5.4e3 * C**0.03,
            "D": 2e10 * C**0.27}  # fmt: skip


def needed_tokens(N: float) -> float:
    """5e3 N^0.74: the tokens from which on N parameters hardly overfit.    Kaplan et al. 2020,
    eq. 4.4"""
    check_number("N", N, above=0)
    return 5e3 * N**0.74


def noise_scale(small: tuple[float, float], large: tuple[float, float]) -> float:
    """B_simple = S / |G|^2 from the squared norms of gradients of two batches.

        |G|^2 = (B2 |g2|^2 - B1 |g1|^2) / (B2 - B1)       S = (|g1|^2 - |g2|^2) / (1/B1 - 1/B2)

    small, large: (batch, mean squared norm of its gradient).  The unit is that of the batch.  Both
    estimates are unbiased, their ratio is not; average the norms of many steps first.
    McCandlish et al. 2018, appendix A.1.  ValueError where the estimate of |G|^2 is not positive.
    """
    (B1, g1), (B2, g2) = small, large
    for name, value in (("small", B1), ("small", g1), ("large", B2), ("large", g2)):
        check_number(name, value, above=0)
    check_number("large", B2, above=B1)
    signal = (B2 * g2 - B1 * g1) / (B2 - B1)
    check_number("the estimate of |G|^2", signal, above=0)
    return (g1 - g2) / (1 / B1 - 1 / B2) / signal


def deepseek_rate(flops: float) -> float:
    """0.3118 C^-0.125: the highest learning rate of AdamW.    DeepSeek-AI 2024, eq. 1"""
    check_number("flops", flops, above=0)
    return 0.3118 * flops**-0.125


def _power(name: str, value: float, scale: float, exponent: float) -> float:
    check_number(name, value, above=0)
    return (scale / value) ** exponent
