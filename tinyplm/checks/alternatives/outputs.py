"""Outputs that differ: the head's matrix, caps, and the loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core import IGNORED
from .parts import Norm, cross_entropies, log_softmax, logits_and_targets, norm_of
from .site import NotHere, Site, alternative
from .weights import output_of

LOGITS, LOSS = r"logits$", r"loss$"


@alternative("head tied to the embeddings", at=LOGITS, formula="logits = hidden tokens^T")
def tied(site: Site) -> np.ndarray:
    """Theirs takes the embedding table for the output matrix, where ours has its own."""
    x = output_of(site).x
    return x @ site.parameter("body.tokens").T


@alternative("no final norm", at=LOGITS, formula="logits = x_L W")
def no_final_norm(site: Site) -> np.ndarray:
    """Theirs leaves out the norm in front of the head."""
    own = output_of(site)
    return own.of(site.value(f"layers.{site.layers - 1}"))


@alternative("final norm applied twice", at=LOGITS, formula="logits = norm(norm(x_L)) W")
def normed_twice(site: Site) -> np.ndarray:
    """Theirs normalises once more in front of the head."""
    own = output_of(site)
    norm: Norm = norm_of(site, "norm")
    return own.of(norm.y(site.value("norm")))


@alternative("a soft cap of the logits", at=LOGITS, formula="c tanh(logits / c)", fitted=True)
def capped(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs caps the logits, as in Gemma 2."""
    own = output_of(site)
    y = own.of(own.x)
    return site.fit("cap", lambda c: c * np.tanh(y / c), (30.0, 50.0, 20.0, 10.0, 5.0, 1.0))


@alternative("no soft cap of the logits", at=LOGITS, formula="logits = hidden W")
def uncapped(site: Site) -> np.ndarray:
    """Theirs does not cap the logits."""
    cap = getattr(site.model.config, "logit_cap", None)
    if cap is None:
        raise NotHere
    own = site.own()
    return cap * np.arctanh(own / cap)


@alternative("a factor of the logits", at=LOGITS, formula="c logits", fitted=True)
def scaled(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs multiplies the logits, as T5 and Cohere do, or divides them by a temperature."""
    own = output_of(site)
    y = own.of(own.x)
    return site.fit("factor", lambda c: c * y, (site.model.width**-0.5, 0.5, 2.0))


# ------------------------------------------------------------------------------------------- loss


def _mean(nll: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.array(nll.sum() / max(int((targets != IGNORED).sum()), 1))


@alternative("targets shifted twice", at=LOSS, formula="logits[t] against targets[t + 1]")
def shifted_twice(site: Site) -> np.ndarray:
    """Theirs shifts targets that are already shifted, so each position predicts two ahead."""
    logits, targets = _causal(site)
    return _mean(cross_entropies(logits[:, :-1], targets[:, 1:]), targets[:, 1:])


@alternative("targets not shifted", at=LOSS, formula="logits[t] against ids[t]")
def not_shifted(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs asks each position for its own token, not the next one."""
    logits, targets = _causal(site)
    ids = site.input("input_ids")
    yield "all tokens", _mean(cross_entropies(logits, ids), ids)
    if site.padding is not None:
        real = np.where(site.padding, ids, IGNORED)
        yield "without padding", _mean(cross_entropies(logits, real), real)
    back = np.concatenate([np.full_like(targets[:, :1], IGNORED), targets[:, :-1]], axis=1)
    yield "the targets a place later", _mean(cross_entropies(logits, back), back)


def _causal(site: Site) -> tuple[np.ndarray, np.ndarray]:
    logits, targets = logits_and_targets(site)
    if logits.ndim != 3:
        raise NotHere
    return logits, targets


@alternative("mean over all tokens", at=LOSS, formula="sum / (B T)")
def over_all(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs divides by the number of all positions, ours by that of the counted targets."""
    nll = cross_entropies(*logits_and_targets(site))
    yield "all positions", np.array(nll.sum() / site.input("targets.logits").size)
    if site.padding is not None:
        yield "all tokens but padding", np.array(nll.sum() / site.padding.sum())


@alternative("sum in place of the mean", at=LOSS, formula="sum of -log p")
def summed(site: Site) -> np.ndarray:
    """Theirs does not divide by the number of targets."""
    return np.array(cross_entropies(*logits_and_targets(site)).sum())


@alternative("mean of the samples' means", at=LOSS, formula="mean_b (sum_t / n_b)")
def per_sample(site: Site) -> np.ndarray:
    """Theirs averages each sample first, so that tokens of short samples count more."""
    logits, targets = _causal(site)
    counts = (targets != IGNORED).sum(1)
    return np.array((cross_entropies(logits, targets).sum(1) / np.maximum(counts, 1)).mean())


@alternative("sum over tokens, mean over samples", at=LOSS, formula="sum / B")
def by_samples(site: Site) -> np.ndarray:
    """Theirs divides by the number of samples, not of targets."""
    nll = cross_entropies(*logits_and_targets(site))
    return np.array(nll.sum() / len(site.input("targets.logits")))


@alternative("ignored targets counted", at=LOSS, formula="-100 is no exception")
def ignored_counted(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs counts positions that have no target, such as padding, with some token for it."""
    logits, targets = _causal(site)
    ids = site.input("input_ids")
    after = np.concatenate([ids[:, 1:], np.full_like(ids[:, :1], IGNORED)], axis=1)
    pad = getattr(site.model.config, "pad_token_id", None)
    fillings = {"token 0": np.zeros_like(ids), "the next token": after, "the token itself": ids}
    if pad is not None:
        fillings["the padding token"] = np.full_like(ids, pad)
    fillings["the last token of the vocabulary"] = np.full_like(ids, logits.shape[-1] - 1)
    for name, filling in fillings.items():
        filled = np.where(targets == IGNORED, filling, targets)
        yield name, _mean(cross_entropies(logits, filled), filled)
        yield (
            f"{name}, each divided by the counted",
            np.array(cross_entropies(logits, filled).sum() / (targets != IGNORED).sum()),
        )


@alternative("label smoothing", at=LOSS, formula="(1 - e) nll - e mean_v log p_v", fitted=True)
def smoothed(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs mixes the targets with the uniform distribution.

    Any loss fits some e, so only the customary ones are tried.
    """
    logits, targets = logits_and_targets(site)
    counted = targets != IGNORED
    nll, uniform = cross_entropies(logits, targets), -log_softmax(logits).mean(-1) * counted
    for e in (0.1, 0.05, 0.2, 0.01):
        yield f"e {e:g}", _mean((1 - e) * nll + e * uniform, targets)


@alternative("logarithm to base 2", at=LOSS, formula="-log2 p")
def bits(site: Site) -> np.ndarray:
    """Theirs is in bits, ours in nats."""
    logits, targets = logits_and_targets(site)
    return _mean(cross_entropies(logits, targets), targets) / np.log(2.0)


@alternative("perplexity", at=LOSS, formula="exp(loss)")
def perplexity(site: Site) -> np.ndarray:
    """Theirs is the exponential of the loss."""
    return np.exp(_mean(*_nll(site)))


def _nll(site: Site) -> tuple[np.ndarray, np.ndarray]:
    logits, targets = logits_and_targets(site)
    return cross_entropies(logits, targets), targets
