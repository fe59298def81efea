"""Known alternatives: what others compute where ours differs.  One plain function each.

site.py             the place of the first difference; what an alternative is
parts.py            what places compute: linear layers, norms, the loss
attention_parts.py  attention with each part replaceable
rotary.py  attending.py  activations.py  norms.py  wiring.py  weights.py  outputs.py
                    alternatives of values, each in its order of the computation
gradients_*.py      alternatives of gradients, where values agree
"""

from __future__ import annotations

from . import activations, attending, norms, outputs, rotary, weights, wiring
from .site import ALTERNATIVES, Alternative, NotHere, Site

__all__ = [
    "ALTERNATIVES",
    "Alternative",
    "NotHere",
    "Site",
    "activations",
    "attending",
    "norms",
    "outputs",
    "rotary",
    "weights",
    "wiring",
]
