"""Optimisation: AdamW and Adafactor on flat buffers, clipping, learning-rate schedules.

adamw.py       AdamW
adafactor.py   Adafactor: second moments of rows and columns, far less memory
optimizer.py   what the two share
clip.py        the global norm and clipping by it
schedule.py    the learning rate of each step
layerwise.py   learning rates by depth
flat.py        a tree of arrays in one buffer
"""

from .adafactor import Adafactor
from .adamw import AdamW
from .clip import clip_by_global_norm, clip_scale, global_norm
from .flat import FlatTree
from .layerwise import depths, layerwise_rates
from .optimizer import Optimizer, decays_by_default
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
    "Adafactor",
    "AdamW",
    "FlatTree",
    "Optimizer",
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
