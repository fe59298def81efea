"""tinyplm: pre-trained language models in plain NumPy, every forward and backward pass written by hand.

model = tinyplm.load("folder")                              # a Hugging Face folder
outputs, backward = model(input_ids, attention_mask=mask)
dparams = backward({"logits": dlogits})
tinyplm.save(model, "folder")
model = tinyplm.create("gpt2", "gpt2-medium", key=0)
"""

from __future__ import annotations

from .hub import create, load, save
from .models.model import Model

__version__ = "0.1.0"
__all__ = ["Model", "create", "load", "save"]
