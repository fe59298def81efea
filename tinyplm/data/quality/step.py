"""The step of the corpus pipeline that scores documents, and keeps the better ones."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os

from ...arguments import check_key, check_number, check_path, check_text, known_arguments
from ...random import fold, key
from ..pipeline.step import Document, Result, Step
from .model import QualityModel, load_quality


@known_arguments
def quality(
    *,
    model: str | os.PathLike | QualityModel,
    threshold: float | None = None,
    alpha: float | None = 9.0,
    seed: int = 0,
) -> Step:
    """Scores each document, from 0 to 1, and keeps it or not.

    model: what train_quality returned, or its file.
    threshold: drop documents with a lower score.   None: a draw decides, and keeps a document if
    Pareto(alpha) > 1 - score, as for GPT-3 (Brown et al. 2020, app. A, alpha = 9): with the
    probability (2 - score)^-alpha, so that some with low scores stay as well.   The draw depends on
    seed and text alone.   alpha None, without a threshold: all stay.

    A document that stays has the field "quality".   The counts of a dropped one say "quality below
    0.5" or "not drawn by quality".
    """
    check_number("quality: threshold", threshold, least=0, most=1, or_none=True)
    check_number("quality: alpha", alpha, above=0, or_none=True)
    check_key("quality: seed", seed)
    if not isinstance(model, QualityModel):
        check_path("quality: model", model)
        model = load_quality(model)
    return _Quality(model, threshold, alpha, int(seed))


def pareto_draw(text: str, *, alpha: float, seed: int = 0) -> float:
    """A draw as of numpy.random.pareto(alpha), from a hash of seed and text.

    u^(-1 / alpha) - 1 with u uniform in (0, 1]: P(draw > x) = (1 + x)^-alpha.
    """
    check_text("text", text)
    check_number("alpha", alpha, above=0)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    bits = fold(key(seed), int.from_bytes(digest, "little"))
    u = ((bits >> 11) + 1) * 2.0**-53
    x = -math.log(u) / alpha
    return math.expm1(x) if x < 700 else math.inf  # the largest number is near e^709


@dataclasses.dataclass(frozen=True)
class _Quality:
    """The step; it can be sent to other processes."""

    model: QualityModel
    threshold: float | None
    alpha: float | None
    seed: int

    def __call__(self, document: Document) -> Result:
        score = self.model.score(document.text)
        if self.threshold is not None:
            if score < self.threshold:
                return None, {f"quality below {self.threshold:g}": 1}
        elif self.alpha is not None:
            draw = pareto_draw(document.text, alpha=self.alpha, seed=self.seed)
            if not draw > 1 - score:
                return None, {"not drawn by quality": 1}
        fields = {**document.fields, "quality": score}
        return document._replace(fields=fields), {}
