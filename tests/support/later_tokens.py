"""DeepSeek-V3 with modules for later tokens beside its formula: texts laid out in rows, and each text alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import reference.models.deepseek_v3 as ref
import tinyplm
from reference.dual import Dual
from tests.support.families import FAMILIES, VOCABULARY, randomised
from tinyplm.core import tree_map
from tinyplm.layers.mask import packed_mask


def later(modules: int, *, seed: int = 0, dtype: str = "float64", device: str = "cpu", **changes: Any) -> tinyplm.Model:
    """A tiny model with every parameter and correction random."""
    changes = {"num_nextn_predict_layers": modules, **changes}
    return randomised("deepseek_v3", FAMILIES["deepseek_v3"].config, "multi_token_lm", seed, dtype, changes).to(device)


class Text(NamedTuple):
    ids: np.ndarray  # (T,)
    targets: np.ndarray  # (T,): the next token, of which the last is in no row; -100 for some
    weights: np.ndarray  # (T,)
    row: int
    start: int

    def of(self, a: np.ndarray) -> np.ndarray:
        """Its part of rows of tokens (B, T, ...)."""
        return a[self.row, self.start : self.start + len(self.ids)]


class Rows(NamedTuple):
    texts: list[Text]
    inputs: dict[str, Any]
    targets: np.ndarray
    weights: np.ndarray


# texts of each row; a row that is not full is padded
LAYOUTS = {
    "full": [[5], [5], [5]], "right": [[5], [3], [1]], "left": [[5], [2], [4]], "packed": [[2, 3], [1, 1, 3], [4, 1]],
    "one text": [[4]], "T = 1": [[1], [1]], "T = 2": [[2]], "padded to 2": [[2], [1]],
}  # fmt: skip


def rows(layout: str, seed: int = 0) -> Rows:
    """Random texts in this layout, and random numbers where there is none."""
    rng = np.random.default_rng(seed)
    lengths = LAYOUTS[layout]
    B, T = len(lengths), max(map(sum, lengths))
    ids, targets, weights = rng.integers(0, VOCABULARY, (B, T)), np.full((B, T), -100), rng.random((B, T))
    documents, positions = np.full((B, T), -1), np.zeros((B, T), int)
    texts = []
    for b, row in enumerate(lengths):
        start = T - sum(row) if layout == "left" else 0
        for n, length in enumerate(row):
            places = slice(start, start + length)
            tokens = rng.integers(0, VOCABULARY, length + 1)
            ids[b, places], targets[b, places] = tokens[:-1], tokens[1:]
            targets[b, places][rng.random(length) < 0.2] = -100
            documents[b, places], positions[b, places] = n, np.arange(length)
            texts.append(Text(ids[b, places], targets[b, places], weights[b, places], b, start))
            start += length
    mask = packed_mask(documents) if layout == "packed" else (documents >= 0).astype(int)
    return Rows(texts, {"input_ids": ids, "attention_mask": mask, "position_ids": positions}, targets, weights)


def settings(model: tinyplm.Model) -> dict[str, Any]:
    """What the formula takes beside parameters and tokens."""
    c = model.config
    return {
        "heads": c.heads, "base": c.rope.base, "interleaved": c.rope_interleave, "eps": c.rms_norm_eps,
        "corrections": model.buffers["corrections"], "scale": c.routed_scaling_factor, "renormalised": c.norm_topk_prob,
        "top_k": c.num_experts_per_tok, "groups": c.n_group, "kept_groups": c.topk_group,
    }  # fmt: skip


def parameters(params: dict) -> dict:
    """A tree as the formula has it."""
    return {**params["body"], **{name: params[name] for name in params if name == "head"}}


def outputs(model: tinyplm.Model, params: dict, text: Text) -> dict[str, list]:
    """The formula's: logits and states of each depth, and the routers' logits, one array of rows (T - k, ...) each."""
    p = parameters(params)
    states, routers = ref.deepseek_v3(p, text.ids, **settings(model))
    return {"logits": [ref.logits(p, states[0])], "hidden": states[:1], "later": states[1:], "routers": [z[0] for z in routers]}


def along(params: dict, d: dict) -> dict:
    """params + d eps."""
    return tree_map(lambda a, b: np.vectorize(Dual, otypes=[object])(a.astype(object), b.astype(object)), params, d)
