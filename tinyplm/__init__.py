"""tinyplm: pre-trained language models in plain NumPy, with every gradient written by hand.

model = tinyplm.load("folder")                              # a Hugging Face folder
outputs, backward = model(input_ids, attention_mask=mask)
dparams = backward({"logits": dlogits})
tinyplm.save(model, "folder")
model = tinyplm.create("llama", "llama-3.2-1b", key=0)
texts = tinyplm.generate(model, prompt_ids, max_new_tokens=50)
with tinyplm.trace() as t:                                  # every intermediate and its gradient
    loss, backward = model.loss(input_ids=ids, targets={"logits": targets})
"""

from __future__ import annotations

from .checks import trace
from .generation import generate, stream
from .hub import create, load, save
from .models.model import Model

__version__ = "0.1.0"
__all__ = ["Model", "create", "generate", "load", "save", "stream", "trace"]
