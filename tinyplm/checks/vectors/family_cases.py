"""The tiny models: their configurations, and inputs with padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ...families import family
from ...models.config import labels
from .draws import Draws

V, CONTEXT = 11, 8
LABELS = labels(["red", "green", "blue"])
# One sample without padding, one padded on the left, one on the right.
DECODER_PADDING = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
# After the tokens and between them; never the first token, which heads look at.
ENCODER_PADDING = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]])

# Six heads of width 4 on two key/value heads: groups of three, wider than the model.  With base 10
# both frequencies turn far within 8 positions.
_LLAMA: dict[str, Any] = {
    "vocab_size": V, "max_position_embeddings": CONTEXT, "hidden_size": 6, "intermediate_size": 7,
    "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10.0}, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
_BERT: dict[str, Any] = {
    "vocab_size": V, "max_position_embeddings": CONTEXT, "hidden_size": 6, "intermediate_size": 7,
    "num_hidden_layers": 2, "num_attention_heads": 2, **LABELS,
}  # fmt: skip
_ROBERTA = {**_BERT, "max_position_embeddings": CONTEXT + 2}  # positions start after the padding id
_DEBERTA = {
    **_BERT, "type_vocab_size": 2, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": V, "n_positions": CONTEXT, "n_embd": 6, "n_layer": 2, "n_head": 2,
             "bos_token_id": None, "eos_token_id": None},
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 3},
    "qwen2": {**_LLAMA, "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1},
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "albert": {**_BERT, "embedding_size": 4, "num_hidden_layers": 3, "num_hidden_groups": 2},
    "distilbert": {"vocab_size": V, "max_position_embeddings": CONTEXT, "dim": 6, "hidden_dim": 7,
                   "n_layers": 2, "n_heads": 2, **LABELS},
    "deberta": {**_DEBERTA, "max_relative_positions": 2},
    "deberta-v2": {**_DEBERTA, "position_buckets": 2, "share_att_key": True,
                   "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3, "conv_act": "gelu"},
    "xlnet": {"vocab_size": V, "d_model": 6, "n_layer": 2, "n_head": 2, "d_inner": 7,
              "pad_token_id": 1, **LABELS},
}  # fmt: skip

# (name, what is difficult about it, changes of the configuration)
_YARN = {"rope_type": "yarn", "rope_theta": 10.0, "factor": 4.0}
_ROTARY: list[tuple[str, str, dict[str, Any]]] = [
    ("one-kv-head", "six query heads on one key/value head", {"num_key_value_heads": 1}),
    ("tied", "the output matrix is the embedding table: one gradient from both",
     {"tie_word_embeddings": True}),
]  # fmt: skip
CHANGES: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "gpt2": [("untied", "an output matrix of its own", {"tie_word_embeddings": False})],
    "llama": [*_ROTARY,
              ("biases", "biases in attention and feed-forward layers",
               {"attention_bias": True, "mlp_bias": True}),
              ("yarn", "positions scaled by YaRN", {"rope_parameters": _YARN})],
    "mistral": [*_ROTARY, ("window-of-one", "a query sees itself alone", {"sliding_window": 1})],
    "qwen2": _ROTARY,
    "bert": [("tanh-gelu", "the tanh GELU", {"hidden_act": "gelu_new"})],
    "albert": [("one-group", "all layers share one set of weights", {"num_hidden_groups": 1})],
    "deberta": [("c2p-alone", "content to position alone", {"pos_att_type": ["c2p"]})],
    "deberta-v2": [("own-keys", "projections of their own for positions, no convolution",
                    {"share_att_key": False, "conv_kernel_size": 0, "norm_rel_ebd": "none"})],
    "xlnet": [("clamped", "distances beyond 2 count as 2", {"clamp_len": 2})],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Variant:
    """A case of a family."""

    name: str
    note: str
    config: Any
    task: str | None = None
    T: int = 5
    prefill: int | None = None
    intermediates: bool = False

    def inputs(self, rng: Draws, module: ModuleType, config: Any, task: str) -> dict[str, Any]:
        """Token ids (from 2 on: lower ones may stand for padding), mask, and segments."""
        padding = ENCODER_PADDING if hasattr(module, "TASKS") else DECODER_PADDING
        if config.MODEL_TYPE == "xlnet":
            padding = padding[:, ::-1]
        mask = padding if self.T > 1 else np.ones((1, 1), int)
        mask = np.stack([mask, mask[::-1]], axis=1) if task == "multiple_choice" else mask
        found = {"input_ids": np.asarray(rng.integers(2, V - 1, mask.shape))}
        found["attention_mask"] = np.ascontiguousarray(mask)
        if "token_type_ids" in getattr(module, "INPUTS", ()):
            found["token_type_ids"] = np.asarray(rng.integers(0, 2, mask.shape))
        return found


def _dropout_free(config: Any) -> Any:
    """Dropout is off without a key; its rates are 0, so that no other library draws masks."""
    names = [f.name for f in dataclasses.fields(config) if "drop" in f.name]
    return dataclasses.replace(config, **dict.fromkeys(names, 0.0))


def variants(name: str) -> Iterator[Variant]:
    """The cases of a family."""
    module = family(name)
    base = _dropout_free(module.Config(**CONFIGS[name]))
    note = "padding before and after the tokens, ignored targets; all intermediates"
    yield Variant("padding", note, base, intermediates=True)
    yield Variant("one-token", "one sample of one token", base, T=1)
    for label, note, changes in CHANGES.get(name, []):
        yield Variant(label, note, dataclasses.replace(base, **changes))
    if hasattr(module, "TASKS"):
        renamed = name in ("camembert", "xlm-roberta")  # their heads are RoBERTa's
        for task in list(module.TASKS)[1:] if not renamed else []:
            if task not in ("body", "pooled"):
                yield Variant(task.replace("_", "-"), f"the head for {task}", base, task=task)
    else:
        scored = dataclasses.replace(base, **LABELS)
        note = "classes from the last token that is not padding"
        yield Variant("sequence-classification", note, scored, task="sequence_classification")
        yield Variant("cache", "the first two tokens at once, then one at a time with the cache: "
                      "cached_logits equal logits", base, prefill=2)  # fmt: skip
