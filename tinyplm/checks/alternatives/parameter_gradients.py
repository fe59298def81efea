"""Gradients of parameters that differ, where those of all intermediates agree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...models.names import expand, leaves_of, names_of
from .site import NotHere, Site, alternative
from .weights import output_of

ANY = r".*"


def path_of(site: Site) -> str:
    """The path in the tree of the one array that the hub's parameter holds."""
    names = names_of(site.model.family, site.model.config)
    for hub, paths, _ in expand(names, leaves_of(site.model.params)):
        if hub == site.name and len(paths) == 1:
            return paths[0]
    raise NotHere


def table_terms(site: Site) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(ids, drows, look-up's term, head's term) of the gradient of a table; zero without a head."""
    path = path_of(site)
    if path == "body.tokens":
        ids, d = site.input("input_ids"), site.gradient("tokens")
    elif path == "body.positions":
        d = site.gradient("embeddings" if site.pre_norm else "positions")
        given = site.trace.inputs.get("position_ids")
        ids = np.broadcast_to(np.arange(d.shape[1]) if given is None else given, d.shape[:2])
    elif path == "body.segments":
        ids, d = site.input("token_type_ids"), site.gradient("segments")
    else:
        raise NotHere
    looked = np.zeros(site.theirs.shape)
    np.add.at(looked, ids, d)
    head = np.zeros(site.theirs.shape)
    if path == "body.tokens" and site.has("logits") and site.optional("head.W") is None:
        x, dlogits = output_of(site).x, site.gradient("logits")
        head = dlogits.reshape(-1, dlogits.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    if not site.is_ours(looked + head):
        raise NotHere
    return ids, d, looked, head


@alternative(
    "gradients of repeated ids assigned, not added", at=ANY, formula="dtable[ids] = d",
    kind="parameter",
)  # fmt: skip
def assigned(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The table's gradient has one occurrence of each id, where it should have their sum."""
    ids, d, _, head = table_terms(site)
    flat, rows = ids.reshape(-1), d.reshape(-1, d.shape[-1])
    for name, order in (("the last", slice(None)), ("the first", slice(None, None, -1))):
        table = np.zeros(site.theirs.shape)
        for i, row in zip(flat[order], rows[order]):
            table[i] = row
        yield name, table + head
    counts = np.bincount(flat, minlength=len(head))[:, None]
    yield "the mean", table_terms(site)[2] / np.maximum(counts, 1) + head


@alternative(
    "tied table without the head's term", at=ANY, formula="look-up alone", kind="parameter"
)
def no_head(site: Site) -> np.ndarray:
    """The gradient of the tied table lacks what comes from the logits."""
    return table_terms(site)[2]


@alternative(
    "tied table without the look-up's term", at=ANY, formula="head alone", kind="parameter"
)
def no_look_up(site: Site) -> np.ndarray:
    """The gradient of the tied table lacks what comes from the embeddings."""
    return table_terms(site)[3]


@alternative("no gradient of one row", at=ANY, formula="dtable[id] = 0", kind="parameter")
def one_row(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The look-up gives no gradient to one id, as torch does with padding_idx."""
    _, _, looked, head = table_terms(site)
    wrong = np.abs(site.theirs - (looked + head)).max(1) > site.allowed
    if wrong.sum() == 1:
        i = int(np.argmax(wrong))
        yield f"id {i}", np.where(np.arange(len(looked))[:, None] == i, 0, looked) + head


@alternative("no gradient", at=ANY, formula="0", kind="parameter")
def zero(site: Site) -> np.ndarray:
    """The parameter of theirs has no gradient: it is detached, or another array is used."""
    return np.zeros(site.theirs.shape)


@alternative("gradient transposed", at=ANY, formula="dW^T", kind="parameter")
def transposed(site: Site) -> np.ndarray:
    """The gradient of the square weight is transposed."""
    if site.theirs.ndim != 2:
        raise NotHere
    return site.own().T


@alternative("a factor of the gradient", at=ANY, formula="c dW", kind="parameter", fitted=True)
def factor(site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """The gradient of theirs is ours times a number: a mean in place of a sum, or the reverse."""
    own = site.own()
    return site.fit("factor", lambda c: c * own, (2.0, 0.5, -1.0))
