"""Traces of encoder-decoders: each side by its name, comparisons with padding on both sides, golden vectors of decoding."""

from __future__ import annotations

import numpy as np
import pytest

import tinyplm
from tinyplm.checks.modules import modules
from tinyplm.checks.vectors import measure, reading
from tinyplm.checks.vectors.family_cases import CONFIGS
from tinyplm.checks.vectors.subjects import subject
from tinyplm.core import flatten, tree_map

FAMILIES = ["transformer", "marian", "bart", "mbart", "t5", "mt5"]
RNG = np.random.default_rng(0)
IDS, LABELS = RNG.integers(3, 11, (2, 5)), RNG.integers(3, 11, (2, 5))
MASK, TARGET_MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def random_model(family, dtype="float64"):
    model = tinyplm.create(family, CONFIGS[family], key=1, dtype=dtype)
    rng = np.random.default_rng(1)
    return model.with_params(tree_map(lambda a: (a + rng.normal(0, 0.2, a.shape)).astype(dtype), model.params))


def traced(model, **changes):
    inputs = {"attention_mask": MASK, "decoder_attention_mask": TARGET_MASK, **changes}
    with tinyplm.trace() as t:
        _, backward = model.loss(input_ids=IDS, **inputs, targets={"logits": np.where(TARGET_MASK, LABELS, -100)})
        dparams = backward(1.0)
    return t, dparams


@pytest.mark.parametrize("family", FAMILIES)
def test_names_values_and_gradients(family):
    model = random_model(family)
    t, dparams = traced(model)
    for name in (
        "tokens",
        "embeddings",
        "layers.0.attention.q",
        "layers.0.attention.heads",
        "layers.0.mlp.activation",
        "layers.0",
    ):
        for side in ("encoder", "decoder"):
            assert t[f"{side}.{name}"].value.shape[0] == 2
    for name in ("cross.q", "cross.k", "cross.v", "cross.heads", "cross", "cross_residual", "norm3"):
        assert f"decoder.layers.1.{name}" in t and f"encoder.layers.0.{name}" not in t
    assert np.array_equal(t["encoder.tokens"].value, model.params["body"]["tokens"][IDS])
    assert all(record.gradient is not None for record in t.values())
    plain = model.loss(input_ids=IDS, attention_mask=MASK, decoder_attention_mask=TARGET_MASK,
                       targets={"logits": np.where(TARGET_MASK, LABELS, -100)})[1](1.0)  # fmt: skip
    assert all(np.array_equal(a, flatten(plain)[path]) for path, a in flatten(dparams).items()), "a trace changes nothing"
    known = modules(model)
    assert known["decoder.layers.1.cross.k"].endswith(("EncDecAttention.k", "encoder_attn.k_proj"))
    assert known["encoder.layers.0.mlp"].endswith((".wo", ".fc2"))
    assert ("logits" in known) == (not model.buffers)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_differs_by_rounding_alone(family):
    single = random_model(family, "float32")
    a, b = traced(single)[0], traced(single.astype("float64"))[0]
    result = tinyplm.compare(a, b)
    assert result.equal and any(row.difference > 0 for row in result.rows)


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ({"decoder_attention_mask": np.ones_like(TARGET_MASK)}, None),  # padding on the right reaches no real token
        ({"attention_mask": np.ones_like(MASK)}, "encoder.layers.0.attention.heads"),
    ],
)
def test_rows_of_padding_do_not_count(rows, place):
    """Of each side by its own mask, also where both have as many tokens."""
    model = random_model("t5")
    a, b = traced(model)[0], traced(model, **rows)[0]
    result = tinyplm.compare(a, b)
    assert result.first_forward == place


def test_a_changed_value_of_either_side_is_found():
    """In rows that are padding on the other side."""
    model = random_model("bart")
    for name, row in (("encoder.layers.0.mlp", (0, 4)), ("decoder.layers.0.mlp", (1, 0)), ("decoder.layers.1.cross.k", (0, 4))):
        a, b = traced(model)[0], traced(model)[0]
        b[name].value[row] += 1
        assert tinyplm.compare(a, b).first_forward == name


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_vectors_of_decoding(family):
    s = subject(family)
    made = next(made for made in s.cases() if made.name == "cache")
    record, tensors, _ = measure.measured(s, made, ("float64",))
    loaded = reading._vectors(record, "float64", tensors)
    full, cached = loaded.results["output.logits"], loaded.results["output.cached_logits"]
    np.testing.assert_allclose(cached, full, rtol=0, atol=1e-12 * abs(full).max())
