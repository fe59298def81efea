"""How parts are joined: residuals, what a part reads, embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...kernels.activation import ACTIVATIONS
from .attention_parts import attention_of
from .parts import LINEAR, NORM, by_head, linear_of, merged, norm_of, reads
from .rotary import tokens_before
from .site import NotHere, Site, alternative, layers_own

SUM = layers_own("residual")
OUTPUT = r"layers\.\d+$"


def attended(site: Site, x: np.ndarray) -> np.ndarray:
    """This layer's attention of x: projections, attention, output projection."""
    own = attention_of(site)
    q, k, v = (linear_of(site, f"attention.{n}").of(x) for n in "qkv")
    H, K = own.q.shape[1], own.k.shape[1]
    o = own.but(q=by_head(q, H), k=by_head(k, K), v=by_head(v, K))
    return linear_of(site, "attention").of(merged(o))


def fed(site: Site, x: np.ndarray) -> np.ndarray:
    """This layer's feed-forward part of x."""
    up = linear_of(site, "mlp.up").of(x)
    gated = site.has("mlp.gate")
    a = activation(site, linear_of(site, "mlp.gate").of(x) if gated else up)
    return linear_of(site, "mlp").of(a * up if gated else a)


def activation(site: Site, x: np.ndarray) -> np.ndarray:
    """The config's activation of x."""
    for name in ("hidden_act", "activation_function"):
        if hasattr(site.model.config, name):
            return ACTIVATIONS[getattr(site.model.config, name)](x)[0]
    raise NotHere


# ------------------------------------------------------------------------------------------- sums


def terms(site: Site) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, f, n) of the sum y = x + f here, where the part f reads n."""
    if not site.pre_norm:
        raise NotHere
    if site.role == "residual":
        names = (site.before, "attention", "norm1")
    else:
        names = ("residual", "mlp", "norm2")
    x, f, n = map(site.value, names)
    return x, f, n


@alternative("no residual", at=f"{SUM}|{OUTPUT}", formula="y = f(norm(x))")
def no_residual(site: Site) -> np.ndarray:
    """Theirs does not add the input of the part to its output."""
    return terms(site)[1]


@alternative("the part is not added", at=f"{SUM}|{OUTPUT}", formula="y = x")
def only_input(site: Site) -> np.ndarray:
    """Theirs leaves out the output of the part, or adds it later, as parallel layers do."""
    return terms(site)[0]


@alternative("residual after the norm", at=f"{SUM}|{OUTPUT}", formula="y = norm(x) + f(norm(x))")
def normed_residual(site: Site) -> np.ndarray:
    """Theirs adds the normalised input, where ours adds the input itself."""
    _, f, n = terms(site)
    return n + f


@alternative("residual of the layer's input", at=OUTPUT, formula="y = x_i + mlp")
def skipped_attention(site: Site) -> np.ndarray:
    """Theirs adds the feed-forward output to the layer's input, which drops the attention."""
    return site.value(site.before) + terms(site)[1]


@alternative("a factor of the part", at=f"{SUM}|{OUTPUT}", formula="y = x + c f", fitted=True)
def scaled_part(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs multiplies the output of the part before the sum."""
    x, f, _ = terms(site)
    return site.fit("factor", lambda c: x + c * f, (0.5, 2.0, 0.1, -1.0))


@alternative("a factor of the residual", at=f"{SUM}|{OUTPUT}", formula="y = c x + f", fitted=True)
def scaled_input(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs multiplies the residual before the sum."""
    x, f, _ = terms(site)
    return site.fit("factor", lambda c: c * x + f, (0.5, 2.0, 0.1, -1.0))


# ----------------------------------------------------------------------------- what a part reads


def _normed(site: Site) -> str:
    role = reads(site, site.role)
    if not role.endswith(("norm1", "norm2")):
        raise NotHere
    return role


@alternative("input not normalised", at=LINEAR, formula="f(x), not f(norm(x))")
def not_normed(site: Site) -> np.ndarray:
    """Theirs leaves out the norm in front of this part."""
    norm = _normed(site)
    return linear_of(site).of(site.value(site.before if norm == "norm1" else "residual"))


@alternative("input normalised first (pre-norm)", at=LINEAR, formula="f(norm(x)), not f(x)")
def normed_first(site: Site) -> np.ndarray:
    """Theirs normalises what this part reads, where ours normalises after the residual addition."""
    if site.pre_norm or site.role in ("attention", "mlp"):
        raise NotHere
    role = "norm1" if site.role.startswith("attention") else "norm2"
    own = linear_of(site)
    return own.of(norm_of(site, role).y(own.x))


@alternative("reads the layer's input", at=layers_own(r"mlp\.(gate|up)"), formula="f(norm(x_i))")
def parallel(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs computes the feed-forward part from the layer's input, in parallel to attention."""
    own = linear_of(site)
    if not site.pre_norm:
        raise NotHere
    yield "by the first norm", own.of(site.value("norm1"))
    yield "by the second norm", own.of(norm_of(site, "norm2").y(site.value(site.before)))


# ------------------------------------------------------------------------------------- embeddings

EMBEDDED = r"(embeddings|tokens)$"
FIRST = r"(embeddings|norm)$"


@alternative("embeddings scaled", at=EMBEDDED, formula="sqrt(D) * tokens[ids]")
def scaled(site: Site) -> np.ndarray:
    """Theirs multiplies the rows of the table by the root of the width, as in Gemma and T5."""
    rest = site.value(site.name) - site.value("tokens")
    return site.theirs.shape[-1] ** 0.5 * site.value("tokens") + rest


@alternative("a factor of the embeddings", at=EMBEDDED, formula="c * tokens[ids]", fitted=True)
def factor(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs multiplies the rows of the table."""
    x = site.value("tokens")
    rest = site.value(site.name) - x
    return site.fit("factor", lambda c: c * x + rest, (0.5, 2.0))


def _with_positions(site: Site, positions: np.ndarray | None) -> np.ndarray:
    """The sum of the embeddings with rows of other positions, through the norm if it is seen."""
    table = site.parameter("body.positions")
    T = site.theirs.shape[1]
    own = site.trace.inputs.get("position_ids")
    own = np.arange(T) if own is None else own
    if positions is not None and (positions.min() < -len(table) or positions.max() >= len(table)):
        raise NotHere
    change = (0 if positions is None else table[positions]) - table[own]
    return _summed(site, change)


def _summed(site: Site, change: np.ndarray) -> np.ndarray:
    """The embeddings with this added to their sum."""
    if site.name == "norm":
        norm = norm_of(site)
        return norm.y(norm.x + change)
    return site.value("embeddings") + change


@alternative("positions off by one", at=FIRST, formula="positions[t + 1]")
def shifted(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs looks up the row of the next or previous position."""
    T = np.arange(site.theirs.shape[1])
    for name, positions in (("+1", T + 1), ("-1", np.maximum(T - 1, 0)), ("-1", T - 1)):
        try:
            yield name, _with_positions(site, positions)
        except NotHere:
            continue


@alternative("positions counted differently over padding", at=FIRST)
def over_padding(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs counts positions over padding where ours does not, or the other way round."""
    yield "padding counts", _with_positions(site, np.arange(site.theirs.shape[1]))
    yield "padding does not count", _with_positions(site, tokens_before(site))


@alternative("no positions", at=FIRST, formula="tokens[ids]")
def no_positions(site: Site) -> np.ndarray:
    """Theirs does not add the embeddings of positions."""
    return _with_positions(site, None)


@alternative("positions reversed", at=FIRST, formula="positions[T - 1 - t]")
def reversed_positions(site: Site) -> np.ndarray:
    """Theirs counts positions from the end."""
    return _with_positions(site, np.arange(site.theirs.shape[1])[::-1])


@alternative("no segments", at=FIRST, formula="tokens[ids] + positions[t]")
def no_segments(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """Theirs does not add the embeddings of token types, or takes all for type 0."""
    table, types = site.parameter("body.segments"), site.input("token_type_ids")
    yield "none added", _summed(site, -table[types])
    yield "all of type 0", _summed(site, table[0] - table[types])
    yield "types inverted", _summed(site, table[1 - types] - table[types])


@alternative("no norm of the embeddings", at=r"embeddings$")
def no_embedding_norm(site: Site) -> np.ndarray:
    """Theirs does not normalise the sum of the embeddings."""
    if site.pre_norm:
        raise NotHere
    return norm_of(site, "norm").x


@alternative("norm of the embeddings", at=NORM)
def embedding_norm(site: Site) -> np.ndarray:
    """Theirs normalises the token embeddings alone, before positions are added."""
    if site.name != "norm" or site.pre_norm:
        raise NotHere
    own = norm_of(site)
    rows = site.value("tokens")
    return own.y(rows) + (own.x - rows)
