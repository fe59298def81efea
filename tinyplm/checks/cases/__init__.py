"""The table of components, {name: entry}: an implementation, a maker of its cases, what it is.

layers.py        linear, embeddings, norms, activations, softmax, feed-forward, blocks
rope.py          rotary positions
attention.py     attention: grouped queries, by blocks, with projections
decoders.py      soft caps, ALiBi, QK norms, Gemma's RMSNorm, other blocks
sinks.py         attention with sinks
latent.py        latent attention, multi-token modules
heads.py         the heads of encoders
disentangled.py  DeBERTa
xlnet.py         XLNet
relative_bias.py T5's relative position bias
encoder_decoders.py  cross-attention, biased self-attention, a decoder's block
moe.py           mixtures of experts, and the losses of their balance
losses.py        cross-entropy, pooling, contrastive and regression losses
alignment.py     log-probabilities, preferences, policies, distillation, LoRA, prefixes
preferences.py   IPO, hinge, ORPO, SimPO, KTO
kernels.py       the kernels, in the cases of their plain forms

A new component needs one entry, and its formula in tests/components.py: then all laws are checked
for it on every device.
"""

from __future__ import annotations

from ..case import Entry
from . import (
    alignment,
    attention,
    decoders,
    disentangled,
    encoder_decoders,
    heads,
    latent,
    layers,
    losses,
    moe,
    preferences,
    relative_bias,
    rope,
    sinks,
    xlnet,
)
from .kernels import kernels

COMPONENTS: dict[str, Entry] = {
    **layers.COMPONENTS,
    **rope.COMPONENTS,
    **attention.COMPONENTS,
    **decoders.COMPONENTS,
    **sinks.COMPONENTS,
    **latent.COMPONENTS,
    **heads.COMPONENTS,
    **disentangled.COMPONENTS,
    **xlnet.COMPONENTS,
    **relative_bias.COMPONENTS,
    **encoder_decoders.COMPONENTS,
    **moe.COMPONENTS,
    **losses.COMPONENTS,
    **alignment.COMPONENTS,
    **preferences.COMPONENTS,
}
COMPONENTS |= kernels(COMPONENTS)

__all__ = ["COMPONENTS"]
