"""The hub's module for each name of a trace, from the family's NAMES of its parameters."""

from __future__ import annotations

import os
import re
from typing import Any

from ..families import LANGUAGE_MODELS
from ..models.names import expand, leaves_of, names_of

# The linear layers whose output has another name than their matrix: {matrix: name within its part},
# "" for the output of the part itself.
_CLASSES = ("head", "head.classifier", "head.tokens")  # whose matrix W gives the logits
_OUTPUTS = {"Wo": "", "W1": ".up", "W2": "", "Wdown": "", "Wup": ".up", "Wgate": ".gate"}


def modules(model: Any) -> dict[str, str]:
    """{name in a trace: the hub's module whose output it is}, of the names that have one.

    Such as {"layers.0.attention.q": "model.layers.0.self_attn.q_proj"}.  Several names have one
    module where that concatenates them along the last axis (GPT-2's c_attn).
    """
    leaves = leaves_of(model.params)
    found: dict[str, str] = {}
    layers: dict[str, list[str]] = {}
    for hub, paths, _ in expand(names_of(model.family, model.config), leaves):
        module, _, kind = hub.rpartition(".")
        for path in paths:
            part, _, leaf = path.removeprefix("body.").rpartition(".")
            layer = re.match(r"((en|de)coder\.)?layers\.\d+(?=\.)", part)
            if layer and module:
                layers.setdefault(layer[0], []).append(module)
            name = _name(part, leaf)
            if module and kind == "weight" and name is not None:
                found[name] = module
    if (head := _tied_head(model)) is not None:
        found["logits"] = head
    common = {layer: _common(names) for layer, names in layers.items()}
    found |= {n: m for n, m in common.items() if m.rpartition(".")[2] == n.rpartition(".")[2]}
    own_layers = model.params["body"].get("layers")
    if own_layers is not None and len(own_layers) < _depth(model.config):
        # layers that share a module
        found = {name: m for name, m in found.items() if not name.startswith("layers.")}
    return found


def _name(part: str, leaf: str) -> str | None:
    """The name in a trace of the output of the module that has this parameter."""
    if leaf in ("gamma", "tokens", "positions", "segments"):
        return part if leaf == "gamma" else leaf if leaf == "tokens" else None
    if part in _CLASSES and leaf == "W":
        return "logits"
    if leaf in _OUTPUTS:
        return part + _OUTPUTS[leaf]
    return f"{part}.{leaf[1:]}" if leaf in ("Wq", "Wk", "Wv") else None


def _tied_head(model: Any) -> str | None:
    """The module of an output matrix over the vocabulary that is the embedding table."""
    causal = model.task in LANGUAGE_MODELS
    tasks = getattr(model.family, "TASKS", {})
    if not causal and (model.task not in tasks or tasks[model.task].language_model is None):
        return None
    if model.buffers:  # a bias that is added to what the module gives
        return None
    if causal and not model.config.tie_word_embeddings:
        return None
    tied = [hub for hub in model.family.TIED if hub.endswith(".weight")]
    return tied[0].removesuffix(".weight") if tied else None


def _depth(config: Any) -> int:
    name = config.ALIASES.get("num_hidden_layers", "num_hidden_layers")
    return int(getattr(config, name))


def _common(names: list[str]) -> str:
    """The module that holds all of these."""
    return os.path.commonpath([name.replace(".", "/") for name in names]).replace("/", ".")
