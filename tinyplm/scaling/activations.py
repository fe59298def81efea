"""Bytes that a training step of our own walk of decoders holds, from a config alone.

Of B texts of T tokens, N = B T, in float32 (w = 4 bytes a number) or float64 (w = 8): D the width,
F that of the feed-forward layer, H heads and K key/value heads of E numbers, V the vocabulary.
What the backward closures of one layer keep (`activations`), in numbers:

    norms          2 (N D + N)           xhat and r of both
    attention      N D                   its input, of which q, k and v are products
                   N H E + 2 N K E       scaled q; k and v, of which rotary positions turn k
                   N H E                 the heads side by side, input of Wo
      T <= 128     B H T^2               the probabilities P
      T > 128      N H E + 2 N H         by blocks: o, the largest score, and 1 / z; and booleans of
                                         the partly visible keys, n (n - 1) bytes a block of n
    feed-forward   N D + N F             its input and W1's product; a gated one has two products

Once: N D + N of the last norm; the hidden states, their gradient dx and the head's gradient dW,
N D + N D + V D, or with N < D the gradient of the logits, N V, in the place of dW (the loss forms
its gradients in its forward); rotary tables w T R (R numbers of a head turn) or positions, 8 T
bytes; and up to 128 tokens the mask, T^2 bytes for each window.

Dropout keeps a byte a number: of both sublayers 2 N D, of the embeddings N D, and up to 128 tokens
of P, beside the masked P, (w + 1) B H T^2.  By blocks its mask is drawn again.

float16: the norms and P are held in float32, as are the scaled q, k and v.  Beside them stand the
norms' inputs, their gamma and beta in float32, and up to 128 tokens q, k and v, in 16 bits.

With checkpointing k, only the inputs of each k layers are kept, N D; in the backward one group's
layers are held in full, and the inputs of the groups below.

`training_memory` adds the states and what is only held for a while, at the larger of two moments:

    the loss       two chunks of n logits (n = 1024, or all), n V each, or with more than one chunk
                   n V + V D, whichever is more; the embeddings, N D
    the backward   of the uppermost layer, the larger of its sublayers', beside two gradients of the
                   stream, N D each:
      feed-forward 4 N F + N D + 2 D F;  gated 5 N F + D F or 4 N F + 2 N D + 3 D F
      attention    2 N D + 2 N H E, the gradients of the feed-forward layer, and of Wo;
                   then dq, dk and dv, N H E + 2 N K E, and  T <= 128:  2 B H T^2;  or by blocks
                   N H (E + 1) + 2 N K (E + 1), N K E, and two parts of at most 2^18 scores

Each of `workers` threads has its own share of the texts, but dW, chunks, and the layer's gradients
whole.  Not counted: ids, single numbers, small vectors, and
what the allocator leaves unused between arrays.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

from ..arguments import MOST, check_choice, check_flag, check_whole, mismatch
from ..core import flatten
from ..families import check_task, shapes_of
from ..kernels.block_attention import BLOCK, PART
from ..models.causal_lm import cache_layout
from .memory import BYTES, states

WALKED = ("gpt2", "llama", "mistral", "qwen2", "internlm")  # families that the formulas describe
CHUNK = 1024  # tokens, of kernels.cross_entropy


class _Sizes(NamedTuple):
    """A step: the letters of the module's docstring, and what of dropout there is."""

    B: int
    T: int
    L: int
    D: int
    F: int
    H: int
    K: int
    E: int
    V: int
    w: int
    f: int  # bytes of what is held in at least float32
    gated: bool
    affine: int  # vectors of a norm
    rotary: int  # numbers of a head that turn; 0 for learned positions
    windows: tuple[int | None, ...]
    drops: dict[str, bool]

    @property
    def N(self) -> int:
        return self.B * self.T

    @property
    def half(self) -> bool:
        return self.w < self.f

    @property
    def products(self) -> bool:
        """Whether the head's gradient is kept as two factors."""
        return self.N < self.D


def activations(
    family: ModuleType,
    config: Any,
    *,
    batch: int,
    length: int,
    dtype: str = "float32",
    checkpointing: int = 0,
    dropout: bool = False,
) -> dict[str, int]:
    """Bytes that the closures hold between the forward and the backward of a step, by part.

    -> {"norms", "attention", "feed-forward", "dropout", "inputs", "shared", "head"}, those above 0.
    inputs: those of groups of `checkpointing` layers; shared: the mask, and what positions need;
    head: hidden states and gradients of the loss.   dropout: whether the config's rates apply.
    bfloat16 counts as float16, in which our walk computes.   ValueError for a family that is not
    in WALKED, for a text longer than the context.
    """
    s = _sizes(family, config, batch, length, dtype, dropout)
    check_whole("checkpointing", checkpointing, 0, MOST)
    return _kept(s, checkpointing)


def training_memory(
    family: ModuleType,
    config: Any,
    *,
    batch: int,
    length: int,
    dtype: str = "float32",
    checkpointing: int = 0,
    dropout: bool = False,
    workers: int = 1,
    optimizer: str = "adamw",
) -> dict[str, int]:
    """Bytes at the peak of a training step of `batch` texts on the host, by part.

    -> {"weights", "gradients", "moments", "activations", "logits", "temporary"}: logits are what
    the head and the loss hold, with their gradients; temporary: arrays of the step at the peak,
    with the gradients of one layer.   Other arguments and errors as for `activations`.
    """
    check_whole("batch", batch, 1, MOST)
    check_whole("workers", workers, 1, MOST)
    check_whole("checkpointing", checkpointing, 0, MOST)
    workers = min(workers, batch)
    s = _sizes(family, config, -(-batch // workers), length, dtype, dropout)
    found = {
        part: round(n)
        for part, n in states(family, config, dtype=dtype, optimizer=optimizer).items()
    }
    moments = (_at_the_loss(s, checkpointing), _at_the_backward(s, checkpointing))
    largest = max(moments, key=lambda parts: sum(parts.values()))
    return {**found, **{part: workers * n for part, n in largest.items()}}


def _sizes(
    family: ModuleType, config: Any, batch: int, length: int, dtype: str, dropout: bool
) -> _Sizes:
    name = family.__name__.rpartition(".")[2]
    if name not in WALKED:
        expected = f"one of {', '.join(WALKED)}, whose activations are counted"
        raise mismatch("model", expected, family.Config.MODEL_TYPE)
    check_whole("batch", batch, 1, MOST)
    check_whole("length", length, 1, config.context or MOST)
    check_choice("dtype", dtype, BYTES)
    check_flag("dropout", dropout)
    leaves = flatten(shapes_of(family, config, check_task(family, None)))
    layer, width = "body.layers.0", BYTES[dtype]
    gated = f"{layer}.mlp.Wgate" in leaves
    heads = config.heads
    rates = {
        "stream": getattr(config, "resid_pdrop", 0),
        "embeddings": getattr(config, "embd_pdrop", 0),
        "attention": getattr(config, "attn_pdrop", getattr(config, "attention_dropout", 0)),
    }
    windows = cache_layout(family, config)["windows"]
    E = leaves[f"{layer}.attention.Wq"][1] // heads
    return _Sizes(
        B=batch,
        T=length,
        L=len(windows),
        D=leaves["body.tokens"][1],
        F=leaves[f"{layer}.mlp.{'Wgate' if gated else 'W1'}"][1],
        H=heads,
        K=leaves[f"{layer}.attention.Wk"][1] // E,
        E=E,
        V=leaves["body.tokens"][0],
        w=width,
        f=max(4, width),
        gated=gated,
        affine=1 + (f"{layer}.norm1.beta" in leaves),
        rotary=0 if "body.positions" in leaves else config.rotary_width,
        windows=windows,
        drops={part: dropout and rate > 0 for part, rate in rates.items()},
    )


# ----------------------------------------------------------------------------- what closures keep


def _kept(s: _Sizes, size: int) -> dict[str, int]:
    """By part; size: of the groups of checkpointing."""
    parts = dict.fromkeys(("norms", "attention", "feed-forward", "dropout"), 0)
    for window in () if size else s.windows:
        for part, n in _layer(s, window).items():
            parts[part] += n
    parts["norms"] += _norm(s)
    if s.drops["embeddings"]:
        parts["dropout"] += s.N * s.D
    parts["inputs"] = -(-s.L // size) * s.N * s.D * s.w if size else 0
    parts["shared"] = _shared(s)
    parts["head"] = 2 * s.N * s.D * s.w + s.V * (s.N if s.products else s.D) * s.f
    return {part: n for part, n in parts.items() if n}


def _layer(s: _Sizes, window: int | None) -> dict[str, int]:
    attention, dropped = _attention(s, window)
    wide = (2 if s.gated else 1) * s.N * s.F
    return {
        "norms": 2 * _norm(s),
        "attention": attention,
        "feed-forward": (s.N * s.D + wide) * s.w,
        "dropout": dropped + (2 * s.N * s.D if s.drops["stream"] else 0),
    }


def _norm(s: _Sizes) -> int:
    kept = (s.N * s.D + s.N) * s.f
    return kept + (s.N * s.D * s.w + s.affine * s.D * s.f if s.half else 0)


def _attention(s: _Sizes, window: int | None) -> tuple[int, int]:
    """(bytes, those of dropout)."""
    q, kv, dropping = s.N * s.H * s.E, 2 * s.N * s.K * s.E, s.drops["attention"]
    both = (s.N * s.D + q) * s.w + (q + kv) * s.f
    if s.T > BLOCK:
        blocks = q * s.w + 2 * s.N * s.H * s.f + _partly_visible(s.T, window)
        return both + blocks, 8 * s.B if dropping else 0
    scores = s.B * s.H * s.T**2
    both += (q + kv) * s.w if s.half else 0
    return both + scores * s.f, scores * (s.f + 1) if dropping else 0


def _block(window: int | None) -> int:
    """Queries at a time, of texts of more than BLOCK tokens."""
    return BLOCK // 2 if window is not None and window <= 4 * BLOCK else BLOCK


def _partly_visible(T: int, window: int | None) -> int:
    """Booleans of layers.mask.Visible.block, for all blocks of one text."""
    block, total = _block(window), 0
    for first in range(0, T, block):
        n = min(block, T - first)
        total += n * (n - 1)
        if window is not None:
            total += n * max(0, first + n - window - max(0, first - window + 1))
    return total


def _shared(s: _Sizes) -> int:
    tables = s.T * s.rotary * s.w if s.rotary else 8 * s.T
    masks = len(set(s.windows)) if 1 < s.T <= BLOCK else 0
    return tables + masks * s.T**2


# ------------------------------------------------------------------------------ the largest moment


def _at_the_loss(s: _Sizes, size: int) -> dict[str, int]:
    kept = _kept(s, size)
    head = kept.pop("head")
    n = s.N if s.products else min(CHUNK, s.N)
    chunks = n * s.V
    if s.N > n:
        chunks += max(min(n, s.N - n) * s.V, s.V * s.D)
    if s.products:
        chunks = 0  # they are what is kept
    return {
        "activations": sum(kept.values()),
        "logits": head + chunks * s.f,
        "temporary": s.N * s.D * s.w,
    }


def _at_the_backward(s: _Sizes, size: int) -> dict[str, int]:
    """Of the uppermost layer; with checkpointing, of the group that is largest with its inputs."""
    kept = _kept(s, size)
    kept.pop("head")
    held = sum(kept.values())
    if size:
        held += max(
            sum(sum(_layer(s, window).values()) for window in s.windows[first : first + size])
            + (s.L - first) // -size * s.N * s.D * s.w
            for first in range(0, s.L, size)
        )
    return {
        "activations": held,
        "logits": 2 * s.N * s.D * s.w + (s.N * s.V * s.f if s.products else 0),
        "temporary": s.N * s.D * s.w + max(_of_feed_forward(s), _of_attention(s)),
    }


def _of_feed_forward(s: _Sizes) -> int:
    wide, stream, matrix = s.N * s.F, s.N * s.D, s.D * s.F
    if s.gated:
        return max(5 * wide + matrix, 4 * wide + 2 * stream + 3 * matrix) * s.w
    return (4 * wide + stream + 2 * matrix) * s.w


def _of_attention(s: _Sizes) -> int:
    q, kv = s.N * s.H * s.E, 2 * s.N * s.K * s.E
    gradients = (3 if s.gated else 2) * s.D * s.F + s.D * s.H * s.E
    numbers = 2 * s.N * s.D + 2 * q + gradients
    if s.T <= BLOCK:
        return numbers * s.w + (q + kv + 2 * s.B * s.H * s.T**2) * s.f
    ones = s.N * s.H + 2 * s.N * s.K
    spaces = 2 * max(_largest_part(s, window) for window in set(s.windows)) + kv // 2
    return numbers * s.w + (2 * (q + kv) + ones + spaces) * s.f


def _largest_part(s: _Sizes, window: int | None) -> int:
    """Scores that kernels.block_attention has at a time."""
    block, G = _block(window), s.H // s.K
    queries = [(first, min(first + block, s.T)) for first in range(0, s.T, block)]
    keys = [last - (max(0, first - window + 1) if window else 0) for first, last in queries]
    heads = min(s.K, max(1, PART // (G * block * max(keys))))
    return heads * G * max((last - first) * n for (first, last), n in zip(queries, keys))
