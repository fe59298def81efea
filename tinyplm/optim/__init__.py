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
    constant_inverse_sqrt,
    inverse_sqrt_peak,
    learning_rate,
    relative_step,
    warmup_constant,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
    warmup_stable_decay,
)

__all__ = [
    "AdamW",
    "FlatTree",
    "clip_by_global_norm",
    "clip_scale",
    "constant_inverse_sqrt",
    "decays_by_default",
    "depths",
    "global_norm",
    "inverse_sqrt_peak",
    "layerwise_rates",
    "learning_rate",
    "relative_step",
    "warmup_constant",
    "warmup_cosine",
    "warmup_inverse_sqrt",
    "warmup_linear",
    "warmup_stable_decay",
]
