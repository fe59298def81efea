"""tinyplm: pre-trained language models in plain NumPy, with every gradient written by hand.

model = tinyplm.load("folder")                              # a Hugging Face folder
outputs, backward = model(input_ids, attention_mask=mask)
dparams = backward({"logits": dlogits})
tinyplm.save(model, "folder")
model = tinyplm.create("llama", "llama-3.2-1b", key=0)
texts = tinyplm.generate(model, prompt_ids, max_new_tokens=50)
best = tinyplm.beam_search(model, prompt_ids, beams=4, max_new_tokens=50)
whole = tinyplm.fill(glm, ids_with_masks, max_new_tokens=20)   # blanks in the middle of a text
with tinyplm.trace() as t:                                  # every intermediate and its gradient
    loss, backward = model.loss(input_ids=ids, targets={"logits": targets})
theirs = tinyplm.trace_torch(module, {"input_ids": ids})    # the same of a PyTorch model
print(tinyplm.compare(t, theirs).table())                   # where it differs first, and why
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checks import trace
from .generation import beam_search, fill, generate, stream
from .hub import create, load, save
from .models.model import Model

if TYPE_CHECKING:
    from .checks import compare, trace_torch

__version__ = "0.1.0"
__all__ = [
    "Model",
    "beam_search",
    "compare",
    "create",
    "fill",
    "generate",
    "load",
    "save",
    "stream",
    "trace",
    "trace_torch",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations"})


def __getattr__(name: str) -> Any:
    if name not in ("compare", "trace_torch"):  # imported when first asked for
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from . import checks

    return getattr(checks, name)
