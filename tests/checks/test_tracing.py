"""Traces record what a model computes and change none of it."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL, apart, equal
from tests.support import encoder_families, families
from tinyplm.checks.modules import modules

DECODERS = {f"{name}, {variant}": (name, changes) for name, family in families.FAMILIES.items()
            for variant, changes in {"plain": {}, **(family.variants if name in families.KINDS else {})}.items()}  # fmt: skip
# What attention and MLP of layer 1 are given, where it is not what norm1 and norm2 return.
INPUTS = {
    "openai-gpt": ("layers.0", "layers.1.residual"),
    "olmo2": ("layers.0", "layers.1.residual"),
    "palm": ("layers.1.norm", "layers.1.norm"),
}
BOTH = ("scores", "probabilities")


def decoder(name, **changes):
    ids, targets = families.batch()
    inputs = {"input_ids": ids, "attention_mask": families.PADDING}
    return families.tiny(name, **changes), inputs, {"logits": targets}


def encoder(family, task):
    model = encoder_families.tiny(family, task)
    inputs = encoder_families.batch(model)
    outputs, _ = model(**inputs, grad=False)
    return model, inputs, encoder_families.targets_for(model, outputs)


@pytest.mark.parametrize("options", [{}, {"checkpointing": 1}, {"checkpointing": 2, "key": 3}, {"frozen": 1}], ids=str)
@pytest.mark.parametrize("case", DECODERS)
def test_a_traced_decoder_computes_the_same_bits(case, options):
    name, changes = DECODERS[case]
    model, inputs, targets = decoder(name, **changes)
    loss, backward = model.loss(**inputs, targets=targets, **options)
    gradients = backward(0.7)
    with tinyplm.trace(also=BOTH) as t:
        traced, traced_backward = model.loss(**inputs, targets=targets, **options)
    assert traced == loss and equal(traced_backward(0.7), gradients)
    assert equal(t.gradients, gradients)
    assert t["loss"].value == loss and t["loss"].gradient == 0.7
    frozen = [f"layers.{i}" for i in range(options.get("frozen", 0))]
    without = [path for path, record in t.items() if record.gradient is None]
    assert all(path.startswith(("tokens", "embeddings", *frozen)) for path in without) and bool(without) == bool(frozen)


@pytest.mark.parametrize(("family", "task"), encoder_families.TRAINED)
def test_a_traced_encoder_computes_the_same_bits(family, task):
    model, inputs, targets = encoder(family, task)
    loss, backward = model.loss(**inputs, targets=targets)
    gradients = backward(0.7)
    with tinyplm.trace(also=BOTH) as t:
        traced, traced_backward = model.loss(**inputs, targets=targets)
        assert traced == loss and equal(traced_backward(0.7), gradients)
    assert sum(path.endswith("attention.heads") for path in t) >= 2
    assert all(record.gradient is not None for record in t.values())


def off(a, b):
    """The largest difference over the largest number in b, or over 1e-3."""
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-3)


def merged(a):
    """(B, H, T, E) -> (B T, H E)."""
    return a.transpose(0, 2, 1, 3).reshape(-1, a.shape[1] * a.shape[3])


def rows(a):
    return a.reshape(-1, a.shape[-1])


@pytest.mark.parametrize("case", DECODERS)
def test_recorded_values_and_gradients_fit_each_other(case):
    """Each weight's gradient is the product of what its layer was given and the gradient of what came out."""
    name, changes = DECODERS[case]
    model, inputs, targets = decoder(name, **changes)
    with tinyplm.trace(also=BOTH) as t:
        _, backward = model.loss(**inputs, targets=targets)
    backward(1.0)
    layer, d = t.gradients["body"]["layers"][1], "layers.1"
    norms = [f"{d}.{n}.before" if "before" in layer.get(n, {}) else f"{d}.{n}" for n in ("norm1", "norm2")]
    first, second = (t[path].value for path in INPUTS.get(name, norms))
    if "Wdkv" in layer["attention"]:
        latent = t[f"{d}.attention.latent"].value
        pairs = [(layer["attention"][f"Wu{n}"], latent, t[f"{d}.attention.{n}"].gradient) for n in "kv"]
    else:
        pairs = [(layer["attention"][f"W{n}"], first, t[f"{d}.attention.{n}"].gradient) for n in "qkv"]
    pairs.append((layer["attention"]["Wo"], merged(t[f"{d}.attention.heads"].value), t[f"{d}.attention"].gradient))
    if "Wgate" in layer["mlp"]:
        pairs += [(layer["mlp"][f"W{n}"], second, t[f"{d}.mlp.{n}"].gradient) for n in ("gate", "up")]
        pairs.append((layer["mlp"]["Wdown"], t[f"{d}.mlp.product"].value, t[f"{d}.mlp"].gradient))
        h, g, u = (t[f"{d}.mlp.{n}"] for n in ("product", "activation", "up"))
        assert np.array_equal(h.value, g.value * u.value) and np.array_equal(g.gradient, h.gradient * u.value)
    elif "router" in layer["mlp"]:
        pairs.append((layer["mlp"]["router"]["W"], second, t[f"{d}.mlp.router"].gradient))
        for c, dWdown in enumerate(layer["mlp"]["experts"]["Wdown"]):
            if f"{d}.mlp.experts.{c}" in t:
                product, out = t[f"{d}.mlp.experts.{c}.product"].value, t[f"{d}.mlp.experts.{c}"].gradient
                pairs.append((dWdown, product, out))
    else:
        pairs.append((layer["mlp"]["W1"], second, t[f"{d}.mlp.up"].gradient))
        pairs.append((layer["mlp"]["W2"], t[f"{d}.mlp.activation"].value, t[f"{d}.mlp"].gradient))
    for dW, x, dy in pairs:
        assert off(rows(x).T @ rows(dy), dW) < MODEL
    ids, dtokens = inputs["input_ids"], np.zeros_like(model.params["body"]["tokens"])
    np.add.at(dtokens, ids, t["tokens"].gradient)
    if not model.config.tie_word_embeddings:
        assert off(dtokens, t.gradients["body"]["tokens"]) < MODEL
        hidden = t["norm"].value * (6**-0.5 if name == "palm" else 1) if "norm" in t else t["layers.1"].value
        # a capped head, or Baichuan 2's normalised one, is no plain product
        capped = (
            getattr(model.config, "final_logit_softcapping", None) or getattr(model.config, "z_loss_weight", None) is not None
        )
        assert capped or off(rows(hidden).T @ rows(t["logits"].gradient), t.gradients["head"]["W"]) < MODEL


@pytest.mark.parametrize("case", DECODERS)
def test_scores_and_probabilities_are_those_that_attention_uses(case):
    name, changes = DECODERS[case]
    model, inputs, targets = decoder(name, **changes)
    with tinyplm.trace(also=BOTH) as t:
        _, backward = model.loss(**inputs, targets=targets)
    backward(1.0)
    for i in range(2):
        own = {
            path.removeprefix(f"layers.{i}.attention."): r for path, r in t.items() if path.startswith(f"layers.{i}.attention.")
        }
        heads, P, A, v = own["heads"], own["probabilities"], own["scores"], own["v"]
        (B, H, T, E), K = heads.value.shape, v.value.shape[-1] // heads.value.shape[-1]
        by_head = np.repeat(v.value.reshape(B, T, K, E).transpose(0, 2, 1, 3), H // K, axis=1)
        assert off(P.value @ by_head, heads.value) < MODEL
        dv = (P.value.swapaxes(-1, -2) @ heads.gradient).reshape(B, K, H // K, T, E).sum(axis=2)
        assert off(dv.transpose(0, 2, 1, 3).reshape(B, T, K * E), v.gradient) < MODEL
        assert off(heads.gradient @ by_head.swapaxes(-1, -2), P.gradient) < MODEL
        if "k_rotary" in own and not getattr(model.config, "attn_logit_softcapping", None):
            scale = getattr(model.config, "score_scale", getattr(model.config, "query_pre_attn_scalar", E) ** -0.5)
            k = own["k_rotary"].value
            k = np.repeat(k, H // k.shape[1], axis=1)  # the scores' gradient leads to the queries': dq = scale dA k
            assert off(scale * A.gradient @ k, own["q_rotary"].gradient) < MODEL
        assert np.array_equal(A.gradient != 0, (A.gradient != 0) & (P.value != 0))


def test_names_follow_the_computation_and_gradients_come_in_reverse():
    model, inputs, targets = decoder("llama")
    with tinyplm.trace() as t:
        _, backward = model.loss(**inputs, targets=targets)
    assert t.backward == [] and t.gradients is None and t["norm"].gradient is None
    backward(1.0)
    first = ["norm1", "attention.q", "attention.k", "attention.v", "attention.q_rotary", "attention.k_rotary", "attention.heads",
             "attention", "residual", "norm2", "mlp.gate", "mlp.up", "mlp.activation", "mlp.product", "mlp"]  # fmt: skip
    layers = [f"layers.{i}.{name}" if name else f"layers.{i}" for i in range(2) for name in [*first, ""]]
    assert list(t) == ["tokens", "embeddings", *layers, "norm", "logits", "loss"]
    assert [p for p in t.backward if re.fullmatch(r"layers\.\d|norm|logits|loss|tokens", p)] == [
        "loss", "logits", "norm", "layers.1", "layers.0", "tokens"]  # fmt: skip


def test_scores_only_on_request_also_where_attention_works_by_blocks():
    model, inputs, _ = decoder("gpt2")
    with tinyplm.trace() as t:
        model(**inputs, grad=False)
    assert not any("scores" in path or "probabilities" in path for path in t)
    with tinyplm.trace(also=["scores"]) as t:
        model(**inputs, grad=False)
    assert sum("scores" in path for path in t) == 2 and not any("probabilities" in path for path in t)


def test_each_call_is_a_trace_of_its_own():
    model, inputs, _ = decoder("llama")
    ids = inputs["input_ids"]
    whole, _ = model(ids, grad=False)
    cache = model.empty_cache(3)
    with tinyplm.trace() as t:
        first, _ = model(ids[:, :3], cache=cache, grad=False)
        second, _ = model(ids[:, 3:], cache=first["cache"], grad=False)
    assert len(t.calls) == 2 and t.last is t.calls[1]
    assert np.array_equal(t["logits"].value, second["logits"]) and t.calls[0]["logits"].value.shape[1] == 3
    keys = t["layers.1.attention.k_cached"].value
    assert keys.shape[2] == 5 and apart({"k": keys[:, :, 3:]}, {"k": t["layers.1.attention.k_rotary"].value}) == 0
    assert apart({"l": second["logits"]}, {"l": whole["logits"][:, 3:]}) < MODEL


def test_embeddings_that_are_given():
    model, inputs, targets = decoder("gpt2")
    x = model.params["body"]["tokens"][inputs["input_ids"]]
    with tinyplm.trace() as t:
        outputs, backward = model(inputs_embeds=x)
    _, dx = backward({"logits": np.random.default_rng(0).normal(size=outputs["logits"].shape)})
    assert "tokens" not in t and np.array_equal(t["embeddings"].gradient, dx)


def test_another_thread_is_not_traced():
    model, inputs, _ = decoder("gpt2")
    with tinyplm.trace() as t:
        thread = threading.Thread(target=lambda: model(**inputs, grad=False))
        thread.start()
        thread.join()
    assert t.calls == [] and len(t) == 0


def test_a_trace_that_is_closed_records_no_further_calls():
    model, inputs, _ = decoder("gpt2")
    with pytest.raises(RuntimeError, match="on purpose"):
        with tinyplm.trace() as t:
            model(**inputs, grad=False)
            raise RuntimeError("on purpose")
    model(**inputs, grad=False)
    assert len(t.calls) == 1


def test_records_are_copies():
    model, inputs, _ = decoder("gpt2")
    with tinyplm.trace() as t:
        outputs, _ = model(**inputs, grad=False)
    before = t["logits"].value.copy()
    outputs["logits"][:] = 0
    assert np.array_equal(t["logits"].value, before)


def test_bad_requests():
    with pytest.raises(ValueError, match=r"trace: also: expected some of scores, probabilities, got"):
        with tinyplm.trace(also=["score"]):
            pass
    with tinyplm.trace() as t:
        pass
    with pytest.raises(ValueError, match="trace: expected a call of a model in it, got none"):
        assert t.last is None
    model, inputs, _ = decoder("gpt2")
    with tinyplm.trace() as t:
        model(**inputs, grad=False)
    with pytest.raises(KeyError, match=r"trace: expected one of embeddings.*, got 'layers.7'|trace: expected one of tokens"):
        t["layers.7"]


HUB = {
    "gpt2": {"layers.1.attention.k": "transformer.h.1.attn.c_attn", "layers.0.mlp": "transformer.h.0.mlp.c_proj",
             "layers.1": "transformer.h.1", "logits": "lm_head", "tokens": "transformer.wte", "norm": "transformer.ln_f"},
    "llama": {"layers.1.attention.k": "model.layers.1.self_attn.k_proj", "layers.0.attention": "model.layers.0.self_attn.o_proj",
              "layers.0.norm2": "model.layers.0.post_attention_layernorm", "layers.0.mlp.gate": "model.layers.0.mlp.gate_proj",
              "layers.0": "model.layers.0", "logits": "lm_head"},
}  # fmt: skip


@pytest.mark.parametrize("name", families.FAMILIES)
def test_hub_modules_of_decoders(name):
    model, inputs, _ = decoder(name)
    with tinyplm.trace() as t:
        model(**inputs, grad=False)
    found = modules(model)
    assert HUB.get(name, {}).items() <= found.items()
    assert set(found) <= set(t), "a name that no trace has"


@pytest.mark.parametrize(("family", "task"), encoder_families.CASES)
def test_hub_modules_of_encoders_are_names_of_a_trace(family, task):
    model = encoder_families.tiny(family, task)
    with tinyplm.trace() as t:
        model(**encoder_families.batch(model), grad=False)
    assert set(modules(model)) <= set(t)


def test_hub_modules_of_shared_layers():
    """ALBERT's layers share their module, so the output of one layer has no module of its own."""
    assert "layers.0" not in modules(encoder_families.tiny("albert", "body"))
    assert modules(encoder_families.tiny("bert", "body"))["layers.1"] == "bert.encoder.layer.1"
