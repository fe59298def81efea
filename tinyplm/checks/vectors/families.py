"""A tiny model of every family: loss, logits, every parameter's gradient, and every intermediate.

The arguments are the weights under their hub names, the keywords the contents of config.json, the
task, and the inputs.  What can be computed in the package's dtypes is computed by the models
themselves under a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ...core import flatten, unflatten
from ...families import buffer_shapes_of, check_task, family, is_seq2seq, shapes_of
from ...hub import create, gradients_by_hub_name
from ...models.config import to_dict
from ...models.names import expand, leaves_of, names_of, to_hub
from ..tracing import trace
from .draws import Draws
from .family_cases import Variant, variants
from .subject import Made, Result, Subject

BOTH = ("scores", "probabilities")
NOT_INPUTS = ("family", "task", "config", "targets", "prefill", "intermediates")


def subject(name: str) -> Subject:
    module = family(name)
    text = f"a tiny {name}: weights, inputs with padding, loss, gradients, intermediates"
    return Subject(name, "family", text, module, run, partial(_cases, name))


def run(arguments: Mapping[str, Any], keywords: Mapping[str, Any]) -> Result:
    """One call of a model, in the dtype of its weights; with `prefill` by a cache as well."""
    model = built(arguments["weights"], keywords)
    inputs = {n: a for n, a in keywords.items() if n not in NOT_INPUTS}
    if "prefill" in keywords:
        cached = _decoded if is_seq2seq(model.family) else _cached
        return cached(model, inputs, keywords["prefill"])
    with trace(also=BOTH) as t:
        loss, back = model.loss(**inputs, targets=keywords["targets"])
    call = t.last
    logits, _ = model(**inputs, grad=False)
    outputs = {f"output.{name}": logits[name] for name in keywords["targets"]}
    inner = [path for path in call if path != "loss"] if keywords["intermediates"] else []
    values = {f"intermediate.{path}": call[path].value for path in inner}

    def backward(cotangents: dict[str, Any]) -> dict[str, Any]:
        weights = gradients_by_hub_name(model, back(cotangents["output.loss"]))
        found = {f"gradient.weights.{hub}": g for hub, g in weights.items()}
        for path in inner:
            if (gradient := call[path].gradient) is not None:
                found[f"intermediate_gradient.{path}"] = gradient
        return found

    outputs = {"output.loss": np.asarray(loss), **outputs, **values}
    return Result(outputs, ("output.loss",), backward)


def built(weights: Mapping[str, np.ndarray], keywords: Mapping[str, Any]) -> Any:
    """The model of weights under hub names."""
    dtype = next(iter(weights.values())).dtype.name
    model = create(
        keywords["family"], keywords["config"], task=keywords["task"], dtype=dtype
    )  # with new parameters, which are replaced
    leaves = leaves_of({**model.params, "buffers": model.buffers})
    for hub, paths, op in expand(names_of(model.family, model.config), leaves):
        parts = op.to_tree(weights[hub], [leaves[path].shape for path in paths])
        for path, part in zip(paths, parts):
            leaves[path][...] = part
    return model


def _cached(model: Any, inputs: dict[str, Any], prefill: int) -> Result:
    """The logits of a full pass, and of the first `prefill` tokens and then one at a time."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    B, T = ids.shape
    full, _ = model(ids, attention_mask=mask, grad=False)
    cache, rows = model.empty_cache(B, T), []
    for start, stop in [(0, prefill), *((t, t + 1) for t in range(prefill, T))]:
        step, _ = model(ids[:, start:stop], attention_mask=mask[:, :stop], cache=cache, grad=False)
        cache = step["cache"]
        rows.append(step["logits"])
    outputs = {"output.logits": full["logits"], "output.cached_logits": np.concatenate(rows, 1)}
    for i, layer in enumerate(cache.layers):
        outputs |= {f"output.cache.{i}.{n}": layer[n].copy() for n in layer}
    return Result(outputs)


def _decoded(model: Any, inputs: dict[str, Any], prefill: int) -> Result:
    """The same of an encoder-decoder: the source is encoded once."""
    ids, mask, target = (inputs[n] for n in ("input_ids", "attention_mask", "decoder_input_ids"))
    full, _ = model(ids, attention_mask=mask, decoder_input_ids=target, grad=False)
    T = target.shape[1]
    hidden = model.encode(ids, attention_mask=mask)
    cache, rows = model.source_cache(hidden, capacity=T, attention_mask=mask), []
    for start, stop in [(0, prefill), *((t, t + 1) for t in range(prefill, T))]:
        step = model.decode(target[:, start:stop], cache=cache)
        cache = step["cache"]
        rows.append(step["logits"])
    logits = {"logits": full["logits"], "cached_logits": np.concatenate(rows, 1)}
    return Result({f"output.{n}": a for n, a in {**logits, "encoder_hidden": hidden}.items()})


def _cases(name: str) -> list[Made]:
    return [_made(name, variant, i) for i, variant in enumerate(variants(name))]


def _made(name: str, variant: Variant, number: int) -> Made:
    """The weights of a case, and its inputs and targets."""
    module = family(name)
    rng = Draws((31, *name.encode(), number))
    task = check_task(module, variant.task)
    config = variant.config
    tree = {**shapes_of(module, config, task), "buffers": buffer_shapes_of(module, config, task)}
    shapes = flatten(tree)
    leaves = {
        path: rng.normal(0, 0.3, shape) + (1.0 if path.endswith("gamma") else 0.0)
        for path, shape in shapes.items()
    }
    names = names_of(module, config)
    weights = to_hub(unflatten(leaves, tree), names)
    inputs = variant.inputs(rng, module, config, task)
    if variant.prefill is None:
        model: Any = create(name, config, task=task, dtype="float64")
        outputs, _ = model(**inputs, grad=False)
        mask = inputs.get("decoder_attention_mask", inputs["attention_mask"])
        inputs["targets"] = _targets(outputs, mask, rng)
        inputs["intermediates"] = variant.intermediates
    else:
        inputs["prefill"] = variant.prefill
    keywords = {"family": name, "task": task, "config": to_dict(config), **inputs}
    return Made(variant.name, variant.note, {"weights": weights}, keywords)


NO_LOSS = ("hidden", "encoder_hidden", "pooled", "cache", "router_logits", "chosen_experts")


def _targets(outputs: dict[str, Any], mask: np.ndarray, rng: Draws) -> dict[str, np.ndarray]:
    """Class numbers for each output with a loss; -100 at padding and at one place more."""
    found = {}
    for name, a in outputs.items():
        if name in NO_LOSS:
            continue
        found[name] = np.asarray(rng.integers(0, a.shape[-1], a.shape[:-1]))
        if found[name].shape == mask.shape and mask.shape[1] > 1:
            found[name][mask == 0] = -100
            found[name][0, 2] = -100
    return found
