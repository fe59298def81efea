"""Optimisation: AdamW on one flat buffer, clipping, learning-rate schedules.

adamw.py       the optimiser
clip.py        the global norm and clipping by it
schedule.py    the learning rate of each step
layerwise.py   learning rates by depth
flat.py        a tree of arrays in one buffer
"""

from .adamw import AdamW, decays_by_default
from .clip import clip_by_global_norm, clip_scale, global_norm
from .flat import FlatTree
from .layerwise import depths, layerwise_rates
from .schedule import (
    learning_rate,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
    warmup_stable_decay,
)

__all__ = [
    "AdamW",
    "FlatTree",
    "clip_by_global_norm",
    "clip_scale",
    "decays_by_default",
    "depths",
    "global_norm",
    "layerwise_rates",
    "learning_rate",
    "warmup_constant",
    "warmup_cosine",
    "warmup_linear",
    "warmup_stable_decay",
]
