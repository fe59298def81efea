"""A case as JSON and arrays: {"array": NAME} stands for an array, {"component": NAME} for a
function, {"tuple": [...]} for a tuple."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...arguments import wrong
from ...kernels import disentangled as kernels
from ...layers import activation, block, disentangled, mlp, moe, norm, routing, softmax
from ...losses import balance
from ..cases.decoders import without_shift
from ..cases.encoder_decoders import cross_attend
from ..cases.layers import attend, norm_on_tree
from ..cases.moe import linear_on_tree, rmsnorm_on_tree
from ..cases.rope import turned

# The functions that cases pass as keyword arguments.
FUNCTIONS: dict[str, Any] = {
    "gelu": activation.gelu,
    "gelu_tanh": activation.gelu_tanh,
    "silu": activation.silu,
    "tanh": activation.tanh,
    "pre_norm": block.pre_norm,
    "post_norm": block.post_norm,
    "deep_norm": block.deep_norm,
    "scaled_norm": block.scaled_norm,
    "after_norm": block.after_norm,
    "both_norms": block.both_norms,
    "rmsnorm": norm.rmsnorm,
    "unit_rmsnorm": norm.unit_rmsnorm,
    "layernorm_without_shift": without_shift,
    "layernorm": norm_on_tree,
    "self_attention": attend,
    "cross_attention": cross_attend,
    "mlp": mlp.mlp,
    "gated_mlp": mlp.gated_mlp,
    "sigmoid_gated": moe.sigmoid_gated,
    "moe_and_logits": moe.moe_and_logits,
    "rmsnorm_on_tree": rmsnorm_on_tree,
    "linear_on_tree": linear_on_tree,
    "top_experts": routing.top_experts,
    "sigmoid_choice": routing.sigmoid_choice,
    "softmax_weights": routing.softmax_weights,
    "sigmoid_weights": routing.sigmoid_weights,
    "softmax": softmax.softmax,
    "normalised_sigmoid": balance.normalised_sigmoid,
    "rope": turned,
    "relative_scores": disentangled.relative_scores,
    "relative_scores_kernel": kernels.relative_scores,
}
_NAMES = {f: name for name, f in FUNCTIONS.items()}


def encoded(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON of a value; its arrays are added to `arrays` under names that begin with `name`."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, float):
        return value
    if isinstance(value, dict):
        return {key: encoded(part, f"{name}.{key}", arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [encoded(part, f"{name}.{i}", arrays) for i, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    f, keywords = (value.func, value.keywords) if isinstance(value, partial) else (value, {})
    if f not in _NAMES:
        raise wrong(name, f"one of the functions {', '.join(FUNCTIONS)}", value)
    found = {"component": _NAMES[f]}
    return found | {"keywords": encoded(keywords, name, arrays)} if keywords else found


def decoded(spec: Any, arrays: dict[str, Any]) -> Any:
    """The value of a JSON, with its arrays."""
    if isinstance(spec, list):
        return [decoded(part, arrays) for part in spec]
    if not isinstance(spec, dict):
        return spec
    if "array" in spec:
        return arrays[spec["array"]]
    if "tuple" in spec:
        return tuple(decoded(part, arrays) for part in spec["tuple"])
    if "component" in spec:
        if spec["component"] not in FUNCTIONS:
            raise wrong("component", f"one of {', '.join(FUNCTIONS)}", spec["component"])
        f = FUNCTIONS[spec["component"]]
        return partial(f, **decoded(spec["keywords"], arrays)) if "keywords" in spec else f
    return {key: decoded(part, arrays) for key, part in spec.items()}
