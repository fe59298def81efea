"""Known alternatives: what others compute where ours differs.  One plain function each.

site.py             the place of the first difference; what an alternative is
parts.py            what places compute: linear layers, norms, the loss
attention_parts.py  attention with each part replaceable
rotary.py  attending.py  activations.py  norms.py  wiring.py  weights.py  outputs.py
                    alternatives of values, each in its order of the computation
gradient_terms.py   the terms of which each gradient is the sum
gradients.py  parameter_gradients.py
                    alternatives of gradients, where values agree
"""

from __future__ import annotations

from . import (
    activations,
    attending,
    gradients,
    norms,
    outputs,
    parameter_gradients,
    rotary,
    weights,
    wiring,
)
from .site import ALTERNATIVES, Alternative, NotHere, Site

__all__ = [
    "ALTERNATIVES",
    "Alternative",
    "NotHere",
    "Site",
    "activations",
    "attending",
    "gradients",
    "norms",
    "outputs",
    "parameter_gradients",
    "rotary",
    "weights",
    "wiring",
]
