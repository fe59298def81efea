"""Parameters and FLOPs of a model, from its config alone: nothing is allocated.

A multiply-add counts as two FLOPs.  Counted are the products of matrices, which are nearly all of
the work; norms, activations, softmax and look-ups are not.  Per token, a matrix (I, J) takes I J
multiply-adds, of the experts only the chosen ones; of each pair of a query and a key that it may
see, attention takes H E for the score and H E for the value.

    forward of a text of T tokens    sum of matrices * T + sum over the layers of 2 H E * pairs
    pairs                            T^2 in an encoder;  T (T + 1) / 2 in a decoder, where the query
                                     at place t (from 1) sees t keys, or min(t, w) in a window of w
    backward                         twice the forward: each product has two factors with a gradient
    a training step                  6 FLOPs a multiply-add of the forward
    a decoded token                  2 FLOPs a multiply-add of one token with the keys before it

So a trained token takes 6 N and the term of attention, with N the parameters of the matrices
(Kaplan et al. 2020, sec. 2.1).
Latent attention decodes in its absorbed form, H (2 C + R) a pair (layers/latent.py).
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from ..arguments import MOST, check_number, check_whole, mismatch
from ..core import flatten
from ..families import LANGUAGE_MODELS, MULTI_TOKEN, check_task, is_seq2seq, shapes_of
from ..models.causal_lm import cache_layout

PARTS = ("embeddings", "attention", "feed-forward", "norms", "head", "other")
# of a head, what is computed at each predicted place; the rest once for a text
_EACH_PLACE = ("head.W", "head.transform.W", "head.tokens.W", "head.span.W")

Shape = tuple[int, ...]


def parameters(
    family: ModuleType, config: Any, *, task: str | None = None, active: bool = False
) -> dict[str, int]:
    """{part: number of parameters}, in the order of PARTS; the parts that a model has.

    active: of each layer's experts only those that a token sees.  A tied head has no parameters of
    its own; feed-forward includes the routers, other the convolution of DeBERTa-v2 and the
    projections of multi-token modules.
    """
    task = check_task(family, task)
    counts = dict.fromkeys(PARTS, 0)
    for path, shape in flatten(shapes_of(family, config, task)).items():
        counts[part_of(path)] += _seen(path, shape, config) if active else math.prod(shape)
    return {part: n for part, n in counts.items() if n}


def part_of(path: str) -> str:
    """The part of a model that a parameter belongs to, by its path."""
    names = path.split(".")
    if any("norm" in name for name in names) or names[-1] in ("gamma", "beta"):
        return "norms"
    if names[0] == "head":
        return "head"
    for name, part in (("attention", "attention"), ("cross", "attention"), ("mlp", "feed-forward")):
        if name in names:
            return part
    return "other" if {"convolution", "multi_token"} & {*names} else "embeddings"


def forward_multiply_adds(
    family: ModuleType,
    config: Any,
    *,
    length: int,
    target: int | None = None,
    predicted: float | None = None,
    task: str | None = None,
) -> dict[str, float]:
    """{"embeddings", "attention", "pairs", "feed-forward", "head"}: of the forward pass of a text.

    length     tokens T; of an encoder-decoder those of the source
    target     of an encoder-decoder: tokens of the target (default: as many)
    predicted  the places at which a head over the vocabulary, or of each token, is computed, such
               as the masked ones, or their mean number; by default all.  Other heads count once.
    Whole numbers, unless predicted is not.  ValueError for DeBERTa and XLNet, whose scores have
    products with relative positions, and for modules for later tokens.
    """
    task, leaves = _counted(family, config, task)
    check_whole("length", length, 1, MOST)
    check_whole("target", target, 1, MOST, or_none=True)
    check_number("predicted", predicted, least=0, or_none=True)
    both = is_seq2seq(family)
    if target is not None and not both:
        raise mismatch("target", "None, since it is not an encoder-decoder", target)
    T = length if target is None else target
    places = T if predicted is None else predicted
    counts: dict[str, float] = {}
    for path, shape in leaves.items():
        if not _is_matrix(path, shape):
            continue
        times: float = length if _of_source(path) or not both else T
        if path.startswith("head."):
            times = places if path in _EACH_PLACE else 1
        _add(counts, path, _seen(path, shape, config) * times * _repeats(path, config))
    if _tied(leaves, task):
        counts["head"] = counts.get("head", 0) + math.prod(leaves["body.tokens"]) * places
    windows = iter(_windows(family, config))
    counts["pairs"] = 0
    for place, each in _attentions(leaves).items():
        if ".cross" in place:
            pairs = T * length
        elif hasattr(family, "TASKS") or ".encoder." in place:
            pairs = length * length
        else:
            pairs = causal_pairs(T, next(windows))
        counts["pairs"] += each * pairs * _repeats(place, config)
    return counts


def causal_pairs(length: int, window: int | None = None) -> int:
    """The sum over t = 1 ... T of min(t, w): pairs of a query and a key that it may see."""
    check_whole("length", length, 0, MOST)
    check_whole("window", window, 1, MOST, or_none=True)
    w = length if window is None else min(window, length)
    return w * (w + 1) // 2 + (length - w) * w


def training_flops(
    family: ModuleType,
    config: Any,
    *,
    batch: int,
    length: int,
    target: int | None = None,
    predicted: float | None = None,
    task: str | None = None,
) -> float:
    """FLOPs of a training step, 6 for each multiply-add of the forward pass of `batch` texts.

    The arguments are those of forward_multiply_adds.  Recomputation, the optimiser and the loss are
    not counted.
    """
    check_whole("batch", batch, 1, MOST)
    sizes: dict[str, Any] = {"length": length, "target": target, "predicted": predicted}
    return 6 * batch * sum(forward_multiply_adds(family, config, task=task, **sizes).values())


def decoding_flops(
    family: ModuleType, config: Any, *, before: int, source: int | None = None
) -> int:
    """FLOPs of one more token after `before` tokens in the cache.

    source: of an encoder-decoder, the tokens whose keys and values its decoder attends to, which
    are computed once and not counted.  ValueError for an encoder.
    """
    task, leaves = _counted(family, config, None)
    check_whole("before", before, 0, MOST)
    check_whole("source", source, 1, MOST, or_none=True)
    both = is_seq2seq(family)
    if hasattr(family, "TASKS"):
        raise mismatch("model", "a decoder, or an encoder-decoder", "an encoder")
    if (source is None) == both:
        expected = "the number of source tokens" if both else "None, since it has no encoder"
        raise mismatch("source", expected, source)
    total = 0
    for path, shape in leaves.items():
        if _is_matrix(path, shape) and not _of_source(path):
            total += _seen(path, shape, config)
    if _tied(leaves, task):
        total += math.prod(leaves["body.tokens"])
    windows = iter(_windows(family, config))
    for place, each in _attentions(leaves, absorbed=config).items():
        if ".cross" in place:
            total += each * (source or 0)
        elif ".encoder." not in place:
            total += each * min(before + 1, next(windows) or before + 1)
    return 2 * total


def is_tied(family: ModuleType, config: Any) -> bool:
    """Whether the head over the vocabulary is the table of tokens."""
    task = check_task(family, None)
    return _tied(flatten(shapes_of(family, config, task)), task)


# -------------------------------------------------------------------------------------- the leaves


def _counted(family: ModuleType, config: Any, task: str | None) -> tuple[str, dict[str, Shape]]:
    """(task, {path: shape}); ValueError for what these formulas do not describe."""
    task = check_task(family, task)
    leaves = flatten(shapes_of(family, config, task))
    if "body.relative" in leaves or any(path.endswith("attention.Wr") for path in leaves):
        expected = "a family whose attention has no products with relative positions"
        raise mismatch("model", expected, family.Config.MODEL_TYPE)
    if task == MULTI_TOKEN:
        raise mismatch("task", "one without modules for later tokens", task)
    return task, leaves


def _is_matrix(path: str, shape: Shape) -> bool:
    """Whether a token is multiplied by it."""
    name = path.rpartition(".")[2]
    return len(shape) > 1 and (name[0] in "Ww" or name == "score")


def _of_source(path: str) -> bool:
    """Whether it sees the tokens of an encoder-decoder's source."""
    return ".encoder." in path or path.endswith((".cross.Wk", ".cross.Wv"))


def _seen(path: str, shape: Shape, config: Any) -> int:
    """The numbers of a parameter that a token sees."""
    return math.prod((config.top_k, *shape[1:]) if ".experts." in path else shape)


def _repeats(path: str, config: Any) -> int:
    """How often a layer is applied: ALBERT's groups share their parameters."""
    G = getattr(config, "num_hidden_groups", None) if ".layers." in path else None
    if G is None:
        return 1
    L, group = config.num_hidden_layers, int(path.split(".")[2])
    return sum(int(i / (L / G)) == group for i in range(L))


def _tied(leaves: dict[str, Shape], task: str) -> bool:
    """Whether the head over the vocabulary is the table of tokens."""
    return "head.W" not in leaves and (task in LANGUAGE_MODELS or "head.bias" in leaves)


def _add(counts: dict[str, float], path: str, products: float) -> None:
    part = part_of(path)
    counts[part] = counts.get(part, 0) + products


def _attentions(leaves: dict[str, Shape], *, absorbed: Any = None) -> dict[str, int]:
    """{place: multiply-adds of a pair of a query and a key, over all heads}, by layer.

    absorbed: the config, for latent attention in its absorbed form.
    """
    found = {}
    for path, shape in leaves.items():
        place, _, name = path.rpartition(".")
        if name != "Wo" or not place.endswith((".attention", ".cross")):
            continue
        if f"{place}.Wqkv" in leaves:
            found[place] = 2 * shape[0]
        else:
            query = leaves.get(f"{place}.Wq") or leaves[f"{place}.Wuq"]
            found[place] = query[1] + shape[0]
        if absorbed is not None and f"{place}.Wdkv" in leaves:
            C, R = leaves[f"{place}.Wdkv"][1], leaves[f"{place}.Wkr"][1]
            found[place] = absorbed.num_attention_heads * (2 * C + R)
    return found


def _windows(family: ModuleType, config: Any) -> tuple[int | None, ...]:
    """The window of each layer of a decoder."""
    if hasattr(family, "TASKS"):
        return ()
    if is_seq2seq(family):
        return (None,) * config.cache_sizes["layers"]
    return cache_layout(family, config)["windows"]
