"""Which known alternative makes a difference vanish, if the model is the trace's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .alternatives import ALTERNATIVES, Alternative, NotHere, Site
from .comparison import Comparison, Explanation
from .explained import epsilon
from .files import parameter_gradients
from .matching import real_rows
from .tracing import Call, trace

PLACES = {"forward": "", "backward": "gradient of ", "parameter": "gradient of "}


def explanation(found: Comparison, model: Any) -> Explanation | None:
    """The alternative that explains the first difference, in the forward if there is one there.

    Named only if the difference vanishes to what rounding explains.  An alternative without a free
    number comes before one that is fitted; among equals, the closest.
    """
    site = _site(found, model)
    hits = []
    for candidate in ALTERNATIVES:
        if candidate.kind == site.kind and candidate.places.match(site.name):
            with np.errstate(all="ignore"):  # of numbers that are tried
                hit = next((h for h in arrays_of(candidate, site) if site.matches(h[1])), None)
            if hit is not None:
                hits.append((candidate.fitted, site.distance(hit[1]), candidate, hit[0]))
    if not hits:
        return _lower_precision(site)
    hits.sort(key=lambda hit: hit[:2])
    _, _, best, detail = hits[0]
    others = tuple(hit[2].name for hit in hits[1:] if hit[0] == best.fitted)
    where = PLACES[site.kind] + site.name
    return Explanation(best.name, best.sentence, best.formula, where, detail, others)


def arrays_of(candidate: Alternative, site: Site) -> Iterator[tuple[str, np.ndarray]]:
    """What the alternative gives here, each with its detail; nothing where it has no place.

    A model of other shapes, such as ALBERT with its narrow table, has no place for it either; nor
    has one whose settings the alternative cannot have.
    """
    try:
        given = candidate.f(site)
        one = isinstance(given, (np.ndarray, np.generic))
        for detail, y in [("", np.asarray(given))] if one else given:
            if y.shape == site.theirs.shape:
                yield detail, y
    except (NotHere, ValueError, IndexError):
        return


def not_reproduced(found: Comparison, model: Any) -> str:
    """Where the model, called with the inputs of our trace, gives other values; "" if it does not.

    A trace from a file does not say which parameters it has.  A call with dropout or with a cache
    cannot be repeated either.
    """
    ours: Call = found.ours
    given = {n: a for n, a in ours.inputs.items() if not n.startswith("targets.")}
    rows = [row for row in found.rows if row.kind == "forward"]
    if not given or model.task == "multiple_choice":  # which records its choices flattened
        return ""
    try:
        with trace() as opened:
            model.astype(ours[rows[0].name].value.dtype.name)(**given, grad=False)
    except (TypeError, ValueError) as error:
        return f"it refuses the inputs, {error}"
    for row in rows:
        if row.name not in opened.records:
            continue
        value, own = (np.asarray(call[row.name].value, "float64") for call in (ours, opened.last))
        if value.shape == own.shape:
            d = np.where(real_rows(row.name, value, ours.inputs), np.abs(value - own), 0)
            if (most := float(d.max(initial=0.0))) > row.explained:
                return f"{row.name} differs by {most:.2g}"
        elif row is rows[0]:
            return f"{row.name} has shape {own.shape}, there {value.shape}"
    return ""


def _lower_precision(site: Site) -> Explanation | None:
    """Whether a difference between float64 runs has the size of a float32 run's error.

    Only for float32, which errs by 1e-7: other mistakes are rarely that small.
    """
    wide = all(a.dtype == "float64" for a in (site.theirs, site.recorded()))
    times, left = epsilon("float32") / epsilon("float64"), site.distance(site.own())
    if not wide or not left < times * site.allowed:
        return None
    sentence = "The difference has the size of float32 rounding: theirs computes part in float32."
    return Explanation("rounding of float32", sentence, "", PLACES[site.kind] + site.name)


def _site(found: Comparison, model: Any) -> Site:
    """The place of the first difference."""
    row = next(row for row in found.rows if row.differs)
    if row.kind == "parameter":
        theirs = parameter_gradients(found.theirs)[row.name]
    else:
        record = found.theirs[row.name]
        theirs = record.value if row.kind == "forward" else record.gradient
    return Site(model, found.ours, row.kind, row.name, theirs, row.explained)
