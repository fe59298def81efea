"""The text model in the folder of a model that also sees images: Gemma 3 of 4B parameters and more.

config.json has model_type gemma3, text_config and vision_config, and the tensors of the text model
have a prefix:

    language_model.model.layers...     on the hub, and as transformers writes them
    model.language_model.layers...     the names within transformers 4.52 and later

Only the text model is read, as if the folder held it alone: `save` writes a gemma3_text folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..arguments import mismatch, shown, wrong
from ..families import family
from ..files import printable
from .tensors import StoredTensor

# model_type of the folder -> that of its text model
TEXT_MODELS = {"gemma3": "gemma3_text"}
# Outside text_config, but also the text model's; where both have one, text_config's counts.
_SHARED = (
    *("dtype", "torch_dtype", "quantization_config", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "problem_type"),
)
_PREFIXES = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
}
_OTHERS = tuple(
    base + part for base in ("", "model.") for part in ("vision_tower.", "multi_modal_projector.")
)


def text_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of config.json for the text model alone; ValueError if they do not fit."""
    kind = TEXT_MODELS[settings["model_type"]]
    text = settings.get("text_config")
    if not isinstance(text, dict):
        raise wrong("text_config", "an object", text)
    if text.get("model_type", kind) != kind:
        raise wrong("text_config: model_type", kind, text["model_type"])
    tied = "tie_word_embeddings"
    if tied in settings and text.get(tied, settings[tied]) != settings[tied]:
        expected = f"{shown(settings[tied])}, as outside text_config"
        raise wrong(f"text_config: {tied}", expected, text[tied])
    shared = {name: settings[name] for name in _SHARED if name in settings}
    config = family(kind).Config
    named_class = settings.get("architectures")
    scored = isinstance(named_class, list) and named_class[:1] == [
        "Gemma3ForSequenceClassification"
    ]
    architecture = config.SCORED if scored else config.ARCHITECTURE
    return {**shared, **text, "model_type": kind, "architectures": [architecture]}


def text_tensors(tensors: Mapping[str, StoredTensor], *, where: str) -> dict[str, StoredTensor]:
    """The text model's tensors under the names that they have alone; ValueError for two of a name.

    Tensors of the vision tower and of the projector are left out; any other keeps its name.
    """
    found: dict[str, str] = {}  # new name: the name in the file
    for name in tensors:
        if name.startswith(_OTHERS):
            continue
        prefix = next((start for start in _PREFIXES if name.startswith(start)), "")
        alone = _PREFIXES.get(prefix, "") + name.removeprefix(prefix)
        if (other := found.setdefault(alone, name)) != name:
            both = f"{printable(other, 80)} and {printable(name, 80)}"
            raise mismatch(where, "one name for each tensor", both)
    return {alone: tensors[name] for alone, name in found.items()}
