"""How much a text is like good examples: logistic regression over hashed words and pairs of words.

step.py       quality(...): the step of the corpus pipeline
model.py      train_quality, QualityModel: the regression and its gradient; files
features.py   a text as counts of hashed words and pairs of words
"""

from .features import text_features
from .model import QualityModel, load_quality, quality_logits, train_quality
from .step import pareto_draw, quality

__all__ = [
    "QualityModel",
    "load_quality",
    "pareto_draw",
    "quality",
    "quality_logits",
    "text_features",
    "train_quality",
]
